//! Reading back: rows of the stream out of the same columns of any k slices, masked as seeders send them.
//!
//! Each tile is unmasked while it is copied to its place in the stream, and what is missing is made there from the tiles of
//! its row, all in cache. Nothing is judged: chunks are authentic or not when they are opened.

use tallow_types::limits::TILE;
use tallow_types::unit::SlotIndex;

use crate::mask::{SlotMask, StripeMask};
use crate::stripe::{Layout, LayoutError};

/// Whole rows that hold a range of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    layout: Layout,
    offset: u32,
    len: u32,
}

/// Why rows can't be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum ColumnsError<E> {
    /// Not k different slots.
    #[error("{found} slices are not the {expected} that a stripe is read from")]
    Count { expected: u8, found: usize },
    /// Bytes of another length than the columns have.
    #[error("{found} bytes of slot {slot} where {expected} were asked for")]
    Length { slot: SlotIndex, expected: u32, found: usize },
    /// What the code says.
    #[error(transparent)]
    Recreate(E),
}

impl Layout {
    /// The columns to ask k slots for, so that a range of the stream can be read.
    ///
    /// # Errors
    /// [`LayoutError::Range`] if it ends behind the stripe.
    pub fn columns(self, offset: u32, len: u32) -> Result<Columns, LayoutError> {
        let pieces = self.locate(offset, len)?;
        let row_of = |at: u32| at / TILE * TILE;
        let first = pieces.first().map_or(0, |piece| row_of(piece.offset));
        let end = pieces.last().map_or(first, |piece| (row_of(piece.offset) + TILE).min(self.slice_len()));
        Ok(Columns { layout: self, offset: first, len: end - first })
    }
}

impl Columns {
    /// Where they begin in each slice. Bytes.
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// How long they are in each slice. Bytes.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.len
    }

    /// Whether there is nothing to ask for.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Where the rows begin in the stream. Bytes.
    #[must_use]
    pub fn begin(self) -> u32 {
        self.offset * u32::from(self.layout.data())
    }

    /// The rows, in the order of the stream, from the masked columns of k different slots. `recreate` makes tiles of the
    /// slots wanted out of tiles of k others; it is asked only if data is missing.
    ///
    /// # Errors
    /// [`ColumnsError`] if these are not k columns, or `recreate` fails.
    pub fn restore<E>(
        self,
        given: &[(SlotIndex, &[u8])],
        mask: &StripeMask,
        mut recreate: impl FnMut(&[(SlotIndex, &[u8])], &[SlotIndex], &mut [&mut [u8]]) -> Result<(), E>,
    ) -> Result<Vec<u8>, ColumnsError<E>> {
        let mut given = self.checked(given, mask)?;
        let data = usize::from(self.layout.data());
        let mut out = vec![0; data * self.len as usize];
        let missing: Vec<SlotIndex> = (0..self.layout.data())
            .map(SlotIndex::new)
            .filter(|slot| given.iter().all(|column| column.slot != *slot))
            .collect();
        let mut spare = vec![0; missing.len() * TILE as usize];
        for row in out.chunks_mut(data * TILE as usize) {
            let len = row.len() / data;
            let mut tiles: Vec<Option<&mut [u8]>> = row.chunks_exact_mut(len).map(Some).collect();
            let mut spares = spare.chunks_exact_mut(TILE as usize);
            let mut present: Vec<(SlotIndex, &[u8])> = Vec::with_capacity(data);
            for column in &mut given {
                let place = tiles.get_mut(usize::from(column.slot.get())).and_then(Option::take);
                let place = place.or_else(|| spares.next().map(|tile| &mut tile[..len]));
                let tile = place.expect("as many slots are missing as there are others in their place");
                column.unmask(tile);
                present.push((column.slot, tile));
            }
            if !missing.is_empty() {
                let mut wanted: Vec<&mut [u8]> = tiles.into_iter().flatten().collect();
                recreate(&present, &missing, &mut wanted).map_err(ColumnsError::Recreate)?;
            }
        }
        Ok(out)
    }

    fn checked<'a, E>(
        self,
        given: &[(SlotIndex, &'a [u8])],
        mask: &StripeMask,
    ) -> Result<Vec<Column<'a>>, ColumnsError<E>> {
        let mut slots: Vec<SlotIndex> = given.iter().map(|(slot, _)| *slot).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() != given.len() || slots.len() != usize::from(self.layout.data()) {
            return Err(ColumnsError::Count { expected: self.layout.data(), found: slots.len() });
        }
        let column = |(slot, bytes): &(SlotIndex, &'a [u8])| {
            if bytes.len() != self.len as usize {
                return Err(ColumnsError::Length { slot: *slot, expected: self.len, found: bytes.len() });
            }
            Ok(Column { slot: *slot, offset: self.offset, rest: bytes, mask: mask.slot(*slot) })
        };
        given.iter().map(column).collect()
    }
}

/// One column, gone through from its top.
struct Column<'a> {
    slot: SlotIndex,
    offset: u32,
    rest: &'a [u8],
    mask: SlotMask,
}

impl Column<'_> {
    /// Writes the next tile, unmasked.
    fn unmask(&mut self, out: &mut [u8]) {
        let (tile, rest) = self.rest.split_at(out.len());
        self.mask.write(self.offset, tile, out);
        self.rest = rest;
        self.offset += u32::try_from(tile.len()).expect("a tile has at most 64 KiB");
    }
}

#[cfg(test)]
mod tests;

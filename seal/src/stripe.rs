//! One stripe before coding: sealed chunks packed into a stream, and the layout of that stream in data slices.
//!
//! ```text
//! stream -> rows of k tiles of 64 KiB; the last row has tiles of ceil(rest / k) bytes, rounded up to 1 KiB
//!
//!            slot 0    slot 1    ...  slot k-1
//!   row 0  | tile 0  | tile 1  | ... | tile k-1 |      data slice j = the tiles below slot j, in row order
//!   row 1  | tile k  | ...                      |
//!   last   | short   | short   | ... | short    |      zeros fill up behind the stream
//! ```
//!
//! Guarantees: k and the length of a slice say where every byte is; each byte of the stream is in exactly one place; a
//! range of the stream is at most one contiguous range of each data slice.
//!
//! Does not contain the code: parity is made of whole data slices, column by column, so tiles don't matter to it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use tallow_types::domain;
use tallow_types::id::Digest;
use tallow_types::limits::{SLICE_MAX, SLICE_UNIT, TILE};
use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

use crate::mask::{Pad, SlotMask, StripeMask};

/// Memory that the slices of one stripe take at most. Bytes.
const STRIPE_MEMORY: u32 = 32 << 20;

/// The length that slices of a full stripe have under a profile. Bytes.
#[must_use]
pub fn target_slice_len(profile: Profile) -> u32 {
    let share = STRIPE_MEMORY / u32::from(profile.slots());
    (share - share % TILE).min(SLICE_MAX)
}

/// Whether slices can have this length: 1 KiB to 4 MiB in steps of 1 KiB.
#[must_use]
pub const fn is_slice_len(len: u32) -> bool {
    len > 0 && len <= SLICE_MAX && len.is_multiple_of(SLICE_UNIT)
}

/// Part of one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The data slice.
    pub slot: SlotIndex,
    /// Where it begins in the slice. Bytes.
    pub offset: u32,
    /// How long it is. Bytes.
    pub len: u32,
}

/// Where a stream lies in data slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    data: u8,
    slice_len: u32,
}

/// Why there is no such layout, or nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum LayoutError {
    /// No bytes, or more than the slices of a stripe can hold.
    #[error("a stripe of {data} data slices can't hold a stream of {len} bytes")]
    Stream { data: u8, len: u64 },
    /// A slice length that no stripe has.
    #[error("slices are 1 KiB to 4 MiB long in steps of 1 KiB, not {len} bytes")]
    Slice { len: u32 },
    /// A range that ends behind the stripe.
    #[error("{len} bytes from {offset} reach behind the {capacity} bytes of the stripe")]
    Range { offset: u32, len: u32, capacity: u32 },
    /// Slices given that are not those of this layout, or ranges that don't cover what was asked for.
    #[error("the bytes of slot {slot} are not the ones that this takes")]
    Slot { slot: SlotIndex },
}

impl Layout {
    /// For a stream of `len` bytes: the shortest slices that hold it.
    ///
    /// # Errors
    /// [`LayoutError::Stream`] if it is empty or too long.
    pub fn for_stream(profile: Profile, len: usize) -> Result<Self, LayoutError> {
        let data = profile.data();
        let bad = || LayoutError::Stream { data, len: len as u64 };
        let len = u32::try_from(len).map_err(|_| bad())?;
        let row = u32::from(data) * TILE;
        let (rows, rest) = (len / row, len % row);
        let last = rest.div_ceil(u32::from(data)).next_multiple_of(SLICE_UNIT);
        let slice_len = rows * TILE + last;
        Self::from_slice_len(profile, slice_len).map_err(|_| bad())
    }

    /// For slices of a known length.
    ///
    /// # Errors
    /// [`LayoutError::Slice`] if no slice has that length.
    pub const fn from_slice_len(profile: Profile, slice_len: u32) -> Result<Self, LayoutError> {
        if !is_slice_len(slice_len) {
            return Err(LayoutError::Slice { len: slice_len });
        }
        Ok(Self { data: profile.data(), slice_len })
    }

    /// k: how many data slices there are.
    #[must_use]
    pub const fn data(self) -> u8 {
        self.data
    }

    /// The length of every slice. Bytes.
    #[must_use]
    pub const fn slice_len(self) -> u32 {
        self.slice_len
    }

    /// What the data slices hold together, padding included. Bytes.
    #[must_use]
    pub fn capacity(self) -> u32 {
        u32::from(self.data) * self.slice_len
    }

    /// Where one byte of the stream is, with how many bytes of the stream follow it in the same tile.
    fn place(self, offset: u32) -> Piece {
        let row = u32::from(self.data) * TILE;
        let (whole, last) = (self.slice_len / TILE, self.slice_len % TILE);
        let (above, within, tile) = if offset < whole * row {
            (offset / row * TILE, offset % row, TILE)
        } else {
            (whole * TILE, offset - whole * row, last)
        };
        let slot = u8::try_from(within / tile).expect("a stripe has fewer than 255 data slices");
        let skip = within % tile;
        Piece { slot: SlotIndex::new(slot), offset: above + skip, len: tile - skip }
    }

    /// The pieces of slices that hold a range of the stream, in the order of the stream.
    ///
    /// # Errors
    /// [`LayoutError::Range`] if it ends behind the stripe.
    pub fn locate(self, offset: u32, len: u32) -> Result<Vec<Piece>, LayoutError> {
        let capacity = self.capacity();
        let end = offset.checked_add(len).filter(|end| *end <= capacity);
        let end = end.ok_or(LayoutError::Range { offset, len, capacity })?;
        let (mut pieces, mut at) = (Vec::new(), offset);
        while at < end {
            let mut piece = self.place(at);
            piece.len = piece.len.min(end - at);
            at += piece.len;
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// What to read for a range of the stream: one contiguous range of each data slice that has part in it.
    ///
    /// # Errors
    /// [`LayoutError::Range`] if it ends behind the stripe.
    pub fn spans(self, offset: u32, len: u32) -> Result<Vec<Piece>, LayoutError> {
        let mut spans = BTreeMap::<SlotIndex, Piece>::new();
        for piece in self.locate(offset, len)? {
            let span = spans.entry(piece.slot).or_insert(Piece { len: 0, ..piece });
            debug_assert_eq!(span.offset + span.len, piece.offset, "tiles of a slot follow each other");
            span.len += piece.len;
        }
        Ok(spans.into_values().collect())
    }

    /// Appends a range of the stream to `out`, from the bytes that [`Layout::spans`] names; what is given may reach further.
    ///
    /// # Errors
    /// [`LayoutError::Range`] as `spans`; [`LayoutError::Slot`] if what is given doesn't cover the range.
    pub fn gather_into(
        self,
        offset: u32,
        len: u32,
        given: &[(Piece, &[u8])],
        out: &mut Vec<u8>,
    ) -> Result<(), LayoutError> {
        self.collect(offset, len, given, |_, part| out.extend_from_slice(part))
    }

    /// The same out of masked bytes: each piece is unmasked when it has been copied.
    ///
    /// # Errors
    /// As [`Layout::gather_into`].
    pub fn unmask_into(
        self,
        offset: u32,
        len: u32,
        given: &[(Piece, &[u8])],
        mask: &StripeMask,
        out: &mut Vec<u8>,
    ) -> Result<(), LayoutError> {
        let mut pad = Pad::new();
        let mut masks: Vec<Option<SlotMask>> = (0..self.data).map(|_| None).collect();
        self.collect(offset, len, given, |piece, part| {
            let begin = out.len();
            out.extend_from_slice(part);
            let slot = masks[usize::from(piece.slot.get())].get_or_insert_with(|| mask.slot(piece.slot));
            slot.apply(piece.offset, &mut out[begin..], &mut pad);
        })
    }

    /// Finds each piece of a range, in the order of the stream.
    fn collect(
        self,
        offset: u32,
        len: u32,
        given: &[(Piece, &[u8])],
        mut take: impl FnMut(Piece, &[u8]),
    ) -> Result<(), LayoutError> {
        for piece in self.locate(offset, len)? {
            let part = given.iter().find_map(|(span, bytes)| {
                let skip =
                    piece.offset.checked_sub(span.offset).filter(|_| span.slot == piece.slot)? as usize;
                bytes.get(skip..skip.checked_add(piece.len as usize)?)
            });
            take(piece, part.ok_or(LayoutError::Slot { slot: piece.slot })?);
        }
        Ok(())
    }

    /// A range of the stream as [`Layout::gather_into`] puts it together.
    ///
    /// # Errors
    /// As there.
    pub fn gather_range(
        self,
        offset: u32,
        len: u32,
        given: &[(Piece, &[u8])],
    ) -> Result<Vec<u8>, LayoutError> {
        let mut out = Vec::with_capacity(len as usize);
        self.gather_into(offset, len, given, &mut out)?;
        Ok(out)
    }

    /// The stream out of all data slices, padding included.
    ///
    /// # Errors
    /// [`LayoutError::Slot`] if one is missing or has another length.
    pub fn gather(self, slices: &[&[u8]]) -> Result<Vec<u8>, LayoutError> {
        let mut given = Vec::with_capacity(slices.len());
        for (slot, bytes) in (0..self.data).zip(slices) {
            let slot = SlotIndex::new(slot);
            if bytes.len() != self.slice_len as usize {
                return Err(LayoutError::Slot { slot });
            }
            given.push((Piece { slot, offset: 0, len: self.slice_len }, *bytes));
        }
        self.gather_range(0, self.capacity(), &given)
    }
}

/// No room for this chunk in this stripe: close it and begin the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stripe has room for {room} bytes, not {len}")]
pub struct Full {
    /// Bytes left.
    pub room: u32,
    /// Bytes offered.
    pub len: usize,
}

/// Packs sealed chunks into the stream of one stripe.
pub struct StripeBuilder {
    profile: Profile,
    capacity: u32,
    stream: Vec<u8>,
}

impl StripeBuilder {
    /// For slices of at most `slice_len` bytes, which is brought into the range that slices have.
    #[must_use]
    pub fn new(profile: Profile, slice_len: u32) -> Self {
        Self::with_memory(profile, slice_len, Vec::new())
    }

    /// The same in memory that another stripe left.
    #[must_use]
    pub fn with_memory(profile: Profile, slice_len: u32, mut memory: Vec<u8>) -> Self {
        let slice_len = (slice_len - slice_len % SLICE_UNIT).clamp(SLICE_UNIT, SLICE_MAX);
        memory.clear();
        Self { profile, capacity: u32::from(profile.data()) * slice_len, stream: memory }
    }

    /// Bytes left.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.capacity - self.len()
    }

    /// Whether a sealed chunk of this length fits.
    #[must_use]
    pub fn fits(&self, len: usize) -> bool {
        len <= self.room() as usize
    }

    /// Bytes packed so far.
    ///
    /// # Panics
    /// Never: the capacity is a `u32`.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.stream.len()).expect("a stream is at most its capacity")
    }

    /// Whether nothing is packed yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.stream.is_empty()
    }

    /// Adds a sealed chunk, and says where in the stream it begins.
    ///
    /// # Errors
    /// [`Full`] if it doesn't fit; nothing is changed.
    pub fn push(&mut self, sealed: &[u8]) -> Result<u32, Full> {
        if !self.fits(sealed.len()) {
            return Err(Full { room: self.room(), len: sealed.len() });
        }
        let offset = self.len();
        self.stream.extend_from_slice(sealed);
        Ok(offset)
    }

    /// The finished stripe; `None` if nothing was packed.
    #[must_use]
    pub fn close(self) -> Option<Stripe> {
        Stripe::new(self.profile, self.stream).ok()
    }
}

/// The finished stream of a stripe with its layout.
pub struct Stripe {
    profile: Profile,
    layout: Layout,
    stream: Vec<u8>,
    /// Made once: the bytes can't change any more.
    digest: OnceLock<Digest>,
}

impl Stripe {
    /// From a stream, as a journal replays it.
    ///
    /// # Errors
    /// [`LayoutError::Stream`] if it is empty or too long.
    pub fn new(profile: Profile, stream: Vec<u8>) -> Result<Self, LayoutError> {
        let layout = Layout::for_stream(profile, stream.len())?;
        Ok(Self { profile, layout, stream, digest: OnceLock::new() })
    }

    /// k of n.
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.profile
    }

    /// Where the stream lies in the data slices.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The sealed chunks, one after another.
    #[must_use]
    pub fn stream(&self) -> &[u8] {
        &self.stream
    }

    /// Rows of k tiles, one tile behind the other as in the stream; zeros fill up the last row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let (data, whole) = (usize::from(self.profile.data()), self.layout.slice_len as usize);
        let tiles =
            (0..whole).step_by(TILE as usize).map(move |begin| data * (TILE as usize).min(whole - begin));
        let mut rest = self.stream.as_slice();
        tiles.map(move |len| {
            let (row, behind) = rest.split_at(len.min(rest.len()));
            rest = behind;
            if row.len() == len {
                return Cow::Borrowed(row);
            }
            let mut padded = row.to_vec();
            padded.resize(len, 0);
            Cow::Owned(padded)
        })
    }

    /// What decides whether a later attempt makes the same slices: profile, slice length and stream.
    #[must_use]
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let shape = [self.profile.data(), self.profile.parity()];
            let slice_len = self.layout.slice_len.to_le_bytes();
            Digest::new(domain::STRIPE_DIGEST.hash(&[&shape, &slice_len, &self.stream]))
        })
    }

    /// The memory of the stream, emptied, for the next stripe.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        let mut stream = self.stream;
        stream.clear();
        stream
    }
}

#[cfg(test)]
mod tests;

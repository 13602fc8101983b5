//! The tail of a group commit: the last stripes, which hold the records of catalog and repair index.
//!
//! A root names the root before it with the length of the slices that hold it, which may be those of its own stripe. So
//! the last stripe's length is settled before the roots are written, with room for them, and the stripe is filled up
//! with zeros to exactly that length.

use std::sync::Arc;

use tallow_seal::chunk::{CHUNK_OVERHEAD, ChunkRef, Sealer};
use tallow_seal::head::HeadRef;
use tallow_seal::keys::ChunkKeys;
use tallow_seal::record::{self, RecordRoot};
use tallow_seal::stripe::{Layout, StripeBuilder};
use tallow_types::codec::{Tagged, encode};
use tallow_types::id::StripeId;
use tallow_types::limits::RECORD_PIECES_MAX;
use tallow_types::profile::Profile;
use tallow_types::unit::LeafIndex;

use super::cell::{Cell, Packed, Placement};
use super::packer::{Closed, Packer};
use super::snapshot::Step;
use crate::identity::random_bytes;

/// Where a piece lies: in which stripe of the tail, and how.
#[derive(Clone, Copy)]
struct Put {
    stripe: usize,
    chunk: ChunkRef,
}

/// A finished stripe of the tail.
pub(crate) struct Done {
    pub closed: Closed,
    pub stripe: StripeId,
}

/// The tail in the making.
pub(crate) struct Tail<'a> {
    profile: Profile,
    packer: &'a Packer,
    sealer: Sealer,
    first_leaf: u64,
    done: Vec<(Done, u32)>,
    builder: StripeBuilder,
    cell: Arc<Cell>,
    id: StripeId,
}

/// What went wrong; all of it would be a bug.
pub(crate) type Bug = String;

fn bug(error: impl std::fmt::Display) -> Bug {
    error.to_string()
}

/// The most that a sealed root of so many pieces takes.
const fn root_bound(pieces: usize) -> usize {
    128 + pieces * ChunkRef::LEN + CHUNK_OVERHEAD as usize
}

impl<'a> Tail<'a> {
    /// Goes on from a stripe that was taken open, whose leaf is `first_leaf`.
    pub fn resume(
        profile: Profile,
        packer: &'a Packer,
        (builder, cell): (StripeBuilder, Arc<Cell>),
        first_leaf: LeafIndex,
    ) -> Self {
        let id = StripeId::new(random_bytes());
        let first_leaf = first_leaf.get();
        Self { profile, packer, sealer: Sealer::default(), first_leaf, done: Vec::new(), builder, cell, id }
    }

    fn leaf(&self) -> LeafIndex {
        LeafIndex::new(self.first_leaf + self.done.len() as u64)
    }

    /// Closes the present stripe and begins another.
    fn turn(&mut self) -> Result<(), Bug> {
        let builder = std::mem::replace(&mut self.builder, self.packer.builder());
        let cell = std::mem::replace(&mut self.cell, self.packer.cell());
        let id = std::mem::replace(&mut self.id, StripeId::new(random_bytes()));
        let stripe = builder.close().ok_or("an empty stripe in the tail")?;
        let slice_len = stripe.layout().slice_len();
        self.done.push((Done { closed: Closed { cell, stripe }, stripe: id }, slice_len));
        Ok(())
    }

    /// Seals a plaintext and packs it, leaving `spare` bytes behind it.
    fn put(&mut self, keys: &ChunkKeys, plain: &[u8], spare: usize) -> Result<Put, Bug> {
        let plain = keys.identify(plain);
        let sealed = self.sealer.seal(keys, &plain).map_err(bug)?;
        if !self.builder.fits(sealed.len() + spare) {
            if self.builder.is_empty() {
                return Err("a record's piece is larger than a stripe".into());
            }
            self.turn()?;
        }
        let offset = self.builder.push(&sealed).map_err(bug)?;
        let chunk = ChunkRef {
            id: plain.id(),
            leaf: self.leaf(),
            offset,
            sealed_len: u32::try_from(sealed.len()).map_err(bug)?,
            plain_len: u32::try_from(plain.len()).map_err(bug)?,
        };
        Ok(Put { stripe: self.done.len(), chunk })
    }

    /// A chunk of its own: a list of chunks of a very large blob.
    pub fn chunk(&mut self, keys: &ChunkKeys, plain: &[u8]) -> Result<ChunkRef, Bug> {
        Ok(self.put(keys, plain, 0)?.chunk)
    }

    /// The pieces of a record.
    pub fn pieces<T: Tagged>(&mut self, keys: &ChunkKeys, record: &T) -> Result<Vec<ChunkRef>, Bug> {
        record::pieces(record).iter().map(|piece| self.chunk(keys, piece)).collect()
    }

    /// How large a part of a table may be. Bytes.
    pub fn part_max(&self) -> usize {
        self.packer.capacity() as usize / 2
    }

    /// A part of a table, where it is stored already if it is. Says whether it is new; then later ones may find it.
    pub fn part(&mut self, keys: &ChunkKeys, plain: &[u8]) -> Result<(ChunkRef, bool), Bug> {
        let known = self.packer.find(&keys.identify(plain).id(), &self.packer.usage()).map_err(bug)?;
        if let Some(Placement::Stored { chunk, .. }) = known {
            return Ok((chunk, false));
        }
        let chunk = self.chunk(keys, plain)?;
        let ChunkRef { id, offset, sealed_len, plain_len, .. } = chunk;
        self.cell.add_part(Packed { id, offset, sealed_len, plain_len });
        Ok((chunk, true))
    }

    /// Nothing is to be written after all: the stripe that was taken open, if there is anything in it.
    pub fn give_up(self) -> Option<Closed> {
        let first = self.done.into_iter().next().map(|(done, _)| done.closed);
        first.or_else(|| Some(Closed { cell: self.cell, stripe: self.builder.close()? }))
    }

    /// Writes the roots of both logs and closes the last stripe. Gives the stripes in order of their leaves.
    pub fn finish(mut self, logs: [(&ChunkKeys, &mut Step); 2]) -> Result<Vec<Done>, Bug> {
        let records = logs.iter().flat_map(|(_, step)| &step.records);
        let bounds: Vec<usize> =
            records.map(|record| root_bound(record.pieces.len().min(RECORD_PIECES_MAX))).collect();
        let mut bound: usize = bounds.iter().sum();
        let mut bounds = bounds.into_iter();
        let mut slice_len = self.room_for(&mut bound)?;
        for (keys, step) in logs {
            let mut previous = step.previous;
            for record in &step.records {
                let need = bounds.next().unwrap_or_default();
                if !self.builder.fits(need) {
                    self.fill(slice_len)?;
                    self.turn()?;
                    slice_len = self.room_for(&mut bound)?;
                }
                let root = RecordRoot::new(previous, record.pieces.clone()).map_err(bug)?;
                let put = self.put(keys, &encode(&root), 0)?;
                bound -= need;
                let head = self.reference(&put, slice_len)?;
                step.roots.push(head);
                previous = Some(head);
            }
        }
        if !self.builder.is_empty() {
            self.fill(slice_len)?;
            self.turn()?;
        }
        Ok(self.done.into_iter().map(|(done, _)| done).collect())
    }

    /// Settles the length of the present stripe, with room for roots of at most so many bytes, or as many as it holds.
    fn room_for(&mut self, bound: &mut usize) -> Result<u32, Bug> {
        let capacity = self.packer.capacity() as usize;
        if *bound <= capacity && !self.builder.fits(*bound) {
            self.turn()?;
        }
        let len = (self.builder.len() as usize + *bound).min(capacity);
        Ok(Layout::for_stream(self.profile, len).map_err(bug)?.slice_len())
    }

    fn reference(&self, put: &Put, slice_len: u32) -> Result<HeadRef, Bug> {
        let (stripe, slice_len) = match self.done.get(put.stripe) {
            Some((done, slice_len)) => (done.stripe, *slice_len),
            None if put.stripe == self.done.len() => (self.id, slice_len),
            None => return Err("a root was pushed out of its stripe".into()),
        };
        Ok(HeadRef { chunk: put.chunk, stripe, slice_len })
    }

    /// Fills the stripe up so that its slices have exactly this length.
    fn fill(&mut self, slice_len: u32) -> Result<(), Bug> {
        let whole = Layout::from_slice_len(self.profile, slice_len).map_err(bug)?.capacity();
        let missing = whole.checked_sub(self.builder.len()).ok_or("the roots took more than their bound")?;
        self.builder.push(&vec![0; missing as usize]).map_err(bug)?;
        let layout = Layout::for_stream(self.profile, self.builder.len() as usize).map_err(bug)?;
        if layout.slice_len() == slice_len {
            Ok(())
        } else {
            Err("the last stripe has another length".into())
        }
    }
}

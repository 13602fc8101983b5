//! From what seeders sent to plain chunks: unmask, decode what is missing, open. All of it is work for a processor, so
//! callers run it on threads that may take their time.
//!
//! Guarantees: what comes out opened under the account's keys, and is the chunk its id names. Bytes are copied once, while
//! they are unmasked, and opened where they lie; only slices that did not come are decoded.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes as Payload;
use tallow_seal::chunk::{ChunkRef, open_in_place};
use tallow_seal::keys::{ChunkKeys, ContractKeys};
use tallow_seal::stripe::{Layout, Piece};
use tallow_types::id::StripeId;
use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

/// Under which keys a chunk is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Catalog,
    Repair,
}

/// Parts of a stripe, masked as they came.
pub(crate) enum Given {
    /// The pieces of data slices that hold a range of the stream.
    Pieces(Vec<(Piece, Payload)>),
    /// Rows that hold it: the same columns of k slices.
    Columns(Vec<(SlotIndex, Payload)>),
}

/// Chunks of one stripe that are to be opened. They don't overlap.
pub(crate) struct Unpack {
    pub keys: Arc<ContractKeys>,
    pub profile: Profile,
    pub stripe: StripeId,
    pub layout: Layout,
    pub under: Under,
    pub refs: Vec<ChunkRef>,
}

impl Unpack {
    /// The range of the stream that holds all chunks: where it begins, and its length. Chunks may lie anywhere in a
    /// stripe, and what is between them counts too.
    pub fn range(&self) -> (u32, u32) {
        let first = self.refs.iter().map(|chunk| chunk.offset).min().unwrap_or(0);
        let end = self.refs.iter().map(|chunk| chunk.offset + chunk.sealed_len).max().unwrap_or(first);
        (first, end - first)
    }

    /// The plain chunks, or why they don't open.
    pub fn run(&self, given: &Given) -> Result<Vec<Payload>, String> {
        let ((offset, len), mask) = (self.range(), self.keys.mask.stripe(&self.stripe));
        match given {
            Given::Pieces(pieces) => {
                let pieces: Vec<_> = pieces.iter().map(|(piece, bytes)| (*piece, &bytes[..])).collect();
                let mut stream = Vec::with_capacity(len as usize);
                self.layout.unmask_into(offset, len, &pieces, &mask, &mut stream).map_err(text)?;
                self.open(stream, offset)
            }
            Given::Columns(columns) => {
                let rows = self.layout.columns(offset, len).map_err(text)?;
                let codec = tallow_erasure::codec(self.profile);
                let columns: Vec<_> = columns.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
                let stream = rows
                    .restore(&columns, &mask, |present, wanted, out| codec.recreate(present, wanted, out));
                let stream = stream.map_err(text)?;
                self.open(stream, rows.begin())
            }
        }
    }

    /// The same from k whole slices.
    pub fn run_whole(&self, slices: Vec<(SlotIndex, Payload)>) -> Result<Vec<Payload>, String> {
        let (offset, len) = self.range();
        let rows = self.layout.columns(offset, len).map_err(text)?;
        let part = rows.offset() as usize..(rows.offset() + rows.len()) as usize;
        self.run(&Given::Columns(
            slices.into_iter().map(|(slot, slice)| (slot, slice.slice(part.clone()))).collect(),
        ))
    }

    /// Opens each chunk where it lies in a part of the stream.
    fn open(&self, mut stream: Vec<u8>, begin: u32) -> Result<Vec<Payload>, String> {
        enum Plain {
            Here(usize, usize),
            Unpacked(Vec<u8>),
        }
        let mut opened = Vec::with_capacity(self.refs.len());
        for chunk in &self.refs {
            let at = (chunk.offset - begin) as usize;
            let sealed = stream.get_mut(at..at + chunk.sealed_len as usize).unwrap_or_default();
            opened.push(match open_in_place(self.chunk_keys(), chunk, sealed).map_err(text)? {
                Cow::Borrowed(plain) => Plain::Here(at, plain.len()),
                Cow::Owned(plain) => Plain::Unpacked(plain),
            });
        }
        let stream = Payload::from(stream);
        let plain = opened.into_iter().map(|plain| match plain {
            Plain::Here(at, len) => stream.slice(at..at + len),
            Plain::Unpacked(plain) => plain.into(),
        });
        Ok(plain.collect())
    }

    fn chunk_keys(&self) -> &ChunkKeys {
        match self.under {
            Under::Catalog => &self.keys.catalog,
            Under::Repair => &self.keys.repair,
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

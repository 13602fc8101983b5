//! Reading slices, while others are written, moved and freed.
//!
//! A place is given back only after the index has forgotten it, and no place is ever named twice. So whoever has read
//! from a place that the index still names afterwards has read the slice; and so has, whatever the index says, whoever
//! finds the right root.

use tallow_proofs::slice::Hasher;

use super::index::View;
use super::key::SliceKey;
use super::record::HEADER;
use super::row::SliceRow;
use super::{Buffer, Job, ReadError, SliceStore};

/// A slice is read and hashed in pieces of this size, so that the hash finds them in the cache. Bytes.
const PIECE: usize = 256 << 10;

impl SliceStore {
    /// Part of a slice.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, key: &SliceKey, offset: u32, length: u32) -> Result<Buffer, ReadError> {
        loop {
            let given_back = self.shared.segments.given_back();
            let row = self.slice(key)?.ok_or(ReadError::NotFound)?;
            let end = offset.checked_add(length).filter(|end| *end <= row.length);
            if end.is_none() {
                return Err(ReadError::Range { offset, length, slice: row.length });
            }
            if row.damaged {
                return Err(ReadError::Damaged);
            }
            let outcome = self.attempt(&row, offset, length);
            if let Ok(Found::Whole(bytes)) = outcome {
                return Ok(bytes);
            }
            // Nothing was given back anywhere, so this place wasn't. Else the index knows.
            let stays = self.shared.segments.given_back() == given_back
                || self.slice(key)?.is_some_and(|now| now.place() == row.place());
            if !stays {
                continue;
            }
            return match outcome? {
                Found::Whole(bytes) | Found::Likely(bytes) => Ok(bytes),
                Found::Wrong => {
                    tracing::error!(stripe = key.stripe.short(), segment = row.segment, "slice is damaged");
                    self.report(vec![(*key, row.place())]);
                    Err(ReadError::Damaged)
                }
            };
        }
    }

    /// Tells the index of damage. If it is too busy to hear, the next reader tells it again.
    fn report(&self, places: Vec<(SliceKey, super::row::Place)>) {
        if let Err(job) = self.shared.queue.try_push(Job::Damaged(places, Box::new(|_| {}))) {
            job.refuse(&super::WriteError::Busy);
        }
    }

    fn attempt(&self, row: &SliceRow, offset: u32, length: u32) -> std::io::Result<Found> {
        let file = self.shared.segments.file(row.segment)?;
        let start = row.offset + HEADER;
        if self.shared.verified.has(&row.place()) {
            let mut bytes = vec![0; length as usize];
            file.read_at(start + u64::from(offset), &mut bytes)?;
            return Ok(Found::Likely(bytes.into()));
        }
        let mut bytes = vec![0; row.length as usize];
        let mut hasher = Hasher::new();
        let mut at = start;
        for piece in bytes.chunks_mut(PIECE) {
            file.read_at(at, piece)?;
            hasher.update(piece);
            at += piece.len() as u64;
        }
        if hasher.root() != row.root {
            return Ok(Found::Wrong);
        }
        self.shared.verified.add([row.place()]);
        let (offset, length) = (offset as usize, length as usize);
        Ok(Found::Whole(Buffer::from(bytes).slice(offset..offset + length)))
    }

    /// Where a slice lies, if it is here.
    ///
    /// # Errors
    /// [`super::IndexError`].
    pub fn slice(&self, key: &SliceKey) -> Result<Option<SliceRow>, super::IndexError> {
        View::open(&self.shared.database)?.slice(*key)
    }
}

enum Found {
    /// Hashed: these are the bytes.
    Whole(Buffer),
    /// Hashed of late, in this place.
    Likely(Buffer),
    /// Hashed: these are not.
    Wrong,
}

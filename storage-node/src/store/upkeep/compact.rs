//! Writing again what lives in segments that are mostly dead, so that they can go.
//!
//! A segment is written again when its records are no more than half of the disk that it takes, or an eighth of what was
//! ever written into it. Gaps of whole blocks have been given back before, so the first is the case of small slices, the
//! second that of large ones. Of all that is written into a segment at most the share `t` is therefore written once more,
//! and bytes written come to at most `1 / (1 - t)` times the bytes put: 2 for small slices, 8/7 for large ones.
//!
//! Readers are not stopped: a record lies in both places until the index names the new one, and whoever read from the old
//! one after it was given back looks again. A crash between any two steps leaves a copy that no index names.

use std::time::Instant;

use tallow_types::Epoch;

use super::Caretaker;
use super::scrub::is_damage;
use crate::store::backend::{SegmentFile, SegmentId};
use crate::store::index::View;
use crate::store::job::{Job, Moved};
use crate::store::key::SliceKey;
use crate::store::record::{HEADER, LEN, RecordHeader, Salt, SegmentHeader};
use crate::store::row::{SegmentRow, SliceRow};
use crate::store::{ReadError, root_of};

/// Most bytes and slices moved by one write.
const STEP_BYTES: u64 = 2 << 20;
const STEP_SLICES: usize = 256;

/// Whether most of a segment is dead: of the disk that it takes, and of what was written into it.
const fn is_mostly_dead(row: &SegmentRow, allocated: u64) -> bool {
    row.sealed && (row.live * 2 <= allocated || row.live * 8 <= row.end)
}

impl Caretaker {
    /// Empties segments that are mostly dead, one after another.
    pub(super) fn compact(&mut self) {
        while let Some(id) = self.victim() {
            match self.empty(id) {
                Ok(true) => {}
                Ok(false) => drop(self.stuck.insert(id)),
                Err(error) => {
                    // A full disk, or the end: later, if ever.
                    tracing::debug!(segment = id, %error, "segment stays as it is");
                    return;
                }
            }
        }
    }

    /// The segment with the least to move.
    fn victim(&self) -> Option<SegmentId> {
        if self.shared.bell.is_stopped() {
            return None;
        }
        let rows = View::open(&self.shared.database).and_then(|view| view.segments()).ok()?;
        let free = rows.into_iter().filter(|(id, _)| !self.stuck.contains(id));
        let dead = free.filter(|(id, row)| {
            let allocated = self.shared.segments.file(*id).and_then(|file| file.allocated());
            allocated.is_ok_and(|allocated| is_mostly_dead(row, allocated))
        });
        dead.min_by_key(|(_, row)| row.live).map(|(id, _)| id)
    }

    /// Moves everything out of a segment, a step at a time. Answers whether nothing had to stay.
    fn empty(&self, id: SegmentId) -> Result<bool, ReadError> {
        let mut next = HEADER;
        let mut is_clean = true;
        loop {
            let begin = Instant::now();
            let view = View::open(&self.shared.database)?;
            let records = view.records(id, next, STEP_SLICES)?;
            drop(view);
            let Some((_, last)) = records.last() else { return Ok(is_clean) };
            let mut end = last.offset + 1;
            let mut moved = Vec::new();
            let mut bytes = 0;
            for (key, row) in records {
                if bytes >= STEP_BYTES {
                    end = row.offset;
                    break;
                }
                bytes += u64::from(row.length);
                match self.lift(key, &row)? {
                    Some(record) => moved.push(record),
                    None => is_clean = false,
                }
            }
            next = end;
            if !moved.is_empty() {
                self.write(|done| Job::Move(moved, done)).map_err(std::io::Error::other)?;
            }
            if self.rest(begin.elapsed()) {
                return Err(ReadError::Io(std::io::ErrorKind::Interrupted.into()));
            }
        }
    }

    /// Reads a record to be written elsewhere. One that is damaged is moved as it is, mark and all: somebody may still dig
    /// it out. `None` if it was found damaged only now, or can't be read: then it is marked and stays.
    pub(super) fn lift(&self, key: SliceKey, row: &SliceRow) -> Result<Option<Moved>, ReadError> {
        let read = || -> std::io::Result<(Option<RecordHeader>, Vec<u8>)> {
            let file = self.shared.segments.file(row.segment)?;
            let mut bytes = vec![0; row.length as usize];
            file.read_at(row.offset + HEADER, &mut bytes)?;
            Ok((header(&*file, row)?, bytes))
        };
        let (known, bytes) = match read() {
            Ok((known, bytes)) if row.damaged || root_of(&bytes) == row.root => (known, bytes),
            Err(error) if !is_damage(&error) => return Err(error.into()),
            _ => {
                tracing::error!(stripe = key.stripe.short(), segment = row.segment, "slice is damaged");
                let place = row.place();
                let marked = self.write(|done| Job::Damaged(vec![(key, place)], done));
                marked.map_err(std::io::Error::other)?;
                return Ok(None);
            }
        };
        let stored = known.map_or(Epoch::ZERO, |known| known.stored);
        let header = RecordHeader { key, length: row.length, root: row.root, stored };
        Ok(Some(Moved { from: row.place(), header, bytes: bytes.into() }))
    }
}

/// The header of a record, if it is whole and names this slice.
pub(super) fn header(file: &dyn SegmentFile, row: &SliceRow) -> std::io::Result<Option<RecordHeader>> {
    let mut bytes = [0; LEN];
    file.read_at(0, &mut bytes)?;
    let salt: Option<Salt> = SegmentHeader::decode(&bytes).ok().map(|header| header.salt);
    file.read_at(row.offset, &mut bytes)?;
    let header = salt.and_then(|salt| RecordHeader::decode(&bytes, &salt));
    Ok(header.filter(|header| header.root == row.root && header.length == row.length))
}

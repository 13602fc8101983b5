//! Where records are added: the active segment, and how the next one is come by.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tallow_types::Bytes;

use super::records::{Record, Spot};
use super::{Failure, records};
use crate::store::backend::{SegmentFile, SegmentId};
use crate::store::record::{HEADER, RecordHeader, Salt, SegmentHeader};
use crate::store::row::SegmentRow;
use crate::store::{Shared, WriteError};

/// What the file system takes and gives at a time. Bytes.
const BLOCK: u64 = 4096;
/// A small group is followed by zeros up to a multiple of this, so that the next ones write over blocks that the file
/// system has written down already: their sync then needs none of its journal. Bytes.
const AHEAD: u64 = 256 << 10;

/// The segment that records are added to.
struct Active {
    id: SegmentId,
    file: Arc<dyn SegmentFile>,
    salt: Salt,
    length: u64,
    end: u64,
    /// Up to here it was written in this run of the program, with records or zeros.
    filled: u64,
}

pub(super) struct Front {
    shared: Arc<Shared>,
    active: Option<Active>,
    next: SegmentId,
    /// What this group changed.
    touched: BTreeMap<SegmentId, Arc<dyn SegmentFile>>,
    rows: BTreeMap<SegmentId, SegmentRow>,
    created: bool,
    /// Segment whose unused end is to be given back.
    last: Option<(SegmentId, SegmentRow)>,
}

pub(super) fn full(needed: u64, free: u64) -> Failure {
    Failure::Refused(WriteError::DiskFull { needed: Bytes::new(needed), free: Bytes::new(free) })
}

/// Nothing was written yet: where only descriptors are short, others may try later.
fn broken(what: &str, error: &io::Error) -> Failure {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    if short.contains(&error.raw_os_error()) {
        return Failure::Refused(WriteError::Busy);
    }
    Failure::Broken(format!("{what}: {error}"))
}

impl Front {
    pub(super) fn new(shared: Arc<Shared>, next: SegmentId) -> Self {
        Self {
            shared,
            active: None,
            next,
            touched: BTreeMap::new(),
            rows: BTreeMap::new(),
            created: false,
            last: None,
        }
    }

    pub(super) const fn next(&self) -> SegmentId {
        self.next
    }

    /// Bytes that the file system has above what must be left of the reserve.
    pub(super) fn free(&self, slack: u64) -> Result<u64, Failure> {
        let free = self.shared.segments.backend().free();
        let free = free.map_err(|error| broken("free space", &error))?;
        Ok(free.saturating_sub(self.shared.config.reserve.get().saturating_sub(slack)))
    }

    /// Whether nothing can be placed without more of the disk.
    pub(super) fn is_dry(&self) -> bool {
        let left = self.active.as_ref().map_or(0, |active| active.length - active.end);
        left <= HEADER && self.shared.segments.spare_bytes() == 0
    }

    /// Takes places for records of these lengths, all or none.
    pub(super) fn places(&mut self, lengths: &[u32], slack: u64) -> Result<Vec<Spot>, Failure> {
        let before = self.active.as_ref().map(|active| (active.id, active.end));
        let mut spots = Vec::with_capacity(lengths.len());
        let mut rest: u64 = lengths.iter().map(|length| RecordHeader::span(*length)).sum();
        for length in lengths {
            let span = RecordHeader::span(*length);
            match self.place(span, rest, slack) {
                Ok(spot) => spots.push(spot),
                Err(refused) => {
                    if let Some(active) = &mut self.active {
                        // A segment made for this request is empty again.
                        active.end = before.filter(|(id, _)| *id == active.id).map_or(HEADER, |(_, end)| end);
                    }
                    return Err(refused);
                }
            }
            rest -= span;
        }
        Ok(spots)
    }

    /// Takes the next place in the active segment, or in a new one. `rest` is what the request still has to place, this
    /// record included.
    fn place(&mut self, span: u64, rest: u64, slack: u64) -> Result<Spot, Failure> {
        if self.active.as_ref().is_none_or(|active| active.end + span > active.length) {
            let active = self.create(span, rest, slack)?;
            self.retire();
            self.active = Some(active);
        }
        let active = self.active.as_mut().expect("made above");
        let (segment, offset, file, salt) = (active.id, active.end, active.file.clone(), active.salt);
        active.end += span;
        self.touched.insert(segment, file.clone());
        Ok(Spot { segment, offset, file, salt })
    }

    /// Nothing more is added to the active segment.
    fn retire(&mut self) {
        if let Some(active) = self.active.take() {
            self.rows.insert(active.id, row(&active, true));
        }
    }

    /// Comes by a segment: one that died takes a new name, or a new one of the usual length is made, or a shorter one if the
    /// disk has no room for that.
    fn create(&mut self, span: u64, rest: u64, slack: u64) -> Result<Active, Failure> {
        let usual = self.shared.config.segment.get().max(HEADER + span);
        let mut salt = Salt::default();
        getrandom::fill(&mut salt).map_err(|error| Failure::Broken(format!("random bytes: {error}")))?;
        let id = self.next;
        let header = |length| SegmentHeader { id, length, salt }.encode();
        let free = self.free(slack)?;
        let reused = self.shared.segments.reuse(id, usual, free, &header(usual));
        let (file, length) = match reused.map_err(|error| broken("segment to use again", &error))? {
            Some(file) => (file, usual),
            None => {
                let least = (HEADER + rest).next_multiple_of(BLOCK);
                let fits = |length: &u64| *length <= free && *length >= least.min(usual);
                let length = [usual, usual / 16 / BLOCK * BLOCK].into_iter().find(fits).unwrap_or(least);
                if length > free {
                    return Err(full(rest, free));
                }
                let file = match self.shared.segments.create(id, length) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(full(rest, free)),
                    Err(error) => return Err(broken("new segment", &error)),
                };
                let written = file.write_all_at(0, &[&header(length)]);
                written.map_err(|error| broken("new segment", &error))?;
                (file, length)
            }
        };
        self.next += 1;
        self.created = true;
        Ok(Active { id, file, salt, length, end: HEADER, filled: HEADER })
    }

    /// Writes the group's records, makes them durable, and says how the segments stand.
    pub(super) fn write(&mut self, records: Vec<Record>) -> io::Result<BTreeMap<SegmentId, SegmentRow>> {
        let first = records.iter().map(|record| record.spot.place());
        let first =
            first.filter(|(segment, _)| self.active.as_ref().is_some_and(|active| active.id == *segment));
        let first = first.map(|(_, offset)| offset).min();
        let bytes = records.iter().map(|record| record.bytes.len() as u64).sum();
        self.shared.written.fetch_add(bytes, Ordering::Relaxed);
        records::write(records)?;
        if let Some(active) = &mut self.active
            && self.touched.contains_key(&active.id)
        {
            let is_small = first.is_some_and(|first| active.end - first < AHEAD);
            active.pad(if is_small { AHEAD } else { BLOCK })?;
            self.rows.insert(active.id, row(active, false));
        }
        for file in std::mem::take(&mut self.touched).values() {
            file.sync()?;
        }
        if std::mem::take(&mut self.created) {
            self.shared.segments.backend().sync_names()?;
        }
        Ok(std::mem::take(&mut self.rows))
    }

    /// Closes the active segment for good.
    pub(super) fn seal(&mut self) -> BTreeMap<SegmentId, SegmentRow> {
        self.last = self.active.as_ref().map(|active| (active.id, row(active, true)));
        self.retire();
        std::mem::take(&mut self.rows)
    }

    /// Gives the unused end of the segment that was closed last back to the file system. A failure costs disk, never data.
    pub(super) fn trim(&self) {
        let Some((id, row)) = self.last else { return };
        let end = row.end.next_multiple_of(BLOCK);
        if end < row.length
            && let Ok(file) = self.shared.segments.file(id)
            && let Err(error) = file.punch(end, row.length - end)
        {
            tracing::warn!(segment = id, %error, "unused end of a segment keeps its disk");
        }
    }
}

impl Active {
    /// Follows the last record with zeros up to a multiple of `step`: a block written in part would have to be read first if
    /// the segment was used before.
    fn pad(&mut self, step: u64) -> io::Result<()> {
        if self.end > self.filled {
            let to = self.end.next_multiple_of(step).min(self.length);
            let zeros = vec![0; usize::try_from(to - self.end).expect("shorter than a step")];
            self.file.write_all_at(self.end, &[&zeros])?;
            self.filled = to;
        }
        Ok(())
    }
}

const fn row(active: &Active, sealed: bool) -> SegmentRow {
    SegmentRow { length: active.length, end: active.end, live: 0, sealed }
}

//! The one thread that writes: takes whatever waits, writes all of it, syncs once, and then tells everybody.
//!
//! The order is the guarantee. Slices are written and synced, then the names of new segment files, then one index
//! transaction that names the slices, and only then are callers told and dead bytes given back. A crash between any
//! two steps leaves at most slices that no index names, or dead bytes that no index counts.
//!
//! After a failed write or sync nothing can be said about what is on the disk, so the store stops writing until it is
//! opened again, which looks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use redb::Durability;
use tallow_types::Bytes;
use tallow_types::commit::Leaf;

use super::backend::{SegmentFile, SegmentId};
use super::index::{IndexError, META_NEXT, Tables};
use super::key::{LaneKey, SliceKey};
use super::record::{HEADER, RecordHeader, Salt, SegmentHeader};
use super::row::{LaneUpdate, SegmentRow, SliceRow, SliceState};
use super::{Done, Judge, PutRequest, Shared, Slice, Swept, WriteError};

mod jobs;
mod place;

use jobs::{conclude, damaged, lane, remove_lane, sweep};
use place::{Active, Place};

/// Most bytes and jobs of one group.
const GROUP_BYTES: usize = 64 << 20;
const GROUP_JOBS: usize = 1024;

/// What the writer is asked to do.
pub(super) enum Job {
    Put(PutRequest, Done<()>),
    Lane(Box<LaneUpdate>, Done<()>),
    Commit(PutRequest, Box<LaneUpdate>, Done<()>),
    Sweep { limit: usize, judge: Judge, done: Done<Swept> },
    RemoveLane { lane: LaneKey, limit: usize, done: Done<Swept> },
    Damaged(SliceKey),
}

impl Job {
    pub(super) fn refuse(self, error: &WriteError) {
        match self {
            Self::Put(_, done) | Self::Lane(_, done) | Self::Commit(_, _, done) => done(Err(error.clone())),
            Self::Sweep { done, .. } | Self::RemoveLane { done, .. } => done(Err(error.clone())),
            Self::Damaged(_) => {}
        }
    }

    fn weight(&self) -> usize {
        match self {
            Self::Put(request, _) | Self::Commit(request, ..) => {
                request.slices.iter().map(|slice| slice.bytes.len()).sum()
            }
            _ => 0,
        }
    }
}

/// Why a job was not done: refused, with nothing changed, or the store can't go on.
enum Failure {
    Refused(WriteError),
    Broken(String),
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self::Broken(format!("index: {error}"))
    }
}

fn broken(what: &str, error: &io::Error) -> Failure {
    Failure::Broken(format!("{what}: {error}"))
}

/// What one group still has to do to the files.
#[derive(Default)]
struct Group {
    touched: BTreeMap<SegmentId, Arc<dyn SegmentFile>>,
    created: bool,
    /// Whether the index changed.
    dirty: bool,
    freed: Vec<SliceRow>,
}

/// What is given back once the index has forgotten it.
#[derive(Default)]
struct Dead {
    ranges: BTreeSet<(SegmentId, u64, u64)>,
    segments: Vec<SegmentId>,
}

type Finish = Box<dyn FnOnce(Result<(), &WriteError>)>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    next: SegmentId,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, next: SegmentId) -> Self {
        Self { shared, active: None, next }
    }

    /// Works until every sender is gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut weight = first.weight();
            let mut group = vec![first];
            while weight < GROUP_BYTES && group.len() < GROUP_JOBS {
                let Ok(job) = jobs.try_recv() else { break };
                weight += job.weight();
                group.push(job);
            }
            self.group(group);
        }
    }

    fn group(&mut self, jobs: Vec<Job>) {
        if let Some(reason) = self.shared.broken.get() {
            let error = WriteError::Broken(reason.clone());
            jobs.into_iter().for_each(|job| job.refuse(&error));
            return;
        }
        let mut finishes = Vec::new();
        let outcome = self.write(jobs, &mut finishes);
        match outcome {
            Ok(dead) => {
                finishes.into_iter().for_each(|finish: Finish| finish(Ok(())));
                self.give_back(dead);
            }
            Err(reason) => {
                tracing::error!(reason, "store stops writing");
                let error = WriteError::Broken(self.shared.broken.get_or_init(|| reason).clone());
                finishes.into_iter().for_each(|finish| finish(Err(&error)));
            }
        }
    }

    /// Does all jobs, makes them durable, and says what is dead after it.
    fn write(&mut self, jobs: Vec<Job>, finishes: &mut Vec<Finish>) -> Result<Dead, String> {
        let shared = self.shared.clone();
        let mut group = Group::default();
        let mut failed = None;
        let index = |error: IndexError| format!("index: {error}");
        let mut txn = shared.database.begin_write().map_err(|error| index(error.into()))?;
        txn.set_durability(Durability::Immediate).map_err(|error| format!("index: {error}"))?;
        let mut tables = Tables::open(&txn).map_err(index)?;
        for job in jobs {
            if failed.is_some() {
                finishes.push(Box::new(|result| {
                    if let Err(error) = result {
                        job.refuse(error);
                    }
                }));
                continue;
            }
            failed = self.job(job, &mut tables, &mut group, finishes);
        }
        if let Some(reason) = failed {
            return Err(reason);
        }
        if !group.dirty {
            return Ok(Dead::default());
        }
        let dead = self.dead(&mut tables, &group.freed).map_err(index)?;
        for file in group.touched.values() {
            file.sync().map_err(|error| format!("sync of a segment: {error}"))?;
        }
        if group.created {
            let synced = shared.segments.backend().sync_names();
            synced.map_err(|error| format!("sync of segment names: {error}"))?;
        }
        drop(tables);
        txn.commit().map_err(|error| index(error.into()))?;
        Ok(dead)
    }

    /// Does one job inside the group's transaction. A refused one is told at once; others when the group is durable.
    /// Answers why the store can't go on, if it can't.
    fn job(
        &mut self,
        job: Job,
        tables: &mut Tables<'_>,
        group: &mut Group,
        finishes: &mut Vec<Finish>,
    ) -> Option<String> {
        match job {
            Job::Put(request, done) => {
                let outcome = self.put(&request, tables, group);
                conclude(outcome, done, finishes)
            }
            Job::Lane(update, done) => conclude(lane(&update, tables, group), done, finishes),
            Job::Commit(request, update, done) => {
                let outcome = self.put(&request, tables, group);
                conclude(outcome.and_then(|()| lane(&update, tables, group)), done, finishes)
            }
            Job::Sweep { limit, mut judge, done } => {
                conclude(sweep(limit, &mut judge, tables, group), done, finishes)
            }
            Job::RemoveLane { lane, limit, done } => {
                conclude(remove_lane(lane, limit, tables, group), done, finishes)
            }
            Job::Damaged(key) => conclude(damaged(key, tables, group), Box::new(|_| {}), finishes),
        }
    }

    fn put(
        &mut self,
        request: &PutRequest,
        tables: &mut Tables<'_>,
        group: &mut Group,
    ) -> Result<(), Failure> {
        let mut new: BTreeMap<SliceKey, &Slice> = BTreeMap::new();
        let mut known = Vec::new();
        for slice in &request.slices {
            let key = request.lane.slice(slice.leaf.stripe);
            let other = match tables.slice(key)? {
                Some(row) if !row.damaged => {
                    known.push((key, row.state));
                    Some((row.root, row.length))
                }
                _ => new.insert(key, slice).map(|twin| (twin.leaf.root, twin.leaf.length)),
            };
            if other.is_some_and(|other| other != (slice.leaf.root, slice.leaf.length)) {
                return Err(Failure::Refused(WriteError::Conflict { stripe: slice.leaf.stripe }));
            }
        }
        let needed: u64 = new.values().map(|slice| u64::from(slice.leaf.length)).sum();
        self.check_room(request, needed, tables)?;
        let lengths: Vec<u32> = new.values().map(|slice| slice.leaf.length).collect();
        let places = self.places(&lengths, tables, group)?;
        for ((key, slice), place) in new.into_iter().zip(places) {
            let Leaf { root, length, .. } = slice.leaf;
            let header = RecordHeader { key, length, root, stored: request.epoch };
            place.write(&header, &slice.bytes).map_err(|error| broken("write to a segment", &error))?;
            group.touched.entry(place.segment).or_insert(place.file);
            // A damaged slice keeps its reason to stay; only its place is new.
            let old = tables.slice(key)?;
            let state = old.map_or(SliceState::Loose { since: request.epoch }, |old| old.state);
            group.freed.extend(old);
            let (segment, offset) = (place.segment, place.offset);
            tables.put_slice(key, &SliceRow { segment, offset, length, root, state, damaged: false })?;
        }
        for (key, state) in known {
            let renewed = SliceState::Loose { since: request.epoch };
            if state != renewed && !matches!(state, SliceState::Held | SliceState::Recovered) {
                group.dirty = true;
                tables.restate(key, renewed)?;
            }
        }
        Ok(())
    }

    fn check_room(&self, request: &PutRequest, needed: u64, tables: &Tables<'_>) -> Result<(), Failure> {
        if needed == 0 {
            return Ok(());
        }
        let lane = tables.lane_usage(request.lane)?;
        let would = lane.held.get().saturating_add(lane.loose.get()).saturating_add(needed);
        if would > request.limit.get() {
            return Err(Failure::Refused(WriteError::LaneFull {
                needed: Bytes::new(would),
                limit: request.limit,
            }));
        }
        let room = self.shared.config.room.saturating_sub(tables.usage()?.bytes());
        if needed > room.get() {
            return Err(self.full(needed, room.get()));
        }
        let free = self.free()?;
        if free == 0 { Err(self.full(needed, free)) } else { Ok(()) }
    }

    fn full(&self, needed: u64, free: u64) -> Failure {
        Failure::Refused(WriteError::DiskFull { needed: Bytes::new(needed), free: Bytes::new(free) })
    }

    /// Bytes that the file system has above the reserve.
    fn free(&self) -> Result<u64, Failure> {
        let free = self.shared.segments.backend().free();
        let free = free.map_err(|error| broken("free space", &error))?;
        Ok(free.saturating_sub(self.shared.config.reserve.get()))
    }

    /// Takes places for records of these lengths, all or none.
    fn places(
        &mut self,
        lengths: &[u32],
        tables: &mut Tables<'_>,
        group: &mut Group,
    ) -> Result<Vec<Place>, Failure> {
        let mut places: Vec<Place> = Vec::with_capacity(lengths.len());
        let mut rest: u64 = lengths.iter().map(|length| RecordHeader::span(*length)).sum();
        for length in lengths {
            let span = RecordHeader::span(*length);
            match self.place(span, rest, tables, group) {
                Ok(place) => places.push(place),
                Err(refused) => {
                    for (place, length) in places.iter().zip(lengths) {
                        if let Some(mut row) = tables.segment(place.segment)? {
                            row.live -= RecordHeader::span(*length);
                            tables.set_segment(place.segment, &row)?;
                        }
                    }
                    return Err(refused);
                }
            }
            rest -= span;
        }
        Ok(places)
    }

    /// Takes the next place in the active segment, or in a new one. `rest` is what the request still has to place, this
    /// record included.
    fn place(
        &mut self,
        span: u64,
        rest: u64,
        tables: &mut Tables<'_>,
        group: &mut Group,
    ) -> Result<Place, Failure> {
        group.dirty = true;
        if let Some(active) = &self.active {
            let id = active.id;
            let row = tables.segment(id)?;
            let mut row = row.ok_or_else(|| Failure::Broken(format!("segment {id} is not in the index")))?;
            if row.end + span <= row.length {
                let place = active.place(row.end);
                row.end += span;
                row.live += span;
                tables.set_segment(id, &row)?;
                return Ok(place);
            }
        }
        let (active, length) = self.create(span, rest)?;
        self.seal(tables)?;
        let row = SegmentRow { length, end: HEADER + span, live: span, sealed: false };
        tables.set_segment(active.id, &row)?;
        tables.set_meta(META_NEXT, &self.next)?;
        group.created = true;
        group.touched.insert(active.id, active.file.clone());
        let place = active.place(HEADER);
        self.active = Some(active);
        Ok(place)
    }

    /// Creates a segment of the usual length, or a shorter one if the disk has room for this request alone.
    fn create(&mut self, span: u64, rest: u64) -> Result<(Active, u64), Failure> {
        let free = self.free()?;
        let usual = self.shared.config.segment.get().max(HEADER + span);
        let least = (HEADER + rest).next_multiple_of(4096);
        let length = if usual <= free { usual } else { least };
        if length > free {
            return Err(self.full(rest, free));
        }
        let id = self.next;
        self.next += 1;
        let file = match self.shared.segments.create(id, length) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(self.full(rest, free)),
            Err(error) => return Err(broken("new segment", &error)),
        };
        let mut salt = Salt::default();
        getrandom::fill(&mut salt).map_err(|error| Failure::Broken(format!("random bytes: {error}")))?;
        let header = SegmentHeader { id, length, salt };
        file.write_at(0, &header.encode()).map_err(|error| broken("new segment", &error))?;
        Ok((Active { id, file, salt }, length))
    }

    fn seal(&mut self, tables: &mut Tables<'_>) -> Result<(), Failure> {
        if let Some(active) = self.active.take()
            && let Some(row) = tables.segment(active.id)?
        {
            tables.set_segment(active.id, &SegmentRow { sealed: true, ..row })?;
        }
        Ok(())
    }

    /// Finds what lies dead around freed records, and takes segments without a living one off the index.
    fn dead(&self, tables: &mut Tables<'_>, freed: &[SliceRow]) -> Result<Dead, IndexError> {
        let mut dead = Dead::default();
        for slice in freed {
            let Some(mut row) = tables.segment(slice.segment)? else { continue };
            row.live = row.live.saturating_sub(RecordHeader::span(slice.length));
            let active = self.active.as_ref().is_some_and(|active| active.id == slice.segment);
            if row.live == 0 && !active {
                tables.remove_segment(slice.segment)?;
                dead.segments.push(slice.segment);
                continue;
            }
            tables.set_segment(slice.segment, &row)?;
            let (before, after) = tables.neighbours(slice.segment, slice.offset)?;
            let start = match before.map(|key| tables.slice(key)).transpose()?.flatten() {
                Some(before) => before.offset + RecordHeader::span(before.length),
                None => HEADER,
            };
            dead.ranges.insert((slice.segment, start, after.unwrap_or(row.end)));
        }
        dead.ranges.retain(|(segment, ..)| !dead.segments.contains(segment));
        Ok(dead)
    }

    /// Gives dead bytes back to the file system. A failure costs disk, never data.
    fn give_back(&self, dead: Dead) {
        for (segment, start, end) in dead.ranges {
            let punched = self.shared.segments.file(segment).and_then(|file| file.punch(start, end - start));
            if let Err(error) = punched {
                tracing::warn!(segment, %error, "dead slices keep their disk");
            }
        }
        for segment in dead.segments {
            if let Err(error) = self.shared.segments.remove(segment) {
                tracing::warn!(segment, %error, "dead segment keeps its disk");
            }
        }
    }
}

//! The second of the two threads that write: names in the index what the first has made durable, a group a transaction,
//! then tells everybody, and only then lets go of what is dead.
//!
//! The index is synced before anybody is told, but for one kind of group: new slices alone, in no commit. These are durable
//! without it, since whoever opens the store after a crash finds them behind what the index knows. It is synced for them
//! with the next group that needs it, or after a second, or when so much has come together that the look would take long.

mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::Durability;
use tallow_types::Epoch;

use super::backend::SegmentId;
use super::index::{IndexError, META_NEXT, META_SCRUB, Tables};
use super::key::{LaneKey, SliceKey};
use super::record::RecordHeader;
use super::row::{LaneUpdate, Place, SegmentRow, SliceRow};
use super::upkeep::Cursor;
use super::writer::Failure;
use super::{Done, Judge, Shared, Swept, WriteError};

use jobs::conclude;

/// How long, and how much of the segments, the index may be behind. Bytes.
const LAG: Duration = Duration::from_secs(1);
const LAG_BYTES: u64 = 64 << 20;

/// Slices of one request with their places.
pub(super) struct Kept {
    pub(super) new: Vec<(SliceKey, SliceRow)>,
    /// Of the new ones, those whose damaged forerunners are given up.
    pub(super) replaces: BTreeSet<SliceKey>,
    /// Slices that were here or on their way already.
    pub(super) known: Vec<SliceKey>,
    pub(super) epoch: Epoch,
}

/// A record that was written a second time.
pub(super) struct Relocated {
    pub(super) key: SliceKey,
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) length: u32,
}

pub(super) enum Task {
    Keep(Kept, Option<Box<LaneUpdate>>, Done<()>),
    Lane(Box<LaneUpdate>, Done<()>),
    Sweep { limit: usize, judge: Judge, done: Done<Swept> },
    RemoveLane { lane: LaneKey, limit: usize, done: Done<Swept> },
    Damaged(Vec<(SliceKey, Place)>, Done<()>),
    Move(Vec<Relocated>, Done<()>),
    Scrubbed(Cursor, Done<()>),
}

impl Task {
    pub(super) fn refuse(self, error: &WriteError) {
        match self {
            Self::Keep(_, _, done)
            | Self::Lane(_, done)
            | Self::Damaged(_, done)
            | Self::Move(_, done)
            | Self::Scrubbed(_, done) => done(Err(error.clone())),
            Self::Sweep { done, .. } | Self::RemoveLane { done, .. } => done(Err(error.clone())),
        }
    }
}

/// A group whose bytes are durable.
#[derive(Default)]
pub(super) struct Laid {
    pub(super) number: u64,
    pub(super) tasks: Vec<Task>,
    /// How the segments stand that it added to, without what lives in them.
    pub(super) segments: BTreeMap<SegmentId, SegmentRow>,
    /// The ordinal of the next segment, if it changed.
    pub(super) next: SegmentId,
}

/// How many groups the index has.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: Mutex<u64>,
    moved: Condvar,
}

impl Progress {
    pub(super) fn done(&self) -> u64 {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish(&self, number: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = number.max(*done);
        self.moved.notify_all();
    }

    pub(super) fn wait_for(&self, number: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        while *done < number {
            done = self.moved.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

type Finish = Box<dyn FnOnce(Result<(), &WriteError>)>;

/// One group's changes, besides those to the tables.
#[derive(Default)]
struct Group {
    /// Whether the index changed.
    dirty: bool,
    /// Whether something changed that segments alone don't tell.
    must_sync: bool,
    rows: BTreeMap<SegmentId, SegmentRow>,
    /// Places that slices were written to.
    fresh: Vec<Place>,
    /// Bytes of records there.
    bytes: u64,
    /// Places given up.
    freed: Vec<SliceRow>,
    finishes: Vec<Finish>,
}

impl Group {
    fn row(&mut self, id: SegmentId, tables: &Tables<'_>) -> Result<Option<&mut SegmentRow>, IndexError> {
        use std::collections::btree_map::Entry;
        Ok(match self.rows.entry(id) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => tables.segment(id)?.map(|row| entry.insert(row)),
        })
    }

    /// A record came to live at a place.
    fn settle(&mut self, place: Place, length: u32, tables: &Tables<'_>) -> Result<(), Failure> {
        let row = self.row(place.0, tables)?;
        let row = row.ok_or_else(|| Failure::Broken(format!("segment {} is not in the index", place.0)))?;
        row.live += RecordHeader::span(length);
        self.bytes += RecordHeader::span(length);
        self.fresh.push(place);
        Ok(())
    }
}

/// What nothing lives in any more, and where there are gaps.
#[derive(Default)]
struct Dead {
    segments: Vec<SegmentId>,
    gaps: BTreeSet<SegmentId>,
}

pub(super) struct Applier {
    shared: Arc<Shared>,
    next: SegmentId,
    /// What the index was not synced for, and since when.
    lag: Option<(Instant, u64)>,
}

impl Applier {
    pub(super) fn new(shared: Arc<Shared>, next: SegmentId) -> Self {
        Self { shared, next, lag: None }
    }

    /// Works until the first thread is gone.
    pub(super) fn run(mut self, groups: &Receiver<Laid>) {
        loop {
            let wait = self.lag.map_or(Duration::MAX, |(since, _)| LAG.saturating_sub(since.elapsed()));
            let laid = match groups.recv_timeout(wait) {
                Ok(laid) => laid,
                // Nothing that must be synced came in time: an empty group brings the index up to now.
                Err(RecvTimeoutError::Timeout) => Laid::default(),
                Err(RecvTimeoutError::Disconnected) if self.lag.is_some() => Laid::default(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let number = laid.number;
            self.group(laid);
            self.shared.progress.finish(number);
        }
    }

    fn group(&mut self, laid: Laid) {
        if let Some(reason) = self.shared.broken.get() {
            let error = WriteError::Broken(reason.clone());
            self.lag = None;
            laid.tasks.into_iter().for_each(|task| task.refuse(&error));
            return;
        }
        let mut group = Group::default();
        match self.write(laid, &mut group) {
            Ok(dead) => {
                self.shared.verified.add(group.fresh);
                group.finishes.into_iter().for_each(|finish| finish(Ok(())));
                for segment in dead.segments {
                    self.shared.segments.let_go(segment);
                }
                self.shared.bell.gaps(dead.gaps);
            }
            Err(reason) => {
                let error = self.shared.fail(reason);
                self.lag = None;
                group.finishes.into_iter().for_each(|finish| finish(Err(&error)));
            }
        }
    }

    /// Does all tasks and makes them durable; says what is dead after it.
    fn write(&mut self, laid: Laid, group: &mut Group) -> Result<Dead, String> {
        let shared = self.shared.clone();
        let index = |error: IndexError| format!("index: {error}");
        let mut txn = shared.database.begin_write().map_err(|error| index(error.into()))?;
        let mut tables = Tables::open(&txn).map_err(index)?;
        let mut failed = None;
        // An empty group is there to be synced: it closes a segment, or ends a lag.
        group.must_sync = laid.tasks.is_empty();
        if let Err(error) = self.take_segments(&laid, group, &mut tables) {
            failed = Some(index(error));
        }
        for task in laid.tasks {
            if failed.is_some() {
                group.finishes.push(Box::new(|result| {
                    if let Err(error) = result {
                        task.refuse(error);
                    }
                }));
                continue;
            }
            failed = task_done(task, &mut tables, group);
        }
        if let Some(reason) = failed {
            return Err(reason);
        }
        if !group.dirty && !group.must_sync {
            return Ok(Dead::default());
        }
        group.must_sync |= !group.freed.is_empty();
        let bytes: u64 = group.bytes;
        let dead = bury(group, &mut tables).map_err(index)?;
        // What is used again under another name must have lost its old one for good.
        group.must_sync |= !dead.segments.is_empty();
        tables.close().map_err(index)?;
        let (since, behind) = self.lag.unwrap_or_else(|| (Instant::now(), 0));
        let is_due = behind + bytes >= LAG_BYTES || since.elapsed() >= LAG;
        let (durability, lag) = match group.must_sync || is_due {
            true => (Durability::Immediate, None),
            false => (Durability::None, Some((since, behind + bytes))),
        };
        txn.set_durability(durability).map_err(|error| format!("index: {error}"))?;
        self.lag = lag;
        txn.commit().map_err(|error| index(error.into()))?;
        Ok(dead)
    }

    fn take_segments(
        &mut self,
        laid: &Laid,
        group: &mut Group,
        tables: &mut Tables<'_>,
    ) -> Result<(), IndexError> {
        for (id, new) in &laid.segments {
            let live = tables.segment(*id)?.map_or(0, |row| row.live);
            group.rows.insert(*id, SegmentRow { live, ..*new });
            group.dirty = true;
        }
        if laid.next > self.next {
            self.next = laid.next;
            tables.set_meta(META_NEXT, &self.next)?;
        }
        Ok(())
    }
}

/// Does one task inside the group's transaction. A refused one is told at once; others when the group is durable. Answers
/// why the store can't go on, if it can't.
fn task_done(task: Task, tables: &mut Tables<'_>, group: &mut Group) -> Option<String> {
    match task {
        Task::Keep(kept, update, done) => {
            group.must_sync |= update.is_some();
            let outcome = jobs::keep(kept, tables, group);
            let promised = match update {
                Some(update) if outcome.is_ok() => jobs::lane(&update, tables, group),
                _ => Ok(()),
            };
            if let Err(Failure::Refused(refused)) = promised {
                // The slices stay: whoever is told of the refusal finds them.
                let told = move |durable: Result<(), &WriteError>| {
                    done(Err(durable.err().cloned().unwrap_or(refused)));
                };
                group.finishes.push(Box::new(told));
                return None;
            }
            conclude(outcome.and(promised), done, group)
        }
        Task::Lane(update, done) => {
            group.must_sync = true;
            let outcome = jobs::lane(&update, tables, group);
            conclude(outcome, done, group)
        }
        Task::Sweep { limit, mut judge, done } => {
            group.must_sync = true;
            let outcome = jobs::sweep(limit, &mut judge, tables, group);
            conclude(outcome, done, group)
        }
        Task::RemoveLane { lane, limit, done } => {
            group.must_sync = true;
            let outcome = jobs::remove_lane(lane, limit, tables, group);
            conclude(outcome, done, group)
        }
        Task::Damaged(places, done) => {
            group.must_sync = true;
            let outcome = jobs::damaged(&places, tables, group);
            conclude(outcome, done, group)
        }
        Task::Move(moves, done) => {
            group.must_sync = true;
            let outcome = jobs::relocate(&moves, tables, group);
            conclude(outcome, done, group)
        }
        Task::Scrubbed(cursor, done) => {
            (group.dirty, group.must_sync) = (true, true);
            let outcome = tables.set_meta(META_SCRUB, &cursor).map_err(Failure::from);
            conclude(outcome, done, group)
        }
    }
}

/// Takes off what was given up, and segments in which nothing lives from the index.
fn bury(group: &mut Group, tables: &mut Tables<'_>) -> Result<Dead, IndexError> {
    let mut dead = Dead::default();
    for slice in std::mem::take(&mut group.freed) {
        if let Some(row) = group.row(slice.segment, tables)? {
            row.live = row.live.saturating_sub(RecordHeader::span(slice.length));
            dead.gaps.insert(slice.segment);
        }
    }
    for (id, row) in std::mem::take(&mut group.rows) {
        if row.live == 0 && row.sealed {
            tables.remove_segment(id)?;
            dead.gaps.remove(&id);
            dead.segments.push(id);
        } else {
            tables.set_segment(id, &row)?;
        }
    }
    Ok(dead)
}

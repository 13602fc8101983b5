//! The first of the two threads that write: takes whatever waits, decides what is new, gives it places, writes it, and
//! syncs once. The second, in `apply`, names all of it in the index and tells everybody; meanwhile this one writes the next
//! group.
//!
//! The order is the guarantee. Slices are written and synced, then the names of new segment files, then one index
//! transaction that names the slices, and only then are callers told and dead bytes given back. Groups pass each of these
//! steps one after another. A crash between any two steps leaves at most slices that no index names, or dead bytes that
//! no index counts.
//!
//! After a failed write or sync nothing can be said about what is on the disk, so the store stops writing until it is
//! opened again, which looks.

mod ahead;
mod front;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tallow_types::Bytes;
use tallow_types::commit::Leaf;

use super::apply::{Kept, Laid, Relocated, Task};
use super::index::{IndexError, View};
use super::job::{Job, Moved};
use super::key::{LaneKey, SliceKey};
use super::record::RecordHeader;
use super::row::{SliceRow, SliceState};
use super::{PutRequest, Shared, Slice, WriteError};

use ahead::Ahead;
use front::Front;
use records::Record;

/// Most bytes and jobs of one group. Three groups are in memory at most: one is written, one waits for the index with its
/// bytes gone already, one is gathered in the queue.
const GROUP_BYTES: usize = 16 << 20;
const GROUP_JOBS: usize = 1024;

/// Why a job was not done: refused, with nothing changed, or the store can't go on.
pub(super) enum Failure {
    Refused(WriteError),
    Broken(String),
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        Self::Broken(format!("index: {error}"))
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    front: Front,
    ahead: Ahead,
    /// Groups sent to the index so far.
    sent: u64,
    index: SyncSender<Laid>,
}

/// What a request comes to.
#[derive(Default)]
struct Plan<'a> {
    new: BTreeMap<SliceKey, &'a Slice>,
    /// Of the new ones, those that take the place of damaged ones.
    replaces: BTreeSet<SliceKey>,
    known: Vec<SliceKey>,
    /// Bytes to write.
    needed: u64,
    /// Bytes that the lane and the store come to hold more than before.
    growth: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, next: u64, index: SyncSender<Laid>) -> Self {
        Self { front: Front::new(shared.clone(), next), shared, ahead: Ahead::default(), sent: 0, index }
    }

    /// Works until the queue is closed and empty; then gives back what it took ahead.
    pub(super) fn run(mut self) {
        while let Some(jobs) = self.shared.queue.take(GROUP_BYTES, GROUP_JOBS) {
            let takes_away = jobs.last().is_some_and(Job::takes_away);
            self.group(jobs);
            if takes_away {
                self.drain();
            }
        }
        self.drain();
        if self.shared.broken.get().is_none() {
            let laid = Laid { segments: self.front.seal(), ..Laid::default() };
            self.send(laid);
            self.drain();
            self.front.trim();
        }
    }

    fn group(&mut self, jobs: Vec<Job>) {
        if let Some(reason) = self.shared.broken.get() {
            let error = WriteError::Broken(reason.clone());
            jobs.into_iter().for_each(|job| job.refuse(&error));
            return;
        }
        self.ahead.forget(self.shared.progress.done());
        let mut laid = Laid::default();
        let mut records = Vec::new();
        let outcome = self
            .lay(jobs, &mut laid, &mut records)
            .and_then(|()| self.front.write(records).map_err(|error| format!("write to a segment: {error}")));
        match outcome {
            Ok(segments) => {
                laid.segments = segments;
                laid.next = self.front.next();
                self.send(laid);
            }
            Err(reason) => {
                let error = self.shared.fail(reason);
                laid.tasks.into_iter().for_each(|task| task.refuse(&error));
            }
        }
    }

    fn send(&mut self, mut laid: Laid) {
        self.sent += 1;
        laid.number = self.sent;
        self.ahead.close(self.sent);
        if let Err(unsent) = self.index.send(laid) {
            let error = self.shared.fail("the index thread has ended".into());
            unsent.0.tasks.into_iter().for_each(|task| task.refuse(&error));
            self.shared.progress.finish(self.sent);
        }
    }

    /// Waits until the index names everything that was sent.
    fn drain(&mut self) {
        self.shared.progress.wait_for(self.sent);
        self.ahead.forget(self.sent);
    }

    /// Gives each job's slices their places. A refused job is told at once.
    fn lay(&mut self, jobs: Vec<Job>, laid: &mut Laid, records: &mut Vec<Record>) -> Result<(), String> {
        let mut view = View::open(&self.shared.database).map_err(|error| format!("index: {error}"))?;
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            let (outcome, done) = match job {
                Job::Put(request, done) => {
                    (self.put(&request, &mut view, records).map(|kept| (kept, None)), done)
                }
                Job::Commit(request, update, done) => {
                    (self.put(&request, &mut view, records).map(|kept| (kept, Some(update))), done)
                }
                Job::Move(moved, done) => match self.relocate(moved, records) {
                    Ok(relocated) => {
                        laid.tasks.push(Task::Move(relocated, done));
                        continue;
                    }
                    Err(failure) => (Err(failure), done),
                },
                Job::Lane(update, done) => {
                    laid.tasks.push(Task::Lane(update, done));
                    continue;
                }
                Job::Sweep { limit, judge, done } => {
                    laid.tasks.push(Task::Sweep { limit, judge, done });
                    continue;
                }
                Job::RemoveLane { lane, limit, done } => {
                    laid.tasks.push(Task::RemoveLane { lane, limit, done });
                    continue;
                }
                Job::Damaged(places, done) => {
                    laid.tasks.push(Task::Damaged(places, done));
                    continue;
                }
                Job::Scrubbed(cursor, done) => {
                    laid.tasks.push(Task::Scrubbed(cursor, done));
                    continue;
                }
            };
            match outcome {
                Ok((kept, update)) => laid.tasks.push(Task::Keep(kept, update, done)),
                Err(Failure::Refused(error)) => done(Err(error)),
                Err(Failure::Broken(reason)) => {
                    let error = WriteError::Broken(reason.clone());
                    done(Err(error.clone()));
                    jobs.for_each(|job| job.refuse(&error));
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        request: &PutRequest,
        view: &mut View,
        records: &mut Vec<Record>,
    ) -> Result<Kept, Failure> {
        let slack = self.shared.config.slack(request.for_commit);
        let mut plan = self.plan(request, view)?;
        let mut room = self.check_room(request, &plan, slack, view);
        if matches!(room, Err(Failure::Refused(_))) && !self.ahead.is_settled() {
            // What is under way may be counted twice, or may have made room: look again when nothing is.
            self.drain();
            *view = View::open(&self.shared.database)?;
            plan = self.plan(request, view)?;
            room = self.check_room(request, &plan, slack, view);
        }
        room?;
        let lengths: Vec<u32> = plan.new.values().map(|slice| slice.leaf.length).collect();
        let spots = self.front.places(&lengths, slack)?;
        let mut kept =
            Kept { new: Vec::new(), replaces: plan.replaces, known: plan.known, epoch: request.epoch };
        for ((key, slice), spot) in plan.new.into_iter().zip(spots) {
            let Leaf { root, length, .. } = slice.leaf;
            let (segment, offset) = spot.place();
            let state = SliceState::Loose { since: request.epoch };
            kept.new.push((key, SliceRow { segment, offset, length, root, state, damaged: false }));
            let header = RecordHeader { key, length, root, stored: request.epoch };
            records.push(Record { spot, header, bytes: slice.bytes.clone() });
            self.ahead.add(key, root, length);
        }
        self.ahead.grow(request.lane, plan.growth);
        Ok(kept)
    }

    fn plan<'a>(&self, request: &'a PutRequest, view: &View) -> Result<Plan<'a>, Failure> {
        let mut plan = Plan::default();
        for slice in &request.slices {
            let key = request.lane.slice(slice.leaf.stripe);
            let here = match self.ahead.find(&key) {
                Some(here) => Some(here),
                None => match view.slice(key)? {
                    Some(row) if row.damaged => {
                        plan.replaces.insert(key);
                        None
                    }
                    row => row.map(|row| (row.root, row.length)),
                },
            };
            let other = match here {
                Some(here) => {
                    plan.known.push(key);
                    Some(here)
                }
                None => plan.new.insert(key, slice).map(|twin| (twin.leaf.root, twin.leaf.length)),
            };
            if other.is_some_and(|other| other != (slice.leaf.root, slice.leaf.length)) {
                return Err(Failure::Refused(WriteError::Conflict { stripe: slice.leaf.stripe }));
            }
        }
        let length = |slice: &&Slice| u64::from(slice.leaf.length);
        plan.needed = plan.new.values().map(length).sum();
        let fresh = plan.new.iter().filter(|(key, _)| !plan.replaces.contains(key));
        plan.growth = fresh.map(|(_, slice)| u64::from(slice.leaf.length)).sum();
        Ok(plan)
    }

    fn check_room(
        &self,
        request: &PutRequest,
        plan: &Plan<'_>,
        slack: u64,
        view: &View,
    ) -> Result<(), Failure> {
        if plan.needed == 0 {
            return Ok(());
        }
        let lane = view.lane_usage(request.lane)?;
        let staged = lane.held.get().saturating_add(lane.loose.get());
        let would = staged.saturating_add(self.ahead.growth_of(request.lane)).saturating_add(plan.growth);
        if would > request.limit.get() {
            let (needed, limit) = (Bytes::new(would), request.limit);
            return Err(Failure::Refused(WriteError::LaneFull { needed, limit }));
        }
        let used = view.usage()?.bytes().get().saturating_add(self.ahead.growth());
        let room = self.shared.config.room.get().saturating_add(slack).saturating_sub(used);
        if plan.growth > room {
            return Err(front::full(plan.needed, room));
        }
        match self.front.free(slack)? {
            0 if self.front.is_dry() => Err(front::full(plan.needed, 0)),
            _ => Ok(()),
        }
    }

    /// Gives records that shall lie elsewhere their new places. What keeps the store tidy may use half of the reserve: it
    /// gives back more than it takes.
    fn relocate(&mut self, moved: Vec<Moved>, records: &mut Vec<Record>) -> Result<Vec<Relocated>, Failure> {
        let lengths: Vec<u32> = moved.iter().map(|moved| moved.header.length).collect();
        let spots = self.front.places(&lengths, self.shared.config.reserve.get() / 2)?;
        let moves = moved.into_iter().zip(spots).map(|(Moved { from, header, bytes }, spot)| {
            let relocated = Relocated { key: header.key, from, to: spot.place(), length: header.length };
            records.push(Record { spot, header, bytes });
            relocated
        });
        Ok(moves.collect())
    }
}

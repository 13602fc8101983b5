//! What waits for the writer: bounded by number and by bytes, first come first served.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tallow_types::limits::{STORE_QUEUE_BYTES_MAX, STORE_QUEUE_MAX};

use super::job::Job;

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    /// One that is larger than all the room goes in alone.
    fn has_room(&self, job: &Job) -> bool {
        let fits = self.bytes + job.weight() <= STORE_QUEUE_BYTES_MAX || self.jobs.is_empty();
        fits && self.jobs.len() < STORE_QUEUE_MAX
    }

    fn push(&mut self, job: Job) {
        self.bytes += job.weight();
        self.jobs.push_back(job);
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something came, or nothing more will.
    came: Condvar,
    /// Something was taken.
    went: Condvar,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole after every single operation on it, whatever panics between them.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job, or gives it back if there is no room.
    pub(super) fn try_push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting();
        if waiting.closed || !waiting.has_room(&job) {
            return Err(job);
        }
        waiting.push(job);
        self.came.notify_one();
        Ok(())
    }

    /// Adds a job as soon as there is room, or gives it back if nobody takes any more.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting();
        while !waiting.closed && !waiting.has_room(&job) {
            waiting = self.went.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            return Err(job);
        }
        waiting.push(job);
        self.came.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes those that make one group: up to `bytes` and `count` of them, and none behind one that has
    /// to be the last of its group. `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: usize, count: usize) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut weight) = (Vec::new(), 0);
        while let Some(job) = waiting.jobs.front()
            && group.len() < count
            && (group.is_empty() || weight + job.weight() <= bytes)
        {
            weight += job.weight();
            let last = job.takes_away();
            group.extend(waiting.jobs.pop_front());
            if last {
                break;
            }
        }
        waiting.bytes -= weight;
        self.went.notify_all();
        Some(group)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().jobs.is_empty()
    }

    /// Takes nothing more in, and gives up what waits.
    pub(super) fn abandon(&self) -> VecDeque<Job> {
        self.close();
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.jobs)
    }

    /// Takes nothing more in.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.came.notify_all();
        self.went.notify_all();
    }
}

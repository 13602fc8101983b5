//! What is done in the background, out of the way of those who wait: giving back gaps, writing again what lies in segments
//! that are mostly dead, and reading everything once in a while to see whether it is still whole.
//!
//! One thread of the lowest priority. It pauses between its steps for as long as they took, and longer while writes wait.

mod compact;
mod gaps;
mod scrub;

use std::collections::BTreeSet;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::backend::SegmentId;
use super::job::Job;
use super::{Done, ReadError, Shared, SliceStore, WriteError};

pub(super) use scrub::Cursor;
pub use scrub::Scrubbed;

/// How long after the last slice was freed its place is given back: most often its neighbours go too, and whole segments
/// are worth more than gaps.
const SETTLE: Duration = Duration::from_secs(2);
/// How often it looks for something to do.
const ROUND: Duration = Duration::from_secs(10);
/// Longest pause between two steps.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a store is kept in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// In how long every slice is read and checked once; never if not set.
    pub scrub: Option<Duration>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { scrub: Some(Duration::from_hours(14 * 24)) }
    }
}

#[derive(Debug, Default)]
struct Rung {
    gaps: BTreeSet<SegmentId>,
    stop: bool,
}

/// Where the writer tells of gaps, and the thread hears that it should end.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<Rung>,
    heard: Condvar,
}

impl Bell {
    fn rung(&self) -> MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slices were freed in these segments.
    pub(super) fn gaps(&self, segments: BTreeSet<SegmentId>) {
        if !segments.is_empty() {
            self.rung().gaps.extend(segments);
            self.heard.notify_all();
        }
    }

    fn take_gaps(&self) -> BTreeSet<SegmentId> {
        std::mem::take(&mut self.rung().gaps)
    }

    pub(super) fn stop(&self) {
        self.rung().stop = true;
        self.heard.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.rung().stop
    }

    /// Waits for a time, or until the end; answers whether it is the end.
    fn pause(&self, time: Duration) -> bool {
        let rung = self.rung();
        let waited = self.heard.wait_timeout_while(rung, time, |rung| !rung.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

/// Does the work; a thread of its own calls it, or whoever can't wait for that.
pub(super) struct Caretaker {
    shared: Arc<Shared>,
    /// Segments that could not be read as a whole: they stay as they are.
    stuck: BTreeSet<SegmentId>,
}

impl Caretaker {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stuck: BTreeSet::new() }
    }

    /// Hands the writer a job and waits for it.
    fn write(&self, job: impl FnOnce(Done<()>) -> Job) -> Result<(), WriteError> {
        let (answer, wait) = sync_channel(1);
        let job = job(Box::new(move |result| {
            // Nobody waits any more only if this thread is gone.
            let _ = answer.send(result);
        }));
        let ended = || WriteError::Broken("its writer has ended".into());
        if let Err(job) = self.shared.queue.push(job) {
            job.refuse(&ended());
        }
        wait.recv().unwrap_or_else(|_| Err(ended()))
    }

    fn run(mut self, upkeep: Upkeep) {
        // Where it is refused, or there are no priorities, the pauses must do.
        let _ = rustix::process::nice(19);
        let mut scrub = scrub::Pace::new(upkeep.scrub);
        // What an earlier run left: gaps that it did not come to.
        self.tidy_all();
        let mut round = Instant::now();
        while !self.shared.bell.pause(SETTLE.min(scrub.due())) {
            self.tidy();
            if round.elapsed() >= ROUND {
                self.compact();
                round = Instant::now();
            }
            if scrub.is_due() {
                self.scrub_on(&mut scrub);
            }
        }
    }

    /// Waits after a step that took so long; answers whether it is the end.
    fn rest(&self, took: Duration) -> bool {
        let factor = if self.shared.queue.is_empty() { 1 } else { 8 };
        self.shared.bell.pause((took * factor).min(PAUSE_MAX))
    }
}

impl SliceStore {
    /// Keeps the store in order in the background from now on, until it is dropped. A second call changes nothing.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn keep_up(&self, upkeep: Upkeep) -> std::io::Result<()> {
        let mut thread = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let caretaker = Caretaker::new(self.shared.clone());
            let name = std::thread::Builder::new().name("slice-upkeep".into());
            *thread = Some(name.spawn(move || caretaker.run(upkeep))?);
        }
        Ok(())
    }

    /// Gives back now what was freed so far, and writes again what lies in segments that are mostly dead.
    pub fn tidy(&self) {
        let mut caretaker = Caretaker::new(self.shared.clone());
        caretaker.tidy();
        caretaker.compact();
    }

    /// Reads every slice now and marks what is damaged.
    ///
    /// # Errors
    /// Index or writer failed.
    pub fn scrub(&self) -> Result<Scrubbed, ReadError> {
        Caretaker::new(self.shared.clone()).scrub_all()
    }
}

/// Ends the thread.
pub(super) fn end(shared: &Shared, thread: Option<JoinHandle<()>>) {
    shared.bell.stop();
    if let Some(thread) = thread {
        // One that panicked has said so itself.
        let _ = thread.join();
    }
}

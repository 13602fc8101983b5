//! The slice store: slices in preallocated append-only segment files, their places in a redb index.
//!
//! Guarantees:
//! * What a call acknowledged survives a crash at any moment: data is synced before the index names it, the index is
//!   synced before anybody is told of more than new slices, which are found without it. Many requests share one sync.
//! * What a read returns has the root it was stored under: the whole slice was hashed for it, or within the last twenty
//!   minutes. Bytes that rot on the disk later are found by the next read after that, or by the scrub; they are marked, and
//!   refused, until the slice is stored again.
//! * A full disk is refused before anything is written, with the reserve untouched.
//! * The segments alone are enough to build the index again; lanes' promises are not in them and count as lost.
//! * Memory is bounded: what waits for the writer, three groups on their way, the index's cache, the places hashed of late.
//!
//! Does not know the ledger or the network: epochs, rooms and what is still needed come in as arguments. Uses plain
//! threads; `submit` serves callers that must not block.

mod apply;
mod backend;
mod error;
mod index;
mod job;
mod key;
mod queue;
mod read;
mod record;
mod recover;
mod row;
mod segments;
mod upkeep;
mod verified;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod torn;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes as Buffer;
use tallow_types::commit::{Leaf, Rank};
use tallow_types::{Bytes, Epoch, SliceRoot, StripeId};

pub use backend::{Backend, Directory, SegmentFile, SegmentId};
pub use error::{OpenError, ReadError, WriteError, WrongBytes};
pub use index::IndexError;
pub use key::{LaneKey, SliceKey};
pub use record::{HEADER, RecordHeader, SegmentHeader, VERSION};
pub use row::{KeptCommit, LaneRecord, LaneRow, LaneUpdate, Origin, Place, SliceRow, SliceState, Usage};
pub use upkeep::{Scrubbed, Upkeep};

use apply::{Applier, Progress};
use index::View;
use job::Job;
use queue::Queue;
use segments::Segments;
use upkeep::Bell;
use verified::Verified;
use writer::Writer;

/// Memory of the index's page cache. Bytes.
const INDEX_CACHE: usize = 32 << 20;

/// How a store is laid out and how much it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Most bytes of slices.
    pub room: Bytes,
    /// Bytes that stay free on the file system whatever is asked.
    pub reserve: Bytes,
    /// Length of a segment file.
    pub segment: Bytes,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { room: Bytes::new(1 << 40), reserve: Bytes::new(1 << 30), segment: Bytes::new(64 << 20) }
    }
}

impl StoreConfig {
    /// How much of the reserve slices may take that come with a commit: a full seeder can still sign one that makes room.
    /// The rest is for the index.
    const fn slack(&self, for_commit: bool) -> u64 {
        if for_commit { self.reserve.get() / 4 } else { 0 }
    }
}

/// The bytes of a slice, known to be those that its leaf names.
#[derive(Clone, Debug)]
pub struct Slice {
    leaf: Leaf,
    bytes: Buffer,
}

impl Slice {
    /// Checks length and root.
    ///
    /// # Errors
    /// [`WrongBytes`].
    pub fn verify(leaf: Leaf, bytes: Buffer) -> Result<Self, WrongBytes> {
        let length = u32::try_from(bytes.len()).is_ok_and(|length| length == leaf.length);
        if !length || tallow_proofs::lane::check_length(&leaf).is_err() || root_of(&bytes) != leaf.root {
            return Err(WrongBytes { stripe: leaf.stripe });
        }
        Ok(Self { leaf, bytes })
    }

    /// What it is.
    #[must_use]
    pub const fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}

/// The root of a slice's bytes.
#[must_use]
pub fn root_of(bytes: &[u8]) -> SliceRoot {
    tallow_proofs::slice::root(bytes)
}

/// Slices of one lane to keep: all or none.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// The lane.
    pub lane: LaneKey,
    /// The slices.
    pub slices: Vec<Slice>,
    /// The epoch now.
    pub epoch: Epoch,
    /// Most bytes of the lane, in its newest commit or in none yet, after this.
    pub limit: Bytes,
    /// Whether these are the few that come with a commit: they may go into a part of the reserve.
    pub for_commit: bool,
}

/// What becomes of a slice that is in no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It stays, for another reason.
    Restate(SliceState),
    /// It goes.
    Free,
}

/// Judges slices that are in no commit.
pub type Judge = Box<dyn FnMut(&SliceKey, SliceState) -> Verdict + Send>;

/// What a sweep freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Slices.
    pub slices: u64,
    /// Their length.
    pub bytes: Bytes,
    /// Whether it stopped at its bound; another sweep goes on.
    pub more: bool,
}

/// Told when a write is durable, or why it was not made.
pub type Done<T> = Box<dyn FnOnce(Result<T, WriteError>) + Send>;

pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    segments: Segments,
    pub(crate) database: redb::Database,
    queue: Queue,
    progress: Progress,
    verified: Verified,
    bell: Bell,
    /// Bytes of records written, since the start.
    written: AtomicU64,
    broken: OnceLock<String>,
}

impl Shared {
    /// Nothing more is written, for the first reason that was given.
    fn fail(&self, reason: String) -> WriteError {
        let reason = self.broken.get_or_init(|| {
            tracing::error!(reason, "store stops writing");
            reason
        });
        WriteError::Broken(reason.clone())
    }
}

/// Held by each thread that writes: nobody waits for what a thread that panicked would have done.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = self.0.fail("a thread that writes has panicked".into());
            self.0.progress.finish(u64::MAX);
            self.0.queue.abandon().into_iter().for_each(|job| job.refuse(&error));
        }
    }
}

/// A store of slices. Dropping it ends its threads after what waits is written.
pub struct SliceStore {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for SliceStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SliceStore").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl SliceStore {
    /// Opens the store in a directory, made if it isn't there. Torn tails are repaired; a missing index is built again
    /// from the segments.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, config: StoreConfig) -> Result<Self, OpenError> {
        Self::open_with(Arc::new(Directory::open(dir)?), config)
    }

    /// Puts the index aside and builds another from the segments. Every slice that is whole is found again; what
    /// lanes have promised is not, and they say so when they are asked.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn rebuild(dir: &Path, config: StoreConfig) -> Result<Self, OpenError> {
        Self::rebuild_with(Arc::new(Directory::open(dir)?), config)
    }

    /// [`SliceStore::rebuild`] on another backend.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn rebuild_with(backend: Arc<dyn Backend>, config: StoreConfig) -> Result<Self, OpenError> {
        backend.retire_index()?;
        backend.sync_names()?;
        Self::open_with(backend, config)
    }

    /// [`SliceStore::open`] on another backend.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(backend: Arc<dyn Backend>, config: StoreConfig) -> Result<Self, OpenError> {
        let (database, next) = recover::open(&backend)?;
        let shared = Arc::new(Shared {
            config,
            segments: Segments::open_all(backend, config.segment.get())?,
            database,
            queue: Queue::default(),
            progress: Progress::default(),
            verified: Verified::default(),
            bell: Bell::default(),
            written: AtomicU64::new(0),
            broken: OnceLock::new(),
        });
        // One group is written while the one before it comes into the index, and one more may wait in between.
        let (laid, groups) = sync_channel(1);
        let (writer, applier) = (Writer::new(shared.clone(), next, laid), Applier::new(shared.clone(), next));
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let (one, two) = (Watch(shared.clone()), Watch(shared.clone()));
        let applier = thread("slice-index").spawn(move || {
            let _watch = one;
            applier.run(&groups);
        })?;
        let writer = thread("slice-store").spawn(move || {
            let _watch = two;
            writer.run();
        })?;
        Ok(Self { shared, writers: vec![writer, applier], upkeep: Mutex::default() })
    }

    fn submit_job(&self, job: Job) {
        if let Err(job) = self.shared.queue.try_push(job) {
            job.refuse(&WriteError::Busy);
        }
    }

    fn wait<T: Send + 'static>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, WriteError> {
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

    /// Keeps slices and tells `done` once they are durable. Never blocks. Slices that are here already count as kept.
    pub fn submit(&self, request: PutRequest, done: Done<()>) {
        self.submit_job(Job::Put(request, done));
    }

    /// Keeps slices; returns once they are durable. Waits while too much is waiting already.
    ///
    /// # Errors
    /// See [`WriteError`]: nothing was kept.
    pub fn put(&self, request: PutRequest) -> Result<(), WriteError> {
        self.wait(|done| Job::Put(request, done))
    }

    /// Writes what a lane promises and tells `done` once it is durable. Slices that come into a commit are held from
    /// then on; those that leave it are kept until a sweep frees them. Never blocks.
    pub fn submit_lane(&self, update: LaneUpdate, done: Done<()>) {
        self.submit_job(Job::Lane(Box::new(update), done));
    }

    /// [`SliceStore::submit_lane`], waiting.
    ///
    /// # Errors
    /// See [`WriteError`]: nothing was changed.
    pub fn update_lane(&self, update: LaneUpdate) -> Result<(), WriteError> {
        self.wait(|done| Job::Lane(Box::new(update), done))
    }

    /// Keeps slices and writes what a lane promises with them, as one write. If the promise is refused the slices stay, in no
    /// commit.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn put_with_lane(&self, request: PutRequest, update: LaneUpdate) -> Result<(), WriteError> {
        self.wait(|done| Job::Commit(request, Box::new(update), done))
    }

    /// Asks `judge` about slices that are in no commit, and frees at most `limit` of them.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn sweep(&self, limit: usize, judge: Judge) -> Result<Swept, WriteError> {
        self.wait(|done| Job::Sweep { limit, judge, done })
    }

    /// Forgets a lane that isn't this seeder's any more: frees at most `limit` of its slices, and its promises with
    /// the last.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn remove_lane(&self, lane: LaneKey, limit: usize) -> Result<Swept, WriteError> {
        self.wait(|done| Job::RemoveLane { lane, limit, done })
    }

    fn view(&self) -> Result<View, IndexError> {
        View::open(&self.shared.database)
    }

    /// What all slices come to.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn usage(&self) -> Result<Usage, IndexError> {
        self.view()?.usage()
    }

    /// What the slices of one lane come to.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lane_usage(&self, lane: LaneKey) -> Result<Usage, IndexError> {
        self.view()?.lane_usage(lane)
    }

    /// How many slices are known to be damaged on the disk.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn damaged(&self) -> Result<u64, IndexError> {
        self.view()?.damaged()
    }

    /// Slices of a lane that are known to be damaged on the disk, at most `limit`. Storing one again mends it.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn damaged_of(&self, lane: LaneKey, limit: usize) -> Result<Vec<StripeId>, IndexError> {
        let found = self.view()?.damaged_of(lane, limit)?;
        Ok(found.into_iter().map(|key| key.stripe).collect())
    }

    /// What is kept of a lane.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lane(&self, lane: LaneKey) -> Result<Option<LaneRecord>, IndexError> {
        self.view()?.lane(lane)
    }

    /// All lanes with what they promise.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lanes(&self) -> Result<Vec<(LaneKey, LaneRow)>, IndexError> {
        self.view()?.lanes()
    }

    /// Lanes that have slices here, with or without promises.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lanes_with_slices(&self) -> Result<Vec<LaneKey>, IndexError> {
        self.view()?.used_lanes()
    }

    /// Bytes that may still be promised to lanes: the room without what is there, or what the file system has above
    /// the reserve, whichever is less.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn free(&self) -> Result<Bytes, ReadError> {
        let used = self.usage()?.bytes();
        let segments = &self.shared.segments;
        let disk = segments.backend().free()?.saturating_add(segments.spare_bytes());
        let disk = Bytes::new(disk).saturating_sub(self.shared.config.reserve);
        Ok(self.shared.config.room.saturating_sub(used).min(disk))
    }

    /// Bytes of slices written since the store was opened, those counted that were written a second time to make room.
    #[must_use]
    pub fn written(&self) -> Bytes {
        Bytes::new(self.shared.written.load(Ordering::Relaxed))
    }

    /// Why the store stopped writing, if it did.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.shared.broken.get().map(String::as_str)
    }
}

impl Drop for SliceStore {
    fn drop(&mut self) {
        upkeep::end(&self.shared, self.upkeep.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.queue.close();
        for writer in self.writers.drain(..) {
            // A writer that panicked has said so itself.
            let _ = writer.join();
        }
    }
}

/// The rule of a sweep that needs no ledger: a slice in no commit goes once a whole number of epochs has passed, one
/// that a commit left out once that commit was active in an epoch that is over.
#[must_use]
pub fn judge(state: SliceState, now: Epoch, grace: u64, active: Option<Rank>) -> Verdict {
    match state {
        SliceState::Loose { since } if now.since(since).get() > grace => Verdict::Free,
        SliceState::Dropped { by } if active.is_some_and(|active| active >= by) => {
            Verdict::Restate(SliceState::Released { at: now })
        }
        SliceState::Released { at } if now > at => Verdict::Free,
        _ => Verdict::Keep,
    }
}

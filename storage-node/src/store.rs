//! The slice store: slices in preallocated append-only segment files, their places in a redb index.
//!
//! Guarantees:
//! * What a call acknowledged survives a crash at any moment: data is synced before the index names it, the index is
//!   synced before anybody is told. Many requests share one sync of each.
//! * What a read returns has the root it was stored under. A whole slice is hashed each time; a range is served without
//!   only after the whole slice was hashed once since the program started. Bytes that rot on the disk later are found
//!   at the next whole read, or by the reader, whose seals don't open.
//! * A full disk is refused before anything is written, with the reserve untouched.
//! * The segments alone are enough to build the index again; lanes' promises are not in them and count as lost.
//!
//! Does not know the ledger or the network: epochs, rooms and what is still needed come in as arguments. Uses plain
//! threads; `submit` serves callers that must not block.

mod backend;
mod error;
mod index;
mod key;
mod record;
mod recover;
mod row;
mod segments;
mod writer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod torn;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes as Buffer;
use redb::ReadableDatabase;
use tallow_types::commit::{Leaf, Rank};
use tallow_types::limits::STORE_QUEUE_MAX;
use tallow_types::{Bytes, Epoch, SliceRoot};

pub use backend::{Backend, Directory, SegmentFile, SegmentId};
pub use error::{OpenError, ReadError, WriteError, WrongBytes};
pub use index::IndexError;
pub use key::{LaneKey, SliceKey};
pub use record::{HEADER, RecordHeader, SegmentHeader, VERSION};
pub use row::{KeptCommit, LaneRecord, LaneRow, LaneUpdate, Origin, SliceRow, SliceState, Usage};

use segments::Segments;
use writer::{Job, Writer};

/// Slices remembered as verified since the start.
const VERIFIED_MAX: usize = 1 << 16;
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
    pub(crate) segments: Segments,
    pub(crate) database: redb::Database,
    verified: Mutex<BTreeSet<(SegmentId, u64)>>,
    pub(crate) broken: OnceLock<String>,
}

/// A store of slices. Dropping it ends its writer thread after what waits is written.
pub struct SliceStore {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
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
            segments: Segments::new(backend),
            database,
            verified: Mutex::default(),
            broken: OnceLock::new(),
        });
        let (queue, jobs) = sync_channel(STORE_QUEUE_MAX);
        let writer = Writer::new(shared.clone(), next);
        let writer =
            std::thread::Builder::new().name("slice-store".into()).spawn(move || writer.run(&jobs))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }

    fn send(&self, job: Job) {
        let queue = self.queue.as_ref().expect("the queue is taken by drop alone");
        match queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => job.refuse(&WriteError::Busy),
            Err(TrySendError::Disconnected(job)) => {
                job.refuse(&WriteError::Broken("its writer has ended".into()));
            }
        }
    }

    fn wait<T: Send + 'static>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, WriteError> {
        let (answer, wait) = sync_channel(1);
        self.send(job(Box::new(move |result| {
            // Nobody waits any more only if this thread is gone.
            let _ = answer.send(result);
        })));
        wait.recv().unwrap_or_else(|_| Err(WriteError::Broken("its writer has ended".into())))
    }

    /// Keeps slices and tells `done` once they are durable. Never blocks. Slices that are here already count as kept.
    pub fn submit(&self, request: PutRequest, done: Done<()>) {
        self.send(Job::Put(request, done));
    }

    /// Keeps slices; returns once they are durable.
    ///
    /// # Errors
    /// See [`WriteError`]: nothing was kept.
    pub fn put(&self, request: PutRequest) -> Result<(), WriteError> {
        self.wait(|done| Job::Put(request, done))
    }

    /// Writes what a lane promises and tells `done` once it is durable. Slices that come into a commit are held from
    /// then on; those that leave it are kept until a sweep frees them. Never blocks.
    pub fn submit_lane(&self, update: LaneUpdate, done: Done<()>) {
        self.send(Job::Lane(Box::new(update), done));
    }

    /// [`SliceStore::submit_lane`], waiting.
    ///
    /// # Errors
    /// See [`WriteError`]: nothing was changed.
    pub fn update_lane(&self, update: LaneUpdate) -> Result<(), WriteError> {
        self.wait(|done| Job::Lane(Box::new(update), done))
    }

    /// Keeps slices and writes what their lane promises with them, in one step; returns once both are durable.
    ///
    /// # Errors
    /// See [`WriteError`]: the lane is as it was. Slices may have been kept.
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

    /// Part of a slice.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, key: &SliceKey, offset: u32, length: u32) -> Result<Buffer, ReadError> {
        let row = self.slice(key)?.ok_or(ReadError::NotFound)?;
        let end = offset.checked_add(length).filter(|end| *end <= row.length);
        if end.is_none() {
            return Err(ReadError::Range { offset, length, slice: row.length });
        }
        if row.damaged {
            return Err(ReadError::Damaged);
        }
        let place = (row.segment, row.offset);
        let whole = length == row.length;
        if !whole && self.verified().contains(&place) {
            return Ok(self.fetch(&row, offset, length)?);
        }
        let bytes = self.fetch(&row, 0, row.length)?;
        if root_of(&bytes) != row.root {
            // A sweep gives the bytes back after the index forgot them: look again before blaming the disk.
            return match self.slice(key)? {
                Some(now) if now.segment == row.segment && now.offset == row.offset => {
                    tracing::error!(stripe = key.stripe.short(), segment = row.segment, "slice is damaged");
                    self.send(Job::Damaged(*key));
                    Err(ReadError::Damaged)
                }
                _ => Err(ReadError::NotFound),
            };
        }
        let mut verified = self.verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(place);
        let (offset, length) = (offset as usize, length as usize);
        Ok(bytes.slice(offset..offset + length))
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, BTreeSet<(SegmentId, u64)>> {
        // The set is whole after every single operation on it, whatever panics between them.
        self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, row: &SliceRow, offset: u32, length: u32) -> std::io::Result<Buffer> {
        let mut bytes = vec![0; length as usize];
        let file = self.shared.segments.file(row.segment)?;
        file.read_at(row.offset + HEADER + u64::from(offset), &mut bytes)?;
        Ok(bytes.into())
    }

    /// Where a slice lies, if it is here.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn slice(&self, key: &SliceKey) -> Result<Option<SliceRow>, IndexError> {
        let table = self.shared.database.begin_read()?.open_table(index::SLICES)?;
        Ok(table.get(&key.bytes())?.map(|value| index::row("slices", value.value())).transpose()?)
    }

    /// What all slices come to.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn usage(&self) -> Result<Usage, IndexError> {
        let table = self.shared.database.begin_read()?.open_table(index::META)?;
        let found = table.get(index::META_USAGE)?;
        Ok(found.map(|value| index::row("meta", value.value())).transpose()?.unwrap_or_default())
    }

    /// What the slices of one lane come to.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lane_usage(&self, lane: LaneKey) -> Result<Usage, IndexError> {
        let table = self.shared.database.begin_read()?.open_table(index::LANE_USAGE)?;
        let found = table.get(&lane.bytes())?;
        Ok(found.map(|value| index::row("lane usage", value.value())).transpose()?.unwrap_or_default())
    }

    /// What is kept of a lane.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lane(&self, lane: LaneKey) -> Result<Option<LaneRecord>, IndexError> {
        index::read_lane(&self.shared.database.begin_read()?, lane)
    }

    /// All lanes with what they promise.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lanes(&self) -> Result<Vec<(LaneKey, LaneRow)>, IndexError> {
        index::read_lanes(&self.shared.database.begin_read()?)
    }

    /// Lanes that have slices here, with or without promises.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lanes_with_slices(&self) -> Result<Vec<LaneKey>, IndexError> {
        index::read_used_lanes(&self.shared.database.begin_read()?)
    }

    /// Bytes that may still be promised to lanes: the room without what is there, or what the file system has above
    /// the reserve, whichever is less.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn free(&self) -> Result<Bytes, ReadError> {
        let used = self.usage()?.bytes();
        let disk =
            Bytes::new(self.shared.segments.backend().free()?).saturating_sub(self.shared.config.reserve);
        Ok(self.shared.config.room.saturating_sub(used).min(disk))
    }

    /// Why the store stopped writing, if it did.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.shared.broken.get().map(String::as_str)
    }
}

impl Drop for SliceStore {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
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

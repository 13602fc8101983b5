//! `put`: reads and cuts the source on a thread of its own, has its chunks sealed and packed, and asks for a commit when all
//! are.
//!
//! Guarantees: one chunk at a time is in the reader's hands; a file that changes while it is read is read once more, and
//! then left out with its reason, or an error if it is all there is to store; nothing is visible before the commit.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tallow_market::quote;
use tallow_seal::cut::{Cutter, Sizes, Window};
use tallow_seal::entry::{FileTime, LinkTarget, Mode};
use tallow_seal::path::BlobPath;
use tallow_types::limits::INLINE_BLOB_MAX;
use tallow_types::tx::Action;
use tallow_types::unit::{Bytes, TimeMs};
use tokio::sync::oneshot;

use crate::client::{Client, Writer, gone};
use crate::error::{PutError, SessionError};
use crate::place::epochs_of_days;
use crate::progress::{Progress, Stage};
use crate::report::{PutReport, Skipped};
use crate::source::{Found, Item, Modified, RootError, Source, Walker, Watched, What};
use crate::write::committer::{Command, Extent, Look};
use crate::write::group::{Draft, DraftKind, Finish, STEP_MAX};
use crate::write::packer::Usage;
use crate::write::sealing::{Sealing, Ticket};

/// Counts a put or removal as under way for as long as it lives.
pub(crate) struct Active<'a>(&'a AtomicUsize);

impl<'a> Active<'a> {
    pub fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the reading thread to stop when the call is dropped.
struct Leash(Arc<AtomicBool>);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client {
    /// Stores a file, a folder or a stream at a path. A folder's content goes below the path; what was there and is not in
    /// the source stays. An empty path puts a folder's content at the top.
    ///
    /// A source of at most 32,768 entries becomes visible as a whole. A larger one does in steps of so many, in the order of
    /// the walk: each is acknowledged before the next, and folders come before what is in them.
    ///
    /// Dropping the future interrupts: nothing of the present step is visible, and the same call goes on where it stopped.
    ///
    /// # Errors
    /// See [`PutError`]. Nothing of the present step is visible then.
    pub async fn put(
        &self,
        source: Source,
        to: &str,
        progress: Arc<dyn Progress>,
    ) -> Result<PutReport, PutError> {
        let to = if to.is_empty() { None } else { Some(blob_path(to)?) };
        progress.stage(Stage::Connecting);
        let (source, blobs, bytes) = blocking(move || measure(source)).await??;
        progress.expect(blobs, bytes);
        let writer = self.inner.writer_for_put(bytes).await?;
        let _active = Active::begin(&writer.works.active);
        let _listening = writer.works.uplink.listen(progress.clone());
        progress.stage(Stage::Leasing);
        writer.ready().await?;
        self.fill_vacant(&writer, &progress).await;
        progress.stage(Stage::Storing);
        let stored_before = writer.works.uplink.stored.load(Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let _leash = Leash(stop.clone());
        let usage = writer.works.packer.usage();
        let reading = Reading {
            writer: writer.clone(),
            progress: progress.clone(),
            stop,
            now: self.inner.options.clock.now(),
            sizes: sizes(&writer),
            window: Window::default(),
            sealing: Sealing::new(writer.works.clone(), usage.clone()),
            usage,
            report: PutReport::default(),
            changes: Vec::new(),
            coming: Vec::new(),
        };
        let (changes, usage, mut report) = blocking(move || reading.run(source, to)).await??;
        progress.stage(Stage::Committing);
        let (reply, answer) = oneshot::channel();
        let finish = Command::Finish(Finish { changes, usage: Some(usage), reply });
        writer.commands.send(finish).await.map_err(|_| gone())?;
        let acked = answer.await.map_err(|_| gone())??;
        report.signers = acked.signers;
        report.slots = acked.slots;
        report.stored = writer.works.uplink.stored.load(Ordering::Relaxed).saturating_sub(stored_before);
        report.lost = writer.works.uplink.lost();
        drop(_active);
        self.top_up(&writer).await;
        Ok(report)
    }

    /// Gives vacant slots to seeders that have come since. Failing at it does not keep a put from succeeding.
    async fn fill_vacant(&self, writer: &Writer, progress: &Arc<dyn Progress>) {
        if !writer.works.may_look(Look::Vacant) {
            return;
        }
        let contract = self.inner.chain.contract(&self.inner.contract).await;
        if !contract.is_ok_and(|contract| contract.is_some_and(|contract| contract.vacant().next().is_some()))
        {
            return;
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Repair(reply, progress.clone(), Extent::IfFilled);
        if writer.commands.send(command).await.is_ok()
            && let Ok(Err(error)) = answer.await
        {
            tracing::warn!(%error, "vacant slots could not be filled");
        }
    }

    /// Keeps the default fuel at its default duration: what a put adds is paid for as long as what was there. What was put
    /// is safe whether this works or not, so its failure is only noted.
    async fn top_up(&self, writer: &Writer) {
        if self.inner.options.contract.fuel.is_some() || !writer.works.may_look(Look::Fuel) {
            return;
        }
        if let Err(error) = self.try_top_up(writer).await {
            tracing::warn!(%error, "the contract's fuel could not be topped up");
        }
    }

    async fn try_top_up(&self, writer: &Writer) -> Result<(), SessionError> {
        let (chain, params) = (&self.inner.chain, &writer.works.params);
        let Some(contract) = chain.contract(&self.inner.contract).await? else { return Ok(()) };
        let used = Bytes::new(writer.works.uplink.room_used());
        let lanes = contract.lanes().map(|(_, lane)| quote::LaneCost { price: lane.price, bytes: used });
        let epochs = epochs_of_days(params, self.inner.options.contract.fuel_days);
        let wanted = quote::for_epochs(params, lanes, epochs).unwrap_or_default();
        let missing = wanted.saturating_sub(contract.fuel);
        // A tenth less is not worth a transaction.
        if missing.get() * 10 <= wanted.get() {
            return Ok(());
        }
        let account = chain.account(&self.inner.options.identity.account()).await?;
        let half = tallow_types::unit::Fuel::new(account.map_or(0, |account| account.balance.get()) / 2);
        let amount = missing.min(half);
        if amount.get() > 0 {
            let action = Action::Refuel { contract: self.inner.contract, amount };
            chain.transact("top up", action).await?;
        }
        Ok(())
    }
}

/// Parses a path that a user named.
pub(crate) fn blob_path(text: &str) -> Result<BlobPath, PutError> {
    BlobPath::parse(text)
        .map_err(|error| PutError::BadPath { path: text.to_owned(), reason: error.to_string() })
}

fn file_time(modified: Modified) -> FileTime {
    FileTime::new(modified.seconds, modified.nanos).unwrap_or_default()
}

/// Chunk sizes that fit the stripes of this client.
fn sizes(writer: &Writer) -> Sizes {
    Sizes::for_capacity(writer.works.packer.capacity()).unwrap_or(Sizes::STANDARD)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PutError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SessionError::Internal(error.to_string()).into())
}

/// What there is to read: files and bytes.
fn measure(source: Source) -> Result<(Source, u64, u64), PutError> {
    let Source::Path(path) = &source else { return Ok((source, 1, 0)) };
    let (mut files, mut bytes) = (0, 0);
    for found in walk(path)? {
        if let Found::Item(Item { what: What::File { size }, .. }) = found {
            files += 1;
            bytes += size;
        }
    }
    Ok((source, files, bytes))
}

fn walk(path: &Path) -> Result<Walker, PutError> {
    let shown = path.display().to_string();
    Walker::new(path).map_err(|error| match error {
        RootError::Io(source) => PutError::Source { path: shown, source },
        RootError::Odd(what) => PutError::OddSource { path: shown, what },
    })
}

type Changes = Vec<(BlobPath, Option<Draft>)>;

/// The reading side of one put.
struct Reading {
    writer: Writer,
    progress: Arc<dyn Progress>,
    stop: Arc<AtomicBool>,
    now: TimeMs,
    sizes: Sizes,
    window: Window,
    sealing: Sealing,
    usage: Arc<Usage>,
    report: PutReport,
    changes: Changes,
    /// Changes whose chunks are still being sealed.
    coming: Vec<(usize, Ticket)>,
}

/// A content that was read.
enum Read {
    /// All of it.
    Inline(Vec<u8>),
    /// It is on its way into stripes.
    Chunks(Ticket),
}

/// Why one file was not read.
enum Unread {
    Fatal(PutError),
    Io(std::io::Error),
    Changed,
}

impl From<PutError> for Unread {
    fn from(error: PutError) -> Self {
        Self::Fatal(error)
    }
}

impl Reading {
    fn run(
        mut self,
        source: Source,
        to: Option<BlobPath>,
    ) -> Result<(Changes, Arc<Usage>, PutReport), PutError> {
        match source {
            Source::Reader { reader, mode } => {
                let path = to.ok_or_else(|| PutError::BadPath {
                    path: String::new(),
                    reason: "a stream needs a name".into(),
                })?;
                let read = self.content(reader).map_err(|unread| match unread {
                    Unread::Fatal(error) => error,
                    Unread::Io(source) => PutError::Source { path: "the stream".into(), source },
                    Unread::Changed => PutError::Changed { path: "the stream".into() },
                })?;
                self.report.files = 1;
                self.progress.blob(path.as_str());
                self.add_content(path, read, FileTime::from_clock(self.now), mode);
            }
            Source::Path(root) => {
                for found in walk(&root)? {
                    if self.changes.len() >= STEP_MAX {
                        self.step()?;
                    }
                    match found {
                        Found::Skipped(skipped) => self.report.skipped.push(skipped),
                        Found::Item(item) => self.item(item, to.as_ref())?,
                    }
                }
            }
        }
        let (changes, usage) = self.sealed()?;
        Ok((changes, usage, self.report))
    }

    /// What was read since the last time, once its chunks are packed, and what keeps these.
    fn sealed(&mut self) -> Result<(Changes, Arc<Usage>), PutError> {
        let works = &self.writer.works;
        let usage = std::mem::replace(&mut self.usage, works.packer.usage());
        let sealing = std::mem::replace(&mut self.sealing, Sealing::new(works.clone(), self.usage.clone()));
        let (mut placed, mut changes) = (sealing.finish()?, std::mem::take(&mut self.changes));
        for (change, ticket) in self.coming.drain(..) {
            let found = placed.remove(&ticket).unwrap_or_default();
            self.report.reused += found.reused;
            if let Some((_, Some(draft))) = changes.get_mut(change) {
                draft.what = DraftKind::Chunks(found.chunks);
            }
        }
        Ok((changes, usage))
    }

    /// Commits what there is so far of a large source, so that it need not be held.
    fn step(&mut self) -> Result<(), PutError> {
        let (changes, usage) = self.sealed()?;
        let (reply, answer) = oneshot::channel();
        let finish = Command::Finish(Finish { changes, usage: Some(usage), reply });
        self.writer.commands.blocking_send(finish).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())??;
        Ok(())
    }

    fn item(&mut self, item: Item, to: Option<&BlobPath>) -> Result<(), PutError> {
        let is_root = item.relative.is_empty();
        let path = match (to, is_root) {
            (Some(to), true) => Ok(to.clone()),
            (Some(to), false) => BlobPath::parse(&format!("{}/{}", to.as_str(), item.relative)),
            // The top has no entry of its own.
            (None, true) if item.what == What::Dir => return Ok(()),
            (None, _) => BlobPath::parse(&item.relative),
        };
        let shown = item.path.display().to_string();
        let path = match path {
            Ok(path) => path,
            Err(error) if is_root => {
                return Err(PutError::BadPath { path: shown, reason: error.to_string() });
            }
            Err(error) => {
                self.report.skipped.push(Skipped { path: shown, reason: error.to_string() });
                return Ok(());
            }
        };
        match item.what {
            What::Dir => {
                self.add(path, DraftKind::Dir, file_time(item.modified), item.mode);
                self.report.folders += 1;
            }
            What::Link { target } => match LinkTarget::new(target) {
                Some(target) => {
                    self.add(path, DraftKind::Link(target), file_time(item.modified), item.mode);
                    self.report.links += 1;
                }
                None => {
                    let reason = "the link's target is too long".into();
                    self.report.skipped.push(Skipped { path: shown, reason });
                }
            },
            What::File { .. } => match self.file(&item.path, is_root) {
                Ok((read, modified, mode)) => {
                    self.progress.blob(path.as_str());
                    self.add_content(path, read, file_time(modified), mode);
                    self.report.files += 1;
                }
                Err(Unread::Fatal(error)) => return Err(error),
                Err(Unread::Io(source)) if is_root => return Err(PutError::Source { path: shown, source }),
                Err(Unread::Changed) if is_root => return Err(PutError::Changed { path: shown }),
                Err(Unread::Io(error)) => {
                    self.report.skipped.push(Skipped { path: shown, reason: error.to_string() });
                }
                Err(Unread::Changed) => {
                    let reason = "it changed while it was read, twice".into();
                    self.report.skipped.push(Skipped { path: shown, reason });
                }
            },
        }
        Ok(())
    }

    fn add(&mut self, path: BlobPath, what: DraftKind, modified: FileTime, mode: u32) {
        let draft = Draft { what, modified, mode: Mode::from_system(mode), stored_at: self.now };
        self.changes.push((path, Some(draft)));
    }

    fn add_content(&mut self, path: BlobPath, read: Read, modified: FileTime, mode: u32) {
        let what = match read {
            Read::Inline(bytes) => DraftKind::Inline(bytes),
            Read::Chunks(ticket) => {
                self.coming.push((self.changes.len(), ticket));
                DraftKind::Chunks(Vec::new())
            }
        };
        self.add(path, what, modified, mode);
    }

    /// Reads one file, twice if it changes meanwhile.
    fn file(&mut self, path: &Path, is_root: bool) -> Result<(Read, Modified, u32), Unread> {
        for _ in 0..2 {
            let mut file = Watched::open(path, is_root).map_err(Unread::Io)?;
            let before = self.report.bytes;
            let read = self.content(file.reader())?;
            if file.is_unchanged(self.report.bytes - before) {
                return Ok((read, file.modified(), file.mode()));
            }
            self.report.bytes = before;
        }
        Err(Unread::Changed)
    }

    /// Cuts one content and hands its chunks on.
    fn content(&mut self, reader: impl std::io::Read) -> Result<Read, Unread> {
        let mut cutter = Cutter::with_window(self.sizes, reader, std::mem::take(&mut self.window));
        let ticket = self.sealing.ticket();
        let mut waiting: Option<Vec<u8>> = None;
        let mut is_first = true;
        while let Some(chunk) = cutter.next_chunk().map_err(Unread::Io)? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Unread::Fatal(SessionError::LeaseLost.into()));
            }
            self.report.bytes += chunk.len() as u64;
            self.progress.plain(chunk.len() as u64);
            if std::mem::take(&mut is_first) && chunk.len() <= INLINE_BLOB_MAX {
                // The only chunk, perhaps: then it lives in the catalog.
                waiting = Some(chunk.to_vec());
                continue;
            }
            if let Some(first) = waiting.take() {
                self.sealing.push(ticket, &first)?;
            }
            self.sealing.push(ticket, chunk)?;
        }
        self.window = cutter.into_window();
        Ok(match waiting {
            Some(only) => Read::Inline(only),
            None if is_first => Read::Inline(Vec::new()),
            None => Read::Chunks(ticket),
        })
    }
}

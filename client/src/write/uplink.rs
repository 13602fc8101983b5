//! The way up: closed stripes are coded, masked and hashed, and each slice goes to its seeder's queue.
//!
//! Guarantees: at most `stripes_in_flight` coded stripes are in memory; a seeder that fails, or lags behind a stripe that
//! a quorum holds, drops out and lets go of its share of that memory; a stripe settles when every seeder still in has
//! answered for it, and fails when a quorum can't be had. What was acknowledged is journaled and not sent again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes as Payload;
use tallow_seal::attempt::StripeAttempt;
use tallow_seal::keys::ContractKeys;
use tallow_seal::repair::SlotSet;
use tallow_seal::stripe::Stripe;
use tallow_types::commit::Leaf;
use tallow_types::id::{ContractId, Digest, SeederId, SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::{SlotIndex, TimeMs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::block::{Block, Blocks, Grant, Spare};
use super::cell::{Cell, Failure, State};
use super::journal::Journal;
use super::line::{Flight, Job, Line, Tally, run_line, settle};
use super::packer::Closed;
use crate::db::{self, ATTEMPTS, Db};
use crate::error::Blame;
use crate::identity::random_bytes;
use crate::progress::{Progress, Silent};
use crate::seats::{Caller, Seat};
use crate::stripes::Row;

/// Seeders keep slices that no commit names for ten minutes of ledger time at least; acknowledgements older than this are
/// not relied on. Milliseconds.
const TRUST_ACKS_MS: u64 = 8 * 60 * 1000;

/// Stripes that are coded at once. It takes one thread each, and memory for the stream besides that for the slices.
const CODERS: usize = 2;
/// This part of a lane's room is for stripes that hold nothing but records.
const RECORDS_SHARE: u64 = 64;

/// One encoding attempt in the journal.
#[derive(BorshSerialize, BorshDeserialize)]
pub(crate) struct Attempt {
    pub attempt: StripeAttempt,
    /// When it was begun, by the ledger's time.
    pub began: TimeMs,
    pub acknowledged: Vec<(SlotIndex, SeederId)>,
}

/// Numbers and shared things of an uplink.
pub(crate) struct Setup {
    pub caller: Arc<Caller>,
    pub db: Arc<Db>,
    pub contract: ContractId,
    pub profile: Profile,
    pub keys: Arc<ContractKeys>,
    pub stripes_in_flight: usize,
    /// What the slices of a full stripe take together. Bytes.
    pub stripe_room: usize,
    /// Takes the memory of streams that are coded.
    pub streams: Spare,
    pub straggler: Duration,
    pub patience: Duration,
}

/// The way up for one contract.
pub(crate) struct Uplink {
    pub setup: Setup,
    blocks: Blocks,
    /// Turns of stripes that are being coded, each of which still has its stream as well.
    coders: Arc<Semaphore>,
    lines: Mutex<Vec<Arc<Line>>>,
    /// Whether the lease is held, so that slices may be sent.
    pub open: watch::Sender<bool>,
    /// Whether stripes may still begin their way.
    pub admit: watch::Sender<bool>,
    /// Counts refusals that mean that the lease is gone.
    pub broken: watch::Sender<u64>,
    /// Counts stripes that came to an end, either way.
    pub ended: watch::Sender<u64>,
    pub journal: Journal,
    listeners: Mutex<BTreeMap<u64, Arc<dyn Progress>>>,
    next_listener: AtomicU64,
    /// Slice bytes acknowledged so far.
    pub stored: AtomicU64,
    /// The ledger's time when the lease was taken.
    pub ledger_time: AtomicU64,
    room: Mutex<Room>,
    tasks: Mutex<JoinSet<()>>,
    /// Cells that were sent and are in no commit yet.
    cells: Mutex<BTreeMap<u64, Arc<Cell>>>,
}

/// Room of a lane: what there is, and what stripes on their way and in the commit take.
#[derive(Default)]
struct Room {
    limit: u64,
    committed: u64,
    /// By the ordinal of their cells.
    coming: BTreeMap<u64, u64>,
}

impl Room {
    fn used(&self) -> u64 {
        self.coming.values().fold(self.committed, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// A stripe's masked slices.
pub(crate) struct Coded {
    pub stripe: StripeId,
    pub slices: Vec<Payload>,
    roots: Vec<SliceRoot>,
    slice_len: u32,
    digest: Option<Digest>,
    acknowledged: Vec<(SlotIndex, SeederId)>,
}

impl Coded {
    /// What a book says of it, with the slots that hold it.
    pub fn row(&self, present: SlotSet) -> Row {
        let roots = self.roots.iter().copied().map(Some).collect();
        Row { stripe: self.stripe, slice_len: self.slice_len, roots, present, is_covered: false, uses: 0 }
    }
}

impl Uplink {
    pub fn new(setup: Setup) -> Arc<Self> {
        let blocks = Blocks::new(setup.stripes_in_flight.max(1), setup.stripe_room);
        let journal = Journal::start(setup.db.clone());
        Arc::new(Self {
            setup,
            blocks,
            coders: Arc::new(Semaphore::new(CODERS)),
            lines: Mutex::default(),
            open: watch::Sender::new(false),
            admit: watch::Sender::new(false),
            broken: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            journal,
            listeners: Mutex::default(),
            next_listener: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            ledger_time: AtomicU64::new(0),
            room: Mutex::default(),
            tasks: Mutex::default(),
            cells: Mutex::default(),
        })
    }

    /// Runs a task until it ends or the uplink stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Lets stripes through, or holds them back.
    pub fn set_gate(&self, is_open: bool) {
        self.open.send_replace(is_open);
        self.admit.send_replace(is_open);
    }

    /// Stops everything at once. What was not acknowledged stays so.
    pub fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.journal.stop();
    }

    /// Stops everything and waits until it has stopped.
    pub async fn end(&self) {
        self.stop();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.journal.end().await;
    }

    /// Cells that are held by a quorum but named by no commit, in the order in which they were begun; and when there are
    /// none because all are still on their way, nothing.
    pub fn settled(&self) -> Vec<(Arc<Cell>, Arc<Row>)> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, cell| !matches!(cell.state(), State::Committed { .. } | State::Failed(_)));
        let settled = cells.values().filter_map(|cell| match cell.state() {
            State::Settled(row) => Some((cell.clone(), row)),
            _ => None,
        });
        settled.collect()
    }

    /// Cells that are with the seeders' queues.
    pub fn sending(&self) -> Vec<Arc<Cell>> {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.values().filter(|cell| matches!(cell.state(), State::Sending)).cloned().collect()
    }

    /// Gives up everything on its way: the lease is gone for good.
    pub fn fail_all(&self) {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in cells.values().filter(|cell| matches!(cell.state(), State::Moving | State::Sending)) {
            self.give_up(cell);
        }
    }

    /// A cell that a later commit is to take in.
    pub fn register(&self, cell: &Arc<Cell>) {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner).insert(cell.ordinal, cell.clone());
    }

    /// Which seeders are in: those that promised under the present lease. The queues of others end.
    pub fn set_seats(self: &Arc<Self>, seats: Vec<Seat>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| {
            let stays = seats.contains(&line.seat);
            if !stays {
                line.out.send_replace(Some("it did not promise under the new lease".into()));
            }
            stays
        });
        for seat in seats {
            if let Some(line) = lines.iter().find(|line| line.seat == seat) {
                line.out.send_replace(None);
                continue;
            }
            let (queue, jobs) = mpsc::unbounded_channel();
            let line = Arc::new(Line { seat, queue, out: watch::Sender::new(None) });
            self.spawn(run_line(self.clone(), line.clone(), jobs));
            lines.push(line);
        }
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seeders that are still in.
    pub fn seats(&self) -> Vec<Seat> {
        self.lines().iter().filter(|line| line.is_in()).map(|line| line.seat.clone()).collect()
    }

    /// Those that dropped out, and why.
    pub fn lost(&self) -> Vec<Blame> {
        let reason = |line: &Arc<Line>| Some(line.seat.blame(line.out.borrow().clone()?));
        self.lines().iter().filter_map(reason).collect()
    }

    /// A seeder drops out.
    pub fn drop_out(&self, slot: SlotIndex, reason: &str) {
        for line in self.lines().iter().filter(|line| line.seat.slot == slot && line.is_in()) {
            tracing::info!(
                slot = slot.get(),
                seeder = line.seat.seeder.short(),
                reason,
                "seeder dropped out"
            );
            line.out.send_replace(Some(reason.to_owned()));
            self.tell(|progress| progress.lost(slot, &line.seat.seeder, reason));
        }
    }

    /// Room of a lane, and what the commit takes of it.
    pub fn set_room(&self, limit: u64, committed: u64) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        (room.limit, room.committed) = (limit, committed);
    }

    /// What the commit takes now, and which stripes are not on their way any more.
    pub fn arrived(&self, committed: u64, cells: impl IntoIterator<Item = u64>) {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.committed = committed;
        for ordinal in cells {
            room.coming.remove(&ordinal);
        }
    }

    /// Fails what is with the queues of too few seeders.
    pub fn fail_short(&self) {
        let (have, need) = (self.seats().len(), usize::from(self.setup.profile.quorum()));
        for cell in self.sending() {
            self.free_room(&cell);
            cell.set(State::Failed(Failure::TooFew { have, need, failed: self.lost() }));
        }
    }

    /// Nobody wants a stripe any more.
    pub fn give_up(&self, cell: &Cell) {
        self.free_room(cell);
        cell.set(State::Failed(Failure::Lost));
    }

    /// A stripe came to nothing: its room is free again.
    pub fn free_room(&self, cell: &Cell) {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).coming.remove(&cell.ordinal);
    }

    /// Bytes of a lane that the commit and stripes on their way take.
    pub fn room_used(&self) -> u64 {
        self.room.lock().unwrap_or_else(PoisonError::into_inner).used()
    }

    /// Takes room of a lane for a stripe, if there is some.
    pub fn take_room(&self, cell: &Cell, slice_len: u32) -> Result<(), Failure> {
        let bytes = tallow_types::unit::Bytes::new;
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let used = room.used();
        // A contract whose room is full still takes the records of what is removed from it.
        let spare = if cell.is_bare() { 0 } else { room.limit / RECORDS_SHARE };
        if used.saturating_add(u64::from(slice_len)) > room.limit - spare {
            let need = bytes(u64::from(slice_len));
            return Err(Failure::NoRoom { used: bytes(used), room: bytes(room.limit - spare), need });
        }
        room.coming.insert(cell.ordinal, u64::from(slice_len));
        Ok(())
    }

    /// Tells somebody about bytes from now on.
    pub fn listen(self: &Arc<Self>, progress: Arc<dyn Progress>) -> Listening {
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(id, progress);
        Listening { uplink: self.clone(), id }
    }

    pub fn tell(&self, what: impl Fn(&dyn Progress)) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.values().for_each(|progress| what(progress.as_ref()));
    }

    /// Sends a closed stripe on its way. Returns when there is memory to code it in; the rest goes on apart, and its cell
    /// tells how it ends. A stripe of records comes with the id that they name themselves by.
    pub async fn send(self: &Arc<Self>, closed: Closed, id: Option<StripeId>) {
        let Closed { cell, stripe } = closed;
        if id.is_none() {
            self.register(&cell);
        }
        let Ok(turn) = self.coders.clone().acquire_owned().await else { return };
        let Some(memory) = self.blocks.grant().await else { return };
        if let Err(failure) = self.take_room(&cell, stripe.layout().slice_len()) {
            return self.came_to_nothing(&cell, failure);
        }
        let uplink = self.clone();
        self.spawn(async move {
            if let Err(failure) = uplink.code_and_queue(&cell, stripe, id, (turn, memory)).await {
                uplink.came_to_nothing(&cell, failure);
            }
        });
    }

    fn came_to_nothing(&self, cell: &Cell, failure: Failure) {
        self.free_room(cell);
        cell.set(State::Failed(failure));
        self.ended.send_modify(|count| *count += 1);
    }

    /// The same on a task of its own, for whoever must not wait: it may be the one who has to get the lease back.
    pub fn send_apart(self: &Arc<Self>, closed: Closed, id: Option<StripeId>) {
        if id.is_none() {
            self.register(&closed.cell);
        }
        let uplink = self.clone();
        self.spawn(async move { uplink.send(closed, id).await });
    }

    async fn code_and_queue(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        stripe: Stripe,
        id: Option<StripeId>,
        (turn, memory): (OwnedSemaphorePermit, Grant),
    ) -> Result<(), Failure> {
        let (uplink, internal) = (self.clone(), |reason: String| Failure::Internal(reason));
        let coding = tokio::task::spawn_blocking(move || {
            let coded = uplink.code(&stripe, id, Some(memory));
            uplink.setup.streams.give(stripe.into_memory());
            coded
        });
        let coded = coding.await;
        let coded = coded.map_err(|error| internal(error.to_string()))?.map_err(internal)?;
        drop(turn);
        let mut admit = self.admit.subscribe();
        tokio::select! {
            biased;
            // It was given up while it waited.
            _ = async { cell.settled().await } => return Err(Failure::Lost),
            _ = async { admit.wait_for(|admit| *admit).await.is_ok() } => {}
        }
        self.queue(cell, coded);
        Ok(())
    }

    /// Masked slices with their roots, in memory granted or, for small ones, their own. Runs on a thread that may block.
    pub fn code(
        &self,
        content: &Stripe,
        id: Option<StripeId>,
        memory: Option<Grant>,
    ) -> Result<Coded, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (attempt, digest, acknowledged) = match id {
            Some(id) => (StripeAttempt::begin(self.setup.contract, id, content), None, Vec::new()),
            None => {
                let known = self.journaled(content).map_err(|error| text(&error))?;
                (known.attempt, Some(known.attempt.digest), known.acknowledged)
            }
        };
        let permit = attempt.permit(content).map_err(|error| text(&error))?;
        let (stripe, slice_len) = (permit.stripe(), content.layout().slice_len());
        let codec = tallow_erasure::codec(self.setup.profile);
        let mut block = match memory {
            Some(memory) => memory.block(permit.room()),
            None => Block::apart(permit.room()),
        };
        let coded =
            permit.code(&self.setup.keys.mask, block.bytes(), |data, parity| codec.encode(data, parity));
        let roots = coded.map_err(|error| text(&error))?;
        Ok(Coded { stripe, slices: block.slices(slice_len as usize), roots, slice_len, digest, acknowledged })
    }

    /// The attempt of the journal for these very bytes, or a new one.
    fn journaled(&self, stripe: &Stripe) -> Result<Attempt, crate::error::LocalError> {
        let digest = stripe.digest();
        let now = self.ledger_time.load(Ordering::Relaxed);
        let known = self.setup.db.keyed::<Attempt>(ATTEMPTS, digest.as_bytes())?;
        let known = known.filter(|known| known.attempt.contract == self.setup.contract);
        if let Some(mut known) = known {
            if now.saturating_sub(known.began.get()) > TRUST_ACKS_MS {
                known.acknowledged.clear();
            }
            return Ok(known);
        }
        let attempt = StripeAttempt::begin(self.setup.contract, StripeId::new(random_bytes()), stripe);
        let attempt = Attempt { attempt, began: TimeMs::new(now), acknowledged: Vec::new() };
        // Durable with the first acknowledgement: before, there is nothing to go on with.
        let row = [(digest.as_bytes().as_slice(), Some(&attempt))];
        self.setup.db.write_soft(|tx| db::put_keys(tx, ATTEMPTS, row))?;
        Ok(attempt)
    }

    fn queue(self: &Arc<Self>, cell: &Arc<Cell>, coded: Coded) {
        let lines: Vec<_> = self.lines().into_iter().filter(|line| line.is_in()).collect();
        let slots = lines.iter().map(|line| line.seat.slot).collect();
        let tally = Tally { asked: lines.len(), slots, ..Tally::default() };
        let flight = Arc::new(Flight { digest: coded.digest, tally: watch::Sender::new(tally) });
        let row = coded.row(SlotSet::default());
        let mut slices: Vec<Option<Payload>> = coded.slices.into_iter().map(Some).collect();
        for line in lines {
            let at = usize::from(line.seat.slot.get());
            if coded.acknowledged.contains(&(line.seat.slot, line.seat.seeder)) {
                flight.tally.send_modify(|tally| tally.acknowledged.insert(line.seat.slot));
                continue;
            }
            let (Some(bytes), Some(root)) = (slices.get_mut(at).and_then(Option::take), coded.roots.get(at))
            else {
                continue;
            };
            let leaf = Leaf { stripe: coded.stripe, root: *root, length: coded.slice_len };
            let job = Job { flight: flight.clone(), leaf, bytes };
            if line.queue.send(job).is_err() {
                flight.fail(&line.seat, "its queue has ended");
            }
        }
        if let Some(digest) = coded.digest {
            let _set = cell.digest.set(digest);
        }
        cell.set(State::Sending);
        self.spawn(settle(self.clone(), cell.clone(), flight, row));
    }
}

/// Ends when the listener is dropped.
pub(crate) struct Listening {
    uplink: Arc<Uplink>,
    id: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.uplink.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A progress that tells nobody, for work that no caller waits for.
pub(crate) fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

//! Sealing on all cores. The chunks of one put go in as they are cut; they are named, looked up and sealed side by side, and
//! packed in the order in which they came, so that the same source always makes the same stripes. Nothing waits for the
//! reader: what is sealed goes on its way while the source is slow.
//!
//! Small chunks travel in batches, and the last batch of a put that has no other is sealed where it is: a small blob
//! costs no thread.
//!
//! Memory: `CHUNKS_IN_HAND` bytes of chunks over all puts of a client, and one batch in the making for each of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tallow_seal::chunk::{Chunk, ChunkId, Sealer};
use tallow_types::limits::SEALED_CHUNK_MAX;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cell::{Cell, Placement, State};
use super::committer::Works;
use super::packer::Usage;
use crate::error::{PutError, SessionError};

/// Bytes of chunks that are being sealed or wait for it.
const CHUNKS_IN_HAND: usize = 24 << 20;
/// A batch is handed on when it has so many bytes. Chunks inside a large blob are longer, and go one by one.
const BATCH: usize = 128 << 10;
/// One turn stands for so many bytes.
const TURN: usize = 1 << 10;

/// What the puts of a client share: turns for memory, the memory itself, and compressors.
pub(crate) struct Workshop {
    turns: Arc<Semaphore>,
    workers: usize,
    sealers: Mutex<Vec<Sealer>>,
    memory: Mutex<Vec<Vec<u8>>>,
}

impl Default for Workshop {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(CHUNKS_IN_HAND / TURN)),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            sealers: Mutex::default(),
            memory: Mutex::default(),
        }
    }
}

impl Workshop {
    fn sealer(&self) -> Sealer {
        self.sealers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Puts away what is worth keeping: as many as there are workers.
    fn keep<T>(&self, kept: &Mutex<Vec<T>>, what: T) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() <= self.workers {
            kept.push(what);
        }
    }

    fn memory_for(&self, len: usize) -> Vec<u8> {
        if len < BATCH {
            return Vec::new();
        }
        let kept = self.memory.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Room for the longest chunk, so that it never has to be had again.
        kept.unwrap_or_else(|| Vec::with_capacity(SEALED_CHUNK_MAX as usize))
    }

    fn keep_memory(&self, memory: Vec<u8>) {
        if memory.capacity() >= BATCH {
            self.keep(&self.memory, memory);
        }
    }
}

/// Tells contents of one put apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(usize);

/// Where the chunks of one content are or will be.
#[derive(Default)]
pub(crate) struct Placed {
    pub chunks: Vec<Placement>,
    /// Bytes that were stored already.
    pub reused: u64,
}

/// What became of one chunk.
enum Made {
    Known(Placement),
    Sealed { id: ChunkId, plain_len: u32, bytes: Vec<u8> },
}

type Batch = Vec<(Ticket, Chunk)>;
type Done = Result<Vec<(Ticket, Made)>, PutError>;

/// The chunks of one put on their way into stripes. Lives on a thread that may block.
pub(crate) struct Sealing {
    line: Arc<Assembly>,
    batch: Batch,
    batch_bytes: usize,
    batches: u64,
    tickets: usize,
    /// Batches that may be with workers.
    places: Arc<Semaphore>,
}

/// What the reader and the workers of one put share.
struct Assembly {
    works: Arc<Works>,
    usage: Arc<Usage>,
    order: Mutex<Order>,
}

/// Where the packing stands. One worker packs at a time, whichever has found the next batch ready.
#[derive(Default)]
struct Order {
    next: u64,
    ready: BTreeMap<u64, (Done, Turns)>,
    is_packing: bool,
    placed: BTreeMap<Ticket, Placed>,
    /// Stripes that this put's chunks went into.
    cells: Vec<Arc<Cell>>,
    /// It came to nothing: whatever is not packed is let go of.
    is_over: bool,
    /// Why, until somebody has been told.
    failed: Option<PutError>,
}

impl Order {
    fn fail(&mut self, error: PutError) {
        self.is_over = true;
        self.failed = Some(error);
        self.ready.clear();
    }
}

/// Held by a batch until it is packed.
struct Turns {
    _memory: Option<OwnedSemaphorePermit>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Sealing {
    pub fn new(works: Arc<Works>, usage: Arc<Usage>) -> Self {
        let places = Arc::new(Semaphore::new(works.workshop.workers + 1));
        let line = Arc::new(Assembly { works, usage, order: Mutex::default() });
        Self { line, batch: Vec::new(), batch_bytes: 0, batches: 0, tickets: 0, places }
    }

    /// For the chunks of another content.
    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Takes the next chunk of a content. May wait for older ones.
    pub fn push(&mut self, ticket: Ticket, plain: &[u8]) -> Result<(), PutError> {
        let memory = self.line.works.workshop.memory_for(plain.len());
        self.batch.push((ticket, Chunk::copied(plain, memory).map_err(internal)?));
        self.batch_bytes += plain.len();
        if self.batch_bytes < BATCH {
            return Ok(());
        }
        self.hand_on()
    }

    /// Waits for everything, and tells where the chunks of each content are.
    pub fn finish(mut self) -> Result<BTreeMap<Ticket, Placed>, PutError> {
        if self.batches == 0 {
            let none = Turns { _memory: None, _place: None };
            self.line.work(0, std::mem::take(&mut self.batch), none);
        } else if !self.batch.is_empty() {
            self.hand_on()?;
        }
        let all = u32::try_from(self.line.works.workshop.workers + 1).map_err(internal)?;
        let _all = Handle::current().block_on(self.places.acquire_many(all)).map_err(internal)?;
        let mut order = self.line.order();
        match order.failed.take() {
            Some(failed) => Err(failed),
            None => Ok(std::mem::take(&mut order.placed)),
        }
    }

    /// Gives the batch to a worker.
    fn hand_on(&mut self) -> Result<(), PutError> {
        let runtime = Handle::current();
        let place = runtime.block_on(self.places.clone().acquire_owned()).map_err(internal)?;
        if let Some(failed) = self.line.order().failed.take() {
            return Err(failed);
        }
        let turns = u32::try_from(self.batch_bytes.div_ceil(TURN)).map_err(internal)?;
        let all = self.line.works.workshop.turns.clone();
        let memory = runtime.block_on(all.acquire_many_owned(turns)).map_err(internal)?;
        let (line, number) = (self.line.clone(), self.batches);
        let batch = std::mem::take(&mut self.batch);
        (self.batch_bytes, self.batches) = (0, number + 1);
        let turns = Turns { _memory: Some(memory), _place: Some(place) };
        drop(runtime.spawn_blocking(move || line.work(number, batch, turns)));
        Ok(())
    }
}

impl Assembly {
    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a batch, and packs what is next.
    fn work(&self, number: u64, batch: Batch, turns: Turns) {
        let _watch = Watch(self);
        let made = seal(&self.works, &self.usage, batch);
        let mut order = self.order();
        if order.is_over {
            return;
        }
        order.ready.insert(number, (made, turns));
        if std::mem::replace(&mut order.is_packing, true) {
            return;
        }
        loop {
            let next = order.next;
            let Some((made, turns)) = order.ready.remove(&next) else { break };
            order.next += 1;
            drop(order);
            let packed = made.and_then(|made| self.pack(made));
            order = self.order();
            if let Err(error) = packed {
                order.fail(error);
            }
            drop(turns);
        }
        order.is_packing = false;
    }

    fn pack(&self, made: Vec<(Ticket, Made)>) -> Result<(), PutError> {
        for (ticket, made) in made {
            let (placement, is_known) = match made {
                Made::Known(placement) => (placement, true),
                Made::Sealed { id, plain_len, bytes } => {
                    let packed = self.works.packer.push(id, (&bytes, plain_len), &self.usage);
                    self.works.workshop.keep_memory(bytes);
                    let packed = packed.ok_or_else(|| internal("a chunk that no stripe holds"))?;
                    if let Some(closed) = packed.closed {
                        self.order().cells.push(closed.cell.clone());
                        // Whatever came of the others: other puts may have chunks in this one.
                        Handle::current().block_on(self.works.uplink.send(closed, None));
                        self.check_cells()?;
                    }
                    (packed.placement, packed.is_known)
                }
            };
            let mut order = self.order();
            let placed = order.placed.entry(ticket).or_default();
            if is_known {
                placed.reused += u64::from(placement.plain_len());
            }
            placed.chunks.push(placement);
        }
        Ok(())
    }

    /// There is no use in going on when a stripe has failed.
    fn check_cells(&self) -> Result<(), PutError> {
        let cells = &mut self.order().cells;
        for cell in cells.iter() {
            if let State::Failed(failure) = cell.state() {
                return Err(failure.into());
            }
        }
        cells.retain(|cell| !matches!(cell.state(), State::Committed { .. } | State::Settled(_)));
        Ok(())
    }
}

/// A worker that panics must not leave the others waiting for its batch.
struct Watch<'a>(&'a Assembly);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.order().fail(internal("a worker that seals chunks has panicked"));
        }
    }
}

/// Names, looks up and seals. What is found is kept from being dropped by `usage`.
fn seal(works: &Works, usage: &Usage, batch: Batch) -> Done {
    let mut sealer = works.workshop.sealer();
    let keys = &works.keys.catalog;
    let mut each = |chunk: Chunk| -> Result<Made, PutError> {
        let chunk = chunk.name(keys);
        let (id, plain_len) = (chunk.id(), chunk.plain_len());
        if let Some(known) = works.packer.find(&id, usage).map_err(SessionError::from)? {
            works.workshop.keep_memory(chunk.into_memory());
            return Ok(Made::Known(known));
        }
        Ok(Made::Sealed { id, plain_len, bytes: sealer.seal_in_place(keys, chunk) })
    };
    let made = batch.into_iter().map(|(ticket, chunk)| Ok((ticket, each(chunk)?))).collect();
    works.workshop.keep(&works.workshop.sealers, sealer);
    made
}

fn internal(error: impl std::fmt::Display) -> PutError {
    PutError::Session(SessionError::Internal(error.to_string()))
}

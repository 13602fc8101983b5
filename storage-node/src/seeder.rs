//! The seeder's own state: its store, its lanes in memory, its promises of room.
//!
//! Guarantees: one lane changes one step at a time, and in memory only after the step is durable. All methods here may
//! block on the disk; async callers go through [`blocking`].

mod accept;
mod duty;
mod funds;
mod pending;
mod sign;
mod staging;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tallow_consensus::Chain;
use tallow_ledger::key;
use tallow_ledger::record::{Contract, Head, Seeder as SeederRecord};
use tallow_types::codec::Tagged;
use tallow_types::commit::Rank;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::LANE_STAGING_MAX;
use tallow_types::sign::Keypair;
use tallow_types::wire::LaneState;
use tallow_types::{Bounded, Bytes, ContractId, PublicKey, SeederId, SlotIndex, decode};

use self::pending::Pending;
use self::staging::Staging;
use crate::lanes::{Grant, Lane};
use crate::store::{
    LaneKey, LaneRow, LaneUpdate, Origin, PutRequest, ReadError, Slice, SliceStore, WriteError,
};

pub use duty::{Offered, Terms};
pub use sign::Asked;

/// A seeder.
pub struct Seeder {
    keypair: Keypair,
    chain: Arc<Chain>,
    store: SliceStore,
    lanes: Mutex<BTreeMap<LaneKey, Arc<Mutex<Lane>>>>,
    /// Whether missing records would have been noticed with the ledger known up to now.
    adopted: AtomicBool,
    /// Held while a lane begins or ends here, so that it does one at a time.
    accepting: Mutex<()>,
    pending: Mutex<Pending>,
    staging: Mutex<Staging>,
}

impl Seeder {
    /// From its parts.
    #[must_use]
    pub fn new(keypair: Keypair, chain: Arc<Chain>, store: SliceStore) -> Self {
        Self {
            keypair,
            chain,
            store,
            lanes: Mutex::default(),
            adopted: AtomicBool::new(false),
            accepting: Mutex::default(),
            pending: Mutex::default(),
            staging: Mutex::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SeederId {
        self.keypair.public().seeder()
    }

    /// Its key.
    #[must_use]
    pub const fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// Its slices.
    #[must_use]
    pub const fn store(&self) -> &SliceStore {
        &self.store
    }

    /// A record of the ledger.
    pub(crate) fn record<T: Tagged>(&self, key: &[u8]) -> Result<Option<T>, Fault> {
        let Some(bytes) = self.chain.get(key)? else { return Ok(None) };
        decode(&bytes).map(Some).map_err(|error| Fault::new(Code::Storage, error.to_string()))
    }

    pub(crate) fn head(&self) -> Result<Head, Fault> {
        let head = self.record(key::HEAD)?;
        head.ok_or_else(|| Fault::new(Code::Storage, "the ledger here has no head"))
    }

    pub(crate) fn contract(&self, id: &ContractId) -> Result<Option<Contract>, Fault> {
        self.record(&key::contract(id))
    }

    /// What the ledger says of this seeder.
    pub(crate) fn entry(&self) -> Result<Option<SeederRecord>, Fault> {
        self.record(&key::seeder(&self.id()))
    }

    /// What the ledger says of a lane that this seeder holds.
    fn grant(&self, key: LaneKey) -> Result<Grant, Fault> {
        let behind = |what: &str| Fault::new(Code::Behind, what);
        let contract = self.contract(&key.contract)?;
        let contract = contract.ok_or_else(|| behind("the contract is not on the ledger as known here"))?;
        let lane = contract.lane(key.slot);
        if lane.is_none_or(|lane| lane.seeder != self.id()) {
            return Err(behind("this seeder does not hold the slot by the ledger as known here"));
        }
        Ok(Grant {
            chain: self.chain.id(),
            lease: contract.lease.last,
            device: contract.lease.current().map(|(_, holder)| holder.device),
            waiting: contract.lease.waiting,
            former: contract.lease.recent.iter().copied().collect(),
            room: contract.terms.room,
            signed: lane.map_or(Rank::default(), |lane| lane.signed),
            slots: contract.slots.len(),
            first_holder: is_new(&contract, key.slot),
        })
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<LaneKey, Arc<Mutex<Lane>>>> {
        // The map is whole after every single operation on it, whatever panics between them.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane that is known here, in memory.
    fn known(&self, key: LaneKey) -> Result<Option<Arc<Mutex<Lane>>>, Fault> {
        if let Some(lane) = self.lanes().get(&key) {
            return Ok(Some(lane.clone()));
        }
        let Some(record) = self.store.lane(key).map_err(storage)? else { return Ok(None) };
        let lane = Lane::from_record(key, record).map_err(storage)?;
        // Two callers may have read it: the first one in the map is the lane, the other is dropped unused.
        Ok(Some(self.lanes().entry(key).or_insert_with(|| Arc::new(Mutex::new(lane))).clone()))
    }

    /// A lane that the ledger says is this seeder's. Without records it is new if it was accepted here, else it begins
    /// again as one that lost them; but not before the ledger is known up to now, because it may have signed in leases that it doesn't know of yet.
    fn own(&self, key: LaneKey, grant: &Grant) -> Result<Arc<Mutex<Lane>>, Fault> {
        if let Some(lane) = self.known(key)? {
            return Ok(lane);
        }
        self.check_adopted()?;
        let _accepting = lock(&self.accepting);
        if let Some(lane) = self.known(key)? {
            return Ok(lane);
        }
        let origin = match (lock(&self.pending).has(key), grant.first_holder) {
            (true, true) => Origin::Founder,
            (true, false) => Origin::Joiner,
            (false, _) => {
                tracing::warn!(contract = key.contract.short(), slot = %key.slot, "records of a lane are missing");
                Origin::Lost { floor: grant.lease }
            }
        };
        let row = LaneRow::new(origin, grant.room, None);
        self.store.update_lane(LaneUpdate::row(key, row.clone())).map_err(refused)?;
        let lane = Arc::new(Mutex::new(Lane::new(key, row)));
        self.lanes().insert(key, lane.clone());
        lock(&self.pending).remove(key);
        Ok(lane)
    }

    /// What has no records here is new only if the ledger, known up to now, does not give it to this seeder already.
    fn check_adopted(&self) -> Result<(), Fault> {
        if self.adopted.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Fault::new(Code::Behind, "this seeder has not compared its lanes with the ledger yet"))
    }

    /// Changes what a lane's row says beside its promises. The lane is locked over it, so that no promise made meanwhile
    /// is undone.
    fn amend(
        &self,
        key: LaneKey,
        lane: &Mutex<Lane>,
        change: impl FnOnce(LaneRow) -> LaneRow,
    ) -> Result<(), Fault> {
        let mut lane = lock(lane);
        let row = change(lane.row().clone());
        if row != *lane.row() {
            self.store.update_lane(LaneUpdate::row(key, row.clone())).map_err(refused)?;
            lane.set_row(row);
        }
        Ok(())
    }

    /// Keeps slices for the holder of the write lease.
    ///
    /// # Errors
    /// A fault for the wire.
    pub fn put(&self, caller: PublicKey, lane: LaneKey, slices: Vec<Slice>) -> Result<(), Fault> {
        let grant = self.check_writer(caller, lane)?;
        let more = slices.iter().fold(0u64, |sum, slice| sum.saturating_add(u64::from(slice.leaf().length)));
        self.check_fuel_for_slices(lane, Bytes::new(more))?;
        let request = self.put_request(lane, slices, grant.room)?;
        self.store.put(request).map_err(refused)
    }

    fn put_request(&self, lane: LaneKey, slices: Vec<Slice>, room: Bytes) -> Result<PutRequest, Fault> {
        let limit = Bytes::new(room.get().saturating_add(LANE_STAGING_MAX));
        let epoch = self.head()?.epoch.epoch;
        Ok(PutRequest { lane, slices, epoch, limit, for_commit: false })
    }

    /// Whether a caller may store slices of a lane.
    pub(crate) fn check_writer(&self, caller: PublicKey, lane: LaneKey) -> Result<Grant, Fault> {
        let grant = self.grant(lane)?;
        if grant.device != Some(caller) {
            // A lease that was given back, or that the caller waits for, may be the caller's by now.
            let soon = grant.device.is_none() || grant.waiting == Some(caller);
            let code = if soon { Code::Behind } else { Code::Forbidden };
            return Err(Fault::new(code, "only the device that holds the write lease stores slices"));
        }
        Ok(grant)
    }

    /// Writes down that records are older than what the ledger has from this seeder.
    fn notice(&self, key: LaneKey, lane: &Mutex<Lane>, grant: &Grant) -> Result<(), Fault> {
        let found = lock(lane).found_stale(grant);
        let Some(origin) = found else { return Ok(()) };
        tracing::warn!(contract = key.contract.short(), slot = %key.slot, "records of a lane are old");
        self.amend(key, lane, |row| LaneRow { origin, ..row })
    }

    fn state(&self, key: LaneKey, lane: &Lane) -> Result<LaneState, Fault> {
        Ok(LaneState {
            newest: lane.newest().map(|(signed, counter)| (signed.clone(), counter)),
            fenced: lane.row().fence,
            bytes: self.store.lane_usage(key).map_err(storage)?.bytes(),
        })
    }

    /// Looks at a lane that is known here.
    ///
    /// # Errors
    /// `NotFound` if it isn't.
    pub fn look<T>(&self, key: LaneKey, look: impl FnOnce(&Lane) -> Result<T, Fault>) -> Result<T, Fault> {
        let lane = match self.known(key)? {
            // Accepted, and on the ledger by now: its records begin here.
            None if lock(&self.pending).has(key) => {
                self.grant(key).ok().map(|grant| self.own(key, &grant)).transpose()?
            }
            lane => lane,
        };
        let lane = lane.ok_or_else(|| Fault::new(Code::NotFound, "no such lane is held here"))?;
        let lane = lock(&lane);
        look(&lane)
    }

    /// What is known of a lane.
    ///
    /// # Errors
    /// `NotFound` if nothing is.
    pub fn lane_state(&self, key: LaneKey) -> Result<LaneState, Fault> {
        self.look(key, |lane| self.state(key, lane))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a contract's slot is held by a seeder.
fn holds(contract: &Contract, slot: SlotIndex, seeder: SeederId) -> bool {
    contract.lane(slot).is_some_and(|lane| lane.seeder == seeder)
}

/// Whether nobody held a slot before its present holder.
fn is_new(contract: &Contract, slot: SlotIndex) -> bool {
    contract.slots.get(usize::from(slot.get())).is_some_and(|slot| slot.former.is_none())
}

pub(crate) fn storage(error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::Storage, error.to_string())
}

pub(crate) fn refused(error: WriteError) -> Fault {
    let code = match error {
        WriteError::DiskFull { .. } => Code::DiskFull,
        WriteError::LaneFull { .. } => Code::NoRoom,
        WriteError::Conflict { .. } => Code::WrongBytes,
        WriteError::Missing { .. } => Code::MissingSlices,
        WriteError::Busy => Code::Busy,
        WriteError::Broken(_) => Code::Storage,
    };
    Fault::new(code, error.to_string())
}

pub(crate) fn unread(error: ReadError) -> Fault {
    let code = match error {
        ReadError::NotFound => Code::NotFound,
        ReadError::Range { .. } => Code::Malformed,
        ReadError::Damaged | ReadError::Io(_) | ReadError::Index(_) => Code::Storage,
    };
    Fault::new(code, error.to_string())
}

/// Runs work that waits for the disk on a thread that may.
///
/// # Errors
/// What the work says, or `Internal` if it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(Fault::new(Code::Internal, "a request stopped half-way; see this node's log"))
    })
}

/// A list that is known to fit its bound because it was cut to it.
pub(crate) fn fitted<T, const MAX: usize>(values: Vec<T>) -> Bounded<T, MAX> {
    Bounded::new(values).expect("cut to its bound before")
}

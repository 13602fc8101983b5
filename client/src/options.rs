//! What a client is opened with. Everything that an environment would supply comes in here: the folder, the way to
//! peers, the keys, the clock. The library itself knows no home folder, no environment and no terminal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tallow_net::{Peer, Transport};
use tallow_types::id::ChainId;
use tallow_types::profile::Profile;
use tallow_types::unit::{Bytes, Fuel, FuelPerMibEpoch, TimeMs};

use crate::identity::Identity;

/// Tells the time of day, for entries and for reports; never for a decision of safety.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now(&self) -> TimeMs;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> TimeMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        TimeMs::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What a new contract asks for, when the first `put` opens one.
#[derive(Clone, Debug)]
pub struct ContractPlan {
    /// Redundancy.
    pub profile: Profile,
    /// Most bytes per lane; `None` takes what the chosen seeders can hold and the account can back, at most 64 GiB.
    pub room: Option<Bytes>,
    /// The dearest ask that may hold a slot; `None` takes four times the median ask.
    pub price_ceiling: Option<FuelPerMibEpoch>,
    /// Fuel that goes in at once; `None` takes enough for `fuel_days` of what the first `put` will store.
    pub fuel: Option<Fuel>,
    /// Days that the default fuel is to last.
    pub fuel_days: u32,
    /// Most slots that one payout account may hold; 0 for no limit.
    pub slots_per_operator: u8,
    /// Only seeders of these regions; empty for all.
    pub regions: Vec<String>,
}

impl ContractPlan {
    /// The defaults for a profile.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self {
            profile,
            room: None,
            price_ceiling: None,
            fuel: None,
            fuel_days: 30,
            slots_per_operator: 0,
            regions: Vec::new(),
        }
    }
}

/// Numbers that trade memory, patience and politeness. The defaults keep a client under 256 MiB: three coded stripes
/// of at most 32 MiB, one open stripe, and a few chunks and fetched spans on the way.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Coded stripes that may be in memory at once.
    pub stripes_in_flight: usize,
    /// Largest stripe over all of its slices. Bytes.
    pub stripe_bytes: u64,
    /// How long a request to one peer may take before it counts as failed.
    pub request_timeout: Duration,
    /// How long a stripe or commit waits for stragglers once a quorum has answered.
    pub straggler: Duration,
    /// How long an operation waits for the ledger, a lease or a quorum before it gives up.
    pub patience: Duration,
    /// How long a group commit waits for company when several `put`s are under way.
    pub linger: Duration,
    /// Leaves of a lane that a seeder is shown in one message; at most 8,192 count.
    pub page_leaves: usize,
    /// Settled stripes not yet in a commit after which a checkpoint commit is made.
    pub checkpoint_stripes: usize,
    /// How long settled stripes may stay outside any commit; `None` takes a third of the network's epoch.
    pub checkpoint_after: Option<Duration>,
    /// How long a lease is kept at least while there is work, when another device waits; `None`: a quarter of it.
    pub lease_share: Option<Duration>,
    /// How long a dead stripe is kept before its slices are dropped.
    pub drop_grace: Duration,
    /// Slots asked at once for a read, above the k that are enough, when the first ones dawdle.
    pub hedge_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            stripes_in_flight: 3,
            stripe_bytes: 32 << 20,
            request_timeout: Duration::from_secs(20),
            straggler: Duration::from_secs(2),
            patience: Duration::from_secs(30),
            linger: Duration::from_millis(3),
            page_leaves: tallow_types::limits::COMMIT_CHANGES_MAX,
            checkpoint_stripes: 8,
            checkpoint_after: None,
            lease_share: None,
            drop_grace: Duration::from_secs(24 * 3600),
            hedge_after: Duration::from_millis(150),
        }
    }
}

/// Whether an opened client may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only. Works beside another process that uses the same folder, without its cache.
    Read,
    /// Reads and writes; one process at a time in one folder.
    Write,
}

/// What a client is opened with.
pub struct Options {
    /// The client's own folder for this account on this network: cache and journal. Created if missing. `None` keeps
    /// them in memory: nothing can be resumed then.
    pub dir: Option<PathBuf>,
    /// Whether it may change anything.
    pub access: Access,
    /// The network that is meant; a peer of another is refused.
    pub chain: ChainId,
    /// Nodes to ask first, best known first.
    pub bootstrap: Vec<Peer>,
    /// The way to peers, connected *with this device's key* (`Identity::device`).
    pub transport: Arc<dyn Transport>,
    /// The account's keys and this device's.
    pub identity: Identity,
    /// For the contract that the first `put` opens.
    pub contract: ContractPlan,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Numbers to turn.
    pub tuning: Tuning,
}

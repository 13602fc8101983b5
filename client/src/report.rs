//! What operations answer. Numbers come from ledger records and signed commits, never from guesses.

use tallow_types::commit::Rank;
use tallow_types::id::{AccountId, ChainId, ContractId, SeederId};
use tallow_types::profile::Profile;
use tallow_types::unit::{Bytes, Epoch, Fuel, FuelPerMibEpoch, TimeMs};

use crate::error::Blame;

/// Something of a source that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path in the source, lossily if it isn't UTF-8.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What a `put` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Files stored.
    pub files: u64,
    /// Folders stored.
    pub folders: u64,
    /// Symbolic links stored, as links.
    pub links: u64,
    /// Plain bytes of the files.
    pub bytes: u64,
    /// Of these, bytes that were stored already and not sent again.
    pub reused: u64,
    /// Slice bytes that seeders acknowledged during this call, its share of a group's.
    pub stored: u64,
    /// What was left out. A caller tells its user; nothing is dropped in silence.
    pub skipped: Vec<Skipped>,
    /// Countersignatures behind the acknowledgement.
    pub signers: u8,
    /// Slots of the contract.
    pub slots: u8,
    /// Seeders that dropped out; `repair` fills what they miss.
    pub lost: Vec<Blame>,
}

/// What a `get` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetReport {
    /// Files written.
    pub files: u64,
    /// Folders made.
    pub folders: u64,
    /// Links made.
    pub links: u64,
    /// Plain bytes written.
    pub bytes: u64,
    /// What could not be kept: a mode, a time, a link where links can't be.
    pub notes: Vec<Skipped>,
    /// Seeders that answered wrongly or not at all, and were done without.
    pub bad: Vec<Blame>,
}

/// What an entry of the catalog is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link and where it leads.
    Link(String),
}

/// One blob, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// What it is.
    pub kind: ListedKind,
    /// Its size. Bytes.
    pub size: u64,
    /// When its content last changed at the source. Milliseconds since 1970, negative before.
    pub mtime_ms: i64,
    /// Its permission bits.
    pub mode: u32,
    /// When it was stored.
    pub stored_at: TimeMs,
}

/// What `stat` tells of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The entry; of a folder the folder's own, if it has one.
    pub entry: Listed,
    /// Files below it, itself counted.
    pub files: u64,
    /// Plain bytes of them.
    pub bytes: u64,
    /// Stripes that hold them.
    pub stripes: u64,
    /// Blobs of this path that are kept whole in the catalog.
    pub inline: u64,
    /// The contract that holds it.
    pub contract: ContractReport,
}

/// One slot of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// Its ordinal.
    pub slot: u8,
    /// Who holds it; `None`: vacant.
    pub seeder: Option<SeederId>,
    /// What it is paid.
    pub price: FuelPerMibEpoch,
    /// Where it is.
    pub region: String,
    /// Whether it answered just now.
    pub online: bool,
    /// Whether its countersignature of the newest commit is known.
    pub current: bool,
    /// Slices of live stripes that it misses, as far as the repair index knows.
    pub missing: u64,
    /// Slices of live stripes that it says are damaged on its disk.
    pub damaged: u64,
    /// Bytes of its lane by the newest commit.
    pub bytes: Bytes,
}

/// The state of a contract, from ledger facts and signed commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractReport {
    /// Which.
    pub contract: ContractId,
    /// Its redundancy.
    pub profile: Profile,
    /// The phase, in the ledger's word.
    pub phase: String,
    /// Every slot.
    pub slots: Vec<SlotReport>,
    /// Slots held.
    pub held: u8,
    /// Slots that answered and countersigned the newest commit.
    pub healthy: u8,
    /// Slices that the narrowest stripe has, by the newest commit.
    pub width: u8,
    /// How many more slots may go before something is lost: width less lost slots less k, at least 0.
    pub can_lose: u8,
    /// The newest commit.
    pub commit: Option<Rank>,
    /// Stripes, dropped ones not counted.
    pub stripes: u64,
    /// Bytes over all lanes.
    pub stored: Bytes,
    /// Room of a lane.
    pub room: Bytes,
    /// Fuel left.
    pub fuel: Fuel,
    /// What an epoch takes at present.
    pub burn: Fuel,
    /// The last epoch that the fuel pays for; `None` if nothing is burned.
    pub paid_until: Option<Epoch>,
    /// When that epoch ends, at the network's pace.
    pub paid_until_time: Option<TimeMs>,
}

/// What an `rm` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RmReport {
    /// Entries removed.
    pub entries: u64,
    /// Plain bytes of them.
    pub bytes: u64,
    /// Stripes that nothing refers to any more; their slices go after the grace.
    pub dead_stripes: u64,
}

/// What something would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Redundancy.
    pub profile: Profile,
    /// Plain bytes asked about.
    pub bytes: u64,
    /// Slice bytes over all lanes, an upper bound: without compression or reuse.
    pub stored: Bytes,
    /// Epochs asked about.
    pub epochs: u64,
    /// What an epoch takes.
    pub per_epoch: Fuel,
    /// What all epochs take.
    pub total: Fuel,
    /// Deposit of a new contract, returned when it is closed; nothing if there is one already.
    pub deposit: Fuel,
    /// Seeders whose ask fits.
    pub seeders: usize,
}

/// What a `repair` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Slots given to new seeders.
    pub filled: Vec<u8>,
    /// Slots brought up to the newest commit.
    pub caught_up: Vec<u8>,
    /// Slots that still miss something, and why.
    pub failed: Vec<Blame>,
    /// Slices re-created.
    pub slices: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a wallet has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The network.
    pub chain: ChainId,
    /// The account.
    pub account: AccountId,
    /// What it can spend.
    pub free: Fuel,
    /// What its contracts hold, deposits not counted.
    pub in_contracts: Fuel,
}

/// What a `restore` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// Money.
    pub balance: Balance,
    /// Contracts of the account.
    pub contracts: Vec<ContractId>,
    /// Files in the catalog.
    pub files: u64,
    /// Plain bytes of them.
    pub bytes: u64,
}

/// What a paid transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    /// The block that holds it.
    pub height: tallow_types::unit::Height,
    /// It had been sent by an earlier, interrupted call, and was not sent again.
    pub resumed: bool,
}

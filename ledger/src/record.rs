//! Records: what the state holds under its keys. Each begins with a type tag and a version.

pub mod contract;

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_market::factor::FactorSum;
use tallow_types::contract::Ask;
use tallow_types::params::{Params, ValidatorSet};
use tallow_types::wire::Receipt;
use tallow_types::{
    AccountId, BlockHash, Bytes, ChainId, ContractId, Digest, DurationMs, Epoch, Fuel, Height, Incarnation,
    TimeMs, TxId, tagged,
};

pub use contract::{CommitSummary, Contract, Former, Holder, Lane, LeaseRecord, Phase, Prepaid, Slot};

/// The rules of the network and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Network {
    /// The hash of genesis.
    pub chain: ChainId,
    /// The rules.
    pub params: Params,
}
tagged!(Network, b"Ln", 1, "network record", 256);

/// Who orders blocks.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Validators {
    /// The set that certifies the next block.
    pub set: ValidatorSet,
}
tagged!(Validators, b"Lv", 1, "validators record", 16 << 10);

/// Where the ledger stands after a block. It cannot name that block, whose header covers this record; it names the one
/// before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// Height of the block.
    pub height: Height,
    /// Its time.
    pub time: TimeMs,
    /// The block before it.
    pub parent: BlockHash,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The value of the beacon's chain after it.
    pub beacon: Digest,
    /// The epoch after it.
    pub epoch: EpochState,
}
tagged!(Head, b"Lh", 1, "head record", 512);

/// The epoch and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochState {
    /// Its ordinal.
    pub epoch: Epoch,
    /// Time counted since its boundary block. Time while the chain was halted is not.
    pub elapsed: DurationMs,
    /// Height of its boundary block.
    pub cutoff: Height,
    /// Its beacon, and `elapsed` when that became known; `None` during the gap.
    pub beacon: Option<(Digest, DurationMs)>,
    /// Whether contracts due in this epoch still wait to be settled.
    pub settling: bool,
}

impl EpochState {
    /// Whether proofs of this epoch count now: from its beacon on, for the length of a window.
    #[must_use]
    pub fn is_open(&self, params: &Params) -> bool {
        let since = |opened: DurationMs| self.elapsed.saturating_sub(opened);
        self.beacon.is_some_and(|(_, opened)| since(opened) <= params.window)
    }
}

/// An account's money that is not locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// How much.
    pub balance: Fuel,
}
tagged!(Account, b"La", 1, "account record", 64);

/// All money. Balances, fuel, escrow, deposits and collateral add up to `endowed - burned`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Supply {
    /// What genesis gave out.
    pub endowed: Fuel,
    /// What has burned since.
    pub burned: Fuel,
}
tagged!(Supply, b"Ls", 1, "supply record", 64);

/// A seeder.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seeder {
    /// Its newest terms.
    pub ask: Ask,
    /// The account that sent them, whose balance backs new lanes.
    pub backer: AccountId,
    /// Factors of its epochs.
    pub factors: FactorSum,
    /// Lanes that it holds.
    pub lanes: u32,
    /// Room of those lanes, full or not.
    pub reserved: Bytes,
    /// Collateral of those lanes.
    pub collateral: Fuel,
}
tagged!(Seeder, b"Le", 1, "seeder record", 8192);

impl Seeder {
    /// Room that it still offers.
    #[must_use]
    pub const fn free(&self) -> Bytes {
        self.ask.room.saturating_sub(self.reserved)
    }
}

/// That an owner has, or had, a contract. Kept when the contract goes: an index is never used again, because keys
/// derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Owned {
    /// The contract.
    pub contract: ContractId,
    /// Whether it is gone.
    pub closed: bool,
}
tagged!(Owned, b"Lo", 1, "owner index record", 64);

/// That a transaction was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Seen {
    /// The transaction.
    pub tx: TxId,
    /// Hash of what it asked, to tell a retry from another use of its key.
    pub action: Digest,
    /// The block that holds it.
    pub height: Height,
}
tagged!(Seen, b"Lt", 1, "transaction record", 128);

impl Seen {
    /// What the sender is told.
    #[must_use]
    pub const fn receipt(&self) -> Receipt {
        Receipt { tx: self.tx, height: self.height }
    }
}

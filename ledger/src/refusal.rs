//! Why the ledger refuses a transaction or a proof: who, what, and what to do next.

use tallow_market::placement::PlacementError;
use tallow_types::fault::{Code, Fault};
use tallow_types::sign::BadSignature;
use tallow_types::wire::Receipt;
use tallow_types::{
    AccountId, Bytes, ContractId, Epoch, EpochCount, Fuel, FuelPerMibEpoch, Height, LeafIndex, Lease,
    Profile, PublicKey, SeederId, Sequence, SlotIndex, TimeMs, TxId,
};

/// Why a transaction is refused. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This very request was applied before: not a failure but the answer to a retry.
    #[error("this transaction was applied at height {}", .0.height)]
    Applied(Receipt),
    /// Its key stands for another request.
    #[error("this idempotency key was used for transaction {}; choose a new one", .tx.short())]
    KeyReused {
        /// The other one.
        tx: TxId,
    },
    /// Too late.
    #[error("the transaction expired at height {expires}, the next block is {height}; sign a new one")]
    Expired {
        /// When.
        expires: Height,
        /// The block it would be in.
        height: Height,
    },
    /// It would have to be remembered too long.
    #[error("the transaction expires at height {expires}, more than the limit of {max}")]
    FarExpiry {
        /// When.
        expires: Height,
        /// The latest that is taken now.
        max: Height,
    },
    /// Too many bytes.
    #[error("the transaction has {len} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A policy that can't be met or is too large.
    #[error("the policy of account {} is not well formed", .account.short())]
    BadPolicy {
        /// The account.
        account: AccountId,
    },
    /// A witness twice, or one that the policy doesn't ask for.
    #[error("a witness is not asked for by the policy of account {}", .account.short())]
    StrayWitness {
        /// The account.
        account: AccountId,
    },
    /// Not enough signatures, or too early.
    #[error("the witnesses do not satisfy the policy of account {}", .account.short())]
    PolicyNotMet {
        /// The account.
        account: AccountId,
    },
    /// A signature that doesn't fit.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// Not enough money.
    #[error("account {} has {have} base units, needs {need}; fund it first", .account.short())]
    Funds {
        /// Who.
        account: AccountId,
        /// What it has.
        have: Fuel,
        /// What it needs.
        need: Fuel,
    },
    /// Nothing to move.
    #[error("the amount is zero")]
    Nothing,
    /// More money than there can be.
    #[error("the amounts are too large to compute with")]
    Overflow,
    /// An unknown contract.
    #[error("contract {} does not exist", .contract.short())]
    NoContract {
        /// The contract.
        contract: ContractId,
    },
    /// A contract that is ending.
    #[error("contract {} is being closed", .contract.short())]
    Closing {
        /// The contract.
        contract: ContractId,
    },
    /// Somebody else's contract.
    #[error("account {} does not own contract {}", .sender.short(), .contract.short())]
    NotOwner {
        /// The contract.
        contract: ContractId,
        /// Who asked.
        sender: AccountId,
    },
    /// Fuel that the notice of the lanes needs.
    #[error("{amount} base units cannot be withdrawn: of {fuel}, the notice of the lanes reserves {reserve}")]
    Reserved {
        /// What was asked for.
        amount: Fuel,
        /// What there is.
        fuel: Fuel,
        /// What must stay.
        reserve: Fuel,
    },
    /// About a seeder's terms.
    #[error(transparent)]
    Offer(#[from] OfferRefusal),
    /// About slots and who holds them.
    #[error(transparent)]
    Lanes(#[from] LanesRefusal),
    /// About the write lease.
    #[error(transparent)]
    Lease(#[from] LeaseRefusal),
    /// About a commit.
    #[error(transparent)]
    Commit(#[from] CommitRefusal),
}

/// Why a seeder's terms are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefusal {
    /// Not newer than what is known.
    #[error("ask {sequence} of seeder {} is not newer than {known}; raise its sequence", .seeder.short())]
    Stale {
        /// Who.
        seeder: SeederId,
        /// Of this ask.
        sequence: Sequence,
        /// Of the one known.
        known: Sequence,
    },
    /// Below the least price.
    #[error("price {price} is below the network's least of {least}")]
    TooCheap {
        /// The ask's.
        price: FuelPerMibEpoch,
        /// The network's.
        least: FuelPerMibEpoch,
    },
    /// Longer than fuel may be bound.
    #[error("notice of {notice} epochs is longer than {most}")]
    LongNotice {
        /// The ask's.
        notice: EpochCount,
        /// The network's.
        most: EpochCount,
    },
    /// Sent by somebody who can't speak for the seeder.
    #[error(
        "account {} cannot back seeder {}: send the ask from its payout account or its own", .sender.short(), .seeder.short()
    )]
    NotBacker {
        /// The seeder.
        seeder: SeederId,
        /// Who sent it.
        sender: AccountId,
    },
}

/// Why slots are not filled, opened or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LanesRefusal {
    /// Seeders would hold lanes that nobody can pay for.
    #[error("a contract with {fuel} base units of fuel cannot open: the notice of its lanes takes {need}")]
    LittleFuel {
        /// What it would open with.
        fuel: Fuel,
        /// The least.
        need: Fuel,
    },
    /// The owner has, or had, a contract of this index.
    #[error("contract {} exists, or existed; choose another index", .contract.short())]
    Exists {
        /// The contract.
        contract: ContractId,
    },
    /// Terms in somebody else's name.
    #[error("the terms name account {} as owner, the sender is {}", .owner.short(), .sender.short())]
    NotOwner {
        /// By the terms.
        owner: AccountId,
        /// Who asked.
        sender: AccountId,
    },
    /// A profile that loses data too easily.
    #[error(
        "profile {profile} is too weak for this network{}",
        .least.map_or_else(String::new, |n| format!("; {} needs at least {n} slots", .profile.data()))
    )]
    Weak {
        /// The profile.
        profile: Profile,
        /// Slots that would do.
        least: Option<u8>,
    },
    /// Room of nothing, or of too much.
    #[error("room of {room} bytes per lane is zero or more than {most}")]
    BadRoom {
        /// Asked for.
        room: Bytes,
        /// The limit.
        most: Bytes,
    },
    /// Not enough lanes to acknowledge anything.
    #[error("{have} seeders accepted, at least {need} are needed; ask more seeders")]
    TooFew {
        /// Acceptances.
        have: usize,
        /// The quorum.
        need: usize,
    },
    /// An unknown seeder.
    #[error("seeder {} has no entry on the ledger", .seeder.short())]
    NoSeeder {
        /// Who.
        seeder: SeederId,
    },
    /// Consent to something else.
    #[error("seeder {} accepted other terms or another contract; ask it again", .seeder.short())]
    OtherTerms {
        /// Who.
        seeder: SeederId,
    },
    /// Consent that is too old.
    #[error("the acceptance of seeder {} expired at height {expires}; ask it again", .seeder.short())]
    AcceptanceExpired {
        /// Who.
        seeder: SeederId,
        /// When.
        expires: Height,
    },
    /// Consent by which the seeder held this slot before.
    #[error("this acceptance of seeder {} was used before; ask it again", .seeder.short())]
    UsedConsent {
        /// Who.
        seeder: SeederId,
    },
    /// Consent that doesn't fit the ask any more.
    #[error("seeder {} accepted at {accepted} but asks {asked}; ask it again", .seeder.short())]
    PriceMoved {
        /// Who.
        seeder: SeederId,
        /// In the acceptance.
        accepted: FuelPerMibEpoch,
        /// On the ledger.
        asked: FuelPerMibEpoch,
    },
    /// The seeder can't lock its collateral.
    #[error(
        "seeder {} cannot lock collateral of {need}: account {} has {have}; choose another", .seeder.short(), .backer.short()
    )]
    Collateral {
        /// Who.
        seeder: SeederId,
        /// Whose balance backs it.
        backer: AccountId,
        /// What it has.
        have: Fuel,
        /// What the lane needs.
        need: Fuel,
    },
    /// By the rules of placement.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Nobody's lane, or somebody else's.
    #[error("slot {slot} is not held by seeder {}", .seeder.short())]
    NotHeld {
        /// The slot.
        slot: SlotIndex,
        /// Who was named.
        seeder: SeederId,
    },
    /// A lane that somebody else may end.
    #[error("account {} can end neither any lane of this contract nor this one", .sender.short())]
    NotYours {
        /// Who asked.
        sender: AccountId,
    },
    /// It ends already.
    #[error("the lane in slot {slot} ends at epoch {ends} already")]
    Ending {
        /// The slot.
        slot: SlotIndex,
        /// When.
        ends: Epoch,
    },
}

/// Why a write lease is not granted, renewed or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefusal {
    /// Another device waits, so the holder can't renew.
    #[error("another device waits for the write lease; finish until {until} and give it back")]
    Wanted {
        /// When it ends, by block time.
        until: TimeMs,
    },
    /// Another device is next in line.
    #[error("device {} is next for the write lease; ask again after {until}", .device.short())]
    Busy {
        /// Who.
        device: PublicKey,
        /// When the line moves at the latest, by block time.
        until: TimeMs,
    },
    /// Nothing to give back.
    #[error("device {} neither holds the write lease nor waits for it", .device.short())]
    NotHolder {
        /// Who.
        device: PublicKey,
    },
}

/// Why a commit is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefusal {
    /// Slots that the contract doesn't have.
    #[error("the commit names {have} slots of width {width}, the contract has {need}")]
    Shape {
        /// Slots named.
        have: usize,
        /// Narrowest stripe named.
        width: u8,
        /// Slots of the contract.
        need: usize,
    },
    /// Longer lanes than there may be.
    #[error("the commit names {leaves} leaves, more than {max}")]
    TooManyLeaves {
        /// Leaves named.
        leaves: LeafIndex,
        /// The limit.
        max: u64,
    },
    /// More than the room.
    #[error("slot {slot} would hold {bytes} bytes, more than its room of {room}")]
    NoRoom {
        /// The slot.
        slot: SlotIndex,
        /// What the commit names.
        bytes: Bytes,
        /// What was reserved.
        room: Bytes,
    },
    /// Signed by a device that didn't hold that lease.
    #[error("lease {lease} was not granted to device {}, or too long ago", .signer.short())]
    NotLeased {
        /// The commit's.
        lease: Lease,
        /// Who signed.
        signer: PublicKey,
    },
    /// Outranked.
    #[error("a newer commit is known: lease {lease}, sequence {sequence}")]
    Stale {
        /// Of the newest.
        lease: Lease,
        /// Of the newest.
        sequence: Sequence,
    },
    /// Another commit of the same rank.
    #[error("another commit of lease {lease}, sequence {sequence} is known")]
    Conflict {
        /// Of both.
        lease: Lease,
        /// Of both.
        sequence: Sequence,
    },
    /// One slot countersigned twice, or one that isn't there.
    #[error("the countersignature of slot {slot} is there twice, or the slot is not")]
    BadSlot {
        /// The slot.
        slot: SlotIndex,
    },
    /// Too few countersignatures of seeders that count.
    #[error("{have} seeders of the contract countersigned, at least {need} are needed")]
    NotAcknowledged {
        /// Those that count.
        have: usize,
        /// k + margin.
        need: usize,
    },
    /// All of it is known.
    #[error("this commit and its countersignatures are known")]
    NothingNew,
}

impl Refusal {
    /// The receipt, if it was applied before: then a retry has succeeded.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Applied(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// Whether the same request may pass later without the sender doing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Lease(LeaseRefusal::Busy { .. }))
    }

    /// Whether what was asked for is so already, whoever did it.
    #[must_use]
    pub const fn is_done_already(&self) -> bool {
        matches!(
            self,
            Self::Applied(_)
                | Self::Commit(CommitRefusal::NothingNew)
                | Self::Lanes(LanesRefusal::Ending { .. })
        )
    }

    const fn code(&self) -> Code {
        match self {
            Self::Signature(_) => Code::BadSignature,
            Self::TooLarge { .. } | Self::BadPolicy { .. } => Code::Malformed,
            _ => Code::Refused,
        }
    }
}

impl From<&Refusal> for Fault {
    fn from(refusal: &Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}

/// Why an epoch proof is refused. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// Of another epoch.
    #[error("the proof is of epoch {found}, this is epoch {now}")]
    Epoch {
        /// The proof's.
        found: Epoch,
        /// The ledger's.
        now: Epoch,
    },
    /// Before the beacon or after the window.
    #[error("no proofs are taken now: the window of epoch {epoch} is not open")]
    Closed {
        /// The epoch.
        epoch: Epoch,
    },
    /// The second one.
    #[error("seeder {} has proven epoch {epoch} already", .seeder.short())]
    Twice {
        /// Who.
        seeder: SeederId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Nothing at stake, so nothing for free.
    #[error("seeder {} holds no lane", .seeder.short())]
    NoLanes {
        /// Who.
        seeder: SeederId,
    },
    /// Answers to what nobody asked.
    #[error("the proof carries samples or capacity that this network does not ask for")]
    Unasked,
    /// Not the seeder's.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

impl From<&ProofRefusal> for Fault {
    fn from(refusal: &ProofRefusal) -> Self {
        let code = match refusal {
            ProofRefusal::Signature(_) => Code::BadSignature,
            _ => Code::Refused,
        };
        Self::new(code, refusal.to_string())
    }
}

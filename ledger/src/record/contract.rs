//! The record of a contract.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_market::factor::Factor;
use tallow_market::fee;
use tallow_market::quote::Funds;
use tallow_types::commit::Rank;
use tallow_types::contract::Terms;
use tallow_types::limits::{LEASES_KEPT, SLOTS_MAX};
use tallow_types::params::Params;
use tallow_types::{
    AccountId, Bounded, Bytes, CommitHash, ContractId, Epoch, EpochCount, Fuel, FuelPerMibEpoch, Height,
    LaneRoot, LeafIndex, Lease, PublicKey, SeederId, SlotIndex, TimeMs, tagged,
};

pub use tallow_market::phase::Phase;

/// A contract.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contract {
    /// Its name.
    pub id: ContractId,
    /// What its owner asked for.
    pub terms: Terms,
    /// When it was opened.
    pub opened: Epoch,
    /// One for each slot of the profile.
    pub slots: Bounded<Slot, SLOTS_MAX>,
    /// The commit that counts; its certificate is a record of its own.
    pub active: Option<CommitSummary>,
    /// The commit that counts from the next boundary.
    pub pending: Option<CommitSummary>,
    /// Who may write.
    pub lease: LeaseRecord,
    /// Money that is not yet charged.
    pub fuel: Fuel,
    /// Money charged in advance, not yet earned.
    pub escrow: Fuel,
    /// Money locked until the record goes.
    pub deposit: Fuel,
    /// The epochs that the escrow pays.
    pub prepaid: Option<Prepaid>,
    /// The epoch at whose boundary it is settled next, as in the queue.
    pub due: Option<Epoch>,
    /// What its fuel makes of it.
    pub phase: Phase,
    /// Whether it goes when it is settled next.
    pub closing: bool,
}
tagged!(Contract, b"Lc", 1, "contract record", 128 << 10);

/// Epochs paid in advance: from the first, up to but without the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Prepaid {
    /// The first.
    pub from: Epoch,
    /// The first that is not paid.
    pub until: Epoch,
}

/// A slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Slot {
    /// The slot as somebody holds it; `None` while vacant.
    pub lane: Option<Lane>,
    /// Who held it before: what it countersigned still counts.
    pub former: Option<Former>,
}

/// Who held a slot before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Former {
    /// The seeder.
    pub seeder: SeederId,
    /// When its consent expired: it is not seated again by the same one.
    pub consent: Height,
}

/// A slot as held by one seeder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lane {
    /// Who holds it.
    pub seeder: SeederId,
    /// What it is paid.
    pub price: FuelPerMibEpoch,
    /// How long before leaving its seeder says so.
    pub notice: EpochCount,
    /// When the seeder's consent expires, by which another consent is told from a repetition.
    pub consent: Height,
    /// Who locked the collateral, and gets it back.
    pub backer: AccountId,
    /// What is locked.
    pub collateral: Fuel,
    /// Root of the lane in the newest active commit that its seeder countersigned.
    pub root: LaneRoot,
    /// What it is paid for.
    pub bytes: Bytes,
    /// Rank of that commit.
    pub signed: Rank,
    /// What each prepaid epoch pays at most.
    pub rate: Fuel,
    /// The seeder's sum of factors when that began.
    pub since: Factor,
    /// The boundary at which it ends, once that is asked for.
    pub ends: Option<Epoch>,
}

/// A commit as the contract's record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommitSummary {
    /// Its hash.
    pub hash: CommitHash,
    /// Its place in the order of commits.
    pub rank: Rank,
    /// Leaves of every lane.
    pub leaves: LeafIndex,
    /// Slices of the narrowest stripe.
    pub width: u8,
}

/// Who may write.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LeaseRecord {
    /// The number granted last.
    pub last: Lease,
    /// Who holds it, unless it was given back.
    pub holder: Option<Holder>,
    /// The device that gets the next one.
    pub waiting: Option<PublicKey>,
    /// Leases granted lately, newest last, the current one included.
    pub recent: Bounded<(Lease, PublicKey), LEASES_KEPT>,
}

/// The holder of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Holder {
    /// Its key: signs commits and connects to seeders.
    pub device: PublicKey,
    /// Until when, by block time, unless it renews.
    pub expires: TimeMs,
}

impl LeaseRecord {
    /// The device that a lease was granted to, if that is remembered.
    #[must_use]
    pub fn device_of(&self, lease: Lease) -> Option<PublicKey> {
        self.recent.iter().rev().find(|(number, _)| *number == lease).map(|(_, device)| *device)
    }

    /// The current lease and its device, expired or not: what seeders serve until another is granted.
    #[must_use]
    pub fn current(&self) -> Option<(Lease, Holder)> {
        self.holder.map(|holder| (self.last, holder))
    }
}

impl Contract {
    /// The lane in a slot, if somebody holds it.
    #[must_use]
    pub fn lane(&self, slot: SlotIndex) -> Option<&Lane> {
        self.slots.get(usize::from(slot.get()))?.lane.as_ref()
    }

    /// Lanes with their slots, in order.
    pub fn lanes(&self) -> impl Iterator<Item = (SlotIndex, &Lane)> {
        (0u8..).zip(self.slots.iter()).filter_map(|(n, slot)| Some((SlotIndex::new(n), slot.lane.as_ref()?)))
    }

    /// Slots that nobody holds, in order.
    pub fn vacant(&self) -> impl Iterator<Item = SlotIndex> {
        (0u8..).zip(self.slots.iter()).filter(|(_, slot)| slot.lane.is_none()).map(|(n, _)| SlotIndex::new(n))
    }

    /// What all lanes cost for one epoch as they are now: what the next charge takes. `None` on overflow.
    #[must_use]
    pub fn rate(&self, params: &Params) -> Option<Fuel> {
        fee::sum(self.lanes().map(|(_, lane)| fee::rate(params, lane.price, lane.bytes)))
    }

    /// What pays this contract, for [`tallow_market::quote::paid_until`]: a contract without a prepaid stretch is
    /// charged from the boundary after `now`.
    #[must_use]
    pub fn funds(&self, params: &Params, now: Epoch) -> Option<Funds> {
        let prepaid_until = match self.prepaid {
            Some(prepaid) => prepaid.until,
            None => now.next()?,
        };
        Some(Funds { fuel: self.fuel, prepaid_until, per_epoch: self.rate(params)? })
    }
}

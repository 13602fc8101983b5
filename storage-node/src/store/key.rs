//! Names in the index: lanes and slices as fixed bytes that sort lane by lane.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::{ContractId, SlotIndex, StripeId};

/// A slot of a contract, as held here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct LaneKey {
    /// The contract.
    pub contract: ContractId,
    /// The slot.
    pub slot: SlotIndex,
}

/// A slice: a stripe's share of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct SliceKey {
    /// The contract.
    pub contract: ContractId,
    /// The slot.
    pub slot: SlotIndex,
    /// The stripe.
    pub stripe: StripeId,
}

/// `| contract 32 | slot 1 |`
pub(crate) type LaneBytes = [u8; 33];
/// `| contract 32 | slot 1 | stripe 16 |`
pub(crate) type SliceBytes = [u8; 49];

impl LaneKey {
    /// The slice of a stripe in this lane.
    #[must_use]
    pub const fn slice(self, stripe: StripeId) -> SliceKey {
        SliceKey { contract: self.contract, slot: self.slot, stripe }
    }

    pub(crate) fn bytes(self) -> LaneBytes {
        let mut out = [0; 33];
        out[..32].copy_from_slice(self.contract.as_bytes());
        out[32] = self.slot.get();
        out
    }

    pub(crate) fn from_bytes(bytes: &LaneBytes) -> Self {
        let contract = bytes[..32].try_into().expect("32 bytes");
        Self { contract: ContractId::new(contract), slot: SlotIndex::new(bytes[32]) }
    }
}

impl SliceKey {
    /// Its lane.
    #[must_use]
    pub const fn lane(self) -> LaneKey {
        LaneKey { contract: self.contract, slot: self.slot }
    }

    pub(crate) fn bytes(self) -> SliceBytes {
        let mut out = [0; 49];
        out[..33].copy_from_slice(&self.lane().bytes());
        out[33..].copy_from_slice(self.stripe.as_bytes());
        out
    }

    pub(crate) fn from_bytes(bytes: &SliceBytes) -> Self {
        let lane = LaneKey::from_bytes(bytes[..33].try_into().expect("33 bytes"));
        lane.slice(StripeId::new(bytes[33..].try_into().expect("16 bytes")))
    }
}

impl SliceKey {
    /// The lowest name in a lane.
    pub(crate) fn first(lane: LaneKey) -> SliceBytes {
        lane.slice(StripeId::ZERO).bytes()
    }

    /// The highest name in a lane.
    pub(crate) fn last(lane: LaneKey) -> SliceBytes {
        lane.slice(StripeId::new([0xff; 16])).bytes()
    }
}

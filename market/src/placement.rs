//! Who may hold which slots of a contract.

use std::collections::{BTreeMap, BTreeSet};

use tallow_types::contract::Terms;
use tallow_types::{AccountId, Bytes, FuelPerMibEpoch, SeederId, SlotIndex};

/// A seeder for a slot, as its entry in the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub seeder: SeederId,
    /// The account that earns: what makes two seeders one operator.
    pub operator: AccountId,
    /// Where.
    pub slot: SlotIndex,
    /// At what price.
    pub price: FuelPerMibEpoch,
    /// Bytes that it still offers.
    pub free: Bytes,
}

/// Why a seeder cannot take a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The profile has no such slot.
    #[error("slot {slot} is outside the profile of {slots} slots")]
    NoSuchSlot {
        /// The slot.
        slot: SlotIndex,
        /// Slots of the profile.
        slots: u8,
    },
    /// Two for one slot.
    #[error("slot {slot} is taken already; choose a vacant one")]
    SlotTaken {
        /// The slot.
        slot: SlotIndex,
    },
    /// One seeder with two slots would lose both at once.
    #[error("seeder {} holds a slot of this contract already; choose another seeder", .seeder.short())]
    SeederTwice {
        /// The seeder.
        seeder: SeederId,
    },
    /// The contract won't pay this much.
    #[error("seeder {} asks {price}, above the contract's ceiling of {ceiling}", .seeder.short())]
    TooDear {
        /// The seeder.
        seeder: SeederId,
        /// Its price.
        price: FuelPerMibEpoch,
        /// The contract's.
        ceiling: FuelPerMibEpoch,
    },
    /// The seeder is full.
    #[error("seeder {} has {free} bytes free, the contract reserves {room}", .seeder.short())]
    NoRoom {
        /// The seeder.
        seeder: SeederId,
        /// What it still offers.
        free: Bytes,
        /// What the contract needs.
        room: Bytes,
    },
    /// One operator with too many slots.
    #[error("operator {} would hold more than {limit} slots of this contract", .operator.short())]
    OperatorFull {
        /// The operator.
        operator: AccountId,
        /// Slots that it may hold.
        limit: u8,
    },
}

/// Slots of one contract as they fill.
#[derive(Debug)]
pub struct Placement<'a> {
    terms: &'a Terms,
    slots: BTreeSet<SlotIndex>,
    seeders: BTreeSet<SeederId>,
    operators: BTreeMap<AccountId, usize>,
}

impl<'a> Placement<'a> {
    /// With the lanes that are held already: seeder, operator, slot.
    #[must_use]
    pub fn new(terms: &'a Terms, held: impl IntoIterator<Item = (SeederId, AccountId, SlotIndex)>) -> Self {
        let mut placement =
            Self { terms, slots: BTreeSet::new(), seeders: BTreeSet::new(), operators: BTreeMap::new() };
        for (seeder, operator, slot) in held {
            placement.seat(seeder, operator, slot);
        }
        placement
    }

    fn seat(&mut self, seeder: SeederId, operator: AccountId, slot: SlotIndex) {
        self.slots.insert(slot);
        self.seeders.insert(seeder);
        *self.operators.entry(operator).or_default() += 1;
    }

    /// Seats one more.
    ///
    /// # Errors
    /// See [`PlacementError`]; then nothing changed.
    pub fn add(&mut self, candidate: &Candidate) -> Result<(), PlacementError> {
        let Candidate { seeder, operator, slot, price, free } = *candidate;
        let (slots, ceiling, room) = (self.terms.profile.slots(), self.terms.price_ceiling, self.terms.room);
        let limit = self.terms.slots_per_operator;
        if slot.get() >= slots {
            return Err(PlacementError::NoSuchSlot { slot, slots });
        }
        if self.slots.contains(&slot) {
            return Err(PlacementError::SlotTaken { slot });
        }
        if self.seeders.contains(&seeder) {
            return Err(PlacementError::SeederTwice { seeder });
        }
        if price > ceiling {
            return Err(PlacementError::TooDear { seeder, price, ceiling });
        }
        if free < room {
            return Err(PlacementError::NoRoom { seeder, free, room });
        }
        let held = self.operators.get(&operator).copied().unwrap_or_default();
        if limit > 0 && held >= usize::from(limit) {
            return Err(PlacementError::OperatorFull { operator, limit });
        }
        self.seat(seeder, operator, slot);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_types::Profile;

    /// Goal: each rule refuses by its own name, at its edge. Method: one good candidate, one change at a time.
    #[test]
    fn each_rule_refuses() {
        let terms = Terms {
            owner: AccountId::ZERO,
            index: 0,
            profile: Profile::from_k_of_n(2, 4).expect("in range"),
            room: Bytes::new(100),
            price_ceiling: FuelPerMibEpoch::new(50),
            slots_per_operator: 1,
        };
        let held = (SeederId::new([1; 32]), AccountId::new([1; 32]), SlotIndex::new(0));
        let good = Candidate {
            seeder: SeederId::new([2; 32]),
            operator: AccountId::new([2; 32]),
            slot: SlotIndex::new(3),
            price: FuelPerMibEpoch::new(50),
            free: Bytes::new(100),
        };
        let try_one = |candidate| Placement::new(&terms, [held]).add(&candidate);
        assert_eq!(try_one(good), Ok(()));
        let bad = try_one(Candidate { slot: SlotIndex::new(4), ..good });
        assert!(matches!(bad, Err(PlacementError::NoSuchSlot { slots: 4, .. })));
        let bad = try_one(Candidate { slot: held.2, ..good });
        assert!(matches!(bad, Err(PlacementError::SlotTaken { .. })));
        let bad = try_one(Candidate { seeder: held.0, ..good });
        assert!(matches!(bad, Err(PlacementError::SeederTwice { .. })));
        let bad = try_one(Candidate { price: FuelPerMibEpoch::new(51), ..good });
        assert!(matches!(bad, Err(PlacementError::TooDear { .. })));
        let bad = try_one(Candidate { free: Bytes::new(99), ..good });
        assert!(matches!(bad, Err(PlacementError::NoRoom { .. })));
        let bad = try_one(Candidate { operator: held.1, ..good });
        assert!(matches!(bad, Err(PlacementError::OperatorFull { limit: 1, .. })));
        let open = Terms { slots_per_operator: 0, ..terms.clone() };
        assert_eq!(Placement::new(&open, [held]).add(&Candidate { operator: held.1, ..good }), Ok(()));
    }
}

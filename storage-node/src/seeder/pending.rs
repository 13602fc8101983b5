//! Acceptances that the ledger does not have yet. Anybody may ask for one and it costs nothing, so they cost nothing here
//! either: no room, no write, a bounded memory in which the oldest gives way.
//!
//! What is remembered tells a lane that is new from one whose records are lost. An acceptance that gave way, or that a
//! restart forgot, makes the lane one of the latter: served from the next lease on, never wrong.

use std::collections::BTreeMap;

use tallow_types::Height;
use tallow_types::limits::ACCEPTANCES_WAITING_MAX;

use crate::store::LaneKey;

/// The newest acceptances.
#[derive(Debug, Default)]
pub(super) struct Pending {
    lanes: BTreeMap<LaneKey, (u64, Height)>,
    /// By the number of the asking: oldest first.
    order: BTreeMap<u64, LaneKey>,
    last: u64,
}

impl Pending {
    /// Remembers one, which is good up to a height.
    pub(super) fn note(&mut self, key: LaneKey, expires: Height) {
        self.remove(key);
        self.last += 1;
        self.lanes.insert(key, (self.last, expires));
        self.order.insert(self.last, key);
        if self.lanes.len() > ACCEPTANCES_WAITING_MAX
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    /// Whether a lane was accepted.
    pub(super) fn has(&self, key: LaneKey) -> bool {
        self.lanes.contains_key(&key)
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, key: LaneKey) {
        if let Some((number, _)) = self.lanes.remove(&key) {
            self.order.remove(&number);
        }
    }

    /// Forgets what the ledger does not take any more: height by height they expire in the order of asking.
    pub(super) fn expire(&mut self, height: Height) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let key = *oldest;
            if self.lanes.get(&key).is_some_and(|(_, expires)| *expires >= height) {
                return;
            }
            self.remove(key);
        }
    }

    /// All lanes accepted.
    pub(super) fn keys(&self) -> Vec<LaneKey> {
        self.lanes.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use tallow_types::{ContractId, SlotIndex};

    use super::*;

    fn lane(n: usize) -> LaneKey {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        LaneKey { contract: ContractId::new(id), slot: SlotIndex::new(0) }
    }

    /// Goal: memory is bounded, the oldest gives way, asking again makes young. Method: one more than the limit.
    #[test]
    fn oldest_gives_way() {
        let mut pending = Pending::default();
        for n in 0..ACCEPTANCES_WAITING_MAX {
            pending.note(lane(n), Height::new(1));
        }
        pending.note(lane(0), Height::new(2));
        pending.note(lane(ACCEPTANCES_WAITING_MAX), Height::new(2));
        assert!(pending.has(lane(0)) && !pending.has(lane(1)) && pending.has(lane(2)));
        assert_eq!(pending.keys().len(), ACCEPTANCES_WAITING_MAX);
        pending.expire(Height::new(2));
        assert_eq!((pending.keys().len(), pending.order.len()), (2, 2));
        pending.expire(Height::new(3));
        assert!(pending.keys().is_empty());
    }
}

//! Pages of lane changes that are too long for one message, until their commit comes.
//!
//! Guarantees: at most [`STAGED_LEAVES_MAX`] leaves in memory; what was staged under one lease is not seen under another.
//! When more is asked for, what was touched longest ago gives way: its device begins anew. Nothing here is durable, and
//! nothing here is trusted: a commit's root says whether the leaves are the right ones.

use std::collections::BTreeMap;

use tallow_types::commit::Leaf;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::STAGED_LEAVES_MAX;
use tallow_types::{LeafIndex, Lease};

use crate::store::LaneKey;

/// What is staged for one lane.
struct Staged {
    lease: Lease,
    keep: LeafIndex,
    leaves: Vec<Option<Leaf>>,
    touched: u64,
}

/// What is staged for all lanes.
#[derive(Default)]
pub(super) struct Staging {
    lanes: BTreeMap<LaneKey, Staged>,
    turn: u64,
}

impl Staging {
    /// Takes a page: the first one behind `keep`, one that goes on, or one that came before.
    pub(super) fn page(
        &mut self,
        key: LaneKey,
        lease: Lease,
        (keep, from): (LeafIndex, LeafIndex),
        page: Vec<Option<Leaf>>,
    ) -> Result<(), Fault> {
        let gap = || Fault::new(Code::WrongCommit, "this page does not go on where the one before it ended");
        let at =
            from.get().checked_sub(keep.get()).and_then(|at| usize::try_from(at).ok()).ok_or_else(gap)?;
        let known = self.lanes.get(&key).filter(|known| known.lease == lease && known.keep == keep);
        if at > known.map_or(0, |known| known.leaves.len()) {
            return Err(gap());
        }
        let after = at.saturating_add(page.len());
        if after > STAGED_LEAVES_MAX {
            let text = format!("a lane is shown in at most {STAGED_LEAVES_MAX} leaves");
            return Err(Fault::new(Code::NoRoom, text));
        }
        let mut leaves = if at == 0 { Vec::new() } else { self.remove(key) };
        self.remove(key);
        leaves.truncate(at);
        leaves.extend(page);
        while self.count() + leaves.len() > STAGED_LEAVES_MAX
            && let Some((oldest, _)) = self.lanes.iter().min_by_key(|(_, staged)| staged.touched)
        {
            let oldest = *oldest;
            self.lanes.remove(&oldest);
        }
        self.turn += 1;
        self.lanes.insert(key, Staged { lease, keep, leaves, touched: self.turn });
        Ok(())
    }

    /// The leaves staged behind `keep`, if they are of this lease.
    pub(super) fn find(&self, key: LaneKey, lease: Lease, keep: LeafIndex) -> Option<Vec<Option<Leaf>>> {
        let staged = self.lanes.get(&key).filter(|staged| staged.lease == lease && staged.keep == keep)?;
        Some(staged.leaves.clone())
    }

    /// Nobody needs them any more.
    pub(super) fn remove(&mut self, key: LaneKey) -> Vec<Option<Leaf>> {
        self.lanes.remove(&key).map(|staged| staged.leaves).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.lanes.values().map(|staged| staged.leaves.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use tallow_types::limits::STAGE_PAGE_MAX;
    use tallow_types::{ContractId, Incarnation, SlotIndex};

    use super::*;

    fn key(n: u8) -> LaneKey {
        LaneKey { contract: ContractId::new([n; 32]), slot: SlotIndex::new(0) }
    }

    fn lease(counter: u64) -> Lease {
        Lease { incarnation: Incarnation::ZERO, counter }
    }

    fn at(leaf: usize) -> LeafIndex {
        LeafIndex::new(leaf as u64)
    }

    /// Goal: pages follow one another, may come again, and belong to one lease and one front. Method: each way to be wrong.
    #[test]
    fn pages_follow_one_another() {
        let mut staging = Staging::default();
        let mut page = |lease_of, keep, from, len: usize| {
            staging.page(key(1), lease(lease_of), (at(keep), at(from)), vec![None; len]).is_ok()
        };
        assert!(page(1, 5, 5, 10));
        assert!(page(1, 5, 15, 10));
        assert!(page(1, 5, 15, 10), "an answer was lost");
        assert!(!page(1, 5, 26, 1), "a gap");
        assert!(!page(1, 5, 4, 1), "before the front");
        assert!(!page(1, 6, 25, 1), "another front");
        assert!(!page(2, 5, 25, 1), "another lease");
        assert_eq!(staging.find(key(1), lease(1), at(5)).map(|leaves| leaves.len()), Some(20));
        assert!(staging.find(key(1), lease(2), at(5)).is_none());
        assert!(staging.find(key(1), lease(1), at(4)).is_none());
        staging.page(key(1), lease(2), (at(0), at(0)), vec![None]).expect("begins anew");
        assert!(staging.find(key(1), lease(1), at(5)).is_none());
        assert_eq!(staging.remove(key(1)).len(), 1);
        assert_eq!(staging.count(), 0);
    }

    /// Goal: memory is bounded, one lane's by refusal and that of all by making the oldest give way. Method: one above.
    #[test]
    fn memory_is_bounded() {
        let mut staging = Staging::default();
        let mut fill = |key, upto: usize| {
            for from in (0..upto).step_by(STAGE_PAGE_MAX) {
                let len = STAGE_PAGE_MAX.min(upto - from);
                staging.page(key, lease(1), (at(0), at(from)), vec![None; len]).expect("fits");
            }
        };
        fill(key(1), STAGED_LEAVES_MAX / 2);
        fill(key(2), STAGED_LEAVES_MAX / 2);
        fill(key(3), 1);
        assert!(staging.find(key(1), lease(1), at(0)).is_none(), "the oldest gave way");
        assert!(staging.find(key(2), lease(1), at(0)).is_some());
        let more = staging.page(key(3), lease(1), (at(0), at(1)), vec![None; STAGED_LEAVES_MAX]);
        assert_eq!(more.map_err(|fault| fault.code()), Err(Code::NoRoom));
        assert!(staging.count() <= STAGED_LEAVES_MAX);
    }
}

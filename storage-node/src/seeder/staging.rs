//! Pages of lane changes that are too long for one message, until their commit comes.
//!
//! Guarantees: at most [`STAGED_LEAVES_MAX`] leaves in memory, those that a commit is being judged by included, and one copy
//! of each; what was staged under one lease is not seen under another. When more is asked for, what was touched longest ago
//! gives way: its device begins anew. Nothing here is durable, and nothing here is trusted: a commit's root says whether the
//! leaves are the right ones.

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
    /// How many are in the hands of a step that is under way: they count until it has ended.
    taken: usize,
    touched: u64,
}

impl Staged {
    fn count(&self) -> usize {
        self.leaves.len() + self.taken
    }
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
        let busy = || Fault::new(Code::Busy, "leaves of other commits are being taken in");
        let at =
            from.get().checked_sub(keep.get()).and_then(|at| usize::try_from(at).ok()).ok_or_else(gap)?;
        let known = self.lanes.get(&key);
        if known.is_some_and(|known| known.taken > 0) {
            return Err(busy());
        }
        let goes_on = known.filter(|known| known.lease == lease && known.keep == keep);
        if at > goes_on.map_or(0, Staged::count) {
            return Err(gap());
        }
        let after = at.saturating_add(page.len());
        if after > STAGED_LEAVES_MAX {
            let text = format!("a lane is shown in at most {STAGED_LEAVES_MAX} leaves");
            return Err(Fault::new(Code::NoRoom, text));
        }
        let mut leaves = self.lanes.remove(&key).map(|known| known.leaves).unwrap_or_default();
        while self.count() + after > STAGED_LEAVES_MAX {
            let idle = self.lanes.iter().filter(|(_, staged)| staged.taken == 0);
            let oldest = idle.min_by_key(|(_, staged)| staged.touched).map(|(key, _)| *key);
            self.lanes.remove(&oldest.ok_or_else(busy)?);
        }
        leaves.truncate(at);
        leaves.extend(page);
        self.turn += 1;
        self.lanes.insert(key, Staged { lease, keep, leaves, taken: 0, touched: self.turn });
        Ok(())
    }

    /// Hands out the leaves staged behind `keep`, if they are of this lease. They count until [`Staging::end`].
    pub(super) fn take(&mut self, key: LaneKey, lease: Lease, keep: LeafIndex) -> Vec<Option<Leaf>> {
        let staged = self.lanes.get_mut(&key).filter(|staged| staged.lease == lease && staged.keep == keep);
        let Some(staged) = staged else { return Vec::new() };
        let leaves = std::mem::take(&mut staged.leaves);
        staged.taken += leaves.len();
        leaves
    }

    /// The step that so many leaves were taken for has ended, whichever way.
    pub(super) fn end(&mut self, key: LaneKey, taken: usize) {
        if taken > 0 {
            self.lanes.remove(&key);
        }
    }

    fn count(&self) -> usize {
        self.lanes.values().map(Staged::count).sum()
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
        assert!(staging.take(key(1), lease(2), at(5)).is_empty());
        assert!(staging.take(key(1), lease(1), at(4)).is_empty());
        assert_eq!(staging.take(key(1), lease(1), at(5)).len(), 20);
        assert!(staging.take(key(1), lease(1), at(5)).is_empty(), "not twice");
        assert_eq!(staging.count(), 20, "they count until the step has ended");
        let meanwhile = staging.page(key(1), lease(1), (at(5), at(5)), vec![None]);
        assert_eq!(meanwhile.map_err(|fault| fault.code()), Err(Code::Busy));
        staging.end(key(1), 0);
        assert_eq!(staging.count(), 20, "another step that had none of them");
        staging.end(key(1), 20);
        assert_eq!(staging.count(), 0);
        staging.page(key(1), lease(2), (at(0), at(0)), vec![None]).expect("begins anew");
        assert!(staging.take(key(1), lease(1), at(5)).is_empty());
    }

    /// Goal: memory is bounded, one lane's by refusal and that of all by making the oldest give way, unless it is in use. Method:
    /// one above.
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
        assert!(staging.take(key(1), lease(1), at(0)).is_empty(), "the oldest gave way");
        let more = staging.page(key(3), lease(1), (at(0), at(1)), vec![None; STAGED_LEAVES_MAX]);
        assert_eq!(more.map_err(|fault| fault.code()), Err(Code::NoRoom));
        let taken = staging.take(key(2), lease(1), at(0)).len();
        assert_eq!(taken, STAGED_LEAVES_MAX / 2);
        let page = vec![None; STAGED_LEAVES_MAX / 2 + 1];
        let more = staging.page(key(3), lease(1), (at(0), at(0)), page.clone());
        assert_eq!(more.map_err(|fault| fault.code()), Err(Code::Busy), "what is in use does not give way");
        staging.end(key(2), taken);
        staging.page(key(3), lease(1), (at(0), at(0)), page).expect("fits now");
        assert!(staging.count() <= STAGED_LEAVES_MAX);
    }
}

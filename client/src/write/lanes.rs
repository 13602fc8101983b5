//! What to show a seeder so that it can countersign: the commits since its newest one, and how its lane gets there.

use tallow_types::codec::Bounded;
use tallow_types::commit::{LaneChange, Leaf, SignedCommit};
use tallow_types::id::CommitHash;
use tallow_types::limits::COMMIT_CHAIN_MAX;
use tallow_types::unit::LeafIndex;

use crate::sync::Leaves;

/// Where a seeder's lane stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// At the base of the lease.
    Base,
    /// It signed this many commits of the lease.
    Signed(usize),
    /// Somewhere else: behind, ahead, or at nothing. These are its leaves.
    Elsewhere(Leaves),
}

/// A commit of the present lease, and what it did to every lane.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub signed: SignedCommit,
    pub dropped: Vec<LeafIndex>,
}

/// The newest commits of a lease: as many as one message may show, and the one before them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail {
    made: Vec<Made>,
    /// How many there were before those.
    forgotten: usize,
}

impl Trail {
    pub fn push(&mut self, made: Made) {
        self.made.push(made);
        if self.made.len() > COMMIT_CHAIN_MAX + 1 {
            self.made.remove(0);
            self.forgotten += 1;
        }
    }

    /// How many were made.
    pub fn count(&self) -> usize {
        self.forgotten + self.made.len()
    }

    pub fn last(&self) -> Option<&Made> {
        self.made.last()
    }

    /// Where a seeder stands that signed this commit last.
    pub fn standing(&self, commit: CommitHash) -> Option<Standing> {
        let at = self.made.iter().position(|made| made.signed.commit.hash() == commit)?;
        Some(Standing::Signed(self.forgotten + at + 1))
    }
}

/// Commits and change that bring a lane to the last commit of the trail, whose leaves in this slot are `target`. `None` if it
/// is too far for one message.
pub(crate) fn path(
    standing: &Standing,
    base_leaves: LeafIndex,
    trail: &Trail,
    target: &Leaves,
) -> Option<(Vec<SignedCommit>, LaneChange)> {
    let made = &trail.made;
    let from_base = (trail.forgotten == 0).then_some(0);
    let (signed, change) = match standing {
        // It has signed the last one already and is asked again for its answer.
        Standing::Signed(count) if *count == trail.count() && *count > 0 => {
            let keep = made.last()?.signed.commit.leaves;
            (made.len() - 1, change(keep, Vec::new(), &[])?)
        }
        Standing::Base | Standing::Signed(0) => (from_base?, forward(base_leaves, made, target)?),
        Standing::Signed(count) => {
            let signed = count.checked_sub(trail.forgotten)?;
            let keep = made.get(signed.checked_sub(1)?)?.signed.commit.leaves;
            (signed, forward(keep, made.get(signed..)?, target)?)
        }
        Standing::Elsewhere(leaves) => (from_base?, between(leaves, target)?),
    };
    let chain: Vec<SignedCommit> = made.get(signed..)?.iter().map(|made| made.signed.clone()).collect();
    (!chain.is_empty() && chain.len() <= COMMIT_CHAIN_MAX).then_some((chain, change))
}

/// From a lane of `keep` leaves that lies on the way.
fn forward(keep: LeafIndex, steps: &[Made], target: &Leaves) -> Option<LaneChange> {
    let appended = target.get(usize::try_from(keep.get()).ok()?..)?;
    let mut dropped: Vec<LeafIndex> =
        steps.iter().flat_map(|step| step.dropped.iter().copied()).filter(|leaf| *leaf < keep).collect();
    dropped.sort_unstable();
    dropped.dedup();
    change(keep, dropped, appended)
}

/// From any lane to any other: keeps what they have in common in front.
pub(crate) fn between(from: &Leaves, target: &Leaves) -> Option<LaneChange> {
    let fits = |(old, new): &(&Option<Leaf>, &Option<Leaf>)| old == new || new.is_none();
    let keep = from.iter().zip(target).take_while(fits).count();
    let dropped = (0u64..)
        .map(LeafIndex::new)
        .zip(from.iter().zip(target).take(keep))
        .filter(|(_, (old, new))| old.is_some() && new.is_none())
        .map(|(leaf, _)| leaf)
        .collect();
    change(LeafIndex::new(keep as u64), dropped, target.get(keep..)?)
}

/// `None` if it is too much for one message.
fn change(keep: LeafIndex, dropped: Vec<LeafIndex>, appended: &[Option<Leaf>]) -> Option<LaneChange> {
    Some(LaneChange { keep, dropped: Bounded::new(dropped)?, appended: Bounded::new(appended.to_vec())? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tallow_types::commit::Commit;
    use tallow_types::id::{ChainId, ContractId, SliceRoot, StripeId};
    use tallow_types::sign::Keypair;
    use tallow_types::unit::{Incarnation, Lease, Sequence};

    use super::*;

    fn leaf(n: u8) -> Leaf {
        Leaf { stripe: StripeId::new([n; 16]), root: SliceRoot::new([n; 32]), length: 1024 }
    }

    /// What a lane makes of a change.
    fn applied(mut lane: Leaves, change: &LaneChange) -> Leaves {
        lane.truncate(usize::try_from(change.keep.get()).expect("small"));
        lane.extend(change.appended.iter().copied());
        for leaf in change.dropped.iter() {
            lane[usize::try_from(leaf.get()).expect("small")] = None;
        }
        lane
    }

    fn made(sequence: u64) -> Made {
        let commit = Commit {
            contract: ContractId::new([1; 32]),
            lease: Lease { incarnation: Incarnation::ZERO, counter: 1 },
            sequence: Sequence::new(sequence),
            previous: CommitHash::ZERO,
            leaves: LeafIndex::new(sequence),
            width: 1,
            slots: Bounded::empty(),
            catalog_head: Bounded::empty(),
            repair_head: Bounded::empty(),
        };
        let signed = commit.sign(&ChainId::new([1; 32]), &Keypair::from_seed(&[1; 32]));
        Made { signed, dropped: Vec::new() }
    }

    /// Goal: a lease that is renewed for long takes no more memory, and a lane that is as far behind as one message allows still
    /// catches up. Method: many commits of one leaf each; lanes that stand everywhere.
    #[test]
    fn old_commits_are_forgotten() {
        let (mut trail, total) = (Trail::default(), 3 * COMMIT_CHAIN_MAX);
        for sequence in 1..=total {
            trail.push(made(sequence as u64));
        }
        assert_eq!((trail.count(), trail.made.len()), (total, COMMIT_CHAIN_MAX + 1));
        let target: Leaves = vec![Some(leaf(1)); total];
        let found = |standing: &Standing| path(standing, LeafIndex::ZERO, &trail, &target);
        for count in 1..=total {
            let missed = total - count;
            let Some((chain, change)) = found(&Standing::Signed(count)) else {
                assert!(missed > COMMIT_CHAIN_MAX, "{missed} behind");
                continue;
            };
            assert!(missed <= COMMIT_CHAIN_MAX);
            assert_eq!((chain.len(), change.appended.len()), (missed.max(1), missed));
            assert_eq!(chain[0].commit.sequence.get(), (total + 1 - missed.max(1)) as u64);
        }
        assert!(found(&Standing::Base).is_none() && found(&Standing::Elsewhere(Vec::new())).is_none());
        let hash = trail.last().map(|made| made.signed.commit.hash()).expect("made");
        assert!(matches!(trail.standing(hash), Some(Standing::Signed(count)) if count == total));
    }

    fn lanes() -> impl Strategy<Value = Leaves> {
        prop::collection::vec(prop::option::weighted(0.7, (0u8..3).prop_map(leaf)), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Goal: a change leads from any lane to any other, and keeps all that it can. Method: apply it; compare.
        #[test]
        fn between_leads_there(from in lanes(), target in lanes()) {
            let change = between(&from, &target).expect("small");
            let keep = usize::try_from(change.keep.get()).expect("small");
            prop_assert!(keep <= from.len());
            if let (Some(old), Some(new)) = (from.get(keep), target.get(keep)) {
                prop_assert!(old != new && new.is_some());
            }
            prop_assert_eq!(applied(from, &change), target);
        }
    }
}

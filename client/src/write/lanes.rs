//! What to show a seeder so that it can countersign: the commits since its newest one, and how its lane gets there.

use tallow_types::commit::SignedCommit;
use tallow_types::id::CommitHash;
use tallow_types::limits::{COMMIT_CHAIN_MAX, COMMIT_CHANGES_MAX};
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

/// Commits and change that bring a lane to the last commit of the trail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub chain: Vec<SignedCommit>,
    pub keep: LeafIndex,
    pub dropped: Vec<LeafIndex>,
    pub appended: Leaves,
}

/// The way from where a lane stands to the last commit of the trail; `target` gives the leaves that it has there from an
/// index on, if all of them are known. `None` if it is too far.
pub(crate) fn path(
    standing: &Standing,
    base_leaves: LeafIndex,
    trail: &Trail,
    target: impl Fn(LeafIndex) -> Option<Leaves>,
) -> Option<Way> {
    let made = &trail.made;
    let forward = |signed: usize, keep: LeafIndex| {
        let steps = made.get(signed..)?;
        let mut dropped: Vec<LeafIndex> =
            steps.iter().flat_map(|step| step.dropped.iter().copied()).filter(|leaf| *leaf < keep).collect();
        dropped.sort_unstable();
        dropped.dedup();
        Some((signed, keep, dropped, target(keep)?))
    };
    let (signed, keep, dropped, appended) = match standing {
        // It has signed the last one already and is asked again for its answer.
        Standing::Signed(count) if *count == trail.count() && *count > 0 => {
            (made.len() - 1, made.last()?.signed.commit.leaves, Vec::new(), Vec::new())
        }
        Standing::Base | Standing::Signed(0) => (trail.forgotten == 0).then(|| forward(0, base_leaves))??,
        Standing::Signed(count) => {
            let signed = count.checked_sub(trail.forgotten)?;
            forward(signed, made.get(signed.checked_sub(1)?)?.signed.commit.leaves)?
        }
        // What it signed last is of an earlier lease, if anything: it may leave that behind and begin anywhere in this one.
        Standing::Elsewhere(leaves) => {
            let (keep, dropped, appended) = between(leaves, &target(LeafIndex::ZERO)?);
            (made.len().saturating_sub(COMMIT_CHAIN_MAX), keep, dropped, appended)
        }
    };
    let chain: Vec<SignedCommit> = made.get(signed..)?.iter().map(|made| made.signed.clone()).collect();
    let fits = !chain.is_empty() && chain.len() <= COMMIT_CHAIN_MAX && dropped.len() <= COMMIT_CHANGES_MAX;
    fits.then_some(Way { chain, keep, dropped, appended })
}

/// From any lane to any other: keeps what they have in common in front, as far as one message can name what is dropped of
/// it.
pub(crate) fn between(from: &Leaves, target: &Leaves) -> (LeafIndex, Vec<LeafIndex>, Leaves) {
    let (mut keep, mut dropped) = (0, Vec::new());
    for (at, (old, new)) in (0u64..).zip(from.iter().zip(target)) {
        match (old, new) {
            _ if old == new => {}
            (_, None) if dropped.len() < COMMIT_CHANGES_MAX => dropped.push(LeafIndex::new(at)),
            _ => break,
        }
        keep += 1;
    }
    (LeafIndex::new(keep as u64), dropped, target[keep..].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tallow_types::codec::Bounded;
    use tallow_types::commit::{Commit, Leaf};
    use tallow_types::id::{ChainId, ContractId, SliceRoot, StripeId};
    use tallow_types::sign::Keypair;
    use tallow_types::unit::{Incarnation, Lease, Sequence};

    use super::*;

    fn leaf(n: u8) -> Leaf {
        Leaf { stripe: StripeId::new([n; 16]), root: SliceRoot::new([n; 32]), length: 1024 }
    }

    fn number(leaf: LeafIndex) -> usize {
        usize::try_from(leaf.get()).expect("small")
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
        let rest = |from: LeafIndex| target.get(number(from)..).map(<[_]>::to_vec);
        let found = |standing: &Standing| path(standing, LeafIndex::ZERO, &trail, rest);
        for count in 1..=total {
            let missed = total - count;
            let Some(way) = found(&Standing::Signed(count)) else {
                assert!(missed > COMMIT_CHAIN_MAX, "{missed} behind");
                continue;
            };
            assert!(missed <= COMMIT_CHAIN_MAX);
            assert_eq!((way.chain.len(), way.appended.len()), (missed.max(1), missed));
            assert_eq!(way.chain[0].commit.sequence.get(), (total + 1 - missed.max(1)) as u64);
        }
        assert!(found(&Standing::Base).is_none());
        let way =
            found(&Standing::Elsewhere(Vec::new())).expect("whoever has nothing can always be shown all");
        assert_eq!((way.chain.len(), way.keep, way.appended), (COMMIT_CHAIN_MAX, LeafIndex::ZERO, target));
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
            let (keep, dropped, appended) = between(&from, &target);
            prop_assert!(number(keep) <= from.len());
            if let (Some(old), Some(new)) = (from.get(number(keep)), target.get(number(keep))) {
                prop_assert!(old != new && new.is_some());
            }
            let mut lane = from;
            lane.truncate(number(keep));
            dropped.into_iter().for_each(|leaf| lane[number(leaf)] = None);
            lane.extend(appended);
            prop_assert_eq!(lane, target);
        }
    }

    /// Goal: what one message can't name as dropped is shown anew. Method: one more than fits.
    #[test]
    fn many_drops_are_shown_anew() {
        let from: Leaves = vec![Some(leaf(1)); COMMIT_CHANGES_MAX + 1];
        let target: Leaves = vec![None; COMMIT_CHANGES_MAX + 1];
        let (keep, dropped, appended) = between(&from, &target);
        assert_eq!((number(keep), dropped.len()), (COMMIT_CHANGES_MAX, COMMIT_CHANGES_MAX));
        assert_eq!(appended, [None]);
    }
}

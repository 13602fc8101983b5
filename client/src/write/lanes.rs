//! What to show a seeder so that it can countersign: the commits since its newest one, and how its lane gets there.

use tallow_types::codec::Bounded;
use tallow_types::commit::{LaneChange, Leaf, SignedCommit};
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

/// Commits and change that bring a lane to the last of `made`, whose leaves in this slot are `target`. `None` if it is too
/// far for one message.
pub(crate) fn path(
    standing: &Standing,
    base_leaves: LeafIndex,
    made: &[Made],
    target: &Leaves,
) -> Option<(Vec<SignedCommit>, LaneChange)> {
    let (signed, change) = match standing {
        // It has signed the last one already and is asked again for its answer.
        Standing::Signed(count) if *count == made.len() && *count > 0 => {
            let keep = made.last()?.signed.commit.leaves;
            (*count - 1, change(keep, Vec::new(), &[])?)
        }
        Standing::Base => (0, forward(base_leaves, made, target)?),
        Standing::Signed(count) => {
            let keep = match count.checked_sub(1) {
                Some(last) => made.get(last)?.signed.commit.leaves,
                None => base_leaves,
            };
            (*count, forward(keep, made.get(*count..)?, target)?)
        }
        Standing::Elsewhere(leaves) => (0, between(leaves, target)?),
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
    use tallow_types::id::{SliceRoot, StripeId};

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

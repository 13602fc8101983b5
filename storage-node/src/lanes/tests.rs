//! The rules one by one, and then all of them at once under random orders, lost messages and crashes.

mod orders;

use tallow_types::commit::{Commit, LaneChange, SlotState};
use tallow_types::{
    Bounded, BoundedBytes, ContractId, Incarnation, LaneRoot, Sequence, SliceRoot, SlotIndex,
};

use super::*;

const ROOM: Bytes = Bytes::new(1 << 20);

fn chain_id() -> ChainId {
    ChainId::new([1; 32])
}

fn lane_key(slot: u8) -> LaneKey {
    LaneKey { contract: ContractId::new([2; 32]), slot: SlotIndex::new(slot) }
}

fn device(n: u8) -> Keypair {
    Keypair::from_seed(&[10 + n; 32])
}

fn seeder(n: u8) -> Keypair {
    Keypair::from_seed(&[50 + n; 32])
}

fn lease(counter: u64) -> Lease {
    Lease { incarnation: Incarnation::ZERO, counter }
}

fn grant(counter: u64, device: &Keypair, slots: usize) -> Grant {
    Grant {
        chain: chain_id(),
        lease: lease(counter),
        device: Some(device.public()),
        waiting: None,
        former: Vec::new(),
        room: ROOM,
        signed: Rank::default(),
        slots,
        first_holder: true,
    }
}

fn leaf(n: u64) -> Leaf {
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&n.to_le_bytes());
    Leaf { stripe: StripeId::new(stripe), root: SliceRoot::new([n.to_le_bytes()[0]; 32]), length: 1024 }
}

/// A commit of the same lane in every slot.
fn commit_of(rank: (u64, u64), previous: CommitHash, leaves: &[Option<Leaf>], slots: usize) -> Commit {
    let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref)).unwrap();
    let slot = SlotState { root: tree.root(), bytes: tree.bytes() };
    Commit {
        contract: lane_key(0).contract,
        lease: lease(rank.0),
        sequence: Sequence::new(rank.1),
        previous,
        leaves: tree.len(),
        width: 1,
        slots: Bounded::new(vec![slot; slots]).unwrap(),
        catalog_head: BoundedBytes::empty(),
        repair_head: BoundedBytes::empty(),
    }
}

/// From one lane to another; `linked` keeps every leaf, as a chain that begins at the newest commit must.
fn change_between(from: &[Option<Leaf>], to: &[Option<Leaf>], linked: bool) -> LaneChange {
    let fits = |at: usize| from[at] == to[at] || to[at].is_none();
    let shorter = from.len().min(to.len());
    let keep = if linked { from.len() } else { (0..shorter).take_while(|at| fits(*at)).count() };
    let dropped = (0..keep).filter(|at| from[*at].is_some() && to[*at].is_none());
    LaneChange {
        keep: LeafIndex::new(keep as u64),
        dropped: Bounded::new(dropped.map(|at| LeafIndex::new(at as u64)).collect()).unwrap(),
        appended: Bounded::new(to[keep..].to_vec()).unwrap(),
    }
}

fn founder() -> Lane {
    Lane::new(lane_key(0), LaneRow::new(Origin::Founder, ROOM, None))
}

fn ask(lane: &Lane, grant: &Grant, commits: &[&SignedCommit], change: LaneChange) -> Result<Step, Refusal> {
    let chain = commits.iter().map(|signed| (*signed).clone()).collect();
    let event = Event::Countersign { chain, change: change.into() };
    lane.handle(&seeder(0), grant, device(1).public(), event)
}

fn sign(commit: Commit) -> SignedCommit {
    commit.sign(&chain_id(), &device(1))
}

/// Goal: each rule of countersigning refuses by its own name. Method: a lane of two leaves under (1, 2); break one thing
/// at a time.
#[test]
fn each_rule_refuses() {
    let (granted, mut lane) = (grant(1, &device(1), 2), founder());
    let (a, b, c) = (Some(leaf(1)), Some(leaf(2)), Some(leaf(3)));
    let one = sign(commit_of((1, 1), CommitHash::ZERO, &[a], 2));
    let two = sign(commit_of((1, 2), one.commit.hash(), &[a, b], 2));
    let step = ask(&lane, &granted, &[&one, &two], change_between(&[], &[a, b], true)).unwrap();
    lane.apply(step);
    let tip = two.commit.hash();
    let good = commit_of((1, 3), tip, &[a, b, c], 2);
    let fits = change_between(&[a, b], &[a, b, c], true);
    assert!(ask(&lane, &granted, &[&sign(good.clone())], fits.clone()).is_ok());

    let refused = |commit: Commit, change: &LaneChange| {
        ask(&lane, &granted, &[&sign(commit)], change.clone()).expect_err("breaks a rule")
    };
    let chain = |refusal: Refusal| assert!(matches!(refusal, Refusal::Chain(_)), "{refusal:?}");
    chain(refused(Commit { sequence: Sequence::new(2), ..good.clone() }, &fits));
    chain(refused(Commit { sequence: Sequence::new(4), ..good.clone() }, &fits));
    chain(refused(Commit { previous: one.commit.hash(), ..good.clone() }, &fits));
    chain(refused(Commit { contract: ContractId::new([9; 32]), ..good.clone() }, &fits));
    let wrong = |refusal: Refusal| assert!(matches!(refusal, Refusal::Lane(_)), "{refusal:?}");
    wrong(refused(Commit { leaves: LeafIndex::new(4), ..good.clone() }, &fits));
    let slot = |root, bytes| Bounded::new(vec![SlotState { root, bytes }; 2]).unwrap();
    let real = good.slots[0];
    wrong(refused(Commit { slots: slot(LaneRoot::ZERO, real.bytes), ..good.clone() }, &fits));
    wrong(refused(Commit { slots: slot(real.root, Bytes::new(1)), ..good.clone() }, &fits));
    let full = slot(real.root, Bytes::new(ROOM.get() + 1));
    assert!(matches!(refused(Commit { slots: full, ..good.clone() }, &fits), Refusal::NoRoom { .. }));
    wrong(refused(Commit { slots: Bounded::new(vec![real]).unwrap(), ..good.clone() }, &fits));
    wrong(refused(commit_of((1, 3), tip, &[a, b, a], 2), &change_between(&[a, b], &[a, b, a], true)));
    wrong(refused(commit_of((1, 3), tip, &[a, c], 2), &change_between(&[a, b], &[a, c], false)));
    let beyond = LaneChange { dropped: Bounded::new(vec![LeafIndex::new(2)]).unwrap(), ..fits.clone() };
    wrong(refused(good.clone(), &beyond));

    let mut forged = sign(good.clone());
    forged.commit.width = 2;
    assert!(matches!(ask(&lane, &granted, &[&forged], fits.clone()), Err(Refusal::BadSignature(_))));
    let stranger = good.clone().sign(&chain_id(), &device(2));
    assert!(matches!(ask(&lane, &granted, &[&stranger], fits.clone()), Err(Refusal::Chain(_))));
    assert!(matches!(ask(&lane, &granted, &[], fits.clone()), Err(Refusal::Malformed(_))));
    let other = grant(1, &device(2), 2);
    assert_eq!(ask(&lane, &other, &[&sign(good.clone())], fits.clone()).err(), Some(Refusal::Forbidden));
    let given_back = Grant { device: None, ..granted.clone() };
    assert_eq!(ask(&lane, &given_back, &[&sign(good.clone())], fits.clone()).err(), Some(Refusal::Forbidden));
    let later = grant(2, &device(1), 2);
    let over = ask(&lane, &later, &[&sign(good)], fits);
    assert_eq!(over.err(), Some(Refusal::Fenced { lease: lease(1), served: lease(2) }));
}

/// Goal: the first commit of a later lease, and only that, leaves others behind. Method: a lane ahead of the base.
#[test]
fn later_lease_leaves_commits_behind() {
    let (first, mut lane) = (grant(1, &device(1), 1), founder());
    let (a, b, c) = (Some(leaf(1)), Some(leaf(2)), Some(leaf(3)));
    let base = sign(commit_of((1, 1), CommitHash::ZERO, &[a], 1));
    let void = sign(commit_of((1, 2), base.commit.hash(), &[None, b], 1));
    for (signed, from, to) in [(&base, vec![], vec![a]), (&void, vec![a], vec![None, b])] {
        let step = ask(&lane, &first, &[signed], change_between(&from, &to, true)).unwrap();
        lane.apply(step);
    }
    let second = grant(2, &device(1), 1);
    let next = sign(commit_of((2, 1), base.commit.hash(), &[a, c], 1));
    let back = LaneChange { appended: Bounded::new(vec![a, c]).unwrap(), ..LaneChange::default() };
    let step = ask(&lane, &second, &[&next], back).unwrap();
    let update = step.update.clone().unwrap();
    assert!(update.rebased && update.row.fence == lease(2));
    assert_eq!(update.removed, vec![(LeafIndex::new(1), leaf(2))]);
    lane.apply(step);
    assert_eq!(lane.leaves_from(LeafIndex::ZERO, 9), &[a, c]);
    assert_eq!(lane.commits_from(&next.commit.hash()), vec![next.clone(), base]);
    let fork = sign(commit_of((2, 1), void.commit.hash(), &[], 1));
    let refused = ask(&lane, &second, &[&fork], LaneChange::default());
    assert!(matches!(refused, Err(Refusal::Chain(_))), "not twice in one lease");
}

/// Goal: who has nothing to tell says so, and who lost records waits for the next lease. Method: fence and commit from
/// each origin.
#[test]
fn origins_differ() {
    let granted = grant(3, &device(1), 1);
    let commit = sign(commit_of((3, 1), CommitHash::ZERO, &[], 1));
    let fence = |lane: &Lane, granted: &Grant| {
        let event = Event::Fence { lease: granted.lease };
        lane.handle(&seeder(0), granted, device(1).public(), event).unwrap()
    };
    let of = |origin| Lane::new(lane_key(0), LaneRow::new(origin, ROOM, None));
    assert!(matches!(fence(&founder(), &granted).answer, Answer::Fenced { .. }));
    let later_holder = Grant { first_holder: false, ..granted.clone() };
    assert_eq!(fence(&founder(), &later_holder).answer, Answer::Silent);
    let mut joiner = of(Origin::Joiner);
    let step = fence(&joiner, &granted);
    assert!(step.update.is_some(), "the promise holds though nothing is told");
    assert_eq!(joiner.apply(step), Answer::Silent);
    let step = ask(&joiner, &granted, &[&commit], LaneChange::default()).unwrap();
    joiner.apply(step);
    assert!(matches!(fence(&joiner, &granted).answer, Answer::Fenced { .. }));
    let mut lost = of(Origin::Lost { floor: lease(3) });
    let refused = ask(&lost, &granted, &[&commit], LaneChange::default());
    assert_eq!(refused.err(), Some(Refusal::Lost { floor: lease(3) }));
    let next = sign(commit_of((4, 1), commit.commit.hash(), &[], 1));
    let step = ask(&lost, &grant(4, &device(1), 1), &[&next], LaneChange::default()).unwrap();
    lost.apply(step);
    assert_eq!(lost.newest().unwrap().0, &next);
}

/// Goal: only the newest commits are kept, and forgetting reaches the disk. Method: one more than the limit.
#[test]
fn commits_kept_are_bounded() {
    let (granted, mut lane) = (grant(1, &device(1), 1), founder());
    let (mut previous, mut forgotten) = (CommitHash::ZERO, 0);
    for n in 0..COMMIT_CHAIN_MAX as u64 + 3 {
        let signed = sign(commit_of((1, n + 1), previous, &[], 1));
        previous = signed.commit.hash();
        let step = ask(&lane, &granted, &[&signed], LaneChange::default()).unwrap();
        forgotten += step.update.as_ref().unwrap().forget.len();
        lane.apply(step);
    }
    assert_eq!(forgotten, 3);
    assert_eq!(lane.commits_from(&previous).len(), COMMIT_CHAIN_MAX);
}

/// Goal: a promise binds whatever the ledger here says later. Method: fence under one lease, then show a ledger that went
/// back to the one before.
#[test]
fn fence_outlives_the_ledger() {
    let (old, new) = (grant(1, &device(1), 1), grant(2, &device(2), 1));
    let mut lane = founder();
    let fence = Event::Fence { lease: lease(2) };
    let step = lane.handle(&seeder(0), &new, device(2).public(), fence).unwrap();
    lane.apply(step);
    let commit = sign(commit_of((1, 1), CommitHash::ZERO, &[], 1));
    let refused = ask(&lane, &old, &[&commit], LaneChange::default());
    assert_eq!(refused.err(), Some(Refusal::Fenced { lease: lease(1), served: lease(2) }));
}

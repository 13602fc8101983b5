//! Changes of a lane that are too long for one message, and slices that come with their commit.

use bytes::Bytes as Buffer;
use tallow_types::commit::{Countersignature, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{BATCH_SLICES_MAX, COMMIT_CHANGES_MAX};
use tallow_types::sign::Keypair;
use tallow_types::wire::{Request, Response};
use tallow_types::{Bounded, CommitHash, ContractId, LeafIndex, SlotIndex};

use super::world::*;

const SLOT: SlotIndex = SlotIndex::new(0);

/// Leaves from one number to another: every fourth has a slice, the others were dropped by the time.
fn numbers(range: std::ops::Range<u64>) -> Vec<Option<u64>> {
    range.map(|number| (number % 4 == 3).then_some(number)).collect()
}

async fn stage(world: &World, contract: ContractId, from: u64, numbers: &[Option<u64>]) -> Result<(), Fault> {
    let leaves = numbers.iter().map(|number| number.map(|number| slice(number).0)).collect();
    let (keep, from) = (LeafIndex::ZERO, LeafIndex::new(from));
    let leaves = Bounded::new(leaves).expect("a page");
    let request = Request::Stage { contract, slot: SLOT, keep, from, leaves };
    world.ask(0, request).await.map(|answer| assert_eq!(answer, Response::Staged))
}

/// Shows a commit whose last leaf is the slice of `carried`, which goes with it.
async fn show(
    world: &World,
    signed: &SignedCommit,
    staged: bool,
    appended: &[u64],
    carried: u64,
) -> Result<Countersignature, Fault> {
    let (leaf, bytes) = slice(carried);
    let (chain, slices) = (Bounded::new(vec![signed.clone()]).unwrap(), Bounded::new(vec![leaf]).unwrap());
    let request = Request::Commit { slot: SLOT, chain, change: change(0, &[], appended), staged, slices };
    match world.ask_as(&world.line, 0, request, bytes.into()).await?.response {
        Response::Countersigned { signature } => Ok(signature),
        other => panic!("another answer: {other:?}"),
    }
}

/// Goal: a seeder takes a lane of more leaves than one message holds, and what it keeps of it survives a restart. Method: one
/// page after the other and a commit with the last slice; a gap, a stranger, a later lease, and the same question again.
#[tokio::test]
async fn long_changes_come_in_pages() {
    let mut world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let count = COMMIT_CHANGES_MAX as u64 + 100;
    let all = numbers(0..count);
    let here: Vec<u64> = all.iter().flatten().copied().collect();
    let (last, before) = here.split_last().expect("some");
    for batch in before.chunks(BATCH_SLICES_MAX) {
        world.store(0, contract, batch).await.unwrap();
    }
    let signed = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &all));
    let refused = show(&world, &signed, true, &[*last], *last).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit, "nothing was staged");
    let (first, second) = all[..all.len() - 1].split_at(5_000);
    stage(&world, contract, 0, first).await.unwrap();
    assert_eq!(stage(&world, contract, 5_001, second).await.unwrap_err().code(), Code::WrongCommit, "a gap");
    stage(&world, contract, 5_000, second).await.unwrap();

    let stranger = world.twin.join(Keypair::from_seed(&[9; 32]).public(), None);
    let (keep, from) = (LeafIndex::ZERO, LeafIndex::ZERO);
    let page = Request::Stage { contract, slot: SLOT, keep, from, leaves: Bounded::empty() };
    let refused = world.ask_as(&stranger, 0, page, Buffer::new()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Forbidden);

    let later = world.lease(contract).await;
    let signed = world.sign(commit(contract, later, 1, CommitHash::ZERO, &all));
    let refused = show(&world, &signed, true, &[*last], *last).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit, "pages go with their lease");
    stage(&world, contract, 0, first).await.unwrap();
    stage(&world, contract, 5_000, second).await.unwrap();
    let answer = show(&world, &signed, true, &[*last], *last).await.unwrap();
    assert_eq!(show(&world, &signed, true, &[*last], *last).await.unwrap(), answer, "the same again");

    world.twin.kill(world.key_of(0));
    world.seeders.remove(0);
    let seeder = world.start_seeder(0);
    assert_eq!(seeder.adopt().unwrap(), 0);
    assert_eq!(world.lane(0, contract).await.unwrap().newest.unwrap().0, signed);
    let more = world.sign(commit(contract, later, 2, signed.commit.hash(), &numbers(0..count)));
    let nothing = change(count, &[], &[]);
    world.countersign(0, std::slice::from_ref(&more), nothing).await.unwrap();
}

/// Goal: what comes with a commit is kept with it or refused with it. Method: a slice that the commit does not name, wrong
/// bytes, a commit that does not follow; then the right one, read back.
#[tokio::test]
async fn slices_come_with_their_commit() {
    let world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let signed = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    let code = |outcome: Result<Countersignature, Fault>| outcome.unwrap_err().code();
    assert_eq!(code(show(&world, &signed, false, &[1], 2).await), Code::Malformed);
    let stray = world.sign(commit(contract, lease, 2, CommitHash::ZERO, &[Some(1)]));
    show(&world, &signed, false, &[1], 1).await.unwrap();
    assert_eq!(code(show(&world, &stray, false, &[1], 1).await), Code::WrongCommit);
    let (leaf, bytes) = slice(1);
    let read = Request::Read { contract, slot: SLOT, stripe: leaf.stripe, offset: 0, length: leaf.length };
    let reply = world.ask_as(&world.line, 0, read, Buffer::new()).await.unwrap();
    assert_eq!(reply.payload, bytes);
}

//! What a seeder takes on, and what it may say of a lane that it does not know from the beginning.

use tallow_ledger::record::Phase;
use tallow_types::fault::Code;
use tallow_types::params::Params;
use tallow_types::tx::Action;
use tallow_types::wire::{Request, Response};
use tallow_types::{Bounded, CommitHash, Fuel, SlotIndex};

use super::world::*;

const SLOT: SlotIndex = SlotIndex::new(0);

/// Goal: a seeder that lost its folder is not talked into "I never signed" while its ledger is old. Method: ask it to
/// accept before it has compared its lanes with the ledger, and after.
#[tokio::test]
async fn nothing_is_accepted_before_the_ledger_is_known() {
    let mut world = World::new(1).await;
    world.twin.kill(world.key_of(0));
    world.seeders.remove(0);
    std::fs::remove_dir_all(world.seeder_dir(0)).unwrap();
    let seeder = world.start_seeder(0);
    let accept = || Request::Accept { terms: world.terms(0), slot: SLOT };
    assert_eq!(world.ask(0, accept()).await.unwrap_err().code(), Code::Behind);
    assert_eq!(seeder.adopt().unwrap(), 0);
    assert!(matches!(world.ask(0, accept()).await, Ok(Response::Accepted(_))));
}

/// Goal: a seeder that comes back to a slot does not vote with what it knew when it left. Method: sign, lose the slot,
/// let another hold it, come back; ask for a fence before and after the next commit.
#[tokio::test]
async fn who_comes_back_to_a_slot_is_silent() {
    let world = World::new(5).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    world.store(0, contract, &[1]).await.unwrap();
    world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();
    for (leaves, joins) in [(0, 4), (4, 0)] {
        let seeder = world.seeders[leaves].id();
        world.submit(Action::End { contract, slot: SLOT, seeder }).await.unwrap();
        world.handle.tick(1).await.unwrap();
        let Response::Accepted(accepted) =
            world.ask(joins, Request::Accept { terms: world.terms(0), slot: SLOT }).await.unwrap()
        else {
            panic!("accepted");
        };
        let acceptances = Bounded::new(vec![accepted]).unwrap();
        world.submit(Action::Fill { contract, acceptances }).await.unwrap();
    }
    let later = world.lease(contract).await;
    let fence = |lease| Request::Fence { contract, slot: SLOT, lease };
    assert_eq!(world.ask(0, fence(later)).await.unwrap_err().code(), Code::NotFound, "silent");
    let last = world.lease(contract).await;
    assert_eq!(world.ask(0, fence(last)).await.unwrap_err().code(), Code::NotFound, "still silent");
    let next = world.sign(commit(contract, last, 1, first.commit.hash(), &[Some(1)]));
    world.countersign(0, std::slice::from_ref(&next), change(1, &[], &[])).await.unwrap();
    let Response::Fenced { fence, .. } = world.ask(0, fence(last)).await.unwrap() else { panic!("fenced") };
    assert_eq!(fence.newest, next.commit.hash());
}

/// Goal: a contract that can't pay for a notice does not grow, keeps what it has, and grows again once refuelled. Method:
/// fuel for one notice of empty lanes, epochs until it is used up, then more fuel.
#[tokio::test]
async fn nothing_grows_without_fuel() {
    let world = World::new(4).await;
    let notice = Fuel::new(Params::dev().lane_fee_min.get() * 4 * u128::from(terms().notice.get()));
    let contract = world.open_with(4, notice).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    world.store(0, contract, &[1, 2]).await.unwrap();
    world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();
    let second = world.sign(commit(contract, lease, 2, first.commit.hash(), &[Some(1), Some(2)]));
    let mut phases = Vec::new();
    for _ in 0..12 {
        world.handle.tick(1).await.unwrap();
        let record = world.contract(contract);
        phases.push(record.phase);
        if record.fuel.checked_add(record.escrow).unwrap() < notice {
            let stored = world.store(0, contract, &[3]).await;
            assert_eq!(stored.unwrap_err().code(), Code::NoFuel);
            let signed = world.countersign(0, std::slice::from_ref(&second), change(1, &[], &[2])).await;
            assert_eq!(signed.unwrap_err().code(), Code::NoFuel);
        }
    }
    assert_eq!(phases.last(), Some(&Phase::Embers), "the fuel was used up");
    let (leaf, bytes) = slice(1);
    let read = Request::Read { contract, slot: SLOT, stripe: leaf.stripe, offset: 0, length: leaf.length };
    let reply = world.ask_as(&world.line, 0, read, bytes::Bytes::new()).await.unwrap();
    assert_eq!(reply.payload, bytes);
    world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();
    world.submit(Action::Refuel { contract, amount: Fuel::ONE }).await.unwrap();
    world.handle.tick(1).await.unwrap();
    world.store(0, contract, &[2, 3]).await.unwrap();
    world.countersign(0, std::slice::from_ref(&second), change(1, &[], &[2])).await.unwrap();
}

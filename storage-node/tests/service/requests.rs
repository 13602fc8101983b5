//! What clients ask of a seeder, and what it must refuse.

use bytes::Bytes as Buffer;
use tallow_ledger::key;
use tallow_net::Transport;
use tallow_types::commit::LaneChange;
use tallow_types::fault::Code;
use tallow_types::limits::{REQUESTS_BEHIND_MAX, REQUESTS_WAITING_MAX};
use tallow_types::sign::Keypair;
use tallow_types::tx::Action;
use tallow_types::wire::{Request, Response};
use tallow_types::{
    Bounded, BoundedBytes, Bytes, ChainId, CommitHash, DurationMs, Height, LeafIndex, Lease, SlotIndex,
};

use super::world::*;

const SLOT: SlotIndex = SlotIndex::new(0);

/// Goal: the whole life of a slice: stored, committed, read, posted, dropped, freed. Method: one contract, step by step.
#[tokio::test]
async fn slices_live_and_die_with_their_commits() {
    let world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1), Some(2)]));
    let mut signatures = Vec::new();
    for n in 0..4 {
        let missing = world.countersign(n, std::slice::from_ref(&first), change(0, &[], &[1, 2])).await;
        assert_eq!(missing.unwrap_err().code(), Code::MissingSlices);
        world.store(n, contract, &[1, 2]).await.unwrap();
        world.store(n, contract, &[1, 2]).await.unwrap();
        let signed =
            world.countersign(n, std::slice::from_ref(&first), change(0, &[], &[1, 2])).await.unwrap();
        signed.verify(&world.chain.id(), &first.commit).unwrap();
        let again = world.countersign(n, std::slice::from_ref(&first), change(0, &[], &[1, 2])).await;
        assert_eq!(again.unwrap(), signed, "the same question has the same answer");
        signatures.push(signed);
    }
    let (leaf, bytes) = slice(2);
    let read = Request::Read { contract, slot: SLOT, stripe: leaf.stripe, offset: 5, length: 100 };
    let reply = world.ask_as(&world.line, 0, read, Buffer::new()).await.unwrap();
    assert_eq!(reply.payload, bytes[5..105]);
    let state = world.lane(0, contract).await.unwrap();
    assert_eq!(state.bytes, Bytes::new(2 * u64::from(leaf.length)));
    assert_eq!(state.newest.unwrap(), (first.clone(), signatures[0]));
    let leaves = Request::Leaves { contract, slot: SLOT, from: LeafIndex::new(1) };
    let Response::Leaves { leaves } = world.ask(0, leaves).await.unwrap() else { panic!("leaves") };
    assert_eq!(leaves.into_vec(), vec![Some(leaf)]);
    world.post(first.clone(), signatures).await;
    world.handle.tick(1).await.unwrap();
    assert_eq!(world.contract(contract).active.unwrap().hash, first.commit.hash());

    let second = world.sign(commit(contract, lease, 2, first.commit.hash(), &[None, Some(2)]));
    let mut signatures = Vec::new();
    for n in 0..4 {
        signatures
            .push(world.countersign(n, std::slice::from_ref(&second), change(2, &[0], &[])).await.unwrap());
    }
    let commits = Request::Commits { contract, slot: SLOT, from: second.commit.hash() };
    let Response::Commits { commits } = world.ask(0, commits).await.unwrap() else { panic!("commits") };
    assert_eq!(commits.into_vec(), vec![second.clone(), first]);
    let seeder = &world.seeders[0];
    assert_eq!(seeder.sweep().unwrap().slices, 0, "the commit that drops it is not on the ledger");
    world.post(second, signatures).await;
    assert_eq!(seeder.sweep().unwrap().slices, 0, "it is not active");
    world.handle.tick(1).await.unwrap();
    assert_eq!(seeder.sweep().unwrap().slices, 0, "the last window on the old root is open");
    world.handle.tick(1).await.unwrap();
    assert_eq!(seeder.sweep().unwrap().slices, 1);
    let (gone, _) = slice(1);
    let read = Request::Read { contract, slot: SLOT, stripe: gone.stripe, offset: 0, length: 1 };
    assert_eq!(world.ask(0, read).await.unwrap_err().code(), Code::NotFound);
}

/// Goal: only the holder of the lease writes. Method: a stranger, a former holder, a lease to come.
#[tokio::test]
async fn only_the_lease_holder_writes() {
    let world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let stranger = Keypair::from_seed(&[9; 32]);
    let line = world.twin.join(stranger.public(), None);
    let (leaf, bytes) = slice(1);
    let store = |slot| Request::Store { contract, slot, slices: Bounded::new(vec![leaf]).unwrap() };
    let code = |outcome: Result<tallow_net::Reply, tallow_types::fault::Fault>| outcome.unwrap_err().code();
    let refused = world.ask_as(&line, 0, store(SLOT), bytes.clone().into()).await;
    assert_eq!(code(refused), Code::Forbidden);
    let fence = |lease| Request::Fence { contract, slot: SLOT, lease };
    assert_eq!(code(world.ask_as(&line, 0, fence(lease), Buffer::new()).await), Code::Forbidden);
    let to_come = Lease { counter: lease.counter + 1, ..lease };
    assert_eq!(world.ask(0, fence(to_come)).await.unwrap_err().code(), Code::Behind);
    let Response::Fenced { fence: promise, signature, lane } = world.ask(0, fence(lease)).await.unwrap()
    else {
        panic!("fenced");
    };
    assert_eq!((promise.lease, promise.newest, lane.fenced), (lease, CommitHash::ZERO, lease));
    tallow_types::sign::verify(&world.chain.id(), &world.key_of(0), &promise, &signature).unwrap();
    let later = world.lease(contract).await;
    assert!(later > lease);
    assert_eq!(world.ask(0, fence(lease)).await.unwrap_err().code(), Code::Fenced);
    let old = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[]));
    let refused = world.countersign(0, &[old], LaneChange::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Fenced);
    world.submit(Action::Release { contract, device: world.device.public() }).await.unwrap();
    let refused = world.store(0, contract, &[1]).await;
    let code = refused.unwrap_err().code();
    assert_eq!(code, Code::Behind, "a lease that was given back serves nobody; the next may be on its way");
}

/// Goal: bad requests get their own fault and change nothing. Method: a table.
#[tokio::test]
async fn bad_requests_are_named() {
    let world = World::new(4).await;
    let contract = world.open(3).await;
    let (leaf, bytes) = slice(1);
    let slices = Bounded::new(vec![leaf]).unwrap();
    let store = Request::Store { contract, slot: SLOT, slices };
    let code = |outcome: Result<tallow_net::Reply, tallow_types::fault::Fault>| outcome.unwrap_err().code();
    let send = async |payload: Vec<u8>| world.ask_as(&world.line, 0, store.clone(), payload.into()).await;
    assert_eq!(code(send(bytes[1..].to_vec()).await), Code::Malformed);
    let flipped = bytes.iter().map(|byte| byte ^ 1).collect();
    assert_eq!(code(send(flipped).await), Code::WrongBytes);
    assert_eq!(world.lane(0, contract).await.unwrap().bytes, Bytes::ZERO);
    let elsewhere = Request::Hello { chain: ChainId::new([9; 32]) };
    assert_eq!(world.ask(0, elsewhere).await.unwrap_err().code(), Code::WrongChain);
    let unknown = world.lane(3, contract).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let not_held = world.store(3, contract, &[1]).await;
    assert_eq!(not_held.unwrap_err().code(), Code::Behind);
    let lease = world.contract(contract).lease.last;
    let forged = Keypair::from_seed(&[9; 32]);
    let forged = commit(contract, lease, 1, CommitHash::ZERO, &[]).sign(&world.chain.id(), &forged);
    let refused = world.countersign(0, &[forged], LaneChange::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit);
    let read = Request::Read { contract, slot: SLOT, stripe: leaf.stripe, offset: 0, length: 1 };
    assert_eq!(world.ask(0, read).await.unwrap_err().code(), Code::NotFound);
}

/// Goal: a slot is accepted inside price and room only, and what the ledger reserved is not promised again. Method: ask
/// above each.
#[tokio::test]
async fn acceptance_is_bounded() {
    let world = World::new(4).await;
    let accept = async |terms: tallow_types::contract::Terms, slot: u8| {
        world.ask(0, Request::Accept { terms, slot: SlotIndex::new(slot) }).await
    };
    let fair = world.terms(1);
    let cheap = tallow_types::contract::Terms {
        price_ceiling: tallow_types::FuelPerMibEpoch::new(PRICE.get() - 1),
        ..fair.clone()
    };
    assert_eq!(accept(cheap, 0).await.unwrap_err().code(), Code::Refused);
    assert_eq!(accept(fair.clone(), 4).await.unwrap_err().code(), Code::Malformed);
    let huge = tallow_types::contract::Terms { room: Bytes::new((64 << 20) + 1), ..fair.clone() };
    assert_eq!(accept(huge, 0).await.unwrap_err().code(), Code::DiskFull);
    world.open(4).await;
    let left = (64 << 20) - ROOM.get();
    let more = tallow_types::contract::Terms { room: Bytes::new(left + 1), ..fair.clone() };
    assert_eq!(accept(more, 0).await.unwrap_err().code(), Code::DiskFull);
    let all = tallow_types::contract::Terms { room: Bytes::new(left), ..fair.clone() };
    assert!(matches!(accept(all.clone(), 0).await, Ok(Response::Accepted(_))));
    assert!(matches!(accept(all.clone(), 1).await, Ok(Response::Accepted(_))), "the same contract again");
}

/// Goal: asking for free takes no room and closes no door. Method: a stranger has all room accepted many times over, then
/// an owner opens a contract, which begins as a new one.
#[tokio::test]
async fn idle_acceptances_take_nothing() {
    let world = World::new(4).await;
    let stranger = world.twin.join(Keypair::from_seed(&[9; 32]).public(), None);
    for index in 1..=300 {
        let terms = tallow_types::contract::Terms { room: Bytes::new(60 << 20), ..world.terms(index) };
        let request = Request::Accept { terms, slot: SLOT };
        world.ask_as(&stranger, 0, request, Buffer::new()).await.unwrap();
    }
    assert!(world.seeders[0].store().lanes().unwrap().is_empty(), "nothing was written");
    let contract = world.open(4).await;
    world.seeders[1].sweep().unwrap();
    assert_eq!(world.seeders[1].store().lanes().unwrap().len(), 1, "the ledger has it: so has the disk");
    let lease = world.contract(contract).lease.last;
    for n in 0..2 {
        let fence = Request::Fence { contract, slot: SlotIndex::new(n), lease };
        assert!(matches!(world.ask(n, fence).await, Ok(Response::Fenced { .. })));
    }
}

/// Goal: a seeder that lost its folder never signs again in a lease in which it may have signed, and comes back with the
/// next. Method: commit, lose the folder, ask in the same lease, then in a new one.
#[tokio::test]
async fn lost_records_are_not_guessed() {
    let mut world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    world.store(0, contract, &[1]).await.unwrap();
    world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();

    world.twin.kill(world.key_of(0));
    world.seeders.remove(0);
    std::fs::remove_dir_all(world.seeder_dir(0)).unwrap();
    let seeder = world.start_seeder(0);
    world.store(0, contract, &[1]).await.unwrap();
    let fence = |lease| Request::Fence { contract, slot: SLOT, lease };
    assert_eq!(world.ask(0, fence(lease)).await.unwrap_err().code(), Code::Behind, "before it has looked");
    assert_eq!(seeder.adopt().unwrap(), 1);
    assert_eq!(world.ask(0, fence(lease)).await.unwrap_err().code(), Code::NotFound);
    let other = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[]));
    let refused = world.countersign(0, &[other], LaneChange::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit);

    let later = world.lease(contract).await;
    assert_eq!(world.ask(0, fence(later)).await.unwrap_err().code(), Code::NotFound, "still silent");
    let next = world.sign(commit(contract, later, 1, first.commit.hash(), &[Some(1)]));
    world.countersign(0, &[first, next.clone()], change(0, &[], &[1])).await.unwrap();
    let Response::Fenced { fence, .. } = world.ask(0, fence(later)).await.unwrap() else { panic!("fenced") };
    assert_eq!(fence.newest, next.commit.hash());
}

/// Goal: records put back from a copy are not taken for the present. Method: copy the folder, sign and post once more, put
/// the copy back, ask for another commit of that rank.
#[tokio::test]
async fn old_records_are_noticed() {
    let mut world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    let second = world.sign(commit(contract, lease, 2, first.commit.hash(), &[Some(1), Some(2)]));
    let stop = |world: &mut World| {
        world.twin.kill(world.key_of(0));
        drop(world.seeders.remove(0));
    };
    let mut signatures = Vec::new();
    for n in 0..4 {
        world.store(n, contract, &[1, 2]).await.unwrap();
        world.countersign(n, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();
        if n == 0 {
            stop(&mut world);
            copy_folder(&world.seeder_dir(0), &world.seeder_dir(100));
            let seeder = world.start_seeder(0);
            world.seeders.insert(0, seeder);
        }
        let signed = world.countersign(n, std::slice::from_ref(&second), change(1, &[], &[2])).await;
        signatures.push(signed.unwrap());
    }
    world.post(second.clone(), signatures).await;
    world.handle.tick(1).await.unwrap();
    stop(&mut world);
    std::fs::remove_dir_all(world.seeder_dir(0)).unwrap();
    copy_folder(&world.seeder_dir(100), &world.seeder_dir(0));
    let _seeder = world.start_seeder(0);
    let other = world.sign(commit(contract, lease, 2, first.commit.hash(), &[Some(1), None]));
    let emptied = LaneChange { appended: Bounded::new(vec![None]).unwrap(), ..change(1, &[], &[]) };
    let refused = world.countersign(0, &[other], emptied).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit);
    let fence = |lease| Request::Fence { contract, slot: SLOT, lease };
    assert_eq!(world.ask(0, fence(lease)).await.unwrap_err().code(), Code::NotFound);
    let later = world.lease(contract).await;
    assert_eq!(world.ask(0, fence(later)).await.unwrap_err().code(), Code::NotFound, "still silent");
    let third = world.sign(commit(contract, later, 1, second.commit.hash(), &[Some(1), Some(2)]));
    world.countersign(0, &[second, third], change(1, &[], &[2])).await.unwrap();
    assert!(matches!(world.ask(0, fence(later)).await, Ok(Response::Fenced { .. })));
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Goal: what a seeder signed survives its restart, and the same commit has the same answer. Method: restart between.
#[tokio::test]
async fn promises_survive_a_restart() {
    let mut world = World::new(4).await;
    let contract = world.open(4).await;
    let lease = world.contract(contract).lease.last;
    let first = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[Some(1)]));
    world.store(0, contract, &[1]).await.unwrap();
    let signed = world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await.unwrap();
    world.twin.kill(world.key_of(0));
    world.seeders.remove(0);
    let _seeder = world.start_seeder(0);
    let again = world.countersign(0, std::slice::from_ref(&first), change(0, &[], &[1])).await;
    assert_eq!(again.unwrap(), signed);
    let other = world.sign(commit(contract, lease, 1, CommitHash::ZERO, &[]));
    let refused = world.countersign(0, &[other], LaneChange::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::WrongCommit);
    let second = world.sign(commit(contract, lease, 2, first.commit.hash(), &[Some(1), Some(2)]));
    world.store(0, contract, &[2]).await.unwrap();
    world.countersign(0, &[second], change(1, &[], &[2])).await.unwrap();
}

/// Goal: ledger queries answer from the ledger, in pages, and wait when asked to. Method: each once.
#[tokio::test]
async fn ledger_queries_answer() {
    let world = World::new(4).await;
    let contract = world.open(4).await;
    let keys =
        vec![BoundedBytes::new(key::contract(&contract)).unwrap(), BoundedBytes::new(vec![0]).unwrap()];
    let Response::State { height, values } =
        world.ask(0, Request::State { keys: Bounded::new(keys).unwrap() }).await.unwrap()
    else {
        panic!("state");
    };
    assert_eq!(height, world.chain.status().height);
    assert!(values[0].is_some() && values[1].is_none());
    let prefix = BoundedBytes::new(key::SEEDERS.to_vec()).unwrap();
    let scan = Request::Scan { prefix, after: BoundedBytes::empty() };
    let Response::Scan { records, more, .. } = world.ask(0, scan).await.unwrap() else { panic!("scan") };
    assert_eq!((records.len(), more), (4, false));
    let above = world.chain.status().height;
    let wait = Request::Status { above, wait: DurationMs::new(60_000) };
    let (later, ticked) = tokio::join!(world.ask(0, wait), world.handle.tick(1));
    ticked.unwrap();
    let Response::Status(later) = later.unwrap() else { panic!("status") };
    assert!(later.height > above);
    let blocks = Request::Blocks { from: Height::new(1), wait: DurationMs::ZERO };
    let reply = world.ask_as(&world.line, 0, blocks, Buffer::new()).await.unwrap();
    let Response::Blocks { lengths } = reply.response else { panic!("blocks") };
    let total: usize = lengths.iter().map(|length| *length as usize).sum();
    assert!(lengths.len() > 3 && total == reply.payload.len());
    let Response::Snapshot { pieces, .. } =
        world.ask(0, Request::Snapshot { height: Height::ZERO, piece: 0 }).await.unwrap()
    else {
        panic!("snapshot");
    };
    assert!(pieces >= 1);
    let Response::Ticked { .. } = world.ask(0, Request::Tick { epochs: 1 }).await.unwrap() else {
        panic!("tick")
    };
}

/// Goal: one request more than a node has places for is told to come back, and the others are served. Method: fill all
/// places with requests that wait for a block, then make one.
#[tokio::test]
async fn places_are_bounded() {
    let world = World::new(1).await;
    let line = std::sync::Arc::new(world.twin.join(Keypair::from_seed(&[9; 32]).public(), None));
    let above = world.chain.status().height;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..=REQUESTS_WAITING_MAX {
        let (line, peer) = (line.clone(), tallow_net::twin::Twin::peer(world.key_of(0)));
        let wait = Request::Status { above, wait: DurationMs::new(60_000) };
        calls.spawn(async move { line.call(&peer, wait, Buffer::new()).await });
    }
    let first = calls.join_next().await.unwrap().unwrap();
    assert_eq!(first.unwrap_err().code(), Code::Busy);
    world.handle.tick(1).await.unwrap();
    while let Some(call) = calls.join_next().await {
        assert!(call.unwrap().is_ok());
    }
}

/// Goal: strangers who ask for what is on no ledger keep nobody out. Method: more such requests than there are places of
/// any kind, then the owner stores, while they wait. Each of them takes a place for the moment of one look, so the owner,
/// who comes in the middle of it, may have to ask again.
#[tokio::test]
async fn strangers_take_no_place_on_the_disk() {
    let world = World::new(4).await;
    let contract = world.open(4).await;
    let line = std::sync::Arc::new(world.twin.join(Keypair::from_seed(&[9; 32]).public(), None));
    let invented = tallow_types::ContractId::new([9; 32]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..=REQUESTS_BEHIND_MAX {
        let (line, peer) = (line.clone(), tallow_net::twin::Twin::peer(world.key_of(0)));
        let fence = Request::Fence { contract: invented, slot: SLOT, lease: Lease::NONE };
        calls.spawn(async move { line.call(&peer, fence, Buffer::new()).await });
    }
    let first = calls.join_next().await.unwrap().unwrap();
    assert_ne!(first.unwrap_err().code(), Code::Internal);
    while let Err(fault) = world.store(0, contract, &[1]).await {
        assert_eq!(fault.code(), Code::Busy);
        tokio::task::yield_now().await;
    }
    while calls.try_join_next().is_some() {}
    assert!(!calls.is_empty(), "strangers still wait, and the owner has stored");
    calls.shutdown().await;
}

/// Goal: a seeder's message is due once an epoch, only in the window and only with a lane. Method: walk through epochs.
#[tokio::test]
async fn epoch_proofs_are_due_once() {
    let world = World::new(4).await;
    assert!(world.seeders[0].proof(None).unwrap().is_none(), "no lane, no proof");
    world.open(4).await;
    world.handle.tick(1).await.unwrap();
    let proof = world.seeders[0].proof(None).unwrap().expect("the beacon is known, the window open");
    let epoch = proof.proof.epoch;
    world.handle.prove(proof).await.unwrap();
    assert!(world.seeders[0].proof(Some(epoch)).unwrap().is_none());
    world.handle.tick(1).await.unwrap();
    assert!(world.seeders[0].proof(Some(epoch)).unwrap().is_some());
}

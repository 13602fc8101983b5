//! Posting commits.

use tallow_ledger::refusal::CommitRefusal as No;
use tallow_ledger::{Refusal, light};
use tallow_types::commit::CommitCertificate;
use tallow_types::tx::Action;
use tallow_types::{Bounded, Bytes, ContractId, Lease, SlotIndex};

use crate::world::{MIB, ROOM, World, keypair, seeder_key};

const DEVICE: u8 = 10;

fn leased() -> (World, ContractId, Lease) {
    let mut world = World::with_asks(6);
    let contract = world.open(0, &[0, 1, 2, 3], 100 << 40);
    let lease = world.take_lease(contract, DEVICE);
    (world, contract, lease)
}

fn post(world: &mut World, certificate: &CommitCertificate) {
    let tx = world.tx(1, Action::Post(certificate.clone()));
    world.pass(vec![tx]);
}

fn refused(world: &mut World, certificate: &CommitCertificate) -> No {
    let tx = world.tx(1, Action::Post(certificate.clone()));
    match world.refused(tx) {
        Refusal::Commit(reason) => reason,
        other => panic!("{other}"),
    }
}

fn bytes_of(world: &World, contract: ContractId) -> Vec<u64> {
    world.contract(&contract).lanes().map(|(_, lane)| lane.bytes.get()).collect()
}

/// Goal: a commit is pending until the boundary, then active; lanes that did not sign stay bound to what they signed and
/// are paid for no more than both commits name; more countersignatures catch them up. Method: three commits, one signer
/// missing from the second, which drops bytes.
#[test]
fn commits_become_active_at_the_boundary() {
    let (mut world, contract, lease) = leased();
    let first = world.certificate(world.commit(contract, lease, 1, &[4 * MIB; 4]), DEVICE, &[0, 1, 2, 3]);
    post(&mut world, &first);
    let record = world.contract(&contract);
    assert_eq!((record.active, record.pending.unwrap().hash), (None, first.signed.commit.hash()));
    assert_eq!(bytes_of(&world, contract), [0; 4]);
    assert_eq!(light::newest_certificate(&world.state, &contract).unwrap(), Some(first.clone()));
    world.pass_epoch(&[0, 1, 2, 3]);
    assert_eq!(bytes_of(&world, contract), [4 * MIB; 4]);
    let record = world.contract(&contract);
    assert_eq!((record.active.unwrap().hash, record.pending), (first.signed.commit.hash(), None));

    let second = world.commit(contract, lease, 2, &[9 * MIB, 9 * MIB, 9 * MIB, 3 * MIB]);
    let three = world.certificate(second.clone(), DEVICE, &[0, 1, 2]);
    post(&mut world, &three);
    world.pass_epoch(&[0, 1, 2, 3]);
    assert_eq!(
        bytes_of(&world, contract),
        [9 * MIB, 9 * MIB, 9 * MIB, 3 * MIB],
        "dropped bytes earn nothing"
    );
    let lane = *world.contract(&contract).lane(SlotIndex::new(3)).unwrap();
    assert_eq!((lane.root, lane.signed), (first.signed.commit.slots[3].root, first.signed.commit.rank()));

    let late = world.certificate(second.clone(), DEVICE, &[3]);
    post(&mut world, &late);
    assert_eq!(refused(&mut world, &late), No::NothingNew);
    world.pass_epoch(&[0, 1, 2, 3]);
    let lane = *world.contract(&contract).lane(SlotIndex::new(3)).unwrap();
    assert_eq!((lane.root, lane.bytes.get()), (second.slots[3].root, 3 * MIB));
    assert_eq!(refused(&mut world, &three), No::NothingNew);
    let kept = light::newest_certificate(&world.state, &contract).unwrap().unwrap();
    assert_eq!(kept.countersignatures.len(), 4, "the ledger adds them up");
    assert!(matches!(refused(&mut world, &first), No::Stale { .. }));
}

/// Goal: only commits of the contract's shape, inside its room, acknowledged, by the lease's device, newer than what is
/// known, are taken. Method: break one thing at a time.
#[test]
fn bad_commits_are_refused() {
    let (mut world, contract, lease) = leased();
    let all = [0, 1, 2, 3];
    let good = world.commit(contract, lease, 5, &[MIB; 4]);
    let make = |world: &World, commit, signers: &[u8]| world.certificate(commit, DEVICE, signers);

    let shape = make(&world, world.commit(contract, lease, 5, &[MIB; 3]), &all);
    assert!(matches!(refused(&mut world, &shape), No::Shape { have: 3, need: 4, .. }));
    let mut wide = good.clone();
    wide.width = 5;
    let wide = make(&world, wide, &all);
    assert!(matches!(refused(&mut world, &wide), No::Shape { width: 5, .. }));
    let mut long = good.clone();
    long.leaves = tallow_types::LeafIndex::new(tallow_types::limits::LANE_LEAVES_MAX + 1);
    let long = make(&world, long, &all);
    assert!(matches!(refused(&mut world, &long), No::TooManyLeaves { .. }));
    let full = make(&world, world.commit(contract, lease, 5, &[MIB, ROOM + 1, MIB, MIB]), &all);
    let expected =
        No::NoRoom { slot: SlotIndex::new(1), bytes: Bytes::new(ROOM + 1), room: Bytes::new(ROOM) };
    assert_eq!(refused(&mut world, &full), expected);
    let other = Lease { counter: lease.counter + 1, ..lease };
    let unleased = make(&world, world.commit(contract, other, 5, &[MIB; 4]), &all);
    assert!(matches!(refused(&mut world, &unleased), No::NotLeased { .. }));
    let stranger = world.certificate(good.clone(), DEVICE + 1, &all);
    assert!(matches!(refused(&mut world, &stranger), No::NotLeased { .. }));
    let few = make(&world, good.clone(), &[0, 1]);
    assert_eq!(refused(&mut world, &few), No::NotAcknowledged { have: 2, need: 3 });
    let outsider = world.countersign(&good, 2, 5);
    let mut mixed = make(&world, good.clone(), &[0, 1]);
    mixed.countersignatures =
        Bounded::new([mixed.countersignatures.to_vec(), vec![outsider]].concat()).unwrap();
    assert_eq!(refused(&mut world, &mixed), No::NotAcknowledged { have: 2, need: 3 }, "an outsider's");
    let mut twice = make(&world, good.clone(), &[0, 1, 2]);
    twice.countersignatures[2] = twice.countersignatures[1];
    assert!(matches!(refused(&mut world, &twice), No::BadSlot { .. }));
    let mut beyond = make(&world, good.clone(), &[0, 1, 2]);
    beyond.countersignatures[2].slot = SlotIndex::new(4);
    assert!(matches!(refused(&mut world, &beyond), No::BadSlot { .. }));
}

/// Goal: a forged signature of device or seeder refuses the post. Method: flip the signatures of a good one.
#[test]
fn forged_signatures_are_refused() {
    let (mut world, contract, lease) = leased();
    let good = world.certificate(world.commit(contract, lease, 5, &[MIB; 4]), DEVICE, &[0, 1, 2]);
    let mut by_device = good.clone();
    by_device.signed.signature = good.countersignatures[0].signature;
    let mut by_seeder = good.clone();
    by_seeder.countersignatures[1].signature = good.countersignatures[0].signature;
    for forged in [by_device, by_seeder] {
        let tx = world.tx(1, Action::Post(forged));
        assert!(matches!(world.refused(tx), Refusal::Signature(_)));
    }
    post(&mut world, &good);
    let mut fork = world.commit(contract, lease, 5, &[2 * MIB; 4]);
    fork.leaves = tallow_types::LeafIndex::new(2);
    let fork = world.certificate(fork, DEVICE, &[0, 1, 2]);
    assert!(matches!(refused(&mut world, &fork), No::Conflict { .. }));
    let older = world.certificate(world.commit(contract, lease, 4, &[MIB; 4]), DEVICE, &[0, 1, 2]);
    assert!(matches!(refused(&mut world, &older), No::Stale { .. }));
    let newer = world.certificate(world.commit(contract, lease, 6, &[MIB; 4]), DEVICE, &[1, 2, 3]);
    post(&mut world, &newer);
    assert_eq!(world.contract(&contract).pending.unwrap().hash, newer.signed.commit.hash());
}

/// Goal: what was acknowledged under a lease that has passed on can still be posted while nothing newer is known.
/// Method: hand the lease over, post the old device's last commit, then the new device's, then the old one's again.
#[test]
fn commits_of_former_leases_count() {
    let (mut world, contract, lease) = leased();
    let last = world.certificate(world.commit(contract, lease, 7, &[MIB; 4]), DEVICE, &[0, 1, 2]);
    let release = world.tx(0, Action::Release { contract, device: keypair(DEVICE).public() });
    world.pass(vec![release]);
    let next = world.take_lease(contract, DEVICE + 1);
    post(&mut world, &last);
    let newer = world.commit(contract, next, 1, &[2 * MIB; 4]);
    let newer = world.certificate(newer, DEVICE + 1, &[0, 1, 2]);
    post(&mut world, &newer);
    assert!(matches!(refused(&mut world, &last), No::Stale { .. }));
}

/// Goal: what a seeder signed before its lane ended counts for the acknowledgement, but its successor's lane is bound
/// and paid only by what the successor signs. Method: end a lane, fill the slot, post the old certificate, then add the
/// successor's.
#[test]
fn former_holders_count_once() {
    let (mut world, contract, lease) = leased();
    let commit = world.commit(contract, lease, 1, &[MIB; 4]);
    let certificate = world.certificate(commit.clone(), DEVICE, &[0, 1, 2]);
    let seeder = seeder_key(0).public().seeder();
    let end = world.tx(0, Action::End { contract, slot: SlotIndex::new(0), seeder });
    world.pass(vec![end]);
    world.pass_epoch(&[]);
    let terms = world.terms(0, 0);
    let consent = world.sign_acceptance(world.acceptance(&terms, 0, 5), 5);
    let fill = world.tx(0, Action::Fill { contract, acceptances: Bounded::new(vec![consent]).unwrap() });
    world.pass(vec![fill]);
    post(&mut world, &certificate);
    world.pass_epoch(&[]);
    assert_eq!(bytes_of(&world, contract), [0, MIB, MIB, 0]);
    let mut caught_up = certificate.clone();
    caught_up.countersignatures = Bounded::new(vec![world.countersign(&commit, 0, 5)]).unwrap();
    post(&mut world, &caught_up);
    world.pass_epoch(&[]);
    assert_eq!(bytes_of(&world, contract), [MIB, MIB, MIB, 0]);
    let kept = light::newest_certificate(&world.state, &contract).unwrap().unwrap();
    assert_eq!(kept.countersignatures.len(), 3, "one for each slot");
    assert_eq!(kept.countersignatures[0].seeder, seeder_key(5).public().seeder());
    assert_eq!(refused(&mut world, &certificate), No::NothingNew, "the former one does not come back");
}

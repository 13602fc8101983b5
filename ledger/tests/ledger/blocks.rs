//! Blocks, time and epochs.

use tallow_ledger::block::{self, BlockEnv};
use tallow_ledger::{BlockError, DueKind, ProofRefusal, Refusal, due, execute, light, tree};
use tallow_types::block::Body;
use tallow_types::limits::BLOCK_TXS_MAX;
use tallow_types::tx::Action;
use tallow_types::{Bounded, BoundedBytes, DurationMs, Fuel, Height, Incarnation, TimeMs};

use crate::world::{World, keypair, owner, params, seeder_key};

/// Goal: each way in which a block's circumstances can be wrong has its own error. Method: change one at a time.
#[test]
fn circumstances_are_checked() {
    let world = World::new(params(), 0);
    let good = world.env(world.soon());
    let run = |env: &BlockEnv| execute(&world.state, env, &Body::default()).map(|_| ());
    assert_eq!(run(&good), Ok(()));
    let wrong = BlockEnv { height: Height::new(2), ..good };
    assert!(matches!(run(&wrong), Err(BlockError::Height { .. })));
    let wrong = BlockEnv { time: world.tip.time, ..good };
    assert!(matches!(run(&wrong), Err(BlockError::Time { .. })));
    let wrong = BlockEnv { proposer: keypair(1).public(), ..good };
    assert!(matches!(run(&wrong), Err(BlockError::Proposer(_))));
    let mut wrong = good;
    wrong.vrf[40] ^= 1;
    assert!(matches!(run(&wrong), Err(BlockError::Beacon(_))));
    let mut world = world;
    world.incarnation = Incarnation::new(3);
    world.block(Vec::new());
    let wrong = BlockEnv { incarnation: Incarnation::new(2), ..world.env(world.soon()) };
    let error = execute(&world.state, &wrong, &Body::default()).map(|_| ());
    assert!(matches!(error, Err(BlockError::Incarnation { .. })));
}

/// Goal: a header of other rules or another network is refused by name. Method: change each field.
#[test]
fn headers_are_checked() {
    let mut world = World::new(params(), 0);
    let before = world.state.clone();
    world.block(Vec::new());
    let good = world.tip.clone();
    assert_eq!(block::check_header(&before, &good), Ok(()));
    type Change = fn(&mut tallow_types::block::Header);
    let changes: [(&str, Change); 4] = [
        ("network", |h| h.chain = tallow_types::ChainId::ZERO),
        ("protocol version", |h| h.protocol += 1),
        ("validator set", |h| h.validators = tallow_types::Digest::ZERO),
        ("next validator set", |h| h.next_validators = tallow_types::Digest::ZERO),
    ];
    for (field, change) in changes {
        let mut header = good.clone();
        change(&mut header);
        assert_eq!(block::check_header(&before, &header), Err(BlockError::Header { field }));
    }
}

/// Goal: a body with one item that is refused is no block. Method: execute bodies that no honest proposer builds.
#[test]
fn bad_items_make_no_block() {
    let mut world = World::with_asks(1);
    let tx = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::MAX });
    let env = world.env(world.soon());
    let body = Body { transactions: Bounded::new(vec![tx]).unwrap(), ..Body::default() };
    let error = execute(&world.state, &env, &body).map(|_| ());
    let Err(BlockError::Transaction { refusal, .. }) = error else { panic!("{error:?}") };
    assert!(matches!(*refusal, Refusal::Funds { .. }));
    let body = Body { proofs: Bounded::new(vec![world.proof(0)]).unwrap(), ..Body::default() };
    let error = execute(&world.state, &env, &body).map(|_| ());
    assert!(matches!(error, Err(BlockError::Proof { refusal: ProofRefusal::NoLanes { .. }, .. })));
}

/// Goal: what does not fit waits for the next block, and what is built is inside the limits. Method: one transaction
/// more than a block takes, then certificates until the bytes are used up.
#[test]
fn overflow_is_left_for_the_next_block() {
    let mut world = World::new(params(), 0);
    let txs: Vec<_> = (0..=BLOCK_TXS_MAX)
        .map(|_| world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) }))
        .collect();
    let last = txs.last().unwrap().clone();
    let built = world.block(txs);
    assert_eq!(built.body.transactions.len(), BLOCK_TXS_MAX);
    assert_eq!(built.left.0, [last]);
}

/// Goal: a body one byte above the limit is refused. Method: execute a body of large transactions.
#[test]
fn large_bodies_are_refused() {
    let mut world = World::with_asks(4);
    let contract = world.open_small(0);
    let lease = world.take_lease(contract, 10);
    let one = world.certificate(world.commit(contract, lease, 1, &[0; 4]), 10, &[0, 1, 2]);
    let mut big = one;
    let counter = big.countersignatures[0];
    big.countersignatures = Bounded::new(vec![counter; 255]).unwrap();
    let txs: Vec<_> = (0..45).map(|_| world.tx(0, Action::Post(big.clone()))).collect();
    let env = world.env(world.soon());
    let body = Body { transactions: Bounded::new(txs).unwrap(), ..Body::default() };
    let error = execute(&world.state, &env, &body).map(|_| ());
    assert!(matches!(error, Err(BlockError::TooLarge { .. })));
}

/// Goal: mandatory blocks follow each other as documented, and their beacons differ. Method: do what `due` says for
/// three epochs.
#[test]
fn due_blocks_make_epochs() {
    let mut world = World::new(params(), 0);
    let mut kinds = Vec::new();
    let mut beacons = Vec::new();
    for _ in 0..9 {
        let next = due(&world.state).unwrap();
        kinds.push(next.kind);
        world.block_at(next.at, Vec::new(), Vec::new());
        if next.kind == DueKind::Beacon {
            beacons.push(world.head().epoch.beacon.unwrap().0);
        }
    }
    let epoch = [DueKind::Gap, DueKind::Beacon, DueKind::Boundary];
    assert_eq!(kinds, [epoch, epoch, epoch].concat());
    assert_eq!(world.epoch().get(), 3);
    assert!(beacons[0] != beacons[1] && beacons[1] != beacons[2]);
    let length = world.tip.time.get() - 1_700_000_000_000;
    assert_eq!(length, 3 * params().epoch.get(), "epochs follow each other without loss");
}

/// Goal: halted time elapses nothing; a boundary that is late by less than an epoch still comes. Method: step over both
/// edges of what counts.
#[test]
fn halted_time_does_not_count() {
    let epoch = params().epoch.get();
    let mut world = World::new(params(), 0);
    world.settle_in();
    let elapsed = world.head().epoch.elapsed;
    world.block_at(world.later(2 * epoch + 1), Vec::new(), Vec::new());
    assert_eq!((world.epoch().get(), world.head().epoch.elapsed), (0, elapsed), "a halt");
    let next = due(&world.state).unwrap();
    assert_eq!(next.at.get(), world.tip.time.get() + epoch - elapsed.get(), "time counts again from here");
    world.block_at(world.later(2 * epoch), Vec::new(), Vec::new());
    assert_eq!((world.epoch().get(), world.head().epoch.elapsed), (1, DurationMs::ZERO), "late, not halted");
}

/// Goal: an epoch whose beacon comes late still has its whole window before it ends. Method: make the beacon block when
/// the epoch is over already.
#[test]
fn late_beacons_leave_the_window_whole() {
    let (epoch, window) = (params().epoch.get(), params().window.get());
    let mut world = World::new(params(), 0);
    world.block(Vec::new());
    world.block_at(world.later(epoch + 500), Vec::new(), Vec::new());
    assert!(world.head().epoch.is_open(&world.params));
    let next = due(&world.state).unwrap();
    assert_eq!((next.kind, next.at), (DueKind::Boundary, world.later(window)));
    world.block_at(world.later(window - 1), Vec::new(), Vec::new());
    assert_eq!(world.epoch().get(), 0, "a moment before");
    world.block(Vec::new());
    assert_eq!(world.epoch().get(), 1);
}

/// Goal: an epoch doesn't end before its due contracts are settled. Method: one contract a block, more of them than the
/// mandatory blocks settle, and a whole epoch's time.
#[test]
fn unsettled_epochs_do_not_end() {
    let rules = tallow_types::params::Params { settle_per_block: 1, ..params() };
    let mut world = World::with_asks_under(rules, 3);
    for index in 0..5 {
        world.open_small(index);
    }
    world.block_at(due(&world.state).unwrap().at, Vec::new(), Vec::new());
    world.block(Vec::new());
    world.block(Vec::new());
    assert_eq!(due(&world.state).unwrap().kind, DueKind::Settle, "three of five are settled");
    world.block_at(world.later(params().epoch.get()), Vec::new(), Vec::new());
    assert_eq!(world.epoch().get(), 1, "not yet");
    world.block(Vec::new());
    world.block(Vec::new());
    assert_eq!(world.epoch().get(), 2);
}

/// Goal: proofs count inside their window, once, from bonded seeders, signed. Method: each refusal at its edge.
#[test]
fn proofs_have_their_window() {
    let mut world = World::with_asks(4);
    world.open(0, &[0, 1, 2], 1 << 40);
    let refusal = |world: &mut World, proof| {
        let mut built = world.block_at(world.soon(), Vec::new(), vec![proof]);
        built.rejected_proofs.pop().expect("refused").1
    };
    let proof = world.proof(3);
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::NoLanes { .. }));
    let mut proof = world.proof(0);
    proof.signature = world.proof(1).signature;
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::Signature(_)));
    let mut proof = world.proof(0);
    proof.proof.capacity = BoundedBytes::new(vec![1]).unwrap();
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::Unasked));
    let mut proof = world.proof(0);
    proof.proof.epoch = proof.proof.epoch.next().unwrap();
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::Epoch { .. }));
    let good = world.proof(0);
    let built = world.block_at(world.soon(), Vec::new(), vec![good.clone(), good.clone()]);
    assert!(matches!(built.rejected_proofs[..], [(_, ProofRefusal::Twice { .. })]));
    assert!(matches!(refusal(&mut world, good), ProofRefusal::Twice { .. }));
    let (_, opened) = world.head().epoch.beacon.unwrap();
    let left = opened.get() + params().window.get() - world.head().epoch.elapsed.get();
    let proof = world.proof(1);
    let built = world.block_at(world.later(left), Vec::new(), vec![proof]);
    assert_eq!(built.rejected_proofs, [], "the last moment of the window");
    let proof = world.proof(2);
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::Closed { .. }));
    world.block_at(due(&world.state).unwrap().at, Vec::new(), Vec::new());
    let proof = world.proof(2);
    assert!(matches!(refusal(&mut world, proof), ProofRefusal::Closed { .. }), "no beacon yet");
}

/// Goal: what a client is shown can be proven against the header, present or absent. Method: prove an account, a
/// contract that is not there, and each with a lie.
#[test]
fn records_are_proven_against_headers() {
    let mut world = World::with_asks(1);
    world.block(Vec::new());
    let (height, root) = (world.tip.height, world.tip.state);
    let validators = light::validators(&world.state).unwrap();
    let signature = keypair(99).sign(&world.chain, &world.tip);
    assert!(light::certified(&world.tip, &signature, &validators.set).is_ok());
    let forged = keypair(1).sign(&world.chain, &world.tip);
    assert!(light::certified(&world.tip, &forged, &validators.set).is_err());
    let key = tallow_ledger::key::account(&owner(0));
    let value = world.state.get(&key).unwrap();
    let proof = tree::prove(&world.nodes, height, &key).unwrap();
    let account: Option<tallow_ledger::record::Account> =
        light::proven(&root, &key, Some(value), &proof).unwrap();
    assert_eq!(account.unwrap().balance, world.balance(&owner(0)));
    assert!(light::proven::<tallow_ledger::record::Account>(&root, &key, None, &proof).is_err());
    let key = tallow_ledger::key::seeder(&seeder_key(7).public().seeder());
    let proof = tree::prove(&world.nodes, height, &key).unwrap();
    let nobody = light::proven::<tallow_ledger::record::Seeder>(&root, &key, None, &proof).unwrap();
    assert_eq!(nobody, None);
}

/// Goal: a state that cannot be read stops the machine and never looks like a refusal. Method: damage a record.
#[test]
fn damage_is_not_a_refusal() {
    let mut world = World::new(params(), 0);
    let tx = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
    world.state.insert(tallow_ledger::key::account(&owner(0)), vec![1, 2, 3]);
    let env = world.env(world.soon());
    let built = tallow_ledger::build(&world.state, &env, vec![tx], Vec::new());
    assert!(matches!(built, Err(BlockError::Read(_))));
    world.state.remove(tallow_ledger::key::HEAD);
    assert!(due(&world.state).is_err());
    let env = BlockEnv { time: TimeMs::MAX, ..env };
    assert!(matches!(execute(&world.state, &env, &Body::default()), Err(BlockError::Read(_))));
}

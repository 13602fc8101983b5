use tallow_ledger::key as state_key;
use tallow_ledger::record::{Account, Head};
use tallow_types::block::{EpochProof, SignedEpochProof};
use tallow_types::fault::Code;
use tallow_types::limits::{TICK_EPOCHS_MAX, TX_MAX};
use tallow_types::{Bounded, Epoch, Fuel, Height, Incarnation, TimeMs, decode};

use super::*;
use crate::Clock;
use crate::chain::Chain;
use crate::testing::*;

mod crash;
mod lockstep;

fn balance(chain: &Chain, n: u8) -> Fuel {
    let bytes = chain.get(&state_key::account(&account(n))).expect("reads").expect("endowed");
    decode::<Account>(&bytes).expect("decodes").balance
}

fn epoch(runner: &Runner) -> Epoch {
    runner.chain().status().epoch
}

/// Goal: a transaction is in a block after the batching window, not before, and its retry gets the same answer.
/// Method: drive the machine by hand, time as an argument.
#[test]
fn a_transaction_gets_a_block() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    drive(&mut runner, at(0), Event::Wake);
    let before = balance(runner.chain(), 11);
    let tx = transfer(10, 11, 500, 1);
    assert_eq!(drive(&mut runner, at(100), Event::Submit(1, Box::new(tx.clone()))), []);
    let height = runner.chain().status().height;
    let answers = drive(&mut runner, at(110), Event::Wake);
    let [(1, Answer::Applied(receipt))] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((receipt.tx, receipt.height.get()), (tx.id(), height.get() + 1));
    assert_eq!(balance(runner.chain(), 11), before.checked_add(Fuel::new(500)).expect("small"));
    assert_eq!(runner.chain().receipt(&tx.core.key).expect("reads"), Some(receipt.clone()));
    drive(&mut runner, at(120), Event::Submit(2, Box::new(tx)));
    assert_eq!(drive(&mut runner, at(130), Event::Wake), [(2, Answer::Applied(receipt.clone()))]);
    assert_eq!(runner.chain().status().height, receipt.height, "a retry makes no block");
}

/// Goal: what can't be applied is refused with a reason, and makes no block. Method: more money than there is, twice
/// the same while it waits, and an encoding that is too large.
#[test]
fn refusals_are_clear() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    drive(&mut runner, at(0), Event::Wake);
    let poor = transfer(10, 11, 1 << 70, 1);
    drive(&mut runner, at(50), Event::Submit(1, Box::new(poor.clone())));
    drive(&mut runner, at(51), Event::Submit(2, Box::new(poor)));
    let height = runner.chain().status().height;
    let answers = drive(&mut runner, at(60), Event::Wake);
    assert_eq!(answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [1, 2]);
    for (_, answer) in answers {
        let Answer::Refused(fault) = answer else { panic!("{answer:?}") };
        assert_eq!(fault.code(), Code::Refused);
        assert!(!fault.text.as_str().is_empty());
    }
    assert_eq!(runner.chain().status().height, height);
    let [(3, Answer::Refused(fault))] = &drive(&mut runner, at(61), Event::Tick(3, 1))[..] else { panic!() };
    assert_eq!(fault.code(), Code::Unsupported);
}

/// Goal: boundary, gap and beacon blocks are made without being asked for, and only those. Method: let the clock run for
/// four epochs, waking the machine when it said so.
#[test]
fn epochs_pass_by_the_wall_clock() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    let (mut now, mut wakes) = (START, 0);
    while now < START + 4 * 3_000 + 100 {
        let (_, wake) = runner.handle(TimeMs::new(now), Event::Wake).expect("the disk works");
        now += u64::try_from(wake.expect("a boundary always comes").as_millis()).expect("small");
        wakes += 1;
    }
    assert_eq!(epoch(&runner), Epoch::new(4));
    let blocks = runner.chain().status().height.get();
    assert!((8..=20).contains(&blocks) && wakes <= 2 * blocks + 10, "{blocks} blocks, {wakes} wakes");
    let head: Head =
        decode(&runner.chain().get(state_key::HEAD).expect("reads").expect("there")).expect("decodes");
    assert!(head.epoch.beacon.is_some(), "the beacon of the epoch is known");
}

/// Goal: time spent halted elapses no epochs. Method: stop for 30 days in the middle of an epoch, come back, compare.
#[test]
fn halted_time_elapses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    drive(&mut runner, at(3_000), Event::Wake);
    drive(&mut runner, at(6_000), Event::Wake);
    let before = epoch(&runner);
    drop(runner);
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    let month = 30 * 24 * 3_600_000;
    drive(&mut runner, at(month), Event::Wake);
    assert_eq!(epoch(&runner), before);
    assert!(runner.chain().status().time >= at(month));
    drive(&mut runner, at(month + 3_100), Event::Wake);
    assert_eq!(epoch(&runner).since(before).get(), 1);
}

/// Goal: block times rise even if the machine's clock is set back, and nobody waits for it. Method: set it back an hour
/// between two transactions.
#[test]
fn a_clock_set_back_stops_nobody() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Wall, 64);
    let late = at(2_000_000);
    drive(&mut runner, late, Event::Wake);
    drive(&mut runner, late, Event::Submit(1, Box::new(transfer(10, 11, 1, 1))));
    let answers = drive(&mut runner, at(10), Event::Wake);
    assert!(matches!(answers[..], [(1, Answer::Applied(_))]), "{answers:?}");
    let time = runner.chain().status().time;
    drive(&mut runner, at(20), Event::Submit(2, Box::new(transfer(10, 11, 1, 2))));
    let answers = drive(&mut runner, at(40), Event::Wake);
    assert!(matches!(answers[..], [(2, Answer::Applied(_))]), "{answers:?}");
    assert!(runner.chain().status().time > time);
}

/// Goal: a manual clock moves by whole epochs and not otherwise. Method: transactions for a day of machine time, then
/// two overlapping ticks.
#[test]
fn a_manual_clock_moves_when_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Manual, 64);
    drive(&mut runner, at(0), Event::Wake);
    for n in 0..20 {
        drive(&mut runner, at(n * 5_000_000), Event::Submit(n, Box::new(transfer(10, 11, 1, n))));
        assert_eq!(drive(&mut runner, at(n * 5_000_000 + 10), Event::Wake).len(), 1);
    }
    assert_eq!(epoch(&runner), Epoch::ZERO);
    assert_eq!(drive(&mut runner, at(0), Event::Tick(50, 7)), [(50, Answer::Ticked(Epoch::new(7)))]);
    assert_eq!(drive(&mut runner, at(0), Event::Tick(51, 0)), [(51, Answer::Ticked(Epoch::new(7)))]);
    let (answers, _) = runner.handle(at(0), Event::Tick(52, 2)).expect("the disk works");
    assert_eq!(answers, []);
    let answers = drive(&mut runner, at(0), Event::Tick(53, 1));
    assert_eq!(answers.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [52, 53]);
    assert_eq!(epoch(&runner), Epoch::new(10));
    let answers = drive(&mut runner, at(0), Event::Tick(54, TICK_EPOCHS_MAX + 1));
    assert!(matches!(&answers[..], [(54, Answer::Refused(fault))] if fault.code() == Code::Malformed));
}

/// Goal: a validator whose ledger was put back from a copy, or whose guard is gone, does not sign; one that died between
/// signing and committing commits what it signed. Method: files of one moment brought together with those of another.
#[test]
fn the_guard_outlives_the_ledger() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ledger, guard) = (dir.path().join(crate::chain::FILE), dir.path().join(guard::FILE));
    let copy = dir.path().join("copy");
    let opened = || open(dir.path(), &genesis(), options(64));
    let step = |n: u64| {
        let mut runner = validator(dir.path(), Clock::Manual, 64);
        drive(&mut runner, at(0), Event::Submit(n, Box::new(transfer(10, 11, 1, n))));
        drive(&mut runner, at(10), Event::Wake);
        runner.chain().status()
    };
    step(1);
    std::fs::copy(&ledger, &copy).expect("copies");
    let one_later = step(2);
    std::fs::copy(&copy, &ledger).expect("copies");
    let seat = opened().expect("the signed block is committed now");
    assert_eq!(seat.chain().status(), one_later);
    drop(seat);
    step(3);
    std::fs::copy(&copy, &ledger).expect("copies");
    assert!(matches!(opened(), Err(SeatError::LostBlocks { .. })));
    std::fs::remove_file(&guard).expect("removes");
    assert!(matches!(opened(), Err(SeatError::NoGuard { .. })));
    let seat = adopt(dir.path(), options(64)).expect("a new incarnation");
    assert_eq!(seat.incarnation(), Incarnation::new(1));
    drop(seat);
    assert_eq!(opened().expect("it is its own now").incarnation(), Incarnation::new(1));
    let seat = adopt(dir.path(), options(64)).expect("again");
    assert_eq!(seat.incarnation(), Incarnation::new(2), "no number is used twice");
}

/// Goal: the guard itself refuses, whatever its caller forgets. Method: the same block, another of its height, a lower
/// one.
#[test]
fn the_guard_refuses_to_sign_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let runner = {
        let mut runner = validator(dir.path(), Clock::Manual, 64);
        drive(&mut runner, at(0), Event::Tick(1, 2));
        runner
    };
    let block = runner.chain().block(Height::new(3)).expect("reads").expect("kept");
    let mut guard = Guard::open_on(Disk::default().medium(), runner.chain().id()).expect("begins");
    guard.remember(&block).expect("the first");
    assert!(matches!(guard.remember(&block), Err(GuardError::Twice { .. })));
    let lower = runner.chain().block(Height::new(2)).expect("reads").expect("kept");
    assert!(matches!(guard.remember(&lower), Err(GuardError::Twice { .. })));
    let higher = runner.chain().block(Height::new(4)).expect("reads").expect("kept");
    guard.remember(&higher).expect("the next");
}

/// Goal: what waits is bounded, and the answer says so. Method: one more than the pool holds, then blocks until all have
/// their answer; and a transaction of one byte too many.
#[test]
fn the_pool_is_bounded() {
    use tallow_types::limits::{POOL_BYTES_MAX, POOL_TXS_MAX};
    let mut pool = pool::Pool::default();
    let now = TimeMs::new(0);
    for n in 0..POOL_TXS_MAX as u64 {
        pool.add_tx(n, transfer(10, 11, 1, n), now).expect("there is room");
    }
    assert_eq!(pool.add_tx(0, transfer(10, 11, 1, 1 << 40), now), Err(pool::Full::Pool));
    assert_eq!(pool.add_tx(9, transfer(10, 11, 1, 5), now), Ok(()), "one that waits may be asked for again");
    let (txs, _) = pool.candidates();
    assert!(txs.len() <= tallow_types::limits::BLOCK_TXS_MAX);
    assert_eq!(pool.take_tx(&txs[5].id()), [5, 9]);
    assert_eq!(pool.add_tx(0, transfer(10, 11, 1, 1 << 40), now), Ok(()));

    let large = |n: u64| {
        let mut tx = transfer(10, 11, 1, n);
        let lock = tallow_types::Digest::ZERO;
        let parts = vec![tallow_types::policy::Policy::Hash(lock); TX_MAX / 33];
        tx.core.policy = tallow_types::policy::Policy::Threshold { need: 1, of: parts };
        tx
    };
    let mut pool = pool::Pool::default();
    assert!(matches!(pool.add_tx(0, large(0), now), Err(pool::Full::TooLarge(len)) if len > TX_MAX));
    let below = |n: u64| {
        let mut tx = large(n);
        if let tallow_types::policy::Policy::Threshold { of, .. } = &mut tx.core.policy {
            of.truncate(of.len() - 16);
        }
        tx
    };
    let len = tallow_types::encode(&below(0)).len();
    for n in 0..(POOL_BYTES_MAX / len) as u64 {
        pool.add_tx(n, below(n), now).expect("there is room");
    }
    assert_eq!(pool.add_tx(0, below(1 << 40), now), Err(pool::Full::Pool));
}

fn proof(seeder: u8, epoch: u64, signer: u8) -> Box<SignedEpochProof> {
    let proof = EpochProof {
        epoch: Epoch::new(epoch),
        seeder: key(seeder).public().seeder(),
        samples: Bounded::empty(),
        capacity: Bounded::empty(),
    };
    let signature = key(signer).sign(&genesis().chain(), &proof);
    Box::new(SignedEpochProof { proof, signature })
}

/// Goal: every proof gets an answer; nobody can push a seeder's proof aside. Method: a stranger's signature, proofs of two
/// epochs of one seeder, a repeated one; the ledger's word on the one that is left.
#[test]
fn proofs_are_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut runner = validator(dir.path(), Clock::Manual, 64);
    drive(&mut runner, at(0), Event::Wake);
    let height = runner.chain().status().height;
    let answer = |answers: &[(Ticket, Answer)]| match answers {
        [(ticket, Answer::Refused(fault))] => (*ticket, fault.code()),
        other => panic!("{other:?}"),
    };
    assert_eq!(drive(&mut runner, at(1), Event::Prove(1, proof(20, 0, 20))), []);
    let forged = drive(&mut runner, at(1), Event::Prove(2, proof(20, 1, 21)));
    assert_eq!(answer(&forged), (2, Code::BadSignature));
    assert_eq!(drive(&mut runner, at(2), Event::Prove(3, proof(20, 0, 20))), []);
    let replaced = drive(&mut runner, at(3), Event::Prove(4, proof(20, 1, 20)));
    assert_eq!(replaced.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        answer(&drive(&mut runner, at(4), Event::Prove(5, proof(20, 0, 20)))).0,
        5,
        "an older one comes too late"
    );
    assert_eq!(answer(&drive(&mut runner, at(1_000), Event::Wake)), (4, Code::Refused), "it holds no lane");
    assert_eq!(runner.chain().status().height, height, "nothing of it is in a block");
}

/// Goal: an idle network's ledger stops growing. Method: 600 epochs on a disk whose length can be seen; the last 400
/// add nothing.
#[test]
fn an_idle_ledger_does_not_grow() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ledger, guard) = (Disk::default(), Disk::default());
    let mut runner = validator_on(&ledger, &guard, dir.path(), Clock::Manual).expect("opens");
    drive(&mut runner, at(0), Event::Tick(1, 200));
    let early = (ledger.len(), guard.len());
    drive(&mut runner, at(0), Event::Tick(2, 400));
    assert!(runner.chain().status().height.get() > 1_800);
    assert_eq!((ledger.len(), guard.len()), early);
    assert!(early.0 + early.1 < 4 << 20, "{early:?}");
}

/// Goal: the running validator answers many callers at once, each when its block is on disk, and stops when told.
/// Method: real thread, real files, 64 callers; then open the ledger again.
#[tokio::test]
async fn a_running_validator_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let seat = open(dir.path(), &genesis(), options(64)).expect("opens");
    let handle = spawn(seat, config(Clock::Manual)).expect("starts");
    let asks = (0..64).map(|n| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.submit(transfer(10, 11, 1, n)).await })
    });
    let mut heights = std::collections::BTreeSet::new();
    for ask in asks.collect::<Vec<_>>() {
        heights.insert(ask.await.expect("no panic").expect("applied").height);
    }
    assert!(heights.len() < 32, "callers share blocks: {}", heights.len());
    assert_eq!(handle.tick(2).await.expect("moves"), Epoch::new(2));
    let refused = handle.submit(transfer(10, 11, 1 << 70, 99)).await.expect_err("too much money");
    assert_eq!(refused.code(), Code::Refused);
    let mut news = handle.chain().subscribe();
    let tip = news.borrow_and_update().height;
    handle.tick(1).await.expect("moves");
    assert!(news.has_changed().expect("open") && news.borrow().height > tip);
    handle.stop().await;
    assert_eq!(handle.stopped().await, None, "it was told to");
    let after = handle.submit(transfer(10, 11, 1, 100)).await.expect_err("stopped");
    assert_eq!(after.code(), Code::Internal);
    let status = handle.chain().status();
    drop((handle, news));
    assert_eq!(validator(dir.path(), Clock::Manual, 64).chain().status(), status);
}

/// Goal: keys that genesis does not name make no blocks. Method: one wrong key at a time.
#[test]
fn strangers_keys_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let seat = || open(dir.path(), &genesis(), options(64)).expect("opens");
    let signer = Config { signer: key(2), ..config(Clock::Wall) };
    assert!(matches!(Runner::new(seat(), signer), Err(RunError::NotValidator)));
    let vrf = Config {
        vrf: <tallow_proofs::beacon::R255 as tallow_proofs::beacon::Vrf>::secret(&[9; 32]),
        ..config(Clock::Wall)
    };
    assert!(matches!(Runner::new(seat(), vrf), Err(RunError::NotValidator)));
}

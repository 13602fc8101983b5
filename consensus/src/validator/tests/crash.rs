//! What a validator keeps when the power fails.

use std::collections::BTreeMap;

use super::*;

/// Everything that was promised while a validator ran, across crashes.
#[derive(Default)]
struct Promises {
    /// Hash of the block signed at each height.
    signed: BTreeMap<Height, tallow_types::BlockHash>,
    /// Transactions that were acknowledged.
    acknowledged: Vec<(tallow_types::IdempotencyKey, tallow_types::wire::Receipt)>,
}

impl Promises {
    fn note_signed(&mut self, guard: &Guard) {
        if let Some(block) = guard.signed() {
            let hash = block.header.hash();
            let first = *self.signed.entry(block.header.height).or_insert(hash);
            assert_eq!(first, hash, "two blocks of height {}", block.header.height);
        }
    }

    fn check(&self, chain: &Chain) {
        for (key, receipt) in &self.acknowledged {
            assert_eq!(
                chain.receipt(key).expect("reads").as_ref(),
                Some(receipt),
                "an acknowledged block is lost"
            );
        }
    }
}

/// Goal: whatever the power does, nothing acknowledged is lost, nothing is applied twice, and no height is signed twice.
/// Method: transfers and ticks on disks that fail at a random write or sync and keep a random part of what was not
/// synced; open again; compare with every promise.
#[test]
fn crashes_keep_every_promise() {
    let dir = tempfile::tempdir().expect("a folder");
    for seed in 0..30 {
        let mut random = Random(seed);
        let (ledger, guard) = (Disk::default(), Disk::default());
        let (mut promises, mut next, mut crashes) = (Promises::default(), 0u64, 0);
        while crashes < 6 {
            if random.below(4) > 0 {
                let disk = if random.below(2) == 0 { &ledger } else { &guard };
                disk.fail_after(random.below(120));
            }
            if let Some(mut runner) = validator_on(&ledger, &guard, dir.path(), Clock::Manual) {
                promises.note_signed(&runner.guard);
                promises.check(runner.chain());
                run_until_failure(&mut runner, &mut random, &mut promises, &mut next);
            }
            ledger.crash(|| u8::try_from(random.below(256)).expect("a byte"));
            guard.crash(|| u8::try_from(random.below(256)).expect("a byte"));
            crashes += 1;
        }
        let runner = validator_on(&ledger, &guard, dir.path(), Clock::Manual)
            .unwrap_or_else(|| panic!("seed {seed}: it does not open again"));
        promises.note_signed(&runner.guard);
        promises.check(runner.chain());
        check_money(runner.chain(), next);
    }
}

/// Uses a validator until its disk fails, or for a while.
fn run_until_failure(runner: &mut Runner, random: &mut Random, promises: &mut Promises, next: &mut u64) {
    let mut sent = BTreeMap::new();
    for step in 0..24 {
        let event = match random.below(8) {
            0 => Event::Tick(0, 1),
            1..=3 => Event::Wake,
            _ => {
                *next += 1;
                let tx = transfer(10, 11, 1, *next);
                sent.insert(*next, tx.core.key);
                Event::Submit(*next, Box::new(tx))
            }
        };
        let result = runner.handle(at(step * 20), event);
        promises.note_signed(&runner.guard);
        let Ok((answers, _)) = result else { return };
        for (ticket, answer) in answers {
            if let (Some(key), Answer::Applied(receipt)) = (sent.get(&ticket), answer) {
                promises.acknowledged.push((*key, receipt));
            }
        }
    }
}

/// The receiver has one unit for each transfer that has a receipt.
fn check_money(chain: &Chain, sent: u64) {
    let keys = (1..=sent).map(|n| transfer(10, 11, 1, n).core.key);
    let applied = keys.filter(|key| chain.receipt(key).expect("reads").is_some()).count();
    assert_eq!(balance(chain, 11).get(), (1 << 60) + applied as u128);
}

/// Goal: a validator whose disk fails stops at once, says why, and has acknowledged nothing that is not on disk. Method:
/// the power fails after some blocks; then open what is left.
#[tokio::test]
async fn a_failing_disk_stops_the_validator() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ledger, guard) = (Disk::default(), Disk::default());
    let runner = validator_on(&ledger, &guard, dir.path(), Clock::Manual).expect("opens");
    ledger.fail_after(60);
    let seat = Seat { chain: runner.chain().clone(), guard: runner.guard };
    let handle = spawn(seat, config(Clock::Manual)).expect("starts");
    let mut applied = Vec::new();
    let fault = loop {
        let tx = transfer(10, 11, 1, applied.len() as u64);
        match handle.submit(tx.clone()).await {
            Ok(receipt) => applied.push((tx.core.key, receipt)),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.code(), Code::Internal);
    assert!(handle.stopped().await.expect("a reason").contains("power"));
    drop(handle);
    ledger.crash(|| 0);
    guard.crash(|| 0);
    let runner = validator_on(&ledger, &guard, dir.path(), Clock::Manual).expect("opens");
    for (key, receipt) in applied {
        assert_eq!(runner.chain().receipt(&key).expect("reads"), Some(receipt));
    }
}

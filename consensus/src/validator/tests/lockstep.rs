//! A validator and followers through a random history.

use super::*;

/// Goal: validator and followers are in lockstep whatever happens in whatever order: same blocks, same records, money
/// conserved. Method: seeds; transfers good and bad, ticks, halts, restarts, one follower close behind, one that sleeps
/// long enough to need snapshots.
#[tokio::test]
async fn lockstep_by_seed() {
    let mut snapshots = 0;
    for seed in 0..4 {
        let mut random = Random(seed);
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let clock = if seed % 2 == 0 { Clock::Manual } else { Clock::Wall };
        let mut runner = validator(dirs[0].path(), clock, 6);
        let follow = |n: usize| {
            let chain = Chain::open(dirs[n].path(), &genesis(), options(4)).expect("opens");
            crate::Follower::new(chain)
        };
        let (mut near, far) = (follow(1), follow(2));
        let mut now = 0;
        for id in 0..100 {
            now += random.below(1_500);
            match random.below(24) {
                0 => drop(drive(&mut runner, at(now), Event::Tick(0, 1))),
                1 => now += 1_000_000,
                2 => {
                    drop(runner);
                    runner = validator(dirs[0].path(), clock, 6);
                }
                3 => {
                    drop(near);
                    near = follow(1);
                }
                4 => {
                    let source: &dyn crate::Source = &**runner.chain();
                    snapshots += u64::from(step_to(&far, source).await);
                }
                5..=9 => drop(drive(&mut runner, at(now), Event::Wake)),
                _ => {
                    let amount = if random.below(6) == 0 { 1 << 70 } else { u128::from(random.next()) };
                    let (from, to) = (10 + random.below(3), 10 + random.below(3));
                    let tx = transfer(byte(from), byte(to), amount, id);
                    drop(drive(&mut runner, at(now), Event::Submit(id, Box::new(tx))));
                }
            }
            step_to(&near, &**runner.chain()).await;
        }
        drive(&mut runner, at(now + 100), Event::Wake);
        for node in [&near, &far] {
            step_to(node, &**runner.chain()).await;
            assert_eq!(node.chain().status(), runner.chain().status(), "seed {seed}");
            let all = |chain: &Chain| chain.scan(&[], &[], usize::MAX).expect("reads");
            assert_eq!(all(node.chain()), all(runner.chain()), "seed {seed}");
        }
        conserved(runner.chain());
    }
    assert!(snapshots > 2, "{snapshots} snapshots: the seeds don't test them");
}

fn byte(n: u64) -> u8 {
    u8::try_from(n).expect("small")
}

/// Follows until nothing is left; whether it took a snapshot.
async fn step_to(node: &crate::Follower, source: &dyn crate::Source) -> bool {
    let mut snapshot = false;
    loop {
        let progress = node.step(source, tallow_types::DurationMs::ZERO).await.expect("an honest source");
        snapshot |= progress.snapshot;
        if progress == crate::Progress::default() {
            return snapshot;
        }
    }
}

/// All balances add up to what was endowed and has not burned.
fn conserved(chain: &Chain) {
    let supply = chain.get(state_key::SUPPLY).expect("reads").expect("there");
    let supply: tallow_ledger::record::Supply = decode(&supply).expect("decodes");
    let accounts = chain.scan(state_key::ACCOUNTS, &[], usize::MAX).expect("reads");
    let total: u128 =
        accounts.iter().map(|(_, bytes)| decode::<Account>(bytes).expect("decodes").balance.get()).sum();
    assert_eq!(Some(Fuel::new(total)), supply.endowed.checked_sub(supply.burned));
}

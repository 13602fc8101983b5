//! Slices that come and go at random in a store that is nearly full: what is written for each byte put, and what the disk
//! holds for each byte kept.
//!
//! A turnover is as many bytes put as the store holds. Slices go at random, each with the same chance.

use std::time::Instant;

use anyhow::Result;
use tallow_storage_node::store::{SliceStore, Verdict};

use super::{KIB, MIB, Sample, TASKS, config, disk, put_some, spread};

/// Bytes of slices at 100 %.
const ROOM: usize = 64 * MIB;
const TURNOVERS: usize = 4;
/// What goes and comes in one step, as a share of what is there.
const STEPS: usize = 8;

/// Prints a line for each size and fill.
pub fn run() -> Result<()> {
    println!("random deletes and puts, {TURNOVERS} turnovers, a store of {} MiB", ROOM / MIB);
    println!(
        "  size  fill | written/put  bound | disk/kept: worst   end | puts/s beside | reads p50 us    p99"
    );
    for (size, bound) in [(4 * KIB, 2.0), (64 * KIB, 8.0 / 7.0)] {
        for fill in [70, 80, 90] {
            churn(size, fill, bound)?;
        }
    }
    Ok(())
}

fn churn(size: usize, fill: usize, bound: f64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let store = SliceStore::open(&path, config())?;
    let (sample, kept) = (Sample::new(size), ROOM / 100 * fill / size);
    let (batch, step) = ((MIB / size).min(256), kept / STEPS);
    let forever = std::time::Duration::MAX;
    let (mut next, length) = (0, u32::try_from(size)?);
    put_some(&store, &sample, &mut next, (batch, TASKS), (kept, forever))?;
    let (mut worst, mut put, mut times, mut reads) = (0f64, 0, std::time::Duration::ZERO, Vec::new());
    let before = store.written().get();
    let mut lot = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..TURNOVERS * STEPS {
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = u64::MAX / STEPS as u64;
        let seed = lot;
        // Which go is decided by their random names.
        let goes = move |stripe: &[u8; 16]| {
            let part = u64::from_le_bytes(stripe[..8].try_into().expect("8 bytes"));
            part.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) < share
        };
        let judge = move |key: &tallow_storage_node::store::SliceKey, _| match goes(key.stripe.as_bytes()) {
            true => Verdict::Free,
            false => Verdict::Keep,
        };
        let freed = usize::try_from(store.sweep(usize::MAX, Box::new(judge))?.slices)?;
        // What is tidied meets reads and puts.
        let (done, time) = std::thread::scope(|scope| -> Result<_> {
            let tidy = scope.spawn(|| store.tidy());
            let outcome = put_some(&store, &sample, &mut next, (batch, TASKS), (freed, forever))?;
            while !tidy.is_finished() {
                let key = super::lane().slice(super::stripe(next - 1 - (reads.len() as u64 % step as u64)));
                let start = Instant::now();
                let _slice = store.read(&key, 0, length);
                reads.push(start.elapsed());
            }
            tidy.join().expect("no panic");
            Ok(outcome)
        })?;
        put += done;
        times += time;
        let now = disk(&path.join("segments"))? as f64 / store.usage()?.bytes().get() as f64;
        worst = worst.max(now);
    }
    let written = (store.written().get() - before) as f64 / (put * size) as f64;
    store.tidy();
    let end = disk(&path.join("segments"))? as f64 / store.usage()?.bytes().get() as f64;
    let (p50, p99) = if reads.is_empty() { (0.0, 0.0) } else { spread(reads) };
    println!(
        "  {:>4}K {fill:>4}% | {written:>11.2} {bound:>6.2} | {worst:>16.2} {end:>5.2} | {:>13.0} | {p50:>12.1} {p99:>6.1}",
        size / KIB,
        put as f64 / times.as_secs_f64(),
    );
    Ok(())
}

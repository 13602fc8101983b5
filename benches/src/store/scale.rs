//! A store of a million slices: how long it takes to fill and to open, and how much memory it holds.

use std::time::{Duration, Instant};

use anyhow::Result;
use tallow_storage_node::store::SliceStore;

use super::{KIB, MIB, Sample, TASKS, config, disk, lane, put_some, resident, spread, stripe};

const SLICES: usize = 1_000_000;
const SIZE: usize = KIB;

/// Prints the lines of a large store.
pub fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let sample = Sample::new(SIZE);
    let store = SliceStore::open(&path, config())?;
    let (_, filled) = put_some(&store, &sample, &mut 0, (256, TASKS), (SLICES, Duration::MAX))?;
    let working = resident()?;
    let start = Instant::now();
    drop(store);
    let closed = start.elapsed();
    let before = resident()?;
    let start = Instant::now();
    let store = SliceStore::open(&path, config())?;
    let clean = start.elapsed();
    let opened = resident()?;
    let mut times = Vec::new();
    for number in 0..100_000u64 {
        let key = lane().slice(stripe(number.wrapping_mul(7_368_787) % SLICES as u64));
        let start = Instant::now();
        store.read(&key, 0, u32::try_from(SIZE)?)?;
        times.push(start.elapsed());
    }
    let (p50, p99) = spread(times);
    let read = resident()?;
    // As a crash leaves it: the files as they are while the store is open.
    let crashed = dir.path().join("crashed");
    std::fs::create_dir_all(crashed.join("segments"))?;
    std::fs::copy(path.join("index.redb"), crashed.join("index.redb"))?;
    for entry in std::fs::read_dir(path.join("segments"))? {
        let entry = entry?;
        std::fs::hard_link(entry.path(), crashed.join("segments").join(entry.file_name()))?;
    }
    let index = disk(&path.join("index.redb"))?;
    drop(store);
    let start = Instant::now();
    let store = SliceStore::open(&crashed, config())?;
    let after_crash = start.elapsed();
    drop(store);
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!("{SLICES} slices of {SIZE} bytes");
    println!("  filled at {:.0} slices/s, index {:.0} MiB", SLICES as f64 / filled.as_secs_f64(), mib(index));
    println!("  memory while it was filled {:.0} MiB", mib(working));
    println!(
        "  closed in {:.2} s; opened in {:.2} s, after a crash in {:.2} s",
        closed.as_secs_f64(),
        clean.as_secs_f64(),
        after_crash.as_secs_f64()
    );
    println!(
        "  memory: closed {:.0} MiB, opened {:.0}, after 100,000 random reads {:.0}",
        mib(before),
        mib(opened),
        mib(read)
    );
    println!("  random reads: p50 {p50:.1} us, p99 {p99:.1} us");
    Ok(())
}

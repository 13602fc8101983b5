//! The slice store of a seeder beside the same bytes in a plain file: durable writes, reads, a store of many slices, and
//! slices that come and go.
//!
//! Writers call it as the service does: each task hashes its slices, hands them over, and waits until they are durable.

mod churn;
mod scale;

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::time::{ClockId, clock_gettime};
use tallow_storage_node::store::{LaneKey, PutRequest, Slice, SliceStore, StoreConfig, root_of};
use tallow_types::commit::Leaf;
use tallow_types::{Bytes, ContractId, Epoch, SlotIndex, StripeId};

use crate::timing::noise;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Tasks that put at the same time.
const TASKS: usize = 16;
/// How often the store and the file take turns, for how long, and how much they write in it at most.
const ROUNDS: usize = 3;
const TURN: Duration = Duration::from_millis(500);
const TURN_BYTES: usize = 256 * MIB;
/// Largest single write into the plain file: longer ones are slower.
const PIECE: usize = MIB;

/// Prints all lines of the store.
pub fn run() -> Result<()> {
    println!(
        "slices made durable by {TASKS} tasks at once and by one, beside a plain file: fallocate, write, fdatasync"
    );
    println!(
        "  size  batch   slices/s    MB/s | file MB/s  ratio | again MB/s  file MB/s  ratio | one task/s | cpu us | disk"
    );
    for size in [4 * KIB, 64 * KIB, MIB, 4 * MIB] {
        for batch in [1, 32, 256] {
            // A request carries no more than a frame: larger batches come as several.
            if batch == 1 || size * batch <= 16 * MIB {
                puts(size, batch)?;
            }
        }
    }
    reads()?;
    scale::run()?;
    churn::run()
}

fn config() -> StoreConfig {
    StoreConfig { reserve: Bytes::new(64 << 20), ..StoreConfig::default() }
}

fn lane() -> LaneKey {
    LaneKey { contract: ContractId::new([9; 32]), slot: SlotIndex::new(1) }
}

/// Names as random as real ones are.
fn stripe(number: u64) -> StripeId {
    let hash = blake3::hash(&number.to_le_bytes());
    StripeId::new(hash.as_bytes()[..16].try_into().expect("16 bytes"))
}

/// Bytes to store, with their root.
struct Sample {
    bytes: bytes::Bytes,
    root: tallow_types::SliceRoot,
}

impl Sample {
    fn new(size: usize) -> Self {
        let bytes = bytes::Bytes::from(noise(size, 5));
        Self { root: root_of(&bytes), bytes }
    }

    /// Hashed again each time, as what comes from the network is.
    fn slice(&self, number: u64) -> Result<Slice> {
        let length = u32::try_from(self.bytes.len())?;
        Ok(Slice::verify(Leaf { stripe: stripe(number), root: self.root, length }, self.bytes.clone())?)
    }

    fn request(&self, numbers: std::ops::Range<u64>) -> Result<PutRequest> {
        let slices = numbers.map(|number| self.slice(number)).collect::<Result<_>>()?;
        Ok(PutRequest {
            lane: lane(),
            slices,
            epoch: Epoch::ZERO,
            limit: Bytes::new(1 << 50),
            for_commit: false,
        })
    }
}

/// Bytes a second of each turn.
#[derive(Default)]
struct Rates(Vec<f64>);

impl Rates {
    fn add(&mut self, bytes: usize, time: Duration) {
        self.0.push(bytes as f64 / time.as_secs_f64());
    }

    fn median(&mut self) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

/// Puts slices from `next` on, in batches, from so many tasks, until `count` are there or the time is over. Answers how
/// many there are, and the time that it took.
fn put_some(
    store: &SliceStore,
    sample: &Sample,
    next: &mut u64,
    (batch, tasks): (usize, usize),
    (count, time): (usize, Duration),
) -> Result<(usize, Duration)> {
    let batches = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while start.elapsed() < time {
                let at = batches.fetch_add(1, Ordering::Relaxed) * batch;
                if at >= count {
                    break;
                }
                let (from, to) = (*next + at as u64, *next + (at + batch).min(count) as u64);
                store.put(sample.request(from..to)?)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..tasks).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a task panicked"))
    })?;
    let done = (batches.into_inner() * batch).min(count);
    *next += done as u64;
    Ok((done, start.elapsed()))
}

/// Writes into a file from `at` on, with a sync after each `group`, until `total` bytes are there or the time is over.
fn plain(file: &File, bytes: &[u8], at: usize, total: usize, group: usize) -> Result<(usize, Duration)> {
    let start = Instant::now();
    let mut done = 0;
    while done < total && start.elapsed() < TURN {
        let mut unsynced = 0;
        while unsynced < group {
            let piece = PIECE.min(group - unsynced).min(bytes.len());
            file.write_all_at(&bytes[..piece], (at + done) as u64)?;
            unsynced += piece;
            done += piece;
        }
        file.sync_data()?;
    }
    Ok((done, start.elapsed()))
}

fn disk(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path)?;
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            bytes += disk(&entry?.path())?;
        }
    }
    Ok(bytes)
}

fn puts(size: usize, batch: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let store = SliceStore::open(&path, config())?;
    let sample = Sample::new(size);
    let chunk = noise(PIECE.max(size), 6);
    let file = File::create(dir.path().join("plain"))?;
    // The file's syncs come as seldom as the store's can if all tasks share each.
    let group = (batch * size * TASKS).min(16 * MIB);
    fallocate(&file, FallocateFlags::empty(), 0, (ROUNDS * (TURN_BYTES + group)) as u64)?;
    let (mut many, mut raw, mut one) = (Rates::default(), Rates::default(), Rates::default());
    let (mut next, mut at) = (0, 0);
    let full = (TURN_BYTES / size, TURN);
    let (mut cpu, mut slices) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let before = cpu_time();
        let (done, time) = put_some(&store, &sample, &mut next, (batch, TASKS), full)?;
        many.add(done * size, time);
        cpu += cpu_time() - before;
        slices += done;
        let (done, time) = plain(&file, &chunk, at, TURN_BYTES, group)?;
        raw.add(done, time);
        at += done;
        let (done, time) = put_some(&store, &sample, &mut next, (batch, 1), (full.0, TURN / 2))?;
        one.add(done * size, time);
    }
    drop(store);
    let taken = disk(&path)? as f64 / (next as f64 * size as f64);
    let store = SliceStore::open(&path, config())?;
    let (mut again, mut over, mut at) = (Rates::default(), Rates::default(), 0);
    for _ in 0..ROUNDS {
        while store.remove_lane(lane(), 4096)?.more {}
        let (done, time) = put_some(&store, &sample, &mut next, (batch, TASKS), full)?;
        again.add(done * size, time);
        let (done, time) = plain(&file, &chunk, at, TURN_BYTES, group)?;
        over.add(done, time);
        at += done;
    }
    let (many, raw, again, over) = (many.median(), raw.median(), again.median(), over.median());
    println!(
        "  {:>4}K {batch:>5} {:>10.0} {:>7.0} | {:>9.0} {:>6.2} | {:>10.0} {:>10.0} {:>6.2} | {:>10.0} | {:>6.1} | {taken:.3}",
        size / KIB,
        many / size as f64,
        many / 1e6,
        raw / 1e6,
        many / raw,
        again / 1e6,
        over / 1e6,
        again / over,
        one.median() / size as f64,
        cpu.as_secs_f64() * 1e6 / slices as f64,
    );
    Ok(())
}

/// Times of single calls, in microseconds: the middle and the 99th of 100.
fn spread(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e6;
    (at(50), at(99))
}

fn reads() -> Result<()> {
    println!("warm reads of whole slices, us, beside pread of as many bytes of a plain file");
    println!("  slice    first p50      p50      p99   plain p50      p99  ratio");
    for size in [4 * KIB, 64 * KIB, MIB, 4 * MIB] {
        let dir = tempfile::tempdir()?;
        let store = SliceStore::open(&dir.path().join("store"), config())?;
        let (sample, count) = (Sample::new(size), (64 * MIB / size).min(4096));
        put_some(&store, &sample, &mut 0, (64.min(16 * MIB / size), 4), (count, Duration::MAX))?;
        // Opened again: what was just written is known to be whole without a look.
        drop(store);
        let store = SliceStore::open(&dir.path().join("store"), config())?;
        let path = dir.path().join("plain");
        std::fs::write(&path, noise(count * size, 7))?;
        let file = File::open(&path)?;
        let length = u32::try_from(size)?;
        let once = |number: usize| -> Result<Duration> {
            let key = lane().slice(stripe(number as u64));
            let start = Instant::now();
            std::hint::black_box(store.read(&key, 0, length)?);
            Ok(start.elapsed())
        };
        let raw = |number: usize| -> Result<Duration> {
            let start = Instant::now();
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, (number * size) as u64)?;
            std::hint::black_box(bytes);
            Ok(start.elapsed())
        };
        let first = (0..count).map(once).collect::<Result<Vec<_>>>()?;
        let (mut warm, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            for number in 0..count {
                // In no order that the processor could foresee.
                let number = number.wrapping_mul(7919) % count;
                warm.push(once(number)?);
                peer.push(raw(number)?);
            }
        }
        let ((first, _), (p50, p99), (raw50, raw99)) = (spread(first), spread(warm), spread(peer));
        println!(
            "  {:>4}K {first:>11.1} {p50:>8.1} {p99:>8.1} {raw50:>11.1} {raw99:>8.1} {:>6.2}",
            size / KIB,
            raw50 / p50
        );
    }
    Ok(())
}

/// Processor time of all threads of this process.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Memory of this process now. Bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib << 10)
}

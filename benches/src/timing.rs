//! Medians of repeated runs.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Runs `work` until a second has gone, five times at least, and answers the median time of one run: the processor time
/// of this thread alone, in which neighbours on a shared machine count less. For work on one core.
pub fn median<T>(mut work: impl FnMut() -> T) -> Duration {
    let (begin, mut runs) = (Instant::now(), Vec::new());
    while runs.len() < 5 || begin.elapsed() < Duration::from_secs(1) {
        let start = thread_time();
        std::hint::black_box(work());
        runs.push(thread_time() - start);
    }
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// The time of one run of work that may be too short to be timed alone: the median of samples of many runs, in seconds
/// of processor time of this thread.
pub fn per_run<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut sample = |runs: u32| {
        let start = thread_time();
        for _ in 0..runs {
            std::hint::black_box(work());
        }
        thread_time() - start
    };
    let mut runs = 1;
    while sample(runs) < Duration::from_millis(4) {
        runs *= 2;
    }
    let mut samples: Vec<Duration> = (0..15).map(|_| sample(runs)).collect();
    samples.sort_unstable();
    samples[samples.len() / 2].as_secs_f64() / f64::from(runs)
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Bytes a second, in GB, from bytes and a duration.
pub fn gb_per_s(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// `size` bytes that don't compress, the same in each run.
pub fn noise(size: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

//! Medians of repeated runs.

use std::time::{Duration, Instant};

/// Runs `work` until a second has gone, five times at least, and answers the median duration of one run.
pub fn median<T>(mut work: impl FnMut() -> T) -> Duration {
    let begin = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < 5 || begin.elapsed() < Duration::from_secs(1) {
        let start = Instant::now();
        std::hint::black_box(work());
        runs.push(start.elapsed());
    }
    runs.sort_unstable();
    runs[runs.len() / 2]
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

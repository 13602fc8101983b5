//! Test data on disk, and what a finished process used.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::timing::noise;

/// A file of `size` bytes of noise.
pub fn large(path: &Path, size: usize) -> Result<()> {
    File::create(path)?.write_all(&noise(size, 3))?;
    Ok(())
}

/// A folder of `count` files of 4 KiB of noise, a hundred to a subfolder.
pub fn many(path: &Path, count: usize) -> Result<()> {
    let bytes = noise(count * 4096, 4);
    for (number, content) in bytes.chunks_exact(4096).enumerate() {
        let folder = path.join(format!("{:03}", number / 100));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{number:05}")), content)?;
    }
    Ok(())
}

/// How long a command took, and the most memory it held at once.
pub struct Used {
    pub time: Duration,
    pub peak_kib: u64,
}

/// Runs a command to its end without its output; fails if it fails.
pub fn timed(command: &mut Command) -> Result<Used> {
    let shown = format!("{command:?}");
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    // The kernel's own high-water mark, read until the process is gone; what it adds in its last milliseconds is missed.
    loop {
        if let Ok(text) = fs::read_to_string(&status_file) {
            peak_kib = peak_kib.max(high_water(&text));
        }
        if let Some(status) = child.try_wait().with_context(|| shown.clone())? {
            ensure!(status.success(), "{shown} ended with {status}");
            return Ok(Used { time: start.elapsed(), peak_kib });
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn high_water(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

//! Test data on disk, and what processes used.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::timing::noise;

/// Ticks a second in which the kernel counts processor time for programs: the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

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

/// How long a command took, the processor time it used, and the most memory it held at once.
#[derive(Clone, Copy, Default)]
pub struct Used {
    pub time: Duration,
    /// Seconds on all cores, in the program and in the kernel for it, its own children included.
    pub cpu: f64,
    pub peak_kib: u64,
}

/// Runs a command to its end without its output; fails if it fails.
pub fn timed(command: &mut Command) -> Result<Used> {
    finish(command.stdout(Stdio::null())).map(|(used, _)| used)
}

/// The same with what it printed, which must be short: it is read when the command has ended.
pub fn answered(command: &mut Command) -> Result<(Used, Vec<u8>)> {
    let (used, mut child) = finish(command.stdout(Stdio::piped()))?;
    let mut answer = Vec::new();
    child.stdout.take().context("its output is a pipe")?.read_to_end(&mut answer)?;
    Ok((used, answer))
}

fn finish(command: &mut Command) -> Result<(Used, Child)> {
    let shown = format!("{command:?}");
    let (start, before) = (Instant::now(), children_cpu());
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    // The kernel's own high-water mark, read until the process is gone; what it adds in its last milliseconds is missed.
    loop {
        if let Ok(text) = fs::read_to_string(&status_file) {
            peak_kib = peak_kib.max(high_water(&text));
        }
        if let Some(status) = child.try_wait().with_context(|| shown.clone())? {
            let time = start.elapsed();
            ensure!(status.success(), "{shown} ended with {status}");
            return Ok((Used { time, cpu: children_cpu() - before, peak_kib }, child));
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The most memory that a process has held; none if it is gone. Bytes.
pub fn peak_of(pid: u32) -> u64 {
    high_water(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()) << 10
}

/// Lets the most memory that this process has held count from now on, where the kernel can.
pub fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn high_water(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Processor seconds that a process has used so far; none if it is gone.
pub fn cpu_of(pid: u32) -> f64 {
    stat_seconds(&format!("/proc/{pid}/stat"), [11, 12])
}

/// Processor seconds of those children of this process that have ended.
fn children_cpu() -> f64 {
    stat_seconds("/proc/self/stat", [13, 14])
}

/// Sums fields of a stat file, counted from the state, which follows the name in brackets.
fn stat_seconds(path: &str, fields: [usize; 2]) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |at: usize| rest.split(' ').nth(at)?.parse::<f64>().ok();
    fields.into_iter().filter_map(field).sum::<f64>() / TICKS
}

//! Puts and gets of one large file against twenty seeder processes on this machine, 10 of 20, beside peers in the same
//! run: the same bytes streamed to receivers that discard them, `cp` with a sync, restic, Tahoe-LAFS.
//!
//! A put counts when every seeder, not only a quorum, has signed the commit that names its slices; a seeder signs what
//! it holds durably. All processes share the cores of this machine, so beside the wall clock, which says what the whole
//! machine achieves, stands the processor time of the client, and that of everybody, for each byte of the file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::discard::Receivers;
use crate::files::{Used, answered, timed};
use crate::local::Network;
use crate::peers::{copy, restic, text};
use crate::tahoe::Grid;
use crate::timing::noise;

const DATA: usize = 10;
const SLOTS: usize = 20;
/// Slices of a full stripe under this profile: 32 MiB over twenty slots, in whole tiles. Bytes.
const SLICE: usize = 25 * (64 << 10);
/// How many seeders are slow in the read beside slow ones.
const SLOW: usize = 3;

/// What one run used: the command or client, and all processes that served it.
#[derive(Clone, Copy)]
struct Run {
    client: Used,
    all: f64,
}

/// Puts and gets of 100 MiB, three rounds.
pub fn run() -> Result<()> {
    large(100 << 20, 3)
}

/// The same with 1 GiB, once.
pub fn run_gib() -> Result<()> {
    large(1 << 30, 1)
}

fn large(size: usize, rounds: u8) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let receivers = Receivers::start(SLOTS)?;
    let network = Network::up(folder.path(), &format!("{DATA}/{SLOTS}"))?;
    let grid = grid(&at("tahoe"));
    let mut table = Table { size, rows: Vec::new() };
    println!(
        "10 of 20, {SLOTS} seeder processes on this machine, {} MiB of noise; put is done when all {SLOTS} hold it",
        size >> 20
    );
    for round in 0..rounds {
        let (source, back) = (at("large"), at("back"));
        std::fs::write(&source, noise(size, 10 + round))?;
        // What one file leaves for the disk to do shall not slow the next measurement.
        timed(&mut Command::new("sync"))?;
        let name = format!("large-{round}");
        table.add("put", put(&network, &source, &name)?);
        table.add("put, receivers discard", receivers.send(size * SLOTS / DATA, SLICE)?.into());
        timed(&mut Command::new("sync"))?;
        table.add("get", get(&network, &name, &source, &back)?);
        table.add("get, receivers' memory", receivers.fetch(size, SLICE)?.into());
        let slow = network.slow_down(SLOW)?;
        let run = get(&network, &name, &source, &back);
        drop(slow);
        table.add("get, 3 seeders slow", run?);
        table.add("cp + sync", copy(&source, &at("copy"))?.into());
        if let Ok((backup, restore)) = restic(folder.path(), &source) {
            table.add("restic backup", backup.into());
            table.add("restic restore", restore.into());
        }
        if let Some(grid) = &grid {
            let (capability, stored) = grid.put(&source)?;
            table.add("tahoe put", stored.into());
            table.add("tahoe get", grid.get(&capability, &back)?.into());
            std::fs::remove_file(&back)?;
        }
    }
    let name = format!("large-{}", rounds - 1);
    network.kill(SLOTS - DATA)?;
    for _ in 0..rounds {
        table.add("get, 10 seeders dead", get(&network, &name, &at("large"), &at("back"))?);
    }
    table.print();
    Ok(())
}

/// A grid of Tahoe-LAFS nodes, if it can be had.
fn grid(folder: &Path) -> Option<Grid> {
    let program = std::env::var_os("TAHOE").filter(|program| !program.is_empty());
    let Some(program) = program.map(PathBuf::from) else {
        println!("Tahoe-LAFS is left out: scripts/bench installs it and says where in TAHOE");
        return None;
    };
    Grid::up(&program, folder).inspect_err(|error| println!("Tahoe-LAFS is left out: {error:#}")).ok()
}

fn put(network: &Network, source: &Path, name: &str) -> Result<Run> {
    let before = network.cpu()?;
    let mut command = network.command(&["put", text(source)?, name, "--json"]);
    let (client, answer) = answered(&mut command)?;
    let report: serde_json::Value = serde_json::from_slice(&answer)?;
    ensure!(
        report["signers"].as_u64() == Some(SLOTS as u64),
        "not all seeders hold it: {} of {SLOTS} signed, lost {}",
        report["signers"],
        report["lost"]
    );
    Ok(Run { client, all: client.cpu + network.cpu()? - before })
}

/// Gets a file and compares it with what it was.
fn get(network: &Network, name: &str, source: &Path, to: &Path) -> Result<Run> {
    let before = network.cpu()?;
    let client = timed(&mut network.command(&["get", name, "-o", text(to)?]))?;
    let run = Run { client, all: client.cpu + network.cpu()? - before };
    let same = Command::new("cmp").arg(source).arg(to).status()?;
    ensure!(same.success(), "{name} came back changed");
    std::fs::remove_file(to)?;
    Ok(run)
}

impl From<Used> for Run {
    fn from(client: Used) -> Self {
        Self { client, all: client.cpu }
    }
}

impl From<(Used, f64)> for Run {
    fn from((client, all): (Used, f64)) -> Self {
        Self { client, all }
    }
}

/// Runs by what was done, in the order in which that was first done.
struct Table {
    size: usize,
    rows: Vec<(&'static str, Vec<Run>)>,
}

impl Table {
    fn add(&mut self, what: &'static str, run: Run) {
        match self.rows.iter_mut().find(|(name, _)| *name == what) {
            Some((_, runs)) => runs.push(run),
            None => self.rows.push((what, vec![run])),
        }
    }

    /// The median run of a row.
    fn median(&self, what: &str) -> Option<Run> {
        let (_, runs) = self.rows.iter().find(|(name, _)| *name == what)?;
        let mut runs = runs.clone();
        runs.sort_by_key(|run| run.client.time);
        runs.get(runs.len() / 2).copied()
    }

    fn print(&self) {
        println!(
            "  {:<24} {:>9} {:>9} {:>12} {:>10} {:>9}",
            "", "MB/s", "s", "client ns/B", "all ns/B", "peak MiB"
        );
        for (what, _) in &self.rows {
            let Some(run) = self.median(what) else { continue };
            let (seconds, size) = (run.client.time.as_secs_f64(), self.size as f64);
            println!(
                "  {what:<24} {:>9.1} {seconds:>9.3} {:>12.2} {:>10.2} {:>9}",
                size / seconds / 1e6,
                run.client.cpu * 1e9 / size,
                run.all * 1e9 / size,
                run.client.peak_kib >> 10
            );
        }
        for (ours, theirs) in [
            ("put", "put, receivers discard"),
            ("put", "cp + sync"),
            ("put", "restic backup"),
            ("put", "tahoe put"),
            ("get", "get, receivers' memory"),
            ("get", "cp + sync"),
            ("get", "restic restore"),
            ("get", "tahoe get"),
            ("get, 10 seeders dead", "get"),
            ("get, 3 seeders slow", "get"),
        ] {
            if let (Some(ours_run), Some(their_run)) = (self.median(ours), self.median(theirs)) {
                let ratio = their_run.client.time.as_secs_f64() / ours_run.client.time.as_secs_f64();
                println!("  {ours:<22} {ratio:>8.2}x the speed of {theirs}");
            }
        }
    }
}

//! Puts and gets of one large file against twenty seeder processes on this machine, 10 of 20, beside peers in the same
//! run: the same bytes streamed to receivers that discard them, `cp` with a sync, restic, Tahoe-LAFS.
//!
//! A put counts when every seeder, not only a quorum, has signed the commit that names its slices; a seeder signs what
//! it holds durably. All processes share the cores of this machine, so beside the wall clock, which says what the whole
//! machine achieves, stands the processor time of the client, and that of everybody, for each byte of the file. Peers that
//! run already (receivers, Tahoe's gateway) stand beside a client that is open, those that are started (`cp`, restic)
//! beside the command, which opens a wallet and the connections each time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tallow_client::{Client, GetOptions, GetTarget, Silent, Source};
use tallow_types::Profile;

use crate::discard::Receivers;
use crate::files::{Used, answered, cpu_of, forget_peak, peak_of, timed};
use crate::local::Network;
use crate::peers::{copy, restic, text};
use crate::small::open;
use crate::tahoe::Grid;
use crate::timing::noise;

const DATA: usize = 10;
const SLOTS: usize = 20;
/// Slices of a full stripe under this profile: 32 MiB over twenty slots, in whole tiles. Bytes.
const SLICE: usize = 25 * (64 << 10);
/// How many seeders are slow in the read beside slow ones.
const SLOW: usize = 3;

/// What one run used: the client, and all processes together.
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
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table { size, rows: Vec::new() };
    println!(
        "10 of 20, {SLOTS} seeder processes on this machine, {} MiB of noise; put is done when all {SLOTS} hold it",
        size >> 20
    );
    let (source, back) = (at("large"), at("back"));
    for round in 0..rounds {
        std::fs::write(&source, noise(size, 2 * round))?;
        // What one file leaves for the disk to do shall not slow the next measurement.
        timed(&mut Command::new("sync"))?;
        runtime.block_on(async {
            let profile = Profile::from_k_of_n(10, 20).context("a profile")?;
            let client = open(&network, &at("client"), profile).await?;
            let there = Open { network: &network, client: &client };
            // A lease, connections, the catalog: what an open client has.
            there.put(Source::reader(Box::new(std::io::empty())), "first").await?;
            table.add("put", there.put(Source::path(&source), "large").await?);
            table.add("get", there.get("large", &source, &back).await?);
            let slow = network.slow_down(SLOW)?;
            let run = there.get("large", &source, &back).await;
            drop(slow);
            table.add("get, 3 seeders slow", run?);
            Ok::<_, anyhow::Error>(client.close().await?)
        })?;
        table.add("put, receivers discard", receivers.send(size * SLOTS / DATA, SLICE)?.into());
        table.add("get, receivers' memory", receivers.fetch(size, SLICE)?.into());
        if let Some(grid) = &grid {
            let (capability, stored) = grid.put(&source)?;
            table.add("tahoe put", stored.into());
            table.add("tahoe get", grid.get(&capability, &back)?.into());
            std::fs::remove_file(&back)?;
        }
        std::fs::write(&source, noise(size, 2 * round + 1))?;
        timed(&mut Command::new("sync"))?;
        table.add("put, a command", put(&network, &source, "command")?);
        table.add("get, a command", get(&network, "command", &source, &back)?);
        table.add("cp + sync", copy(&source, &at("copy"))?.into());
        if let Ok((backup, restore)) = restic(folder.path(), &source) {
            table.add("restic backup", backup.into());
            table.add("restic restore", restore.into());
        }
    }
    network.kill(SLOTS - DATA)?;
    for _ in 0..rounds {
        table.add("get, a command, 10 dead", get(&network, "command", &source, &back)?);
    }
    table.print();
    Ok(())
}

/// An open client in this process, whose processor time is therefore its own: nothing else runs in it meanwhile.
struct Open<'a> {
    network: &'a Network,
    client: &'a Client,
}

impl Open<'_> {
    async fn put(&self, source: Source, name: &str) -> Result<Run> {
        let before = self.begin()?;
        let report = self.client.put(source, name, Arc::new(Silent)).await?;
        let run = self.end(before)?;
        let signers = usize::from(report.signers);
        ensure!(signers == SLOTS, "not all hold it: {signers} of {SLOTS} signed, lost {:?}", report.lost);
        Ok(run)
    }

    async fn get(&self, name: &str, source: &Path, to: &Path) -> Result<Run> {
        let before = self.begin()?;
        let target = GetTarget::Path(to.to_owned());
        self.client.get(name, target, GetOptions::default(), Arc::new(Silent)).await?;
        let run = self.end(before)?;
        unchanged(source, to)?;
        Ok(run)
    }

    fn begin(&self) -> Result<(Instant, f64, f64)> {
        forget_peak();
        Ok((Instant::now(), cpu_of(std::process::id()), self.network.cpu()?))
    }

    fn end(&self, (start, own, theirs): (Instant, f64, f64)) -> Result<Run> {
        let (time, pid) = (start.elapsed(), std::process::id());
        let client = Used { time, cpu: cpu_of(pid) - own, peak_kib: peak_of(pid) >> 10 };
        Ok(Run { client, all: client.cpu + self.network.cpu()? - theirs })
    }
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
    unchanged(source, to)?;
    Ok(run)
}

/// Compares what came back with what it was, and removes it.
fn unchanged(source: &Path, back: &Path) -> Result<()> {
    let same = Command::new("cmp").arg(source).arg(back).status()?;
    ensure!(same.success(), "it came back changed");
    Ok(std::fs::remove_file(back)?)
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
            ("put", "tahoe put"),
            ("put, a command", "cp + sync"),
            ("put, a command", "restic backup"),
            ("get", "get, receivers' memory"),
            ("get", "tahoe get"),
            ("get, a command", "cp + sync"),
            ("get, a command", "restic restore"),
            ("get, 3 seeders slow", "get"),
            ("get, a command, 10 dead", "get, a command"),
        ] {
            if let (Some(ours_run), Some(their_run)) = (self.median(ours), self.median(theirs)) {
                let ratio = their_run.client.time.as_secs_f64() / ours_run.client.time.as_secs_f64();
                println!("  {ours:<24} {ratio:>8.2}x the speed of {theirs}");
            }
        }
    }
}

//! A development network of seeder processes for a bench, and what its processes use.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tallow_types::SeederId;

use crate::files::{cpu_of, peak_of, timed};

/// How long slow seeders stand still at a time, and how long they run then.
const STILL: Duration = Duration::from_millis(180);
const AWAKE: Duration = Duration::from_millis(20);

/// A development network that goes when this value does.
pub struct Network {
    tallow: PathBuf,
    home: PathBuf,
    dir: PathBuf,
}

impl Network {
    /// Starts a validator and one seeder a slot, with a wallet, all below `folder`.
    pub fn up(folder: &Path, profile: &str) -> Result<Self> {
        let tallow = std::env::current_exe()?.with_file_name("tallow");
        ensure!(tallow.exists(), "{} is not built; use scripts/bench", tallow.display());
        let network = Self { tallow, home: folder.join("home"), dir: folder.join("net") };
        let dir = network.dir.to_str().context("a temporary folder has a plain name")?;
        timed(&mut network.command(&["dev", "up", "--dir", dir, "--profile", profile]))?;
        let password = folder.join("wallet.password");
        std::fs::write(&password, "bench\n")?;
        timed(&mut network.command(&["wallet", "new"]))?;
        Ok(network)
    }

    /// The program with arguments, on this network.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tallow);
        command.arg("--home").arg(&self.home).arg("--quiet").args(args);
        command
    }

    /// What the program answers as JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let output = self.command(args).arg("--json").stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "tallow {args:?} failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Its nodes by their keys, the validator first.
    fn nodes(&self) -> Result<Vec<(SeederId, u32)>> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.dir.join("state.json"))?)?;
        let nodes = state["nodes"].as_array().context("the state names no nodes")?;
        let node = |node: &Value| {
            let pid = node["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            let peer = tallow_net::parse_bootstrap(node["address"].as_str().unwrap_or_default())?;
            Ok((peer.key.seeder(), pid.context("a node without a process")?))
        };
        nodes.iter().map(node).collect()
    }

    /// Processor seconds that its nodes have used.
    pub fn cpu(&self) -> Result<f64> {
        Ok(self.nodes()?.into_iter().map(|(_, pid)| cpu_of(pid)).sum())
    }

    /// The most memory that any of its seeders has held. Bytes.
    pub fn seeder_peak(&self) -> Result<u64> {
        Ok(self.nodes()?.into_iter().skip(1).map(|(_, pid)| peak_of(pid)).max().unwrap_or(0))
    }

    /// How long a file of the validator's is. Bytes.
    pub fn validator_file(&self, name: &str) -> Result<u64> {
        let path = self.dir.join("validator").join(name);
        Ok(std::fs::metadata(&path).with_context(|| path.display().to_string())?.len())
    }

    /// The processes of those who hold the first `count` slots: a reader would ask them first.
    fn first_holders(&self, count: usize) -> Result<Vec<Pid>> {
        let nodes = self.nodes()?;
        let report = self.json(&["stat"])?;
        let slots = report["slots"].as_array().context("the contract has no slots")?;
        let holder = |slot: &Value| {
            let seeder = slot["seeder"].as_str().and_then(SeederId::from_hex).context("a vacant slot")?;
            let (_, pid) =
                nodes.iter().find(|(id, _)| *id == seeder).context("a seeder without a process")?;
            i32::try_from(*pid).ok().and_then(Pid::from_raw).context("a process without a number")
        };
        slots.iter().take(count).map(holder).collect()
    }

    /// Kills the holders of the first `count` slots.
    pub fn kill(&self, count: usize) -> Result<()> {
        for pid in self.first_holders(count)? {
            kill_process(pid, Signal::KILL)?;
        }
        Ok(())
    }

    /// Lets the holders of the first `count` slots run a tenth of the time, until the value is dropped.
    pub fn slow_down(&self, count: usize) -> Result<Slowed> {
        let pids = self.first_holders(count)?;
        let (stop, stopped) = channel();
        let driver = std::thread::spawn(move || {
            let tell = |signal| {
                for pid in &pids {
                    // It may have been killed meanwhile, and needs no telling then.
                    let _ = kill_process(*pid, signal);
                }
            };
            let is_over = |time| stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
            loop {
                tell(Signal::STOP);
                let ends = is_over(STILL);
                tell(Signal::CONT);
                if ends || is_over(AWAKE) {
                    return;
                }
            }
        });
        Ok(Slowed { stop: Some(stop), driver: Some(driver) })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.command(&["dev", "down"]).status();
    }
}

/// Seeders that are slow for as long as this value lives.
pub struct Slowed {
    stop: Option<Sender<()>>,
    driver: Option<JoinHandle<()>>,
}

impl Drop for Slowed {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

//! The network of a demo: a folder of its own under the system's temporary one, and a supervisor that ends it all, and
//! deletes the folder, when this process ends, however it ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tallow_types::params::Params;
use tallow_types::{PublicKey, SeederId};
use tokio::process::Child;

use crate::args::{DevDir, DevUp, Global};
use crate::commands::dev::{launch, prepare, wait_until_ready};
use crate::context::{Chosen, Context};
use crate::dev::folder::{Folder, VALIDATOR};
use crate::dev::state::{NodeState, State};
use crate::failure::{Failure, Result, file_failed};

/// Names of demo folders begin so.
const PREFIX: &str = "tallow-demo-";
/// A demo folder that nobody holds and nobody touched for so long was left by a machine that lost its power.
const STALE: Duration = Duration::from_secs(600);
/// How long anything may take that only waits for a process to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running demo network.
pub struct DemoNetwork {
    /// The folder, with everything in it.
    pub folder: Folder,
    /// What runs.
    pub state: State,
    supervisor: Child,
}

impl DemoNetwork {
    /// Starts a validator and 12 seeders.
    pub async fn start(ctx: &Context) -> Result<Self> {
        let temporary = std::env::temp_dir();
        sweep(&temporary);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(&temporary)
            .map_err(|error| file_failed("make a folder in", &temporary, &error))?;
        let folder = Folder::at(dir.path())?;
        let args = DevUp {
            dir: DevDir { dir: None },
            seeders: None,
            profile: None,
            manual_clock: false,
            host: None,
            rebuild_validator: false,
        };
        let (plan, _) = prepare(&folder, &args, Params::dev())?;
        let mut supervisor = launch(&folder, false, true)?;
        // From here on the supervisor deletes it.
        let _ = dir.keep();
        let (state, missing) = wait_until_ready(ctx, &folder, &plan, &mut supervisor).await?;
        if let Some(failure) = missing.into_iter().next() {
            return Err(failure);
        }
        Ok(Self { folder, state, supervisor })
    }

    /// A context like that of a user who has nothing but this network, with a home inside the demo's folder.
    pub fn context(&self, ctx: &Context, home: &str) -> Result<Context> {
        let home = Some(self.folder.path(home));
        Context::new(Global { home, ..ctx.global.clone() })
    }

    /// The network, with the conveniences of a development one.
    pub fn chosen(&self) -> Result<Chosen> {
        Ok(Chosen { network: self.state.network()?, dev: Some(self.folder.clone()) })
    }

    /// The seeders, in the order of their names.
    pub fn seeders(&self) -> &[NodeState] {
        &self.state.nodes[1..]
    }

    /// Everything that seeders and validator keep on disk.
    pub fn disks(&self) -> Vec<PathBuf> {
        self.state.nodes.iter().map(|node| self.folder.path(&node.name)).collect()
    }

    /// Where a plaintext is planted for the test of the search.
    pub fn disk_of(&self, node: &NodeState) -> PathBuf {
        self.folder.path(&node.name)
    }

    /// Kills a node as the kernel would, and waits until the supervisor has seen it.
    pub async fn kill(&self, node: &NodeState) -> Result<()> {
        let pid = i32::try_from(node.pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| Failure::bug("a node without a process"))?;
        kill_process(pid, Signal::KILL).map_err(|error| {
            Failure::bug(format!("cannot kill {}", node.name)).because(&std::io::Error::from(error))
        })?;
        let path = self.folder.path("state.json");
        wait_for(|| {
            let state = State::read(&path).ok().flatten();
            state.is_some_and(|state| {
                state.nodes.iter().any(|other| other.name == node.name && other.ended.is_some())
            })
        })
        .await
        .ok_or_else(|| Failure::bug(format!("{} did not end when it was killed", node.name)))
    }

    /// Ends everything; true if all processes and the folder are gone.
    pub async fn finish(mut self) -> bool {
        drop(self.supervisor.stdin.take());
        let ended = tokio::time::timeout(PATIENCE, self.supervisor.wait()).await.is_ok();
        if !ended {
            let _ = self.supervisor.kill().await;
        }
        if self.folder.dir().exists() {
            // The supervisor was killed before it could.
            let _ = std::fs::remove_dir_all(self.folder.dir());
        }
        ended
            && !self.folder.dir().exists()
            && self.state.nodes.iter().all(|node| !is_ours(node, self.folder.dir()))
    }
}

/// The seeder's id, from its address.
pub fn seeder_id(node: &NodeState) -> Option<SeederId> {
    tallow_net::parse_bootstrap(&node.address).ok().map(|peer| PublicKey::seeder(&peer.key))
}

/// Whether the process with a node's number is that node: its command line names the folder.
fn is_ours(node: &NodeState, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", node.pid)).unwrap_or_default();
    let name = if node.name == VALIDATOR { dir.join(VALIDATOR) } else { dir.join(&node.name) };
    String::from_utf8_lossy(&line).contains(&*name.to_string_lossy())
}

/// Waits until something is so, looking every few milliseconds; `None` if it takes too long.
async fn wait_for(mut so: impl FnMut() -> bool) -> Option<()> {
    let mut every = tokio::time::interval(Duration::from_millis(10));
    let looking = async {
        while !so() {
            every.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.ok()
}

/// Deletes what demos left behind that could not clean up: the machine went down with them.
fn sweep(temporary: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let us = rustix::process::getuid().as_raw();
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let ours =
            entry.file_name().to_string_lossy().starts_with(PREFIX) && meta.is_dir() && meta.uid() == us;
        let old = meta.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > STALE);
        if ours
            && old
            && Folder::at(&entry.path())
                .and_then(|folder| folder.holder())
                .is_ok_and(|holder| holder.is_none())
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

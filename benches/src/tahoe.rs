//! Tahoe-LAFS as a peer: an introducer, storage nodes and a client's gateway on this machine, spoken to over HTTP as its
//! users do. `scripts/tahoe` installs it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::files::{Used, cpu_of, timed};

/// Storage nodes. Each holds two of the twenty shares, which spares it half of the processes that we run.
const NODES: usize = 10;
/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(240);

/// A grid that runs. Its processes end when this value is dropped.
pub struct Grid {
    program: PathBuf,
    folder: PathBuf,
    nodes: Vec<Child>,
    gateway: String,
}

impl Grid {
    /// Makes and starts everything below `folder`. `program` is what `scripts/tahoe` printed.
    pub fn up(program: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut grid = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            nodes: Vec::new(),
            gateway: String::new(),
        };
        grid.make("introducer", &["create-introducer"], &[])?;
        grid.run("introducer")?;
        let furl = grid.wait_for_file("introducer/private/introducer.furl")?;
        let storage: Vec<String> = (0..NODES).map(|number| format!("storage-{number}")).collect();
        for name in &storage {
            grid.make(name, &["create-node", "--webport=none"], &["--introducer", &furl])?;
            grid.run(name)?;
        }
        let port = free_port()?;
        let web = format!("--webport=tcp:{port}:interface=127.0.0.1");
        let shares = ["--shares-needed=10", "--shares-happy=10", "--shares-total=20"];
        let args = [&["create-client", &web][..], &shares].concat();
        grid.make("gateway", &args, &["--introducer", &furl])?;
        grid.run("gateway")?;
        grid.gateway = format!("http://127.0.0.1:{port}");
        grid.wait_for_storage()?;
        Ok(grid)
    }

    fn make(&self, name: &str, args: &[&str], more: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(args).args(more);
        if args[0] != "create-client" {
            let port = free_port()?;
            command.arg(format!("--port=tcp:{port}:interface=127.0.0.1"));
            command.arg(format!("--location=tcp:127.0.0.1:{port}"));
        }
        timed(command.arg(self.folder.join(name)))?;
        Ok(())
    }

    fn run(&mut self, name: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        // It ends with its input, so nothing is left behind when this process is killed.
        command.arg("run").arg(self.folder.join(name)).stdin(Stdio::piped());
        self.nodes.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    fn wait_for_file(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        wait(|| Ok(std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))))
            .map(|text| text.trim().to_owned())
    }

    fn wait_for_storage(&self) -> Result<()> {
        wait(|| {
            let output = curl().arg(format!("{}/?t=json", self.gateway)).output()?;
            let Ok(page) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
                return Ok(None);
            };
            let servers = page["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_up = |server: &&serde_json::Value| server["connection_status"] == "connected";
            Ok((servers.iter().filter(is_up).count() >= NODES).then_some(()))
        })
    }

    fn cpu(&self) -> f64 {
        self.nodes.iter().map(|node| cpu_of(node.id())).sum()
    }

    /// Stores a file: its capability, what it took, and the processor seconds of all.
    pub fn put(&self, file: &Path) -> Result<(String, Used)> {
        let (start, before) = (Instant::now(), self.cpu());
        let output = curl().arg("-T").arg(file).arg(format!("{}/uri", self.gateway)).output()?;
        ensure!(output.status.success(), "the grid did not take the file");
        let used = Used { time: start.elapsed(), cpu: self.cpu() - before, peak_kib: 0 };
        Ok((String::from_utf8(output.stdout)?.trim().to_owned(), used))
    }

    /// Gets a file back.
    pub fn get(&self, capability: &str, to: &Path) -> Result<Used> {
        let before = self.cpu();
        let url = format!("{}/uri/{capability}", self.gateway);
        let used = timed(curl().arg("-o").arg(to).arg(url))?;
        Ok(Used { cpu: self.cpu() - before, ..used })
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(pid) = i32::try_from(node.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        for node in &mut self.nodes {
            while matches!(node.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail"]);
    command
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait<T>(look: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    None.context("Tahoe did not come up in time")
}

//! The node processes of a development network: started together, stopped together, never left behind.
//!
//! Each child's standard input is a pipe from this process, its standard output says where it listens, its standard
//! error goes to a log in its folder. All children are started from the thread that calls, which must live as long as
//! they: the kernel ties them to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dev::folder::{Folder, Plan, VALIDATOR};
use crate::dev::fund;
use crate::dev::state::NodeState;
use crate::dev::supervisor::Report;
use crate::failure::{Failure, Result, file_failed};
use crate::home::private_dir;
use crate::network::Network;

/// How long a node may take from its start to its ready line.
const START: Duration = Duration::from_secs(60);
/// How long nodes may take to stop in order before they are killed.
const STOP: Duration = Duration::from_secs(10);

/// The one line that a supervised node prints: it listens and is known to the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadyLine {
    /// Where, as a bootstrap address.
    pub address: String,
}

/// The running nodes.
pub struct Fleet {
    /// What a state file says of them, the validator first.
    pub nodes: Vec<NodeState>,
    /// The network that they are.
    pub network: Network,
    inputs: Vec<Option<ChildStdin>>,
    ends: JoinSet<(usize, String)>,
    kill: watch::Sender<bool>,
}

/// A node that was started and has not yet said that it is ready.
struct Starting {
    name: String,
    child: Child,
    output: ChildStdout,
}

impl Fleet {
    /// Starts validator and seeders, and waits until all are ready or have failed to be. `tell` hears of each. Without
    /// some of its seeders a network still is one; without all of them it is none.
    pub async fn start(
        folder: &Folder,
        plan: &Plan,
        adopt: bool,
        mut tell: impl FnMut(Report) -> Result<()>,
    ) -> Result<Self> {
        let chain = folder.genesis()?.chain();
        let validator = spawn(folder, plan, VALIDATOR, |command| {
            command.args(["--role", "validator", "--genesis"]).arg(folder.path("genesis"));
            if plan.manual_clock {
                command.arg("--manual-clock");
            }
            if adopt {
                command.arg("--adopt");
            }
        })?;
        let validator = validator.ready(folder).await?;
        tell(Report::Up(VALIDATOR.to_owned()))?;
        let bootstrap = tallow_net::parse_bootstrap(&validator.0.address)
            .map_err(|error| Failure::bug("the validator printed no address").because(&error))?;
        let network = Network { chain, bootstrap: vec![bootstrap] };
        fund::seeders(folder, plan, &network).await?;
        let mut starting = JoinSet::new();
        for name in plan.seeder_names() {
            let seeder = spawn(folder, plan, &name, |command| {
                command.args(["--role", "seeder", "--network"]).arg(network.to_string());
            })?;
            let folder = folder.clone();
            starting.spawn(async move { (name, seeder.ready(&folder).await) });
        }
        let (mut seeders, mut missing) = (BTreeMap::new(), Vec::new());
        while let Some(done) = starting.join_next().await {
            let (name, outcome) = done.map_err(|error| Failure::bug("a start panicked").because(&error))?;
            match outcome {
                Ok(seeder) => {
                    tell(Report::Up(name.clone()))?;
                    seeders.insert(name, Some(seeder));
                }
                Err(failure) => {
                    missing.push(failure);
                    seeders.insert(name, None);
                }
            }
        }
        if missing.len() == seeders.len()
            && let Some(failure) = missing.pop()
        {
            return Err(failure);
        }
        for failure in missing {
            tell(Report::Missing(failure.to_json()))?;
        }
        let (kill, _) = watch::channel(false);
        let mut fleet = Self { nodes: Vec::new(), network, inputs: Vec::new(), ends: JoinSet::new(), kill };
        fleet.tend(validator);
        for (name, seeder) in seeders {
            match seeder {
                Some(seeder) => fleet.tend(seeder),
                None => fleet.miss(name),
            }
        }
        Ok(fleet)
    }

    /// Notes a node that never became ready.
    fn miss(&mut self, name: String) {
        let ended = Some("never became ready".to_owned());
        self.nodes.push(NodeState { name, pid: 0, address: String::new(), ended });
        self.inputs.push(None);
    }

    fn tend(&mut self, (node, mut child): (NodeState, Child)) {
        let index = self.nodes.len();
        self.nodes.push(node);
        self.inputs.push(child.stdin.take());
        let mut kill = self.kill.subscribe();
        self.ends.spawn(async move {
            let killed = async {
                // An error means that the fleet is gone, which ends its nodes too.
                let _ = kill.wait_for(|now| *now).await.is_ok();
            };
            let status = tokio::select! {
                status = child.wait() => status,
                () = killed => {
                    // It may have ended by itself in this moment; either way it is gone after the wait.
                    let _ = child.start_kill();
                    child.wait().await
                }
            };
            (index, status.map_or_else(|error| error.to_string(), |status| how(&status)))
        });
    }

    /// Waits until a node ends, and notes it. Pending for ever when none is left.
    pub async fn next_end(&mut self) {
        match self.ends.join_next().await {
            Some(Ok((index, how))) => self.nodes[index].ended = Some(how),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// Stops the seeders, then the validator, each in order if it can in time.
    pub async fn stop(mut self) {
        for inputs in [1..self.inputs.len(), 0..self.inputs.len().min(1)] {
            for input in &mut self.inputs[inputs.clone()] {
                input.take();
            }
            let gone = async {
                while self.nodes[inputs.clone()].iter().any(|node| node.ended.is_none()) {
                    match self.ends.join_next().await {
                        Some(Ok((index, how))) => self.nodes[index].ended = Some(how),
                        Some(Err(_)) => {}
                        None => break,
                    }
                }
            };
            if tokio::time::timeout(STOP, gone).await.is_err() {
                break;
            }
        }
        self.kill().await;
    }

    /// Kills what still runs, and waits until it is gone.
    pub async fn kill(mut self) {
        self.kill.send_replace(true);
        while self.ends.join_next().await.is_some() {}
    }
}

fn how(status: &ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn spawn(folder: &Folder, plan: &Plan, name: &str, arguments: impl FnOnce(&mut Command)) -> Result<Starting> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::unavailable("cannot find this program's own file").because(&error))?;
    let dir = folder.path(name);
    private_dir(&dir)?;
    let mut command = Command::new(program);
    command.args(["--json", "node", "run", "--supervised", "--dir"]).arg(&dir);
    command.arg("--key").arg(folder.key_file(name)).arg("--listen").arg(listen(plan, &dir));
    arguments(&mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log(&dir)?);
    command.current_dir("/").kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| Failure::unavailable(format!("cannot start {name}")).because(&error))?;
    let output = child.stdout.take().expect("its output is a pipe");
    Ok(Starting { name: name.to_owned(), child, output })
}

impl Starting {
    /// Waits for the ready line.
    async fn ready(self, folder: &Folder) -> Result<(NodeState, Child)> {
        let Self { name, child, output } = self;
        let dir = folder.path(&name);
        let mut line = String::new();
        let mut reader = BufReader::new(output);
        let read = tokio::time::timeout(START, reader.read_line(&mut line)).await.map_err(|_| {
            Failure::unavailable(format!("{name} was not ready after {} s", START.as_secs()))
                .hint(format!("look into {}", dir.join("log").display()))
        })?;
        let ready: Option<ReadyLine> = read.ok().and_then(|_| serde_json::from_str(&line).ok());
        let Some(ready) = ready else { return Err(why_not(&name, &dir)) };
        remember_port(&dir, &ready.address)?;
        let pid = child.id().unwrap_or(0);
        Ok((NodeState { name, pid, address: ready.address, ended: None }, child))
    }
}

/// What a node that ended too early had to say: the last line of its log.
fn why_not(name: &str, dir: &Path) -> Failure {
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    let last = log.lines().rev().find_map(|line| Failure::from_json(&serde_json::from_str(line).ok()?));
    match last {
        Some(mut failure) => {
            failure.message = format!("{name} did not start: {}", failure.message);
            failure
        }
        None => Failure::unavailable(format!("{name} ended before it was ready"))
            .hint(format!("look into {}", dir.join("log").display())),
    }
}

/// The log of this run; the one before stays beside it, older ones go.
fn log(dir: &Path) -> Result<File> {
    let path = dir.join("log");
    if let Err(error) = std::fs::rename(&path, dir.join("log.1"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(file_failed("move", &path, &error));
    }
    File::create(&path).map_err(|error| file_failed("write", &path, &error))
}

/// The port of the last run if it is still free, so that addresses which people noted keep working; else any.
fn listen(plan: &Plan, dir: &Path) -> String {
    let host = plan.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let last: Option<u16> =
        std::fs::read_to_string(dir.join("port")).ok().and_then(|text| text.trim().parse().ok());
    let free = last.filter(|port| TcpListener::bind((host, *port)).is_ok());
    let kind = if host.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{kind}/{host}/tcp/{}", free.unwrap_or(0))
}

fn remember_port(dir: &Path, address: &str) -> Result<()> {
    let port = address.split("/tcp/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("0");
    let path = dir.join("port");
    std::fs::write(&path, port).map_err(|error| file_failed("write", &path, &error))
}

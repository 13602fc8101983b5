//! The process that owns a development network. It runs in a session of its own, so that closing the terminal does not
//! reach it. It ends by a signal, with its input while it still starts the nodes (whoever asked for them is gone then), and
//! with its input at any time when it belongs to a demo. Its nodes end with it.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dev::fleet::Fleet;
use crate::dev::folder::Folder;
use crate::dev::state::State;
use crate::failure::{Failure, Result};
use crate::lifeline;
use crate::stop::Stop;

/// How often an ephemeral folder is tried to be deleted, some milliseconds apart.
const DELETE_TRIES: usize = 200;

/// What the supervisor tells the command that started it, one line each on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// A node is ready.
    Up(String),
    /// A seeder is not, and the network goes on without it. As `--json` prints a failure.
    Missing(serde_json::Value),
    /// All others are; the state file is written.
    Ready,
    /// It gave up; nothing runs. As `--json` prints a failure.
    Failed(serde_json::Value),
}

/// Runs a network until it is told to stop.
pub async fn run(dir: &Path, adopt: bool, ephemeral: bool) -> Result<()> {
    // Fails only for the leader of a group, which a child of `dev up` is not; then the terminal's signals reach us, no more.
    let _ = rustix::process::setsid();
    let folder = Folder::at(dir)?;
    let outcome = supervise(&folder, adopt, ephemeral).await;
    if let Err(failure) = &outcome {
        // Whoever started us may be gone; then nobody needs to know.
        let _ = report(Report::Failed(failure.to_json()));
    }
    if ephemeral {
        delete(folder.dir()).await;
    }
    outcome
}

/// Deletes a folder in which processes may be ending that still make files.
async fn delete(dir: &Path) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..DELETE_TRIES {
        if std::fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        every.tick().await;
    }
}

async fn supervise(folder: &Folder, adopt: bool, ephemeral: bool) -> Result<()> {
    let Some(_hold) = folder.take()? else { return Err(already_up(folder)) };
    let plan = folder.plan()?.ok_or_else(|| Failure::bug("the folder was not made before it was started"))?;
    let path = folder.path("state.json");
    // What the last supervisor wrote, if it could not clean up, is not true any more.
    let _ = std::fs::remove_file(&path);
    let mut told = Told::listen()?;
    let mut fleet = tokio::select! {
        fleet = Fleet::start(folder, &plan, adopt, report) => fleet?,
        () = told.stop_signal() => return Err(Failure::interrupted("stopped while starting")),
    };
    let mut state = State::new(crate::now().get(), &fleet.network, fleet.nodes.clone());
    let done = state.write(&path).and_then(|()| report(Report::Ready));
    if let Err(failure) = done {
        fleet.kill().await;
        let _ = std::fs::remove_file(&path);
        return Err(failure);
    }
    if !ephemeral {
        told.orphaned = None;
    }
    loop {
        tokio::select! {
            () = fleet.next_end() => {
                state.nodes.clone_from(&fleet.nodes);
                if let Err(failure) = state.write(&path) {
                    // The others go on; what runs is only shown wrongly.
                    tracing::error!(%failure, "cannot note that a node ended");
                }
            }
            () = told.stop_signal() => break,
        }
    }
    if ephemeral {
        fleet.kill().await
    } else {
        fleet.stop().await
    }
    // What no longer runs must not be read as running; the lock says the same if this fails.
    let _ = std::fs::remove_file(&path);
    Ok(())
}

/// The answer to a second start in one folder.
pub fn already_up(folder: &Folder) -> Failure {
    Failure::user(format!("the network in {} is already up", folder.dir().display()))
        .hint("look at it with: tallow dev status")
        .hint("stop it with: tallow dev down")
}

#[expect(clippy::needless_pass_by_value, reason = "told and forgotten")]
fn report(report: Report) -> Result<()> {
    let line = serde_json::to_string(&report).expect("a report is plain data");
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::interrupted("the command that started this is gone").because(&error))
}

/// Everything that tells the supervisor to stop.
struct Told {
    stop: Stop,
    /// Fires when whoever started us is gone; `None` when that is no reason to stop.
    orphaned: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Told {
    fn listen() -> Result<Self> {
        Ok(Self { stop: Stop::listen()?, orphaned: Some(lifeline::tie(false)) })
    }

    async fn stop_signal(&mut self) {
        let orphaned = async {
            match &mut self.orphaned {
                Some(orphaned) => drop(orphaned.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.stop.asked() => {}
            () = orphaned => {}
        }
    }
}

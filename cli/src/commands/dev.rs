//! `tallow dev`: a network of one's own on this machine.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use tallow_types::params::Params;
use tallow_types::wire::ChainStatus;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::args::{Dev, DevUp};
use crate::context::{Context, running};
use crate::dev::folder::{Folder, Plan, VALIDATOR};
use crate::dev::rebuild;
use crate::dev::remote::Remote;
use crate::dev::state::State;
use crate::dev::supervisor::{Report, already_up};
use crate::failure::{Failure, Result, file_failed};
use crate::stop::Stop;
use crate::{human, output};

/// Most seeders of a development network: the most slots that a contract has.
const SEEDERS_MAX: u8 = 255;
/// How long the supervisor may take to stop.
const STOP: Duration = Duration::from_secs(40);
/// After how long without news a person is told what is awaited.
const SILENCE: Duration = Duration::from_secs(5);

/// Runs one of the commands.
pub async fn run(ctx: &Context, command: Dev) -> Result<()> {
    match command {
        Dev::Down(args) => down(ctx, &ctx.dev_folder(args.dir.as_deref())?).await,
        Dev::Status(args) => status(ctx, &ctx.dev_folder(args.dir.as_deref())?).await,
        Dev::Tick { epochs, dir } => tick(ctx, &ctx.dev_folder(dir.dir.as_deref())?, epochs).await,
        Dev::Up(_) | Dev::Supervise { .. } => Err(Failure::bug("this command has a way of its own")),
    }
}

/// Starts the network in a folder, or finds it running; either way it is the current one then.
pub async fn up(ctx: &Context, args: DevUp) -> Result<()> {
    let mut stop = Stop::listen()?;
    let folder = ctx.dev_folder(args.dir.dir.as_deref())?;
    if folder.holder()?.is_some() && !args.rebuild_validator {
        return up_already(ctx, &folder, &args);
    }
    let (plan, new) = prepare(&folder, &args, Params::dev())?;
    let adopt = rebuild::check(&folder, &plan, args.rebuild_validator)?;
    let mut supervisor = launch(&folder, adopt, false)?;
    let outcome = tokio::select! {
        outcome = wait_until_ready(ctx, &folder, &plan, &mut supervisor) => outcome,
        failure = stop.asked() => Err(failure),
    };
    let (state, missing) = match outcome {
        Ok(up) => up,
        Err(failure) => {
            // Nothing is left of a start that failed: the supervisor ends with its input.
            drop(supervisor.stdin.take());
            if tokio::time::timeout(STOP, supervisor.wait()).await.is_err() {
                let _ = supervisor.kill().await;
            }
            return Err(failure);
        }
    };
    for failure in &missing {
        ctx.out.warn(format!("{failure}; the network goes on without it"));
    }
    tell_up(ctx, &folder, &plan, &state, if new { Up::New } else { Up::Again })
}

/// How a network came to be up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Up {
    New,
    Again,
    Already,
}

/// A network that runs becomes the current one.
fn up_already(ctx: &Context, folder: &Folder, args: &DevUp) -> Result<()> {
    let state = running(folder)?;
    let plan = folder.plan()?.ok_or_else(|| Failure::bug("a network runs that was never made"))?;
    refuse_other_plan(folder, &plan, args)?;
    tell_up(ctx, folder, &plan, &state, Up::Already)
}

fn tell_up(ctx: &Context, folder: &Folder, plan: &Plan, state: &State, how: Up) -> Result<()> {
    let network = state.network()?;
    ctx.home.set_folder(&network.chain, folder.dir())?;
    let value = json!({
        "dir": folder.dir().display().to_string(),
        "new": how == Up::New,
        "was_up": how == Up::Already,
        "network": network.to_string(),
        "chain": network.chain.to_string(),
        "seeders": plan.seeders,
        "profile": profile_text(plan)?,
        "pid": state.pid,
        "missing": state.missing(),
    });
    let has_wallet = ctx.home.wallet(&network.chain).exists();
    ctx.out.result("dev-up", value, || {
        let what = match how {
            Up::New => "a new network",
            Up::Again => "the network again",
            Up::Already => "the network was up already; it is the current one now:",
        };
        let next = if has_wallet { "tallow put FILE" } else { "tallow wallet new" };
        format!(
            "{what} in {}: a validator and {}, each a process\nnetwork  {network}\nnext     {next}\n",
            folder.dir().display(),
            human::count(u64::from(plan.seeders), "seeder"),
        )
    });
    Ok(())
}

fn profile_text(plan: &Plan) -> Result<String> {
    let profile = plan.profile()?;
    Ok(format!("{}/{}", profile.data(), profile.slots()))
}

/// The plan of the network in a folder, which is made if it is new.
pub fn prepare(folder: &Folder, args: &DevUp, params: Params) -> Result<(Plan, bool)> {
    let Some(_hold) = folder.take()? else { return Err(already_up(folder)) };
    if let Some(plan) = folder.plan()? {
        refuse_other_plan(folder, &plan, args)?;
        return Ok((plan, false));
    }
    let usual = tallow_types::Profile::from_k_of_n(4, 12).expect("4 of 12 is a profile");
    let profile = args.profile.unwrap_or_else(|| match args.seeders {
        // A small network without a wish gets the widest profile that it can carry.
        Some(n) if n < 12 => tallow_types::Profile::from_k_of_n(n.div_ceil(3), n).unwrap_or(usual),
        _ => usual,
    });
    let seeders = args.seeders.unwrap_or(profile.slots());
    if seeders < profile.slots() {
        return Err(Failure::user(format!("profile {profile} needs {} seeders", profile.slots()))
            .hint(format!("give --seeders {} or more, at most {SEEDERS_MAX}", profile.slots())));
    }
    let mut plan = Plan::new(seeders, profile, args.manual_clock);
    plan.host = args.host;
    folder.make(&plan, crate::now(), params)?;
    Ok((plan, true))
}

fn refuse_other_plan(folder: &Folder, plan: &Plan, args: &DevUp) -> Result<()> {
    let profile = plan.profile()?;
    let other = args.seeders.is_some_and(|seeders| seeders != plan.seeders)
        || args.profile.is_some_and(|wanted| wanted != profile)
        || (args.manual_clock && !plan.manual_clock)
        || args.host.is_some_and(|host| Some(host) != plan.host);
    if !other {
        return Ok(());
    }
    let clock = if plan.manual_clock { "a manual clock" } else { "the wall clock" };
    Err(Failure::user(format!(
        "the network in {} was made with {} seeders, profile {profile} and {clock}",
        folder.dir().display(),
        plan.seeders
    ))
    .hint("start it as it is with: tallow dev up")
    .hint("make another in another folder: tallow dev up --dir DIR .."))
}

/// Starts the supervisor of a folder. It gives up when its standard input ends before its network is up; an ephemeral
/// one later too.
pub fn launch(folder: &Folder, adopt: bool, ephemeral: bool) -> Result<Child> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::unavailable("cannot find this program's own file").because(&error))?;
    let log = folder.path("supervisor.log");
    let errors = std::fs::File::create(&log).map_err(|error| file_failed("write", &log, &error))?;
    let mut command = Command::new(program);
    command.args(["--json", "dev", "supervise", "--dir"]).arg(folder.dir());
    if adopt {
        command.arg("--adopt");
    }
    if ephemeral {
        command.arg("--ephemeral");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).current_dir("/");
    command.spawn().map_err(|error| Failure::unavailable("cannot start the supervisor").because(&error))
}

/// Follows the reports of a supervisor until its network is up: the state, and why some seeders are not.
pub async fn wait_until_ready(
    ctx: &Context,
    folder: &Folder,
    plan: &Plan,
    supervisor: &mut Child,
) -> Result<(State, Vec<Failure>)> {
    let reports = supervisor.stdout.take().expect("its output is a pipe");
    let mut lines = BufReader::new(reports).lines();
    let bar = starting_bar(ctx, u64::from(plan.seeders) + 1);
    let mut awaited: BTreeSet<String> = plan.seeder_names().chain([VALIDATOR.to_owned()]).collect();
    let mut missing = Vec::new();
    let read =
        |failure| Failure::from_json(&failure).unwrap_or_else(|| Failure::bug("the supervisor failed"));
    loop {
        let Ok(line) = tokio::time::timeout(SILENCE, lines.next_line()).await else {
            let names: Vec<&str> = awaited.iter().map(String::as_str).collect();
            bar.suspend(|| ctx.out.note(format!("still waiting for {}", names.join(", "))));
            continue;
        };
        let line = line.ok().flatten();
        let report = line.as_deref().and_then(|line| serde_json::from_str(line).ok());
        match report {
            Some(Report::Up(name)) => {
                bar.inc(1);
                awaited.remove(&name);
                bar.set_message(name);
            }
            Some(Report::Ready) => break,
            Some(Report::Missing(failure)) => missing.push(read(failure)),
            Some(Report::Failed(failure)) => return Err(read(failure)),
            None => {
                let log = folder.path("supervisor.log");
                return Err(Failure::unavailable("the network did not come up")
                    .hint(format!("look into {}", log.display())));
            }
        }
    }
    bar.finish_and_clear();
    let state = State::read(&folder.path("state.json"))?
        .ok_or_else(|| Failure::bug("the supervisor wrote no state"))?;
    Ok((state, missing))
}

fn starting_bar(ctx: &Context, nodes: u64) -> indicatif::ProgressBar {
    if ctx.out.json || ctx.out.quiet {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("starting [{bar:30}] {pos}/{len} {msg}")
        .expect("a valid template")
        .progress_chars("=> ");
    indicatif::ProgressBar::new(nodes).with_style(style)
}

async fn down(ctx: &Context, folder: &Folder) -> Result<()> {
    let holder = folder.holder()?;
    if let Some(pid) = holder {
        stop(folder, pid).await?;
    }
    let value = json!({ "dir": folder.dir().display().to_string(), "was_up": holder.is_some() });
    ctx.out.result("dev-down", value, || {
        let dir = folder.dir().display();
        if holder.is_some() {
            format!("the network in {dir} is down; its data stays\n")
        } else {
            format!("no network was up in {dir}\n")
        }
    });
    Ok(())
}

/// Asks the supervisor to stop and waits until it is gone. The process descriptor makes sure that no other process that
/// got its number is hit.
async fn stop(folder: &Folder, pid: Pid) -> Result<()> {
    let gone = |error: rustix::io::Errno| error == rustix::io::Errno::SRCH;
    let failed = |error: rustix::io::Errno| {
        Failure::unavailable("cannot reach the supervisor").because(&std::io::Error::from(error))
    };
    let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(process) => process,
        Err(error) if gone(error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if folder.holder()? != Some(pid) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::TERM) {
        Ok(()) => {}
        Err(error) if gone(error) => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let (process, ended) = tokio::task::spawn_blocking(move || {
        let ended = ends_within(&process, STOP);
        (process, ended)
    })
    .await
    .map_err(|error| Failure::bug("the wait for the supervisor panicked").because(&error))?;
    if ended {
        return Ok(());
    }
    // Its nodes end with it, whatever it was doing.
    match pidfd_send_signal(&process, Signal::KILL) {
        Err(error) if !gone(error) => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Waits for the end of a process; false if it takes too long. A process descriptor becomes readable when its process
/// ends.
fn ends_within(process: &OwnedFd, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let Ok(rest) = Timespec::try_from(rest) else { return false };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&rest)) {
            Ok(0) => return false,
            Ok(_) => return true,
            // A signal to this process; the other one is still awaited.
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

async fn status(ctx: &Context, folder: &Folder) -> Result<()> {
    let dir = folder.dir().display().to_string();
    let Some(plan) = folder.plan()? else {
        return Err(
            Failure::user(format!("there is no network in {dir}")).hint("make one with: tallow dev up")
        );
    };
    if folder.holder()?.is_none() {
        let value =
            json!({ "dir": dir, "up": false, "seeders": plan.seeders, "profile": profile_text(&plan)? });
        ctx.out.result("dev-status", value, || {
            format!("the network in {dir} is down\nnext     tallow dev up --dir {dir}\n")
        });
        return Ok(());
    }
    let state = running(folder)?;
    let remote = Remote::connect(&state.network()?).await?;
    let ledger = remote.status().await;
    remote.close().await;
    let value = status_json(folder, &plan, &state, ledger.as_ref().ok())?;
    ctx.out.result("dev-status", value, || status_text(folder, &state, ledger.as_ref().ok()));
    ledger.map(|_| ())
}

fn status_json(folder: &Folder, plan: &Plan, state: &State, ledger: Option<&ChainStatus>) -> Result<Value> {
    let nodes: Value = state
        .nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name,
                "pid": node.pid,
                "address": node.address,
                "ended": node.ended,
                "disk_bytes": disk_bytes(&folder.path(&node.name)),
            })
        })
        .collect();
    Ok(json!({
        "dir": folder.dir().display().to_string(),
        "up": true,
        "seeders": plan.seeders,
        "profile": profile_text(plan)?,
        "network": state.network()?.to_string(),
        "pid": state.pid,
        "height": ledger.map(|status| status.height.get()),
        "epoch": ledger.map(|status| status.epoch.get()),
        "time": ledger.and_then(|status| human::rfc3339(status.time)),
        "nodes": nodes,
    }))
}

fn status_text(folder: &Folder, state: &State, ledger: Option<&ChainStatus>) -> String {
    let since = Duration::from_millis(crate::now().get().saturating_sub(state.started_ms));
    let network = state.network().map(|network| network.to_string()).unwrap_or_default();
    let ledger = ledger.map_or_else(
        || "does not answer".to_owned(),
        |status| format!("epoch {}, block {}", status.epoch, status.height),
    );
    let rows: Vec<Vec<String>> = state
        .nodes
        .iter()
        .map(|node| {
            let how = node.ended.clone().unwrap_or_else(|| "runs".to_owned());
            vec![
                node.name.clone(),
                node.pid.to_string(),
                how,
                human::size(disk_bytes(&folder.path(&node.name))),
            ]
        })
        .collect();
    format!(
        "the network in {} has been up for {}\nnetwork  {network}\nledger   {ledger}\n\n{}",
        folder.dir().display(),
        human::duration(since),
        output::table(&["node", "process", "state", "disk"], &[false, true, false, true], &rows),
    )
}

/// Bytes that a folder takes on the disk: what files occupy, not what they claim.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

async fn tick(ctx: &Context, folder: &Folder, epochs: u32) -> Result<()> {
    let state = running(folder)?;
    let plan = folder.plan()?.ok_or_else(|| Failure::bug("a network runs that was never made"))?;
    if !plan.manual_clock {
        return Err(Failure::user("the epochs of this network pass by the wall clock")
            .hint("make one whose epochs pass on request: tallow dev up --dir DIR --manual-clock"));
    }
    let remote = Remote::connect(&state.network()?).await?;
    let epoch = remote.tick(epochs).await;
    remote.close().await;
    let epoch = epoch?;
    ctx.out.result("dev-tick", json!({ "epoch": epoch.get() }), || format!("it is epoch {epoch}\n"));
    Ok(())
}

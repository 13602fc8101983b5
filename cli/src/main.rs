//! The program `tallow`: everything that users see. It parses the command line, opens wallet and network, calls the
//! client library or runs a node, and says how it went. Rules and formats live in the other crates.

mod args;
mod context;
mod demo {
    pub mod search;
    pub mod tree;
}
mod dev;
mod failure;
mod home;
mod human;
mod keyfile;
mod lifeline;
mod network;
mod output;
mod reference;
mod secret;
mod wallet;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tallow_types::TimeMs;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Cli, Command, Dev, Node, Role, Seed};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Output;

fn main() {}
/// Waits until the user, or the system, wants the program to stop. What was begun stays resumable.
async fn interrupted() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Failure::interrupted("interrupted").hint("type the same command again: it goes on where it stopped")
}

fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "tallow", &mut std::io::stdout());
}

fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "error",
        1 => "info,libp2p=warn",
        _ => "debug,libp2p=info",
    };
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_writer(std::io::stderr).init();
}

/// The machine's clock.
fn now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    TimeMs::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

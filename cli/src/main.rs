//! The program `tallow`: everything that users see. It parses the command line, opens wallet and network, calls the
//! client library or runs a node, and says how it went. Rules and formats live in the other crates.

mod args;
mod commands;
mod context;
mod demo;
mod dev;
mod failure;
mod home;
mod human;
mod keyfile;
mod lifeline;
mod network;
mod output;
mod progress;
#[cfg(test)]
mod reference;
mod secret;
mod session;
mod stop;
mod wallet;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tallow_types::TimeMs;

use crate::args::{Cli, Command, Dev, Node, Role, Seed};
use crate::commands::{blobs, contract, node};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::stop::Stop;

fn main() -> ExitCode {
    // clap ends the program itself for --help, --version and command lines that it can't read, with code 0 or 2.
    let cli = Cli::parse();
    let out = Output::new(&cli.global);
    log_to_stderr(cli.global.verbose);
    // A panic has told where on standard error; what is left is to end as a bug ends.
    let outcome =
        std::panic::catch_unwind(|| run(cli)).unwrap_or_else(|_| Err(Failure::bug("the program panicked")));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure::exit_code(failure.kind))
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let alone = matches!(cli.command, Command::Dev(Dev::Supervise { .. }));
    // The supervisor starts its children from this thread, to whose life the kernel ties them.
    let runtime = if alone {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    };
    let runtime = runtime.map_err(|error| Failure::unavailable("cannot start threads").because(&error))?;
    let outcome = runtime.block_on(dispatch(cli));
    // A read of standard input or a file can't be cancelled; the end of the program does not wait for it.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Completions { shell } => {
            completions(shell);
            Ok(())
        }
        Command::Dev(Dev::Supervise { dir, adopt, ephemeral }) => {
            dev::supervisor::run(&dir, adopt, ephemeral).await
        }
        // It waits for the supervisor to clean up, also when it is stopped.
        Command::Dev(Dev::Up(args)) => commands::dev::up(&Context::new(cli.global)?, args).await,
        Command::Demo(args) => demo::run(&Context::new(cli.global)?, args).await,
        Command::Seed(Seed::Run(args)) => {
            let ctx = Context::new(cli.global)?;
            let plan = node::Start {
                role: Role::Seeder,
                genesis: None,
                manual_clock: false,
                adopt: false,
                supervised: false,
            };
            node::run(&ctx, plan, args).await
        }
        Command::Node(Node::Run { role, genesis, manual_clock, adopt, supervised, run }) => {
            let ctx = Context::new(cli.global)?;
            node::run(&ctx, node::Start { role, genesis, manual_clock, adopt, supervised }, run).await
        }
        command => {
            let ctx = Context::new(cli.global)?;
            let mut stop = Stop::listen()?;
            tokio::select! {
                outcome = user_command(&ctx, command) => outcome,
                failure = stop.asked() => Err(failure),
            }
        }
    }
}

/// Commands that a person waits for, and may stop at any moment.
async fn user_command(ctx: &Context, command: Command) -> Result<()> {
    match command {
        Command::Put(args) => blobs::put(ctx, args).await,
        Command::Get(args) => blobs::get(ctx, args).await,
        Command::Ls(args) => blobs::ls(ctx, args).await,
        Command::Stat(args) => match args.name {
            Some(name) => blobs::stat(ctx, &name).await,
            None => contract::stat(ctx).await,
        },
        Command::Rm(args) => blobs::rm(ctx, args).await,
        Command::Refuel(args) => contract::refuel(ctx, args).await,
        Command::Repair(line) => contract::repair(ctx, &line).await,
        Command::Quote(args) => contract::quote(ctx, args).await,
        Command::Wallet(command) => commands::wallet::run(ctx, command).await,
        Command::Dev(command) => commands::dev::run(ctx, command).await,
        Command::Demo(_) | Command::Seed(_) | Command::Node(_) | Command::Completions { .. } => {
            Err(Failure::bug("this command has a way of its own"))
        }
    }
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
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
}

/// The machine's clock.
fn now() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    TimeMs::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

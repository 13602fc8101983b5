//! The command line as types. Every command says in its help what it does and shows how it is typed; the reference in
//! `docs/operating/cli.md` is made from this file and compared with it by a test.

mod node;
mod range;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tallow_net::Limit;
use tallow_types::{AccountId, Fuel, Profile};

use crate::human;
use crate::network::Network;

pub use node::{Node, NodeRun, Role, Seed};
pub use range::ByteRange;
use range::parse_range;

/// Keep private files alight on other people's disks.
#[derive(Debug, Parser)]
#[command(name = "tallow", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  tallow demo                        see all of it happen on this machine, in a minute
  tallow dev up; tallow wallet new   a network of your own, and a funded wallet
  tallow put ~/letters               store a folder
  tallow get letters -o /tmp/back    get it back

Exit codes: 0 done, 1 cannot be done as asked, 2 set-up, 3 somebody is not there, 4 interrupted, 5 bug.")]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Folder for wallets, caches and the current network [default: ~/.local/state/tallow]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Network to use instead of the current one: tallow:<chain id>@<address>[,<address>..]
    #[arg(long, global = true, value_name = "STRING")]
    pub network: Option<Network>,
    /// File whose first line is the wallet password; - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print one JSON object per line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Tell on standard error what happens inside; twice for more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a file, a folder, or a stream
    #[command(
        after_help = "A put that was interrupted goes on where it stopped when the same command is typed again. One that left
something out (sockets, devices, names that are not UTF-8, what changed while it was read) stores the rest, names
each, and ends with exit code 1.

A folder is laid over what is stored under its name: files of the same path are replaced, a file in its place too,
and what was deleted on this machine since stays stored. For a mirror, remove the name first: tallow rm -r NAME.

Examples:
  tallow put letter.txt              as the blob letter.txt
  tallow put ~/letters archive/2026  a folder, as archive/2026/..
  tar c /etc | tallow put - etc.tar  a stream of any length"
    )]
    Put(Put),
    /// Get a blob or a folder back
    #[command(after_help = "Examples:
  tallow get letters                 into ./letters
  tallow get letters -o /tmp/back    into /tmp/back
  tallow get etc.tar -o - | tar t    to standard output
  tallow get film.mkv --range 0-1MiB -o start.bin
  tallow get / -o everything         all there is")]
    Get(Get),
    /// List blobs
    #[command(after_help = "Examples:
  tallow ls                          the top
  tallow ls letters -r               everything under letters")]
    Ls(Ls),
    /// Show a blob, or how the stored data is doing
    #[command(after_help = "Examples:
  tallow stat                        health and money of the contract
  tallow stat letters/one.txt        one blob")]
    Stat(Stat),
    /// Remove blobs
    #[command(after_help = "Examples:
  tallow rm letters/one.txt
  tallow rm letters -r")]
    Rm(Rm),
    /// Add fuel, so that stored data stays longer
    #[command(after_help = "Examples:
  tallow refuel 2.5                  two and a half fuel
  tallow refuel --for 90d            what 90 days take at present")]
    Refuel(Refuel),
    /// Fill vacant slots and bring seeders up to the newest state
    Repair(Line),
    /// Tell what storing something would cost
    #[command(after_help = "Examples:
  tallow quote 20GiB --for 90d")]
    Quote(Quote),
    /// Make, restore or show the wallet
    #[command(subcommand)]
    Wallet(Wallet),
    /// Keep a development network on this machine
    #[command(subcommand)]
    Dev(Dev),
    /// Show everything on a network of its own: store, search, kill, fetch, compare
    #[command(
        after_help = "Starts a validator and 12 seeders, stores FILE|DIR with profile 4 of 12, shows that nothing in their files
is readable, kills 8 seeders, gets everything back, and cleans up. Without an argument it takes a tree that
it finds on this machine.

Examples:
  tallow demo
  tallow demo ~/letters"
    )]
    Demo(Demo),
    /// Store for others
    #[command(subcommand)]
    Seed(Seed),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  tallow completions bash > ~/.local/share/bash-completion/completions/tallow")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// One process of a development network
    #[command(hide = true, subcommand)]
    Node(Node),
}

/// Store a file, a folder, or a stream.
#[derive(Debug, Args)]
pub struct Put {
    /// File or folder to store; - for standard input
    pub source: PathBuf,
    /// Path to store it under [default: the name of SOURCE]
    pub name: Option<String>,
    /// Redundancy of the contract that the first put opens: k slices of n are enough
    #[arg(long, value_name = "K/N")]
    pub profile: Option<Profile>,
    /// How it goes over the line
    #[command(flatten)]
    pub line: Line,
}

/// Get a blob or a folder back.
#[derive(Debug, Args)]
pub struct Get {
    /// What to get; / for everything
    pub name: String,
    /// Where to write it; - for standard output [default: the last part of NAME]
    #[arg(long, short, value_name = "TARGET")]
    pub output: Option<PathBuf>,
    /// Only these bytes: A-B (B not included), A- or -B for the last B
    #[arg(long, value_name = "A-B", value_parser = parse_range, allow_hyphen_values = true)]
    pub range: Option<ByteRange>,
    /// Replace files that are there already
    #[arg(long, short)]
    pub force: bool,
    /// How it goes over the line
    #[command(flatten)]
    pub line: Line,
}

/// How a command goes over the line.
#[derive(Clone, Debug, Default, Args)]
pub struct Line {
    /// How fast
    #[command(flatten)]
    pub limits: Limits,
    /// Try QUIC before TCP: for lines that lose packets, and where UDP gets through and TCP does not
    #[arg(long)]
    pub quic: bool,
}

/// How much of a line a command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Limits {
    /// Send at most so much a second, over all connections: bytes (600K, 2MB) or bits (5Mbit); at least 1Mbit
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub limit_up: Option<Limit>,
    /// Receive at most so much a second, over all connections
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub limit_down: Option<Limit>,
}

impl Limits {
    /// The same numbers, and otherwise the usual ones.
    pub fn tuning(&self) -> tallow_net::Tuning {
        let or_none = |limit: &Option<Limit>| limit.clone().unwrap_or_default();
        tallow_net::Tuning {
            up: or_none(&self.limit_up),
            down: or_none(&self.limit_down),
            ..tallow_net::Tuning::default()
        }
    }
}

/// List blobs.
#[derive(Debug, Args)]
pub struct Ls {
    /// Folder to list
    #[arg(default_value = "")]
    pub prefix: String,
    /// List folders inside folders too
    #[arg(long, short)]
    pub recursive: bool,
}

/// Show a blob, or how the stored data is doing.
#[derive(Debug, Args)]
pub struct Stat {
    /// Blob or folder; without it, the contract
    pub name: Option<String>,
}

/// Remove blobs.
#[derive(Debug, Args)]
pub struct Rm {
    /// What to remove
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Remove folders with all that is in them
    #[arg(long, short)]
    pub recursive: bool,
}

/// Add fuel.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Refuel {
    /// How much fuel
    #[arg(value_parser = human::parse_fuel)]
    pub amount: Option<Fuel>,
    /// As much as this long takes at present
    #[arg(long = "for", value_name = "TIME", value_parser = human::parse_duration)]
    pub time: Option<Duration>,
}

/// Tell what storing something would cost.
#[derive(Debug, Args)]
pub struct Quote {
    /// How much to store
    #[arg(value_parser = human::parse_size)]
    pub size: u64,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = human::parse_duration)]
    pub time: Duration,
    /// Redundancy: k slices of n are enough
    #[arg(long, value_name = "K/N")]
    pub profile: Option<Profile>,
}

/// Make, restore or show the wallet.
#[derive(Debug, Subcommand)]
pub enum Wallet {
    /// Make a wallet for the current network and print its 24 words
    #[command(after_help = "The words are the only way back to everything stored. Write them down.

Examples:
  tallow wallet new
  tallow wallet new --password-file ~/.tallow-password")]
    New,
    /// Make the wallet again from its 24 words, typed or on standard input
    #[command(
        after_help = "Nothing but the words and one network string is needed. The words may be on one line or on several, with or
without their numbers. The password for the new wallet file is asked for at the terminal; in a script it comes
from --password-file. With --password-file - the first line of standard input is the password, the words follow.

Examples:
  tallow wallet restore --network tallow:9f86..@/ip4/192.0.2.7/tcp/4001/p2p/12D3..
  tallow wallet restore --password-file FILE < words.txt"
    )]
    Restore,
    /// Send money to another account
    #[command(after_help = "Examples:
  tallow wallet send 4f1c..e2 100")]
    Send {
        /// Who gets it: 64 hexadecimal digits
        #[arg(value_parser = parse_account)]
        account: AccountId,
        /// How much fuel
        #[arg(value_parser = human::parse_fuel)]
        amount: Fuel,
    },
    /// Find who holds this account's data, without the ledger
    #[command(
        after_help = "Asks the table of nodes, from any node that is up, and each seeder that it names. Where no ledger
answers any more, this is where the data still is.

Examples:
  tallow wallet holders
  tallow wallet holders --words --network tallow:9f86..@/ip4/192.0.2.7/tcp/4001/p2p/12D3.. < words.txt"
    )]
    Holders {
        /// Take the 24 words from the terminal or standard input, not the wallet file
        #[arg(long)]
        words: bool,
    },
    /// Show account, balance and network string
    Show {
        /// Print the 24 words too
        #[arg(long)]
        phrase: bool,
    },
}

/// Keep a development network on this machine.
#[derive(Debug, Subcommand)]
pub enum Dev {
    /// Start the network in a folder, make it if it is new, and make it the current one
    #[command(
        after_help = "One validator and N seeders run as processes of their own until `tallow dev down`. Where the
network is up already it only becomes the current one.

Examples:
  tallow dev up
  tallow dev up --dir /tmp/net --seeders 5 --profile 2/5"
    )]
    Up(DevUp),
    /// Stop it; its data stays, and the time until the next start burns nothing
    Down(DevDir),
    /// Show what runs
    Status(DevDir),
    /// Let N epochs pass on a network that was made with --manual-clock
    Tick {
        /// How many
        epochs: u32,
        /// Where the network is
        #[command(flatten)]
        dir: DevDir,
    },
    /// The process that owns the others
    #[command(hide = true)]
    Supervise {
        /// Where the network is
        #[arg(long)]
        dir: PathBuf,
        /// Begin with a rebuilt validator
        #[arg(long)]
        adopt: bool,
        /// End, and delete the folder, when standard input ends
        #[arg(long)]
        ephemeral: bool,
    },
}

/// Where a development network is.
#[derive(Debug, Args)]
pub struct DevDir {
    /// Folder of the network [default: the current one, else <home>/dev]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Start a development network.
#[derive(Debug, Args)]
pub struct DevUp {
    /// Where the network is
    #[command(flatten)]
    pub dir: DevDir,
    /// How many seeders, fixed when the network is made [default: as many as the profile has slots]
    #[arg(long, value_name = "N")]
    pub seeders: Option<u8>,
    /// Redundancy that puts ask for, fixed when the network is made [default: 4/12, with fewer seeders a third of them]
    #[arg(long, value_name = "K/N")]
    pub profile: Option<Profile>,
    /// Address of this machine to listen at, fixed when the network is made; any but a loopback address is open to other
    /// machines [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub host: Option<IpAddr>,
    /// Let epochs pass by `tallow dev tick` only, fixed when the network is made
    #[arg(long)]
    pub manual_clock: bool,
    /// Make it again where its validator's folder is lost, from a seeder's copy of the ledger
    #[arg(long)]
    pub rebuild_validator: bool,
}

/// Show everything.
#[derive(Debug, Args)]
pub struct Demo {
    /// What to store
    pub path: Option<PathBuf>,
}

fn parse_account(text: &str) -> Result<AccountId, String> {
    AccountId::from_hex(text.trim()).ok_or_else(|| "an account is 64 hexadecimal digits".to_owned())
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    let rate = human::parse_rate(text)?;
    if rate < Limit::MIN {
        return Err(format!("'{text}' is less than 1Mbit a second (125KB), below which transfers break off"));
    }
    Ok(Limit::of(rate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// Goal: the tree is sound. Method: clap's own check.
    #[test]
    fn tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// Goal: limits are read as the help says, and too small ones are refused. Method: a table.
    #[test]
    fn limits_are_read() {
        let said = |text: &str| parse_limit(text).map(|limit| format!("{limit:?}"));
        assert_eq!(said("5Mbit"), Ok("Limit(625000 B/s)".to_owned()));
        assert_eq!(said("600K"), Ok("Limit(614400 B/s)".to_owned()));
        assert_eq!(said("2MB/s"), Ok("Limit(2000000 B/s)".to_owned()));
        for text in ["100K", "0", "fast", "999kbit", "5Mbyte", ""] {
            assert!(said(text).is_err(), "{text}");
        }
    }

    /// Goal: the reference page is true. Method: make it again and compare; `TALLOW_BLESS=1` writes it.
    #[test]
    fn reference_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating/cli.md");
        let made = crate::reference::page();
        if std::env::var_os("TALLOW_BLESS").is_some() {
            std::fs::write(&path, &made).expect("writes the reference");
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == made, "docs/operating/cli.md is out of date: run the tests with TALLOW_BLESS=1");
    }
}

//! The command line as types. Every command says in its help what it does and shows how it is typed; the reference in
//! `docs/operating/cli.md` is made from this file and compared with it by a test.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tallow_types::{AccountId, Fuel, FuelPerMibEpoch, Profile};

use crate::human;
use crate::network::Network;

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
    Repair,
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

/// Store for others.
#[derive(Debug, Subcommand)]
pub enum Seed {
    /// Run a seeder until it is stopped
    #[command(after_help = "Examples:
  tallow seed run --dir /srv/tallow --network tallow:9f86..@/ip4/192.0.2.7/tcp/4001/p2p/12D3.. \\
    --listen /ip4/0.0.0.0/tcp/4001 --room 500GiB")]
    Run(NodeRun),
}

/// One process of a development network.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Run it until it is stopped
    Run {
        /// What it does
        #[arg(long)]
        role: Role,
        /// Genesis of the network; a validator needs it to begin
        #[arg(long)]
        genesis: Option<PathBuf>,
        /// Let epochs pass on request only
        #[arg(long)]
        manual_clock: bool,
        /// Become the validator with the ledger copy that is in the folder
        #[arg(long)]
        adopt: bool,
        /// End when standard input ends, print the address as JSON
        #[arg(long)]
        supervised: bool,
        /// What every node takes
        #[command(flatten)]
        run: NodeRun,
    },
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Orders blocks.
    Validator,
    /// Stores for pay.
    Seeder,
}

/// What every node takes.
#[derive(Debug, Args)]
pub struct NodeRun {
    /// Folder for slices, ledger copy and the node's key
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS", default_value = "/ip4/127.0.0.1/tcp/0")]
    pub listen: String,
    /// File with the node's key, made if it is missing [default: DIR/node.key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Account that earns [default: the node's own]
    #[arg(long, value_name = "ACCOUNT", value_parser = parse_account)]
    pub payout: Option<AccountId>,
    /// Base units for one MiB kept for one epoch [default: the least that the network allows]
    #[arg(long, value_name = "UNITS", value_parser = parse_price)]
    pub price: Option<FuelPerMibEpoch>,
    /// How much to hold at most
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = human::parse_size)]
    pub room: u64,
    /// Where the disk is
    #[arg(long, value_name = "LABEL", default_value = "local")]
    pub region: String,
    /// In how many days every slice is read and checked once; 0 for never
    #[arg(long, value_name = "DAYS", default_value_t = 14)]
    pub scrub_days: u32,
}

/// A range of bytes as typed; the size of the blob makes it a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From, and up to but not including.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

impl ByteRange {
    /// The range in a blob of `size` bytes; its end is cut to the size.
    pub fn within(self, size: u64) -> Range<u64> {
        match self {
            Self::Between(start, end) => start..end.min(size).max(start),
            Self::From(start) => start..size.max(start),
            Self::Last(count) => size.saturating_sub(count)..size,
        }
    }
}

fn parse_range(text: &str) -> Result<ByteRange, String> {
    let hint = || format!("'{text}' is no range; write 0-1024, 1MiB-, or -100 for the last 100 bytes");
    let (start, end) = text.split_once('-').ok_or_else(hint)?;
    match (start.trim(), end.trim()) {
        ("", "") => Err(hint()),
        ("", last) => human::parse_size(last).map(ByteRange::Last),
        (start, "") => human::parse_size(start).map(ByteRange::From),
        (start, end) => {
            let (start, end) = (human::parse_size(start)?, human::parse_size(end)?);
            if start > end {
                return Err(format!("'{text}' ends before it begins"));
            }
            Ok(ByteRange::Between(start, end))
        }
    }
}

fn parse_account(text: &str) -> Result<AccountId, String> {
    AccountId::from_hex(text.trim()).ok_or_else(|| "an account is 64 hexadecimal digits".to_owned())
}

fn parse_price(text: &str) -> Result<FuelPerMibEpoch, String> {
    text.trim()
        .parse()
        .map(FuelPerMibEpoch::new)
        .map_err(|_| "a price is a whole number of base units".to_owned())
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

    /// Goal: ranges mean what the help says. Method: table, with the edges of a blob.
    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("0-1KiB"), Ok(ByteRange::Between(0, 1024)));
        assert_eq!(parse_range("5-"), Ok(ByteRange::From(5)));
        assert_eq!(parse_range("-5"), Ok(ByteRange::Last(5)));
        for text in ["", "-", "5", "7-3", "a-b", "1-2-3"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
        assert_eq!(ByteRange::Between(2, 100).within(10), 2..10);
        assert_eq!(ByteRange::From(12).within(10), 12..12);
        assert_eq!(ByteRange::Last(100).within(10), 0..10);
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

//! What a node is told on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tallow_types::{AccountId, FuelPerMibEpoch};

use super::{Limits, parse_account};
use crate::human;

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
    /// Where to listen, also several times; port 0 takes any free one. With TCP comes QUIC, on the UDP port of the
    /// same number, if that is free
    #[arg(long, value_name = "ADDRESS", default_value = "/ip4/127.0.0.1/tcp/0")]
    pub listen: Vec<String>,
    /// Do not listen for QUIC beside TCP
    #[arg(long)]
    pub no_quic: bool,
    /// Where others reach it, also several times, if that is not where it listens
    #[arg(long, value_name = "ADDRESS")]
    pub announce: Vec<String>,
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
    /// How fast
    #[command(flatten)]
    pub limits: Limits,
}

fn parse_price(text: &str) -> Result<FuelPerMibEpoch, String> {
    text.trim()
        .parse()
        .map(FuelPerMibEpoch::new)
        .map_err(|_| "a price is a whole number of base units".to_owned())
}

//! Figures of the data path and of whole puts and gets, each beside a limit or a peer measured in the same run.
//!
//! Absolute times say little on a shared machine; every line ends in a ratio. Nothing here is a test: `scripts/bench`
//! runs it and compares with the figures kept in `benches/baseline.md`.

mod catalog;
mod coding;
mod discard;
mod files;
mod growth;
mod lanes;
mod local;
mod network;
mod peers;
mod pipeline;
mod small;
mod stages;
mod store;
mod tahoe;
mod timing;

use anyhow::{Result, bail};

/// Not a bench: what the receiver processes of `discard` are started with.
const RECEIVER: &str = "discard-receiver";

/// A bench: its name, whether it runs without being asked for, and what it does. Those that take many minutes are asked
/// for.
type Bench = (&'static str, bool, fn() -> Result<()>);

const BENCHES: &[Bench] = &[
    ("stages", true, stages::run),
    ("coding", true, coding::run),
    ("pipeline", true, pipeline::run),
    ("network", true, network::run),
    ("small", true, small::run),
    ("small-single", false, small::run_single),
    ("lanes", true, lanes::run),
    ("store", true, store::run),
    ("network-gib", false, network::run_gib),
    ("growth", false, growth::run),
    ("catalog", false, catalog::run),
];

fn main() -> Result<()> {
    let which: Vec<String> = std::env::args().skip(1).collect();
    if which == [RECEIVER] {
        return discard::receive();
    }
    if let Some(unknown) = which.iter().find(|arg| BENCHES.iter().all(|(name, ..)| name != arg)) {
        let names: Vec<&str> = BENCHES.iter().map(|(name, ..)| *name).collect();
        bail!("no bench is called {unknown}; there are: {}", names.join(", "));
    }
    let is_wanted = |(name, always, _): &&Bench| {
        if which.is_empty() { *always } else { which.iter().any(|arg| arg == name) }
    };
    BENCHES.iter().filter(is_wanted).try_for_each(|(_, _, run)| run())
}

//! Figures of the data path and of whole puts and gets, each beside a limit or a peer measured in the same run.
//!
//! Absolute times say little on a shared machine; every line ends in a ratio. Nothing here is a test: `scripts/bench`
//! runs it and compares with the figures kept in `benches/baseline.md`.

mod discard;
mod files;
mod local;
mod network;
mod peers;
mod stages;
mod tahoe;
mod timing;

use anyhow::{Result, bail};

/// Not a bench: what the receiver processes of `discard` are started with.
const RECEIVER: &str = "discard-receiver";

fn main() -> Result<()> {
    let which: Vec<String> = std::env::args().skip(1).collect();
    if which == [RECEIVER] {
        return discard::receive();
    }
    let wanted = |name: &str| which.is_empty() || which.iter().any(|arg| arg == name);
    if let Some(unknown) =
        which.iter().find(|arg| !["stages", "network", "network-gib"].contains(&arg.as_str()))
    {
        bail!("no bench is called {unknown}; there are: stages, network, network-gib");
    }
    if wanted("stages") {
        stages::run()?;
    }
    if wanted("network") {
        network::run()?;
    }
    // Ten times the data of `network`: minutes, so only when asked for.
    if which.iter().any(|arg| arg == "network-gib") {
        network::run_gib()?;
    }
    Ok(())
}

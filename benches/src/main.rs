//! Figures of the data path and of whole puts and gets, each beside a limit or a peer measured in the same run.
//!
//! Absolute times say little on a shared machine; every line ends in a ratio. Nothing here is a test: `scripts/bench`
//! runs it and compares with the figures kept in `benches/baseline.md`.

mod files;
mod network;
mod stages;
mod timing;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let which: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| which.is_empty() || which.iter().any(|arg| arg == name);
    if let Some(unknown) = which.iter().find(|arg| !["stages", "network"].contains(&arg.as_str())) {
        bail!("no bench is called {unknown}; there are: stages, network");
    }
    if wanted("stages") {
        stages::run()?;
    }
    if wanted("network") {
        network::run()?;
    }
    Ok(())
}

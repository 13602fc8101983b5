//! What runs in a development network: written by its supervisor, read by everybody else.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result, file_failed};
use crate::network::Network;
use crate::wallet::write_secret;

/// Layout version of the file.
const VERSION: u32 = 1;
/// How many seeders a network string names beside the validator.
const SEEDERS_NAMED: usize = 3;

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The supervisor's process.
    pub pid: u32,
    /// When it started. Milliseconds since 1970.
    pub started_ms: u64,
    /// The network string, with the validator's address only.
    network: String,
    /// Every node, the validator first.
    pub nodes: Vec<NodeState>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name, and that of its folder.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: String,
    /// How it ended, if it has.
    pub ended: Option<String>,
}

impl State {
    /// Of a network that just came up.
    pub fn new(started_ms: u64, network: &Network, nodes: Vec<NodeState>) -> Self {
        Self { version: VERSION, pid: std::process::id(), started_ms, network: network.to_string(), nodes }
    }

    /// The network, by its validator and some seeders that run: they know the ledger too, so that what is stored can be
    /// read while the validator is gone.
    pub fn network(&self) -> Result<Network> {
        let bad = |error| Failure::config("state.json names no network").because(&error);
        let mut network: Network = self.network.parse().map_err(bad)?;
        let seeders = self.nodes.iter().skip(1).filter(|node| node.ended.is_none());
        for node in seeders.take(SEEDERS_NAMED) {
            network.bootstrap.push(tallow_net::parse_bootstrap(&node.address).map_err(|e| bad(e.into()))?);
        }
        Ok(network)
    }

    /// Names of the nodes that have ended, or never came up.
    pub fn missing(&self) -> Vec<&str> {
        self.nodes.iter().filter(|node| node.ended.is_some()).map(|node| node.name.as_str()).collect()
    }

    /// From its file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("read", path, &error)),
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| Failure::config(format!("cannot read {}", path.display())).because(&error))?;
        if state.version != VERSION {
            return Err(Failure::config(format!(
                "{} has version {}, this program reads version {VERSION}",
                path.display(),
                state.version
            )));
        }
        Ok(Some(state))
    }

    /// To its file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a state is plain data");
        write_secret(path, text.as_bytes(), true).map_err(|error| file_failed("write", path, &error))
    }
}

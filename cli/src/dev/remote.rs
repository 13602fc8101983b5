//! Questions to the validator of a network, without a wallet.

use bytes::Bytes;
use tallow_ledger::{key, record};
use tallow_net::{Config, Node, Peer, Transport as _};
use tallow_types::fault::Fault;
use tallow_types::params::Params;
use tallow_types::sign::Keypair;
use tallow_types::wire::{ChainStatus, Request, Response};
use tallow_types::{AccountId, Bounded, DurationMs, Epoch, Height, decode};

use crate::failure::{Failure, Result};
use crate::keyfile::random;
use crate::network::Network;

/// A connection under a throw-away key.
pub struct Remote {
    node: Node,
    peer: Peer,
}

impl Remote {
    /// To the first node of the network.
    pub async fn connect(network: &Network) -> Result<Self> {
        let key = Keypair::from_seed(&*random()?);
        let node = Node::start(Config::new(&key))
            .await
            .map_err(|error| Failure::unavailable("cannot use the network").because(&error))?;
        let peer =
            network.bootstrap.first().cloned().ok_or_else(|| Failure::bug("a network without addresses"))?;
        Ok(Self { node, peer })
    }

    /// Where its ledger stands.
    pub async fn status(&self) -> Result<ChainStatus> {
        let request = Request::Status { above: Height::ZERO, wait: DurationMs::ZERO };
        match self.ask(request).await? {
            Response::Status(status) => Ok(status),
            _ => Err(unexpected()),
        }
    }

    /// Lets epochs pass.
    pub async fn tick(&self, epochs: u32) -> Result<Epoch> {
        match self.ask(Request::Tick { epochs }).await? {
            Response::Ticked { epoch } => Ok(epoch),
            _ => Err(unexpected()),
        }
    }

    /// The network's rules.
    pub async fn params(&self) -> Result<Params> {
        let name = Bounded::new(key::NETWORK.to_vec()).expect("a short key");
        let keys = Bounded::new(vec![name]).expect("one key");
        let Response::State { values, .. } = self.ask(Request::State { keys }).await? else {
            return Err(unexpected());
        };
        let record = values.iter().flatten().next().and_then(|value| decode::<record::Network>(value).ok());
        record.map(|network| network.params).ok_or_else(unexpected)
    }

    /// Those of these accounts that the ledger has no record of.
    pub async fn unknown(&self, accounts: &[AccountId]) -> Result<Vec<AccountId>> {
        let mut unknown = Vec::new();
        for account in accounts {
            let name = Bounded::new(key::account(account).to_vec()).expect("a short key");
            let keys = Bounded::new(vec![name]).expect("one key");
            let Response::State { values, .. } = self.ask(Request::State { keys }).await? else {
                return Err(unexpected());
            };
            if values.iter().flatten().next().is_none() {
                unknown.push(*account);
            }
        }
        Ok(unknown)
    }

    /// One question.
    async fn ask(&self, request: Request) -> Result<Response> {
        let reply = self.node.call(&self.peer, request, Bytes::new()).await;
        reply.map(|reply| reply.response).map_err(|fault| not_answered(&fault))
    }

    /// Ends the connection.
    pub async fn close(self) {
        self.node.shutdown().await;
    }
}

fn not_answered(fault: &Fault) -> Failure {
    use tallow_types::fault::{Party, Retry};
    if fault.blames() == Party::Caller && fault.code().retry() == Retry::Never {
        return Failure::user("the validator refuses").because(fault);
    }
    Failure::unavailable("the validator does not answer")
        .because(fault)
        .hint("see what runs with: tallow dev status")
}

fn unexpected() -> Failure {
    Failure::bug("an answer of another kind than the question")
}

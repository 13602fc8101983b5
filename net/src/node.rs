//! A node on a real network: libp2p over TCP with Noise and Yamux, and over QUIC.
//!
//! One task (`driver`) drives the swarm (`swarm`): it listens, dials, searches, and keeps the connections. Calls go over a few streams to
//! each peer, opened when first needed and again when they break (`links`). Each stream has one task at either end.
//!
//! Guarantees: as [`Transport`] says. A fixed port that somebody else listens on is an error, not a silent share.
//!
//! Who is called is the caller's business. With [`Discovery`](crate::Discovery), a peer that is not at its addresses is
//! looked for before a call to it fails.

mod discovery;
mod driver;
mod guard;
mod links;
mod mux;
mod providers;
mod socket;
mod streams;
mod swarm;
mod wires;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tallow_types::contract::Address;
use tallow_types::fault::Fault;
use tallow_types::wire::Request;
use tallow_types::{ContractId, PublicKey, encode};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{Config, StartError};
use crate::exchange::{self, Rule};
use crate::peer::Peer;
use crate::transport::{Reply, Transport};
use links::Links;

/// How long `shutdown` waits for requests that write.
const GRACE: Duration = Duration::from_secs(10);

/// A running node. Clones are the same node; it stops when `shutdown` is called or the last clone goes.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    key: PublicKey,
    addresses: Arc<Mutex<Vec<Address>>>,
    links: Links,
    /// Asks for an orderly end: nothing new is taken.
    stop: CancellationToken,
    /// Ends everything.
    end: CancellationToken,
    /// Streams and what they serve.
    serving: TaskTracker,
    /// The swarm's task.
    swarm: TaskTracker,
    _guards: [DropGuard; 2],
}

impl Node {
    /// Starts listening and answering. Returns when it listens everywhere it should.
    ///
    /// # Errors
    /// [`StartError`] if it can't listen where it should.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let end = CancellationToken::new();
        let started = swarm::start(config, stop.clone(), end.clone()).await?;
        let inner = Inner {
            key: started.key,
            addresses: started.addresses,
            links: Links::new(started.dialer, started.tuning),
            _guards: [stop.clone().drop_guard(), end.clone().drop_guard()],
            stop,
            end,
            serving: started.serving,
            swarm: started.swarm,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Where it listens, with the actual ports, without `/p2p/`; TCP first.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        let mut addresses = self.inner.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        addresses.sort_by_key(|address| address.as_str().contains("/udp/"));
        addresses
    }

    /// This node as a peer for others.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::new(self.inner.key, self.addresses())
    }

    /// Those who say to hold a contract. They are called without addresses: the search for these comes with the call.
    pub async fn holders(&self, contract: ContractId) -> Vec<Peer> {
        let found = self.inner.links.dialer().holders(contract).await;
        found.into_iter().map(|key| Peer::new(key, Vec::new())).collect()
    }

    /// Says from now on that this node holds these contracts, and no others.
    pub async fn announce(&self, held: BTreeSet<ContractId>) {
        self.inner.links.dialer().announce(held).await;
    }

    /// Takes no more requests, lets those that write run to their end (for at most ten seconds), and closes all
    /// connections. Calls fail from then on.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.serving.close();
        if timeout(GRACE, inner.serving.wait()).await.is_err() {
            tracing::warn!(left = inner.serving.len(), "requests were still served when the node stopped");
        }
        inner.end.cancel();
        inner.swarm.close();
        inner.swarm.wait().await;
    }
}

#[async_trait]
impl Transport for Node {
    fn key(&self) -> PublicKey {
        self.inner.key
    }

    async fn call(&self, peer: &Peer, request: Request, payload: Bytes) -> Result<Reply, Fault> {
        let rule = Rule::of(&request);
        let header = Bytes::from(encode(&request));
        exchange::check_request(&rule, &header, &payload)?;
        if peer.key == self.inner.key {
            return Err(exchange::to_oneself());
        }
        self.inner.links.call(peer, rule, header, payload).await
    }
}

#[cfg(test)]
mod tests;

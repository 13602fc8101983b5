//! A node on a real network: libp2p over TCP, Noise and Yamux.

use async_trait::async_trait;
use bytes::Bytes;
use tallow_types::PublicKey;
use tallow_types::contract::Address;
use tallow_types::fault::Fault;
use tallow_types::wire::Request;

use crate::config::{Config, StartError};
use crate::peer::Peer;
use crate::transport::{Reply, Transport};

/// A running node. Clones are the same node; it stops when `shutdown` is called or the last clone goes.
#[derive(Clone)]
pub struct Node {}

impl Node {
    /// Starts listening and answering.
    ///
    /// # Errors
    /// [`StartError`] if it can't listen where it should.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let _ = config;
        tokio::task::yield_now().await;
        unimplemented!()
    }

    /// Where it listens, with the actual ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        unimplemented!()
    }

    /// This node as a peer for others.
    #[must_use]
    pub fn peer(&self) -> Peer {
        unimplemented!()
    }

    /// Stops listening, lets requests that write run to their end, and closes all connections.
    pub async fn shutdown(&self) {
        tokio::task::yield_now().await;
        unimplemented!()
    }
}

#[async_trait]
impl Transport for Node {
    fn key(&self) -> PublicKey {
        unimplemented!()
    }

    async fn call(&self, _peer: &Peer, _request: Request, _payload: Bytes) -> Result<Reply, Fault> {
        unimplemented!()
    }
}

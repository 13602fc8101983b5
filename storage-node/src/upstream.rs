//! The way to nodes that know more of the ledger: whom a follower asks for blocks and hands transactions to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tallow_consensus::{Piece, Source};
use tallow_net::{Peer, Reply, Transport};
use tallow_types::fault::{Code, Fault};
use tallow_types::wire::{ChainStatus, Request, Response};
use tallow_types::{DurationMs, Height, PublicKey};

/// Peers to ask, in turn: the one that answered last is asked first.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
}

struct Inner {
    peers: Vec<Peer>,
    transport: OnceLock<Line>,
    turn: AtomicUsize,
}

/// How peers are called.
enum Line {
    Held(Arc<dyn Transport>),
    Lent(Weak<dyn Transport>),
}

impl Upstream {
    /// From peers; none for a node that knows the most itself.
    #[must_use]
    pub fn new(peers: Vec<Peer>) -> Self {
        Self { inner: Arc::new(Inner { peers, transport: OnceLock::new(), turn: AtomicUsize::new(0) }) }
    }

    /// Says how peers are called. The service must exist before the network that serves it, hence not at once.
    pub fn connect(&self, transport: Arc<dyn Transport>) {
        // A second call changes nothing: a node has one transport.
        let _ = self.inner.transport.set(Line::Held(transport));
    }

    /// As [`Upstream::connect`], for a transport that holds the service that holds this: the caller keeps it alive.
    pub fn connect_lent(&self, transport: Weak<dyn Transport>) {
        // As above.
        let _ = self.inner.transport.set(Line::Lent(transport));
    }

    fn transport(&self) -> Option<Arc<dyn Transport>> {
        match self.inner.transport.get()? {
            Line::Held(transport) => Some(transport.clone()),
            Line::Lent(transport) => transport.upgrade(),
        }
    }

    /// The peers.
    #[must_use]
    pub fn peers(&self) -> &[Peer] {
        &self.inner.peers
    }

    /// Whether this is one of them: its requests are not handed back to it.
    #[must_use]
    pub fn has(&self, key: &PublicKey) -> bool {
        self.inner.peers.iter().any(|peer| peer.key == *key)
    }

    /// Asks peers until one answers. A fault that says something about the request itself ends the search.
    ///
    /// # Errors
    /// The last fault.
    pub async fn call(&self, request: &Request, payload: &Bytes) -> Result<Reply, Fault> {
        let Some(transport) = self.transport() else {
            return Err(Fault::new(Code::Unreachable, "this node is not connected yet"));
        };
        let peers = &self.inner.peers;
        let mut last = Fault::new(Code::Unsupported, "this node knows nobody who makes blocks");
        let first = self.inner.turn.load(Ordering::Relaxed);
        for turn in first..first + peers.len() {
            match transport.call(&peers[turn % peers.len()], request.clone(), payload.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(fault) => {
                    let elsewhere = matches!(
                        fault.code(),
                        Code::Unreachable | Code::Garbage | Code::Busy | Code::Unsupported | Code::Internal
                    );
                    last = fault;
                    if !elsewhere {
                        break;
                    }
                    self.inner.turn.store((turn + 1) % peers.len(), Ordering::Relaxed);
                }
            }
        }
        Err(last)
    }

    /// Puts the current peer last: it sent something wrong.
    pub fn distrust(&self) {
        self.inner.turn.fetch_add(1, Ordering::Relaxed);
    }
}

fn garbage() -> Fault {
    Fault::new(Code::Garbage, "the peer's answer is not what was asked for")
}

#[async_trait]
impl Source for Upstream {
    async fn status(&self) -> Result<ChainStatus, Fault> {
        let request = Request::Status { above: Height::ZERO, wait: DurationMs::ZERO };
        match self.call(&request, &Bytes::new()).await?.response {
            Response::Status(status) => Ok(status),
            _ => Err(garbage()),
        }
    }

    async fn blocks(&self, from: Height, wait: DurationMs) -> Result<Vec<Vec<u8>>, Fault> {
        let reply = self.call(&Request::Blocks { from, wait }, &Bytes::new()).await?;
        let Response::Blocks { lengths } = reply.response else { return Err(garbage()) };
        let mut rest = reply.payload;
        let mut blocks = Vec::with_capacity(lengths.len());
        for length in lengths.iter() {
            let length = *length as usize;
            if length > rest.len() {
                return Err(garbage());
            }
            blocks.push(rest.split_to(length).to_vec());
        }
        if rest.is_empty() { Ok(blocks) } else { Err(garbage()) }
    }

    async fn snapshot(&self, height: Height, piece: u32) -> Result<Piece, Fault> {
        let reply = self.call(&Request::Snapshot { height, piece }, &Bytes::new()).await?;
        match reply.response {
            Response::Snapshot { height, pieces } => {
                Ok(Piece { height, pieces, bytes: reply.payload.to_vec() })
            }
            _ => Err(garbage()),
        }
    }
}

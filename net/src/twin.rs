//! A network in memory, with faults from a seed.
//!
//! Same traits, same limits and the same kinds of fault as [`Node`](crate::Node); no sockets. On a current-thread
//! runtime with paused time it is deterministic: one seed and one order of calls give the same faults and delays.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tallow_types::PublicKey;
use tallow_types::fault::Fault;
use tallow_types::wire::Request;

use crate::peer::Peer;
use crate::transport::{Reply, Service, Transport};

/// How a peer misbehaves, as seen by those who call it. Probabilities are in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How long a request takes on its way, and the answer on its way back. Empty for none.
    pub delay: Range<Duration>,
    /// The request is lost: it is never served, and the caller waits until it gives up.
    pub drop_request: u16,
    /// The request is served but its answer is lost.
    pub drop_answer: u16,
    /// The answer is of another kind, which the network layer notices.
    pub garbage: u16,
    /// A byte of the answer's payload is flipped, which only a check of the content notices.
    pub corrupt: u16,
    /// The payload ends early, which only a check of the content notices.
    pub truncate: u16,
    /// The payload is longer than was asked for.
    pub too_long: u16,
    /// Takes requests and never answers any.
    pub silent: bool,
}

/// A network in memory.
#[derive(Clone)]
pub struct Twin {}

impl Twin {
    /// An empty network. All chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let _ = seed;
        unimplemented!()
    }

    /// How long callers wait for silent peers before `Unreachable`; 10 s unless set.
    pub fn set_idle(&self, idle: Duration) {
        let _ = idle;
        unimplemented!()
    }

    /// A caller, and if it has a service, a peer that others reach by its key. Joining again with the same key is a
    /// restart: the old service gets no more calls and its unfinished ones end as `Unreachable`.
    #[must_use]
    pub fn join(&self, key: PublicKey, service: Option<Arc<dyn Service>>) -> TwinNode {
        let _ = (key, service);
        unimplemented!()
    }

    /// Kills a peer as kill -9 would: what it is serving stops at its next await, connections break at once.
    pub fn kill(&self, key: PublicKey) {
        let _ = key;
        unimplemented!()
    }

    /// Sets how a peer misbehaves from now on.
    pub fn set_faults(&self, key: PublicKey, faults: Faults) {
        let _ = (key, faults);
        unimplemented!()
    }

    /// Cuts all ways between two groups; calls across the cut wait until they give up.
    pub fn partition(&self, left: &[PublicKey], right: &[PublicKey]) {
        let _ = (left, right);
        unimplemented!()
    }

    /// Mends all cuts.
    pub fn heal(&self) {
        unimplemented!()
    }

    /// The peer value for a key: a twin needs no addresses.
    #[must_use]
    pub const fn peer(key: PublicKey) -> Peer {
        Peer::new(key, Vec::new())
    }
}

/// One caller on a [`Twin`].
#[derive(Clone)]
pub struct TwinNode {}

#[async_trait]
impl Transport for TwinNode {
    fn key(&self) -> PublicKey {
        unimplemented!()
    }

    async fn call(&self, _peer: &Peer, _request: Request, _payload: Bytes) -> Result<Reply, Fault> {
        unimplemented!()
    }
}

//! What a node is started with, and every number that bounds it.

use std::sync::Arc;
use std::time::Duration;

use tallow_types::PublicKey;
use tallow_types::contract::Address;
use tallow_types::sign::Keypair;
use zeroize::Zeroizing;

use crate::limit::Limit;
use crate::peer::Peer;
use crate::transport::Service;

/// What a node is started with.
pub struct Config {
    pub(crate) seed: Zeroizing<[u8; 32]>,
    /// Where to listen, as multiaddrs; port 0 takes a free one. Empty for a node that only calls.
    pub listen: Vec<Address>,
    /// Who answers calls. `None` for a node that only calls: it opens no protocol at all to others.
    pub service: Option<Arc<dyn Service>>,
    /// Where others reach it, if that is not where it listens.
    pub announce: Vec<Address>,
    /// How it finds others; `None` for a node that knows all addresses it needs.
    pub discovery: Option<Discovery>,
    /// Which way to a peer is tried first.
    pub prefer: Way,
    /// Limits and times.
    pub tuning: Tuning,
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// TCP with Noise and Yamux: half the work per byte.
    #[default]
    Tcp,
    /// QUIC: half the work per small message, one round trip less to connect.
    Quic,
}

/// How a node finds others: a table of nodes in which everybody knows those near to it (Kademlia).
#[derive(Clone)]
pub struct Discovery {
    /// Names the network; nodes of another one are strangers here. Letters and digits.
    pub network: String,
    /// Nodes to ask first.
    pub bootstrap: Vec<Peer>,
    /// Whether this node stays, is found by others, and answers them.
    pub serves: bool,
    /// Who may say here that it holds a contract.
    pub admits: Arc<dyn Fn(&PublicKey) -> bool + Send + Sync>,
}

impl Discovery {
    /// For a node that only asks.
    #[must_use]
    pub fn asking(network: String, bootstrap: Vec<Peer>) -> Self {
        Self { network, bootstrap, serves: false, admits: Arc::new(|_| false) }
    }

    /// For a node that stays, and keeps what those say whom `admits` names.
    #[must_use]
    pub fn serving(
        network: String,
        bootstrap: Vec<Peer>,
        admits: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { network, bootstrap, serves: true, admits: Arc::new(admits) }
    }
}

impl Config {
    /// A node that only calls, under the identity of `keypair`.
    #[must_use]
    pub fn new(keypair: &Keypair) -> Self {
        Self {
            seed: keypair.seed(),
            listen: Vec::new(),
            service: None,
            announce: Vec::new(),
            discovery: None,
            prefer: Way::default(),
            tuning: Tuning::default(),
        }
    }

    /// Listens there, too.
    #[must_use]
    pub fn listen(mut self, address: Address) -> Self {
        self.listen.push(address);
        self
    }

    /// Answers calls with this service.
    #[must_use]
    pub fn service(mut self, service: Arc<dyn Service>) -> Self {
        self.service = Some(service);
        self
    }

    /// Finds others.
    #[must_use]
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// Tries this way first.
    #[must_use]
    pub const fn prefer(mut self, way: Way) -> Self {
        self.prefer = way;
        self
    }

    /// Takes other limits and times.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }
}

/// Limits and times. The defaults suit a node on the internet with 12 to 50 busy peers.
///
/// Memory: a server holds at most `memory` bytes of requests and answers in all and `peer_memory` of one peer. Of these,
/// peers that have not shown to hold a lease here (strangers) hold at most `strangers_memory` together and
/// `stranger_memory` each, so that the rest is there for those who do. Beside that, each stream may hold one header of
/// at most 16 KiB (for a longer one memory is taken first) and its Yamux window (256 KiB at first; it grows with what is
/// really read); a peer has at most `peer_streams_max` of them, and there are at most `connections_max` connections. A caller
/// holds what its own calls hold, and of answers at most those it asked for: on each stream at most the credit that
/// the server gave, and `credit_max` whatever it gave.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// No byte either way for this long while something is outstanding: the peer is silent.
    pub idle: Duration,
    /// Only signs of life, but no byte of a message, for this long (beyond the wait that the request asks for): the
    /// peer is stuck.
    pub patience: Duration,
    /// How often a server shows that it lives while it works.
    pub alive: Duration,
    /// How long a frame may be on its way before its rate counts.
    pub grace: Duration,
    /// Bytes a second that a frame must then have moved: the slowest link that is served. 1 Mbit/s shared by 84 streams to
    /// 42 peers are 1.4 KiB/s for each.
    pub rate: u64,
    /// The same while requests wait for memory, for strangers and for peers that hold more than `stranger_memory`. 4 MiB
    /// then hold up others for at most 74 s, well within `patience`. 5 Mbit/s are this rate for each of nine streams.
    pub rate_busy: u64,
    /// How long connecting may take, and how long opening a stream after that.
    pub connect: Duration,
    /// After a peer could not be reached, calls to it fail at once for this long, doubled each time.
    pub backoff_min: Duration,
    /// The longest such time.
    pub backoff_max: Duration,
    /// Streams that a caller opens to one peer, at least 1: the first for small messages, the others for bulk.
    pub streams: usize,
    /// Bytes of outstanding requests and their answers that a server takes on one stream.
    pub credit: u32,
    /// The most credit that a caller makes use of, whatever the server gives.
    pub credit_max: u32,
    /// Most requests outstanding on one stream.
    pub outstanding_max: usize,
    /// Most streams that one peer may open here.
    pub peer_streams_max: usize,
    /// Most requests of one peer served at once; others wait.
    pub peer_serving_max: usize,
    /// Most requests served at once in all; others wait.
    pub serving_max: usize,
    /// Bytes of requests and answers of one peer held at once; reading waits.
    pub peer_memory: usize,
    /// Bytes of requests and answers held at once in all; reading waits.
    pub memory: usize,
    /// The same, of one peer that has not shown to hold a lease here.
    pub stranger_memory: usize,
    /// The same, of all of them together; never more than half of `memory`, but always enough for one request.
    pub strangers_memory: usize,
    /// Most connections.
    pub connections_max: u32,
    /// Most connections with one peer: one each way, and one being replaced.
    pub peer_connections_max: u32,
    /// Most connections from one address of the internet; this machine may have any number.
    pub address_connections_max: u32,
    /// Most connections not yet authenticated, each way.
    pub pending_connections_max: u32,
    /// Payload that goes out a second, over all connections.
    pub up: Limit,
    /// Payload that is taken in a second, over all connections.
    pub down: Limit,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            patience: Duration::from_secs(120),
            alive: Duration::from_secs(1),
            grace: Duration::from_secs(10),
            rate: 1 << 10,
            rate_busy: 64 << 10,
            connect: Duration::from_secs(10),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            streams: 3,
            credit: 16 << 20,
            credit_max: 64 << 20,
            outstanding_max: 128,
            peer_streams_max: 16,
            peer_serving_max: 64,
            serving_max: 512,
            peer_memory: 64 << 20,
            memory: 256 << 20,
            stranger_memory: 16 << 20,
            strangers_memory: 128 << 20,
            connections_max: 512,
            peer_connections_max: 4,
            address_connections_max: 64,
            pending_connections_max: 512,
            up: Limit::default(),
            down: Limit::default(),
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error("{address} is in use by another program: stop it, or choose another port (0 takes a free one)")]
    PortInUse {
        /// Where.
        address: String,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Not a multiaddr.
    #[error(
        "\"{address}\" is not an address like /ip4/127.0.0.1/tcp/4001 or /ip4/127.0.0.1/udp/4001/quic-v1"
    )]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// The encryption layer refused the identity.
    #[error("cannot use this identity: {reason}")]
    Identity {
        /// What it said.
        reason: String,
    },
}

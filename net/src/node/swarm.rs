//! The task that owns the libp2p swarm: listening, dialling, connections and inbound streams.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify};
use libp2p_stream::{Control, IncomingStreams};
use tallow_types::PublicKey;
use tallow_types::contract::Address;
use tallow_types::fault::Fault;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, StartError, Tuning};
use crate::exchange::unreachable;
use crate::frame::PROTOCOL;
use crate::node::mux::STREAMS_MAX;
use crate::node::wires;
use crate::peer::public_key;
use crate::stream::server::Hub;

/// Names the network to identify; what nodes really agree on is in `Hello`.
const IDENTIFY: &str = "/tallow/1";
/// Connections without a stream are closed after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Most orders to the swarm that wait; those who give them wait, too.
const ORDERS: usize = 64;

/// How long connections may take to close when the node ends.
const CLOSING: Duration = Duration::from_secs(1);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: libp2p::connection_limits::Behaviour,
    identify: identify::Behaviour,
    streams: libp2p_stream::Behaviour,
}

/// What a started swarm gives to its node.
pub(super) struct Started {
    pub(super) key: PublicKey,
    pub(super) addresses: Arc<Mutex<Vec<Address>>>,
    pub(super) dialer: Dialer,
    pub(super) tuning: Tuning,
    pub(super) serving: TaskTracker,
    pub(super) swarm: TaskTracker,
}

/// Asks the swarm for connections and streams.
#[derive(Clone)]
pub(super) struct Dialer {
    orders: mpsc::Sender<Order>,
    control: Control,
}

enum Order {
    Connect { peer: PeerId, addresses: Vec<Multiaddr>, done: oneshot::Sender<Result<(), Fault>> },
    Disconnect { peer: PeerId },
}

impl Dialer {
    /// Returns when there is a connection to the peer.
    pub(super) async fn connect(&self, peer: PeerId, addresses: &[Address]) -> Result<(), Fault> {
        let addresses = addresses.iter().filter_map(|address| address.as_str().parse().ok()).collect();
        let (done, connected) = oneshot::channel();
        let stopped = || unreachable("this node was stopped");
        self.orders.send(Order::Connect { peer, addresses, done }).await.map_err(|_| stopped())?;
        connected.await.map_err(|_| stopped())?
    }

    /// Drops all connections to the peer.
    pub(super) fn disconnect(&self, peer: PeerId) {
        // If the swarm is so busy that this is lost, a later failure asks again.
        let _ = self.orders.try_send(Order::Disconnect { peer });
    }

    /// Opens streams.
    pub(super) fn streams(&self) -> Control {
        self.control.clone()
    }
}

/// Builds the swarm, listens, and leaves it to a task.
pub(super) async fn start(
    config: Config,
    stop: CancellationToken,
    end: CancellationToken,
) -> Result<Started, StartError> {
    let Config { seed, listen, service, tuning } = config;
    let mut swarm = build(seed, &tuning)?;
    let key = public_key(swarm.local_peer_id()).expect("the identity is an Ed25519 key");
    let addresses = Arc::new(Mutex::new(Vec::new()));
    let mut control = swarm.behaviour().streams.new_control();
    let incoming = service
        .is_some()
        .then(|| control.accept(StreamProtocol::new(PROTOCOL)).expect("nobody else accepts on a new swarm"));
    listen_everywhere(&mut swarm, &listen, &addresses, tuning.connect).await?;

    let serving = TaskTracker::new();
    if let (Some(service), Some(incoming)) = (service, incoming) {
        let hub = Hub::new(service, tuning.clone(), serving.clone(), stop.clone());
        serving.spawn(accept(incoming, hub, stop));
    }
    let (orders, inbox) = mpsc::channel(ORDERS);
    let driver = Driver {
        swarm,
        inbox,
        addresses: addresses.clone(),
        waiting: BTreeMap::new(),
        dials: BTreeMap::new(),
    };
    let task = TaskTracker::new();
    task.spawn(driver.run(end));
    Ok(Started { key, addresses, dialer: Dialer { orders, control }, tuning, serving, swarm: task })
}

fn build(seed: zeroize::Zeroizing<[u8; 32]>, tuning: &Tuning) -> Result<Swarm<Behaviour>, StartError> {
    let identity = libp2p::identity::Keypair::ed25519_from_bytes(seed)
        .map_err(|error| StartError::Identity { reason: error.to_string() })?;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(tuning.pending_connections_max))
        .with_max_pending_outgoing(Some(tuning.pending_connections_max))
        .with_max_established(Some(tuning.connections_max))
        .with_max_established_per_peer(Some(tuning.peer_connections_max));
    let behaviour = Behaviour {
        limits: libp2p::connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY.to_owned(), identity.public())
                .with_agent_version(concat!("tallow/", env!("CARGO_PKG_VERSION")).to_owned()),
        ),
        streams: libp2p_stream::Behaviour::new(),
    };
    let swarm = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION)
        .with_max_negotiating_inbound_streams(STREAMS_MAX);
    let transport = wires::both(&identity, tuning.connect)
        .map_err(|error| StartError::Identity { reason: error.to_string() })?;
    Ok(Swarm::new(transport, behaviour, identity.public().to_peer_id(), swarm))
}

/// Listens at each address and waits until the system has said where that really is.
async fn listen_everywhere(
    swarm: &mut Swarm<Behaviour>,
    listen: &[Address],
    addresses: &Mutex<Vec<Address>>,
    patience: Duration,
) -> Result<(), StartError> {
    let mut expected: HashMap<ListenerId, String> = HashMap::new();
    for address in listen {
        let text = address.as_str().to_owned();
        let bad = || StartError::BadAddress { address: text.clone() };
        let multiaddr: Multiaddr = text.parse().map_err(|_| bad())?;
        let socket = tcp_socket(&multiaddr).ok_or_else(bad)?;
        refuse_shared_port(socket, &text)?;
        let listener = swarm
            .listen_on(multiaddr)
            .map_err(|error| StartError::Listen { address: text.clone(), reason: error.to_string() })?;
        expected.insert(listener, text);
    }
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    while let Some(address) = expected.values().next() {
        let listen_error = |reason: String| StartError::Listen { address: address.clone(), reason };
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            () = &mut deadline => return Err(listen_error("the system did not say where".to_owned())),
        };
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                add_address(addresses, &address);
                expected.remove(&listener_id);
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                return Err(listen_error(error.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The library shares ports between programs where the system lets it, which would split callers between two nodes.
fn refuse_shared_port(socket: SocketAddr, address: &str) -> Result<(), StartError> {
    if socket.port() == 0 {
        return Ok(());
    }
    TcpListener::bind(socket).map(drop).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::PortInUse { address: address.to_owned() },
        _ => StartError::Listen { address: address.to_owned(), reason: error.to_string() },
    })
}

fn tcp_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn add_address(addresses: &Mutex<Vec<Address>>, address: &Multiaddr) {
    if let Some(address) = Address::new(address.to_string()) {
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

fn remove_address(addresses: &Mutex<Vec<Address>>, address: &Multiaddr) {
    let text = address.to_string();
    addresses.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known.as_str() != text);
}

/// Hands inbound streams to the hub. Must be quick: a stream that comes while another waits here is dropped by the
/// library, and its caller has to try again.
async fn accept(mut incoming: IncomingStreams, hub: Arc<Hub>, stop: CancellationToken) {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = incoming.next() => next,
        };
        let Some((peer, stream)) = next else { return };
        match public_key(&peer) {
            Some(key) => hub.accept(key, stream),
            None => tracing::debug!(%peer, "stream refused: not an Ed25519 key"),
        }
    }
}

/// The swarm's task.
struct Driver {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Order>,
    addresses: Arc<Mutex<Vec<Address>>>,
    /// Who waits for a connection to whom.
    waiting: BTreeMap<PeerId, Vec<oneshot::Sender<Result<(), Fault>>>>,
    /// Our own dials under way, each to whom.
    dials: BTreeMap<ConnectionId, PeerId>,
}

impl Driver {
    async fn run(mut self, end: CancellationToken) {
        loop {
            tokio::select! {
                () = end.cancelled() => break,
                Some(order) = self.inbox.recv() => self.obey(order),
                event = self.swarm.select_next_some() => self.note(event),
            }
        }
        drop(self.inbox);
        // A connection that is closed, not dropped, sends what was written to it.
        let _ = timeout(CLOSING, close(&mut self.swarm)).await;
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect { peer, done, .. } if self.swarm.is_connected(&peer) => {
                // Who asked may have gone.
                let _ = done.send(Ok(()));
            }
            Order::Connect { peer, addresses, done } => {
                let waiting = self.waiting.entry(peer).or_default();
                waiting.push(done);
                if waiting.len() == 1 {
                    self.dial(peer, addresses);
                }
            }
            Order::Disconnect { peer } => {
                // An error means that there is none.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return self.connected(peer, &Err(unreachable("no address of the peer is known")));
        }
        // A port of its own for each dial: one bound to the listening port can't be dialled again for a while.
        let options = DialOpts::peer_id(peer)
            .addresses(addresses)
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        let dial = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(dial, peer);
            }
            Err(error) => self.connected(peer, &Err(cannot_connect(&error))),
        }
    }

    fn note(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.dials.remove(&connection_id);
                self.connected(peer_id, &Ok(()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(peer) = self.dials.remove(&connection_id) {
                    self.connected(peer, &Err(cannot_connect(&error)));
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => add_address(&self.addresses, &address),
            SwarmEvent::ExpiredListenAddr { address, .. } => remove_address(&self.addresses, &address),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                addresses.iter().for_each(|address| remove_address(&self.addresses, address));
                tracing::warn!(?reason, "a listener closed");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "a listener failed"),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                tracing::debug!(%error, "an incoming connection failed");
            }
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, result: &Result<(), Fault>) {
        for done in self.waiting.remove(&peer).unwrap_or_default() {
            let _ = done.send(result.clone());
        }
    }
}

/// Closes all connections.
async fn close(swarm: &mut Swarm<Behaviour>) {
    loop {
        let peers: Vec<_> = swarm.connected_peers().copied().collect();
        if peers.is_empty() {
            return;
        }
        for peer in peers {
            // An error means that it closed by itself.
            let _ = swarm.disconnect_peer_id(peer);
        }
        swarm.select_next_some().await;
    }
}

/// A failed dial in words for people.
fn cannot_connect(error: &DialError) -> Fault {
    let text = match error {
        DialError::WrongPeerId { obtained, .. } => format!("somebody else answers there: {obtained}"),
        DialError::Denied { .. } => "too many connections".to_owned(),
        DialError::LocalPeerId { .. } => "the address is this node's own".to_owned(),
        DialError::Transport(tries) => {
            let reasons: Vec<_> =
                tries.iter().map(|(address, error)| format!("{address}: {}", root(error))).collect();
            format!("cannot connect to {}", reasons.join("; "))
        }
        other => format!("cannot connect: {other}"),
    };
    unreachable(text)
}

/// The innermost reason, which is the one that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

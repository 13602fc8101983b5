//! The libp2p swarm: what it is made of, where it listens, and whose streams it takes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::ConnectionLimits;
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use tallow_types::PublicKey;
use tallow_types::contract::Address;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Discovery, StartError, Tuning, Way};
use crate::node::discovery::{Finder, Table, table};
use crate::node::driver::{Dialer, Driver};
use crate::node::guard::Guard;
use crate::node::mux::STREAMS_MAX;
use crate::node::streams::Streams;
use crate::node::wires;
use crate::peer::public_key;
use crate::stream::server::Hub;

/// Names the network to identify; what nodes really agree on is in `Hello`.
const IDENTIFY: &str = "/tallow/1";
/// Connections without a stream are closed after this.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
/// Most orders to the swarm that wait; those who give them wait, too.
const ORDERS: usize = 64;

/// The protocols of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: libp2p::connection_limits::Behaviour,
    guard: Guard,
    identify: identify::Behaviour,
    pub(super) table: Toggle<Table>,
    pub(super) streams: Streams,
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

/// Builds the swarm, listens, and leaves it to a task.
pub(super) async fn start(
    config: Config,
    stop: CancellationToken,
    end: CancellationToken,
) -> Result<Started, StartError> {
    let Config { seed, listen, service, announce, discovery, prefer, tuning } = config;
    let (arrivals, incoming) = mpsc::unbounded_channel();
    let mut swarm = build(seed, &tuning, discovery.as_ref(), service.is_some().then_some(arrivals))?;
    for address in announce.iter().filter_map(|address| address.as_str().parse().ok()) {
        swarm.add_external_address(address);
    }
    let key = public_key(swarm.local_peer_id()).expect("the identity is an Ed25519 key");
    let addresses = Arc::new(Mutex::new(Vec::new()));
    listen_everywhere(&mut swarm, &listen, &addresses, tuning.connect).await?;

    let serving = TaskTracker::new();
    if let Some(service) = service {
        let hub = Hub::new(service, tuning.clone(), serving.clone(), stop.clone());
        serving.spawn(accept(incoming, hub, stop));
    }
    let (orders, inbox) = mpsc::channel(ORDERS);
    let listens: Vec<Multiaddr> = swarm.listeners().cloned().collect();
    let finder = discovery.map(|discovery| Finder::new(discovery, &listens));
    let driver = Driver::new(swarm, inbox, addresses.clone(), finder);
    let task = TaskTracker::new();
    task.spawn(driver.run(end));
    Ok(Started { key, addresses, dialer: Dialer { orders, prefer }, tuning, serving, swarm: task })
}

fn build(
    seed: zeroize::Zeroizing<[u8; 32]>,
    tuning: &Tuning,
    discovery: Option<&Discovery>,
    incoming: Option<mpsc::UnboundedSender<(PeerId, Stream)>>,
) -> Result<Swarm<Behaviour>, StartError> {
    let identity = libp2p::identity::Keypair::ed25519_from_bytes(seed)
        .map_err(|error| StartError::Identity { reason: error.to_string() })?;
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(tuning.pending_connections_max))
        .with_max_pending_outgoing(Some(tuning.pending_connections_max))
        .with_max_established(Some(tuning.connections_max))
        .with_max_established_per_peer(Some(tuning.peer_connections_max));
    let me = identity.public().to_peer_id();
    let behaviour = Behaviour {
        limits: libp2p::connection_limits::Behaviour::new(limits),
        guard: Guard::new(tuning.address_connections_max),
        table: discovery.map(|discovery| table(me, discovery)).into(),
        identify: identify::Behaviour::new(
            identify::Config::new(IDENTIFY.to_owned(), identity.public())
                .with_agent_version(concat!("tallow/", env!("CARGO_PKG_VERSION")).to_owned()),
        ),
        streams: Streams::new(incoming),
    };
    let swarm = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE_CONNECTION)
        .with_max_negotiating_inbound_streams(STREAMS_MAX)
        // The name of the protocol and the first message go out together: a round trip less for each stream.
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    let transport = wires::both(&identity, tuning.connect)
        .map_err(|error| StartError::Identity { reason: error.to_string() })?;
    Ok(Swarm::new(transport, behaviour, me, swarm))
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
        let (way, socket) = socket(&multiaddr).ok_or_else(bad)?;
        refuse_shared_port(way, socket, &text)?;
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
fn refuse_shared_port(way: Way, socket: SocketAddr, address: &str) -> Result<(), StartError> {
    if socket.port() == 0 {
        return Ok(());
    }
    let bound = match way {
        Way::Tcp => TcpListener::bind(socket).map(drop),
        Way::Quic => UdpSocket::bind(socket).map(drop),
    };
    bound.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::PortInUse { address: address.to_owned() },
        _ => StartError::Listen { address: address.to_owned(), reason: error.to_string() },
    })
}

fn socket(address: &Multiaddr) -> Option<(Way, SocketAddr)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match (parts.next()?, parts.next(), parts.next()) {
        (Protocol::Tcp(port), None, None) => Some((Way::Tcp, SocketAddr::new(ip, port))),
        (Protocol::Udp(port), Some(Protocol::QuicV1), None) => Some((Way::Quic, SocketAddr::new(ip, port))),
        _ => None,
    }
}

pub(super) fn add_address(addresses: &Mutex<Vec<Address>>, address: &Multiaddr) {
    if let Some(address) = Address::new(address.to_string()) {
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
}

pub(super) fn remove_address(addresses: &Mutex<Vec<Address>>, address: &Multiaddr) {
    let text = address.to_string();
    addresses.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known.as_str() != text);
}

/// Hands inbound streams to the hub.
async fn accept(
    mut incoming: mpsc::UnboundedReceiver<(PeerId, Stream)>,
    hub: Arc<Hub>,
    stop: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = incoming.recv() => next,
        };
        let Some((peer, stream)) = next else { return };
        match public_key(&peer) {
            Some(key) => hub.accept(key, stream),
            None => tracing::debug!(%peer, "stream refused: not an Ed25519 key"),
        }
    }
}

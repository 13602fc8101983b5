//! The task that drives the swarm, and how it is asked for connections and searches.
//!
//! A peer has up to eight addresses. Those of the way preferred are tried together; the others when these have failed,
//! or after [`HEAD_START`], as a firewall that drops packets makes no answer at all. When all have failed, the table of
//! nodes is asked where the peer is now. Where the peer's machine refuses at once, as it does when the node there is down,
//! both have a few round trips and no longer: a reader has other seeders to ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use tallow_types::contract::Address;
use tallow_types::fault::Fault;
use tallow_types::{ContractId, PublicKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Way;
use crate::exchange::unreachable;
use crate::node::discovery::{Finder, SEARCH};
use crate::node::streams::{OpenError, Wanted};
use crate::node::swarm::{Behaviour, BehaviourEvent, add_address, remove_address};
use crate::peer::public_key;

/// How long the way preferred has to itself.
const HEAD_START: Duration = Duration::from_secs(2);
/// How long other ways to a peer whose machine refuses may take, beside [`ROUND_TRIPS`] times what the refusal took.
const SECOND_CHANCE: Duration = Duration::from_millis(250);
const ROUND_TRIPS: u32 = 8;
/// How long connections may take to close when the node ends.
const CLOSING: Duration = Duration::from_secs(1);

type Done = oneshot::Sender<Result<(), NoConnection>>;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub(super) struct NoConnection {
    fault: Fault,
    /// Whether the peer's machine itself says that nobody listens there.
    is_refusal: bool,
}

impl NoConnection {
    fn stopped() -> Self {
        Self { fault: unreachable("this node was stopped"), is_refusal: false }
    }
}

/// Asks the swarm for connections, streams and searches.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) prefer: Way,
}

/// What the swarm is asked for.
pub(super) enum Order {
    Connect {
        peer: PeerId,
        first: Vec<Multiaddr>,
        spare: Vec<Multiaddr>,
        done: Done,
    },
    /// Tells when there is a connection, without making one.
    Await {
        peer: PeerId,
        done: Done,
    },
    /// The first addresses had their time.
    Hurry {
        peer: PeerId,
    },
    Disconnect {
        peer: PeerId,
    },
    Open {
        peer: PeerId,
        wanted: Wanted,
    },
    Find {
        peer: PeerId,
        done: oneshot::Sender<Vec<Multiaddr>>,
    },
    Holders {
        contract: ContractId,
        done: oneshot::Sender<Vec<PeerId>>,
    },
    Announce {
        held: BTreeSet<ContractId>,
    },
}

impl Dialer {
    /// Returns when there is a connection to the peer.
    pub(super) async fn connect(&self, peer: PeerId, addresses: &[Address]) -> Result<(), Fault> {
        let known: Vec<Multiaddr> =
            addresses.iter().filter_map(|address| address.as_str().parse().ok()).collect();
        let begun = Instant::now();
        let Err(failure) = self.dial(peer, known.clone()).await else { return Ok(()) };
        let patience =
            if failure.is_refusal { SECOND_CHANCE + begun.elapsed() * ROUND_TRIPS } else { SEARCH };
        // The search itself connects to the peer when it comes upon it, as may a dial that is still under way.
        let other_way = async {
            let connected = self.ask(|done| Order::Await { peer, done });
            if !matches!(connected.await, Some(Ok(()))) {
                std::future::pending::<()>().await;
            }
        };
        let search = async {
            let mut found = self.ask(|done| Order::Find { peer, done }).await.unwrap_or_default();
            found.retain(|address| !known.contains(address));
            let is_there = !found.is_empty() && self.dial(peer, found).await.is_ok();
            if !is_there && failure.is_refusal && known.len() > 1 {
                std::future::pending::<()>().await;
            }
            is_there
        };
        let reached = async {
            tokio::select! {
                () = other_way => true,
                is_there = search => is_there,
            }
        };
        if timeout(patience, reached).await.unwrap_or(false) { Ok(()) } else { Err(failure.fault) }
    }

    async fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), NoConnection> {
        let (mut first, mut spare): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| way(address) == self.prefer);
        if first.is_empty() {
            std::mem::swap(&mut first, &mut spare);
        }
        let has_spare = !spare.is_empty();
        let stopped = NoConnection::stopped;
        let (done, mut connected) = oneshot::channel();
        let order = Order::Connect { peer, first, spare, done };
        self.orders.send(order).await.map_err(|_| stopped())?;
        if has_spare {
            if let Ok(result) = timeout(HEAD_START, &mut connected).await {
                return result.map_err(|_| stopped())?;
            }
            // A failure means that the node has stopped, which the answer says too.
            let _ = self.orders.send(Order::Hurry { peer }).await;
        }
        connected.await.map_err(|_| stopped())?
    }

    /// Drops all connections to the peer.
    pub(super) fn disconnect(&self, peer: PeerId) {
        // If the swarm is so busy that this is lost, a later failure asks again.
        let _ = self.orders.try_send(Order::Disconnect { peer });
    }

    /// Those who say to hold a contract; none without discovery.
    pub(super) async fn holders(&self, contract: ContractId) -> Vec<PublicKey> {
        let found = self.ask(|done| Order::Holders { contract, done }).await.unwrap_or_default();
        found.iter().filter_map(public_key).collect()
    }

    /// Says what this node holds.
    pub(super) async fn announce(&self, held: BTreeSet<ContractId>) {
        // A failure means that the node has stopped.
        let _ = self.orders.send(Order::Announce { held }).await;
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).await.ok()?;
        answer.await.ok()
    }

    /// Opens a stream on a connection that there is.
    pub(super) async fn open(&self, peer: PeerId) -> Result<Stream, OpenError> {
        self.ask(|wanted| Order::Open { peer, wanted }).await.unwrap_or(Err(OpenError::NotConnected))
    }
}

fn way(address: &Multiaddr) -> Way {
    if address.iter().any(|part| matches!(part, Protocol::QuicV1)) { Way::Quic } else { Way::Tcp }
}

/// A connection that somebody waits for.
#[derive(Default)]
struct Connecting {
    done: Vec<Done>,
    under_way: usize,
    spare: Vec<Multiaddr>,
    failures: Vec<String>,
    is_refusal: bool,
}

/// The swarm's task.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Order>,
    addresses: Arc<Mutex<Vec<Address>>>,
    finder: Option<Finder>,
    connecting: BTreeMap<PeerId, Connecting>,
    /// Who would be glad of a connection, whoever makes it.
    awaiting: BTreeMap<PeerId, Vec<Done>>,
    /// Our own dials under way, each to whom.
    dials: BTreeMap<ConnectionId, PeerId>,
}

impl Driver {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        inbox: mpsc::Receiver<Order>,
        addresses: Arc<Mutex<Vec<Address>>>,
        finder: Option<Finder>,
    ) -> Self {
        let (connecting, awaiting, dials) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { swarm, inbox, addresses, finder, connecting, awaiting, dials }
    }

    pub(super) async fn run(mut self, end: CancellationToken) {
        if let (Some(finder), Some(table)) = (&mut self.finder, self.swarm.behaviour_mut().table.as_mut())
            && finder.serves()
        {
            finder.begin(table);
        }
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
            Order::Connect { peer, first, spare, done } => {
                let connecting = self.connecting.entry(peer).or_default();
                connecting.done.push(done);
                if connecting.done.len() == 1 {
                    connecting.spare = spare;
                    self.dial(peer, first);
                    self.advance(peer);
                }
            }
            Order::Await { peer, done } if self.swarm.is_connected(&peer) => {
                let _ = done.send(Ok(()));
            }
            Order::Await { peer, done } => {
                // Those who gave up meanwhile are forgotten.
                self.awaiting.values_mut().for_each(|all| all.retain(|one| !one.is_closed()));
                self.awaiting.retain(|_, all| !all.is_empty());
                self.awaiting.entry(peer).or_default().push(done);
            }
            Order::Hurry { peer } => {
                let spare = self.connecting.get_mut(&peer).map(|one| std::mem::take(&mut one.spare));
                if let Some(spare) = spare.filter(|spare| !spare.is_empty()) {
                    self.dial(peer, spare);
                    self.advance(peer);
                }
            }
            Order::Open { peer, wanted } => self.swarm.behaviour_mut().streams.open(peer, wanted),
            Order::Disconnect { peer } => {
                // An error means that there is none.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            // Without a table the question is dropped, which is an answer.
            Order::Find { peer, done } => self.table(|finder, table| finder.find(table, peer, done)),
            Order::Holders { contract, done } => {
                self.table(|finder, table| finder.holders(table, &contract, done));
            }
            Order::Announce { held } => self.table(|finder, table| finder.announce(table, held)),
        }
    }

    fn table(&mut self, work: impl FnOnce(&mut Finder, &mut super::discovery::Table)) {
        if let (Some(finder), Some(table)) = (&mut self.finder, self.swarm.behaviour_mut().table.as_mut()) {
            work(finder, table);
        }
    }

    /// Tries some addresses.
    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let Some(connecting) = self.connecting.get_mut(&peer) else { return };
        if addresses.is_empty() {
            connecting.failures.push("no address of the peer is known".to_owned());
            return;
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
                connecting.under_way += 1;
            }
            Err(error) => connecting.failures.push(cannot_connect(&error)),
        }
    }

    /// Goes on when nothing is under way to a peer: with other addresses, or by giving up.
    fn advance(&mut self, peer: PeerId) {
        while let Some(connecting) = self.connecting.get_mut(&peer) {
            if connecting.under_way > 0 {
                return;
            }
            let spare = std::mem::take(&mut connecting.spare);
            if spare.is_empty() || connecting.is_refusal {
                let fault = unreachable(connecting.failures.join("; "));
                let failure = NoConnection { fault, is_refusal: connecting.is_refusal };
                if !spare.is_empty() {
                    // Without anybody waiting: see `Dialer::connect`.
                    self.dial(peer, spare);
                }
                return self.failed(peer, &failure);
            }
            self.dial(peer, spare);
        }
    }

    fn note(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.dials.remove(&connection_id);
                self.connected(peer_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(peer) = self.dials.remove(&connection_id)
                    && let Some(connecting) = self.connecting.get_mut(&peer)
                {
                    connecting.under_way = connecting.under_way.saturating_sub(1);
                    connecting.is_refusal |= is_refusal(&error);
                    connecting.failures.push(cannot_connect(&error));
                    self.advance(peer);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.table(|finder, table| finder.meet(table, &peer_id, &info)),
            SwarmEvent::Behaviour(BehaviourEvent::Table(event)) => {
                self.table(|finder, table| finder.note(table, event));
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

    fn connected(&mut self, peer: PeerId) {
        // How its other dials end concerns no later attempt.
        self.dials.retain(|_, to| *to != peer);
        let connecting = self.connecting.remove(&peer).unwrap_or_default().done;
        for done in connecting.into_iter().chain(self.awaiting.remove(&peer).unwrap_or_default()) {
            let _ = done.send(Ok(()));
        }
    }

    fn failed(&mut self, peer: PeerId, failure: &NoConnection) {
        self.dials.retain(|_, to| *to != peer);
        for done in self.connecting.remove(&peer).unwrap_or_default().done {
            let _ = done.send(Err(failure.clone()));
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
fn cannot_connect(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, .. } => format!("somebody else answers there: {obtained}"),
        DialError::Denied { .. } => "too many connections".to_owned(),
        DialError::LocalPeerId { .. } => "the address is this node's own".to_owned(),
        DialError::Transport(tries) => {
            let reasons: Vec<_> =
                tries.iter().map(|(address, error)| format!("{address}: {}", root(error))).collect();
            format!("cannot connect to {}", reasons.join("; "))
        }
        other => format!("cannot connect: {other}"),
    }
}

/// Whether a machine said that nobody listens there.
fn is_refusal(error: &DialError) -> bool {
    let DialError::Transport(tries) = error else { return false };
    tries.iter().any(|(_, error)| root(error).contains("refused"))
}

/// The innermost reason, which is the one that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

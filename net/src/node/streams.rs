//! Streams of the frames protocol on the connections of the swarm: those that peers open, and those that we do.
//!
//! Guarantees: no stream that a peer opens is dropped unseen; several are opened at once; nothing is kept of a connection
//! that is gone.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};
use tokio::sync::{mpsc, oneshot};

use crate::frame::PROTOCOL;

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the peer takes no calls, or speaks another version")]
    Unsupported,
    #[error("there is no connection to the peer")]
    NotConnected,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Who waits for a stream.
pub(super) type Wanted = oneshot::Sender<Result<Stream, OpenError>>;

/// The streams of all connections.
pub(super) struct Streams {
    /// Where streams of peers go; `None` for a node that takes no calls.
    incoming: Option<mpsc::UnboundedSender<(PeerId, Stream)>>,
    /// Of each peer, the newest last.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    events: VecDeque<ToSwarm<Infallible, Wanted>>,
}

impl Streams {
    pub(super) fn new(incoming: Option<mpsc::UnboundedSender<(PeerId, Stream)>>) -> Self {
        Self { incoming, connections: HashMap::new(), events: VecDeque::new() }
    }

    /// Opens a stream. The swarm must be polled after this.
    pub(super) fn open(&mut self, peer: PeerId, wanted: Wanted) {
        match self.connections.get(&peer).and_then(|connections| connections.last()) {
            Some(&connection) => self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: wanted,
            }),
            None => {
                // Who asked may have gone.
                let _ = wanted.send(Err(OpenError::NotConnected));
            }
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler { peer, incoming: self.incoming.clone(), wanted: VecDeque::new() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.connections.entry(established.peer_id).or_default().push(established.connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.connections.get_mut(&peer_id) {
                    connections.retain(|one| *one != connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    peer: PeerId,
    incoming: Option<mpsc::UnboundedSender<(PeerId, Stream)>>,
    wanted: VecDeque<Wanted>,
}

const fn protocol() -> ReadyUpgrade<StreamProtocol> {
    ReadyUpgrade::new(StreamProtocol::new(PROTOCOL))
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Infallible;
    type InboundProtocol = Either<ReadyUpgrade<StreamProtocol>, DeniedUpgrade>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Wanted;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let takes_calls = self.incoming.as_ref().is_some_and(|incoming| !incoming.is_closed());
        let protocol = if takes_calls { Either::Left(protocol()) } else { Either::Right(DeniedUpgrade) };
        SubstreamProtocol::new(protocol, ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        let Some(wanted) = self.wanted.pop_front() else { return Poll::Pending };
        let protocol = SubstreamProtocol::new(protocol(), wanted);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Wanted>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: futures::future::Either::Left(stream),
                ..
            }) => {
                // A node that stops takes no more; the connection bounds how many there can be.
                if let Some(incoming) = &self.incoming {
                    let _ = incoming.send((self.peer, stream));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: wanted,
            }) => {
                let _ = wanted.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: wanted, error }) => {
                let error = match error {
                    StreamUpgradeError::Timeout => io::Error::from(io::ErrorKind::TimedOut).into(),
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(error) => error.into(),
                    StreamUpgradeError::Apply(never) => libp2p::core::util::unreachable(never),
                };
                let _ = wanted.send(Err(error));
            }
            _ => {}
        }
    }
}

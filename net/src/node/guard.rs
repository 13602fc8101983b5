//! How many connections may come from one place.
//!
//! A place is an IPv4 address, or the /64 of an IPv6 address, which is what one customer gets. This machine itself is no
//! place: whoever runs here can do more than connect.
//!
//! Connections that have not shown a key yet are counted apart, TCP's and QUIC's too: the source of a first QUIC packet
//! may be forged, and must not keep out whoever really is there.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};

/// Where a connection comes from.
type Place = [u8; 9];

/// Most connections of one place, each way, that have not shown a key yet.
const PENDING_MAX: u32 = 8;

/// What is counted: the place, and for a connection that has not shown a key yet, whether it is QUIC's.
type Count = (Place, Option<bool>);

/// Refuses connections of a place that has as many as it may.
pub(super) struct Guard {
    most: u32,
    counts: BTreeMap<Count, u32>,
    connections: HashMap<ConnectionId, Count>,
}

/// A place has too many connections.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} connections from one address")]
struct TooMany(u32);

impl Guard {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.max(1), counts: BTreeMap::new(), connections: HashMap::new() }
    }

    fn enter(&mut self, connection: ConnectionId, count: Count) -> Result<(), TooMany> {
        self.leave(connection);
        let most = if count.1.is_some() { PENDING_MAX } else { self.most };
        let number = self.counts.entry(count).or_default();
        if *number >= most {
            return Err(TooMany(most));
        }
        *number += 1;
        self.connections.insert(connection, count);
        Ok(())
    }

    fn leave(&mut self, connection: ConnectionId) {
        let Some(count) = self.connections.remove(&connection) else { return };
        if let Some(number) = self.counts.get_mut(&count) {
            *number -= 1;
            if *number == 0 {
                self.counts.remove(&count);
            }
        }
    }
}

/// The place of an address; none for this machine, and for what names no address.
fn place(address: &Multiaddr) -> Option<Place> {
    let ip = match address.iter().next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        _ => return None,
    };
    if ip.is_loopback() {
        return None;
    }
    let mut place = [0; 9];
    match ip {
        IpAddr::V4(ip) => {
            place[0] = 4;
            place[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            place[0] = 6;
            place[1..].copy_from_slice(&ip.octets()[..8]);
        }
    }
    Some(place)
}

impl NetworkBehaviour for Guard {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(place) = place(remote) else { return Ok(()) };
        let is_quic = remote.iter().any(|part| matches!(part, Protocol::Udp(_)));
        self.enter(connection, (place, Some(is_quic))).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(place) = place(remote) {
            self.enter(connection, (place, None)).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.leave(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().expect("an address")
    }

    /// Goal: places are what one customer has. Method: a table.
    #[test]
    fn places() {
        let same = |one: &str, two: &str| place(&at(one)) == place(&at(two));
        assert!(same("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/2/quic-v1"));
        assert!(!same("/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"));
        assert!(same("/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::ffff/tcp/9"));
        assert!(!same("/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8:0:1::1/tcp/1"));
        assert!(same("/ip6/::ffff:192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1"));
        assert_eq!(place(&at("/ip4/127.0.0.1/tcp/1")), None);
        assert_eq!(place(&at("/ip6/::1/tcp/1")), None);
    }

    /// Goal: one above the limit is refused, others are not concerned, and a place left is free again, once. Method: by
    /// hand, as the swarm calls it.
    #[test]
    fn one_above_is_refused() {
        let mut guard = Guard::new(2);
        let (near, far) = (at("/ip4/192.0.2.1/tcp/1"), at("/ip4/192.0.2.9/tcp/1"));
        let peer = PeerId::from_multihash(libp2p::multihash::Multihash::wrap(0, &[7; 8]).expect("fits"));
        let peer = peer.expect("a name");
        let come = |guard: &mut Guard, number: usize, from: &Multiaddr| {
            let connection = ConnectionId::new_unchecked(number);
            guard.handle_pending_inbound_connection(connection, &far, from).is_ok()
                && guard.handle_established_inbound_connection(connection, peer, &far, from).is_ok()
        };
        assert!(come(&mut guard, 1, &near) && come(&mut guard, 2, &near));
        assert!(!come(&mut guard, 3, &near));
        guard.leave(ConnectionId::new_unchecked(3));
        assert!(!come(&mut guard, 4, &near), "one that was refused frees nothing");
        assert!(come(&mut guard, 5, &far));
        guard.leave(ConnectionId::new_unchecked(1));
        assert!(come(&mut guard, 6, &near));
        assert!(!come(&mut guard, 7, &near));
        for number in 0..10 {
            guard.leave(ConnectionId::new_unchecked(number));
        }
        assert!(guard.connections.is_empty());
        assert!(guard.counts.values().all(|number| *number == 0));
    }

    /// Goal: silent and forged connections keep nobody out who shows a key. Method: as many as are let in, over QUIC, then
    /// one over TCP from the same place.
    #[test]
    fn pending_connections_are_counted_apart() {
        let mut guard = Guard::new(1);
        let (forged, honest) = (at("/ip4/192.0.2.1/udp/1/quic-v1"), at("/ip4/192.0.2.1/tcp/1"));
        let mut pend = |number: usize, from: &Multiaddr| {
            let connection = ConnectionId::new_unchecked(number);
            guard.handle_pending_inbound_connection(connection, &honest, from).is_ok()
        };
        let limit = PENDING_MAX as usize;
        assert!((0..limit).all(|number| pend(number, &forged)));
        assert!(!pend(limit, &forged));
        assert!(pend(limit + 1, &honest));
    }
}

//! How many connections may come from one place.
//!
//! A place is an IPv4 address, or the /64 of an IPv6 address, which is what one customer gets. This machine itself is no
//! place: whoever runs here can do more than connect.

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

/// Refuses connections of a place that has as many as it may.
pub(super) struct Guard {
    most: u32,
    places: BTreeMap<Place, u32>,
    connections: HashMap<ConnectionId, Place>,
}

/// A place has too many connections.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} connections from one address")]
struct TooMany(u32);

impl Guard {
    pub(super) fn new(most: u32) -> Self {
        Self { most: most.max(1), places: BTreeMap::new(), connections: HashMap::new() }
    }

    fn enter(&mut self, connection: ConnectionId, place: Place) -> Result<(), TooMany> {
        let count = self.places.entry(place).or_default();
        if *count >= self.most {
            return Err(TooMany(self.most));
        }
        *count += 1;
        self.connections.insert(connection, place);
        Ok(())
    }

    fn leave(&mut self, connection: ConnectionId) {
        let Some(place) = self.connections.remove(&connection) else { return };
        if let Some(count) = self.places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(&place);
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
        place(remote).map_or(Ok(()), |place| self.enter(connection, place)).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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
        let come = |guard: &mut Guard, number: usize, from: &Multiaddr| {
            guard.handle_pending_inbound_connection(ConnectionId::new_unchecked(number), &far, from).is_ok()
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
        assert!(guard.places.is_empty() && guard.connections.is_empty());
    }
}

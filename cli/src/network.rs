//! The network string: what a person needs to reach a network, in one word that can be copied.
//!
//! ```text
//! tallow:<chain id, 64 hexadecimal digits>@<bootstrap multiaddr>[,<bootstrap multiaddr>..]
//! ```
//!
//! The chain id is the hash of genesis, so a node of another network is refused whatever its address.

use std::fmt;
use std::str::FromStr;

use tallow_net::{Peer, parse_bootstrap};
use tallow_types::ChainId;
use tallow_types::limits::ADDRESSES_MAX;

/// A network and where its first nodes listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The hash of genesis.
    pub chain: ChainId,
    /// Nodes to ask first; at least one.
    pub bootstrap: Vec<Peer>,
}

/// Why a text is no network string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    /// It does not begin like one.
    #[error("a network string begins with tallow: and a chain id of 64 hexadecimal digits")]
    Form,
    /// No address, or too many.
    #[error("a network string names 1 to {ADDRESSES_MAX} addresses behind the @")]
    Addresses,
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] tallow_net::BadAddress),
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let rest = text.trim().strip_prefix("tallow:").ok_or(BadNetwork::Form)?;
        let (chain, addresses) = rest.split_once('@').ok_or(BadNetwork::Form)?;
        let chain = ChainId::from_hex(chain).ok_or(BadNetwork::Form)?;
        let addresses: Vec<&str> = addresses.split(',').filter(|text| !text.is_empty()).collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(BadNetwork::Addresses);
        }
        let mut bootstrap: Vec<Peer> = Vec::new();
        for address in addresses {
            let peer = parse_bootstrap(address)?;
            // Several addresses of one node, TCP and QUIC for one, are several ways to the same.
            match bootstrap.iter_mut().find(|known| known.key == peer.key) {
                Some(known) => known.addresses.extend(peer.addresses),
                None => bootstrap.push(peer),
            }
        }
        Ok(Self { chain, bootstrap })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tallow:{}@", self.chain)?;
        let addresses = self.bootstrap.iter().flat_map(Peer::bootstrap);
        for (place, address) in addresses.enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}", address.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_types::contract::Address;
    use tallow_types::sign::Keypair;

    fn peer(seed: u8, port: u16) -> Peer {
        let address = Address::new(format!("/ip4/127.0.0.1/tcp/{port}")).expect("short");
        Peer::new(Keypair::from_seed(&[seed; 32]).public(), vec![address])
    }

    /// Goal: what `wallet show` prints, `--network` reads. Method: round trip with one and with two nodes, and with one
    /// that is reached in two ways.
    #[test]
    fn printed_strings_are_read() {
        let mut both_ways = peer(3, 4003);
        both_ways.addresses.extend(Address::new("/ip4/127.0.0.1/udp/4003/quic-v1".to_owned()));
        for bootstrap in
            [vec![peer(1, 4001)], vec![peer(1, 4001), peer(2, 4002)], vec![both_ways, peer(1, 1)]]
        {
            let network = Network { chain: ChainId::new([0xab; 32]), bootstrap };
            assert_eq!(network.to_string().parse(), Ok(network));
        }
    }

    /// Goal: anything else is refused with its reason. Method: break one part at a time, one address above the limit.
    #[test]
    fn other_texts_are_refused() {
        let good = Network { chain: ChainId::new([0xab; 32]), bootstrap: vec![peer(1, 4001)] }.to_string();
        let (head, address) = good.split_once('@').expect("has an @");
        assert_eq!("".parse::<Network>(), Err(BadNetwork::Form));
        assert_eq!(good[1..].parse::<Network>(), Err(BadNetwork::Form));
        assert_eq!(good.replace("abab", "abxx").parse::<Network>(), Err(BadNetwork::Form));
        assert_eq!(format!("{head}@").parse::<Network>(), Err(BadNetwork::Addresses));
        let many = [address; ADDRESSES_MAX + 1].join(",");
        assert_eq!(format!("{head}@{many}").parse::<Network>(), Err(BadNetwork::Addresses));
        let no_key = format!("{head}@/ip4/127.0.0.1/tcp/4001").parse::<Network>();
        assert!(matches!(no_key, Err(BadNetwork::Address(_))));
    }
}

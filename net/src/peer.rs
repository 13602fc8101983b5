//! Who a peer is and where it is reached.

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tallow_types::PublicKey;
use tallow_types::contract::Address;

/// A peer: the key that it proves to hold, and where to look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its Ed25519 key. A connection to anybody else is refused.
    pub key: PublicKey,
    /// Multiaddrs in text, with or without `/p2p/..`; tried together.
    pub addresses: Vec<Address>,
}

impl Peer {
    /// From a key and addresses.
    #[must_use]
    pub const fn new(key: PublicKey, addresses: Vec<Address>) -> Self {
        Self { key, addresses }
    }

    /// Its addresses with the key in each, as `parse_bootstrap` reads them; none if the key is no key.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<Address> {
        let Some(id) = peer_id(&self.key) else { return Vec::new() };
        self.addresses
            .iter()
            .filter_map(|address| {
                let mut address: Multiaddr = address.as_str().parse().ok()?;
                if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                    address.push(Protocol::P2p(id));
                }
                Address::new(address.to_string())
            })
            .collect()
    }
}

/// Text that is no address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not a multiaddr.
    #[error("\"{text}\" is not an address like /ip4/127.0.0.1/tcp/4001/p2p/12D3..: {reason}")]
    Text {
        /// What was read, cut.
        text: String,
        /// What the parser said.
        reason: String,
    },
    /// No `/p2p/` at the end.
    #[error("the address \"{0}\" does not say whose it is: it must end in /p2p/ and the peer's id")]
    NoKey(String),
    /// A peer id that doesn't hold an Ed25519 key.
    #[error("the peer id in \"{0}\" does not hold an Ed25519 key")]
    OtherKey(String),
    /// Longer than an address may be.
    #[error("the address is longer than {} bytes", tallow_types::limits::ADDRESS_MAX)]
    TooLong,
}

/// Reads `/ip4/../tcp/../p2p/..`.
///
/// # Errors
/// [`BadAddress`] says what is wrong with the text.
pub fn parse_bootstrap(text: &str) -> Result<Peer, BadAddress> {
    let whole = Address::new(text.trim().to_owned()).ok_or(BadAddress::TooLong)?;
    let mut address: Multiaddr = whole
        .as_str()
        .parse()
        .map_err(|error| BadAddress::Text { text: whole.as_str().to_owned(), reason: format!("{error}") })?;
    let Some(Protocol::P2p(id)) = address.pop() else {
        return Err(BadAddress::NoKey(whole.as_str().to_owned()));
    };
    let key = public_key(&id).ok_or_else(|| BadAddress::OtherKey(whole.as_str().to_owned()))?;
    let address = Address::new(address.to_string()).ok_or(BadAddress::TooLong)?;
    Ok(Peer { key, addresses: vec![address] })
}

/// The libp2p name of a key; `None` if the bytes are no Ed25519 key.
pub(crate) fn peer_id(key: &PublicKey) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(key.as_bytes()).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

/// The key in a libp2p name; `None` if it names a key of another kind or only its hash.
pub(crate) fn public_key(id: &PeerId) -> Option<PublicKey> {
    const IDENTITY: u64 = 0;
    let multihash = id.as_ref();
    if multihash.code() != IDENTITY {
        return None;
    }
    let key = libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(PublicKey::new(key.try_into_ed25519().ok()?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_types::sign::Keypair;

    fn key(seed: u8) -> PublicKey {
        Keypair::from_seed(&[seed; 32]).public()
    }

    /// Goal: a key and its libp2p name are one-to-one. Method: round trip of many keys, and names without a key.
    #[test]
    fn keys_and_names_are_one_to_one() {
        for seed in 0..50 {
            let id = peer_id(&key(seed)).expect("a key");
            assert_eq!(public_key(&id), Some(key(seed)));
        }
        let hashed = libp2p::multihash::Multihash::<64>::wrap(0x12, &[7; 32]).expect("fits");
        assert_eq!(public_key(&PeerId::from_multihash(hashed).expect("a name")), None);
        assert!(
            (0..=255).any(|byte| peer_id(&PublicKey::new([byte; 32])).is_none()),
            "half of all bytes are no key"
        );
    }

    /// Goal: what `bootstrap` prints, `parse_bootstrap` reads. Method: round trip.
    #[test]
    fn bootstrap_addresses_round_trip() {
        let address = Address::new("/ip4/127.0.0.1/tcp/4001".to_owned()).expect("short");
        let peer = Peer::new(key(1), vec![address]);
        let text = peer.bootstrap().pop().expect("one");
        assert_eq!(parse_bootstrap(text.as_str()), Ok(peer.clone()));
        let twice = Peer::new(key(1), peer.bootstrap());
        assert_eq!(twice.bootstrap(), peer.bootstrap());
    }

    /// Goal: each way to be wrong has its own answer. Method: a table.
    #[test]
    fn bad_addresses_are_named() {
        assert!(matches!(parse_bootstrap("localhost:4001"), Err(BadAddress::Text { .. })));
        assert!(matches!(parse_bootstrap("/ip4/127.0.0.1/tcp/4001"), Err(BadAddress::NoKey(_))));
        assert!(matches!(parse_bootstrap(""), Err(BadAddress::NoKey(_))));
        let rsa = "/ip4/1.2.3.4/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC";
        assert!(matches!(parse_bootstrap(rsa), Err(BadAddress::OtherKey(_))));
        assert_eq!(parse_bootstrap(&"/".repeat(257)), Err(BadAddress::TooLong));
    }
}

//! The way between nodes: who a peer is, how a request reaches it and how its answer comes back.
//!
//! Two implementations of one [`Transport`]: [`Node`] speaks TCP and QUIC by libp2p, [`twin::Twin`] joins any
//! number of services in memory and injects faults from a seed. Module `frame` owns the bytes, `stream` both ends of a stream, [`exchange`] what
//! may be asked and answered in how many of them.
//!
//! Guarantees: the caller's key that a [`Service`] sees is the one that the connection was authenticated with; every
//! length is checked against its limit before memory is taken; memory is bounded by [`Tuning`] on both ends, whatever
//! the peer does; a call ends with an answer of the kind asked for or with a [`Fault`](tallow_types::fault::Fault)
//! that says whose fault it was; silence ends a call, slowness doesn't.
//!
//! A node finds peers whose addresses it does not know, or that moved, by a table of nodes ([`Discovery`]), and keeps to
//! limits on bytes a second ([`Limit`]).
//!
//! Does not: judge answers beyond their form, repeat a request that may have reached the peer.

mod config;
pub mod exchange;
mod frame;
mod limit;
mod peer;
mod stream;
mod transport;
pub mod twin;

mod node;

pub use config::{Config, Discovery, StartError, Tuning, Way};
pub use limit::Limit;
pub use node::Node;
pub use peer::{BadAddress, Peer, parse_bootstrap};
pub use transport::{Reply, Service, Transport};

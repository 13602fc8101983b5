//! The words of Tallow as types: identifiers, units, limits, the canonical encoding, and the messages that
//! parties sign or send.
//!
//! Guarantees: every quantity has a type of its own; every value read from outside passes a named limit before
//! memory is taken for it; every signed or stored value begins with a type tag and a version.
//!
//! Does not contain: rules (see `market`, `ledger`), secrets (see `seal`), any input or output.

pub mod block;
pub mod codec;
pub mod commit;
pub mod contract;
pub mod domain;
pub mod fault;
pub mod id;
pub mod limits;
pub mod params;
pub mod policy;
pub mod profile;
pub mod sign;
pub mod tx;
pub mod unit;
pub mod wire;

pub use codec::{Bounded, BoundedBytes, DecodeError, Tag, Tagged, decode, encode};
pub use id::{
    AccountId, BlockHash, ChainId, CommitHash, ContractId, Digest, IdempotencyKey, LaneRoot, PublicKey,
    SeederId, Signature, SliceRoot, StateRoot, StripeId, TxId,
};
pub use profile::Profile;
pub use unit::{
    Bytes, DurationMs, Epoch, EpochCount, Fuel, FuelPerMibEpoch, Height, Incarnation, LeafIndex, Lease,
    Sequence, SlotIndex, TimeMs,
};

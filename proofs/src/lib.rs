//! Proofs about stored bytes and about chance: slice roots, the Merkle sum tree of a lane, and the beacon.
//!
//! Guarantees: every function is a pure function of its arguments; whatever a prover sends is recomputed by the
//! verifier, bounded in size, and bound to the number of leaves that a signed commit names.
//!
//! Does not contain: which samples are drawn and what they earn (see `market`), plots, any input or output.

pub mod beacon;
pub mod lane;
pub mod slice;

pub use lane::{Path, SumTree};

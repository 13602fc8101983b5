//! The ledger: a state machine that orders money, contracts, write leases and epochs.
//!
//! Guarantees: pure functions from state and block to writes. Money is conserved to the unit, nothing goes negative, a
//! transaction applies at most once, two nodes that apply the same blocks have the same state root.
//!
//! Does not contain: files, clocks, networks, agreement about blocks (see `consensus`); formulas (see `market`).

pub mod block;
mod epoch;
pub mod genesis;
pub mod key;
pub mod lease;
pub mod light;
mod proof;
pub mod record;
pub mod refusal;
mod settle;
pub mod state;
pub mod tree;
mod tx;
mod work;

pub use block::{BlockEnv, BlockError, Built, Due, DueKind, Outcome, build, due, execute};
pub use genesis::{GenesisError, genesis};
pub use refusal::{ProofRefusal, Refusal};
pub use state::{Overlay, ReadError, StateRead, Writes};

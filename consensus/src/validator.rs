//! The single embedded validator: makes blocks, on demand and when the ledger's clock says so.
//!
//! Guarantees: an answer is given only when the block that holds it is on disk; never two blocks of one height and
//! incarnation are signed; between demands it sleeps.
//!
//! It is trusted: with one validator, its signature alone is the certificate of finality.

pub mod core;
pub mod guard;
mod pool;
mod seat;
mod shell;

pub use core::{Answer, Base, Core, Effect, Event};
pub use guard::{Guard, GuardError};
pub use seat::{Seat, SeatError, adopt, open, rebuild};
pub use shell::{Config, Handle, RunError, Runner, spawn};

/// Names who waits for an answer.
pub type Ticket = u64;

#[cfg(test)]
mod tests;

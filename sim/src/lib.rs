//! Whole protocols in one thread, in simulated time, from one seed: faults included, checkers beside them.
//!
//! [`lease`] attacks the write lease and the commit: the very rules that seeders and clients run, with a model of the
//! ledger and of the disks between them.
//!
//! Guarantees: one plan gives one run, event by event; a violation names the seed that replays it.
//!
//! Does not: measure time, use sockets, or replace tests of the shells.

mod dice;
pub mod lease;

pub use dice::Dice;

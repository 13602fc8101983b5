//! The ledger from outside: whole chains of blocks through its public functions.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod blocks;
mod commits;
mod golden;
mod lanes;
mod leases;
mod money;
mod random;
mod refusals;
mod world;

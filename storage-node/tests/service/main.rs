//! The service over the in-memory network, with a real ledger and real disks.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

mod node;
mod pages;
mod promises;
mod requests;
mod world;

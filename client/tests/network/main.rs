//! The client against real seeders and a real ledger, over the in-memory network.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may stop where it stands")]

mod catalogs;
mod devices;
mod drops;
mod faults;
mod full;
mod pages;
mod resume;
mod trees;
mod world;

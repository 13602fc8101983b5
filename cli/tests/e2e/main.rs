//! End-to-end tests with the real program and real processes on loopback: few, because they are slow; the rules have
//! tests of their own in their crates.
#![allow(clippy::unwrap_used, missing_docs)]

mod blobs;
mod demo;
mod harness;
mod line;
mod network;
mod wallet;

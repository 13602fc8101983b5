//! The storage node: what a seeder runs, and what every node that follows the ledger runs.
//!
//! `store` keeps slices on disk, `lanes` decides what a seeder may sign, `service` answers the network, `node` ties them to
//! a ledger and a transport.
//!
//! Guarantees: what the node acknowledged or signed was durable before it said so. Holds no key that opens content.

pub mod lanes;
pub mod store;

//! The storage node: what a seeder runs, and what every node that follows the ledger runs.
//!
//! `store` keeps slices on disk, `lanes` decides what a seeder may sign, `seeder` joins the two to the ledger, `service`
//! answers the network, `upstream` asks it, and `node` starts all of it in one folder.
//!
//! Guarantees: what the node acknowledged or signed was durable before it said so. Holds no key that opens content.

pub mod lanes;
pub mod node;
pub mod seeder;
pub mod service;
pub mod store;
pub mod upstream;

pub use node::{Join, Node, NodeConfig, SeederConfig, StartError, ValidatorConfig};
pub use service::StorageService;

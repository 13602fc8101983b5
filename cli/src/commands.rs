//! What each command does, once its line is parsed.

pub mod blobs;
pub mod contract;
pub mod dev;
pub mod node;
pub mod wallet;

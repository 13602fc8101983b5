//! A network for development, kept in a folder of this machine: one validator and some seeders, each a process.

pub mod fleet;
pub mod folder;
mod fund;
mod hold;
pub mod rebuild;
pub mod remote;
pub mod state;
pub mod supervisor;

//! Why a node can't be started.

use std::path::PathBuf;

use tallow_consensus::validator::{RunError, SeatError};
use tallow_consensus::{ChainError, FollowError};

use crate::store::OpenError;

/// Why a node can't be started. The message is for people; the predicates are for programs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the folder.
    #[error("the folder {} is in use by another process{}", .dir.display(), .process.map(|id| format!(" ({id})")).unwrap_or_default())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The process, if it said who it is.
        process: Option<u32>,
    },
    /// The folder can't be used.
    #[error("the folder {} can't be used: {source}", .dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It can't listen.
    #[error(transparent)]
    Net(#[from] tallow_net::StartError),
    /// A validator that neither begins a network nor takes over a ledger that it has.
    #[error("a validator needs the network's genesis, or a ledger to adopt")]
    NoGenesis,
    /// The ledger in the folder can't be used.
    #[error(transparent)]
    Ledger(#[from] ChainError),
    /// The ledger can't be had from anybody.
    #[error("the ledger can't be fetched: {0}")]
    Follow(#[from] FollowError),
    /// The validator's files can't be used.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The validator can't run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The slice store can't be used.
    #[error("the slice store can't be used: {0}")]
    Store(#[from] OpenError),
    /// A bug.
    #[error("a part of the node panicked while it was started")]
    Panicked,
}

impl StartError {
    /// Whether another process has the folder.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Store(OpenError::InUse) => true,
            Self::Ledger(error)
            | Self::Seat(SeatError::Chain(error))
            | Self::Follow(FollowError::Chain(error)) => error.is_in_use(),
            _ => false,
        }
    }

    /// Whether another program listens where this node should.
    #[must_use]
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Net(tallow_net::StartError::PortInUse { .. }))
    }

    /// Whether the folder belongs to another network.
    #[must_use]
    pub fn is_other_network(&self) -> bool {
        match self {
            Self::Ledger(error) | Self::Follow(FollowError::Chain(error)) => error.is_other_network(),
            Self::Seat(SeatError::Chain(error)) => error.is_other_network(),
            _ => false,
        }
    }

    /// Whether nobody of the network could be reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Follow(FollowError::Source(_)))
    }
}

//! Why a chain could not do what was asked.

use std::path::Path;

use tallow_ledger::state::ReadError;
use tallow_types::fault::{Code, Fault};
use tallow_types::{BlockHash, ChainId, Height};

/// What went wrong with a ledger's file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message says they are")]
pub enum ChainError {
    /// There is no ledger where one was to be opened.
    #[error("there is no ledger in {dir}")]
    Absent { dir: String },
    /// The folder can't be made or used.
    #[error("the folder {dir} can't be used: {reason}")]
    Folder { dir: String, reason: String },
    /// Another program, or another version of this one, wrote the file.
    #[error("the ledger file has layout {found:?}, this program reads \"tallow ledger 1\"")]
    Schema { found: String },
    /// The ledger there is another network's.
    #[error("the ledger is of network {found}, not of {wanted}")]
    OtherNetwork { wanted: ChainId, found: ChainId },
    /// Another process has the file open.
    #[error("the ledger is in use by another process")]
    InUse,
    /// A record in the file is not what this program wrote.
    #[error("the ledger file is damaged: {what}")]
    Damaged { what: &'static str },
    /// Blocks so old are gone.
    #[error("blocks below {oldest} are no longer kept; a snapshot has what they made")]
    Pruned { oldest: Height },
    /// No such piece, or no longer.
    #[error("there is no such piece of a snapshot")]
    NoPiece,
    /// A change that was computed on another block than the newest.
    #[error("the block follows {parent:?}, but the newest is {tip:?}")]
    NotNext { parent: BlockHash, tip: BlockHash },
    /// The state does not come out as a signed header says. A bug or a damaged file, never normal.
    #[error("the state after block {height} is not the one that its header names")]
    WrongRoot { height: Height },
    /// A step back to a block that is no longer kept.
    #[error("can't step back to block {height}: it is no longer kept")]
    TooFarBack { height: Height },
    /// A snapshot that breaks its format or does not make the state it names: the sender is at fault.
    #[error("the snapshot is not valid: {reason}")]
    BadSnapshot { reason: String },
    /// A read or write failed.
    #[error("reading or writing the ledger failed: {0}")]
    Storage(#[source] Box<redb::Error>),
    /// The state can't be read as the ledger's rules wrote it.
    #[error(transparent)]
    State(#[from] ReadError),
}

impl ChainError {
    pub(super) fn folder(dir: &Path, error: &std::io::Error) -> Self {
        Self::Folder { dir: dir.display().to_string(), reason: error.to_string() }
    }

    pub(crate) fn io(error: &std::io::Error) -> Self {
        redb::StorageError::Io(std::io::Error::new(error.kind(), error.to_string())).into()
    }

    /// Whether there is simply no ledger yet.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    /// Whether another process has it open.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse)
    }

    /// Whether it is another network's.
    #[must_use]
    pub fn is_other_network(&self) -> bool {
        matches!(self, Self::OtherNetwork { .. })
    }

    /// Whether the one who sent blocks or snapshot is at fault.
    #[must_use]
    pub fn blames_sender(&self) -> bool {
        matches!(self, Self::BadSnapshot { .. } | Self::WrongRoot { .. })
    }
}

impl From<ChainError> for Fault {
    fn from(error: ChainError) -> Self {
        let code = match &error {
            ChainError::Pruned { .. } | ChainError::NoPiece => Code::NotFound,
            ChainError::Storage(_) | ChainError::Damaged { .. } | ChainError::State(_) => Code::Storage,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<redb::Error> for ChainError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Storage(Box::new(other)),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for ChainError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

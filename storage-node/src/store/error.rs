//! What goes wrong with a store, one type an operation.

use tallow_types::{Bytes, StripeId};

use super::index::IndexError;

/// Bytes that aren't those that their leaf names: the sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of stripe {} don't have the length or the root that was announced", .stripe.short())]
pub struct WrongBytes {
    /// The stripe.
    pub stripe: StripeId,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The room given to the store, or the file system down to its reserve, is used up.
    #[error("no room for {needed} more bytes: {free} are left above the reserve")]
    DiskFull {
        /// Bytes asked for.
        needed: Bytes,
        /// Bytes left.
        free: Bytes,
    },
    /// The lane's limit is reached.
    #[error("lane would hold {needed} bytes, its limit is {limit}")]
    LaneFull {
        /// Bytes that it would hold.
        needed: Bytes,
        /// Its limit.
        limit: Bytes,
    },
    /// Another slice of this name is here. Stripe ids are never used again, so the sender is at fault.
    #[error("stripe {} is here already with another root", .stripe.short())]
    Conflict {
        /// The stripe.
        stripe: StripeId,
    },
    /// A commit names slices that aren't here.
    #[error("{missing} slices that the commit names are not here, the first of stripe {}", .first.short())]
    Missing {
        /// How many.
        missing: usize,
        /// The first of them.
        first: StripeId,
    },
    /// Too many requests wait.
    #[error("too many writes are waiting")]
    Busy,
    /// A write or sync failed before; nothing more is written until the store is opened again.
    #[error("the store stopped writing: {0}")]
    Broken(String),
}

/// Why a slice can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such slice.
    #[error("slice is not here")]
    NotFound,
    /// The range doesn't lie inside the slice.
    #[error("range {offset}+{length} lies outside a slice of {slice} bytes")]
    Range {
        /// Start of the range.
        offset: u32,
        /// Length of the range.
        length: u32,
        /// Length of the slice.
        slice: u32,
    },
    /// The bytes on the disk are not those that were stored.
    #[error("slice is damaged on the disk")]
    Damaged,
    /// The file system failed.
    #[error("slice can't be read")]
    Io(#[from] std::io::Error),
    /// The index failed.
    #[error("slice can't be looked up")]
    Index(#[from] IndexError),
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store is in use by another process")]
    InUse,
    /// The file system failed.
    #[error("the store's files can't be used")]
    Io(#[from] std::io::Error),
    /// The index is damaged. `rebuild` makes another from the segments; promises of lanes are lost by it.
    #[error("the store's index can't be used")]
    Index(#[from] IndexError),
    /// Written by another program version.
    #[error("the store has format {found}, this program reads format {known}")]
    Format {
        /// What it has.
        found: u32,
        /// What this program reads.
        known: u32,
    },
}

//! What an operation tells while it runs. Callbacks come from many threads, must return at once, and decide nothing.

use tallow_types::id::SeederId;
use tallow_types::unit::SlotIndex;

/// Which part of an operation is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up the network, the contract and the newest commit.
    Connecting,
    /// Opening a contract.
    Opening,
    /// Waiting for the write lease.
    Leasing,
    /// Reading, sealing, coding, sending.
    Storing,
    /// Waiting for countersignatures.
    Committing,
    /// Fetching and opening.
    Fetching,
    /// Re-creating slices.
    Repairing,
    /// Posting to the ledger.
    Posting,
}

/// Callbacks of an operation; all default to nothing. Counts are increments, not totals.
pub trait Progress: Send + Sync {
    /// A stage began.
    fn stage(&self, _stage: Stage) {}
    /// The size of the work, as far as it is known: blobs and bytes. Called again when it grows.
    fn expect(&self, _blobs: u64, _bytes: u64) {}
    /// A blob is done: read to its end by `put`, written whole by `get`.
    fn blob(&self, _path: &str) {}
    /// Plain bytes read by `put`, or written by `get`.
    fn plain(&self, _bytes: u64) {}
    /// Slice bytes sent to, or fetched from, a seeder.
    fn moved(&self, _slot: SlotIndex, _seeder: &SeederId, _bytes: u64) {}
    /// Slice bytes that a seeder acknowledged as durable.
    fn acknowledged(&self, _slot: SlotIndex, _seeder: &SeederId, _bytes: u64) {}
    /// A seeder dropped out, and why; the operation goes on without it.
    fn lost(&self, _slot: SlotIndex, _seeder: &SeederId, _reason: &str) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

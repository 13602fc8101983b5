//! The folder of a validator: a ledger and the guard of its key, brought together again after whatever happened.

use std::path::Path;
use std::sync::Arc;

use tallow_types::params::Genesis;
use tallow_types::{Height, Incarnation};

use super::guard::{self, Guard, GuardError};
use crate::chain::{self, Chain, ChainError, Options};
use crate::follower::{self, FollowError};

/// Why a folder can't be a validator's.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message says they are")]
pub enum SeatError {
    /// A ledger with blocks, and no guard: a follower's, or a validator's that lost half of its folder.
    #[error("the ledger is at block {height} and there is no guard; adopt it as a new incarnation")]
    NoGuard { height: Height },
    /// The ledger misses blocks that the guard knows to be signed: it was put back from a copy.
    #[error("block {signed} is signed but the ledger ends at {height}; rebuild from a follower's copy")]
    LostBlocks { signed: Height, height: Height },
    /// The ledger has blocks that the guard's key never signed.
    #[error("the ledger has block {height}, which the guard does not know; adopt it as a new incarnation")]
    Foreign { height: Height },
    /// The chain here is halted: its validator signed two branches.
    #[error("the ledger is halted at a fork; nothing may be built on it")]
    Halted,
    /// A file can't be copied.
    #[error("copying the ledger failed: {reason}")]
    Copy { reason: String },
    /// Every incarnation number is used.
    #[error("there is no incarnation left")]
    LastIncarnation,
    /// The guard's file.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The ledger's file.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The block that was signed last can't be applied.
    #[error("the block that was signed last can't be applied: {0}")]
    Signed(#[source] Box<FollowError>),
}

/// A ledger with the guard of the key that writes it.
#[derive(Debug)]
pub struct Seat {
    pub(super) chain: Arc<Chain>,
    pub(super) guard: Guard,
}

impl Seat {
    /// Brings a ledger and a guard together: a block that was signed and not committed is committed now.
    ///
    /// # Errors
    /// [`SeatError`] if they don't belong together.
    pub fn new(chain: Arc<Chain>, guard: Guard) -> Result<Self, SeatError> {
        if chain.fork()?.is_some() {
            return Err(SeatError::Halted);
        }
        let status = chain.status();
        match guard.signed() {
            None => {
                // The guard begins with a ledger of that height, and remembers a block before the ledger gets it.
                if status.incarnation >= guard.incarnation() && status.height > Height::ZERO {
                    return Err(SeatError::Foreign { height: status.height });
                }
            }
            Some(signed) if signed.header.height == status.height => {
                if signed.header.hash() != status.tip {
                    return Err(SeatError::Foreign { height: status.height });
                }
            }
            Some(signed) if signed.header.height < status.height => {
                return Err(SeatError::Foreign { height: status.height });
            }
            Some(signed) => {
                let (height, tip) = (signed.header.height, signed.header.parent);
                if Some(height) != status.height.next() || tip != status.tip {
                    return Err(SeatError::LostBlocks { signed: height, height: status.height });
                }
                follower::apply(&chain, signed).map_err(|error| SeatError::Signed(Box::new(error)))?;
            }
        }
        Ok(Self { chain, guard })
    }

    /// The ledger.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The incarnation under which it goes on.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.guard.incarnation()
    }
}

/// Opens a validator's folder, or makes one that begins with `genesis`.
///
/// # Errors
/// [`SeatError`]; after a loss, the message says what to do.
pub fn open(dir: &Path, genesis: &Genesis, options: Options) -> Result<Seat, SeatError> {
    let chain = Chain::open(dir, genesis, options)?;
    let guard = match Guard::open(dir, chain.id())? {
        Some(guard) => guard,
        None if chain.status().height == Height::ZERO => Guard::begin(dir, chain.id(), Incarnation::ZERO)?,
        None => return Err(SeatError::NoGuard { height: chain.status().height }),
    };
    Seat::new(chain, guard)
}

/// Makes a validator's folder of one that holds a followed ledger: the validator goes on from its newest block, under an
/// incarnation that was never used.
///
/// For a network whose validator lost its disk. The caller has looked at all followers that can be reached and takes the
/// highest: blocks that only others have are lost, and they step back.
///
/// # Errors
/// [`SeatError`].
pub fn adopt(dir: &Path, options: Options) -> Result<Seat, SeatError> {
    let chain = Chain::reopen(dir, options)?;
    // A guard that is there may be one of an older try: no number that it used is used again.
    let used = Guard::open(dir, chain.id())?.map_or(Incarnation::ZERO, |old| old.incarnation());
    let next = used.max(chain.status().incarnation).next().ok_or(SeatError::LastIncarnation)?;
    let guard = Guard::begin(dir, chain.id(), next)?;
    Seat::new(chain, guard)
}

/// Makes a new validator's folder at `to` from a follower's folder, whose node is stopped, and adopts it.
///
/// # Errors
/// [`SeatError`]; `Chain` with `is_in_use` if the follower still runs.
pub fn rebuild(from: &Path, to: &Path, options: Options) -> Result<Seat, SeatError> {
    let copy = |error: std::io::Error| SeatError::Copy { reason: error.to_string() };
    let source = Chain::reopen(from, options)?;
    std::fs::create_dir_all(to).map_err(copy)?;
    let target = to.join(chain::FILE);
    if target.exists() || to.join(guard::FILE).exists() {
        return Err(SeatError::Copy { reason: format!("there is a ledger in {} already", to.display()) });
    }
    // Closing the source first leaves a file that needs no repair.
    drop(source);
    std::fs::copy(from.join(chain::FILE), &target).map_err(copy)?;
    std::fs::File::open(&target).and_then(|file| file.sync_all()).map_err(copy)?;
    adopt(to, options)
}

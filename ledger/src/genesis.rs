//! The state that a network begins with.

use tallow_types::params::Genesis;

use crate::state::Writes;

/// Why a genesis is none. Whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Nobody could make a block.
    #[error("genesis names no validator")]
    NoValidators,
    /// One key twice, or without weight.
    #[error("genesis names a validator twice, or one without weight")]
    BadValidator,
    /// One account twice, or with nothing.
    #[error("genesis endows an account twice, or with nothing")]
    BadEndowment,
    /// More than amounts are computed with.
    #[error("genesis endows more than any network may hold")]
    TooMuchMoney,
    /// Rules that cannot work.
    #[error("genesis parameter {0} is out of range")]
    BadParameter(&'static str),
}

/// The records of a new network, at height 0. The genesis block is a header without body over their root.
///
/// # Errors
/// See [`GenesisError`].
pub fn genesis(genesis: &Genesis) -> Result<Writes, GenesisError> {
    unimplemented!()
}

//! Orders, keeps and follows the blocks of a ledger.
//!
//! * [`Chain`] keeps one ledger on disk: blocks, current state, authenticated tree, all in one redb file, one durable
//!   transaction a block.
//! * [`validator`] makes blocks: a pure core that turns events into effects, and a shell that runs them.
//! * [`follower`] takes blocks from anyone, checks each as if it came from an enemy, and never leaves the branch it is
//!   on, except for a validator that was rebuilt and says so.
//!
//! Guarantees: whatever was acknowledged is in a block on disk; a validator never signs two blocks of one height and
//! incarnation; two nodes that hold the same block hold the same state; the folder's size is bounded by the state and a
//! fixed number of blocks.
//!
//! Does not contain: the rules of blocks and transactions (see `ledger`), the network (callers bring a
//! [`follower::Source`]), several validators.

pub mod chain;
pub mod clock;
pub mod follower;
pub mod validator;

pub use chain::{Chain, ChainError, Options, Piece, View};
pub use clock::Clock;
pub use follower::{FollowError, Follower, Progress, Source};

#[cfg(test)]
mod testing;

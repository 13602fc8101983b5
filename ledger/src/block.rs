//! Executing and building blocks.
//!
//! A block is executed in this order: time passes (which may end an epoch), a bounded number of due contracts is
//! settled, transactions apply one after another, then epoch proofs, then what has expired is forgotten. Everything is a
//! function of the state before and the block; a block with one item that is refused is no block.

use std::collections::BTreeSet;

use tallow_types::block::{Body, Header, SignedEpochProof, VRF_PROOF_LEN};
use tallow_types::tx::Transaction;
use tallow_types::wire::Receipt;
use tallow_types::{
    AccountId, BlockHash, ChainId, Digest, Height, IdempotencyKey, Incarnation, PublicKey, SeederId,
    StateRoot, TimeMs, TxId,
};

use crate::record::Head;
use crate::refusal::{ProofRefusal, Refusal};
use crate::state::{ReadError, StateRead, Writes};

/// What a block says about itself before its body is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEnv {
    /// Its ordinal.
    pub height: Height,
    /// The block before. That this is the caller's tip is for the caller to check.
    pub parent: BlockHash,
    /// The proposer's time. How far it may lie from a clock is for the caller to check.
    pub time: TimeMs,
    /// Who proposes.
    pub proposer: PublicKey,
    /// The proposer's share of the beacon: `tallow_proofs::beacon::prove(secret, &head.beacon, height)`.
    pub vrf: [u8; VRF_PROOF_LEN],
    /// How often a single validator was rebuilt.
    pub incarnation: Incarnation,
}

impl From<&Header> for BlockEnv {
    fn from(header: &Header) -> Self {
        Self {
            height: header.height,
            parent: header.parent,
            time: header.time,
            proposer: header.proposer,
            vrf: header.vrf,
            incarnation: header.incarnation,
        }
    }
}

/// A transaction that a block applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Who sent it.
    pub sender: AccountId,
    /// Its idempotency key.
    pub key: IdempotencyKey,
    /// What the sender is told.
    pub receipt: Receipt,
}

/// What a block does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Changes of the state.
    pub writes: Writes,
    /// In the order of the body.
    pub applied: Vec<Applied>,
    /// Where the ledger stands after it.
    pub head: Head,
}

/// A body made from candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What the block orders.
    pub body: Body,
    /// What it does.
    pub outcome: Outcome,
    /// Transactions that cannot be in this block, and why. Those applied before are here with their receipt.
    pub rejected: Vec<(TxId, Refusal)>,
    /// Proofs that cannot.
    pub rejected_proofs: Vec<(SeederId, ProofRefusal)>,
    /// What did not fit and should be tried in the next block.
    pub left: (Vec<Transaction>, Vec<SignedEpochProof>),
}

/// Why a block is not one. Its proposer is at fault, but for `Read`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not the next one.
    #[error("the block has height {found}, expected {expected}")]
    Height { found: Height, expected: Height },
    /// Time does not rise.
    #[error("the block's time {found} is not after its parent's {parent}")]
    Time { found: TimeMs, parent: TimeMs },
    /// Made by a validator that forgot a rebuild.
    #[error("the block's incarnation {found} is below its parent's {parent}")]
    Incarnation { found: Incarnation, parent: Incarnation },
    /// Not a validator.
    #[error("proposer {} is not a validator", .0.short())]
    Proposer(PublicKey),
    /// A share of the beacon that isn't the proposer's.
    #[error(transparent)]
    Beacon(#[from] tallow_proofs::beacon::BadShare),
    /// Another network's, or made by other rules.
    #[error("the header's {field} does not match the state")]
    Header { field: &'static str },
    /// More bytes than a block may have.
    #[error("the body has {len} bytes, more than {max}")]
    TooLarge { len: usize, max: usize },
    /// A transaction that cannot be in it.
    #[error("transaction {}: {refusal}", .tx.short())]
    Transaction { tx: TxId, refusal: Refusal },
    /// A proof that cannot be in it.
    #[error("epoch proof of seeder {}: {refusal}", .seeder.short())]
    Proof { seeder: SeederId, refusal: ProofRefusal },
    /// The state cannot be read: nobody's fault but the disk's.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Executes a body on the state before it.
///
/// # Errors
/// See [`BlockError`]: the block is invalid, or the state cannot be read.
pub fn execute(state: &dyn StateRead, env: &BlockEnv, body: &Body) -> Result<Outcome, BlockError> {
    unimplemented!()
}

/// Makes a body from candidates in the order given, leaving out what is refused or does not fit, and executes it.
///
/// # Errors
/// See [`BlockError`]; never because of a candidate.
pub fn build(
    state: &dyn StateRead,
    env: &BlockEnv,
    transactions: Vec<Transaction>,
    proofs: Vec<SignedEpochProof>,
) -> Result<Built, BlockError> {
    unimplemented!()
}

/// The header of a block: `state` is the state before it, `root` the tree's root after it.
///
/// # Errors
/// [`ReadError`] if the state cannot be read.
pub fn header(
    state: &dyn StateRead,
    env: &BlockEnv,
    body: &Body,
    root: StateRoot,
) -> Result<Header, ReadError> {
    unimplemented!()
}

/// Checks what a header says against the state before its block: network, rules, validator sets. Height, time, proposer
/// and beacon are checked by [`execute`].
///
/// # Errors
/// [`BlockError::Header`] naming the field.
pub fn check_header(state: &dyn StateRead, header: &Header) -> Result<(), BlockError> {
    unimplemented!()
}

/// Why a block must be made without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueKind {
    /// Contracts due in this epoch wait to be settled.
    Settle,
    /// The beacon's gap is not over.
    Gap,
    /// This block makes the epoch's beacon.
    Beacon,
    /// This block ends the epoch.
    Boundary,
}

/// The next block that must be made even if nobody sends anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Why.
    pub kind: DueKind,
    /// The earliest time of that block: later than the tip's. After a halt longer than an epoch the block made then is
    /// an ordinary one, from which time counts again, and the boundary is due anew.
    pub at: TimeMs,
}

/// What is due next.
///
/// # Errors
/// [`ReadError`] if the state cannot be read.
pub fn due(state: &dyn StateRead) -> Result<Due, ReadError> {
    unimplemented!()
}

//! Executing and building blocks.
//!
//! A block is executed in this order: time passes (which may end an epoch), a bounded number of due contracts is
//! settled, transactions apply one after another, then epoch proofs, then what has expired is forgotten. Everything is a
//! function of the state before and the block; a block with one item that is refused is no block.

use tallow_types::block::{Body, Header, SignedEpochProof, VRF_PROOF_LEN};
use tallow_types::limits::{BLOCK_PROOFS_MAX, BLOCK_TXS_MAX, BODY_MAX, FORGET_PER_BLOCK};
use tallow_types::params::validators_hash;
use tallow_types::tx::Transaction;
use tallow_types::wire::Receipt;
use tallow_types::{
    AccountId, BlockHash, Bounded, Digest, Height, IdempotencyKey, Incarnation, PublicKey, SeederId,
    StateRoot, TimeMs, TxId,
};

use crate::record::{Head, Network, Validators};
use crate::refusal::{ProofRefusal, Refusal};
use crate::state::{ReadError, StateRead, Writes};
use crate::work::{Stop, Work, damaged, need};
use crate::{epoch, key, proof, settle, tx};

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
    Height {
        /// Its height.
        found: Height,
        /// The next one.
        expected: Height,
    },
    /// Time does not rise.
    #[error("the block's time {found} is not after its parent's {parent}")]
    Time {
        /// Its time.
        found: TimeMs,
        /// Its parent's.
        parent: TimeMs,
    },
    /// Made by a validator that forgot a rebuild.
    #[error("the block's incarnation {found} is below its parent's {parent}")]
    Incarnation {
        /// Its incarnation.
        found: Incarnation,
        /// Its parent's.
        parent: Incarnation,
    },
    /// Not a validator.
    #[error("proposer {} is not a validator", .0.short())]
    Proposer(PublicKey),
    /// A share of the beacon that isn't the proposer's.
    #[error(transparent)]
    Beacon(#[from] tallow_proofs::beacon::BadShare),
    /// Another network's, or made by other rules.
    #[error("the header's {field} does not match the state")]
    Header {
        /// What does not match.
        field: &'static str,
    },
    /// More bytes than a block may have.
    #[error("the body has {len} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A transaction that cannot be in it.
    #[error("transaction {}: {refusal}", .tx.short())]
    Transaction {
        /// Which.
        tx: TxId,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// A proof that cannot be in it.
    #[error("epoch proof of seeder {}: {refusal}", .seeder.short())]
    Proof {
        /// Whose.
        seeder: SeederId,
        /// Why.
        refusal: ProofRefusal,
    },
    /// The state cannot be read: nobody's fault but the disk's.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Executes a body on the state before it.
///
/// # Errors
/// See [`BlockError`]: the block is invalid, or the state cannot be read.
pub fn execute(state: &dyn StateRead, env: &BlockEnv, body: &Body) -> Result<Outcome, BlockError> {
    let len = length(body);
    if len > BODY_MAX {
        return Err(BlockError::TooLarge { len, max: BODY_MAX });
    }
    let mut run = Run::begin(state, env)?;
    for tx in body.transactions.iter() {
        run.transaction(tx).map_err(|stop| match stop {
            Stop::Refused(refusal) => BlockError::Transaction { tx: tx.id(), refusal: Box::new(refusal) },
            Stop::Read(error) => error.into(),
        })?;
    }
    for proof in body.proofs.iter() {
        run.proof(proof).map_err(|stop| match stop {
            Stop::Refused(refusal) => BlockError::Proof { seeder: proof.proof.seeder, refusal },
            Stop::Read(error) => error.into(),
        })?;
    }
    run.finish()
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
    let mut run = Run::begin(state, env)?;
    let mut room = BODY_MAX - length(&Body::default());
    let (mut taken, mut rejected, mut left) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for tx in transactions {
        let len = length(&tx);
        if taken.len() == BLOCK_TXS_MAX || len > room {
            left.0.push(tx);
            continue;
        }
        match run.transaction(&tx) {
            Ok(()) => {
                room -= len;
                taken.push(tx);
            }
            Err(Stop::Refused(refusal)) => rejected.push((tx.id(), refusal)),
            Err(Stop::Read(error)) => return Err(error.into()),
        }
    }
    let (mut proven, mut rejected_proofs) = (Vec::new(), Vec::new());
    for proof in proofs {
        let len = length(&proof);
        if proven.len() == BLOCK_PROOFS_MAX || len > room {
            left.1.push(proof);
            continue;
        }
        match run.proof(&proof) {
            Ok(()) => {
                room -= len;
                proven.push(proof);
            }
            Err(Stop::Refused(refusal)) => rejected_proofs.push((proof.proof.seeder, refusal)),
            Err(Stop::Read(error)) => return Err(error.into()),
        }
    }
    let body = Body {
        transactions: Bounded::new(taken).expect("taken up to the limit"),
        proofs: Bounded::new(proven).expect("taken up to the limit"),
    };
    Ok(Built { body, outcome: run.finish()?, rejected, rejected_proofs, left })
}

/// Length of an encoding without its envelope. Bytes.
fn length(value: &impl borsh::BorshSerialize) -> usize {
    borsh::object_length(value).expect("counting bytes cannot fail")
}

/// A block in execution.
struct Run<'a> {
    work: Work<'a>,
    head: Head,
    applied: Vec<Applied>,
}

impl<'a> Run<'a> {
    /// Checks the block's circumstances, lets time pass and settles what is due.
    fn begin(state: &'a dyn StateRead, env: &BlockEnv) -> Result<Self, BlockError> {
        let before: Head = need(state, key::HEAD)?;
        let beacon = check(state, env, &before)?;
        let network: Network = need(state, key::NETWORK)?;
        let epoch = epoch::advance(&network.params, &before, env, beacon)?;
        let head = Head {
            height: env.height,
            time: env.time,
            parent: env.parent,
            incarnation: env.incarnation,
            beacon,
            epoch,
        };
        let mut run = Self { work: Work::new(state, env, epoch.epoch)?, head, applied: Vec::new() };
        if epoch.settling {
            run.head.epoch.settling = settle::settle_due(&mut run.work)?;
        }
        Ok(run)
    }

    fn transaction(&mut self, tx: &Transaction) -> Result<(), Stop> {
        self.applied.push(tx::apply(&mut self.work, tx)?);
        Ok(())
    }

    fn proof(&mut self, proof: &SignedEpochProof) -> Result<(), Stop<ProofRefusal>> {
        proof::apply(&mut self.work, &self.head.epoch, proof)
    }

    /// Forgets what has expired and writes where the ledger stands.
    fn finish(mut self) -> Result<Outcome, BlockError> {
        for (queued, _) in self.work.state.scan(key::FORGET, &[], FORGET_PER_BLOCK)? {
            let (until, seen) =
                key::parse_forget(&queued).ok_or_else(|| damaged("the queue of keys to forget"))?;
            if until >= self.head.height {
                break;
            }
            self.work.state.remove(seen);
            self.work.state.remove(queued);
        }
        self.work.save(key::HEAD.to_vec(), &self.head);
        Ok(Outcome { writes: self.work.state.into_writes(), applied: self.applied, head: self.head })
    }
}

/// Checks a block's circumstances against the state before it, and gives the beacon after it.
fn check(state: &dyn StateRead, env: &BlockEnv, before: &Head) -> Result<Digest, BlockError> {
    let expected = before.height.next().ok_or_else(|| damaged("heights end"))?;
    if env.height != expected {
        return Err(BlockError::Height { found: env.height, expected });
    }
    if env.time <= before.time {
        return Err(BlockError::Time { found: env.time, parent: before.time });
    }
    if env.incarnation < before.incarnation {
        return Err(BlockError::Incarnation { found: env.incarnation, parent: before.incarnation });
    }
    let validators: Validators = need(state, key::VALIDATORS)?;
    let proposer = validators.set.iter().find(|validator| validator.key == env.proposer);
    let proposer = proposer.ok_or(BlockError::Proposer(env.proposer))?;
    Ok(tallow_proofs::beacon::advance(&before.beacon, env.height, &proposer.vrf_key, &env.vrf)?)
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
    let network: Network = need(state, key::NETWORK)?;
    // The set does not change yet, so the next block is certified by the same.
    let validators = validators_hash(&need::<Validators>(state, key::VALIDATORS)?.set);
    Ok(Header {
        protocol: network.params.protocol,
        chain: network.chain,
        incarnation: env.incarnation,
        height: env.height,
        parent: env.parent,
        time: env.time,
        proposer: env.proposer,
        vrf: env.vrf,
        body: body.hash(),
        state: root,
        validators,
        next_validators: validators,
    })
}

/// Checks what a header says against the state before its block: network, rules, validator sets. Height, time, proposer
/// and beacon are checked by [`execute`]; body hash and signature by `Block::verify`; the root by who has the tree.
///
/// # Errors
/// [`BlockError::Header`] naming the field.
pub fn check_header(state: &dyn StateRead, found: &Header) -> Result<(), BlockError> {
    let expected = header(state, &BlockEnv::from(found), &Body::default(), found.state)?;
    let wrong = |field| Err(BlockError::Header { field });
    if found.chain != expected.chain {
        return wrong("network");
    }
    if found.protocol != expected.protocol {
        return wrong("protocol version");
    }
    if found.validators != expected.validators {
        return wrong("validator set");
    }
    if found.next_validators != expected.next_validators {
        return wrong("next validator set");
    }
    Ok(())
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
    /// The earliest time of that block: later than the tip's. After a halt of over two epochs the block made then is
    /// an ordinary one, from which time counts again, and the boundary is due anew.
    pub at: TimeMs,
}

/// What is due next.
///
/// # Errors
/// [`ReadError`] if the state cannot be read.
pub fn due(state: &dyn StateRead) -> Result<Due, ReadError> {
    let network: Network = need(state, key::NETWORK)?;
    Ok(epoch::due(&network.params, &need(state, key::HEAD)?))
}

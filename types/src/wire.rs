//! Messages between a client and a node, and between nodes. One request has one answer. Slice bytes travel beside the
//! message as its payload, never inside it, so that they are not copied through the encoder.
//!
//! The caller's key is known from the connection; a request that only a lease holder may make is checked against the
//! ledger by that key, so it needs no signature of its own.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::{Bounded, BoundedBytes};
use crate::commit::{Countersignature, Fence, LaneChange, Leaf, SignedCommit};
use crate::contract::{Address, SignedAcceptance, Terms};
use crate::fault::Fault;
use crate::id::{
    BlockHash, ChainId, CommitHash, ContractId, IdempotencyKey, SeederId, Signature, StripeId, TxId,
};
use crate::limits::{
    ADDRESSES_MAX, BATCH_SLICES_MAX, BLOCKS_PAGE_MAX, COMMIT_CHAIN_MAX, COMMIT_SLICES_MAX, FRAME_HEADER_MAX,
    PAGE_MAX, SNAPSHOT_PIECE_MAX, STAGE_PAGE_MAX, STATE_KEY_MAX, STATE_VALUE_MAX,
};
use crate::tagged;
use crate::unit::{Bytes, DurationMs, Epoch, Height, Incarnation, LeafIndex, Lease, SlotIndex, TimeMs};

/// What is asked of a node. Those of the first group concern one lane that the node holds; those of the second, the
/// ledger, which every storage node follows and the validator writes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// Who are you, and on which network?
    Hello {
        /// The network that the caller means.
        chain: ChainId,
    },
    /// Store these slices durably; the payload is their bytes, one after another. Lease holder only.
    Store {
        /// The contract.
        contract: ContractId,
        /// The caller's slot at this node.
        slot: SlotIndex,
        /// What each is, in the order of their bytes.
        slices: Bounded<Leaf, BATCH_SLICES_MAX>,
    },
    /// Countersign the last commit of `chain`. Lease holder only.
    Countersign {
        /// The slot.
        slot: SlotIndex,
        /// Commits from the one after this node's newest to the one to countersign, each following the one before.
        chain: Bounded<SignedCommit, COMMIT_CHAIN_MAX>,
        /// How the lane gets from this node's newest commit to the last of `chain`.
        change: LaneChange,
    },
    /// Promise to refuse leases below this one, and tell the newest commit. Lease holder only.
    Fence {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
        /// The lease that the ledger granted to the caller.
        lease: Lease,
    },
    /// Tell the newest commit of a lane. Anyone.
    Lane {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
    },
    /// Tell commits, newest first, from the one named backwards. Anyone.
    Commits {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
        /// Where to start.
        from: CommitHash,
    },
    /// Tell leaves of a lane as of this node's newest commit, empty ones as `None`. Anyone.
    Leaves {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
        /// The first one.
        from: LeafIndex,
    },
    /// Send part of a slice; the payload of the answer is its bytes. Anyone: they are masked.
    Read {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
        /// The stripe.
        stripe: StripeId,
        /// Where to start. Bytes.
        offset: u32,
        /// How much. Bytes, at most a slice.
        length: u32,
    },
    /// Will you take this slot? Anyone.
    Accept {
        /// The terms.
        terms: Terms,
        /// The slot.
        slot: SlotIndex,
    },
    /// Where does your ledger stand? Waits up to `wait` for a block above `above`.
    Status {
        /// Answer at once if the tip is higher.
        above: Height,
        /// How long to wait otherwise.
        wait: DurationMs,
    },
    /// Apply this transaction; the payload is its encoding. Answers when a block holds it, or it is refused.
    Submit,
    /// Carry this epoch proof to the next block; the payload is its encoding.
    Prove,
    /// What became of a transaction?
    Receipt {
        /// Its idempotency key.
        key: IdempotencyKey,
    },
    /// Blocks from a height; the payload of the answer is their encodings. Waits up to `wait` for the first.
    Blocks {
        /// The first one.
        from: Height,
        /// How long to wait for it.
        wait: DurationMs,
    },
    /// Records of the state by key.
    State {
        /// The keys.
        keys: Bounded<StateKey, PAGE_MAX>,
    },
    /// Records of the state in key order.
    Scan {
        /// Beginning of each key.
        prefix: StateKey,
        /// Start after this key; empty for the first page.
        after: StateKey,
    },
    /// One piece of a ledger snapshot; the payload of the answer is its bytes.
    Snapshot {
        /// The height of the snapshot; 0 for the newest.
        height: Height,
        /// Ordinal of the piece.
        piece: u32,
    },
    /// Let this many epochs pass. Only a validator with a manual clock.
    Tick {
        /// How many.
        epochs: u32,
    },
    /// Remember a page of leaves that a `Commit` will append, for a change that is too long for one message. Not durable:
    /// gone with the lease, with a restart, or when others need the memory. Lease holder only.
    Stage {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
        /// Leaves that the change keeps from the front.
        keep: LeafIndex,
        /// The first leaf of this page. Pages follow one another; the one from `keep` on begins anew.
        from: LeafIndex,
        /// The page; `None` for an empty leaf.
        leaves: Bounded<Option<Leaf>, STAGE_PAGE_MAX>,
    },
    /// Store these slices and countersign the last commit of `chain`, in one step; the payload is the slices' bytes. Lease
    /// holder only.
    Commit {
        /// The slot.
        slot: SlotIndex,
        /// As for `Countersign`.
        chain: Bounded<SignedCommit, COMMIT_CHAIN_MAX>,
        /// As for `Countersign`.
        change: LaneChange,
        /// Whether what was staged behind `change.keep` comes before what the change appends.
        staged: bool,
        /// What each slice is, in the order of their bytes; all of them are among those that the change appends.
        slices: Bounded<Leaf, COMMIT_SLICES_MAX>,
    },
    /// Tell which slices of a lane are damaged on this node's disk, by stripe; some, if there are very many: the others when
    /// these are mended. Storing one again mends it. Anyone.
    Damaged {
        /// The contract.
        contract: ContractId,
        /// The slot.
        slot: SlotIndex,
    },
}
tagged!(Request, b"RQ", 1, "request", FRAME_HEADER_MAX);

/// A key of a state record.
pub type StateKey = BoundedBytes<STATE_KEY_MAX>;
/// A value of a state record.
pub type StateValue = BoundedBytes<STATE_VALUE_MAX>;

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// It failed.
    Failed(Fault),
    /// Who this node is.
    Hello {
        /// Its network.
        chain: ChainId,
        /// Whether it is a seeder, and which.
        seeder: Option<SeederId>,
        /// Where nodes of the network listen, this one first.
        bootstrap: Bounded<Address, ADDRESSES_MAX>,
    },
    /// All slices are durable.
    Stored,
    /// The lane is durable as the commit says. Answers `Commit` too.
    Countersigned {
        /// The countersignature.
        signature: Countersignature,
    },
    /// The promise is durable.
    Fenced {
        /// What was promised, and the newest commit.
        fence: Fence,
        /// The seeder's signature of it.
        signature: Signature,
        /// The lane.
        lane: LaneState,
    },
    /// The state of a lane.
    Lane(LaneState),
    /// Commits, newest first; empty when the first isn't known.
    Commits {
        /// The commits.
        commits: Bounded<SignedCommit, COMMIT_CHAIN_MAX>,
    },
    /// Leaves in order.
    Leaves {
        /// Empty leaves are `None`.
        leaves: Bounded<Option<Leaf>, { 16 * PAGE_MAX }>,
    },
    /// Bytes are in the payload.
    Read,
    /// The slot is taken, until the acceptance expires.
    Accepted(SignedAcceptance),
    /// Where the ledger stands.
    Status(ChainStatus),
    /// The transaction is in a block.
    Applied(Receipt),
    /// The epoch proof will be carried.
    Proven,
    /// What became of it; `None` if no block within memory holds it.
    Receipt(Option<Receipt>),
    /// Blocks are in the payload.
    Blocks {
        /// Length of each encoding, in order.
        lengths: Bounded<u32, BLOCKS_PAGE_MAX>,
    },
    /// Records, `None` where the state has none.
    State {
        /// The height that they are of.
        height: Height,
        /// In the order of the keys asked for.
        values: Bounded<Option<StateValue>, PAGE_MAX>,
    },
    /// Records in key order.
    Scan {
        /// The height that they are of.
        height: Height,
        /// Keys and values.
        records: Bounded<(StateKey, StateValue), PAGE_MAX>,
        /// Whether there are more behind the last one.
        more: bool,
    },
    /// The piece is in the payload.
    Snapshot {
        /// The height of the snapshot.
        height: Height,
        /// How many pieces there are, each of [`SNAPSHOT_PIECE_MAX`] bytes but the last.
        pieces: u32,
    },
    /// The epochs have passed.
    Ticked {
        /// The epoch now.
        epoch: Epoch,
    },
    /// The page is remembered.
    Staged,
    /// Slices that can't be read.
    Damaged {
        /// Their stripes.
        stripes: Bounded<StripeId, { 16 * PAGE_MAX }>,
    },
}
tagged!(Response, b"RS", 1, "response", FRAME_HEADER_MAX);

/// The most that one snapshot piece holds.
pub const SNAPSHOT_PIECE: usize = SNAPSHOT_PIECE_MAX;

/// What a seeder knows of a lane that it holds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LaneState {
    /// The newest commit that it countersigned, with that countersignature.
    pub newest: Option<(SignedCommit, Countersignature)>,
    /// The lowest lease that it still serves.
    pub fenced: Lease,
    /// Bytes of the slices that it holds for this lane, committed or not.
    pub bytes: Bytes,
}

/// Where a ledger stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChainStatus {
    /// Its newest block.
    pub height: Height,
    /// The hash of that block.
    pub tip: BlockHash,
    /// The time of that block.
    pub time: TimeMs,
    /// Its epoch.
    pub epoch: Epoch,
    /// How often the validator was rebuilt.
    pub incarnation: Incarnation,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receipt {
    /// The transaction.
    pub tx: TxId,
    /// The block that holds it.
    pub height: Height,
}

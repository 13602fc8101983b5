//! Rows of the index: what is kept of a slice, a segment, a lane.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::commit::{Countersignature, Leaf, Rank, SignedCommit};
use tallow_types::{Bytes, CommitHash, Epoch, Height, LeafIndex, Lease, SliceRoot};

use super::backend::SegmentId;
use super::key::LaneKey;

/// Why a slice is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SliceState {
    /// Stored, in no commit yet.
    Loose {
        /// When.
        since: Epoch,
    },
    /// In the newest commit of its lane.
    Held,
    /// Was in a commit; the commit of this rank leaves it out.
    Dropped {
        /// The rank.
        by: Rank,
    },
    /// The commit that leaves it out was active on the ledger in this epoch; it goes when the epoch is over.
    Released {
        /// The epoch.
        at: Epoch,
    },
    /// Found in a segment after the index was lost. Whether a commit names it isn't known here any more.
    Recovered,
}

/// A segment and an offset in it.
pub type Place = (SegmentId, u64);

/// Where a slice lies, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SliceRow {
    /// Its segment.
    pub segment: SegmentId,
    /// Start of its record. Bytes.
    pub offset: u64,
    /// Its length. Bytes.
    pub length: u32,
    /// BLAKE3 of it.
    pub root: SliceRoot,
    /// Why it is kept.
    pub state: SliceState,
    /// Whether a read found other bytes than the root names.
    pub damaged: bool,
}

impl SliceRow {
    /// Its segment and the start of its record: no other record ever has the same.
    #[must_use]
    pub const fn place(&self) -> Place {
        (self.segment, self.offset)
    }

    /// Whether a sweep looks at it.
    pub(super) const fn is_unheld(&self) -> bool {
        !matches!(self.state, SliceState::Held | SliceState::Recovered)
    }
}

/// A segment as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SegmentRow {
    /// Length of the file.
    pub length: u64,
    /// End of the last record that the index knows.
    pub end: u64,
    /// Bytes of records that live.
    pub live: u64,
    /// Whether nothing is added any more.
    pub sealed: bool,
}

/// What the slices of a lane, or of all lanes, come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Usage {
    /// Number of slices.
    pub slices: u64,
    /// Length of slices in the newest commit.
    pub held: Bytes,
    /// Length of slices in no commit yet.
    pub loose: Bytes,
    /// Length of slices that a commit left out and that are not yet deleted.
    pub dropped: Bytes,
}

impl Usage {
    /// Length of all slices.
    ///
    /// # Panics
    /// Never: no disk holds 2^64 bytes.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        let staged = self.held.checked_add(self.loose).expect("bytes on a disk fit 64 bits");
        staged.checked_add(self.dropped).expect("bytes on a disk fit 64 bits")
    }

    fn part(&mut self, state: SliceState) -> &mut Bytes {
        match state {
            SliceState::Held | SliceState::Recovered => &mut self.held,
            SliceState::Loose { .. } => &mut self.loose,
            SliceState::Dropped { .. } | SliceState::Released { .. } => &mut self.dropped,
        }
    }

    pub(super) fn add(&mut self, length: u32, state: SliceState) {
        self.slices += 1;
        let part = self.part(state);
        *part = part.checked_add(Bytes::new(length.into())).expect("bytes on a disk fit 64 bits");
    }

    pub(super) fn remove(&mut self, length: u32, state: SliceState) {
        self.slices = self.slices.checked_sub(1).expect("what is removed was added");
        let part = self.part(state);
        *part = part.checked_sub(Bytes::new(length.into())).expect("what is removed was added");
    }
}

/// How a seeder came to a lane: whether "no commit yet" is a fact or a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Origin {
    /// It accepted a slot that nobody had held: it has seen the lane from the beginning.
    Founder,
    /// It took a slot that somebody had held: it has nothing to tell before its first commit.
    Joiner,
    /// The records are not whole. The ledger says that it holds the lane and there were none, or older ones than the
    /// ledger has: it may have signed in leases up to this one. Or it comes back to a slot that others may have held.
    Lost {
        /// The lease that was current when this was noticed.
        floor: Lease,
    },
}

/// What a lane has promised. Written only by lane updates.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LaneRow {
    /// How the seeder came to it.
    pub origin: Origin,
    /// Most bytes of the lane, from the terms accepted.
    pub room: Bytes,
    /// The height after which an acceptance that never reached the ledger is void; `None` once it has.
    pub expires: Option<Height>,
    /// The lowest lease that is still served.
    pub fence: Lease,
    /// The newest commit that was countersigned, and its rank.
    pub newest: Option<(CommitHash, Rank)>,
    /// Leaves of the lane, empty ones counted.
    pub leaves: LeafIndex,
    /// The epoch in which the ledger was first seen without this lane.
    pub orphan: Option<Epoch>,
}

impl LaneRow {
    /// A lane of which nothing is known but how it began.
    #[must_use]
    pub const fn new(origin: Origin, room: Bytes, expires: Option<Height>) -> Self {
        Self {
            origin,
            room,
            expires,
            fence: Lease::NONE,
            newest: None,
            leaves: LeafIndex::ZERO,
            orphan: None,
        }
    }
}

/// A commit with this seeder's countersignature of it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeptCommit {
    /// The commit.
    pub signed: SignedCommit,
    /// Set on the one that was countersigned; commits on the way to it are kept without.
    pub countersignature: Option<Countersignature>,
}

/// A change of one lane, written whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneUpdate {
    /// The lane.
    pub key: LaneKey,
    /// What it promises from now on.
    pub row: LaneRow,
    /// Commits to keep from now on.
    pub commits: Vec<KeptCommit>,
    /// Ranks of commits to forget.
    pub forget: Vec<Rank>,
    /// Leaves that go, by truncation or by the commit.
    pub removed: Vec<(LeafIndex, Leaf)>,
    /// Leaves that come; each slice must be here.
    pub appended: Vec<(LeafIndex, Leaf)>,
    /// Whether commits of earlier leases were left behind, or there were no records: what was dropped or recovered counts
    /// as dropped by the new commit, since those between may hold it.
    pub rebased: bool,
}

impl LaneUpdate {
    /// One that changes the row alone.
    #[must_use]
    pub const fn row(key: LaneKey, row: LaneRow) -> Self {
        Self {
            key,
            row,
            commits: Vec::new(),
            forget: Vec::new(),
            removed: Vec::new(),
            appended: Vec::new(),
            rebased: false,
        }
    }
}

/// Everything that is kept of one lane but its slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// What it promises.
    pub row: LaneRow,
    /// Recent commits, oldest first.
    pub commits: Vec<KeptCommit>,
    /// Leaves that are not empty.
    pub leaves: Vec<(LeafIndex, Leaf)>,
}

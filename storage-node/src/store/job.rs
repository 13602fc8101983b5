//! What the store is asked to write.

use super::key::{LaneKey, SliceKey};
use super::record::RecordHeader;
use super::row::{LaneUpdate, Place};
use super::upkeep::Cursor;
use super::{Buffer, Done, Judge, PutRequest, Swept, WriteError};

pub(super) enum Job {
    Put(PutRequest, Done<()>),
    /// Slices, and the promise that needs them.
    Commit(PutRequest, Box<LaneUpdate>, Done<()>),
    Lane(Box<LaneUpdate>, Done<()>),
    Sweep {
        limit: usize,
        judge: Judge,
        done: Done<Swept>,
    },
    RemoveLane {
        lane: LaneKey,
        limit: usize,
        done: Done<Swept>,
    },
    /// These places hold other bytes than were stored.
    Damaged(Vec<(SliceKey, Place)>, Done<()>),
    /// Records that shall lie elsewhere.
    Move(Vec<Moved>, Done<()>),
    /// How far the scrub has come.
    Scrubbed(Cursor, Done<()>),
}

/// A record to be written again.
pub(super) struct Moved {
    pub(super) from: Place,
    pub(super) header: RecordHeader,
    pub(super) bytes: Buffer,
}

impl Job {
    pub(super) fn refuse(self, error: &WriteError) {
        match self {
            Self::Put(_, done)
            | Self::Commit(_, _, done)
            | Self::Lane(_, done)
            | Self::Damaged(_, done)
            | Self::Move(_, done)
            | Self::Scrubbed(_, done) => done(Err(error.clone())),
            Self::Sweep { done, .. } | Self::RemoveLane { done, .. } => done(Err(error.clone())),
        }
    }

    /// Bytes of slices in it.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Put(request, _) | Self::Commit(request, ..) => {
                request.slices.iter().map(|slice| slice.bytes.len()).sum()
            }
            Self::Move(moved, _) => moved.iter().map(|moved| moved.bytes.len()).sum(),
            _ => 0,
        }
    }

    /// Whether slices that are here may not be, or not be whole, after it. Whoever decides behind it that a slice is here
    /// already must have seen what it did.
    pub(super) const fn takes_away(&self) -> bool {
        matches!(self, Self::Sweep { .. } | Self::RemoveLane { .. } | Self::Damaged(..))
    }
}

//! The index: which slice lies where, how much there is, and what each lane has promised. One redb file; every change
//! to it and the sums over it are one transaction.
//!
//! Guarantees: `usage` and `lane_usage` cost one look-up whatever the number of slices; they agree with the slices after
//! any crash. Tables carry the version of their rows in their names, so that a later layout is another table.

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{ReadableTable, TableDefinition};
use tallow_types::LeafIndex;
use tallow_types::commit::Rank;

use super::backend::SegmentId;
use super::key::{LaneBytes, LaneKey, SliceBytes, SliceKey};
use super::row::{KeptCommit, LaneRecord, LaneRow, LaneUpdate, SegmentRow, SliceRow, SliceState, Usage};

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");
pub(super) const SLICES: TableDefinition<'static, &SliceBytes, &[u8]> = TableDefinition::new("slices-1");
/// Slices by place, to find what is dead between two that live.
pub(super) const PLACES: TableDefinition<'static, (SegmentId, u64), &SliceBytes> =
    TableDefinition::new("places-1");
/// Slices in no commit, so that a sweep looks at these alone.
pub(super) const UNHELD: TableDefinition<'static, &SliceBytes, ()> = TableDefinition::new("unheld-1");
pub(super) const SEGMENTS: TableDefinition<'static, SegmentId, &[u8]> = TableDefinition::new("segments-1");
pub(super) const LANE_USAGE: TableDefinition<'static, &LaneBytes, &[u8]> =
    TableDefinition::new("lane-usage-1");
pub(super) const LANES: TableDefinition<'static, &LaneBytes, &[u8]> = TableDefinition::new("lanes-1");
/// Lane, and rank as incarnation, counter, sequence.
type CommitKey = (&'static LaneBytes, (u32, u64, u64));
/// Commits of a lane by rank, oldest first.
pub(super) const COMMITS: TableDefinition<'static, CommitKey, &[u8]> = TableDefinition::new("commits-1");
/// Leaves of a lane that are not empty.
pub(super) const LEAVES: TableDefinition<'static, (&LaneBytes, u64), &[u8]> =
    TableDefinition::new("leaves-1");

pub(super) const META_FORMAT: &str = "format";
pub(super) const META_USAGE: &str = "usage";
pub(super) const META_NEXT: &str = "next segment";
/// Layout of the index that this program writes.
pub(super) const FORMAT: u32 = 1;

/// A row that can't be read: the index file is damaged in a way that its own checks did not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("row of table {table} is damaged")]
pub struct BadRow {
    /// The table.
    pub table: &'static str,
}

pub(super) fn row<T: BorshDeserialize>(table: &'static str, bytes: &[u8]) -> Result<T, BadRow> {
    T::try_from_slice(bytes).map_err(|_| BadRow { table })
}

pub(super) fn bytes<T: BorshSerialize>(row: &T) -> Vec<u8> {
    borsh::to_vec(row).expect("writing to memory cannot fail")
}

pub(super) const fn rank_key(rank: Rank) -> (u32, u64, u64) {
    (rank.lease.incarnation.get(), rank.lease.counter, rank.sequence.get())
}

/// What goes wrong with the index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database failed.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// A row can't be read.
    #[error(transparent)]
    Row(#[from] BadRow),
}

macro_rules! from_redb {
    ($($name:ident),*) => {$(
        impl From<redb::$name> for IndexError {
            fn from(error: redb::$name) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError);

/// The tables of one open write transaction. Keeps the sums right whatever is done to the slices.
pub(super) struct Tables<'txn> {
    meta: redb::Table<'txn, &'static str, &'static [u8]>,
    slices: redb::Table<'txn, &'static SliceBytes, &'static [u8]>,
    places: redb::Table<'txn, (SegmentId, u64), &'static SliceBytes>,
    unheld: redb::Table<'txn, &'static SliceBytes, ()>,
    segments: redb::Table<'txn, SegmentId, &'static [u8]>,
    lane_usage: redb::Table<'txn, &'static LaneBytes, &'static [u8]>,
    lanes: redb::Table<'txn, &'static LaneBytes, &'static [u8]>,
    commits: redb::Table<'txn, CommitKey, &'static [u8]>,
    leaves: redb::Table<'txn, (&'static LaneBytes, u64), &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn redb::WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            slices: txn.open_table(SLICES)?,
            places: txn.open_table(PLACES)?,
            unheld: txn.open_table(UNHELD)?,
            segments: txn.open_table(SEGMENTS)?,
            lane_usage: txn.open_table(LANE_USAGE)?,
            lanes: txn.open_table(LANES)?,
            commits: txn.open_table(COMMITS)?,
            leaves: txn.open_table(LEAVES)?,
        })
    }

    pub(super) fn meta<T: BorshDeserialize>(&self, key: &'static str) -> Result<Option<T>, IndexError> {
        Ok(self.meta.get(key)?.map(|value| row("meta", value.value())).transpose()?)
    }

    pub(super) fn set_meta<T: BorshSerialize>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), IndexError> {
        self.meta.insert(key, bytes(value).as_slice())?;
        Ok(())
    }

    pub(super) fn usage(&self) -> Result<Usage, IndexError> {
        Ok(self.meta(META_USAGE)?.unwrap_or_default())
    }

    pub(super) fn lane_usage(&self, key: LaneKey) -> Result<Usage, IndexError> {
        let found = self.lane_usage.get(&key.bytes())?;
        Ok(found.map(|value| row("lane usage", value.value())).transpose()?.unwrap_or_default())
    }

    fn account(&mut self, lane: LaneKey, change: impl Fn(&mut Usage)) -> Result<(), IndexError> {
        let mut usage = self.usage()?;
        change(&mut usage);
        self.set_meta(META_USAGE, &usage)?;
        let mut usage = self.lane_usage(lane)?;
        change(&mut usage);
        if usage == Usage::default() {
            self.lane_usage.remove(&lane.bytes())?;
        } else {
            self.lane_usage.insert(&lane.bytes(), bytes(&usage).as_slice())?;
        }
        Ok(())
    }

    pub(super) fn slice(&self, key: SliceKey) -> Result<Option<SliceRow>, IndexError> {
        Ok(self.slices.get(&key.bytes())?.map(|value| row("slices", value.value())).transpose()?)
    }

    /// Adds or moves a slice.
    pub(super) fn put_slice(&mut self, key: SliceKey, new: &SliceRow) -> Result<(), IndexError> {
        self.remove_slice(key)?;
        let name = key.bytes();
        self.slices.insert(&name, bytes(new).as_slice())?;
        self.places.insert((new.segment, new.offset), &name)?;
        if !matches!(new.state, SliceState::Held | SliceState::Recovered) {
            self.unheld.insert(&name, ())?;
        }
        self.account(key.lane(), |usage| usage.add(new.length, new.state))
    }

    /// Removes a slice; what it was, if it was there.
    pub(super) fn remove_slice(&mut self, key: SliceKey) -> Result<Option<SliceRow>, IndexError> {
        let name = key.bytes();
        let Some(old) = self.slice(key)? else { return Ok(None) };
        self.slices.remove(&name)?;
        self.places.remove((old.segment, old.offset))?;
        self.unheld.remove(&name)?;
        self.account(key.lane(), |usage| usage.remove(old.length, old.state))?;
        Ok(Some(old))
    }

    pub(super) fn unheld(&self) -> Result<Vec<SliceKey>, IndexError> {
        let mut keys = Vec::new();
        for entry in self.unheld.iter()? {
            keys.push(SliceKey::from_bytes(entry?.0.value()));
        }
        Ok(keys)
    }

    pub(super) fn slices_of(&self, lane: LaneKey, limit: usize) -> Result<Vec<SliceKey>, IndexError> {
        let (low, high) = (SliceKey::first(lane), SliceKey::last(lane));
        let mut keys = Vec::new();
        for entry in self.slices.range::<&SliceBytes>(&low..=&high)?.take(limit) {
            keys.push(SliceKey::from_bytes(entry?.0.value()));
        }
        Ok(keys)
    }

    pub(super) fn segment(&self, id: SegmentId) -> Result<Option<SegmentRow>, IndexError> {
        Ok(self.segments.get(id)?.map(|value| row("segments", value.value())).transpose()?)
    }

    pub(super) fn set_segment(&mut self, id: SegmentId, new: &SegmentRow) -> Result<(), IndexError> {
        self.segments.insert(id, bytes(new).as_slice())?;
        Ok(())
    }

    pub(super) fn remove_segment(&mut self, id: SegmentId) -> Result<(), IndexError> {
        self.segments.remove(id)?;
        Ok(())
    }

    pub(super) fn segments(&self) -> Result<Vec<(SegmentId, SegmentRow)>, IndexError> {
        let mut rows = Vec::new();
        for entry in self.segments.iter()? {
            let (id, value) = entry?;
            rows.push((id.value(), row("segments", value.value())?));
        }
        Ok(rows)
    }

    /// Start and key of every record of a segment that lives, from an offset on.
    pub(super) fn places(&self, id: SegmentId, from: u64) -> Result<Vec<(u64, SliceKey)>, IndexError> {
        let mut places = Vec::new();
        for entry in self.places.range((id, from)..=(id, u64::MAX))? {
            let (place, key) = entry?;
            places.push((place.value().1, SliceKey::from_bytes(key.value())));
        }
        Ok(places)
    }

    /// The last record before an offset of a segment, and the first at or after it.
    pub(super) fn neighbours(
        &self,
        id: SegmentId,
        offset: u64,
    ) -> Result<(Option<SliceKey>, Option<u64>), IndexError> {
        let before = self.places.range((id, 0)..(id, offset))?.next_back().transpose()?;
        let after = self.places.range((id, offset)..=(id, u64::MAX))?.next().transpose()?;
        let before = before.map(|(_, key)| SliceKey::from_bytes(key.value()));
        Ok((before, after.map(|(place, _)| place.value().1)))
    }

    /// Writes a lane update whose appended slices are known to be here.
    pub(super) fn update_lane(&mut self, update: &LaneUpdate) -> Result<(), IndexError> {
        let lane = update.key.bytes();
        self.lanes.insert(&lane, bytes(&update.row).as_slice())?;
        for rank in &update.forget {
            self.commits.remove((&lane, rank_key(*rank)))?;
        }
        for kept in &update.commits {
            let rank = rank_key(kept.signed.commit.rank());
            self.commits.insert((&lane, rank), bytes(kept).as_slice())?;
        }
        let by = update.row.newest.map_or(Rank::default(), |(_, rank)| rank);
        if update.rebased {
            for key in self.slices_of(update.key, usize::MAX)? {
                let state = self.slice(key)?.map(|row| row.state);
                // What was recovered may be in the lane that comes: then it is held, below.
                if let Some(
                    SliceState::Dropped { .. } | SliceState::Released { .. } | SliceState::Recovered,
                ) = state
                {
                    self.restate(key, SliceState::Dropped { by })?;
                }
            }
        }
        for (index, leaf) in &update.removed {
            self.leaves.remove((&lane, index.get()))?;
            self.restate(update.key.slice(leaf.stripe), SliceState::Dropped { by })?;
        }
        for (index, leaf) in &update.appended {
            self.leaves.insert((&lane, index.get()), bytes(leaf).as_slice())?;
            self.restate(update.key.slice(leaf.stripe), SliceState::Held)?;
        }
        Ok(())
    }

    /// Changes why a slice is kept; nothing if it isn't here.
    pub(super) fn restate(&mut self, key: SliceKey, state: SliceState) -> Result<(), IndexError> {
        match self.slice(key)? {
            Some(old) => self.put_slice(key, &SliceRow { state, ..old }),
            None => Ok(()),
        }
    }

    /// Forgets a lane's promises, not its slices.
    pub(super) fn remove_lane(&mut self, key: LaneKey) -> Result<(), IndexError> {
        let lane = key.bytes();
        self.lanes.remove(&lane)?;
        let top = (u32::MAX, u64::MAX, u64::MAX);
        self.commits.retain_in((&lane, (0, 0, 0))..=(&lane, top), |_, _| false)?;
        self.leaves.retain_in((&lane, 0)..=(&lane, u64::MAX), |_, _| false)?;
        Ok(())
    }
}

pub(super) fn read_lane(txn: &redb::ReadTransaction, key: LaneKey) -> Result<Option<LaneRecord>, IndexError> {
    let lane = key.bytes();
    let Some(found) = txn.open_table(LANES)?.get(&lane)? else { return Ok(None) };
    let found: LaneRow = row("lanes", found.value())?;
    let mut commits: Vec<KeptCommit> = Vec::new();
    for entry in
        txn.open_table(COMMITS)?.range((&lane, (0, 0, 0))..=(&lane, (u32::MAX, u64::MAX, u64::MAX)))?
    {
        commits.push(row("commits", entry?.1.value())?);
    }
    let mut leaves = Vec::new();
    for entry in txn.open_table(LEAVES)?.range((&lane, 0)..=(&lane, u64::MAX))? {
        let (place, value) = entry?;
        leaves.push((LeafIndex::new(place.value().1), row("leaves", value.value())?));
    }
    Ok(Some(LaneRecord { row: found, commits, leaves }))
}

pub(super) fn read_lanes(txn: &redb::ReadTransaction) -> Result<Vec<(LaneKey, LaneRow)>, IndexError> {
    let mut lanes = Vec::new();
    for entry in txn.open_table(LANES)?.iter()? {
        let (key, value) = entry?;
        lanes.push((LaneKey::from_bytes(key.value()), row("lanes", value.value())?));
    }
    Ok(lanes)
}

pub(super) fn read_used_lanes(txn: &redb::ReadTransaction) -> Result<Vec<LaneKey>, IndexError> {
    let mut lanes = Vec::new();
    for entry in txn.open_table(LANE_USAGE)?.iter()? {
        lanes.push(LaneKey::from_bytes(entry?.0.value()));
    }
    Ok(lanes)
}

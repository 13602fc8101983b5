//! The index: which slice lies where, how much there is, and what each lane has promised. One redb file; every change
//! to it and the sums over it are one transaction.
//!
//! Guarantees: `usage` and `lane_usage` cost one look-up whatever the number of slices; they agree with the slices after
//! any crash. Tables carry the version of their rows in their names, so that a later layout is another table.

mod file;
mod view;

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{ReadableTable, TableDefinition};
use tallow_types::commit::Rank;

use super::backend::SegmentId;
pub(super) use file::IndexFile;
pub(super) use view::View;

use super::key::{LaneBytes, LaneKey, SliceBytes, SliceKey};
use super::row::{LaneUpdate, SegmentRow, SliceRow, SliceState, Usage};

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");
pub(super) const SLICES: TableDefinition<'static, &SliceBytes, &[u8]> = TableDefinition::new("slices-1");
/// Slices by place, to find what is dead between two that live.
pub(super) const PLACES: TableDefinition<'static, (SegmentId, u64), &SliceBytes> =
    TableDefinition::new("places-1");
/// Slices in no commit, so that a sweep looks at these alone.
pub(super) const UNHELD: TableDefinition<'static, &SliceBytes, ()> = TableDefinition::new("unheld-1");
/// Slices whose bytes on the disk are not those that were stored.
pub(super) const DAMAGED: TableDefinition<'static, &SliceBytes, ()> = TableDefinition::new("damaged-1");
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
pub(super) const META_SCRUB: &str = "scrub";
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

/// The tables of one open write transaction. Keeps the sums right whatever is done to the slices; they are written by
/// [`Tables::close`], once however many slices changed.
pub(super) struct Tables<'txn> {
    meta: redb::Table<'txn, &'static str, &'static [u8]>,
    slices: redb::Table<'txn, &'static SliceBytes, &'static [u8]>,
    places: redb::Table<'txn, (SegmentId, u64), &'static SliceBytes>,
    unheld: redb::Table<'txn, &'static SliceBytes, ()>,
    damaged: redb::Table<'txn, &'static SliceBytes, ()>,
    segments: redb::Table<'txn, SegmentId, &'static [u8]>,
    lane_usage: redb::Table<'txn, &'static LaneBytes, &'static [u8]>,
    lanes: redb::Table<'txn, &'static LaneBytes, &'static [u8]>,
    commits: redb::Table<'txn, CommitKey, &'static [u8]>,
    leaves: redb::Table<'txn, (&'static LaneBytes, u64), &'static [u8]>,
    /// Sums that changed and are not written yet.
    total: Option<Usage>,
    sums: BTreeMap<LaneKey, Usage>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn redb::WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            slices: txn.open_table(SLICES)?,
            places: txn.open_table(PLACES)?,
            unheld: txn.open_table(UNHELD)?,
            damaged: txn.open_table(DAMAGED)?,
            segments: txn.open_table(SEGMENTS)?,
            lane_usage: txn.open_table(LANE_USAGE)?,
            lanes: txn.open_table(LANES)?,
            commits: txn.open_table(COMMITS)?,
            leaves: txn.open_table(LEAVES)?,
            total: None,
            sums: BTreeMap::new(),
        })
    }

    /// Writes the sums. To be called before the transaction is committed.
    pub(super) fn close(mut self) -> Result<(), IndexError> {
        if let Some(total) = self.total.take() {
            self.set_meta(META_USAGE, &total)?;
        }
        for (lane, usage) in std::mem::take(&mut self.sums) {
            if usage == Usage::default() {
                self.lane_usage.remove(&lane.bytes())?;
            } else {
                self.lane_usage.insert(&lane.bytes(), bytes(&usage).as_slice())?;
            }
        }
        Ok(())
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
        match self.total {
            Some(total) => Ok(total),
            None => Ok(self.meta(META_USAGE)?.unwrap_or_default()),
        }
    }

    pub(super) fn lane_usage(&self, key: LaneKey) -> Result<Usage, IndexError> {
        if let Some(sum) = self.sums.get(&key) {
            return Ok(*sum);
        }
        let found = self.lane_usage.get(&key.bytes())?;
        Ok(found.map(|value| row("lane usage", value.value())).transpose()?.unwrap_or_default())
    }

    fn account(&mut self, lane: LaneKey, change: impl Fn(&mut Usage)) -> Result<(), IndexError> {
        let (mut total, mut sum) = (self.usage()?, self.lane_usage(lane)?);
        change(&mut total);
        change(&mut sum);
        self.total = Some(total);
        self.sums.insert(lane, sum);
        Ok(())
    }

    pub(super) fn slice(&self, key: SliceKey) -> Result<Option<SliceRow>, IndexError> {
        Ok(self.slices.get(&key.bytes())?.map(|value| row("slices", value.value())).transpose()?)
    }

    /// Adds, moves or restates a slice; what it was, if it was there.
    pub(super) fn put_slice(
        &mut self,
        key: SliceKey,
        new: &SliceRow,
    ) -> Result<Option<SliceRow>, IndexError> {
        let name = key.bytes();
        let old = self.slices.insert(&name, bytes(new).as_slice())?;
        let old: Option<SliceRow> = old.map(|value| row("slices", value.value())).transpose()?;
        if old.map(|old| old.place()) != Some(new.place()) {
            if let Some(old) = &old {
                self.places.remove(old.place())?;
            }
            self.places.insert(new.place(), &name)?;
        }
        let was_unheld = old.is_some_and(|old| old.is_unheld());
        match (was_unheld, new.is_unheld()) {
            (false, true) => drop(self.unheld.insert(&name, ())?),
            (true, false) => drop(self.unheld.remove(&name)?),
            _ => {}
        }
        match (old.is_some_and(|old| old.damaged), new.damaged) {
            (false, true) => drop(self.damaged.insert(&name, ())?),
            (true, false) => drop(self.damaged.remove(&name)?),
            _ => {}
        }
        self.account(key.lane(), |usage| {
            if let Some(old) = &old {
                usage.remove(old.length, old.state);
            }
            usage.add(new.length, new.state);
        })?;
        Ok(old)
    }

    /// Removes a slice; what it was, if it was there.
    pub(super) fn remove_slice(&mut self, key: SliceKey) -> Result<Option<SliceRow>, IndexError> {
        let name = key.bytes();
        let old = self.slices.remove(&name)?;
        let old: Option<SliceRow> = old.map(|value| row("slices", value.value())).transpose()?;
        let Some(old) = old else { return Ok(None) };
        self.places.remove(old.place())?;
        if old.is_unheld() {
            self.unheld.remove(&name)?;
        }
        if old.damaged {
            self.damaged.remove(&name)?;
        }
        self.account(key.lane(), |usage| usage.remove(old.length, old.state))?;
        Ok(Some(old))
    }

    /// Lists damaged slices from their rows, for an index whose program did not list them.
    pub(super) fn list_damaged(&mut self) -> Result<(), IndexError> {
        for entry in self.slices.iter()? {
            let (name, value) = entry?;
            let slice: SliceRow = row("slices", value.value())?;
            if slice.damaged {
                self.damaged.insert(name.value(), ())?;
            }
        }
        Ok(())
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
        if let Some(old) = self.slice(key)?
            && old.state != state
        {
            self.put_slice(key, &SliceRow { state, ..old })?;
        }
        Ok(())
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

//! The index: which slice lies where, how much there is, and what each lane has promised. One redb file; every change
//! to it and the sums over it are one transaction.
//!
//! Guarantees: `usage` and `lane_usage` cost one look-up whatever the number of slices; they agree with the slices after
//! any crash. Tables carry the version of their rows in their names, so that a later layout is another table.

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{ReadableTable, TableDefinition};
use tallow_types::commit::{Countersignature, Leaf, Rank, SignedCommit};
use tallow_types::{Bytes, CommitHash, Epoch, Height, LeafIndex, Lease, SliceRoot};

use super::backend::SegmentId;
use super::key::{LaneBytes, LaneKey, SliceBytes, SliceKey};

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
/// Commits of a lane by rank, oldest first.
pub(super) const COMMITS: TableDefinition<'static, (&LaneBytes, (u32, u64, u64)), &[u8]> =
    TableDefinition::new("commits-1");
/// Leaves of a lane that are not empty.
pub(super) const LEAVES: TableDefinition<'static, (&LaneBytes, u64), &[u8]> =
    TableDefinition::new("leaves-1");

pub(super) const META_FORMAT: &str = "format";
pub(super) const META_USAGE: &str = "usage";
pub(super) const META_NEXT: &str = "next segment";
/// Layout of the index that this program writes.
pub(super) const FORMAT: u32 = 1;

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

    fn add(&mut self, length: u32, state: SliceState) {
        self.slices += 1;
        let part = self.part(state);
        *part = part.checked_add(Bytes::new(length.into())).expect("bytes on a disk fit 64 bits");
    }

    fn remove(&mut self, length: u32, state: SliceState) {
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
    /// The ledger says that it holds the lane and there were no records: it may have signed in leases up to this one.
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
    /// Whether commits of earlier leases were left behind: what they dropped counts as dropped by the new one, since the
    /// commits between may hold it.
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
    commits: redb::Table<'txn, (&'static LaneBytes, (u32, u64, u64)), &'static [u8]>,
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

    fn unheld_of(&self, lane: LaneKey) -> Result<Vec<SliceKey>, IndexError> {
        let (low, high) = (SliceKey::first(lane), SliceKey::last(lane));
        let mut keys = Vec::new();
        for entry in self.unheld.range::<&SliceBytes>(&low..=&high)? {
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
            for key in self.unheld_of(update.key)? {
                if let Some(SliceRow {
                    state: SliceState::Dropped { .. } | SliceState::Released { .. },
                    ..
                }) = self.slice(key)?
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

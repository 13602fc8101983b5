//! The index as of the newest durable write, for those who only look.

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};
use tallow_types::LeafIndex;

use super::{
    COMMITS, DAMAGED, IndexError, LANE_USAGE, LANES, LEAVES, META, META_USAGE, PLACES, SEGMENTS, SLICES, row,
};
use crate::store::backend::SegmentId;
use crate::store::key::{LaneKey, SliceBytes, SliceKey};
use crate::store::row::{KeptCommit, LaneRecord, LaneRow, SegmentRow, SliceRow, Usage};
use borsh::BorshDeserialize;

/// One state of the index. Pages that it sees are not used again while it lives, so it should not live long.
pub(in crate::store) struct View {
    txn: redb::ReadTransaction,
    slices: ReadOnlyTable<&'static SliceBytes, &'static [u8]>,
}

impl View {
    pub(in crate::store) fn open(database: &redb::Database) -> Result<Self, IndexError> {
        let txn = database.begin_read()?;
        let slices = txn.open_table(SLICES)?;
        Ok(Self { txn, slices })
    }

    pub(in crate::store) fn slice(&self, key: SliceKey) -> Result<Option<SliceRow>, IndexError> {
        Ok(self.slices.get(&key.bytes())?.map(|value| row("slices", value.value())).transpose()?)
    }

    pub(in crate::store) fn meta<T: BorshDeserialize>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, IndexError> {
        let found = self.txn.open_table(META)?.get(key)?;
        Ok(found.map(|value| row("meta", value.value())).transpose()?)
    }

    pub(in crate::store) fn usage(&self) -> Result<Usage, IndexError> {
        Ok(self.meta(META_USAGE)?.unwrap_or_default())
    }

    pub(in crate::store) fn lane_usage(&self, lane: LaneKey) -> Result<Usage, IndexError> {
        let found = self.txn.open_table(LANE_USAGE)?.get(&lane.bytes())?;
        Ok(found.map(|value| row("lane usage", value.value())).transpose()?.unwrap_or_default())
    }

    pub(in crate::store) fn segment(&self, id: SegmentId) -> Result<Option<SegmentRow>, IndexError> {
        let found = self.txn.open_table(SEGMENTS)?.get(id)?;
        Ok(found.map(|value| row("segments", value.value())).transpose()?)
    }

    pub(in crate::store) fn segments(&self) -> Result<Vec<(SegmentId, SegmentRow)>, IndexError> {
        let mut rows = Vec::new();
        for entry in self.txn.open_table(SEGMENTS)?.range(0..)? {
            let (id, value) = entry?;
            rows.push((id.value(), row("segments", value.value())?));
        }
        Ok(rows)
    }

    /// The first segment from an ordinal on.
    pub(in crate::store) fn segments_from(
        &self,
        id: SegmentId,
    ) -> Result<Option<(SegmentId, SegmentRow)>, IndexError> {
        let table = self.txn.open_table(SEGMENTS)?;
        let Some(entry) = table.range(id..)?.next() else { return Ok(None) };
        let (id, value) = entry?;
        Ok(Some((id.value(), row("segments", value.value())?)))
    }

    /// Slices that lie in a segment from an offset on, in order, with where they lie and why.
    pub(in crate::store) fn records(
        &self,
        id: SegmentId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(SliceKey, SliceRow)>, IndexError> {
        let mut records = Vec::new();
        for entry in self.txn.open_table(PLACES)?.range((id, from)..=(id, u64::MAX))?.take(limit) {
            let key = SliceKey::from_bytes(entry?.1.value());
            if let Some(slice) = self.slice(key)? {
                records.push((key, slice));
            }
        }
        Ok(records)
    }

    /// How many slices are damaged.
    pub(in crate::store) fn damaged(&self) -> Result<u64, IndexError> {
        Ok(self.txn.open_table(DAMAGED)?.len()?)
    }

    /// Damaged slices of a lane.
    pub(in crate::store) fn damaged_of(
        &self,
        lane: LaneKey,
        limit: usize,
    ) -> Result<Vec<SliceKey>, IndexError> {
        let (low, high) = (SliceKey::first(lane), SliceKey::last(lane));
        let mut keys = Vec::new();
        for entry in self.txn.open_table(DAMAGED)?.range::<&SliceBytes>(&low..=&high)?.take(limit) {
            keys.push(SliceKey::from_bytes(entry?.0.value()));
        }
        Ok(keys)
    }

    pub(in crate::store) fn lane(&self, key: LaneKey) -> Result<Option<LaneRecord>, IndexError> {
        let lane = key.bytes();
        let Some(found) = self.txn.open_table(LANES)?.get(&lane)? else { return Ok(None) };
        let found: LaneRow = row("lanes", found.value())?;
        let mut commits: Vec<KeptCommit> = Vec::new();
        let all = (&lane, (0, 0, 0))..=(&lane, (u32::MAX, u64::MAX, u64::MAX));
        for entry in self.txn.open_table(COMMITS)?.range(all)? {
            commits.push(row("commits", entry?.1.value())?);
        }
        let mut leaves = Vec::new();
        for entry in self.txn.open_table(LEAVES)?.range((&lane, 0)..=(&lane, u64::MAX))? {
            let (place, value) = entry?;
            leaves.push((LeafIndex::new(place.value().1), row("leaves", value.value())?));
        }
        Ok(Some(LaneRecord { row: found, commits, leaves }))
    }

    pub(in crate::store) fn lanes(&self) -> Result<Vec<(LaneKey, LaneRow)>, IndexError> {
        let mut lanes = Vec::new();
        for entry in self.txn.open_table(LANES)?.range::<&[u8; 33]>(..)? {
            let (key, value) = entry?;
            lanes.push((LaneKey::from_bytes(key.value()), row("lanes", value.value())?));
        }
        Ok(lanes)
    }

    /// Lanes that have slices.
    pub(in crate::store) fn used_lanes(&self) -> Result<Vec<LaneKey>, IndexError> {
        let mut lanes = Vec::new();
        for entry in self.txn.open_table(LANE_USAGE)?.range::<&[u8; 33]>(..)? {
            lanes.push(LaneKey::from_bytes(entry?.0.value()));
        }
        Ok(lanes)
    }
}

//! The repair index: which stripes there are, their slices' roots, and which slots hold them. It is what a repair needs,
//! and all that a keeper can open.

use std::io::{Error as IoError, ErrorKind, Read};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::codec::Bounded;
use tallow_types::id::{SliceRoot, StripeId};
use tallow_types::limits::{RECORD_MAX, SLOTS_MAX};
use tallow_types::tagged;
use tallow_types::unit::{LeafIndex, SlotIndex};

use crate::record::{Changes, Record, Table};
use crate::stripe::is_slice_len;

/// Stripes by the position of their leaf.
pub type RepairIndex = Table<LeafIndex, StripeRecord>;
/// Stripes closed, filled up or dropped.
pub type RepairChanges = Changes<LeafIndex, StripeRecord>;
/// One record of the repair index's log.
pub type RepairRecord = Record<LeafIndex, StripeRecord>;
tagged!(RepairRecord, b"RX", 1, "repair record", RECORD_MAX);

/// One stripe, as a repair must know it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct StripeRecord {
    /// Its id, which makes its masks.
    pub stripe: StripeId,
    /// Length of each slice. Bytes.
    pub slice_len: u32,
    /// The root of every slice, held or not.
    pub roots: Bounded<SliceRoot, SLOTS_MAX>,
    /// The slots that hold theirs.
    pub present: SlotSet,
}

impl StripeRecord {
    /// How many slots hold their slice.
    #[must_use]
    pub fn width(&self) -> u8 {
        self.present.len()
    }
}

impl BorshDeserialize for StripeRecord {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let found = Self {
            stripe: StripeId::deserialize_reader(reader)?,
            slice_len: u32::deserialize_reader(reader)?,
            roots: Bounded::deserialize_reader(reader)?,
            present: SlotSet::deserialize_reader(reader)?,
        };
        let has_len = is_slice_len(found.slice_len);
        let has_slots = found.present.iter().all(|slot| usize::from(slot.get()) < found.roots.len());
        let bad = || IoError::new(ErrorKind::InvalidData, "stripe out of range");
        (has_len && has_slots).then_some(found).ok_or_else(bad)
    }
}

/// A set of slots: one bit for each, lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotSet([u8; 32]);

impl SlotSet {
    /// Whether it has a slot.
    #[must_use]
    pub fn contains(&self, slot: SlotIndex) -> bool {
        self.0[usize::from(slot.get() / 8)] >> (slot.get() % 8) & 1 == 1
    }

    /// Adds a slot.
    pub fn insert(&mut self, slot: SlotIndex) {
        self.0[usize::from(slot.get() / 8)] |= 1 << (slot.get() % 8);
    }

    /// Takes a slot out.
    pub fn remove(&mut self, slot: SlotIndex) {
        self.0[usize::from(slot.get() / 8)] &= !(1 << (slot.get() % 8));
    }

    /// How many slots it has; 255 where all 256 bits are set, which no profile does.
    #[must_use]
    pub fn len(&self) -> u8 {
        let ones: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        u8::try_from(ones).unwrap_or(u8::MAX)
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 32]
    }

    /// Its slots in order.
    pub fn iter(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        (0..=u8::MAX).map(SlotIndex::new).filter(|slot| self.contains(*slot))
    }
}

impl FromIterator<SlotIndex> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotIndex>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| set.insert(slot));
        set
    }
}

#[cfg(test)]
mod tests;

//! The stripe table of the committer: one row a leaf, and what is asked of all rows at once, kept up to date by every change.
//!
//! Guarantees: widths, bytes, which rows a slot lacks, which rows no record tells of and which nothing uses cost what has
//! changed, never a walk over all stripes; rows that differ from the local database are named.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_seal::repair::{SlotSet, StripeRecord};
use tallow_types::codec::Bounded;
use tallow_types::commit::Leaf;
use tallow_types::id::{SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::{Bytes, LeafIndex, SlotIndex};

use crate::entries::Uses;

/// One stripe as this client knows it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Row {
    pub stripe: StripeId,
    pub slice_len: u32,
    /// By slot; `None` where it has to be learnt or computed first.
    pub roots: Vec<Option<SliceRoot>>,
    /// Slots that are thought to hold their slice.
    pub present: SlotSet,
    /// Whether a repair record tells of it as it is here.
    pub is_covered: bool,
    /// References of the catalog to chunks in it.
    pub uses: u64,
}

impl Row {
    pub fn leaf(&self, slot: SlotIndex) -> Option<Leaf> {
        let root = self.roots.get(usize::from(slot.get())).copied().flatten()?;
        Some(Leaf { stripe: self.stripe, root, length: self.slice_len })
    }

    pub fn is_complete(&self) -> bool {
        self.roots.iter().all(Option::is_some)
    }

    pub fn record(&self) -> Option<StripeRecord> {
        let roots = self.roots.iter().copied().collect::<Option<Vec<_>>>()?;
        Some(StripeRecord {
            stripe: self.stripe,
            slice_len: self.slice_len,
            roots: Bounded::new(roots)?,
            present: self.present,
        })
    }

    /// Slots of the contract that are not thought to hold their slice.
    fn lacking(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        let slots = u8::try_from(self.roots.len()).unwrap_or(u8::MAX);
        (0..slots).map(SlotIndex::new).filter(|slot| !self.present.contains(*slot))
    }
}

/// What all rows are together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums {
    bytes: u64,
    live: u64,
    /// How many live rows have this many slices.
    widths: BTreeMap<u8, u64>,
    /// By slot: rows that lack its slice.
    lacking: BTreeMap<SlotIndex, BTreeSet<LeafIndex>>,
    /// Rows that no repair record tells of as they are.
    uncovered: BTreeSet<LeafIndex>,
    /// Rows that the catalog does not refer to.
    unused: BTreeSet<LeafIndex>,
    /// Where each stripe is.
    places: BTreeSet<(StripeId, LeafIndex)>,
}

impl Sums {
    fn add(&mut self, leaf: LeafIndex, row: &Row) {
        self.bytes += u64::from(row.slice_len);
        self.live += 1;
        *self.widths.entry(row.present.len()).or_default() += 1;
        for slot in row.lacking() {
            self.lacking.entry(slot).or_default().insert(leaf);
        }
        if !row.is_covered {
            self.uncovered.insert(leaf);
        }
        if row.uses == 0 {
            self.unused.insert(leaf);
        }
        self.places.insert((row.stripe, leaf));
    }

    fn take(&mut self, leaf: LeafIndex, row: &Row) {
        self.bytes -= u64::from(row.slice_len);
        self.live -= 1;
        if let Some(count) = self.widths.get_mut(&row.present.len()) {
            *count -= 1;
            if *count == 0 {
                self.widths.remove(&row.present.len());
            }
        }
        for slot in row.lacking() {
            if let Some(leaves) = self.lacking.get_mut(&slot) {
                leaves.remove(&leaf);
            }
        }
        self.uncovered.remove(&leaf);
        self.unused.remove(&leaf);
        self.places.remove(&(row.stripe, leaf));
    }
}

/// All stripes by leaf.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stripes {
    /// `None`: dropped.
    rows: Vec<Option<Row>>,
    sums: Sums,
    /// Leaves that are not in the local database as they are here.
    dirty: BTreeSet<LeafIndex>,
}

impl FromIterator<Option<Row>> for Stripes {
    fn from_iter<I: IntoIterator<Item = Option<Row>>>(rows: I) -> Self {
        let mut stripes = Self::default();
        for row in rows {
            let leaf = stripes.len();
            if let Some(row) = &row {
                stripes.sums.add(leaf, row);
            }
            stripes.rows.push(row);
        }
        stripes
    }
}

impl Stripes {
    /// Leaves, dropped ones counted: also the leaf of the next stripe.
    pub fn len(&self) -> LeafIndex {
        LeafIndex::new(self.rows.len() as u64)
    }

    pub fn get(&self, leaf: LeafIndex) -> Option<&Row> {
        self.rows.get(usize::try_from(leaf.get()).ok()?)?.as_ref()
    }

    /// The leaf of a stripe.
    pub fn leaf_of(&self, stripe: &StripeId) -> Option<LeafIndex> {
        let found = self.sums.places.range((*stripe, LeafIndex::ZERO)..).next();
        found.filter(|(known, _)| known == stripe).map(|(_, leaf)| *leaf)
    }

    /// Every leaf in order.
    pub fn iter(&self) -> impl Iterator<Item = (LeafIndex, Option<&Row>)> {
        self.from(LeafIndex::ZERO)
    }

    /// Every leaf from this one on.
    pub fn from(&self, first: LeafIndex) -> impl Iterator<Item = (LeafIndex, Option<&Row>)> {
        let at = usize::try_from(first.get()).unwrap_or(usize::MAX).min(self.rows.len());
        (first.get()..).map(LeafIndex::new).zip(self.rows[at..].iter().map(Option::as_ref))
    }

    /// Puts a row, or `None`, in the place of what is there, and gives that back.
    pub fn set(&mut self, leaf: LeafIndex, row: Option<Row>) -> Option<Row> {
        let place = usize::try_from(leaf.get()).ok().and_then(|at| self.rows.get_mut(at))?;
        let old = place.take();
        if let Some(old) = &old {
            self.sums.take(leaf, old);
        }
        if let Some(row) = &row {
            self.sums.add(leaf, row);
        }
        *place = row;
        self.dirty.insert(leaf);
        old
    }

    /// Changes a row in place.
    pub fn change(&mut self, leaf: LeafIndex, how: impl FnOnce(&mut Row)) {
        if let Some(mut row) = self.get(leaf).cloned() {
            how(&mut row);
            self.set(leaf, Some(row));
        }
    }

    /// Adds a stripe behind the last.
    pub fn push(&mut self, row: Row) -> LeafIndex {
        let leaf = self.len();
        self.extend(Some(row));
        leaf
    }

    /// Adds a leaf behind the last, which may be a dropped one.
    pub fn extend(&mut self, row: Option<Row>) {
        let leaf = self.len();
        self.rows.push(None);
        self.set(leaf, row);
    }

    /// Takes back everything from this leaf on.
    pub fn truncate(&mut self, leaves: LeafIndex) {
        while self.len() > leaves {
            if let Some(Some(row)) = self.rows.pop() {
                let leaf = self.len();
                self.sums.take(leaf, &row);
            }
        }
        drop(self.dirty.split_off(&leaves));
    }

    /// Slices that the narrowest live stripe has; n where there is none.
    pub fn width(&self, profile: Profile) -> u8 {
        self.sums.widths.keys().next().copied().unwrap_or(profile.slots())
    }

    /// Bytes of a lane.
    pub fn bytes(&self) -> Bytes {
        Bytes::new(self.sums.bytes)
    }

    /// Stripes that are not dropped.
    pub fn live(&self) -> u64 {
        self.sums.live
    }

    /// How many rows a slot lacks.
    pub fn lacks(&self, slot: SlotIndex) -> u64 {
        self.sums.lacking.get(&slot).map_or(0, |leaves| leaves.len() as u64)
    }

    /// Rows that no repair record tells of as they are.
    pub fn uncovered(&self) -> &BTreeSet<LeafIndex> {
        &self.sums.uncovered
    }

    /// Rows that the catalog does not refer to.
    pub fn unused(&self) -> &BTreeSet<LeafIndex> {
        &self.sums.unused
    }

    /// Says that a slot holds everything; gives back what it was not known to hold.
    pub fn mark_present(&mut self, slot: SlotIndex) -> Vec<(LeafIndex, StripeId)> {
        let leaves = self.sums.lacking.get(&slot).cloned().unwrap_or_default();
        let mut marked = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            self.change(leaf, |row| {
                row.present.insert(slot);
                row.is_covered = false;
                marked.push((leaf, row.stripe));
            });
        }
        marked
    }

    /// Takes that back, where the stripes are still the same.
    pub fn unmark_present(&mut self, slot: SlotIndex, marked: &[(LeafIndex, StripeId)]) {
        for (leaf, stripe) in marked {
            if self.get(*leaf).is_some_and(|row| row.stripe == *stripe) {
                self.change(*leaf, |row| {
                    row.present.remove(slot);
                    row.is_covered = false;
                });
            }
        }
    }

    /// A repair record tells of these rows now.
    pub fn cover(&mut self, leaves: impl IntoIterator<Item = LeafIndex>) {
        for leaf in leaves {
            self.change(leaf, |row| row.is_covered = row.is_complete());
        }
    }

    /// The catalog refers to leaves so much more or less often.
    pub fn count_uses(&mut self, uses: &Uses) {
        for (leaf, count) in uses {
            self.change(*leaf, |row| row.uses = row.uses.saturating_add_signed(*count));
        }
    }

    /// The catalog refers to nothing.
    pub fn forget_uses(&mut self) {
        for leaf in (0..self.len().get()).map(LeafIndex::new) {
            if self.get(leaf).is_some_and(|row| row.uses > 0) {
                self.change(leaf, |row| row.uses = 0);
            }
        }
    }

    /// Leaves that are not in the local database as they are here; from now on they count as written.
    pub fn written(&mut self) -> BTreeSet<LeafIndex> {
        std::mem::take(&mut self.dirty)
    }
}

#[cfg(test)]
mod tests;

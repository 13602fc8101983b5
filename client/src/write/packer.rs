//! Packing: sealed chunks into the open stripe, full stripes handed on, chunks that are stored already found again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tallow_seal::chunk::{ChunkId, ChunkRef};
use tallow_seal::stripe::{Stripe, StripeBuilder, target_slice_len};
use tallow_types::id::StripeId;
use tallow_types::profile::Profile;
use tallow_types::unit::LeafIndex;

use super::block::Spare;
use super::cell::{Cell, Packed, Placement, State};
use crate::db::{CHUNKS, Db};
use crate::error::LocalError;

/// A stripe that takes no more.
pub(crate) struct Closed {
    pub cell: Arc<Cell>,
    pub stripe: Stripe,
}

/// Memory of streams that is kept: that of two being coded while a third one fills.
const STREAMS_KEPT: usize = 3;

/// A chunk that was packed.
pub(crate) struct Pushed {
    pub placement: Placement,
    /// A stripe that it no longer fitted, to be coded.
    pub closed: Option<Closed>,
    /// Whether it was on its way already.
    pub is_known: bool,
}

/// Where a stored chunk is; the stripe's id tells whether the leaf is still that stripe.
pub(crate) type Known = (StripeId, ChunkRef);

/// What one put refers to: as long as it lives, none of it is dropped.
#[derive(Default)]
pub(crate) struct Usage(Mutex<Used>);

#[derive(Default)]
struct Used {
    leaves: BTreeSet<LeafIndex>,
    cells: BTreeMap<u64, Arc<Cell>>,
}

impl Usage {
    fn add(&self, placement: &Placement) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match placement {
            Placement::Stored { chunk, .. } => drop(used.leaves.insert(chunk.leaf)),
            Placement::Coming { cell, .. } => drop(used.cells.insert(cell.ordinal, cell.clone())),
        }
    }

    /// The leaves that it refers to, as far as they have come into commits.
    fn leaves(&self) -> BTreeSet<LeafIndex> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { leaves, cells } = &mut *used;
        cells.retain(|_, cell| match cell.state() {
            State::Committed { leaf, .. } => {
                leaves.insert(leaf);
                false
            }
            _ => true,
        });
        leaves.clone()
    }
}

struct Inner {
    builder: StripeBuilder,
    cell: Arc<Cell>,
    next: u64,
    /// Chunks in cells that no commit names yet.
    coming: HashMap<ChunkId, Placement>,
    /// Stripes of the commit that the book stands at, by leaf.
    stripes: BTreeMap<LeafIndex, StripeId>,
    /// What puts under way refer to: not to be dropped.
    usages: Vec<Weak<Usage>>,
}

impl Inner {
    /// Where a chunk will be. One in a stripe that failed has to be packed again.
    fn coming(&mut self, id: &ChunkId, usage: &Usage) -> Option<Placement> {
        let coming = self.coming.get(id)?.clone();
        if matches!(&coming, Placement::Coming { cell, .. } if matches!(cell.state(), State::Failed(_))) {
            self.coming.remove(id);
            return None;
        }
        usage.add(&coming);
        Some(coming)
    }

    fn used(&self) -> BTreeSet<LeafIndex> {
        self.usages.iter().filter_map(Weak::upgrade).flat_map(|usage| usage.leaves()).collect()
    }
}

/// The open stripe of one contract.
pub(crate) struct Packer {
    profile: Profile,
    slice_len: u32,
    db: Arc<Db>,
    streams: Spare,
    inner: Mutex<Inner>,
}

impl Packer {
    /// `stripe_bytes` bounds all slices of a stripe together.
    pub fn new(profile: Profile, stripe_bytes: u64, db: Arc<Db>) -> Self {
        let tile = u64::from(tallow_types::limits::TILE);
        let share = stripe_bytes / u64::from(profile.slots()) / tile * tile;
        let slice_len = u32::try_from(share.max(tile)).unwrap_or(u32::MAX).min(target_slice_len(profile));
        let inner = Inner {
            builder: StripeBuilder::new(profile, slice_len),
            cell: Cell::new(0),
            next: 1,
            coming: HashMap::new(),
            stripes: BTreeMap::new(),
            usages: Vec::new(),
        };
        Self { profile, slice_len, db, streams: Spare::new(STREAMS_KEPT), inner: Mutex::new(inner) }
    }

    /// What one stripe holds. Bytes of stream.
    pub fn capacity(&self) -> u32 {
        u32::from(self.profile.data()) * self.slice_len
    }

    /// What the slices of a full stripe take together. Bytes.
    pub fn stripe_room(&self) -> usize {
        usize::from(self.profile.slots()) * self.slice_len as usize
    }

    /// A builder for a stripe of the same size.
    pub fn builder(&self) -> StripeBuilder {
        StripeBuilder::with_memory(self.profile, self.slice_len, self.streams.take())
    }

    /// Where memory of streams is left for the next one.
    pub fn streams(&self) -> Spare {
        self.streams.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stripes of the commit that the book stands at now.
    pub fn set_stripes(&self, stripes: BTreeMap<LeafIndex, StripeId>) {
        self.lock().stripes = stripes;
    }

    /// Stripes of a commit that has come since.
    pub fn add_stripes(&self, stripes: impl IntoIterator<Item = (LeafIndex, StripeId)>) {
        self.lock().stripes.extend(stripes);
    }

    /// For a put to say what it refers to.
    pub fn usage(&self) -> Arc<Usage> {
        let usage = Arc::new(Usage::default());
        let mut inner = self.lock();
        inner.usages.retain(|usage| usage.strong_count() > 0);
        inner.usages.push(Arc::downgrade(&usage));
        usage
    }

    /// Where a chunk is already, if it is.
    pub fn find(&self, id: &ChunkId, usage: &Usage) -> Result<Option<Placement>, LocalError> {
        if let Some(coming) = self.lock().coming(id, usage) {
            return Ok(Some(coming));
        }
        let Some((stripe, chunk)) = self.db.keyed::<Known>(CHUNKS, id.as_bytes())? else { return Ok(None) };
        let inner = self.lock();
        if inner.stripes.get(&chunk.leaf) != Some(&stripe) || chunk.id != *id {
            return Ok(None);
        }
        let stored = Placement::Stored { stripe, chunk };
        usage.add(&stored);
        Ok(Some(stored))
    }

    /// Leaves that puts under way refer to.
    pub fn used(&self) -> BTreeSet<LeafIndex> {
        self.lock().used()
    }

    /// Takes those leaves that no put under way refers to out of the index, so that none will, and gives them back.
    pub fn retire(&self, leaves: impl IntoIterator<Item = LeafIndex>) -> Vec<LeafIndex> {
        let mut inner = self.lock();
        let used = inner.used();
        let free: Vec<LeafIndex> = leaves.into_iter().filter(|leaf| !used.contains(leaf)).collect();
        for leaf in &free {
            inner.stripes.remove(leaf);
        }
        free
    }

    /// Packs a sealed chunk, unless it is on its way.
    pub fn push(&self, id: ChunkId, (sealed, plain_len): (&[u8], u32), usage: &Usage) -> Option<Pushed> {
        let mut inner = self.lock();
        if let Some(coming) = inner.coming(&id, usage) {
            return Some(Pushed { placement: coming, closed: None, is_known: true });
        }
        let closed = if inner.builder.fits(sealed.len()) { None } else { self.cut(&mut inner) };
        let offset = inner.builder.push(sealed).ok()?;
        let sealed_len = u32::try_from(sealed.len()).ok()?;
        let packed = Packed { id, offset, sealed_len, plain_len };
        inner.cell.add(packed);
        let placement = Placement::Coming { cell: inner.cell.clone(), packed };
        usage.add(&placement);
        inner.coming.insert(id, placement.clone());
        Some(Pushed { placement, closed, is_known: false })
    }

    /// Closes the open stripe, if there is anything in it.
    pub fn close(&self) -> Option<Closed> {
        self.cut(&mut self.lock())
    }

    /// Takes the open stripe out, still open, for records to be added to.
    pub fn take(&self) -> (StripeBuilder, Arc<Cell>) {
        let mut inner = self.lock();
        let builder = std::mem::replace(&mut inner.builder, self.builder());
        let next = Cell::new(inner.next);
        inner.next += 1;
        let cell = std::mem::replace(&mut inner.cell, next);
        cell.set(State::Moving);
        (builder, cell)
    }

    /// Bytes in the open stripe.
    pub fn open_len(&self) -> u32 {
        self.lock().builder.len()
    }

    fn cut(&self, inner: &mut Inner) -> Option<Closed> {
        let builder = std::mem::replace(&mut inner.builder, self.builder());
        let stripe = builder.close()?;
        let next = Cell::new(inner.next);
        inner.next += 1;
        let cell = std::mem::replace(&mut inner.cell, next);
        cell.set(State::Moving);
        Some(Closed { cell, stripe })
    }

    /// A fresh cell for a stripe of records.
    pub fn cell(&self) -> Arc<Cell> {
        let mut inner = self.lock();
        let cell = Cell::new(inner.next);
        inner.next += 1;
        cell.set(State::Moving);
        cell
    }

    /// Chunks of this cell are in a commit, or lost: they are not coming any more.
    pub fn arrived(&self, cell: &Cell) {
        let mut inner = self.lock();
        for packed in cell.chunks() {
            let is_here = |coming: &Placement| matches!(coming, Placement::Coming { cell: other, .. } if other.ordinal == cell.ordinal);
            if inner.coming.get(&packed.id).is_some_and(is_here) {
                inner.coming.remove(&packed.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tallow_types::id::{AccountId, ChainId};

    use super::*;
    use crate::db::IfLocked;
    use crate::write::cell::Failure;

    /// Goal: a stripe that failed does not stand in the way of its chunks. Method: pack one, fail its stripe, pack it again; then
    /// the old stripe is done with.
    #[test]
    fn chunks_of_failed_stripes_are_packed_again() {
        let db = Db::open(None, &ChainId::new([1; 32]), &AccountId::new([1; 32]), IfLocked::Fail);
        let profile = Profile::from_k_of_n(2, 4).expect("valid");
        let packer = Packer::new(profile, 1 << 20, Arc::new(db.expect("opens")));
        let (id, usage) = (ChunkId::new([7; 32]), packer.usage());
        let cell_of = |placement: Option<Placement>| match placement {
            Some(Placement::Coming { cell, .. }) => cell.ordinal,
            _ => panic!("it is not coming"),
        };
        let first = packer.push(id, (&[1; 100], 80), &usage).map(|pushed| pushed.placement);
        let failed = packer.close().expect("it has something in it").cell;
        assert_eq!(cell_of(first), failed.ordinal);
        assert_eq!(cell_of(packer.find(&id, &usage).expect("reads")), failed.ordinal);
        failed.set(State::Failed(Failure::Internal("for the test".into())));
        assert!(packer.find(&id, &usage).expect("reads").is_none());
        let again = packer.push(id, (&[1; 100], 80), &usage).map(|pushed| pushed.placement);
        assert_ne!(cell_of(again), failed.ordinal);
        packer.arrived(&failed);
        assert_ne!(cell_of(packer.find(&id, &usage).expect("reads")), failed.ordinal);
    }

    /// Goal: what a put refers to is kept for as long as the put lives, and no longer. Method: two puts share a stripe that is
    /// committed; end one, then the other.
    #[test]
    fn usage_keeps_leaves() {
        let db = Db::open(None, &ChainId::new([1; 32]), &AccountId::new([1; 32]), IfLocked::Fail);
        let profile = Profile::from_k_of_n(2, 4).expect("valid");
        let packer = Packer::new(profile, 1 << 20, Arc::new(db.expect("opens")));
        let (one, two) = (packer.usage(), packer.usage());
        let id = ChunkId::new([7; 32]);
        packer.push(id, (&[1; 100], 80), &one).expect("fits");
        assert!(packer.find(&id, &two).expect("reads").is_some());
        let cell = packer.close().expect("it has something in it").cell;
        assert!(packer.used().is_empty());
        let leaf = LeafIndex::new(5);
        cell.set(State::Committed { leaf, stripe: StripeId::new([5; 16]) });
        drop(one);
        assert_eq!(packer.used(), BTreeSet::from([leaf]));
        assert!(packer.retire([leaf]).is_empty());
        drop(two);
        assert_eq!(packer.retire([leaf]), [leaf]);
    }
}

//! Packing: sealed chunks into the open stripe, full stripes handed on, chunks that are stored already found again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tallow_seal::chunk::{ChunkId, ChunkRef};
use tallow_seal::stripe::{Stripe, StripeBuilder, target_slice_len};
use tallow_types::id::StripeId;
use tallow_types::profile::Profile;
use tallow_types::unit::LeafIndex;

use super::cell::{Cell, Packed, Placement, State};
use crate::db::{CHUNKS, Db};
use crate::error::LocalError;

/// A stripe that takes no more.
pub(crate) struct Closed {
    pub cell: Arc<Cell>,
    pub stripe: Stripe,
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
    fn used(&self) -> BTreeSet<LeafIndex> {
        self.usages.iter().filter_map(Weak::upgrade).flat_map(|usage| usage.leaves()).collect()
    }
}

/// The open stripe of one contract.
pub(crate) struct Packer {
    profile: Profile,
    slice_len: u32,
    db: Arc<Db>,
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
        Self { profile, slice_len, db, inner: Mutex::new(inner) }
    }

    /// What one stripe holds. Bytes of stream.
    pub fn capacity(&self) -> u32 {
        u32::from(self.profile.data()) * self.slice_len
    }

    /// A builder for a stripe of the same size.
    pub fn builder(&self) -> StripeBuilder {
        StripeBuilder::new(self.profile, self.slice_len)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stripes of the commit that the book stands at now.
    pub fn set_stripes(&self, stripes: BTreeMap<LeafIndex, StripeId>) {
        self.lock().stripes = stripes;
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
        if let Some(coming) = self.lock().coming.get(id) {
            usage.add(coming);
            return Ok(Some(coming.clone()));
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

    /// Packs a sealed chunk. A stripe that it no longer fitted comes back, to be coded.
    pub fn push(
        &self,
        id: ChunkId,
        (sealed, plain_len): (&[u8], u32),
        usage: &Usage,
    ) -> Option<(Placement, Option<Closed>)> {
        let mut inner = self.lock();
        if let Some(coming) = inner.coming.get(&id) {
            usage.add(coming);
            return Some((coming.clone(), None));
        }
        let closed = if inner.builder.fits(sealed.len()) { None } else { self.cut(&mut inner) };
        let offset = inner.builder.push(sealed).ok()?;
        let sealed_len = u32::try_from(sealed.len()).ok()?;
        let packed = Packed { id, offset, sealed_len, plain_len };
        inner.cell.add(packed);
        let placement = Placement::Coming { cell: inner.cell.clone(), packed };
        usage.add(&placement);
        inner.coming.insert(id, placement.clone());
        Some((placement, closed))
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
            inner.coming.remove(&packed.id);
        }
    }
}

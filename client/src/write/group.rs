//! A group commit on paper: what several puts and removals make of the catalog.
//!
//! Changes are staged beside the catalog, which knows of them only when they count: a group that comes to nothing leaves no
//! trace, and what a group holds is what it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallow_seal::catalog::{self, CatalogChanges, Conflict, Lookup};
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::{ChunkList, Content, ContentBuilder, Entry, FileTime, Kind, LinkTarget, Mode};
use tallow_seal::keys::ChunkKeys;
use tallow_seal::path::BlobPath;
use tallow_types::codec::{Bounded, encode};
use tallow_types::id::StripeId;
use tallow_types::unit::{LeafIndex, TimeMs};
use tokio::sync::oneshot;

use super::cell::{Cell, Placement, State};
use super::packer::Usage;
use super::tail::Tail;
use crate::book::Book;
use crate::entries::{Listed, leaves_of, list_at};
use crate::error::{LocalError, PutError, SessionError};
use crate::stripes::Row;

/// Changes of the catalog that are made at once: what a commit holds in memory is bounded by them.
pub(crate) const STEP_MAX: usize = 32 << 10;

/// What a put wants a path to be.
pub(crate) struct Draft {
    pub what: DraftKind,
    pub modified: FileTime,
    pub mode: Mode,
    pub stored_at: TimeMs,
}

pub(crate) enum DraftKind {
    Inline(Vec<u8>),
    Chunks(Vec<Placement>),
    Dir,
    Link(LinkTarget),
}

/// What a put or a removal wants, and where to tell how it went.
pub(crate) struct Finish {
    /// In order; `None` removes.
    pub changes: Vec<(BlobPath, Option<Draft>)>,
    /// Keeps what the changes refer to from being dropped.
    #[expect(dead_code, reason = "held until the commit that names it is made")]
    pub usage: Option<Arc<Usage>>,
    pub reply: oneshot::Sender<Result<Acked, PutError>>,
}

impl Finish {
    /// The stripes on their way that it needs, each once.
    pub fn cells(&self) -> Vec<Arc<Cell>> {
        let mut cells: BTreeMap<u64, Arc<Cell>> = BTreeMap::new();
        for draft in self.changes.iter().filter_map(|(_, draft)| draft.as_ref()) {
            let DraftKind::Chunks(placements) = &draft.what else { continue };
            for placement in placements {
                if let Placement::Coming { cell, .. } = placement {
                    cells.insert(cell.ordinal, cell.clone());
                }
            }
        }
        cells.into_values().collect()
    }
}

/// What an acknowledgement says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acked {
    pub signers: u8,
    pub slots: u8,
    pub dead_stripes: u64,
}

/// Settled stripes that a commit takes in, with the leaves that they get.
pub(crate) struct Fresh {
    pub cells: Vec<(Arc<Cell>, Arc<Row>, LeafIndex)>,
    by_ordinal: BTreeMap<u64, LeafIndex>,
}

impl Fresh {
    pub fn new(settled: Vec<(Arc<Cell>, Arc<Row>)>, first: LeafIndex) -> Self {
        let leaves = (first.get()..).map(LeafIndex::new);
        let cells: Vec<_> =
            settled.into_iter().zip(leaves).map(|((cell, row), leaf)| (cell, row, leaf)).collect();
        let by_ordinal = cells.iter().map(|(cell, _, leaf)| (cell.ordinal, *leaf)).collect();
        Self { cells, by_ordinal }
    }

    /// The leaf behind them.
    pub fn end(&self, first: LeafIndex) -> LeafIndex {
        LeafIndex::new(first.get() + self.cells.len() as u64)
    }
}

/// Changes of the catalog, staged beside it.
#[derive(Default)]
pub(crate) struct Staged {
    pub changes: CatalogChanges,
    /// What the new lists of chunks name.
    pub listed: Listed,
    /// What was staged at a path before, newest last.
    undo: Vec<(BlobPath, Option<Option<Entry>>)>,
}

impl Staged {
    fn set(&mut self, path: BlobPath, entry: Option<Entry>) {
        let old = self.changes.insert(path.clone(), entry);
        self.undo.push((path, old));
    }

    /// Takes back everything behind a mark.
    fn back_to(&mut self, mark: usize) {
        for (path, old) in self.undo.drain(mark..).rev() {
            match old {
                Some(change) => drop(self.changes.insert(path, change)),
                None => drop(self.changes.remove(&path)),
            }
        }
    }
}

/// The catalog as it will be with what is staged.
struct Ahead<'a> {
    staged: &'a Staged,
    book: &'a Book,
}

/// Why a path can't be judged, or can't be put.
enum Bad {
    Conflict(Conflict),
    Local(LocalError),
}

impl From<Conflict> for Bad {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

impl From<LocalError> for Bad {
    fn from(error: LocalError) -> Self {
        Self::Local(error)
    }
}

impl Lookup for Ahead<'_> {
    type Error = Bad;

    fn is_folder(&self, path: &BlobPath) -> Result<Option<bool>, Bad> {
        let is_folder = |entry: &Entry| entry.kind == Kind::Dir;
        match self.staged.changes.get(path) {
            Some(change) => Ok(change.as_ref().map(is_folder)),
            None => Ok(self.book.entries.get(path.as_str())?.as_ref().map(is_folder)),
        }
    }

    fn first_below(&self, path: &BlobPath) -> Result<Option<BlobPath>, Bad> {
        let prefix = format!("{}/", path.as_str());
        let from = (std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded);
        let staged = self.staged.changes.range::<str, _>(from);
        let mut staged = staged.take_while(|(below, _)| below.as_str().starts_with(&prefix));
        if let Some((below, _)) = staged.find(|(_, change)| change.is_some()) {
            return Ok(Some(below.clone()));
        }
        for item in self.book.entries.below(path.as_str())? {
            let (below, _) = item?;
            if !self.staged.changes.contains_key(&below) {
                return Ok(Some(below));
            }
        }
        Ok(None)
    }
}

/// Where chunks on their way will be.
pub(crate) struct Resolver<'a> {
    pub fresh: &'a Fresh,
    pub tail: &'a Arc<Cell>,
    pub tail_leaf: LeafIndex,
}

impl Resolver<'_> {
    fn resolve(&self, placement: &Placement, book: &Book) -> Result<ChunkRef, PutError> {
        // Another device may have dropped what a commit named once.
        let is_there = |leaf, stripe: &StripeId| book.row(leaf).is_some_and(|row| row.stripe == *stripe);
        let dropped = || PutError::Session(SessionError::LeaseLost);
        match placement {
            Placement::Stored { stripe, chunk } => {
                is_there(chunk.leaf, stripe).then_some(*chunk).ok_or_else(dropped)
            }
            Placement::Coming { cell, packed } => {
                let leaf = match cell.state() {
                    State::Committed { leaf, stripe } => is_there(leaf, &stripe).then_some(leaf),
                    State::Failed(failure) => return Err(failure.into()),
                    _ if Arc::ptr_eq(cell, self.tail) => Some(self.tail_leaf),
                    _ => self.fresh.by_ordinal.get(&cell.ordinal).copied(),
                };
                let leaf = leaf.ok_or_else(dropped)?;
                Ok(ChunkRef {
                    id: packed.id,
                    leaf,
                    offset: packed.offset,
                    sealed_len: packed.sealed_len,
                    plain_len: packed.plain_len,
                })
            }
        }
    }
}

fn internal(reason: impl std::fmt::Display) -> PutError {
    SessionError::Internal(reason.to_string()).into()
}

/// Stages one put or removal; on error nothing of it is staged.
pub(crate) fn stage(
    staged: &mut Staged,
    book: &Book,
    changes: &[(BlobPath, Option<Draft>)],
    resolver: &Resolver<'_>,
    (tail, keys): (&mut Tail<'_>, &ChunkKeys),
) -> Result<(), PutError> {
    let mark = staged.undo.len();
    for (path, draft) in changes {
        let made = match draft {
            None => Ok(None),
            Some(draft) => make(draft, (book, staged), resolver, (&mut *tail, keys)).map(Some),
        };
        let checked = made.and_then(|entry| {
            let Some(kind) = entry.as_ref().map(|entry| &entry.kind) else { return Ok(entry) };
            match catalog::check(&Ahead { staged, book }, path, kind) {
                Ok(()) => Ok(entry),
                Err(Bad::Conflict(conflict)) => {
                    Err(PutError::BadPath { path: path.to_string(), reason: conflict.to_string() })
                }
                Err(Bad::Local(error)) => Err(SessionError::from(error).into()),
            }
        });
        match checked {
            Ok(entry) => staged.set(path.clone(), entry),
            Err(error) => {
                staged.back_to(mark);
                return Err(error);
            }
        }
    }
    Ok(())
}

fn make(
    draft: &Draft,
    (book, staged): (&Book, &mut Staged),
    resolver: &Resolver<'_>,
    (tail, keys): (&mut Tail<'_>, &ChunkKeys),
) -> Result<Entry, PutError> {
    let kind = match &draft.what {
        DraftKind::Dir => Kind::Dir,
        DraftKind::Link(target) => Kind::Symlink(target.clone()),
        DraftKind::Inline(bytes) => {
            let bytes =
                Bounded::new(bytes.clone()).ok_or_else(|| internal("too much for a catalog entry"))?;
            Kind::File(Content::Inline(bytes))
        }
        DraftKind::Chunks(placements) => {
            let mut content = ContentBuilder::default();
            for placement in placements {
                if let Some(list) = content.push(resolver.resolve(placement, book)?) {
                    content.listed(listed(staged, &list, (&mut *tail, keys))?);
                }
            }
            if let Some(list) = content.rest() {
                content.listed(listed(staged, &list, (&mut *tail, keys))?);
            }
            Kind::File(content.finish().ok_or_else(|| internal("a blob of more than 64 TiB"))?)
        }
    };
    Ok(Entry { kind, modified: draft.modified, mode: draft.mode, stored_at: draft.stored_at })
}

/// Stores a list of chunks, and notes what it names.
fn listed(
    staged: &mut Staged,
    list: &ChunkList,
    (tail, keys): (&mut Tail<'_>, &ChunkKeys),
) -> Result<ChunkRef, PutError> {
    let chunk = tail.chunk(keys, &encode(list)).map_err(internal)?;
    staged.listed.insert(list_at(&chunk), leaves_of(list));
    Ok(chunk)
}

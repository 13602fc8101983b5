//! A group commit on paper: what several puts and removals make of catalog, stripe table and records.
//!
//! Everything is staged in the book with an undo list, so that a group that comes to nothing leaves no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallow_seal::catalog::{self, Catalog, CatalogChanges, CatalogRecord};
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::{Content, ContentBuilder, Entry, FileTime, Kind, LinkTarget, Mode};
use tallow_seal::keys::ChunkKeys;
use tallow_seal::path::BlobPath;
use tallow_seal::record::is_snapshot_due;
use tallow_seal::repair::{RepairChanges, RepairIndex, RepairRecord};
use tallow_types::codec::{Bounded, encode};
use tallow_types::id::StripeId;
use tallow_types::unit::{LeafIndex, TimeMs};
use tokio::sync::oneshot;

use super::cell::{Cell, Placement, State};
use super::packer::Usage;
use super::tail::Tail;
use crate::book::{Book, Log};
use crate::error::{PutError, SessionError};
use crate::stripes::Row;

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

/// Changes of the catalog, staged in the book.
#[derive(Default)]
pub(crate) struct Staged {
    pub changes: CatalogChanges,
    undo: Vec<(BlobPath, Option<Entry>)>,
}

impl Staged {
    fn set(&mut self, catalog: &mut Catalog, path: BlobPath, entry: Option<Entry>) {
        let old = match entry.clone() {
            Some(entry) => catalog.insert(path.clone(), entry),
            None => catalog.remove(&path),
        };
        self.undo.push((path.clone(), old));
        self.changes.insert(path, entry);
    }

    /// Takes back everything behind a mark.
    fn back_to(&mut self, catalog: &mut Catalog, mark: usize) {
        for (path, old) in self.undo.drain(mark..).rev() {
            match old {
                Some(entry) => drop(catalog.insert(path, entry)),
                None => drop(catalog.remove(&path)),
            }
        }
    }

    /// Takes back everything.
    pub fn revert(mut self, catalog: &mut Catalog) {
        self.back_to(catalog, 0);
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
    book: &mut Book,
    changes: &[(BlobPath, Option<Draft>)],
    resolver: &Resolver<'_>,
    (tail, keys): (&mut Tail<'_>, &ChunkKeys),
) -> Result<(), PutError> {
    let (mark, before) = (staged.undo.len(), staged.changes.clone());
    for (path, draft) in changes {
        let made = match draft {
            None => Ok(None),
            Some(draft) => make(draft, book, resolver, (&mut *tail, keys)).map(Some),
        };
        let checked = made.and_then(|entry| {
            if let Some(entry) = &entry {
                catalog::check(&book.catalog, path, &entry.kind).map_err(|conflict| PutError::BadPath {
                    path: path.to_string(),
                    reason: conflict.to_string(),
                })?;
            }
            Ok(entry)
        });
        match checked {
            Ok(entry) => staged.set(&mut book.catalog, path.clone(), entry),
            Err(error) => {
                staged.back_to(&mut book.catalog, mark);
                staged.changes = before;
                return Err(error);
            }
        }
    }
    Ok(())
}

fn make(
    draft: &Draft,
    book: &Book,
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
                    content.listed(tail.chunk(keys, &encode(&list)).map_err(internal)?);
                }
            }
            if let Some(list) = content.rest() {
                content.listed(tail.chunk(keys, &encode(&list)).map_err(internal)?);
            }
            Kind::File(content.finish().ok_or_else(|| internal("a blob of more than 64 TiB"))?)
        }
    };
    Ok(Entry { kind, modified: draft.modified, mode: draft.mode, stored_at: draft.stored_at })
}

/// Records of one log, and the log as it will be but for its head.
pub(crate) struct Written<R> {
    pub records: Vec<R>,
    pub previous: Option<tallow_seal::head::HeadRef>,
    pub log: Log,
}

/// What the catalog's log gets.
pub(crate) fn catalog_records(book: &Book, changes: CatalogChanges) -> Written<CatalogRecord> {
    let log = &book.catalog_log;
    if changes.is_empty() && log.head.is_some() {
        return Written { records: Vec::new(), previous: log.head, log: log.clone() };
    }
    let estimate: u64 = 256 * book.catalog.len() as u64;
    if log.head.is_none() || is_snapshot_due(log.records, log.bytes, estimate) {
        return Written {
            records: CatalogRecord::snapshots(&book.catalog),
            previous: None,
            log: Log::default(),
        };
    }
    Written { records: CatalogRecord::deltas(changes), previous: log.head, log: log.clone() }
}

/// What the repair index's log gets: stripes that no record tells of as they are now, and those that go.
pub(crate) fn repair_records(book: &Book, dropped: &[LeafIndex]) -> Written<RepairRecord> {
    let log = &book.repair_log;
    let width = book.rows.iter().find_map(|(_, row)| row).map_or(0, |row| row.roots.len() as u64);
    if log.head.is_none() || is_snapshot_due(log.records, log.bytes, book.rows.live() * (64 + 32 * width)) {
        let all = book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row?.record()?)));
        let index: RepairIndex = all.filter(|(leaf, _)| !dropped.contains(leaf)).collect();
        return Written { records: RepairRecord::snapshots(&index), previous: None, log: Log::default() };
    }
    let new = book.rows.uncovered().iter().filter_map(|leaf| Some((*leaf, Some(book.row(*leaf)?.record()?))));
    let mut changes: RepairChanges = new.collect();
    changes.extend(dropped.iter().map(|leaf| (*leaf, None)));
    if changes.is_empty() {
        return Written { records: Vec::new(), previous: log.head, log: log.clone() };
    }
    Written { records: RepairRecord::deltas(changes), previous: log.head, log: log.clone() }
}

/// Counts records into the log they are written to.
pub(crate) fn count_records<R: tallow_types::codec::Tagged>(
    written: &mut Written<R>,
    leaves: BTreeSet<LeafIndex>,
) {
    for record in &written.records {
        written.log.records += 1;
        written.log.bytes += encode(record).len() as u64;
    }
    if !written.records.is_empty() {
        written.log.leaves.extend(leaves);
    }
}

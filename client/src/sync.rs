//! Bringing a book to a commit, from what its seeders hold: leaves first, so that every slice that follows can be checked,
//! then the repair log, then the catalog log. From an empty book this is what a restore is.
//!
//! Guarantees: a book that comes out fits the commit: every lane that was learnt has the root that the commit names, and
//! both logs were followed from the heads that it seals.

use std::collections::BTreeSet;
use std::sync::Arc;

use borsh::BorshDeserialize;
use futures::{StreamExt as _, TryStreamExt as _};
use tallow_proofs::lane::SumTree;
use tallow_seal::catalog::CatalogChanges;
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::Entry;
use tallow_seal::head::{HeadRef, Place, Which, open_head};
use tallow_seal::path::BlobPath;
use tallow_seal::record::{Items, Record, RecordRoot};
use tallow_seal::repair::{RepairIndex, RepairRecord, SlotSet};
use tallow_types::codec::{Tagged, decode};
use tallow_types::commit::{Commit, Leaf, SignedCommit};
use tallow_types::id::CommitHash;
use tallow_types::unit::{LeafIndex, SlotIndex};
use tallow_types::wire::{Request, Response};

use crate::book::Book;
use crate::db::Db;
use crate::entries::{self, Listed};
use crate::error::{LocalError, SessionError};
use crate::fetch::{Fetcher, Under};
use crate::gather::gather;
use crate::seats::Seat;
use crate::stripes::Row;

/// What people call the catalog's log.
const CATALOG: &str = "the catalog";
/// Most records of one log that a reader follows: far above what a writer leaves before it makes a snapshot.
const LOG_MAX: usize = 1 << 16;

/// A lane's leaves, empty ones as `None`.
pub(crate) type Leaves = Vec<Option<Leaf>>;

fn damaged(what: &str, reason: impl std::fmt::Display) -> SessionError {
    SessionError::Damaged { what: what.to_owned(), reason: reason.to_string() }
}

/// Changes of the catalog that are held at once while it is brought forward.
const BATCH: usize = 16 << 10;
/// First pieces of records that are kept from the way back to the way forward. Bytes.
const KEPT_MAX: usize = 8 << 20;
/// Pieces that are fetched at once.
const PIECES_AHEAD: usize = 4;

/// Brings `book`, which is the one of the local database, to `target`, and the database with it. Few changes are written at
/// once; many in batches, between which the database has no book.
pub(crate) async fn bring(
    fetcher: &Fetcher,
    db: &Arc<Db>,
    mut book: Book,
    target: &SignedCommit,
    straggler: std::time::Duration,
) -> Result<Book, SessionError> {
    if book.hash() == target.commit.hash() {
        return Ok(book);
    }
    let commit = &target.commit;
    let (keys, place) = (&fetcher.keys, Place::from(commit));
    let head = |under: Under| -> Result<Option<HeadRef>, SessionError> {
        let (which, keys, sealed) = match under {
            Under::Catalog => (Which::Catalog, &keys.catalog, &commit.catalog_head),
            Under::Repair => (Which::Repair, &keys.repair, &commit.repair_head),
        };
        open_head(keys, which, &place, sealed).map_err(|error| damaged("the head in the commit", error))
    };
    let (catalog_head, repair_head) = (head(Under::Catalog)?, head(Under::Repair)?);
    let mut rows = learn_rows(fetcher, &book, commit, straggler).await?;
    let reader = LogReader { fetcher, rows: rows.clone() };
    let repaired = reader
        .follow::<RepairRecord>(repair_head, book.repair_log.head, Under::Repair, "the repair index")
        .await?;
    let index = replay_repair(repaired, &mut book);
    fill_rows(&mut rows, &index);
    let listed = reader.walk_back(catalog_head, book.catalog_log.head).await?;
    book.commit = Some(target.clone());
    take_rows(&mut book, rows);
    replay_catalog(&reader, (catalog_head, listed), db, &mut book).await?;
    Ok(book)
}

/// Brings the book, and the local database, to a base; says whether that was another commit. If it fails the book is as it
/// was, or none where the database has none any more.
pub(crate) async fn bring_to(
    fetcher: &Fetcher,
    db: &Arc<Db>,
    book: &mut Book,
    base: Option<&SignedCommit>,
    straggler: std::time::Duration,
) -> Result<bool, SessionError> {
    let _alone = db.bringing.lock().await;
    if Book::newest(db)? != book.hash() {
        *book = Book::load(db, None)?;
    }
    if base.map_or(CommitHash::ZERO, |signed| signed.commit.hash()) == book.hash() {
        return Ok(false);
    }
    let brought = match base {
        None => Book::none(db).map_err(SessionError::from),
        Some(base) => bring(fetcher, db, std::mem::take(book), base, straggler).await,
    };
    let (now, ended) = match brought {
        Ok(book) => (book, Ok(true)),
        Err(error) => (Book::load(db, None).unwrap_or_default(), Err(error)),
    };
    *book = now;
    ended
}

/// Brings a table of stripes to these rows, noting those that change.
fn take_rows(book: &mut Book, rows: Vec<Option<Row>>) {
    let stripes = book.rows_mut();
    stripes.truncate(LeafIndex::new(rows.len() as u64));
    for (leaf, row) in (0u64..).map(LeafIndex::new).zip(rows) {
        if leaf == stripes.len() {
            stripes.extend(row);
        } else if stripes.get(leaf) != row.as_ref() {
            stripes.set(leaf, row);
        }
    }
}

/// Records of a log from the newest back to one that is known or needs none before it, and whether it met `known`.
struct Followed<R> {
    /// Newest first, with the root of each and the leaves that hold it.
    records: Vec<(R, u64, BTreeSet<LeafIndex>)>,
    met_known: bool,
    head: Option<HeadRef>,
}

/// A record of the catalog that is still to be read.
struct Ahead {
    root: RecordRoot,
    leaf: LeafIndex,
    /// Its first piece, if that is small.
    first: Option<Vec<u8>>,
    is_snapshot: bool,
}

struct LogReader<'a> {
    fetcher: &'a Fetcher,
    rows: Vec<Option<Row>>,
}

impl LogReader<'_> {
    /// The root of a record, by its head.
    async fn root(&self, head: &HeadRef, under: Under) -> Result<Vec<u8>, SessionError> {
        let at = usize::try_from(head.chunk.leaf.get()).unwrap_or(usize::MAX);
        let row = self.rows.get(at).and_then(Option::as_ref);
        self.fetcher.chunk(head, row.filter(|row| row.stripe == head.stripe), under).await
    }

    /// A piece, by the table of stripes.
    async fn piece(&self, piece: &ChunkRef, under: Under, what: &str) -> Result<Vec<u8>, SessionError> {
        let at = usize::try_from(piece.leaf.get()).unwrap_or(usize::MAX);
        let row = self.rows.get(at).and_then(Option::as_ref);
        let row = row.ok_or_else(|| damaged(what, "it names a stripe that is gone"))?;
        let mut found = self.fetcher.chunks(&row.into(), &[*piece], under).await?;
        found.pop().ok_or_else(|| damaged(what, "no piece came back"))
    }

    /// A piece of the catalog.
    async fn catalog_piece(&self, piece: ChunkRef) -> Result<Vec<u8>, SessionError> {
        self.piece(&piece, Under::Catalog, CATALOG).await.map_err(named(CATALOG))
    }

    /// The roots of the catalog's log, newest first, and whether they lead to the one that is known.
    async fn walk_back(
        &self,
        head: Option<HeadRef>,
        known: Option<HeadRef>,
    ) -> Result<(Vec<Ahead>, bool), SessionError> {
        let (mut ahead, mut kept) = (Vec::<Ahead>::new(), 0);
        let mut at = head;
        while let Some(here) = at.filter(|here| Some(*here) != known) {
            if ahead.len() >= LOG_MAX {
                return Err(damaged(CATALOG, "its log has no end"));
            }
            let root = self.root(&here, Under::Catalog).await.map_err(named(CATALOG))?;
            let root: RecordRoot = decode(&root).map_err(|error| damaged(CATALOG, error))?;
            let mut items = Items::<BlobPath, Entry>::default();
            let mut first = None;
            for piece in root.pieces.iter() {
                let bytes = self.catalog_piece(*piece).await?;
                items.push(&bytes).map_err(|error| damaged(CATALOG, error))?;
                first.get_or_insert(bytes);
                if items.is_snapshot().is_some() {
                    break;
                }
            }
            let is_snapshot =
                items.is_snapshot().ok_or_else(|| damaged(CATALOG, "a record without a head"))?;
            let first = first.filter(|bytes| kept + bytes.len() <= KEPT_MAX);
            kept += first.as_ref().map_or(0, Vec::len);
            at = root.previous;
            ahead.push(Ahead { root, leaf: here.chunk.leaf, first, is_snapshot });
            if is_snapshot {
                return Ok((ahead, false));
            }
        }
        Ok((ahead, at.is_some()))
    }

    async fn follow<R: Tagged + IsSnapshot + BorshDeserialize>(
        &self,
        head: Option<HeadRef>,
        known: Option<HeadRef>,
        under: Under,
        what: &str,
    ) -> Result<Followed<R>, SessionError> {
        let mut records = Vec::new();
        let mut at = head;
        while let Some(here) = at.filter(|here| Some(*here) != known) {
            if records.len() >= LOG_MAX {
                return Err(damaged(what, "its log has no end"));
            }
            let root = self.root(&here, under).await.map_err(named(what))?;
            let root: RecordRoot = decode(&root).map_err(|error| damaged(what, error))?;
            let mut leaves = BTreeSet::from([here.chunk.leaf]);
            let mut pieces = Vec::with_capacity(root.pieces.len());
            for piece in root.pieces.iter() {
                leaves.insert(piece.leaf);
                pieces.push(self.piece(piece, under, what).await.map_err(named(what))?);
            }
            let record: R = root.join(&pieces).map_err(|error| damaged(what, error))?;
            let is_snapshot = record.is_snapshot();
            records.push((record, u64::from(root.length), leaves));
            if is_snapshot {
                return Ok(Followed { records, met_known: false, head });
            }
            at = root.previous;
        }
        Ok(Followed { records, met_known: at.is_some(), head })
    }
}

trait IsSnapshot {
    fn is_snapshot(&self) -> bool;
}

impl<K: Ord, V> IsSnapshot for Record<K, V> {
    fn is_snapshot(&self) -> bool {
        Self::is_snapshot(self)
    }
}

/// Says what could not be read.
fn named(what: &str) -> impl Fn(SessionError) -> SessionError {
    move |error| match error {
        SessionError::Unreadable { have, need, failed, .. } => {
            SessionError::Unreadable { what: what.to_owned(), have, need, failed }
        }
        other => other,
    }
}

/// Brings the log of the repair index forward; gives the index.
fn replay_repair(followed: Followed<RepairRecord>, book: &mut Book) -> RepairIndex {
    let mut index = RepairIndex::new();
    if followed.met_known {
        let covered =
            book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row.filter(|row| row.is_covered)?)));
        index.extend(covered.filter_map(|(leaf, row)| Some((leaf, row.record()?))));
    } else {
        book.repair_log.restart();
    }
    let log = &mut book.repair_log;
    for (record, bytes, leaves) in followed.records.into_iter().rev() {
        if record.is_snapshot() {
            log.restart();
        }
        log.add(bytes, leaves);
        record.apply(&mut index);
    }
    log.head = followed.head;
    log.progress = None;
    index
}

/// Reads the records of the catalog forward and writes what they say.
async fn replay_catalog(
    reader: &LogReader<'_>,
    (head, (ahead, met_known)): (Option<HeadRef>, (Vec<Ahead>, bool)),
    db: &Arc<Db>,
    book: &mut Book,
) -> Result<(), SessionError> {
    let mut batch = CatalogChanges::new();
    if !met_known {
        book.begin_anew(db)?;
        book.catalog_log.restart();
    }
    let mut is_whole = met_known;
    for record in ahead.into_iter().rev() {
        if record.is_snapshot {
            batch.clear();
        }
        let leaves = record.root.pieces.iter().map(|piece| piece.leaf).chain([record.leaf]);
        book.catalog_log.add(u64::from(record.root.length), leaves);
        let rest: Vec<ChunkRef> =
            record.root.pieces.iter().skip(usize::from(record.first.is_some())).copied().collect();
        let rest = futures::stream::iter(rest).map(|piece| reader.catalog_piece(piece));
        let first = futures::stream::iter(record.first.map(Ok));
        let mut pieces = std::pin::pin!(first.chain(rest.buffered(PIECES_AHEAD)));
        let mut items = Items::<BlobPath, Entry>::default();
        let mut length = 0;
        while let Some(piece) = pieces.try_next().await? {
            length += piece.len() as u64;
            batch.extend(items.push(&piece).map_err(|error| damaged(CATALOG, error))?);
            if batch.len() >= BATCH {
                // Too much for one transaction: from here on an interruption means to begin again.
                if std::mem::take(&mut is_whole) {
                    book.disown(db)?;
                }
                flush(db, std::mem::take(&mut batch), book).await?;
            }
        }
        items.end().map_err(|error| damaged(CATALOG, error))?;
        if length != u64::from(record.root.length) {
            return Err(damaged(CATALOG, "a record of another length than its root says"));
        }
    }
    book.catalog_log.head = head;
    book.catalog_log.progress = None;
    if book.save(db, (&batch, &Listed::new()), |_| Ok(()))? {
        return Ok(db.sync()?);
    }
    Err(LocalError::Database("another operation brought it forward meanwhile; try again".into()).into())
}

/// Writes a batch.
async fn flush(db: &Arc<Db>, batch: CatalogChanges, book: &mut Book) -> Result<(), SessionError> {
    let db = db.clone();
    let written = tokio::task::spawn_blocking(move || {
        let changes = batch.iter().map(|(path, entry)| (path, entry.as_ref()));
        db.write_soft(|tx| entries::apply(tx, changes, &Listed::new()))
    });
    let uses = written.await.map_err(|error| SessionError::Internal(error.to_string()))??;
    book.rows_mut().count_uses(&uses);
    Ok(())
}

/// Adds what the repair index knows: roots of slots that nobody holds, and who holds what.
fn fill_rows(rows: &mut [Option<Row>], index: &RepairIndex) {
    for (leaf, record) in index {
        let row = usize::try_from(leaf.get()).ok().and_then(|at| rows.get_mut(at)).and_then(Option::as_mut);
        let Some(row) = row.filter(|row| row.stripe == record.stripe) else { continue };
        for (mine, theirs) in row.roots.iter_mut().zip(record.roots.iter()) {
            mine.get_or_insert(*theirs);
        }
        // A slot whose lane fits the commit holds everything in it, whatever the last record said.
        let learnt = row.present;
        row.present = record.present;
        learnt.iter().for_each(|slot| row.present.insert(slot));
        row.is_covered = row.present == record.present;
    }
}

/// The rows of a commit, as the lanes of its seeders tell them: each lane that is taken has the root that the commit
/// names. Roots of slots that nobody told of stay open.
async fn learn_rows(
    fetcher: &Fetcher,
    book: &Book,
    commit: &Commit,
    straggler: std::time::Duration,
) -> Result<Vec<Option<Row>>, SessionError> {
    let count = usize::try_from(commit.leaves.get()).map_err(|_| damaged("the commit", "too many leaves"))?;
    let known: Vec<Option<Row>> = book.rows.iter().take(count).map(|(_, row)| row.cloned()).collect();
    let calls =
        fetcher.seats.iter().map(|seat| {
            let known = &known;
            async move {
                learn_lane(fetcher, seat, known, commit).await.map(|leaves| (seat.slot, leaves)).ok_or(())
            }
        });
    let lanes = gather(calls, usize::from(fetcher.profile.quorum()), straggler).await;
    let lanes: Vec<(SlotIndex, Leaves)> = lanes.into_iter().flatten().collect();
    if lanes.is_empty() && count > 0 {
        return Err(SessionError::Unreadable {
            what: "the table of stripes".into(),
            have: 0,
            need: 1,
            failed: fetcher.blames(),
        });
    }
    let mut rows: Vec<Option<Row>> = Vec::with_capacity(count);
    for at in 0..count {
        let told =
            lanes.iter().filter_map(|(slot, leaves)| Some((*slot, leaves.get(at).copied().flatten()?)));
        let told: Vec<(SlotIndex, Leaf)> = told.collect();
        let Some((_, first)) = told.first() else {
            rows.push(None);
            continue;
        };
        let old = known.get(at).and_then(Option::as_ref).filter(|row| row.stripe == first.stripe);
        let mut row = old.cloned().unwrap_or_else(|| Row {
            stripe: first.stripe,
            slice_len: first.length,
            roots: vec![None; usize::from(fetcher.profile.slots())],
            present: SlotSet::default(),
            is_covered: false,
            uses: 0,
        });
        for (slot, leaf) in told {
            if let Some(root) = row.roots.get_mut(usize::from(slot.get())) {
                *root = Some(leaf.root);
            }
            row.present.insert(slot);
        }
        rows.push(Some(row));
    }
    Ok(rows)
}

/// One seeder's lane at a commit, if it has it: what is known already with the rest from the seeder, or else all of it
/// from the seeder.
async fn learn_lane(
    fetcher: &Fetcher,
    seat: &Seat,
    known: &[Option<Row>],
    commit: &Commit,
) -> Option<Leaves> {
    let wanted = commit.slots.get(usize::from(seat.slot.get()))?;
    let count = usize::try_from(commit.leaves.get()).ok()?;
    let fits = |leaves: &Leaves| {
        let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref));
        leaves.len() == count
            && tree.is_ok_and(|tree| tree.root() == wanted.root && tree.bytes() == wanted.bytes)
    };
    let mut leaves: Leaves = known
        .iter()
        .map_while(|row| match row {
            None => Some(None),
            Some(row) => row.leaf(seat.slot).map(Some),
        })
        .collect();
    if leaves.is_empty() || !extend_lane(fetcher, seat, &mut leaves, count).await || !fits(&leaves) {
        leaves.clear();
        if !extend_lane(fetcher, seat, &mut leaves, count).await || !fits(&leaves) {
            return None;
        }
    }
    Some(leaves)
}

/// Asks a seeder for the leaves behind those given, up to `count`.
pub(crate) async fn extend_lane(fetcher: &Fetcher, seat: &Seat, leaves: &mut Leaves, count: usize) -> bool {
    while leaves.len() < count {
        let from = LeafIndex::new(leaves.len() as u64);
        let request = Request::Leaves { contract: fetcher.contract, slot: seat.slot, from };
        let Ok(reply) = fetcher.caller.call(seat, request, bytes::Bytes::new()).await else { return false };
        let Response::Leaves { leaves: more } = reply.response else { return false };
        if more.is_empty() {
            return false;
        }
        leaves.extend(more.into_vec());
    }
    leaves.truncate(count);
    true
}

/// All leaves of a seeder's lane as of its own newest commit.
pub(crate) async fn whole_lane(fetcher: &Fetcher, seat: &Seat, count: LeafIndex) -> Option<Leaves> {
    let mut leaves = Leaves::new();
    let count = usize::try_from(count.get()).ok()?;
    extend_lane(fetcher, seat, &mut leaves, count).await.then_some(leaves)
}

/// Makes every root of a book known, by making slices again where nobody could tell, and checks the whole against the
/// commit.
pub(crate) async fn complete(fetcher: &Fetcher, book: &mut Book) -> Result<(), SessionError> {
    let Some(commit) = book.commit.as_ref().map(|signed| signed.commit.clone()) else { return Ok(()) };
    let open: Vec<LeafIndex> = book.rows.uncovered().iter().copied().collect();
    for leaf in open {
        let Some(row) = book.row(leaf).filter(|row| !row.is_complete()) else { continue };
        let roots = fetcher.all_roots(&row.into()).await?;
        book.rows_mut().change(leaf, |row| row.roots = roots.into_iter().map(Some).collect());
    }
    let fits = book.slots(fetcher.profile).is_ok_and(|slots| slots == *commit.slots);
    if fits {
        Ok(())
    } else {
        Err(damaged("the table of stripes", "it does not have the roots of the commit"))
    }
}

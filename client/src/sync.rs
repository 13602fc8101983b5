//! Bringing a book to a commit, from what its seeders hold: leaves first, so that every slice that follows can be checked,
//! then the repair log, then the catalog log. From an empty book this is what a restore is.
//!
//! Guarantees: a book that comes out fits the commit: every lane that was learnt has the root that the commit names, and
//! both logs were followed from the heads that it seals.

use std::collections::{BTreeMap, BTreeSet};

use borsh::BorshDeserialize;
use tallow_proofs::lane::SumTree;
use tallow_seal::catalog::{Catalog, CatalogRecord};
use tallow_seal::chunk::ChunkRef;
use tallow_seal::head::{HeadRef, Place, Which, open_head};
use tallow_seal::record::{Record, RecordRoot};
use tallow_seal::repair::{RepairIndex, RepairRecord, SlotSet};
use tallow_types::codec::{Tagged, decode};
use tallow_types::commit::{Commit, Leaf, SignedCommit};
use tallow_types::unit::{LeafIndex, SlotIndex};
use tallow_types::wire::{Request, Response};

use crate::book::{Book, Log};
use crate::error::SessionError;
use crate::fetch::{Fetcher, Under};
use crate::gather::gather;
use crate::seats::Seat;
use crate::stripes::Row;

/// Most records of one log that a reader follows: far above what a writer leaves before it makes a snapshot.
const LOG_MAX: usize = 1 << 16;

/// A lane's leaves, empty ones as `None`.
pub(crate) type Leaves = Vec<Option<Leaf>>;

fn damaged(what: &str, reason: impl std::fmt::Display) -> SessionError {
    SessionError::Damaged { what: what.to_owned(), reason: reason.to_string() }
}

/// Brings `book` to `target`.
pub(crate) async fn bring(
    fetcher: &Fetcher,
    book: Book,
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
    let (repair_log, index) = replay_repair(repaired, &book);
    fill_rows(&mut rows, &index);
    let listed = reader
        .follow::<CatalogRecord>(catalog_head, book.catalog_log.head, Under::Catalog, "the catalog")
        .await?;
    let (catalog_log, catalog) = replay_catalog(listed, book);
    let rows = rows.into_iter().collect();
    Ok(Book { commit: Some(target.clone()), catalog, catalog_log, rows, repair_log })
}

/// Records of a log from the newest back to one that is known or needs none before it, and whether it met `known`.
struct Followed<R> {
    /// Newest first, with the root of each and the leaves that hold it.
    records: Vec<(R, u64, BTreeSet<LeafIndex>)>,
    met_known: bool,
    head: Option<HeadRef>,
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
            let name = |error: SessionError| match error {
                SessionError::Unreadable { have, need, failed, .. } => {
                    SessionError::Unreadable { what: what.to_owned(), have, need, failed }
                }
                other => other,
            };
            let root = self.root(&here, under).await.map_err(name)?;
            let root: RecordRoot = decode(&root).map_err(|error| damaged(what, error))?;
            let mut leaves = BTreeSet::from([here.chunk.leaf]);
            let mut pieces = Vec::with_capacity(root.pieces.len());
            for piece in root.pieces.iter() {
                leaves.insert(piece.leaf);
                pieces.push(self.piece(piece, under, what).await.map_err(name)?);
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

fn replay<K: Ord, V>(
    followed: Followed<Record<K, V>>,
    known: (Log, BTreeMap<K, V>),
) -> (Log, BTreeMap<K, V>) {
    let (mut log, mut table) = if followed.met_known { known } else { (Log::default(), BTreeMap::new()) };
    for (record, bytes, leaves) in followed.records.into_iter().rev() {
        if record.is_snapshot() {
            log = Log::default();
        }
        log.records += 1;
        log.bytes += bytes;
        log.leaves.extend(leaves);
        record.apply(&mut table);
    }
    log.head = followed.head;
    (log, table)
}

fn replay_catalog(followed: Followed<CatalogRecord>, book: Book) -> (Log, Catalog) {
    replay(followed, (book.catalog_log, book.catalog))
}

fn replay_repair(followed: Followed<RepairRecord>, book: &Book) -> (Log, RepairIndex) {
    let covered = book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row.filter(|row| row.is_covered)?)));
    let known: RepairIndex = covered.filter_map(|(leaf, row)| Some((leaf, row.record()?))).collect();
    replay(followed, (book.repair_log.clone(), known))
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
        book.rows.change(leaf, |row| row.roots = roots.into_iter().map(Some).collect());
    }
    let fits = book.slots(fetcher.profile).is_ok_and(|slots| slots == *commit.slots);
    if fits {
        Ok(())
    } else {
        Err(damaged("the table of stripes", "it does not have the roots of the commit"))
    }
}

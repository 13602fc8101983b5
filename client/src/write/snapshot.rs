//! Writing down a log: what a commit adds to it, and snapshots in the background.
//!
//! A snapshot is written over several commits. Each puts some parts of the table into its stripes, in the order of keys and
//! each as the table is then; the last one chains them: the snapshot of an empty table, deltas made of the parts, and once
//! more the deltas that were written since the first part. Whatever of these a part had already comes out the same when it
//! is applied again. So only roots are written at once, and what a commit takes depends on what it brings.
//!
//! Guarantees: until the last commit the log is the old one; a snapshot that was begun goes on after a restart, unless
//! another device has written meanwhile.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_seal::catalog::CatalogChanges;
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::Entry;
use tallow_seal::head::HeadRef;
use tallow_seal::keys::ChunkKeys;
use tallow_seal::path::BlobPath;
use tallow_seal::record::{PARTS_MAX, Parts, Record, head, is_snapshot_due};
use tallow_seal::repair::{RepairChanges, StripeRecord};
use tallow_types::codec::Tagged;
use tallow_types::unit::LeafIndex;

use super::tail::{Bug, Tail};
use crate::book::{Book, Log};

/// What a commit writes of a snapshot at least. Bytes.
const PACE_MIN: usize = 1 << 20;
/// What it writes of one beside what it brings itself: so many times that.
const PACE: usize = 4;

/// A record whose pieces are in stripes: all but its root.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Written {
    pub pieces: Vec<ChunkRef>,
}

impl Written {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.plain_len)).sum()
    }
}

/// A snapshot on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Progress {
    /// The last key that is written down, encoded.
    after: Option<Vec<u8>>,
    /// Parts, with the number of items in each.
    parts: Vec<(ChunkRef, u32)>,
    /// What was added to the log since it began.
    since: Vec<Written>,
}

impl Progress {
    /// Leaves that hold what is written so far.
    pub fn leaves(&self) -> impl Iterator<Item = LeafIndex> + '_ {
        self.parts.iter().map(|(chunk, _)| chunk.leaf)
    }
}

/// What a commit does to a log.
pub(crate) struct Step {
    /// Records that get roots, oldest first.
    pub records: Vec<Written>,
    /// The root before them; `None` where nothing before counts.
    pub previous: Option<HeadRef>,
    is_anew: bool,
    progress: Option<Progress>,
    /// Their roots, once these are written.
    pub roots: Vec<HeadRef>,
}

impl Step {
    /// The head of the log after it.
    pub fn head(&self) -> Option<HeadRef> {
        self.roots.last().copied().or(self.previous)
    }

    /// Brings the log there.
    pub fn apply(self, log: &mut Log) {
        let head = self.head();
        if self.is_anew {
            log.restart();
        }
        for (record, root) in self.records.iter().zip(&self.roots) {
            let leaves = record.pieces.iter().map(|piece| piece.leaf);
            log.add(record.bytes(), leaves.chain([root.chunk.leaf]));
        }
        log.head = head;
        log.progress = self.progress;
    }
}

/// The next part of a table, and the key behind which to go on; `None` at the end of the table.
struct Part {
    bytes: Vec<u8>,
    items: u32,
    after: Option<Vec<u8>>,
}

/// Adds the items of a table to a part until it is full.
fn part<K: BorshSerialize, V: BorshSerialize, E: std::fmt::Display>(
    items: impl Iterator<Item = Result<(K, V), E>>,
    max: usize,
) -> Result<Part, Bug> {
    let mut open = Parts::new(max);
    let mut after = None;
    for item in items {
        let (key, value) = item.map_err(|error| error.to_string())?;
        if open.push(&key, &value) {
            after = Some(borsh::to_vec(&key).map_err(|error| error.to_string())?);
            break;
        }
    }
    let (bytes, items) = open.take();
    Ok(Part { bytes, items, after })
}

/// A table with a log.
trait Source {
    type Key: Ord + Clone + BorshSerialize + BorshDeserialize;
    type Value: Clone + BorshSerialize + BorshDeserialize;

    fn log(&self) -> &Log;
    /// What the table takes in records. Bytes.
    fn bytes(&self) -> Result<u64, Bug>;
    /// What comes behind a key, as it is before this commit.
    fn part(&self, after: Option<&[u8]>, max: usize) -> Result<Part, Bug>;
}

struct Catalog<'a>(&'a Book);

impl Source for Catalog<'_> {
    type Key = BlobPath;
    type Value = Entry;

    fn log(&self) -> &Log {
        &self.0.catalog_log
    }

    fn bytes(&self) -> Result<u64, Bug> {
        Ok(self.0.entries.sum("").map_err(|error| error.to_string())?.encoded)
    }

    fn part(&self, after: Option<&[u8]>, max: usize) -> Result<Part, Bug> {
        let first = match after {
            // No path has a NUL in it, so this is the first key that can follow.
            Some(after) => format!("{}\0", String::try_from_slice(after).map_err(|error| error.to_string())?),
            None => String::new(),
        };
        part(self.0.entries.from(&first).map_err(|error| error.to_string())?, max)
    }
}

struct Repair<'a>(&'a Book);

impl Source for Repair<'_> {
    type Key = LeafIndex;
    type Value = StripeRecord;

    fn log(&self) -> &Log {
        &self.0.repair_log
    }

    fn bytes(&self) -> Result<u64, Bug> {
        let rows = &self.0.rows;
        let slots = rows.iter().find_map(|(_, row)| row).map_or(0, |row| row.roots.len() as u64);
        Ok(rows.live() * (65 + 32 * slots))
    }

    fn part(&self, after: Option<&[u8]>, max: usize) -> Result<Part, Bug> {
        let first = match after {
            Some(after) => u64::try_from_slice(after).map_err(|error| error.to_string())? + 1,
            None => 0,
        };
        let rows = self.0.rows.from(LeafIndex::new(first));
        part(rows.filter_map(|(leaf, row)| Some(Ok::<_, Bug>((leaf, row?.record()?)))), max)
    }
}

/// Writes what changes in the catalog into the tail, and some of a snapshot if one is due or under way.
pub(crate) fn catalog_step(
    tail: &mut Tail<'_>,
    keys: &ChunkKeys,
    book: &Book,
    changes: &CatalogChanges,
) -> Result<Step, Bug> {
    step(tail, keys, &Catalog(book), changes.clone())
}

/// The same for the repair index: stripes that no record tells of as they are now, and those that go.
pub(crate) fn repair_step(
    tail: &mut Tail<'_>,
    keys: &ChunkKeys,
    book: &Book,
    dropped: &[LeafIndex],
) -> Result<Step, Bug> {
    let new = book.rows.uncovered().iter().filter_map(|leaf| Some((*leaf, Some(book.row(*leaf)?.record()?))));
    let mut changes: RepairChanges = new.collect();
    changes.extend(dropped.iter().map(|leaf| (*leaf, None)));
    step(tail, keys, &Repair(book), changes)
}

fn step<S: Source>(
    tail: &mut Tail<'_>,
    keys: &ChunkKeys,
    source: &S,
    changes: std::collections::BTreeMap<S::Key, Option<S::Value>>,
) -> Result<Step, Bug>
where
    Record<S::Key, S::Value>: Tagged,
{
    let log = source.log();
    let mut new = Vec::new();
    if !changes.is_empty() {
        for record in Record::deltas(changes) {
            new.push(Written { pieces: tail.pieces(keys, &record)? });
        }
    }
    let brought: u64 = new.iter().map(Written::bytes).sum();
    let (records, bytes) = (log.records + new.len() as u64, log.bytes + brought);
    let begun = match &log.progress {
        Some(progress) => Some(progress.clone()),
        None if is_snapshot_due(records, bytes, source.bytes()?) => Some(Progress::default()),
        None => None,
    };
    let mut step =
        Step { records: new, previous: log.head, is_anew: false, progress: None, roots: Vec::new() };
    let Some(mut progress) = begun else { return Ok(step) };
    let pace = usize::try_from(brought).unwrap_or(usize::MAX).saturating_mul(PACE).max(PACE_MIN);
    if advance(tail, keys, source, (&mut progress, pace))? {
        progress.since.append(&mut step.records);
        step.records = chained::<S>(tail, keys, progress)?;
        (step.previous, step.is_anew) = (None, true);
    } else {
        progress.since.extend(step.records.iter().cloned());
        step.progress = Some(progress);
    }
    Ok(step)
}

/// Writes parts until the pace is kept; true at the end of the table.
fn advance<S: Source>(
    tail: &mut Tail<'_>,
    keys: &ChunkKeys,
    source: &S,
    (progress, pace): (&mut Progress, usize),
) -> Result<bool, Bug> {
    let mut left = pace;
    while left > 0 {
        let part = source.part(progress.after.as_deref(), tail.part_max())?;
        if part.items > 0 {
            let (chunk, is_new) = tail.part(keys, &part.bytes)?;
            progress.parts.push((chunk, part.items));
            // One that is stored already costs no more than reading it.
            let cost = if is_new { part.bytes.len() } else { part.bytes.len() / 8 };
            left = left.saturating_sub(cost);
        }
        match part.after {
            Some(after) => progress.after = Some(after),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// The records of a log that begins with what a snapshot has written down.
fn chained<S: Source>(tail: &mut Tail<'_>, keys: &ChunkKeys, progress: Progress) -> Result<Vec<Written>, Bug>
where
    Record<S::Key, S::Value>: Tagged,
{
    let mut begin = |count| tail.chunk(keys, &head::<S::Key, S::Value>(count));
    let mut records = vec![Written { pieces: vec![begin(0)?] }];
    for parts in progress.parts.chunks(PARTS_MAX) {
        let first = begin(parts.iter().map(|(_, items)| items).sum())?;
        let pieces = std::iter::once(first).chain(parts.iter().map(|(chunk, _)| *chunk)).collect();
        records.push(Written { pieces });
    }
    records.extend(progress.since);
    Ok(records)
}

//! What a client knows of a contract at one commit: the catalog, the stripe table, and where their logs stand.
//!
//! Guarantees: `lane` gives for every slot the very leaves that the commit's roots are over, or says which roots are not
//! known here; the local database is brought from one commit to the next whole or not at all; what that takes depends on
//! the change, not on how much there is.
//!
//! Does not: fetch anything. `sync` brings a book to a newer commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};
use tallow_proofs::lane::SumTree;
use tallow_seal::catalog::CatalogChanges;
use tallow_seal::head::HeadRef;
use tallow_types::codec::{decode, encode};
use tallow_types::commit::{Leaf, SignedCommit, SlotState};
use tallow_types::id::CommitHash;
use tallow_types::profile::Profile;
use tallow_types::unit::{LeafIndex, SlotIndex};

use crate::db::{self, Db, failed};
use crate::entries::{self, Entries, Listed};
use crate::error::LocalError;
use crate::stripes::{Row, Stripes};
use crate::write::snapshot::Progress;

/// Where the log of a table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// The newest record's root.
    pub head: Option<HeadRef>,
    /// Records that a reader needs, and their bytes.
    pub records: u64,
    pub bytes: u64,
    /// Leaves that hold them.
    pub leaves: BTreeSet<LeafIndex>,
    /// A snapshot on its way.
    pub progress: Option<Progress>,
    /// What the local database does not have yet: whether older leaves are forgotten, and which have come.
    anew: bool,
    come: Vec<LeafIndex>,
}

impl Log {
    /// Nothing before counts any more.
    pub fn restart(&mut self) {
        *self = Self { anew: true, ..Self::default() };
    }

    /// A record, and the leaves that hold it.
    pub fn add(&mut self, bytes: u64, leaves: impl IntoIterator<Item = LeafIndex>) {
        self.records += 1;
        self.bytes += bytes;
        self.hold(leaves);
    }

    /// Leaves that hold records.
    pub fn hold(&mut self, leaves: impl IntoIterator<Item = LeafIndex>) {
        for leaf in leaves {
            if self.leaves.insert(leaf) {
                self.come.push(leaf);
            }
        }
    }
}

/// A log in the state record; its leaves are in a table.
#[derive(BorshSerialize, BorshDeserialize)]
struct StoredLog {
    head: Option<HeadRef>,
    records: u64,
    bytes: u64,
    progress: Option<Progress>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Stored {
    commit: Vec<u8>,
    logs: [StoredLog; 2],
}

/// A contract at one commit.
#[derive(Default)]
pub(crate) struct Book {
    pub commit: Option<SignedCommit>,
    pub entries: Entries,
    pub catalog_log: Log,
    pub rows: Arc<Stripes>,
    pub repair_log: Log,
    /// The commit that the local database stood at when this was read from it or written to it.
    saved: Option<CommitHash>,
}

/// The state record of the local database.
pub(crate) const STATE: &str = "book";

impl Book {
    pub fn hash(&self) -> CommitHash {
        hash_of(self.commit.as_ref())
    }

    pub fn leaves(&self) -> LeafIndex {
        self.rows.len()
    }

    pub fn row(&self, leaf: LeafIndex) -> Option<&Row> {
        self.rows.get(leaf)
    }

    /// The stripe table, to change it.
    pub fn rows_mut(&mut self) -> &mut Stripes {
        Arc::make_mut(&mut self.rows)
    }

    /// The leaves of a lane; `Err` names the first whose root is not known.
    pub fn lane(&self, slot: SlotIndex) -> Result<Vec<Option<Leaf>>, LeafIndex> {
        let known = |(leaf, row): (LeafIndex, Option<&Row>)| match row {
            None => Ok(None),
            Some(row) => row.leaf(slot).map(Some).ok_or(leaf),
        };
        self.rows.iter().map(known).collect()
    }

    /// The leaves of a lane from an index on, if their roots are known.
    pub fn leaves_from(&self, slot: SlotIndex, from: LeafIndex) -> Option<Vec<Option<Leaf>>> {
        let leaf = |(_, row): (_, Option<&Row>)| row.map_or(Some(None), |row| row.leaf(slot).map(Some));
        self.rows.from(from).map(leaf).collect()
    }

    /// Root and bytes of every slot; `Err` names a leaf of which a root is not known, or that no lane can have.
    pub fn slots(&self, profile: Profile) -> Result<Vec<SlotState>, LeafIndex> {
        profile
            .slot_indices()
            .map(|slot| {
                let leaves = self.lane(slot)?;
                let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref));
                let tree = tree.map_err(|_| self.leaves())?;
                Ok(SlotState { root: tree.root(), bytes: tree.bytes() })
            })
            .collect()
    }

    /// Leaves that nothing in catalog, logs or `kept` refers to.
    pub fn dead(&self, kept: &BTreeSet<LeafIndex>) -> BTreeSet<LeafIndex> {
        let logs = [&self.catalog_log, &self.repair_log];
        let begun: BTreeSet<LeafIndex> =
            logs.iter().filter_map(|log| log.progress.as_ref()).flat_map(Progress::leaves).collect();
        let is_held = |leaf: &LeafIndex| {
            kept.contains(leaf) || begun.contains(leaf) || logs.iter().any(|log| log.leaves.contains(leaf))
        };
        self.rows.unused().iter().filter(|leaf| !is_held(leaf)).copied().collect()
    }

    /// The book of the local database, with the stripe table of `known` if that is the same commit's; an empty one if there
    /// is none, or it can't be read.
    pub fn load(db: &Db, known: Option<&(CommitHash, Arc<Stripes>)>) -> Result<Self, LocalError> {
        let tx = db.read()?;
        let Some(stored) = stored(&tx)? else { return Ok(Self::default()) };
        let Ok(commit) = decode::<SignedCommit>(&stored.commit) else { return Ok(Self::default()) };
        let saved = commit.commit.hash();
        let rows = match known {
            Some((hash, rows)) if *hash == saved => rows.clone(),
            _ => Arc::new(rows(&tx)?),
        };
        let [catalog_log, repair_log] = stored.logs;
        let leaves = tx.open_table(db::LOGS).map_err(failed)?;
        let log = |number: u8, stored: StoredLog| {
            let range = leaves.range((number, 0)..=(number, u64::MAX)).map_err(failed)?;
            let held = range.map(|item| Ok(LeafIndex::new(item.map_err(failed)?.0.value().1)));
            Ok::<_, LocalError>(Log {
                head: stored.head,
                records: stored.records,
                bytes: stored.bytes,
                progress: stored.progress,
                leaves: held.collect::<Result<_, LocalError>>()?,
                ..Log::default()
            })
        };
        Ok(Self {
            commit: Some(commit),
            entries: Entries::open(&tx)?,
            catalog_log: log(0, catalog_log)?,
            rows,
            repair_log: log(1, repair_log)?,
            saved: Some(saved),
        })
    }

    /// The commit that the local database stands at.
    pub fn newest(db: &Db) -> Result<CommitHash, LocalError> {
        let stored = stored(&db.read()?)?;
        Ok(hash_of(stored.and_then(|stored| decode(&stored.commit).ok()).as_ref()))
    }

    /// Writes what has changed since the book was read or saved, with these changes of the catalog and whatever `also` writes,
    /// to be made durable soon. False, and nothing is written, if the database has moved on meanwhile.
    pub fn save(
        &mut self,
        db: &Db,
        (changes, listed): (&CatalogChanges, &Listed),
        also: impl FnOnce(&WriteTransaction) -> Result<(), LocalError>,
    ) -> Result<bool, LocalError> {
        let body = |tx: &WriteTransaction| {
            let stored = {
                let meta = tx.open_table(db::META).map_err(failed)?;
                let found = meta.get(STATE).map_err(failed)?;
                found.map(|found| db::decoded::<Stored>(found.value())).transpose()?
            };
            if hash_of(stored.and_then(|stored| decode(&stored.commit).ok()).as_ref())
                != self.saved.unwrap_or(CommitHash::ZERO)
            {
                return Ok(false);
            }
            let changes = changes.iter().map(|(path, entry)| (path, entry.as_ref()));
            let uses = entries::apply(tx, changes, listed)?;
            self.rows_mut().count_uses(&uses);
            self.write(tx)?;
            also(tx)?;
            Ok(true)
        };
        let is_written = db.write_soft(body)?;
        if !is_written {
            return Ok(false);
        }
        self.saved = Some(self.hash());
        self.entries = Entries::open(&db.read()?)?;
        Ok(true)
    }

    /// Says what lists of chunks name that were not known before.
    pub fn learn_lists(&mut self, db: &Db, listed: Listed) -> Result<(), LocalError> {
        if listed.is_empty() {
            return Ok(());
        }
        db.write(|tx| {
            let uses = entries::read(tx, listed)?;
            self.rows_mut().count_uses(&uses);
            self.write(tx)
        })
    }

    /// Inside a write transaction: everything but the catalog.
    fn write(&mut self, tx: &WriteTransaction) -> Result<(), LocalError> {
        let leaves = self.leaves().get();
        let written = self.rows_mut().written();
        let rows = written.iter().map(|leaf| (leaf.get(), self.rows.get(*leaf)));
        db::put_stripes(tx, leaves, rows)?;
        let mut held = tx.open_table(db::LOGS).map_err(failed)?;
        for (number, log) in [(0, &mut self.catalog_log), (1, &mut self.repair_log)] {
            if std::mem::take(&mut log.anew) {
                held.retain_in((number, 0)..=(number, u64::MAX), |_, ()| false).map_err(failed)?;
            }
            for leaf in std::mem::take(&mut log.come) {
                held.insert((number, leaf.get()), ()).map_err(failed)?;
            }
        }
        let log = |log: &Log| StoredLog {
            head: log.head,
            records: log.records,
            bytes: log.bytes,
            progress: log.progress.clone(),
        };
        let logs = [log(&self.catalog_log), log(&self.repair_log)];
        match &self.commit {
            Some(commit) => db::put_named(tx, db::META, STATE, &Stored { commit: encode(commit), logs }),
            None => db::drop_named(tx, db::META, STATE),
        }
    }

    /// No book: nothing was committed yet.
    pub fn none(db: &Db) -> Result<Self, LocalError> {
        let mut book = Self::default();
        book.catalog_log.restart();
        book.repair_log.restart();
        book.begin_anew(db)?;
        Ok(book)
    }

    /// From here on the database has no book, until the next save.
    pub fn disown(&mut self, db: &Db) -> Result<(), LocalError> {
        db.remove_named(db::META, STATE)?;
        self.saved = None;
        Ok(())
    }

    /// The same, and nothing of a catalog.
    pub fn begin_anew(&mut self, db: &Db) -> Result<(), LocalError> {
        db.write(|tx| {
            db::clear_catalog(tx)?;
            db::drop_named(tx, db::META, STATE)
        })?;
        self.saved = None;
        self.rows_mut().forget_uses();
        Ok(())
    }
}

fn hash_of(signed: Option<&SignedCommit>) -> CommitHash {
    signed.map_or(CommitHash::ZERO, |signed| signed.commit.hash())
}

fn stored(tx: &ReadTransaction) -> Result<Option<Stored>, LocalError> {
    let meta = tx.open_table(db::META).map_err(failed)?;
    meta.get(STATE).map_err(failed)?.map(|found| db::decoded(found.value())).transpose()
}

fn rows(tx: &ReadTransaction) -> Result<Stripes, LocalError> {
    let table = tx.open_table(db::STRIPES).map_err(failed)?;
    let rows = table.iter().map_err(failed)?;
    rows.map(|item| db::decoded::<Option<Row>>(item.map_err(failed)?.1.value())).collect()
}

#[cfg(test)]
mod tests;

//! What a client knows of a contract at one commit: the catalog, the stripe table, and where their logs stand.
//!
//! Guarantees: `lanes` gives for every slot the very leaves that the commit's roots are over, or says which roots are
//! not known here; the copy in the local database is replaced whole or not at all.
//!
//! Does not: fetch anything. `sync` brings a book to a newer commit.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use redb::WriteTransaction;
use tallow_proofs::lane::SumTree;
use tallow_seal::catalog::Catalog;
use tallow_seal::entry::{Content, Entry, Kind};
use tallow_seal::head::HeadRef;
use tallow_seal::path::BlobPath;
use tallow_types::codec::{decode, encode};
use tallow_types::commit::{Leaf, SignedCommit, SlotState};
use tallow_types::id::CommitHash;
use tallow_types::profile::Profile;
use tallow_types::unit::{LeafIndex, SlotIndex};

use crate::db::{self, Db};
use crate::error::LocalError;
use crate::stripes::{Row, Stripes};

/// Where the log of a table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Log {
    /// The newest record's root.
    pub head: Option<HeadRef>,
    /// Records since the last snapshot, and their bytes.
    pub records: u64,
    pub bytes: u64,
    /// Leaves that hold records which a reader still needs.
    pub leaves: BTreeSet<LeafIndex>,
}

/// A contract at one commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    pub commit: Option<SignedCommit>,
    pub catalog: Catalog,
    pub catalog_log: Log,
    pub rows: Stripes,
    pub repair_log: Log,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Stored {
    commit: Vec<u8>,
    catalog_log: Log,
    repair_log: Log,
}

const STATE: &str = "book";

impl Book {
    pub fn hash(&self) -> CommitHash {
        self.commit.as_ref().map_or(CommitHash::ZERO, |signed| signed.commit.hash())
    }

    pub fn leaves(&self) -> LeafIndex {
        self.rows.len()
    }

    pub fn row(&self, leaf: LeafIndex) -> Option<&Row> {
        self.rows.get(leaf)
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

    /// Leaves that nothing in catalog, logs or `kept` refers to. Lists of chunks count for the leaves in `listed`.
    pub fn dead(
        &self,
        listed: &BTreeMap<LeafIndex, BTreeSet<LeafIndex>>,
        kept: &BTreeSet<LeafIndex>,
    ) -> Vec<LeafIndex> {
        let mut alive: BTreeSet<LeafIndex> = kept.clone();
        alive.extend(&self.catalog_log.leaves);
        alive.extend(&self.repair_log.leaves);
        for entry in self.catalog.values() {
            if let Kind::File(content) = &entry.kind {
                for leaf in content_leaves(content) {
                    alive.insert(leaf);
                    alive.extend(listed.get(&leaf).into_iter().flatten());
                }
            }
        }
        let live = self.rows.iter().filter(|(leaf, row)| row.is_some() && !alive.contains(leaf));
        live.map(|(leaf, _)| leaf).collect()
    }

    /// The book of the local database, if there is one and it can be read.
    pub fn load(db: &Db) -> Result<Option<Self>, LocalError> {
        let Some(stored) = db.named::<Stored>(db::META, STATE)? else { return Ok(None) };
        let Ok(commit) = decode::<SignedCommit>(&stored.commit) else { return Ok(None) };
        let entries = db.all_named::<Entry>(db::ENTRIES)?;
        let catalog = entries
            .into_iter()
            .map(|(path, entry)| BlobPath::parse(&path).map(|path| (path, entry)))
            .collect::<Result<_, _>>();
        let Ok(catalog) = catalog else { return Ok(None) };
        let rows = db.all_stripes::<Option<Row>>()?.into_iter().collect();
        Ok(Some(Self {
            commit: Some(commit),
            catalog,
            catalog_log: stored.catalog_log,
            rows,
            repair_log: stored.repair_log,
        }))
    }

    fn stored(&self) -> Option<Stored> {
        let commit = encode(self.commit.as_ref()?);
        Some(Stored { commit, catalog_log: self.catalog_log.clone(), repair_log: self.repair_log.clone() })
    }

    /// Replaces the copy in the database.
    pub fn save_whole(&self, db: &Db) -> Result<(), LocalError> {
        let Some(stored) = self.stored() else { return Ok(()) };
        let rows: Vec<_> = self.rows.iter().map(|(_, row)| row.cloned()).collect();
        db.write(|tx| {
            db::clear_named(tx, db::ENTRIES)?;
            let entries = self.catalog.iter().map(|(path, entry)| (path.as_str(), Some(entry)));
            db::put_names(tx, db::ENTRIES, entries)?;
            db::put_stripes(tx, 0, (0u64..).zip(&rows))?;
            db::put_named(tx, db::META, STATE, &stored)
        })
    }

    /// Writes what has changed since the last save: entries by path, and stripes.
    pub fn put_changes(
        &mut self,
        tx: &WriteTransaction,
        paths: &BTreeSet<BlobPath>,
    ) -> Result<(), LocalError> {
        let Some(stored) = self.stored() else { return Ok(()) };
        let written = self.rows.written();
        let rows: Vec<_> = written.iter().map(|leaf| (leaf.get(), self.row(*leaf).cloned())).collect();
        let entries = paths.iter().map(|path| (path.as_str(), self.catalog.get(path)));
        db::put_names(tx, db::ENTRIES, entries)?;
        db::put_stripes(tx, self.leaves().get(), rows.iter().map(|(leaf, row)| (*leaf, row)))?;
        db::put_named(tx, db::META, STATE, &stored)
    }
}

/// The leaves that a content names itself.
pub(crate) fn content_leaves(content: &Content) -> impl Iterator<Item = LeafIndex> + '_ {
    let refs: &[tallow_seal::chunk::ChunkRef] = match content {
        Content::Inline(_) => &[],
        Content::Chunks(chunks) => chunks,
        Content::Lists { lists, .. } => lists,
    };
    refs.iter().map(|chunk| chunk.leaf)
}

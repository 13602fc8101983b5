//! What a client knows of a contract at one commit: the catalog, the stripe table, and where their logs stand.
//!
//! Guarantees: `lanes` gives for every slot the very leaves that the commit's roots are over, or says which roots are
//! not known here; the copy in the local database is replaced whole or not at all.
//!
//! Does not: fetch anything. `sync` brings a book to a newer commit.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_proofs::lane::SumTree;
use tallow_seal::catalog::Catalog;
use tallow_seal::entry::{Content, Entry, Kind};
use tallow_seal::head::HeadRef;
use tallow_seal::path::BlobPath;
use tallow_seal::repair::{SlotSet, StripeRecord};
use tallow_types::codec::{Bounded, decode, encode};
use tallow_types::commit::{Leaf, SignedCommit, SlotState};
use tallow_types::id::{CommitHash, SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::{Bytes, LeafIndex, SlotIndex};

use crate::db::{self, Db};
use crate::error::LocalError;

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
}

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
    /// By leaf; `None`: dropped.
    pub rows: Vec<Option<Row>>,
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
        LeafIndex::new(self.rows.len() as u64)
    }

    pub fn row(&self, leaf: LeafIndex) -> Option<&Row> {
        self.rows.get(usize::try_from(leaf.get()).ok()?)?.as_ref()
    }

    /// The leaves of a lane; `Err` names the first whose root is not known.
    pub fn lane(&self, slot: SlotIndex) -> Result<Vec<Option<Leaf>>, LeafIndex> {
        (0u64..)
            .zip(&self.rows)
            .map(|(leaf, row)| match row {
                None => Ok(None),
                Some(row) => row.leaf(slot).map(Some).ok_or(LeafIndex::new(leaf)),
            })
            .collect()
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

    /// Slices that the narrowest live stripe has; n where there is none.
    pub fn width(&self, profile: Profile) -> u8 {
        self.rows.iter().flatten().map(|row| row.present.len()).min().unwrap_or(profile.slots())
    }

    /// Says that a slot holds everything; gives back what it was not known to hold.
    pub fn mark_present(&mut self, slot: SlotIndex) -> Vec<(LeafIndex, StripeId)> {
        let mut marked = Vec::new();
        for (leaf, row) in (0u64..).zip(&mut self.rows) {
            let Some(row) = row.as_mut().filter(|row| !row.present.contains(slot)) else { continue };
            row.present.insert(slot);
            row.is_covered = false;
            marked.push((LeafIndex::new(leaf), row.stripe));
        }
        marked
    }

    /// Takes that back, where the stripes are still the same.
    pub fn unmark_present(&mut self, slot: SlotIndex, marked: &[(LeafIndex, StripeId)]) {
        for (leaf, stripe) in marked {
            let at = usize::try_from(leaf.get()).ok().and_then(|at| self.rows.get_mut(at)?.as_mut());
            if let Some(row) = at.filter(|row| row.stripe == *stripe) {
                row.present.remove(slot);
                row.is_covered = false;
            }
        }
    }

    /// Bytes of a lane.
    pub fn lane_bytes(&self) -> Bytes {
        Bytes::new(self.rows.iter().flatten().map(|row| u64::from(row.slice_len)).sum())
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
        (0u64..)
            .map(LeafIndex::new)
            .zip(&self.rows)
            .filter(|(leaf, row)| row.is_some() && !alive.contains(leaf))
            .map(|(leaf, _)| leaf)
            .collect()
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
        let rows = db.all_stripes::<Option<Row>>()?;
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
        db.write(|tx| {
            db::clear_named(tx, db::ENTRIES)?;
            let entries = self.catalog.iter().map(|(path, entry)| (path.as_str(), Some(entry)));
            db::put_names(tx, db::ENTRIES, entries)?;
            db::put_stripes(tx, 0, (0u64..).zip(&self.rows))?;
            db::put_named(tx, db::META, STATE, &stored)
        })
    }

    /// Writes what has changed since the last save: entries by path, and stripes from the leaves named.
    pub fn save_changes(
        &self,
        db: &Db,
        paths: &BTreeSet<BlobPath>,
        leaves: &BTreeSet<LeafIndex>,
    ) -> Result<(), LocalError> {
        let Some(stored) = self.stored() else { return Ok(()) };
        let rows = leaves.iter().filter_map(|leaf| {
            let at = usize::try_from(leaf.get()).ok()?;
            Some((leaf.get(), self.rows.get(at)?))
        });
        db.write(|tx| {
            let entries = paths.iter().map(|path| (path.as_str(), self.catalog.get(path)));
            db::put_names(tx, db::ENTRIES, entries)?;
            db::put_stripes(tx, self.leaves().get(), rows)?;
            db::put_named(tx, db::META, STATE, &stored)
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a repair that comes to nothing leaves no trace in the width, and touches no stripe that has come to a leaf since.
    /// Method: mark a slot in two of three rows, replace one, take it back.
    #[test]
    fn marks_are_taken_back() {
        let profile = Profile::from_k_of_n(1, 2).expect("valid");
        let (whole, lacking) = (SlotSet::from_iter([0, 1].map(SlotIndex::new)), [0].map(SlotIndex::new));
        let row = |stripe, present: SlotSet| Row {
            stripe: StripeId::new([stripe; 16]),
            slice_len: 1024,
            roots: vec![None; 2],
            present,
            is_covered: true,
        };
        let lacking = SlotSet::from_iter(lacking);
        let rows = [row(1, lacking), row(2, whole), row(3, lacking)];
        let mut book = Book { rows: rows.into_iter().map(Some).collect(), ..Book::default() };
        assert_eq!(book.width(profile), 1);
        let slot = SlotIndex::new(1);
        let marked = book.mark_present(slot);
        assert_eq!((marked.len(), book.width(profile)), (2, 2));
        book.rows[2] = Some(row(4, whole));
        book.unmark_present(slot, &marked);
        assert_eq!(book.width(profile), 1);
        let present = |at: usize| book.rows[at].as_ref().map(|row| row.present);
        assert_eq!([present(0), present(1), present(2)], [Some(lacking), Some(whole), Some(whole)]);
    }
}

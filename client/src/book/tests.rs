use std::collections::BTreeMap;

use proptest::prelude::*;
use tallow_seal::catalog::Catalog;
use tallow_seal::chunk::{ChunkRef, open};
use tallow_seal::entry::{Content, Entry, FileTime, Kind, Mode};
use tallow_seal::keys::{ChunkKeys, ContractKeys, Seed};
use tallow_seal::path::BlobPath;
use tallow_seal::record::{Record, RecordRoot, Table};
use tallow_seal::repair::SlotSet;
use tallow_types::codec::{Bounded, Tagged};
use tallow_types::commit::Commit;
use tallow_types::id::{AccountId, ChainId, ContractId, SliceRoot, StripeId};
use tallow_types::sign::Keypair;
use tallow_types::unit::{Incarnation, Lease, Sequence, TimeMs};

use super::*;
use crate::db::IfLocked;
use crate::write::cell::Cell;
use crate::write::packer::{Known, Packer};
use crate::write::snapshot::{Step, catalog_step, repair_step};
use crate::write::tail::{Done, Tail};

const CHAIN: ChainId = ChainId::new([1; 32]);
const SLOTS: u8 = 4;

/// Numbers that look random but follow from the seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&self.below(1 << 30).to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// A writer without seeders: its stripes are kept in a map, and a plain map says what the catalog should be.
struct World {
    dir: tempfile::TempDir,
    db: Arc<Db>,
    packer: Packer,
    keys: ContractKeys,
    book: Book,
    streams: BTreeMap<StripeId, Vec<u8>>,
    model: Catalog,
    stripes: u64,
    /// Snapshots that were finished, and the most commits that one took.
    snapshots: u32,
    longest: u32,
    under_way: u32,
}

fn open_db(dir: &tempfile::TempDir) -> Arc<Db> {
    Arc::new(Db::open(Some(dir.path()), &CHAIN, &AccountId::new([1; 32]), IfLocked::Fail).expect("opens"))
}

fn profile() -> Profile {
    Profile::from_k_of_n(2, SLOTS).expect("valid")
}

enum Outcome {
    Good,
    /// The commit is not acknowledged.
    Undone,
    /// It is, and the program ends before it has written anything down.
    Crashed,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let db = open_db(&dir);
        let packer = Packer::new(profile(), u64::from(SLOTS) << 20, db.clone());
        let keys = Seed::new([7; 64].into()).contract(0, 0);
        let (book, streams, model) = (Book::default(), BTreeMap::new(), Catalog::new());
        Self {
            dir,
            db,
            packer,
            keys,
            book,
            streams,
            model,
            stripes: 0,
            snapshots: 0,
            longest: 0,
            under_way: 0,
        }
    }

    fn row(&mut self) -> Row {
        self.stripes += 1;
        let mut stripe = [0; 16];
        stripe[..8].copy_from_slice(&self.stripes.to_le_bytes());
        Row {
            stripe: StripeId::new(stripe),
            slice_len: 1024,
            roots: vec![Some(SliceRoot::new([3; 32])); usize::from(SLOTS)],
            present: SlotSet::from_iter((0..SLOTS).map(SlotIndex::new)),
            is_covered: false,
            uses: 0,
        }
    }

    fn signed(&self) -> SignedCommit {
        let commit = Commit {
            contract: ContractId::new([1; 32]),
            lease: Lease { incarnation: Incarnation::ZERO, counter: 1 },
            sequence: Sequence::new(self.stripes),
            previous: CommitHash::ZERO,
            leaves: self.book.leaves(),
            width: SLOTS,
            slots: Bounded::empty(),
            catalog_head: Bounded::empty(),
            repair_head: Bounded::empty(),
        };
        commit.sign(&CHAIN, &Keypair::from_seed(&[1; 32]))
    }

    /// A commit of entries (by number, with the length of their content) and removals, and of all stripes that are dead.
    fn commit(&mut self, numbers: &mut Numbers, wanted: &[(u64, Option<usize>)], outcome: &Outcome) {
        let stripes = self.book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row?.stripe)));
        self.packer.set_stripes(stripes.collect());
        let packer = std::mem::replace(&mut self.packer, Packer::new(profile(), 1, self.db.clone()));
        let mut tail = Tail::resume(profile(), &packer, packer.take(), self.book.leaves());
        let mut changes = CatalogChanges::new();
        for (number, len) in wanted {
            let path = BlobPath::parse(&format!("folder-{}/{number:05}", number % 7)).expect("valid");
            let content = len.map(|len| match len {
                0..=1024 => Content::Inline(Bounded::new(numbers.noise(len)).expect("small")),
                _ => {
                    let chunk = tail.chunk(&self.keys.catalog, &numbers.noise(len)).expect("fits");
                    Content::Chunks(Bounded::new(vec![chunk]).expect("one"))
                }
            });
            changes.insert(path, content.map(entry));
        }
        let dropped: Vec<LeafIndex> = self.book.dead(&BTreeSet::new()).into_iter().collect();
        let mut catalog = catalog_step(&mut tail, &self.keys.catalog, &self.book, &changes).expect("writes");
        let mut repair = repair_step(&mut tail, &self.keys.repair, &self.book, &dropped).expect("writes");
        let logs = [(&self.keys.catalog, &mut catalog), (&self.keys.repair, &mut repair)];
        let done = tail.finish(logs).expect("finishes");
        self.packer = packer;
        if matches!(outcome, Outcome::Undone) {
            return;
        }
        let known = self.take_in(done, &dropped, [catalog, repair]);
        if matches!(outcome, Outcome::Crashed) {
            self.reload();
            return;
        }
        let saved = self.book.save(&self.db, (&changes, &Listed::new()), |tx| {
            db::put_keys(tx, db::CHUNKS, known.iter().map(|(id, known)| (id.as_slice(), Some(known))))
        });
        assert!(saved.expect("saves"));
        for (path, entry) in changes {
            match entry {
                Some(entry) => drop(self.model.insert(path, entry)),
                None => drop(self.model.remove(&path)),
            }
        }
        let was_under_way = std::mem::take(&mut self.under_way);
        if self.book.catalog_log.progress.is_some() {
            self.under_way = was_under_way + 1;
        } else if was_under_way > 0 {
            self.snapshots += 1;
            self.longest = self.longest.max(was_under_way + 1);
        }
    }

    /// The book follows the commit; gives what its stripes hold.
    fn take_in(&mut self, done: Vec<Done>, dropped: &[LeafIndex], steps: [Step; 2]) -> Vec<(Vec<u8>, Known)> {
        let first = self.book.leaves();
        let mut known = Vec::new();
        for Done { closed, stripe } in done {
            let row = Row { stripe, ..self.row() };
            let leaf = self.book.rows_mut().push(row);
            self.streams.insert(stripe, closed.stripe.stream().to_vec());
            let cell: &Cell = &closed.cell;
            for packed in cell.chunks() {
                let (id, offset) = (packed.id, packed.offset);
                let (sealed_len, plain_len) = (packed.sealed_len, packed.plain_len);
                let chunk = ChunkRef { id, leaf, offset, sealed_len, plain_len };
                known.push((id.as_bytes().to_vec(), (stripe, chunk)));
            }
        }
        let [catalog, repair] = steps;
        catalog.apply(&mut self.book.catalog_log);
        repair.apply(&mut self.book.repair_log);
        for leaf in dropped {
            self.book.rows_mut().set(*leaf, None);
        }
        let rows = self.book.rows_mut();
        let covered: Vec<LeafIndex> = rows.uncovered().range(..first).copied().collect();
        rows.cover(covered);
        self.book.commit = Some(self.signed());
        known
    }

    fn reload(&mut self) {
        self.book = Book::load(&self.db, None).expect("loads");
    }

    /// The program ends and begins again.
    fn restart(&mut self) {
        self.db.sync().expect("syncs");
        self.book = Book::default();
        self.packer = Packer::new(profile(), 1, Arc::new(db_in_memory()));
        self.db = Arc::new(db_in_memory());
        self.db = open_db(&self.dir);
        self.packer = Packer::new(profile(), u64::from(SLOTS) << 20, self.db.clone());
        self.reload();
    }

    fn opened(&self, keys: &ChunkKeys, stripe: StripeId, chunk: &ChunkRef) -> Vec<u8> {
        let stream = &self.streams[&stripe];
        let from = chunk.offset as usize;
        open(keys, chunk, &stream[from..from + chunk.sealed_len as usize]).expect("opens")
    }

    /// What a reader makes of a log that holds every record whole, as readers always did.
    fn read<K: Ord, V>(&self, keys: &ChunkKeys, log: &Log) -> Table<K, V>
    where
        Record<K, V>: Tagged,
    {
        let (mut records, mut at) = (Vec::new(), log.head);
        while let Some(head) = at {
            let row = self.book.row(head.chunk.leaf).expect("the leaf of a root is there");
            assert_eq!(row.stripe, head.stripe);
            assert!(log.leaves.contains(&head.chunk.leaf));
            let root: RecordRoot = decode(&self.opened(keys, head.stripe, &head.chunk)).expect("is a root");
            let piece = |piece: &ChunkRef| {
                assert!(log.leaves.contains(&piece.leaf));
                self.opened(keys, self.book.row(piece.leaf).expect("is there").stripe, piece)
            };
            let pieces: Vec<_> = root.pieces.iter().map(piece).collect();
            let record: Record<K, V> = root.join(&pieces).expect("is a record");
            let is_snapshot = record.is_snapshot();
            records.push(record);
            at = root.previous.filter(|_| !is_snapshot);
        }
        assert_eq!(log.records, records.len() as u64);
        let mut table = Table::new();
        records.into_iter().rev().for_each(|record| record.apply(&mut table));
        table
    }

    /// Catalog, logs, uses and the dead are what the plain map says.
    fn check(&self) {
        let all = self.book.entries.within("").expect("reads");
        let all: Catalog = all.map(|item| item.expect("reads")).collect();
        assert!(all == self.model, "the tables are not the map");
        let catalog = self.read::<BlobPath, Entry>(&self.keys.catalog, &self.book.catalog_log);
        assert!(catalog == self.model, "the log is not the map");
        let repair = self.read::<LeafIndex, _>(&self.keys.repair, &self.book.repair_log);
        for (leaf, row) in self.book.rows.iter() {
            let record = row.filter(|row| row.is_covered).and_then(Row::record);
            assert_eq!(repair.get(&leaf), record.as_ref(), "{leaf}");
        }
        let mut uses: BTreeMap<LeafIndex, u64> = BTreeMap::new();
        for entry in self.model.values() {
            if let Kind::File(Content::Chunks(chunks)) = &entry.kind {
                chunks.iter().for_each(|chunk| *uses.entry(chunk.leaf).or_default() += 1);
            }
        }
        for (leaf, row) in self.book.rows.iter() {
            assert_eq!(row.map_or(0, |row| row.uses), uses.get(&leaf).copied().unwrap_or(0), "{leaf}");
        }
        let table = self.book.entries.sum("").expect("reads").encoded.max(256 << 10);
        let log = &self.book.catalog_log;
        assert!(log.bytes + (log.records << 12) < 4 * table, "{} bytes for {table}", log.bytes);
    }
}

fn db_in_memory() -> Db {
    Db::open(None, &CHAIN, &AccountId::new([1; 32]), IfLocked::Fail).expect("opens")
}

fn entry(content: Content) -> Entry {
    let stored_at = TimeMs::ZERO;
    Entry {
        kind: Kind::File(content),
        modified: FileTime::default(),
        mode: Mode::from_system(0o600),
        stored_at,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2))]

    /// Goal: catalog, liveness and both logs are those of a plain map after any history, and a log stays a constant times as
    /// long as its table. Method: a large catalog; random groups of puts and removals, some undone, some lost in a crash before
    /// they were written down; restarts; read the logs as a reader does that holds records whole.
    #[test]
    fn books_equal_a_map(seed in any::<u64>()) {
        let mut numbers = Numbers(seed);
        let mut world = World::new();
        let all: Vec<_> = (0..1500).map(|number| (number, Some(900))).collect();
        world.commit(&mut numbers, &all, &Outcome::Good);
        for step in 0..40 {
            let first = numbers.below(1500);
            let wanted: Vec<_> = (first..first + 40 + numbers.below(160)).map(|number| {
                let len = match numbers.below(8) {
                    0 => None,
                    1 => Some(1025 + usize::try_from(numbers.below(3000)).expect("small")),
                    _ => Some(900),
                };
                (number, len)
            }).collect();
            let outcome = match numbers.below(10) {
                0 => Outcome::Undone,
                1 => Outcome::Crashed,
                _ => Outcome::Good,
            };
            world.commit(&mut numbers, &wanted, &outcome);
            if numbers.below(12) == 0 {
                world.restart();
            }
            if step % 10 == 0 {
                world.check();
            }
        }
        world.check();
        prop_assert!(world.snapshots > 0 && world.longest > 1, "{} {}", world.snapshots, world.longest);
    }
}

/// Goal: what a commit costs does not depend on what there is. Method: small commits to a small and to a large catalog, and
/// through a whole snapshot of the large one; count the bytes of their stripes.
#[test]
fn commits_cost_what_they_bring() {
    let mut most = Vec::new();
    for count in [100, 20_000] {
        let mut numbers = Numbers(count);
        let mut world = World::new();
        let all: Vec<_> = (0..count).map(|number| (number, Some(200))).collect();
        world.commit(&mut numbers, &all, &Outcome::Good);
        let mut largest = 0;
        for number in 0..30 {
            let before = world.streams.len();
            world.commit(&mut numbers, &[(number, Some(100))], &Outcome::Good);
            assert_eq!(world.streams.len(), before + 1);
            let newest = world.book.rows.get(LeafIndex::new(world.book.leaves().get() - 1)).expect("there");
            largest = largest.max(world.streams[&newest.stripe].len());
        }
        most.push(largest);
    }
    assert!(most[1] <= 2 * most[0], "{most:?}");
}

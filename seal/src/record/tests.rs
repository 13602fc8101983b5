use proptest::prelude::*;
use tallow_types::id::StripeId;
use tallow_types::unit::{LeafIndex, TimeMs};

use super::*;
use crate::catalog::{Catalog, CatalogChanges, CatalogRecord};
use crate::chunk::{CHUNK_OVERHEAD, ChunkId};
use crate::entry::{ChunkList, Content, Entry, FileTime, Kind, LinkTarget, Mode};
use crate::path::BlobPath;
use crate::repair::{RepairIndex, RepairRecord};

fn path(text: &str) -> BlobPath {
    BlobPath::parse(text).expect("is a path")
}

fn chunk(plain_len: u32) -> ChunkRef {
    let id = ChunkId::new([4; 32]);
    ChunkRef { id, leaf: LeafIndex::new(1), offset: 5, sealed_len: plain_len + CHUNK_OVERHEAD, plain_len }
}

fn entry(kind: Kind) -> Entry {
    let modified = FileTime::new(-5, 7).expect("in range");
    Entry { kind, modified, mode: Mode::from_system(0o640), stored_at: TimeMs::new(9) }
}

fn inline(bytes: &[u8]) -> Entry {
    entry(Kind::File(Content::Inline(Bounded::new(bytes.to_vec()).expect("short"))))
}

fn apply<K: Ord, V>(records: impl IntoIterator<Item = Record<K, V>>) -> Table<K, V> {
    let mut table = Table::new();
    records.into_iter().for_each(|record| record.apply(&mut table));
    table
}

/// Goal: a snapshot is the whole table, a delta what changes, and order counts. Method: a short history.
#[test]
fn history_is_replayed() {
    let changes = |list: &[(&str, Option<&[u8]>)]| -> CatalogChanges {
        list.iter().map(|(name, bytes)| (path(name), bytes.map(inline))).collect()
    };
    let first = changes(&[("a", Some(b"1")), ("b", Some(b"2"))]);
    let second = changes(&[("a", None), ("c", Some(b"3")), ("absent", None)]);
    let history: Vec<_> = [first, second].into_iter().flat_map(CatalogRecord::deltas).collect();
    assert!(history.iter().all(|record| !record.is_snapshot()));
    let table = apply(history.clone());
    assert_eq!(table, Catalog::from([(path("b"), inline(b"2")), (path("c"), inline(b"3"))]));
    let snapshot = CatalogRecord::snapshots(&table);
    assert!(snapshot.len() == 1 && snapshot[0].is_snapshot());
    assert_eq!(apply(history.into_iter().chain(snapshot)), table);
    assert_eq!(CatalogRecord::deltas(CatalogChanges::new()).len(), 1);
    assert_eq!(apply(CatalogRecord::snapshots(&Catalog::new())), Catalog::new());
}

/// Goal: a key that counts twice, or out of order, is refused. Method: encode such records by hand.
#[test]
fn keys_must_ascend() {
    let record = |names: [&str; 2]| {
        encode(&CatalogRecord::Snapshot(names.map(|name| (path(name), inline(b""))).to_vec()))
    };
    assert!(decode::<CatalogRecord>(&record(["a", "b"])).is_ok());
    assert!(decode::<CatalogRecord>(&record(["b", "a"])).is_err());
    assert!(decode::<CatalogRecord>(&record(["a", "a"])).is_err());
    let delta = encode(&CatalogRecord::Delta(vec![(path("a"), None), (path("a"), Some(inline(b"")))]));
    assert!(decode::<CatalogRecord>(&delta).is_err());
    let mut unknown = record(["a", "b"]);
    unknown[3] = 2;
    assert!(decode::<CatalogRecord>(&unknown).is_err());
}

/// Goal: what is too much for one record goes into several, each inside its limits, and comes back whole. Method: a
/// table of entries with thousands of chunks each, by size; the grouping by count on plain numbers.
#[test]
fn large_tables_take_several_records() {
    let large = entry(Kind::File(Content::Chunks(Bounded::new(vec![chunk(50); 4096]).expect("fits"))));
    let table: Catalog = (0..400).map(|number| (path(&format!("blob-{number:04}")), large.clone())).collect();
    let records = CatalogRecord::snapshots(&table);
    assert!(records.len() > 1 && records[0].is_snapshot());
    assert!(records[1..].iter().all(|record| !record.is_snapshot()));
    for record in &records {
        let bytes = encode(record);
        assert!(bytes.len() <= RECORD_MAX && bytes.len().div_ceil(RECORD_PIECE_MAX) <= RECORD_PIECES_MAX);
        assert_eq!(decode::<CatalogRecord>(&bytes).as_ref(), Ok(record));
    }
    assert_eq!(apply(records), table);
    let changes: CatalogChanges =
        table.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    assert_eq!(apply(CatalogRecord::deltas(changes)), table);
    let groups = group(0..=u32::try_from(RECORD_CHANGES_MAX).expect("small"));
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [RECORD_CHANGES_MAX, 1]);
}

/// Goal: one change more than the limit is refused before memory is taken. Method: forge the count.
#[test]
fn changes_are_bounded() {
    for kind in [0, 1] {
        for count in [u32::try_from(RECORD_CHANGES_MAX + 1).expect("small"), u32::MAX] {
            let bytes = [&[b'C', b'R', 1, kind], &count.to_le_bytes()[..]].concat();
            let error = decode::<CatalogRecord>(&bytes).expect_err("too many");
            assert!(error.to_string().contains("limit"), "{error}");
        }
    }
}

/// Goal: pieces and root give the record back, and nothing else passes. Method: a record of three pieces; leave one
/// out, change a length, mix up the kinds of record.
#[test]
fn pieces_and_root() {
    let large = entry(Kind::File(Content::Chunks(Bounded::new(vec![chunk(50); 4096]).expect("fits"))));
    let table: Catalog = (0..12).map(|number| (path(&format!("{number}")), large.clone())).collect();
    let record = CatalogRecord::snapshots(&table).remove(0);
    let cut = pieces(&record);
    assert_eq!(cut.len(), 3);
    assert!(cut.iter().all(|piece| piece.len() <= RECORD_PIECE_MAX));
    let refs: Vec<ChunkRef> =
        cut.iter().map(|piece| chunk(u32::try_from(piece.len()).expect("short"))).collect();
    let previous = HeadRef { chunk: chunk(9), stripe: StripeId::new([1; 16]), slice_len: 2048 };
    let root = RecordRoot::new(Some(previous), refs).expect("inside the limits");
    assert_eq!(decode::<RecordRoot>(&encode(&root)).as_ref(), Ok(&root));
    assert_eq!(root.join::<CatalogRecord>(&cut), Ok(record));
    assert!(matches!(root.join::<CatalogRecord>(&cut[..2]), Err(RecordError::Length { .. })));
    let merged = [[cut[0].clone(), cut[1].clone()].concat(), cut[2].clone()];
    assert!(matches!(root.join::<CatalogRecord>(&merged), Err(RecordError::Length { .. })));
    let mut swapped = cut.clone();
    swapped.swap(0, 1);
    assert!(matches!(root.join::<CatalogRecord>(&swapped), Err(RecordError::Decode(_))));
    assert!(matches!(root.join::<RepairRecord>(&cut), Err(RecordError::Decode(_))));
}

/// Goal: a record above its limits has no root. Method: one piece, and one byte, too many.
#[test]
fn roots_are_bounded() {
    let piece = chunk(u32::try_from(RECORD_PIECE_MAX).expect("small"));
    let full = RecordRoot::new(None, vec![piece; RECORD_PIECES_MAX]).expect("inside the limits");
    let bytes = encode(&full);
    assert_eq!(decode::<RecordRoot>(&bytes), Ok(full));
    let over = RecordError::TooLarge { len: RECORD_MAX as u64 + 1, pieces: RECORD_PIECES_MAX + 1 };
    let mut more = vec![piece; RECORD_PIECES_MAX];
    more.push(chunk(1));
    assert_eq!(RecordRoot::new(None, more), Err(over));
    let larger = vec![chunk(4 << 20); RECORD_PIECES_MAX];
    assert!(matches!(RecordRoot::new(None, larger), Err(RecordError::TooLarge { .. })));
    let mut forged = bytes;
    forged[8..12].copy_from_slice(&u32::try_from(RECORD_PIECES_MAX + 1).expect("small").to_le_bytes());
    assert!(decode::<RecordRoot>(&forged).is_err());
}

/// Goal: snapshots come when reading the log costs twice what reading the table would. Method: a table around the edges.
#[test]
fn snapshots_are_due_in_time() {
    let table = [
        ((0, 0, 0), false),
        ((127, 0, 0), false),
        ((128, 0, 0), true),
        ((1, 508 << 10, 0), true),
        ((100, 100 << 20, 100 << 20), false),
        ((100, 200 << 20, 100 << 20), true),
        ((u64::MAX, u64::MAX, 1 << 40), true),
    ];
    for ((records, bytes, snapshot), expected) in table {
        assert_eq!(is_snapshot_due(records, bytes, snapshot), expected, "{records} {bytes} {snapshot}");
    }
}

/// A table written down in parts, as pieces of records.
fn in_parts(table: &Catalog, max: usize) -> (Vec<Vec<Vec<u8>>>, Vec<Vec<u8>>) {
    let mut parts = Vec::new();
    let mut open = Parts::new(max);
    let mut items = table.iter().peekable();
    while let Some((key, value)) = items.next() {
        if open.push(key, value) || items.peek().is_none() {
            parts.push(std::mem::replace(&mut open, Parts::new(max)).take());
        }
    }
    let mut records = vec![vec![head::<BlobPath, Entry>(0)]];
    for parts in parts.chunks(PARTS_MAX) {
        let count = parts.iter().map(|(_, count)| count).sum();
        let pieces = std::iter::once(head::<BlobPath, Entry>(count));
        records.push(pieces.chain(parts.iter().map(|(bytes, _)| bytes.clone())).collect());
    }
    (records, parts.into_iter().map(|(bytes, _)| bytes).collect())
}

/// Goal: a table in parts is a log that every reader knows, and a change touches the parts beside it alone. Method: thousands
/// of entries; read the records whole; change one entry, compare the parts.
#[test]
fn parts_are_records() {
    let mut table: Catalog =
        (0..60_000).map(|number| (path(&format!("folder/{number:06}")), inline(b"some content"))).collect();
    let (records, before) = in_parts(&table, 64 << 10);
    assert!(records.len() > 3, "{}", records.len());
    let whole: Vec<CatalogRecord> =
        records.iter().map(|pieces| decode(&pieces.concat()).expect("is a record")).collect();
    assert!(whole[0].is_snapshot() && whole[1..].iter().all(|record| !record.is_snapshot()));
    assert_eq!(apply(whole), table);
    table.insert(path("folder/030000x"), inline(b"more"));
    let (_, after) = in_parts(&table, 64 << 10);
    let new = after.iter().filter(|part| !before.contains(part)).count();
    assert!((1..=3).contains(&new), "{new} of {}", after.len());
}

/// Numbers that look random but follow from the seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() % u64::from(limit)).expect("below a u32")
    }

    fn chunks<const MAX: usize>(&mut self) -> Bounded<ChunkRef, MAX> {
        let count = self.below(4);
        let chunks =
            (0..count).map(|_| ChunkRef { leaf: LeafIndex::new(self.next()), ..chunk(1 + self.below(5000)) });
        Bounded::new(chunks.collect()).expect("few")
    }

    fn entry(&mut self) -> Entry {
        let bytes: Vec<u8> =
            (0..self.below(30)).map(|_| 1 + u8::try_from(self.below(255)).expect("a byte")).collect();
        let kind = match self.below(5) {
            0 => Kind::Dir,
            1 => Kind::File(Content::Inline(Bounded::new(bytes).expect("short"))),
            2 => Kind::File(Content::Chunks(self.chunks())),
            3 => {
                let size = tallow_types::Bytes::new(self.next());
                Kind::File(Content::Lists { size, lists: self.chunks() })
            }
            _ => LinkTarget::new(bytes).map_or(Kind::Dir, Kind::Symlink),
        };
        let modified = FileTime::new(i64::from(self.below(u32::MAX)) - (1 << 31), self.below(1_000_000_000));
        Entry {
            kind,
            modified: modified.expect("in range"),
            mode: Mode::from_system(self.below(u32::MAX)),
            stored_at: TimeMs::new(self.next()),
        }
    }
}

/// Goal: no encoding changes unnoticed. Method: one hash over thousands of generated records; a new hash is a new
/// format, and takes a new version.
#[test]
fn conformance() {
    let (mut numbers, mut hasher) = (Numbers(1), blake3::Hasher::new());
    for _ in 0..2000 {
        let changes: CatalogChanges = (0..numbers.below(6))
            .map(|_| {
                let name = format!("{}/{:x}", numbers.below(3), numbers.below(99));
                (path(&name), (numbers.below(4) > 0).then(|| numbers.entry()))
            })
            .collect();
        let table: Catalog =
            changes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
        for record in CatalogRecord::deltas(changes).into_iter().chain(CatalogRecord::snapshots(&table)) {
            let bytes = encode(&record);
            assert_eq!(decode::<CatalogRecord>(&bytes), Ok(record));
            hasher.update(&bytes);
        }
        let root = RecordRoot { previous: None, length: numbers.below(99), pieces: numbers.chunks() };
        hasher.update(&encode(&root));
        hasher.update(&encode(&ChunkList { chunks: numbers.chunks() }));
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "c0639f91bc96fd95a768278398c48d6846580f46988f7d48125ee5dd4faa6005"
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..20);
    let chunks = proptest::collection::vec(1_u32..5000, 0..4)
        .prop_map(|lens| lens.into_iter().map(chunk).collect::<Vec<_>>());
    let kind = prop_oneof![
        bytes.clone().prop_map(|bytes| Kind::File(Content::Inline(Bounded::new(bytes).expect("short")))),
        chunks.clone().prop_map(|list| Kind::File(Content::Chunks(Bounded::new(list).expect("few")))),
        (chunks, any::<u64>()).prop_map(|(list, size)| {
            let lists = Bounded::new(list).expect("few");
            Kind::File(Content::Lists { size: tallow_types::Bytes::new(size), lists })
        }),
        Just(Kind::Dir),
        bytes.prop_map(|bytes| LinkTarget::new(bytes).map_or(Kind::Dir, Kind::Symlink)),
    ];
    (kind, any::<i64>(), 0_u32..1_000_000_000, any::<u32>(), any::<u64>()).prop_map(
        |(kind, seconds, nanos, mode, stored)| Entry {
            kind,
            modified: FileTime::new(seconds, nanos).expect("in range"),
            mode: Mode::from_system(mode),
            stored_at: TimeMs::new(stored),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Goal: records come back as written, with one encoding each. Method: random tables and changes.
    #[test]
    fn records_round_trip(
        changes in proptest::collection::btree_map("[a-c]{1,3}(/[a-c]{1,2})?", proptest::option::of(any_entry()), 0..12),
    ) {
        let changes: CatalogChanges = changes.into_iter().map(|(name, change)| (path(&name), change)).collect();
        let table: Catalog = changes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
        for record in CatalogRecord::deltas(changes).into_iter().chain(CatalogRecord::snapshots(&table)) {
            let bytes = encode(&record);
            let again: CatalogRecord = decode(&bytes).expect("as written");
            prop_assert_eq!(&again, &record);
            prop_assert_eq!(encode(&again), bytes);
            prop_assert_eq!(&apply([again]), &table);
        }
    }

    /// Goal: a record read piece by piece has the items that it has whole, however it is cut, and damage is noticed. Method:
    /// random records and cuts; change a byte.
    #[test]
    fn items_are_those_of_the_record(
        changes in proptest::collection::btree_map("[a-c]{1,3}", proptest::option::of(any_entry()), 0..12),
        is_snapshot in any::<bool>(),
        cuts in proptest::collection::vec(1_usize..60, 1..40),
        flip in proptest::option::of((any::<u16>(), 1_u8..)),
    ) {
        let changes: Vec<_> = changes.into_iter().map(|(name, change)| (path(&name), change)).collect();
        let record: CatalogRecord = if is_snapshot {
            Record::Snapshot(changes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
        } else {
            Record::Delta(changes)
        };
        let mut bytes = encode(&record);
        if let Some((at, with)) = flip {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= with;
        }
        let mut reader = Items::<BlobPath, Entry>::default();
        let (mut rest, mut found, mut cuts) = (bytes.as_slice(), Vec::new(), cuts.into_iter().cycle());
        let mut read = || {
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(cuts.next().expect("endless").min(rest.len()));
                found.extend(reader.push(piece)?);
                rest = behind;
            }
            Ok::<_, RecordError>(())
        };
        let is_read = read().is_ok();
        let kind = reader.is_snapshot();
        let is_whole = is_read && reader.end().is_ok();
        match decode::<CatalogRecord>(&bytes) {
            Err(_) => prop_assert!(!is_whole),
            Ok(record) => {
                prop_assert!(is_whole);
                prop_assert_eq!(kind, Some(record.is_snapshot()));
                let items: Vec<_> = match record {
                    Record::Snapshot(items) => items.into_iter().map(|(key, value)| (key, Some(value))).collect(),
                    Record::Delta(items) => items,
                };
                prop_assert_eq!(found, items);
            }
        }
    }

    /// Goal: no bytes make a decoder panic, and what decodes encodes to the same bytes. Method: random bytes, and
    /// sound records with a few bytes changed, through every decoder of this crate.
    #[test]
    fn decoders_take_any_bytes(
        entries in proptest::collection::btree_map("[a-c]{1,3}", any_entry(), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
    ) {
        let table: Catalog = entries.into_iter().map(|(name, entry)| (path(&name), entry)).collect();
        let mut near = encode(&CatalogRecord::snapshots(&table)[0]);
        for (at, byte) in changes {
            let at = usize::from(at) % near.len();
            near[at] = byte;
        }
        if let Ok(record) = decode::<CatalogRecord>(&near) {
            prop_assert_eq!(encode(&record), near);
        }
        for tag in [b"CR\x01", b"RX\x01", b"RR\x01", b"CL\x01", b"SA\x01"] {
            let bytes = [&tag[..], &noise].concat();
            let again = [
                decode::<CatalogRecord>(&bytes).map(|value| encode(&value)).ok(),
                decode::<RepairRecord>(&bytes).map(|value| encode(&value)).ok(),
                decode::<RecordRoot>(&bytes).map(|value| encode(&value)).ok(),
                decode::<ChunkList>(&bytes).map(|value| encode(&value)).ok(),
                decode::<crate::attempt::StripeAttempt>(&bytes).map(|value| encode(&value)).ok(),
            ];
            prop_assert!(again.iter().flatten().all(|encoded| *encoded == bytes));
        }
    }

    /// Goal: the log of any history gives the table that a plain map would have. Method: random puts, removals and
    /// snapshots.
    #[test]
    fn log_equals_a_map(steps in proptest::collection::vec((0_u64..8, proptest::option::of(0_u8..3)), 0..40)) {
        use crate::repair::{SlotSet, StripeRecord};
        let stripe = |fill: u8| StripeRecord {
            stripe: StripeId::new([fill; 16]),
            slice_len: 1024,
            roots: Bounded::empty(),
            present: SlotSet::default(),
        };
        let (mut expected, mut log) = (RepairIndex::new(), Vec::new());
        for (number, (leaf, change)) in steps.into_iter().enumerate() {
            let (leaf, value) = (LeafIndex::new(leaf), change.map(stripe));
            match value.clone() {
                Some(value) => drop(expected.insert(leaf, value)),
                None => drop(expected.remove(&leaf)),
            }
            log.extend(RepairRecord::deltas([(leaf, value)].into()));
            if number % 7 == 6 {
                log.clear();
                log.extend(RepairRecord::snapshots(&expected));
            }
        }
        prop_assert_eq!(apply(log), expected);
    }
}

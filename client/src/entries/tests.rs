use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tallow_seal::catalog::Catalog;
use tallow_seal::chunk::{CHUNK_OVERHEAD, ChunkId};
use tallow_seal::entry::{FileTime, Mode};
use tallow_types::codec::Bounded;
use tallow_types::id::{AccountId, ChainId};
use tallow_types::unit::{Bytes, TimeMs};

use super::*;
use crate::book::Book;
use crate::db::{Db, IfLocked};
use crate::get::missing;
use crate::list::{Listing, listed};
use crate::report::ListedKind;

fn db() -> Db {
    let dir: Option<&Path> = None;
    Db::open(dir, &ChainId::new([1; 32]), &AccountId::new([1; 32]), IfLocked::Fail).expect("opens")
}

fn path(text: &str) -> BlobPath {
    BlobPath::parse(text).expect("valid")
}

fn entry(kind: Kind) -> Entry {
    let stored_at = TimeMs::new(7);
    Entry { kind, modified: FileTime::default(), mode: Mode::from_system(0o644), stored_at }
}

fn inline(len: usize) -> Entry {
    entry(Kind::File(Content::Inline(Bounded::new(vec![0; len]).expect("small"))))
}

fn chunk(leaf: u64, offset: u32) -> ChunkRef {
    let id = ChunkId::new([0; 32]);
    ChunkRef { id, leaf: LeafIndex::new(leaf), offset, sealed_len: 5 + CHUNK_OVERHEAD, plain_len: 5 }
}

fn write(db: &Db, changes: &[(&str, Option<Entry>)]) -> Uses {
    let changes: Vec<_> = changes.iter().map(|(name, entry)| (path(name), entry.clone())).collect();
    let changes = changes.iter().map(|(path, entry)| (path, entry.as_ref()));
    db.write(|tx| apply(tx, changes, &Listed::new())).expect("writes")
}

fn entries(db: &Db) -> Entries {
    Entries::open(&db.read().expect("reads")).expect("opens")
}

/// Goal: children are shown once each, in order, folders with or without an entry of their own. Method: names that sort between.
#[test]
fn children_are_grouped() {
    let db = Arc::new(db());
    let file = || Some(inline(5));
    let dir = || Some(entry(Kind::Dir));
    write(
        &db,
        &[("a", dir()), ("a.b", file()), ("a/x", file()), ("a/y/z", file()), ("c/d", file()), ("e", dir())],
    );
    let names = |prefix: &str| {
        let mut book = Book::default();
        book.entries = entries(&db);
        let book = Arc::new(book);
        let listing = Listing::new(db.clone(), book, prefix, false).expect("is there");
        listing.map(|one| one.map(|one| (one.path, one.size, one.kind)).expect("reads")).collect::<Vec<_>>()
    };
    let (file, folder) = (ListedKind::File, ListedKind::Folder);
    let own = |name: &str, size, kind: &ListedKind| (name.to_owned(), size, kind.clone());
    let top = [own("a", 10, &folder), own("a.b", 5, &file), own("c", 5, &folder), own("e", 0, &folder)];
    assert_eq!(names(""), top);
    assert_eq!(names("a"), [own("a/x", 5, &file), own("a/y", 5, &folder)]);
    assert_eq!(names("a/x"), [own("a/x", 5, &file)]);
    assert!(names("e").is_empty());
    for (name, is_there) in [("c", true), ("b", false), ("a/", false)] {
        assert_eq!(crate::get::lookup(&entries(&db), name).is_ok(), is_there, "{name}");
    }
    let near = |name: &str| match missing(&entries(&db), name) {
        crate::error::GetError::NotFound { near, .. } => near,
        _ => panic!("another error"),
    };
    assert!(near("a.c").contains(&"a.b".to_owned()));
    assert_eq!(near("a/y/w"), ["a/y/z"]);
    assert_eq!(near("a/z/w"), ["a/x", "a/y"]);
}

/// Goal: what lists of chunks name counts as long as an entry names the list, whether it is known at once or read later.
/// Method: put two lists, one known; read the other; overwrite and remove.
#[test]
fn lists_count_for_what_they_name() {
    let db = db();
    let lists = |lists: Vec<ChunkRef>| {
        let lists = Bounded::new(lists).expect("few");
        entry(Kind::File(Content::Lists { size: Bytes::new(1), lists }))
    };
    let uses = |list: &[(u64, i64)]| {
        list.iter().map(|(leaf, count)| (LeafIndex::new(*leaf), *count)).collect::<Uses>()
    };
    let (one, two) = (chunk(1, 0), chunk(2, 64));
    let known = Listed::from([(list_at(&one), BTreeMap::from([(7, 3)]))]);
    let (name, both) = (path("large"), lists(vec![one, two]));
    let put = db.write(|tx| apply(tx, [(&name, Some(&both))], &known)).expect("writes");
    assert_eq!(put, uses(&[(1, 1), (2, 1), (7, 3)]));
    assert_eq!(unread(&db.read().expect("reads")).expect("reads"), [two]);
    let later = || Listed::from([(list_at(&two), BTreeMap::from([(7, 1), (8, 2)]))]);
    assert_eq!(db.write(|tx| read(tx, later())).expect("writes"), uses(&[(7, 1), (8, 2)]));
    assert!(db.write(|tx| read(tx, later())).expect("writes").is_empty());
    assert!(write(&db, &[("copy", Some(lists(vec![two])))]) == uses(&[(2, 1)]));
    assert_eq!(write(&db, &[("large", None)]), uses(&[(1, -1), (2, -1), (7, -3)]));
    assert_eq!(write(&db, &[("copy", None)]), uses(&[(2, -1), (7, -1), (8, -2)]));
    assert!(unread(&db.read().expect("reads")).expect("reads").is_empty());
}

fn names() -> impl Strategy<Value = String> {
    "[ab.]{1,2}(/[ab]{1,2}){0,3}".prop_filter("is a path", |name| BlobPath::parse(name).is_ok())
}

fn contents() -> impl Strategy<Value = Option<Entry>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(entry(Kind::Dir))),
        1 => (0usize..20).prop_map(|len| Some(inline(len))),
        2 => prop::collection::vec((0u64..4, 0u32..9), 1..3).prop_map(|chunks| {
            let chunks = chunks.into_iter().map(|(leaf, offset)| chunk(leaf, offset)).collect();
            Some(entry(Kind::File(Content::Chunks(Bounded::new(chunks).expect("few")))))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Goal: the tables say what a plain map would: entries, listings of every folder, sums and uses. Method: random batches of
    /// changes; a walk over the map.
    #[test]
    fn tables_equal_a_map(batches in prop::collection::vec(prop::collection::btree_map(names(), contents(), 1..8), 1..6)) {
        let db = db();
        let (mut map, mut uses) = (Catalog::new(), Uses::new());
        for batch in batches {
            let changes: Vec<_> = batch.iter().map(|(name, entry)| (name.as_str(), entry.clone())).collect();
            for (leaf, count) in write(&db, &changes) {
                *uses.entry(leaf).or_default() += count;
            }
            for (name, entry) in batch {
                match entry {
                    Some(entry) => drop(map.insert(path(&name), entry)),
                    None => drop(map.remove(&path(&name))),
                }
            }
        }
        let found = entries(&db);
        let all: Catalog = found.within("").expect("reads").map(|item| item.expect("reads")).collect();
        prop_assert_eq!(&all, &map);
        let mut walked = Uses::new();
        for entry in map.values() {
            if let Kind::File(Content::Chunks(chunks)) = &entry.kind {
                chunks.iter().for_each(|chunk| *walked.entry(chunk.leaf).or_default() += 1);
            }
        }
        uses.retain(|_, count| *count != 0);
        prop_assert_eq!(uses, walked);
        let folders: std::collections::BTreeSet<String> =
            map.keys().flat_map(|path| path.parents().map(|path| path.as_str().to_owned())).collect();
        for folder in folders.iter().map(String::as_str).chain([""]) {
            let below: Vec<_> = match folder {
                "" => map.iter().collect(),
                _ => map.iter().filter(|(path, _)| path.as_str().starts_with(&format!("{folder}/"))).collect(),
            };
            let sum = found.sum(folder).expect("reads");
            let files = below.iter().filter(|(_, entry)| matches!(entry.kind, Kind::File(_)));
            let bytes: u64 = files.clone().map(|(_, entry)| entry.size().get()).sum();
            prop_assert_eq!((sum.entries, sum.files, sum.bytes), (below.len() as u64, files.count() as u64, bytes));
            let encoded: usize = below
                .iter()
                .map(|(path, entry)| borsh::to_vec(&(path, Some(entry))).expect("writes").len())
                .sum();
            prop_assert_eq!(sum.encoded, encoded as u64);
            let depth = if folder.is_empty() { 0 } else { folder.len() + 1 };
            let mut expected: BTreeMap<&str, (bool, u64)> = BTreeMap::new();
            for (path, entry) in &below {
                let end = path.as_str()[depth..].find('/').map_or(path.as_str().len(), |at| depth + at);
                let child = expected.entry(&path.as_str()[..end]).or_default();
                child.0 |= end == path.as_str().len();
                child.1 += if entry.kind == Kind::Dir { 0 } else { entry.size().get() };
            }
            let mut children = found.children(folder).expect("reads");
            for (name, (is_entry, size)) in expected {
                let child = children.next(&found).expect("reads").expect("is there");
                prop_assert_eq!((child.path.as_str(), child.entry.is_some()), (name, is_entry));
                let own = child.entry.map_or(0, |entry| listed(name, &entry).size);
                prop_assert_eq!(own + child.below.bytes, size);
            }
            prop_assert!(children.next(&found).expect("reads").is_none());
        }
    }
}

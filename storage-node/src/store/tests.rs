//! Tests of the whole store, on a disk that keeps only what was synced.

mod crash;
mod upkeep;

use std::sync::Arc;

use tallow_types::commit::Leaf;
use tallow_types::{Bytes, ContractId, Epoch, LeafIndex, SlotIndex, StripeId};

use super::torn::{Lot, Torn};
use super::*;

pub(super) const CONFIG: StoreConfig =
    StoreConfig { room: Bytes::new(1 << 30), reserve: Bytes::new(1 << 20), segment: Bytes::new(32 << 10) };
const AMPLE: Bytes = Bytes::new(1 << 30);

pub(super) fn open(disk: &Torn) -> SliceStore {
    SliceStore::open_with(Arc::new(disk.clone()), CONFIG).unwrap()
}

pub(super) fn lane_key(n: u8) -> LaneKey {
    LaneKey { contract: ContractId::new([n; 32]), slot: SlotIndex::new(n) }
}

/// The slice of a number: always the same bytes.
pub(super) fn slice(n: u64) -> Slice {
    let mut lot = Lot(n);
    let kib = usize::try_from(1 + lot.below(4)).unwrap();
    let bytes: Vec<u8> = (0..kib * 128).flat_map(|_| lot.next().to_le_bytes()).collect();
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&n.to_le_bytes());
    let length = u32::try_from(bytes.len()).unwrap();
    let leaf = Leaf { stripe: StripeId::new(stripe), root: root_of(&bytes), length };
    Slice::verify(leaf, bytes.into()).unwrap()
}

pub(super) fn request(lane: LaneKey, numbers: impl IntoIterator<Item = u64>, epoch: u64) -> PutRequest {
    let slices = numbers.into_iter().map(slice).collect();
    PutRequest { lane, slices, epoch: Epoch::new(epoch), limit: AMPLE, for_commit: false }
}

fn assert_here(store: &SliceStore, lane: LaneKey, n: u64) {
    let want = slice(n);
    let bytes = store.read(&lane.slice(want.leaf.stripe), 0, want.leaf.length);
    assert_eq!(bytes.unwrap(), want.bytes, "slice {n}");
}

/// The sums in the index against the slices themselves, and places against rows.
pub(super) fn assert_consistent(store: &SliceStore) {
    let txn = store.shared.database.begin_write().unwrap();
    let tables = index::Tables::open(&txn).unwrap();
    let (mut count, mut bytes, mut live) = (0, 0, std::collections::BTreeMap::new());
    for lane in store.lanes_with_slices().unwrap() {
        let (mut lane_count, mut lane_bytes) = (0, 0);
        for key in tables.slices_of(lane, usize::MAX).unwrap() {
            let row = tables.slice(key).unwrap().unwrap();
            lane_count += 1;
            lane_bytes += u64::from(row.length);
            *live.entry(row.segment).or_insert(0) += RecordHeader::span(row.length);
        }
        let usage = tables.lane_usage(lane).unwrap();
        assert_eq!((usage.slices, usage.bytes().get()), (lane_count, lane_bytes));
        count += lane_count;
        bytes += lane_bytes;
    }
    let usage = tables.usage().unwrap();
    assert_eq!((usage.slices, usage.bytes().get()), (count, bytes));
    for (id, row) in tables.segments().unwrap() {
        assert_eq!(row.live, live.remove(&id).unwrap_or(0), "live bytes of segment {id}");
    }
    assert!(live.is_empty(), "slices in segments without a row: {live:?}");
}

/// Goal: what was put is read back, whole and in part, now and after opening again. Method: put across segments.
#[test]
fn slices_are_read_back() {
    let disk = Torn::new();
    let lane = lane_key(1);
    let store = open(&disk);
    store.put(request(lane, 0..40, 0)).unwrap();
    store.put(request(lane, 20..60, 0)).unwrap();
    drop(store);
    let store = open(&disk);
    for n in 0..60 {
        assert_here(&store, lane, n);
    }
    let want = slice(7);
    let key = lane.slice(want.leaf.stripe);
    for (offset, length) in [(0, 10), (100, 900), (want.leaf.length - 1, 1), (5, 0)] {
        let range = offset as usize..(offset + length) as usize;
        assert_eq!(store.read(&key, offset, length).unwrap(), want.bytes.slice(range));
    }
    let over = store.read(&key, 1, want.leaf.length);
    assert!(matches!(over, Err(ReadError::Range { .. })));
    let wrap = store.read(&key, u32::MAX, 2);
    assert!(matches!(wrap, Err(ReadError::Range { .. })));
    let other = store.read(&lane_key(2).slice(want.leaf.stripe), 0, 1);
    assert!(matches!(other, Err(ReadError::NotFound)));
    assert_consistent(&store);
}

/// Goal: bytes that aren't the leaf's never get in. Method: wrong root, wrong length, odd length.
#[test]
fn wrong_bytes_are_refused() {
    let good = slice(1);
    let leaf = good.leaf;
    let flipped: Vec<u8> = good.bytes.iter().map(|byte| byte ^ 1).collect();
    assert!(Slice::verify(leaf, flipped.into()).is_err());
    assert!(Slice::verify(leaf, good.bytes.slice(..1024 - 1)).is_err());
    let odd = Leaf { length: 1023, root: root_of(&good.bytes[..1023]), ..leaf };
    assert!(Slice::verify(odd, good.bytes.slice(..1023)).is_err());
}

/// Goal: one name has one slice. Method: put another under the same name, alone and within one request.
#[test]
fn names_are_never_reused() {
    let store = open(&Torn::new());
    let lane = lane_key(1);
    let first = slice(1);
    let bytes = slice(2).bytes;
    let leaf = Leaf { stripe: first.leaf.stripe, root: root_of(&bytes), length: slice(2).leaf.length };
    let other = Slice::verify(leaf, bytes).unwrap();
    let both = PutRequest { slices: vec![first.clone(), other.clone()], ..request(lane, [], 0) };
    assert_eq!(store.put(both), Err(WriteError::Conflict { stripe: leaf.stripe }));
    assert_eq!(store.usage().unwrap(), Usage::default());
    store.put(PutRequest { slices: vec![first.clone(), first], ..request(lane, [], 0) }).unwrap();
    let late = PutRequest { slices: vec![other], ..request(lane, [], 0) };
    assert_eq!(store.put(late), Err(WriteError::Conflict { stripe: leaf.stripe }));
    assert_here(&store, lane, 1);
    assert_eq!(store.usage().unwrap().slices, 1);
}

/// Goal: rot is found, said, and healed by storing the slice again. Method: flip a byte on the disk.
#[test]
fn damage_is_found_and_healed() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..3, 0)).unwrap();
    let want = slice(1);
    let key = lane.slice(want.leaf.stripe);
    let row = store.slice(&key).unwrap().unwrap();
    drop(store);
    disk.rot(row.segment, row.offset + HEADER + 700);
    let store = open(&disk);
    assert!(matches!(store.read(&key, 0, 100), Err(ReadError::Damaged)));
    store.put(request(lane, 0..3, 0)).unwrap();
    assert_here(&store, lane, 1);
    assert_consistent(&store);
}

/// Goal: limits of lane, room and disk are refused with nothing written. Method: one byte above each.
#[test]
fn limits_refuse_with_nothing_written() {
    let disk = Torn::new();
    let lane = lane_key(1);
    let size =
        |numbers: std::ops::Range<u64>| -> u64 { numbers.map(|n| u64::from(slice(n).leaf.length)).sum() };
    let store = open(&disk);
    store.put(request(lane, 0..4, 0)).unwrap();
    let limit = Bytes::new(size(0..8));
    let over = PutRequest { limit: Bytes::new(size(0..8) - 1), ..request(lane, 0..8, 0) };
    let written = disk.written();
    assert!(matches!(store.put(over), Err(WriteError::LaneFull { .. })));
    assert_eq!(disk.written(), written);
    store.put(PutRequest { limit, ..request(lane, 0..8, 0) }).unwrap();
    drop(store);

    let room = StoreConfig { room: Bytes::new(size(0..10) - 1), ..CONFIG };
    let store = SliceStore::open_with(Arc::new(disk.clone()), room).unwrap();
    let written = disk.written();
    assert!(matches!(store.put(request(lane, 8..10, 0)), Err(WriteError::DiskFull { .. })));
    assert_eq!(disk.written(), written);
    assert_eq!(store.usage().unwrap().slices, 8);
    drop(store);

    let store = open(&disk);
    disk.set_free(CONFIG.reserve.get() + 4096);
    let written = disk.written();
    assert!(matches!(store.put(request(lane, 8..20, 0)), Err(WriteError::DiskFull { .. })));
    assert_eq!(disk.written(), written, "a refused request leaves no bytes");
    store.put(request(lane, 8..9, 0)).unwrap();
    assert!(store.broken().is_none());
    assert_consistent(&store);
    disk.set_free(1 << 30);
    store.put(request(lane, 8..20, 0)).unwrap();
    assert_consistent(&store);
}

fn commit_of(lane: LaneKey, numbers: std::ops::Range<u64>) -> LaneUpdate {
    let row = LaneRow::new(Origin::Founder, AMPLE, None);
    let leaves = numbers.clone().map(|n| (LeafIndex::new(n), slice(n).leaf)).collect();
    LaneUpdate { appended: leaves, ..LaneUpdate::row(lane, row) }
}

/// Goal: a sweep frees what no commit holds, when it is old enough, and the disk gets it back. Method: hold some, wait
/// an epoch too few and one enough, drop the held ones.
#[test]
fn sweep_frees_what_nothing_holds() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..30, 5)).unwrap();
    store.update_lane(commit_of(lane, 0..10)).unwrap();
    let sweep = |epoch: u64, active: Option<Rank>| {
        store.sweep(1000, Box::new(move |_, state| judge(state, Epoch::new(epoch), 1, active))).unwrap()
    };
    assert_eq!(sweep(6, None).slices, 0);
    assert_eq!(sweep(7, None).slices, 20);
    (0..10).for_each(|n| assert_here(&store, lane, n));
    assert_consistent(&store);

    let by = Rank { sequence: tallow_types::Sequence::new(3), ..Rank::default() };
    let row = LaneRow { newest: Some((tallow_types::CommitHash::ZERO, by)), ..commit_of(lane, 0..0).row };
    let removed = (0..5).map(|n| (LeafIndex::new(n), slice(n).leaf)).collect();
    store.update_lane(LaneUpdate { removed, ..LaneUpdate::row(lane, row) }).unwrap();
    assert_eq!(sweep(100, None).slices, 0, "the commit is not active yet");
    assert_eq!(sweep(100, Some(by)).slices, 0, "its last window is still open");
    assert_here(&store, lane, 0);
    let before = disk.written();
    assert_eq!(sweep(101, Some(by)).slices, 5);
    store.tidy();
    assert!(disk.written() < before);
    (5..10).for_each(|n| assert_here(&store, lane, n));
    assert_consistent(&store);
    let gone = store.remove_lane(lane, 3).unwrap();
    assert!(gone.more && gone.slices == 3);
    assert!(!store.remove_lane(lane, 100).unwrap().more);
    assert_eq!(store.usage().unwrap(), Usage::default());
    assert_eq!(store.lane(lane).unwrap(), None);
    assert_consistent(&store);
}

/// Goal: a commit is refused whole while a slice of it is missing. Method: name one slice too many.
#[test]
fn commit_needs_its_slices() {
    let (store, lane) = (open(&Torn::new()), lane_key(1));
    store.put(request(lane, 0..4, 0)).unwrap();
    let refused = store.update_lane(commit_of(lane, 0..6));
    assert_eq!(refused, Err(WriteError::Missing { missing: 2, first: slice(4).leaf.stripe }));
    assert_eq!(store.lane(lane).unwrap(), None);
    store.update_lane(commit_of(lane, 0..4)).unwrap();
    assert_eq!(store.lane_usage(lane).unwrap().loose, Bytes::ZERO);
}

/// Goal: segments alone give the index back. Method: lose it, open, compare; then again by `rebuild`, with a damaged
/// record between two good ones.
#[test]
fn index_is_rebuilt_from_segments() {
    let disk = Torn::new();
    let lane = lane_key(1);
    let store = open(&disk);
    for n in 0..50 {
        store.put(request(lane, [n], 0)).unwrap();
    }
    store.update_lane(commit_of(lane, 0..50)).unwrap();
    let row = store.slice(&lane.slice(slice(20).leaf.stripe)).unwrap().unwrap();
    drop(store);
    disk.forget_index();
    let store = open(&disk);
    (0..50).for_each(|n| assert_here(&store, lane, n));
    assert_eq!(store.lane(lane).unwrap(), None);
    let swept = store.sweep(1000, Box::new(|_, state| judge(state, Epoch::MAX, 1, None))).unwrap();
    assert_eq!(swept.slices, 0, "slices found without an index are kept");
    assert_consistent(&store);
    drop(store);
    disk.rot(row.segment, row.offset);
    let store = SliceStore::rebuild_with(Arc::new(disk.clone()), CONFIG).unwrap();
    (0..50).filter(|n| *n != 20).for_each(|n| assert_here(&store, lane, n));
    assert_eq!(store.usage().unwrap().slices, 49);
    assert_consistent(&store);
}

/// Goal: a panic while the store writes ends its writing, and leaves nobody waiting. Method: a rule that panics, with
/// others on their way.
#[test]
fn a_panic_is_told() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (store, lane) = (open(&Torn::new()), lane_key(1));
    store.put(request(lane, 0..4, 0)).unwrap();
    let swept = store.sweep(9, Box::new(|_, _| panic!("as a test")));
    let late = store.put(request(lane, 4..8, 0));
    std::panic::set_hook(hook);
    assert!(matches!((swept, late), (Err(WriteError::Broken(_)), Err(WriteError::Broken(_)))));
    assert!(store.broken().is_some());
    assert_here(&store, lane, 1);
}

/// Goal: two processes never share a store. Method: open a directory twice.
#[test]
fn second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = SliceStore::open(dir.path(), CONFIG).unwrap();
    assert!(matches!(SliceStore::open(dir.path(), CONFIG), Err(OpenError::InUse)));
    store.put(request(lane_key(1), 0..9, 0)).unwrap();
    drop(store);
    let store = SliceStore::open(dir.path(), CONFIG).unwrap();
    (0..9).for_each(|n| assert_here(&store, lane_key(1), n));
}

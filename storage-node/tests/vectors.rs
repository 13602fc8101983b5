//! A store that this version wrote once, kept in `vectors/segment`: every later version must open it.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::{Path, PathBuf};

use tallow_storage_node::store::{
    LaneKey, LaneRow, LaneUpdate, Origin, PutRequest, Slice, SliceState, SliceStore, StoreConfig, root_of,
};
use tallow_types::commit::Leaf;
use tallow_types::{Bytes, ContractId, Epoch, LeafIndex, Lease, SlotIndex, StripeId};

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/segment")
}

fn config() -> StoreConfig {
    StoreConfig { room: Bytes::new(1 << 20), reserve: Bytes::ZERO, segment: Bytes::new(16 << 10) }
}

fn lane() -> LaneKey {
    LaneKey { contract: ContractId::new([0xc0; 32]), slot: SlotIndex::new(3) }
}

/// Slice n has n + 1 KiB, each byte its offset times n + 1, modulo 251.
fn slice(n: u8) -> Slice {
    let length = 1024 * (u32::from(n) + 1);
    let byte = |at: u32| u8::try_from(at * (u32::from(n) + 1) % 251).unwrap();
    let bytes: Vec<u8> = (0..length).map(byte).collect();
    let leaf = Leaf { stripe: StripeId::new([n; 16]), root: root_of(&bytes), length };
    Slice::verify(leaf, bytes.into()).unwrap()
}

fn row() -> LaneRow {
    LaneRow {
        fence: Lease { counter: 7, ..Lease::NONE },
        leaves: LeafIndex::new(3),
        ..LaneRow::new(Origin::Founder, Bytes::new(1 << 20), None)
    }
}

fn write(dir: &Path) {
    let store = SliceStore::open(dir, config()).unwrap();
    let slices = (0..5).map(slice).collect();
    let limit = Bytes::new(1 << 20);
    store.put(PutRequest { lane: lane(), slices, epoch: Epoch::new(2), limit, for_commit: false }).unwrap();
    let appended = (0..3).map(|n| (LeafIndex::new(n.into()), *slice(n).leaf())).collect();
    store.update_lane(LaneUpdate { appended, ..LaneUpdate::row(lane(), row()) }).unwrap();
    drop(store);
    // A new index begins with a MiB of empty pages.
    let mut index = redb::Database::open(dir.join("index.redb")).unwrap();
    while index.compact().unwrap() {}
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn assert_whole(store: &SliceStore, with_index: bool) {
    for n in 0..5 {
        let want = slice(n);
        let key = lane().slice(want.leaf().stripe);
        assert_eq!(root_of(&store.read(&key, 0, want.leaf().length).unwrap()), want.leaf().root);
        let state = match (with_index, n) {
            (false, _) => SliceState::Recovered,
            (true, 0..3) => SliceState::Held,
            (true, _) => SliceState::Loose { since: Epoch::new(2) },
        };
        assert_eq!(store.slice(&key).unwrap().unwrap().state, state);
    }
    let record = store.lane(lane()).unwrap();
    assert_eq!(record.map(|record| (record.row, record.leaves.len())), with_index.then(|| (row(), 3)));
}

/// Goal: an old store opens, with its index and without. Method: open copies of the kept one. `TALLOW_BLESS=1` keeps
/// another if there is none.
#[test]
fn kept_store_opens() {
    if std::env::var_os("TALLOW_BLESS").is_some() && !kept().join("index.redb").exists() {
        std::fs::create_dir_all(kept()).unwrap();
        write(&kept());
    }
    let dir = tempfile::tempdir().unwrap();
    let (whole, bare) = (dir.path().join("whole"), dir.path().join("bare"));
    copy(&kept(), &whole);
    copy(&kept(), &bare);
    assert_whole(&SliceStore::open(&whole, config()).unwrap(), true);
    std::fs::remove_file(bare.join("index.redb")).unwrap();
    assert_whole(&SliceStore::open(&bare, config()).unwrap(), false);
}

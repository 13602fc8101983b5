//! A real process that writes under load is killed at random moments; what it said was durable must be there.

#![allow(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tallow_storage_node::store::{
    LaneKey, LaneRow, LaneUpdate, Origin, PutRequest, Slice, SliceStore, StoreConfig, root_of,
};
use tallow_types::commit::Leaf;
use tallow_types::{Bytes, ContractId, Epoch, LeafIndex, Lease, SlotIndex, StripeId};

/// Set in the process that writes: its folder.
const FOLDER: &str = "TALLOW_KILL_TEST_FOLDER";
/// Set in the process that writes: the first number that it uses.
const FIRST: &str = "TALLOW_KILL_TEST_FIRST";
const WRITERS: u64 = 4;
const ROUNDS: u64 = 6;
/// Numbers that one round may use.
const STRIDE: u64 = 1 << 20;

fn config() -> StoreConfig {
    StoreConfig { room: Bytes::new(1 << 30), reserve: Bytes::new(1 << 20), segment: Bytes::new(1 << 20) }
}

fn lane(writer: u64) -> LaneKey {
    let n = u8::try_from(writer).unwrap();
    LaneKey { contract: ContractId::new([n; 32]), slot: SlotIndex::new(n) }
}

/// The slice of a number: always the same bytes, 1 to 128 KiB.
fn slice(number: u64) -> Slice {
    let kib = 1 << (number % 8);
    let bytes: Vec<u8> = (0..kib * 128).flat_map(|n| (n ^ number.rotate_left(17)).to_le_bytes()).collect();
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&number.to_le_bytes());
    let length = u32::try_from(bytes.len()).unwrap();
    let leaf = Leaf { stripe: StripeId::new(stripe), root: root_of(&bytes), length };
    Slice::verify(leaf, bytes.into()).unwrap()
}

/// Writes until it is killed. Says `put <writer> <number>` after a slice is durable, `fence <writer> <number>` after a
/// promise is.
#[test]
fn child_writes_until_killed() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().unwrap();
    let store = Arc::new(SliceStore::open(Path::new(&folder), config()).unwrap());
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = store.clone();
            scope.spawn(move || {
                for number in (first..).skip(usize::try_from(writer).unwrap()).step_by(4) {
                    let (lane, slice) = (lane(writer), slice(number));
                    let leaf = *slice.leaf();
                    let limit = Bytes::new(1 << 30);
                    store
                        .put(PutRequest {
                            lane,
                            slices: vec![slice],
                            epoch: Epoch::ZERO,
                            limit,
                            for_commit: false,
                        })
                        .unwrap();
                    say(format!("put {writer} {number}"));
                    let fence = Lease { counter: number, ..Lease::NONE };
                    let row = LaneRow { fence, ..LaneRow::new(Origin::Founder, limit, None) };
                    let appended = vec![(LeafIndex::new(number), leaf)];
                    store.update_lane(LaneUpdate { appended, ..LaneUpdate::row(lane, row) }).unwrap();
                    say(format!("fence {writer} {number}"));
                }
            });
        }
    });
}

/// Goal: nothing that a killed process acknowledged is lost. Method: start one, kill it after a number of
/// acknowledgements that differs each time, open what it left, compare; again on the same folder.
#[test]
fn killed_process_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kept, mut fences) = (BTreeSet::new(), [0u64; 4]);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_writes_until_killed", "--nocapture"])
            .env(FOLDER, dir.path())
            .env(FIRST, (1 + round * STRIDE).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 3 + round * round * 7;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<_> = line.split(' ').collect();
            let [what @ ("put" | "fence"), writer, number] = words[..] else { continue };
            let (writer, number): (u64, u64) = (writer.parse().unwrap(), number.parse().unwrap());
            match what {
                "put" => drop(kept.insert((writer, number))),
                _ => fences[usize::try_from(writer).unwrap()] = number,
            }
            // What it says until the kill takes effect counts, too: the pipe is read to its end.
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = SliceStore::open(dir.path(), config()).unwrap();
        for (writer, number) in &kept {
            let want = slice(*number);
            let key = lane(*writer).slice(want.leaf().stripe);
            let bytes = store.read(&key, 0, want.leaf().length).unwrap();
            assert_eq!(root_of(&bytes), want.leaf().root, "slice {number} of writer {writer}");
        }
        for (writer, number) in (0..WRITERS).zip(fences).filter(|(_, number)| *number > 0) {
            let record = store.lane(lane(writer)).unwrap().expect("promised");
            assert!(record.row.fence.counter >= number, "promise {number} of writer {writer}");
        }
    }
    assert!(kept.len() > 100, "only {} slices were written", kept.len());
}

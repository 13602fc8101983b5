//! Gaps, compaction, segments used again, and the scrub.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::index::View;
use super::*;

/// Frees all loose slices that the rule names.
fn free(store: &SliceStore, goes: impl Fn(&SliceKey) -> bool + Send + 'static) -> u64 {
    let rule = move |key: &SliceKey, _| if goes(key) { Verdict::Free } else { Verdict::Keep };
    let freed = store.sweep(usize::MAX, Box::new(rule)).unwrap().slices;
    // A caller is told before dead segments are let go, but these go before the next job is done.
    store.remove_lane(lane_key(99), 1).unwrap();
    freed
}

fn number(key: &SliceKey) -> u64 {
    u64::from_le_bytes(key.stripe.as_bytes()[..8].try_into().unwrap())
}

fn segments(store: &SliceStore) -> Vec<(SegmentId, u64)> {
    let rows = View::open(&store.shared.database).unwrap().segments().unwrap();
    rows.into_iter().map(|(id, row)| (id, row.live)).collect()
}

/// Goal: segments that are mostly dead are emptied, and what lived in them is still there, also after a restart and without
/// the index. Method: free nine of ten slices.
#[test]
fn mostly_dead_segments_go() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    (0..400).step_by(10).for_each(|n| store.put(request(lane, n..n + 10, 0)).unwrap());
    let before = segments(&store).len();
    assert_eq!(free(&store, |key| number(key) % 10 != 3), 360);
    let written = disk.written();
    store.tidy();
    assert!(disk.written() < written / 5, "{} of {written}", disk.written());
    assert!(segments(&store).len() <= before / 5 + 1, "{} of {before}", segments(&store).len());
    let all = |store: &SliceStore| {
        (0..400).filter(|n| n % 10 == 3).for_each(|n| assert_here(store, lane, n));
        assert_eq!(store.usage().unwrap().slices, 40);
        assert_consistent(store);
    };
    all(&store);
    drop(store);
    all(&open(&disk));
    disk.forget_index();
    all(&open(&disk));
}

/// Puts and frees at random, each slice with the same chance, for so many turnovers; answers bytes put and written.
fn churn(store: &SliceStore, kept: u64, turnovers: u64) -> (u64, u64) {
    let lane = lane_key(1);
    let length = |n: u64| u64::from(slice(n).leaf.length);
    (0..kept).step_by(20).for_each(|n| store.put(request(lane, n..n + 20, 0)).unwrap());
    let (before, mut next, mut put) = (store.written().get(), kept, 0);
    for step in 0..8 * turnovers {
        let goes = move |key: &SliceKey| Lot(number(key) ^ (step << 32)).below(8) == 0;
        let freed = free(store, goes);
        for from in (next..next + freed).step_by(20) {
            let numbers = from..(from + 20).min(next + freed);
            put += numbers.clone().map(length).sum::<u64>();
            store.put(request(lane, numbers, 0)).unwrap();
        }
        next += freed;
        store.tidy();
    }
    (put, store.written().get() - before)
}

/// Goal: making room writes no more than the format promises, and leaves no more behind. Method: four turnovers; a disk that
/// takes no holes, where the promise is 2 for both.
#[test]
fn writing_again_is_bounded() {
    let disk = Torn::new();
    let store = open(&disk);
    let (put, written) = churn(&store, 400, 4);
    assert!(written > put && written <= 2 * put, "{written} written for {put}");
    let taken = CONFIG.segment.get() * segments(&store).len() as u64;
    let kept = store.usage().unwrap().bytes().get();
    assert!(taken <= 2 * kept + 4 * CONFIG.segment.get(), "{taken} taken for {kept}");
    assert_consistent(&store);
}

/// Goal: whoever reads while slices are moved gets the right bytes. Method: readers beside a tidy store, on segments that
/// are used again at once.
#[test]
fn reads_go_on_while_records_move() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..40, 0)).unwrap();
    store.update_lane(commit_of(lane, 0..40)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (store, over) = (&store, &over);
            scope.spawn(move || {
                let mut lot = Lot(reader);
                while !over.load(Ordering::Relaxed) {
                    let want = slice(lot.below(40));
                    let length = u32::try_from(1 + lot.below(want.leaf.length.into())).unwrap();
                    let found = store.read(&lane.slice(want.leaf.stripe), 0, length).unwrap();
                    assert_eq!(found, want.bytes.slice(..length as usize));
                }
            });
        }
        for round in 0..30 {
            let first = 1000 + 100 * round;
            store.put(request(lane, first..first + 100, 0)).unwrap();
            assert_eq!(free(&store, |_| true), 100);
            store.tidy();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_consistent(&store);
}

/// Goal: whoever looked a slice up and reads it late gets its bytes, though they were moved and others lie in their place
/// now; and hears when it is gone. Method: do all that in between, on a slice known to be whole.
#[test]
fn late_reads_look_again() {
    let disk = Torn::new();
    let (store, lane) = (Arc::new(open(&disk)), lane_key(1));
    store.put(request(lane, 0..20, 0)).unwrap();
    let want = slice(3);
    let key = lane.slice(want.leaf.stripe);
    let first = store.slice(&key).unwrap().unwrap().place();
    let (other, own) = (store.clone(), disk.clone());
    disk.before_read(move || {
        free(&other, |key| number(key) != 3);
        // The first segment is closed by more slices; what is left of it moves, and its file becomes another's.
        other.put(request(lane, 100..130, 0)).unwrap();
        other.tidy();
        assert!(!own.segments().unwrap().contains(&first.0));
        other.put(request(lane, 130..160, 0)).unwrap();
    });
    assert_eq!(store.read(&key, 0, 700).unwrap(), want.bytes.slice(..700));
    assert_ne!(store.slice(&key).unwrap().unwrap().place(), first);
    let other = store.clone();
    disk.before_read(move || {
        free(&other, |_| true);
        other.tidy();
    });
    assert!(matches!(store.read(&key, 0, 700), Err(ReadError::NotFound)));
}

/// Goal: a dead segment is used again, and nothing of what it held comes back, whatever is lost. Method: fill, free, fill
/// with fewer; then lose the index.
#[test]
fn dead_segments_are_used_again() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..100, 0)).unwrap();
    // Opened again, all segments are closed: none is left with something dead in it.
    drop(store);
    let store = open(&disk);
    let written = disk.written();
    assert_eq!(free(&store, |_| true), 100);
    assert!(!disk.retired().unwrap().is_empty());
    disk.set_free(CONFIG.reserve.get());
    store.put(request(lane, 200..230, 0)).unwrap();
    assert!(disk.written() <= written + 4096 * 30, "no new segment");
    // A crash, so that nobody clears what the dead segment held behind them.
    let disk = disk.after_crash(&mut Lot(7));
    drop(store);
    disk.forget_index();
    let store = open(&disk);
    (200..230).for_each(|n| assert_here(&store, lane, n));
    assert_eq!(store.usage().unwrap().slices, 30);
    assert_consistent(&store);
}

/// Goal: a scrub finds what rotted, in slices and in what names them; the one is marked and can be stored again, the other
/// is mended. Method: flip bytes of both.
#[test]
fn scrub_finds_rot() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..60, 0)).unwrap();
    store.update_lane(commit_of(lane, 0..60)).unwrap();
    assert_eq!((store.scrub().unwrap().slices, store.damaged().unwrap()), (60, 0));
    let row = |store: &SliceStore, n| store.slice(&lane.slice(slice(n).leaf.stripe)).unwrap().unwrap();
    let rotten = [7, 8, 31];
    rotten.iter().for_each(|n| disk.rot(row(&store, *n).segment, row(&store, *n).offset + HEADER + 9));
    disk.rot(row(&store, 20).segment, row(&store, 20).offset + 50);
    let scrubbed = store.scrub().unwrap();
    // What it mended it meets once more, where it lies now.
    assert_eq!((scrubbed.slices, scrubbed.damaged, scrubbed.mended), (61, 3, 1));
    let marked: BTreeSet<_> = store.damaged_of(lane, 10).unwrap().into_iter().collect();
    assert_eq!(marked, rotten.map(|n| slice(n).leaf.stripe).into());
    assert_eq!(store.damaged_of(lane_key(2), 10).unwrap(), []);
    let read = store.read(&lane.slice(slice(7).leaf.stripe), 0, 1);
    assert!(matches!(read, Err(ReadError::Damaged)));
    assert_eq!(store.usage().unwrap().slices, 60, "nothing is deleted");
    let again = store.scrub().unwrap();
    assert_eq!((again.damaged, again.mended), (0, 0), "told once");
    // At its limit a lane can still be mended.
    let limit = store.lane_usage(lane).unwrap().bytes();
    store.put(PutRequest { limit, ..request(lane, rotten, 0) }).unwrap();
    assert_eq!(store.damaged().unwrap(), 0);
    assert_consistent(&store);
    drop(store);
    disk.forget_index();
    let store = open(&disk);
    (0..60).for_each(|n| assert_here(&store, lane, n));
}

/// Goal: damage survives a restart and moving. Method: mark, free what is around it, tidy, open again.
#[test]
fn marks_stay() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..100, 0)).unwrap();
    let key = lane.slice(slice(50).leaf.stripe);
    let place = store.slice(&key).unwrap().unwrap().place();
    disk.rot(place.0, place.1 + HEADER);
    assert_eq!(store.scrub().unwrap().damaged, 1);
    free(&store, move |other| *other != key);
    store.tidy();
    assert_ne!(store.slice(&key).unwrap().unwrap().place(), place, "moved");
    drop(store);
    let store = open(&disk);
    assert_eq!((store.damaged().unwrap(), store.usage().unwrap().slices), (1, 1));
    assert!(matches!(store.read(&key, 0, 1), Err(ReadError::Damaged)));
    assert_eq!(free(&store, |_| true), 1);
    assert_eq!(store.damaged().unwrap(), 0);
}

/// Goal: on a full disk slices that come with a commit still find room, and freeing makes more. Method: no byte above the
/// reserve; then everything is freed.
#[test]
fn full_disk_takes_commits() {
    let disk = Torn::new();
    let (store, lane) = (open(&disk), lane_key(1));
    store.put(request(lane, 0..40, 0)).unwrap();
    store.update_lane(commit_of(lane, 0..10)).unwrap();
    drop(store);
    disk.set_free(CONFIG.reserve.get());
    let store = open(&disk);
    assert!(matches!(store.put(request(lane, 50..52, 0)), Err(WriteError::DiskFull { .. })));
    let small = PutRequest { for_commit: true, ..request(lane, 50..52, 0) };
    let update = LaneUpdate { appended: commit_of(lane, 50..52).appended, ..commit_of(lane, 0..0) };
    store.put_with_lane(small, update).unwrap();
    (50..52).for_each(|n| assert_here(&store, lane, n));
    assert_eq!(
        store.lane_usage(lane).unwrap().loose.get(),
        (10..40).map(|n| u64::from(slice(n).leaf.length)).sum::<u64>()
    );
    // A promise that is refused leaves the slices, in no commit.
    let late = PutRequest { for_commit: true, ..request(lane, 60..61, 0) };
    let refused = store.put_with_lane(late, commit_of(lane, 60..62));
    assert_eq!(refused, Err(WriteError::Missing { missing: 1, first: slice(61).leaf.stripe }));
    assert_here(&store, lane, 60);
    assert_eq!(free(&store, |_| true), 31);
    store.tidy();
    assert!(store.broken().is_none());
    assert_consistent(&store);
}

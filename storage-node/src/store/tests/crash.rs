//! Crashes at every kind of moment, on a disk that loses or tears whatever was not synced.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tallow_types::Lease;

use super::super::torn::Sync;
use super::*;

/// What the store has acknowledged so far.
#[derive(Clone, Default)]
struct Model {
    /// Slices by lane and number, and whether a commit holds them.
    slices: BTreeMap<(u8, u64), bool>,
    rows: BTreeMap<u8, LaneRow>,
    next: u64,
}

/// Makes one random change. `Err` when the power went off in it; the model then has what was acknowledged before.
fn change(store: &SliceStore, model: &mut Model, lot: &mut Lot) -> Result<(), WriteError> {
    let lane = u8::try_from(lot.below(3)).unwrap();
    let key = lane_key(lane);
    match lot.below(13) {
        0..5 => {
            let numbers = model.next..model.next + 1 + lot.below(6);
            model.next = numbers.end;
            store.put(request(key, numbers.clone(), 1))?;
            model.slices.extend(numbers.map(|n| ((lane, n), false)));
        }
        5..8 => {
            let loose = |model: &Model| -> Vec<u64> {
                let of_lane = model.slices.iter().filter(|((of, _), held)| *of == lane && !**held);
                of_lane.map(|((_, n), _)| *n).collect()
            };
            let mut row =
                model.rows.get(&lane).cloned().unwrap_or(LaneRow::new(Origin::Founder, AMPLE, None));
            row.fence = Lease { counter: row.fence.counter + 1, ..row.fence };
            let numbers = loose(model);
            let appended = numbers.iter().map(|n| (LeafIndex::new(*n), slice(*n).leaf)).collect();
            store.update_lane(LaneUpdate { appended, ..LaneUpdate::row(key, row.clone()) })?;
            model.rows.insert(lane, row);
            model.slices.extend(numbers.into_iter().map(|n| ((lane, n), true)));
        }
        10..12 => store.tidy(),
        12 => drop(store.scrub().map_err(|error| WriteError::Broken(error.to_string()))?),
        8 => {
            // What is being freed may be gone or not if the power goes off: it is out of the model before.
            model.slices.retain(|_, held| *held);
            store.sweep(1000, Box::new(|_, state| judge(state, Epoch::new(9), 1, None)))?;
        }
        _ => {
            model.slices.retain(|(of, _), _| *of != lane);
            model.rows.remove(&lane);
            while store.remove_lane(key, 4)?.more {}
        }
    }
    Ok(())
}

/// Everything acknowledged is here.
fn check(store: &SliceStore, model: &Model) {
    for (lane, n) in model.slices.keys() {
        assert_here(store, lane_key(*lane), *n);
    }
    for (lane, row) in model.rows.iter() {
        let found = store.lane(lane_key(*lane)).unwrap().map(|record| record.row);
        // The change that was under way may have become durable; one that was acknowledged may not be gone.
        assert!(found.is_some_and(|found| found.fence >= row.fence), "promise of lane {lane}");
    }
    // A slice that is named but not there would be taken for kept when it is stored again.
    let txn = store.shared.database.begin_write().unwrap();
    let named = |lane| index::Tables::open(&txn).unwrap().slices_of(lane, usize::MAX).unwrap();
    let named: Vec<_> = store.lanes_with_slices().unwrap().into_iter().flat_map(named).collect();
    drop(txn);
    for key in named {
        let length = store.slice(&key).unwrap().unwrap().length;
        store.read(&key, 0, length).expect("what the index names is there");
    }
    assert_consistent(store);
}

/// One disk through several crashes; the power goes off after a random number of operations each time.
fn run(seed: u64, lie: Option<Sync>) {
    let mut lot = Lot(seed);
    let mut disk = Torn::new();
    let mut model = Model::default();
    drop(open(&disk));
    disk.lie(lie);
    for _ in 0..4 {
        let store = open(&disk);
        check(&store, &model);
        disk.power_off_in(lot.below(400));
        while change(&store, &mut model, &mut lot).is_ok() {}
        // The power is off: what the store still does while it closes reaches no disk.
        drop(store);
        disk = disk.after_crash(&mut lot);
        disk.lie(lie);
    }
    check(&open(&disk), &model);
}

/// Goal: nothing acknowledged is lost, whatever a crash does to bytes that were not synced. Method: many disks, each
/// through several crashes at random operations.
#[test]
fn nothing_acknowledged_is_lost() {
    for seed in 0..60 {
        if let Err(panic) = catch_unwind(|| run(seed, None)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Goal: every sync is needed. Method: make each kind a lie, and see the same runs fail.
#[test]
fn every_sync_is_needed() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = [Sync::Segment, Sync::Names, Sync::Index]
        .map(|kind| (0..60).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed, Some(kind)))).is_err()));
    std::panic::set_hook(hook);
    assert_eq!(caught, [true; 3], "segment data, segment names, index");
}

/// Goal: the tests above reach all writes. Method: count the operations that one change takes.
#[test]
fn a_put_syncs_data_names_and_index() {
    let disk = Torn::new();
    let store = open(&disk);
    let before = disk.operations();
    store.put(request(lane_key(1), 0..1, 0)).unwrap();
    // Create, header, record, sync, names, then the index's own writes and sync.
    assert!(disk.operations() - before >= 5 + 2);
}

use tallow_types::codec::{decode, encode};

use super::*;

fn stripe(slots: u8, present: &[u8]) -> StripeRecord {
    let roots = (0..slots).map(|slot| SliceRoot::new([slot; 32])).collect();
    StripeRecord {
        stripe: StripeId::new([1; 16]),
        slice_len: 1024,
        roots: Bounded::new(roots).expect("at most 255"),
        present: present.iter().copied().map(SlotIndex::new).collect(),
    }
}

/// Goal: records come back as written. Method: put, drop and the largest profile.
#[test]
fn round_trip() {
    let changes = RepairChanges::from([
        (LeafIndex::new(0), Some(stripe(12, &[0, 3, 11]))),
        (LeafIndex::new(5), None),
        (LeafIndex::new(9), Some(stripe(255, &[254]))),
    ]);
    for record in RepairRecord::deltas(changes) {
        assert_eq!(decode::<RepairRecord>(&encode(&record)).as_ref(), Ok(&record));
    }
}

/// Goal: what no stripe can be is refused. Method: lengths off the unit or the range, presence without a root.
#[test]
fn stripes_out_of_range() {
    let decodes = |record: StripeRecord| {
        StripeRecord::try_from_slice(&borsh::to_vec(&record).expect("encodes")).is_ok()
    };
    assert!(decodes(stripe(12, &[11])));
    assert!(!decodes(stripe(12, &[12])));
    for slice_len in [0, 1, 1023, 1025, (4 << 20) + 1024, u32::MAX] {
        assert!(!decodes(StripeRecord { slice_len, ..stripe(12, &[]) }), "{slice_len}");
    }
    assert!(decodes(StripeRecord { slice_len: 4 << 20, ..stripe(12, &[]) }));
}

/// Goal: a set of slots is one. Method: insert, remove and list across bytes.
#[test]
fn slot_sets() {
    let mut set = SlotSet::default();
    assert_eq!((set.is_empty(), set.len()), (true, 0));
    for slot in [7, 8, 0, 254, 8] {
        set.insert(SlotIndex::new(slot));
    }
    assert_eq!(set.iter().map(SlotIndex::get).collect::<Vec<_>>(), [0, 7, 8, 254]);
    assert_eq!((set.len(), set.is_empty()), (4, false));
    set.remove(SlotIndex::new(8));
    set.remove(SlotIndex::new(9));
    assert!(!set.contains(SlotIndex::new(8)) && set.contains(SlotIndex::new(7)));
    assert_eq!(stripe(12, &[1, 2]).width(), 2);
    let bytes = borsh::to_vec(&set).expect("encodes");
    assert_eq!((bytes.len(), bytes[0], bytes[31]), (32, 0x81, 0x40));
}

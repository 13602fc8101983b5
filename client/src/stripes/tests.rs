use proptest::prelude::*;

use super::*;

const SLOTS: u8 = 4;

fn profile() -> Profile {
    Profile::from_k_of_n(2, SLOTS).expect("valid")
}

fn row(stripe: u8, present: impl IntoIterator<Item = u8>) -> Row {
    Row {
        stripe: StripeId::new([stripe; 16]),
        slice_len: 1024 * (1 + u32::from(stripe)),
        roots: vec![Some(SliceRoot::new([stripe; 32])); usize::from(SLOTS)],
        present: present.into_iter().map(SlotIndex::new).collect(),
        is_covered: stripe.is_multiple_of(2),
        uses: u64::from(stripe % 3),
    }
}

/// Goal: a repair that comes to nothing leaves no trace in the width, and touches no stripe that has come to a leaf since.
/// Method: mark a slot in two of three rows, replace one, take it back.
#[test]
fn marks_are_taken_back() {
    let all = || 0..SLOTS;
    let mut rows: Stripes = [row(1, 0..2), row(2, all()), row(3, 0..2)].into_iter().map(Some).collect();
    assert_eq!(rows.width(profile()), 2);
    let (two, three) = (SlotIndex::new(2), SlotIndex::new(3));
    let marked = rows.mark_present(two);
    assert_eq!((marked.len(), rows.mark_present(three).len(), rows.width(profile())), (2, 2, SLOTS));
    rows.set(LeafIndex::new(2), Some(row(4, all())));
    rows.unmark_present(two, &marked);
    let present = |leaf| rows.get(LeafIndex::new(leaf)).map(|row| row.present.len());
    assert_eq!([present(0), present(1), present(2)], [Some(3), Some(4), Some(4)]);
}

#[derive(Clone, Debug)]
enum Change {
    Push(u8, u8),
    Drop(u8),
    Set(u8, u8, u8),
    Truncate(u8),
    Mark(u8),
    Cover(u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => (any::<u8>(), 0..=SLOTS).prop_map(|(stripe, width)| Change::Push(stripe, width)),
        1 => (0u8..12).prop_map(Change::Drop),
        2 => (0u8..12, any::<u8>(), 0..=SLOTS).prop_map(|(at, stripe, width)| Change::Set(at, stripe, width)),
        1 => (0u8..12).prop_map(Change::Truncate),
        1 => (0..SLOTS).prop_map(Change::Mark),
        1 => (0u8..12).prop_map(Change::Cover),
    ];
    prop::collection::vec(change, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Goal: what is kept up to date is what a walk over all rows would find, and every row that differs from a copy is
    /// named. Method: random changes; compare with a table made of the same rows afresh, and bring a copy along.
    #[test]
    fn sums_are_those_of_the_rows(changes in changes()) {
        let mut stripes = Stripes::default();
        let mut copy: Vec<Option<Row>> = Vec::new();
        for change in changes {
            let leaf = |at: u8| LeafIndex::new(u64::from(at));
            match change {
                Change::Push(stripe, width) => drop(stripes.push(row(stripe, 0..width))),
                Change::Drop(at) => drop(stripes.set(leaf(at), None)),
                Change::Set(at, stripe, width) => drop(stripes.set(leaf(at), Some(row(stripe, 0..width)))),
                Change::Truncate(at) => {
                    stripes.truncate(leaf(at));
                    copy.truncate(usize::from(at));
                }
                Change::Mark(slot) => drop(stripes.mark_present(SlotIndex::new(slot))),
                Change::Cover(at) => stripes.cover([leaf(at)]),
            }
            let afresh: Stripes = stripes.rows.iter().cloned().collect();
            let without_empty = |sums: &Sums| {
                let mut sums = sums.clone();
                sums.lacking.retain(|_, leaves| !leaves.is_empty());
                sums
            };
            prop_assert_eq!(without_empty(&stripes.sums), without_empty(&afresh.sums));
            copy.resize(stripes.rows.len(), None);
            for leaf in stripes.written() {
                let at = usize::try_from(leaf.get()).expect("small");
                copy[at] = stripes.rows[at].clone();
            }
            prop_assert_eq!(&copy, &stripes.rows);
        }
    }
}

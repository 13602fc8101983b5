use proptest::prelude::*;
use tallow_types::commit::LaneChange;
use tallow_types::{SliceRoot, StripeId};

use super::*;

fn leaf(number: u64) -> Leaf {
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&number.to_le_bytes());
    let root = SliceRoot::new(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let length = SLICE_UNIT * (1 + u32::try_from(number % 4096).expect("small"));
    Leaf { stripe: StripeId::new(stripe), root, length }
}

/// The root as the format page says it, without any of the shortcuts of the tree.
fn naive_root(leaves: &[Option<Leaf>]) -> LaneRoot {
    let mut nodes: Vec<Node> = leaves.iter().map(|leaf| Node::of(leaf.as_ref())).collect();
    nodes.resize(leaves.len().max(1).next_power_of_two(), Node::of(None));
    let mut height = 0u8;
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| Node::join(&pair[0], &pair[1]).expect("small")).collect();
        height += 1;
    }
    LaneRoot::new(domain::LANE_ROOT.hash(&[&[height], &nodes[0].hash, &nodes[0].sum.to_le_bytes()]))
}

fn index(raw: usize) -> LeafIndex {
    LeafIndex::new(raw as u64)
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Extend(Vec<Option<u64>>),
    Clear(prop::sample::Index),
    Set(prop::sample::Index, u64),
    Truncate(prop::sample::Index),
    Change(prop::sample::Index, Vec<prop::sample::Index>, Vec<Option<u64>>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u64>().prop_map(Step::Append),
        2 => prop::collection::vec(any::<Option<u64>>(), 0..20).prop_map(Step::Extend),
        2 => any::<prop::sample::Index>().prop_map(Step::Clear),
        1 => (any::<prop::sample::Index>(), any::<u64>()).prop_map(|(at, number)| Step::Set(at, number)),
        1 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        3 => (
            any::<prop::sample::Index>(),
            prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            prop::collection::vec(any::<Option<u64>>(), 0..20),
        )
            .prop_map(|(keep, dropped, appended)| Step::Change(keep, dropped, appended)),
    ]
}

fn run(tree: &mut SumTree, model: &mut Vec<Option<Leaf>>, step: Step) {
    match step {
        Step::Append(number) => {
            assert_eq!(tree.append(Some(&leaf(number))), Ok(index(model.len())));
            model.push(Some(leaf(number)));
        }
        Step::Extend(numbers) => {
            let leaves: Vec<_> = numbers.into_iter().map(|number| number.map(leaf)).collect();
            tree.extend(leaves.iter().map(Option::as_ref)).expect("good lengths");
            model.extend(leaves);
        }
        Step::Clear(at) if !model.is_empty() => {
            let at = at.index(model.len());
            tree.clear(index(at)).expect("a leaf of it");
            model[at] = None;
        }
        Step::Set(at, number) if !model.is_empty() => {
            let at = at.index(model.len());
            tree.set(index(at), &leaf(number)).expect("a leaf of it");
            model[at] = Some(leaf(number));
        }
        Step::Truncate(to) => {
            let to = to.index(model.len() + 1);
            tree.truncate(index(to)).expect("no more than it has");
            model.truncate(to);
        }
        Step::Change(keep, dropped, appended) => {
            let keep = keep.index(model.len() + 1);
            let dropped = if keep == 0 { Vec::new() } else { dropped };
            let dropped: Vec<_> = dropped.into_iter().map(|at| at.index(keep)).collect();
            let appended: Vec<_> = appended.into_iter().map(|number| number.map(leaf)).collect();
            let places: Vec<_> = dropped.iter().map(|at| index(*at)).collect();
            let changed = tree.change(index(keep), &places, &appended).expect("leaves of it, good lengths");
            tree.accept(changed);
            model.truncate(keep);
            dropped.into_iter().for_each(|at| model[at] = None);
            model.extend(appended);
        }
        Step::Clear(_) | Step::Set(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Goal: however a lane got there, its root is that of its leaves. Method: random changes, against a recomputation.
    #[test]
    fn root_is_a_function_of_the_leaves(steps in prop::collection::vec(step(), 1..40)) {
        let (mut tree, mut model) = (SumTree::new(), Vec::new());
        for step in steps {
            run(&mut tree, &mut model, step);
            prop_assert_eq!(tree.root(), naive_root(&model));
            let bytes: u64 = model.iter().flatten().map(|leaf| u64::from(leaf.length)).sum();
            prop_assert_eq!(tree.bytes(), Bytes::new(bytes));
            prop_assert_eq!(tree.len(), index(model.len()));
        }
        prop_assert_eq!(SumTree::from_leaves(model.iter().map(Option::as_ref)), Ok(tree));
    }

    /// Goal: a path shows its leaf at its place and nothing else. Method: prove each leaf of a random lane, then lie
    /// about leaf, index, number of leaves, root and siblings in turn.
    #[test]
    fn paths_show_one_thing(
        numbers in prop::collection::vec(any::<Option<u64>>(), 1..70),
        at in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let model: Vec<_> = numbers.into_iter().map(|number| number.map(leaf)).collect();
        let tree = SumTree::from_leaves(model.iter().map(Option::as_ref)).expect("good lengths");
        let (root, len, i) = (tree.root(), tree.len(), at.index(model.len()));
        let (truth, path) = (model[i].as_ref(), tree.prove(index(i)).expect("a leaf of it"));
        let before: u64 = model[..i].iter().flatten().map(|leaf| u64::from(leaf.length)).sum();
        prop_assert_eq!(verify_leaf(&root, len, index(i), truth, &path), Ok(Bytes::new(before)));
        let lie = truth.map_or(Some(leaf(1)), |_| None);
        prop_assert!(verify_leaf(&root, len, index(i), lie.as_ref(), &path).is_err());
        prop_assert!(verify_leaf(&LaneRoot::ZERO, len, index(i), truth, &path).is_err());
        prop_assert!(verify_leaf(&root, index(2 * model.len() + 1), index(i), truth, &path).is_err());
        prop_assert!(verify_leaf(&root, len, len, truth, &path).is_err());
        if let Some(leaf) = truth {
            let mut other = *leaf;
            other.length ^= SLICE_UNIT;
            prop_assert!(verify_leaf(&root, len, index(i), Some(&other), &path).is_err());
        }
        if !path.siblings.is_empty() {
            let (mut forged, s) = (path.clone(), flip.index(path.siblings.len()));
            forged.siblings[s].sum ^= 1;
            prop_assert!(verify_leaf(&root, len, index(i), truth, &forged).is_err());
            let mut siblings = path.siblings.clone().into_vec();
            siblings.pop();
            let short = Path { siblings: Bounded::new(siblings).expect("shorter") };
            prop_assert!(verify_leaf(&root, len, index(i), truth, &short).is_err());
        }
        let mut siblings = path.siblings.into_vec();
        siblings.push(Node::of(None));
        let long = Path { siblings: Bounded::new(siblings).expect("one more") };
        prop_assert!(verify_leaf(&root, len, index(i), truth, &long).is_err());
    }

    /// Goal: a byte offset leads to one place. Method: against a walk along the slices; then ask with a neighbour's leaf.
    #[test]
    fn offsets_lead_to_one_slice(
        numbers in prop::collection::vec(any::<Option<u64>>(), 1..50),
        at in any::<prop::sample::Index>(),
    ) {
        let model: Vec<_> = numbers.into_iter().map(|number| number.map(leaf)).collect();
        let tree = SumTree::from_leaves(model.iter().map(Option::as_ref)).expect("good lengths");
        let total = tree.bytes().get();
        prop_assert_eq!(tree.locate(Bytes::new(total)), None);
        if total == 0 {
            return Ok(());
        }
        let offset = at.index(usize::try_from(total).expect("small")) as u64;
        let mut rest = offset;
        let walked = model.iter().enumerate().find_map(|(i, leaf)| {
            let length = leaf.map_or(0, |leaf| u64::from(leaf.length));
            if rest < length {
                return Some((index(i), u32::try_from(rest).expect("inside a slice")));
            }
            rest -= length;
            None
        });
        let found = tree.locate(Bytes::new(offset));
        prop_assert_eq!(found, walked);
        let (i, inside) = found.expect("inside the lane");
        let held = model[usize::try_from(i.get()).expect("small")].expect("not empty");
        let path = tree.prove(i).expect("a leaf of it");
        let (root, len) = (tree.root(), tree.len());
        prop_assert_eq!(verify_offset(&root, len, Bytes::new(offset), (i, &held), &path), Ok(inside));
        let behind = Bytes::new(offset - u64::from(inside) + u64::from(held.length));
        prop_assert!(verify_offset(&root, len, behind, (i, &held), &path).is_err());
        if let Some(ahead) = (offset - u64::from(inside)).checked_sub(1) {
            prop_assert!(verify_offset(&root, len, Bytes::new(ahead), (i, &held), &path).is_err());
        }
    }

    /// Goal: a change applies whole or not at all. Method: random changes, good and bad, against the leaf list.
    #[test]
    fn changes_apply_whole(
        leaves in 0usize..40, keep in 0u64..42,
        dropped in prop::collection::vec(0u64..45, 0..5),
        appended in prop::collection::vec(prop::option::of(any::<u64>()), 0..40),
        bad_length in prop::bool::weighted(0.1),
    ) {
        let mut model: Vec<_> = (0..leaves as u64).map(|number| Some(leaf(number))).collect();
        let mut tree = SumTree::from_leaves(model.iter().map(Option::as_ref)).expect("good lengths");
        let before = tree.clone();
        let mut added: Vec<Option<Leaf>> = appended.into_iter().map(|number| number.map(leaf)).collect();
        let spoiled = added.iter_mut().flatten().next_back().filter(|_| bad_length);
        let bad_length = spoiled.is_some();
        if let Some(last) = spoiled {
            last.length += 1;
        }
        let bad = bad_length
            || keep > leaves as u64
            || dropped.iter().any(|&at| at >= keep);
        let change = LaneChange {
            keep: LeafIndex::new(keep),
            dropped: Bounded::new(dropped.iter().copied().map(LeafIndex::new).collect()).expect("few"),
            appended: Bounded::new(added.clone()).expect("few"),
        };
        let tried = tree.change(change.keep, &change.dropped, &change.appended);
        prop_assert_eq!(&tree, &before);
        prop_assert_eq!(tree.apply(&change).is_err(), bad);
        prop_assert_eq!(tried.is_err(), bad);
        if bad {
            prop_assert_eq!(tree, before);
        } else {
            let tried = tried.expect("not bad");
            prop_assert_eq!((tried.root(), tried.bytes(), tried.len()), (tree.root(), tree.bytes(), tree.len()));
            model.truncate(usize::try_from(keep).expect("small"));
            dropped.iter().for_each(|&at| model[usize::try_from(at).expect("small")] = None);
            model.extend(added);
            prop_assert_eq!(tree.root(), naive_root(&model));
            prop_assert_eq!(SumTree::from_leaves(model.iter().map(Option::as_ref)), Ok(tree));
        }
    }
}

/// Goal: the format never changes. Method: golden roots of lanes of many sizes, with and without empty leaves.
#[test]
fn golden_roots() {
    let mut lines = Vec::new();
    for size in [0u64, 1, 2, 3, 4, 5, 8, 9, 100, 1000] {
        let mut leaves: Vec<_> = (0..size).map(|number| Some(leaf(number))).collect();
        let full = naive_root(&leaves);
        leaves.iter_mut().step_by(3).for_each(|leaf| *leaf = None);
        let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref)).expect("good lengths");
        lines.push(format!("{size} {full} {} {}", tree.root(), tree.bytes()));
    }
    let golden = include_str!("../../../vectors/lane/roots.txt");
    let expected: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, expected);
}

/// Goal: every limit refuses one more. Method: lengths and indices at and beyond the edge.
#[test]
fn limits_refuse_one_more() {
    let mut tree = SumTree::new();
    let with_length = |length| Leaf { length, ..leaf(0) };
    for length in [0, 1, SLICE_UNIT - 1, SLICE_UNIT + 1, SLICE_MAX + SLICE_UNIT, u32::MAX] {
        assert_eq!(tree.append(Some(&with_length(length))), Err(LaneError::Length { length }));
    }
    assert!(tree.is_empty() && tree.root() == empty_root());
    tree.append(Some(&with_length(SLICE_MAX))).expect("the largest slice");
    let no_leaf = LaneError::NoLeaf { index: LeafIndex::new(1), leaves: LeafIndex::new(1) };
    assert_eq!(tree.clear(LeafIndex::new(1)), Err(no_leaf));
    assert_eq!(tree.prove(LeafIndex::new(1)), Err(no_leaf));
    assert!(tree.truncate(LeafIndex::new(2)).is_err());
    let path = tree.prove(LeafIndex::ZERO).expect("its leaf");
    let too_many = LeafIndex::new(LANE_LEAVES_MAX + 1);
    let full = with_length(SLICE_MAX);
    assert!(verify_leaf(&tree.root(), too_many, LeafIndex::ZERO, Some(&full), &path).is_err());
}

/// Goal: forged sums can't wrap around. Method: a sibling that says it holds 2^64 - 1 bytes.
#[test]
fn sums_never_wrap() {
    let tree = SumTree::from_leaves([Some(&leaf(1)), Some(&leaf(2))]).expect("good lengths");
    let mut path = tree.prove(LeafIndex::new(1)).expect("its leaf");
    path.siblings[0].sum = u64::MAX;
    assert!(verify_leaf(&tree.root(), tree.len(), LeafIndex::new(1), Some(&leaf(2)), &path).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Goal: a path from outside never makes the verifier panic or believe. Method: random bytes as an encoded path, for
    /// random numbers of leaves.
    #[test]
    fn paths_of_random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        siblings in 0u32..60,
        leaves in any::<u64>(),
        at in any::<u64>(),
    ) {
        let mut encoded = siblings.to_le_bytes().to_vec();
        encoded.extend(bytes);
        encoded.truncate(4 + 40 * siblings as usize);
        let path = borsh::from_slice::<Path>(&encoded);
        if siblings as usize > HEIGHT_MAX {
            prop_assert!(path.is_err(), "one more sibling than a tree has levels");
        }
        let path = path.unwrap_or(Path { siblings: Bounded::empty() });
        let shown = verify_leaf(&LaneRoot::ZERO, LeafIndex::new(leaves), LeafIndex::new(at), Some(&leaf(1)), &path);
        prop_assert!(shown.is_err());
        let offset = verify_offset(
            &LaneRoot::ZERO, LeafIndex::new(leaves), Bytes::new(at), (LeafIndex::new(at % leaves.max(1)), &leaf(1)), &path,
        );
        prop_assert!(offset.is_err());
    }
}

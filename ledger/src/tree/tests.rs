use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::state::apply;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store of nodes that drops what is stale at once.
#[derive(Default)]
struct Store {
    nodes: Map,
    records: Map,
    root: Option<StateRoot>,
}

impl Store {
    fn write(&mut self, height: u64, writes: &Writes) {
        let (root, change) = update(&self.nodes, Height::new(height), writes).expect("nodes are there");
        for (key, node) in change.nodes {
            assert_eq!(self.nodes.insert(key, node), None, "node keys are never used twice");
        }
        for key in change.stale {
            assert!(self.nodes.remove(&key).is_some(), "what is stale was there");
        }
        apply(&mut self.records, writes);
        self.root = Some(root);
    }
}

fn writes() -> impl Strategy<Value = Writes> {
    let key = proptest::collection::vec(0..6u8, 1..3);
    proptest::collection::btree_map(key, proptest::option::of(any::<[u8; 2]>().prop_map(Vec::from)), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: the root is a function of the records alone, stale nodes are never needed again, and every proof says the
    /// truth and nothing else. Method: random blocks of writes; prune at once; rebuild from records; prove every key.
    #[test]
    fn tree_follows_records(blocks in proptest::collection::vec(writes(), 1..8)) {
        let mut store = Store::default();
        for (height, writes) in (0u64..).zip(&blocks) {
            store.write(height, writes);
        }
        let height = Height::new(blocks.len() as u64 - 1);
        let root = store.root.expect("written");
        prop_assert_eq!(super::root(&store.nodes, height), Ok(root));
        let (rebuilt, fresh) = rebuild(height, store.records.clone()).expect("rebuilds");
        prop_assert_eq!(rebuilt, root);
        let fresh: Map = fresh.nodes.into_iter().collect();
        for key in blocks.iter().flat_map(BTreeMap::keys) {
            let value = store.records.get(key).map(Vec::as_slice);
            let proof = prove(&store.nodes, height, key).expect("proves");
            prop_assert_eq!(&proof, &prove(&fresh, height, key).expect("proves"));
            prop_assert_eq!(verify(&root, key, value, &proof), Ok(()));
            let lie = if value.is_some() { None } else { Some(&b"x"[..]) };
            prop_assert_eq!(verify(&root, key, lie, &proof), Err(ProofError::Wrong));
            prop_assert_eq!(verify(&root, key, Some(b"other"), &proof), Err(ProofError::Wrong));
            prop_assert_eq!(verify(&StateRoot::ZERO, key, value, &proof), Err(ProofError::Wrong));
        }
    }

    /// Goal: no bytes from outside make the verifier panic or believe. Method: random bytes, and a proof with one
    /// byte changed.
    #[test]
    fn forged_proofs_fail(noise in proptest::collection::vec(any::<u8>(), 0..400), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut store = Store::default();
        let records = (0..40u8).map(|n| (vec![n], Some(vec![n, 1])));
        store.write(0, &records.collect());
        let root = store.root.expect("written");
        let noise = StateProof::new(noise).expect("fits");
        prop_assert!(verify(&root, b"\x05", Some(&[5, 1]), &noise).is_err());
        let mut proof = prove(&store.nodes, Height::ZERO, b"\x05").expect("proves");
        let at = at.index(proof.len());
        proof[at] ^= 1 << bit;
        prop_assert!(verify(&root, b"\x05", Some(&[5, 1]), &proof).is_err());
    }
}

/// Goal: a missing node is an error of the store, not a panic or another root. Method: ask an empty store.
#[test]
fn missing_nodes_are_reported() {
    let nodes = Map::new();
    let writes = Writes::from([(b"k".to_vec(), Some(b"v".to_vec()))]);
    assert!(update(&nodes, Height::new(5), &writes).is_err());
    assert!(root(&nodes, Height::new(5)).is_err() && prove(&nodes, Height::new(5), b"k").is_err());
}

use proptest::prelude::*;
use tallow_types::unit::{Incarnation, LeafIndex, Lease, Sequence};

use super::*;
use crate::chunk::ChunkId;
use crate::keys::{ContractKeys, Seed};

const PLACE: Place = place(8, 0, 3, 5);

const fn place(contract: u8, incarnation: u32, counter: u64, sequence: u64) -> Place {
    let lease = Lease { incarnation: Incarnation::new(incarnation), counter };
    let rank = Rank { lease, sequence: Sequence::new(sequence) };
    Place { contract: ContractId::new([contract; 32]), rank }
}

fn keys(fill: u8) -> ContractKeys {
    Seed::new(Zeroizing::new([fill; 64])).contract(0, 0)
}

fn head(offset: u32) -> HeadRef {
    let id = ChunkId::new([1; 32]);
    let chunk = ChunkRef { id, leaf: LeafIndex::new(2), offset, sealed_len: 100, plain_len: 60 };
    HeadRef { chunk, stripe: StripeId::new([3; 16]), slice_len: 4096 }
}

/// Goal: what was sealed opens, at a length that tells nothing and fits a commit. Method: both kinds.
#[test]
fn round_trip() {
    let keys = keys(1);
    for (which, keys) in [(Which::Catalog, &keys.catalog), (Which::Repair, &keys.repair)] {
        for head in [Some(head(0)), Some(head(77)), Some(head(1 << 30)), None] {
            let sealed = seal_head(keys, which, &PLACE, head.as_ref());
            assert_eq!(sealed.len(), HEAD_LEN);
            assert_eq!(open_head(keys, which, &PLACE, &sealed), Ok(head));
        }
    }
}

/// Goal: a wrong key is told apart from damage. Method: other keys, and each byte changed.
#[test]
fn wrong_key_is_not_damage() {
    let mine = keys(1);
    let good = seal_head(&mine.catalog, Which::Catalog, &PLACE, Some(&head(0))).into_vec();
    for other in [&keys(2).catalog, &mine.repair] {
        assert_eq!(open_head(other, Which::Catalog, &PLACE, &good), Err(HeadError::WrongKey));
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let expected = match at {
            0 | 1 => HeadError::NotAHead,
            2 => HeadError::UnknownVersion { found: VERSION ^ 1 },
            3..PREFIX_LEN => HeadError::WrongKey,
            _ => HeadError::Damaged,
        };
        assert_eq!(open_head(&mine.catalog, Which::Catalog, &PLACE, &bad), Err(expected), "byte {at}");
    }
    for len in 0..good.len() {
        assert_eq!(open_head(&mine.catalog, Which::Catalog, &PLACE, &good[..len]), Err(HeadError::NotAHead));
    }
}

/// Goal: a head counts for its commit and kind only, one without a record, too. Method: move it to another contract,
/// incarnation, lease, sequence and kind.
#[test]
fn heads_are_bound_to_their_place() {
    let mine = keys(1).catalog;
    for head in [Some(head(0)), None] {
        let sealed = seal_head(&mine, Which::Catalog, &PLACE, head.as_ref());
        for elsewhere in [place(9, 0, 3, 5), place(8, 1, 3, 5), place(8, 0, 4, 5), place(8, 0, 3, 6)] {
            assert_eq!(open_head(&mine, Which::Catalog, &elsewhere, &sealed), Err(HeadError::Damaged));
        }
        assert_eq!(open_head(&mine, Which::Repair, &PLACE, &sealed), Err(HeadError::Damaged));
    }
}

/// Goal: no two messages share a nonce: not two heads, nor one head for two commits. Method: compare nonces.
#[test]
fn nonces_follow_the_whole_message() {
    let mine = keys(1).catalog;
    let nonce = |place: Place, offset| {
        let sealed = seal_head(&mine, Which::Catalog, &place, Some(&head(offset)));
        sealed[PREFIX_LEN..PREFIX_LEN + NONCE_LEN].to_vec()
    };
    assert_ne!(nonce(PLACE, 0), nonce(PLACE, 1));
    assert_ne!(nonce(PLACE, 0), nonce(place(2, 0, 3, 5), 0));
    assert_ne!(nonce(PLACE, 0), nonce(place(8, 0, 3, 6), 0));
    assert_eq!(nonce(PLACE, 0), nonce(PLACE, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Goal: no bytes panic. Method: random ones behind a right beginning.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix_len in 0..20_usize) {
        let keys = keys(1).catalog;
        let mut input = prefix(keys.check())[..prefix_len.min(PREFIX_LEN)].to_vec();
        input.extend_from_slice(&bytes);
        prop_assert!(open_head(&keys, Which::Catalog, &PLACE, &input).is_err());
        let _ = HeadRef::try_from_slice(&bytes);
    }
}

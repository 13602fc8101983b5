use proptest::prelude::*;
use tallow_types::unit::LeafIndex;

use super::*;
use crate::chunk::ChunkId;
use crate::keys::{ContractKeys, Seed};

const CONTRACT: ContractId = ContractId::new([8; 32]);

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
        for offset in [0, 77, 1 << 30] {
            let sealed = seal_head(keys, which, &CONTRACT, &head(offset));
            assert_eq!(sealed.len(), HEAD_LEN);
            assert_eq!(open_head(keys, which, &CONTRACT, &sealed), Ok(head(offset)));
        }
    }
}

/// Goal: a wrong key is told apart from damage. Method: other keys, and each byte changed.
#[test]
fn wrong_key_is_not_damage() {
    let mine = keys(1);
    let good = seal_head(&mine.catalog, Which::Catalog, &CONTRACT, &head(0)).into_vec();
    for other in [&keys(2).catalog, &mine.repair] {
        assert_eq!(open_head(other, Which::Catalog, &CONTRACT, &good), Err(HeadError::WrongKey));
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
        assert_eq!(open_head(&mine.catalog, Which::Catalog, &CONTRACT, &bad), Err(expected), "byte {at}");
    }
    for len in 0..good.len() {
        assert_eq!(
            open_head(&mine.catalog, Which::Catalog, &CONTRACT, &good[..len]),
            Err(HeadError::NotAHead)
        );
    }
}

/// Goal: a head counts for its contract and kind only. Method: move it.
#[test]
fn heads_are_bound_to_their_place() {
    let mine = keys(1).catalog;
    let sealed = seal_head(&mine, Which::Catalog, &CONTRACT, &head(0));
    let elsewhere = ContractId::new([9; 32]);
    assert_eq!(open_head(&mine, Which::Catalog, &elsewhere, &sealed), Err(HeadError::Damaged));
    assert_eq!(open_head(&mine, Which::Repair, &CONTRACT, &sealed), Err(HeadError::Damaged));
}

/// Goal: no two messages share a nonce: not two heads, nor one head for two contracts. Method: compare nonces.
#[test]
fn nonces_follow_the_whole_message() {
    let mine = keys(1).catalog;
    let nonce = |contract: u8, offset| {
        let contract = ContractId::new([contract; 32]);
        seal_head(&mine, Which::Catalog, &contract, &head(offset))[PREFIX_LEN..PREFIX_LEN + NONCE_LEN]
            .to_vec()
    };
    assert_ne!(nonce(1, 0), nonce(1, 1));
    assert_ne!(nonce(1, 0), nonce(2, 0));
    assert_eq!(nonce(1, 0), nonce(1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Goal: no bytes panic. Method: random ones behind a right beginning.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), prefix_len in 0..20_usize) {
        let keys = keys(1).catalog;
        let mut input = prefix(keys.check())[..prefix_len.min(PREFIX_LEN)].to_vec();
        input.extend_from_slice(&bytes);
        prop_assert!(open_head(&keys, Which::Catalog, &CONTRACT, &input).is_err());
        let _ = HeadRef::try_from_slice(&bytes);
    }
}

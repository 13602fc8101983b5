use proptest::prelude::*;

use super::*;

fn secret(fill: u8) -> MaskSecret {
    MaskSecret::new(Zeroizing::new([fill; 32]))
}

fn keystream(secret: u8, stripe: u8, slot: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mask = self::secret(secret).stripe(&StripeId::new([stripe; 16]));
    mask.apply(SlotIndex::new(slot), 0, &mut bytes);
    bytes
}

/// Goal: the keystream is the documented one. Method: derive it here step by step.
#[test]
fn keystream_is_the_documented_one() {
    let stripe = domain::MASK_STRIPE.hash(&[&[5; 32], &[6; 16]]);
    let slice = domain::MASK_SLICE.hash(&[&stripe, &[7]]);
    let mut expected = vec![0; 10_000];
    blake3::Hasher::new_keyed(&slice).finalize_xof().fill(&mut expected);
    assert_eq!(keystream(5, 6, 7, 10_000), expected);
}

/// Goal: no two slices share a keystream. Method: change secret, stripe and slot one at a time.
#[test]
fn keystreams_are_distinct() {
    let mut all = vec![keystream(1, 1, 1, 64), keystream(2, 1, 1, 64), keystream(1, 2, 1, 64)];
    all.extend((2..=255).map(|slot| keystream(1, 1, slot, 64)));
    all.push(keystream(1, 1, 0, 64));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: masking twice is nothing, and a range is masked as in the whole. Method: random cuts.
    #[test]
    fn involution_and_seek(len in 1_usize..20_000, cut in any::<(u16, u16)>(), plain in any::<u8>()) {
        let mask = secret(3).stripe(&StripeId::new([4; 16]));
        let slot = SlotIndex::new(9);
        let mut whole = vec![plain; len];
        mask.apply(slot, 0, &mut whole);
        let begin = usize::from(cut.0) % len;
        let end = begin + usize::from(cut.1) % (len - begin + 1);
        let mut range = vec![plain; end - begin];
        mask.apply(slot, u32::try_from(begin).expect("short"), &mut range);
        prop_assert_eq!(&range[..], &whole[begin..end]);
        mask.apply(slot, 0, &mut whole);
        prop_assert!(whole.iter().all(|byte| *byte == plain));
    }
}

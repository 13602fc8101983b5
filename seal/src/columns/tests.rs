#![allow(clippy::cast_possible_truncation, reason = "test patterns")]

use proptest::prelude::*;
use tallow_types::id::{ContractId, StripeId};
use tallow_types::profile::Profile;

use super::*;
use crate::attempt::StripeAttempt;
use crate::keys::MaskSecret;
use crate::stripe::Stripe;

const ID: StripeId = StripeId::new([2; 16]);

fn secret() -> MaskSecret {
    MaskSecret::new([3; 32].into())
}

/// A stripe's stream and its masked slices.
fn stored(profile: Profile, len: usize) -> (Layout, Vec<u8>, Vec<Vec<u8>>) {
    let mut stream = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut stream);
    let stripe = Stripe::new(profile, stream.clone()).expect("fits");
    let attempt = StripeAttempt::begin(ContractId::ZERO, ID, &stripe);
    let permit = attempt.permit(&stripe).expect("its own");
    let mut out = vec![0; permit.room()];
    let codec = tallow_erasure::codec(profile);
    permit.code(&secret(), &mut out, |data, parity| codec.encode(data, parity)).expect("codes");
    let slice_len = stripe.layout().slice_len() as usize;
    (stripe.layout(), stream, out.chunks(slice_len).map(<[u8]>::to_vec).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Goal: any range of the stream lies in the rows that any k slots give. Method: random stripes, ranges and slots; the
    /// slots in any order.
    #[test]
    fn any_k_slots_give_the_rows(
        (k, parity) in (1_u8..6, 1_u8..5),
        len in 1_usize..600_000,
        cut in any::<(u32, u32)>(),
        order in any::<[u64; 10]>(),
    ) {
        let profile = Profile::from_k_of_n(k, k + parity).expect("in range");
        let (layout, stream, slices) = stored(profile, len);
        let begin = cut.0 as usize % len;
        let end = begin + 1 + cut.1 as usize % (len - begin);
        let columns = layout.columns(begin as u32, (end - begin) as u32).expect("inside");
        let mut slots: Vec<SlotIndex> = profile.slot_indices().collect();
        slots.sort_by_key(|slot| order[usize::from(slot.get()) % order.len()]);
        let range = columns.offset() as usize..(columns.offset() + columns.len()) as usize;
        let given: Vec<(SlotIndex, &[u8])> = slots
            .iter()
            .take(usize::from(k))
            .map(|slot| (*slot, &slices[usize::from(slot.get())][range.clone()]))
            .collect();
        let codec = tallow_erasure::codec(profile);
        let mask = secret().stripe(&ID);
        let rows = columns
            .restore(&given, &mask, |present, wanted, out| codec.recreate(present, wanted, out))
            .expect("k columns");
        let skip = begin - columns.begin() as usize;
        prop_assert_eq!(&rows[skip..skip + end - begin], &stream[begin..end]);
    }
}

/// Goal: columns that are not those asked for are refused. Method: one too few, one too many, one twice, one short; and a
/// code that fails.
#[test]
fn other_columns_are_refused() {
    let profile = Profile::from_k_of_n(2, 4).expect("in range");
    let (layout, _, slices) = stored(profile, 100_000);
    let columns = layout.columns(0, 100_000).expect("inside");
    let column = |slot: u8, len: usize| (SlotIndex::new(slot), &slices[usize::from(slot)][..len]);
    let len = columns.len() as usize;
    let restore = |given: &[(SlotIndex, &[u8])]| {
        columns.restore(given, &secret().stripe(&ID), |_, _, _| Err("broken")).map(|rows| rows.len())
    };
    assert_eq!(restore(&[column(0, len), column(1, len)]), Ok(2 * len));
    assert_eq!(restore(&[column(0, len)]), Err(ColumnsError::Count { expected: 2, found: 1 }));
    let three = [column(0, len), column(1, len), column(2, len)];
    assert_eq!(restore(&three), Err(ColumnsError::Count { expected: 2, found: 3 }));
    let twice = [column(0, len), column(0, len)];
    assert_eq!(restore(&twice), Err(ColumnsError::Count { expected: 2, found: 1 }));
    let short = ColumnsError::Length { slot: SlotIndex::new(1), expected: columns.len(), found: len - 1 };
    assert_eq!(restore(&[column(0, len), column(1, len - 1)]), Err(short));
    assert_eq!(restore(&[column(0, len), column(2, len)]), Err(ColumnsError::Recreate("broken")));
}

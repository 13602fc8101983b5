use tallow_types::codec::{decode, encode};
use tallow_types::profile::Profile;
use zeroize::Zeroizing;

use super::*;

const CONTRACT: ContractId = ContractId::new([1; 32]);
const ID: StripeId = StripeId::new([2; 16]);

fn stripe(fill: u8, len: usize) -> Stripe {
    let profile = Profile::from_k_of_n(2, 3).expect("in range");
    Stripe::new(profile, vec![fill; len]).expect("fits")
}

fn secret() -> MaskSecret {
    MaskSecret::new(Zeroizing::new([3; 32]))
}

/// The slices of a stripe, with something in the place of parity.
fn slices(stripe: &Stripe) -> Vec<Vec<u8>> {
    let mut slices = stripe.data_slices();
    slices.push(vec![0x77; slices[0].len()]);
    slices
}

/// Goal: a stripe that replays byte for byte may be coded again, any other is abandoned. Method: journal an attempt,
/// read it back, replay it, and offer every kind of other content.
#[test]
fn only_a_replay_is_permitted() {
    let first = stripe(7, 3000);
    let journal = encode(&StripeAttempt::begin(CONTRACT, ID, &first));
    let attempt: StripeAttempt = decode(&journal).expect("as written");
    let replay = stripe(7, 3000);
    assert!(attempt.permit(&replay).is_ok_and(|permit| permit.stripe() == ID));
    for other in [stripe(8, 3000), stripe(7, 2999), stripe(7, 5000)] {
        assert!(matches!(attempt.permit(&other), Err(Abandoned { stripe: ID })));
    }
    let wider = Profile::from_k_of_n(2, 4).expect("in range");
    let same_stream = Stripe::new(wider, vec![7; 3000]).expect("fits");
    assert!(attempt.permit(&same_stream).is_err());
}

/// Goal: masking gives the bytes that seeders store, with their roots. Method: unmask each slice and hash it here.
#[test]
fn masked_slices_unmask() {
    let stripe = stripe(7, 3000);
    let attempt = StripeAttempt::begin(CONTRACT, ID, &stripe);
    let plain = slices(&stripe);
    let mut masked = plain.clone();
    let roots = attempt.permit(&stripe).expect("its own").mask(&secret(), &mut masked).expect("its slices");
    assert_eq!(roots.len(), 3);
    let mask = secret().stripe(&ID);
    for (slot, ((plain, masked), root)) in (0..).zip(plain.iter().zip(&mut masked).zip(roots)) {
        assert_ne!(plain, masked);
        assert_eq!(root.as_bytes(), blake3::hash(masked).as_bytes());
        mask.apply(SlotIndex::new(slot), 0, masked);
        assert_eq!(plain, masked);
    }
}

/// Goal: a permit masks the slices of its stripe and no others, or the rule would be void. Method: change a count, a
/// length, a data byte, and a byte of the padding.
#[test]
fn other_slices_are_refused() {
    let stripe = stripe(7, 3000);
    let attempt = StripeAttempt::begin(CONTRACT, ID, &stripe);
    let permit = attempt.permit(&stripe).expect("its own");
    let mask = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut slices = slices(&stripe);
        change(&mut slices);
        permit.mask(&secret(), &mut slices)
    };
    let slice = |slot| Err(MaskError::Slice { slot: SlotIndex::new(slot) });
    assert!(mask(&|_| {}).is_ok());
    assert!(mask(&|slices| slices[2][5] = 0).is_ok(), "parity is the code's word");
    assert_eq!(mask(&|slices| drop(slices.pop())), Err(MaskError::Count { expected: 3, found: 2 }));
    assert_eq!(mask(&|slices| slices.push(vec![])), Err(MaskError::Count { expected: 3, found: 4 }));
    assert_eq!(mask(&|slices| slices[2].truncate(5)), slice(2));
    assert_eq!(mask(&|slices| slices[0][0] = 0), slice(0));
    assert_eq!(mask(&|slices| slices[1][951] = 0), slice(1));
    assert_eq!(mask(&|slices| slices[1][952 + 1024 - 1] = 1), slice(1));
    assert_eq!(mask(&|slices| slices[1][952] = 1), slice(1));
}

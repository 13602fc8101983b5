use tallow_types::codec::{decode, encode};
use tallow_types::limits::TILE;
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

/// Stands for the code: parity is the sum of the data, with something added for each slice.
fn sum(data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), &'static str> {
    for (number, out) in (1..).zip(parity) {
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = data.iter().fold(number, |sum: u8, tile| sum.wrapping_add(tile[at]));
        }
    }
    Ok(())
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

/// Goal: slices are those of the stripe, masked, with their roots, whatever its length. Method: make data slices here
/// from the layout and parity column by column, mask and hash each whole.
#[test]
fn slices_are_the_stripes() {
    let profile = Profile::from_k_of_n(3, 5).expect("in range");
    let row = 3 * TILE as usize;
    for len in [1, 3000, row - 1, row, row + 1, 2 * row + 5000, 2 * row + row / 2] {
        let mut stream = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut stream);
        let stripe = Stripe::new(profile, stream.clone()).expect("fits");
        let (layout, mask) = (stripe.layout(), secret().stripe(&ID));
        stream.resize(layout.capacity() as usize, 0);
        let mut slices = vec![vec![0; layout.slice_len() as usize]; 5];
        let mut rest = stream.as_slice();
        for piece in layout.locate(0, layout.capacity()).expect("whole") {
            let (part, behind) = rest.split_at(piece.len as usize);
            slices[usize::from(piece.slot.get())][piece.offset as usize..][..part.len()]
                .copy_from_slice(part);
            rest = behind;
        }
        let (data, parity) = slices.split_at_mut(3);
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        sum(&data, &mut parity).expect("adds");
        for (slot, slice) in profile.slot_indices().zip(&mut slices) {
            mask.apply(slot, 0, slice);
        }
        let attempt = StripeAttempt::begin(CONTRACT, ID, &stripe);
        let permit = attempt.permit(&stripe).expect("its own");
        let mut out = vec![0x55; permit.room()];
        let roots = permit.code(&secret(), &mut out, sum).expect("codes");
        assert_eq!(out, slices.concat(), "stream of {len}");
        let hashed: Vec<_> =
            slices.iter().map(|slice| SliceRoot::new(*blake3::hash(slice).as_bytes())).collect();
        assert_eq!(roots, hashed);
    }
}

/// Goal: mistakes of the caller are errors. Method: memory one byte short and one too long, and a code that fails.
#[test]
fn bad_memory_and_codes_are_errors() {
    let stripe = stripe(7, 3000);
    let attempt = StripeAttempt::begin(CONTRACT, ID, &stripe);
    let permit = || attempt.permit(&stripe).expect("its own");
    let expected = permit().room();
    assert_eq!(expected, 3 * 2048);
    for found in [expected - 1, expected + 1, 0] {
        let coded = permit().code(&secret(), &mut vec![0; found], sum);
        assert_eq!(coded, Err(CodeError::Room { expected, found }));
    }
    let coded = permit().code(&secret(), &mut vec![0; expected], |_, _| Err("broken"));
    assert_eq!(coded, Err(CodeError::Encode("broken")));
}

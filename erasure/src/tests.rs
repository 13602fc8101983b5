#![allow(clippy::cast_possible_truncation, reason = "test patterns")]

use proptest::prelude::*;
use reed_solomon_erasure::galois_8::{self, ReedSolomon};

use super::*;

fn profile(k: u8, n: u8) -> Profile {
    Profile::from_k_of_n(k, n).expect("in range")
}

/// Bytes that look random but follow from the seed (a 64-bit LCG, upper bits).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

/// All n slices of a stripe of `len` columns.
fn stripe(profile: Profile, seed: u64, len: usize) -> Vec<Vec<u8>> {
    let mut slices: Vec<Vec<u8>> = (0..profile.data()).map(|j| noise(seed + u64::from(j), len)).collect();
    let mut parity = vec![vec![0xee; len]; usize::from(profile.parity())];
    let data: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
    let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    codec(profile).encode(&data, &mut out).expect("well formed");
    slices.append(&mut parity);
    slices
}

fn pick<'a>(slices: &'a [Vec<u8>], slots: &[u8]) -> Vec<(SlotIndex, &'a [u8])> {
    slots.iter().map(|slot| (SlotIndex::new(*slot), slices[usize::from(*slot)].as_slice())).collect()
}

fn recreate(
    profile: Profile,
    present: &[(SlotIndex, &[u8])],
    wanted: &[u8],
    len: usize,
) -> Result<Vec<Vec<u8>>, DecodeError> {
    let wanted: Vec<SlotIndex> = wanted.iter().copied().map(SlotIndex::new).collect();
    let mut out = vec![vec![0x55; len]; wanted.len()];
    let mut buffers: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    codec(profile).recreate(present, &wanted, &mut buffers)?;
    Ok(out)
}

/// Goal: the bytes of the code never change. Method: the golden vectors, which also say how their input is made.
#[test]
fn golden_vectors() {
    let vectors = [
        (4, 12, include_bytes!("../../vectors/erasure/4-of-12.bin").as_slice()),
        (20, 42, include_bytes!("../../vectors/erasure/20-of-42.bin").as_slice()),
        (1, 2, include_bytes!("../../vectors/erasure/1-of-2.bin").as_slice()),
        (200, 255, include_bytes!("../../vectors/erasure/200-of-255.bin").as_slice()),
    ];
    for (k, n, golden) in vectors {
        let profile = profile(k, n);
        let len = golden.len() / usize::from(n);
        let data: Vec<Vec<u8>> =
            (0..k).map(|j| (0..len).map(|i| (31 * usize::from(j) + 7 * i + i * i) as u8).collect()).collect();
        let mut parity = vec![vec![0; len]; usize::from(n - k)];
        let given: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec(profile).encode(&given, &mut out).expect("well formed");
        assert_eq!([data.concat(), parity.concat()].concat(), golden, "{profile}");
    }
}

/// Goal: the matrix is the one that the trait documents. Method: compute it here, from field operations alone, and
/// compare with what encoding unit vectors gives.
#[test]
fn matrix_is_the_documented_one() {
    for (k, n) in [(1, 2), (4, 12), (20, 42), (100, 255)] {
        let columns = usize::from(k);
        let power = |row: u8, column: usize| galois_8::exp(row, column);
        let upper: Vec<Vec<u8>> = (0..k).map(|row| (0..columns).map(|c| power(row, c)).collect()).collect();
        let inverse = invert(upper);
        let data: Vec<Vec<u8>> =
            (0..columns).map(|j| (0..columns).map(|i| u8::from(i == j)).collect()).collect();
        let mut parity = vec![vec![0; columns]; usize::from(n - k)];
        let given: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec(profile(k, n)).encode(&given, &mut out).expect("well formed");
        for (row, found) in (k..n).zip(&parity) {
            let expected: Vec<u8> = (0..columns)
                .map(|c| {
                    let terms = (0..columns).map(|m| galois_8::mul(power(row, m), inverse[m][c]));
                    terms.fold(0, |sum, term| sum ^ term)
                })
                .collect();
            assert_eq!(*found, expected, "row {row} of {k} of {n}");
        }
    }
}

/// Gauss-Jordan over the field.
fn invert(mut matrix: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = matrix.len();
    for (row, line) in matrix.iter_mut().enumerate() {
        line.extend((0..size).map(|c| u8::from(c == row)));
    }
    for at in 0..size {
        let pivot = (at..size).find(|row| matrix[*row][at] != 0).expect("invertible");
        matrix.swap(at, pivot);
        let scale = galois_8::div(1, matrix[at][at]);
        matrix[at].iter_mut().for_each(|value| *value = galois_8::mul(*value, scale));
        let line = matrix[at].clone();
        for (row, other) in matrix.iter_mut().enumerate() {
            let factor = other[at];
            if row != at && factor != 0 {
                other.iter_mut().zip(&line).for_each(|(a, b)| *a ^= galois_8::mul(*b, factor));
            }
        }
    }
    matrix.into_iter().map(|line| line[size..].to_vec()).collect()
}

/// Goal: every loss that may be survived is, for a small profile. Method: all k-subsets of 3 of 7, and all rows.
#[test]
fn every_subset_of_a_small_profile() {
    let profile = profile(3, 7);
    let slices = stripe(profile, 9, 33);
    let everything: Vec<u8> = (0..7).collect();
    for subset in 0_u8..128 {
        let slots: Vec<u8> = (0..7).filter(|slot| subset >> slot & 1 == 1).collect();
        let made = recreate(profile, &pick(&slices, &slots), &everything, 33);
        if slots.len() >= 3 {
            assert_eq!(made.as_ref(), Ok(&slices), "from {slots:?}");
        } else {
            assert_eq!(made, Err(DecodeError::TooFew { needed: 3, found: slots.len() }));
        }
    }
}

/// Goal: lengths around the step of the work are coded like any other. Method: whole, against column by column pieces.
#[test]
fn work_in_steps_changes_nothing() {
    let profile = profile(2, 4);
    for len in [65_535, 65_536, 65_537, 131_072 + 1024] {
        let slices = stripe(profile, 3, len);
        let tail: Vec<Vec<u8>> = slices.iter().map(|slice| slice[len - 100..].to_vec()).collect();
        let given = pick(&tail, &[3, 2]);
        assert_eq!(recreate(profile, &given, &[0, 1], 100).as_deref(), Ok(&tail[..2]));
        let whole = pick(&slices, &[1, 3]);
        assert_eq!(recreate(profile, &whole, &[2, 0], len), Ok(vec![slices[2].clone(), slices[0].clone()]));
    }
}

/// Goal: each wrong input has its own answer and leaves the buffers alone. Method: a table of single mistakes.
#[test]
fn wrong_input_is_named() {
    let profile = profile(2, 5);
    let slices = stripe(profile, 1, 8);
    let slot = SlotIndex::new;
    type Case<'a> = (Vec<(SlotIndex, &'a [u8])>, Vec<u8>, usize, usize, DecodeError);
    let cases: Vec<Case> = vec![
        (pick(&slices, &[1]), vec![0], 1, 8, DecodeError::TooFew { needed: 2, found: 1 }),
        (vec![], vec![0], 1, 8, DecodeError::TooFew { needed: 2, found: 0 }),
        (pick(&slices, &[1, 1, 1]), vec![0], 1, 8, DecodeError::Twice { slot: slot(1) }),
        (pick(&slices, &[4, 2, 4]), vec![0], 1, 8, DecodeError::Twice { slot: slot(4) }),
        (pick(&slices, &[1, 2]), vec![0, 3, 0], 3, 8, DecodeError::Twice { slot: slot(0) }),
        (pick(&slices, &[1, 2]), vec![5], 1, 8, DecodeError::NoSuchSlot { slot: slot(5), slots: 5 }),
        (
            vec![(slot(1), &slices[1]), (slot(200), &slices[2])],
            vec![0],
            1,
            8,
            DecodeError::NoSuchSlot { slot: slot(200), slots: 5 },
        ),
        (
            vec![(slot(1), &slices[1]), (slot(2), &slices[2][..7])],
            vec![0],
            1,
            8,
            DecodeError::Length { slot: slot(2), expected: 8, found: 7 },
        ),
        (pick(&slices, &[1, 2]), vec![0], 1, 9, DecodeError::Length { slot: slot(0), expected: 8, found: 9 }),
        (vec![(slot(1), &[]), (slot(2), &[])], vec![0], 1, 0, DecodeError::Empty),
        (pick(&slices, &[1, 2]), vec![0, 3], 1, 8, DecodeError::Buffers { wanted: 2, found: 1 }),
    ];
    for (present, wanted, buffers, len, expected) in cases {
        let wanted: Vec<SlotIndex> = wanted.into_iter().map(slot).collect();
        let mut out = vec![vec![0x55; len]; buffers];
        let mut refs: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        assert_eq!(codec(profile).recreate(&present, &wanted, &mut refs), Err(expected));
        assert!(out.iter().flatten().all(|byte| *byte == 0x55), "{expected} touched a buffer");
    }
    assert!(DecodeError::TooFew { needed: 2, found: 1 }.needs_more_slices());
    assert!(!DecodeError::Empty.needs_more_slices());
}

/// Goal: the same of encoding. Method: single mistakes.
#[test]
fn wrong_encoding_is_named() {
    let codec = codec(profile(2, 4));
    let (a, b, short) = ([1_u8; 4], [2_u8; 4], [3_u8; 3]);
    let encode = |data: &[&[u8]], lengths: &[usize]| {
        let mut parity: Vec<Vec<u8>> = lengths.iter().map(|len| vec![0x55; *len]).collect();
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        let result = codec.encode(data, &mut out);
        assert!(result.is_ok() || parity.iter().flatten().all(|byte| *byte == 0x55));
        result
    };
    let slot = SlotIndex::new;
    assert_eq!(encode(&[&a, &b], &[4, 4]), Ok(()));
    assert_eq!(encode(&[&a], &[4, 4]), Err(EncodeError::DataCount { expected: 2, found: 1 }));
    assert_eq!(encode(&[&a, &b, &a], &[4, 4]), Err(EncodeError::DataCount { expected: 2, found: 3 }));
    assert_eq!(encode(&[&a, &b], &[4]), Err(EncodeError::ParityCount { expected: 2, found: 1 }));
    assert_eq!(encode(&[&[], &[]], &[0, 0]), Err(EncodeError::Empty));
    let wrong = |slot, found| Err(EncodeError::Length { slot, expected: 4, found });
    assert_eq!(encode(&[&a, &short], &[4, 4]), wrong(slot(1), 3));
    assert_eq!(encode(&[&a, &b], &[4, 5]), wrong(slot(3), 5));
}

/// Goal: every profile there is can be made and used at its edges. Method: largest k, largest n - k, and one data slice.
#[test]
fn extreme_profiles() {
    for (k, n) in [(1, 255), (254, 255), (128, 255), (1, 2)] {
        let profile = profile(k, n);
        let slices = stripe(profile, 77, 5);
        let last: Vec<u8> = (n - k..n).collect();
        let wanted: Vec<u8> = (0..n).collect();
        assert_eq!(recreate(profile, &pick(&slices, &last), &wanted, 5), Ok(slices), "{profile}");
    }
}

/// Goal: a profile's codec is made once. Method: ask twice, a few times.
#[test]
fn codecs_are_shared() {
    let first = codec(profile(4, 12));
    assert_eq!(first.profile(), profile(4, 12));
    // Other tests may fill the cache at any time, so that it begins anew.
    assert!((0..1000).any(|_| Arc::ptr_eq(&codec(profile(4, 12)), &codec(profile(4, 12)))));
}

/// The slices of a stripe by the crate itself.
fn judged(profile: Profile, seed: u64, len: usize) -> Vec<Vec<u8>> {
    let mut slices: Vec<Vec<u8>> = (0..profile.data()).map(|j| noise(seed + u64::from(j), len)).collect();
    slices.resize(usize::from(profile.slots()), vec![0; len]);
    judge(profile).encode(&mut slices).expect("well formed");
    slices
}

fn judge(profile: Profile) -> ReedSolomon {
    ReedSolomon::new(usize::from(profile.data()), usize::from(profile.parity())).expect("in range")
}

fn codes(profile: Profile) -> impl Iterator<Item = Code> {
    Engine::available().map(move |engine| Code::new(profile, engine))
}

/// What an engine makes of slices, into buffers that hold other bytes.
fn made(code: &Code, slices: &[Vec<u8>], present: &[u8], wanted: &[u8]) -> Vec<Vec<u8>> {
    let wanted: Vec<SlotIndex> = wanted.iter().copied().map(SlotIndex::new).collect();
    let mut out = vec![vec![0x55; slices[0].len()]; wanted.len()];
    let mut buffers: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    code.recreate(&pick(slices, present), &wanted, &mut buffers).expect("enough");
    out
}

fn encoded(code: &Code, slices: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let profile = code.profile();
    let data: Vec<&[u8]> = slices[..usize::from(profile.data())].iter().map(Vec::as_slice).collect();
    let mut out = vec![vec![0x55; slices[0].len()]; usize::from(profile.parity())];
    let mut buffers: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    code.encode(&data, &mut buffers).expect("well formed");
    out
}

/// Goal: factors are those of the crate for every number of data slices. Method: its parity of unit vectors. Rows don't
/// depend on how many there are, so 255 slots stand for all profiles.
#[test]
fn factors_are_the_judges() {
    for k in (1..=40).chain([63, 64, 65, 100, 127, 128, 129, 191, 200, 253, 254]) {
        let profile = profile(k, 255);
        let unit = |j: usize| (0..usize::from(k)).map(|i| u8::from(i == j)).collect();
        let mut rows: Vec<Vec<u8>> = (0..usize::from(k)).map(unit).collect();
        rows.resize(255, vec![0; usize::from(k)]);
        judge(profile).encode(&mut rows).expect("well formed");
        let factors = factors::Factors::new(profile, &slots::SlotSet::first(k));
        for (slot, row) in (0..255).zip(&rows) {
            assert_eq!(factors.row(slot), row, "slot {slot} of {profile}");
        }
    }
}

/// Goal: every engine gives the crate's bytes for slices of any length. Method: all lengths to 200 and some around the
/// steps of the work, encoded, decoded from the worst loss, and row by row.
#[test]
fn every_length_on_every_engine() {
    let profile = profile(5, 19);
    let codes: Vec<Code> = codes(profile).collect();
    let lengths = (1..=200).chain([511, 513, 1023, 1025, 4095, 4097, 65_537, (1 << 20) + 33]);
    for len in lengths {
        let slices = judged(profile, 5, len);
        for code in &codes {
            let engine = code.engine();
            assert_eq!(encoded(code, &slices), &slices[5..], "{engine:?}, {len} bytes");
            let present = [18, 3, 9, 7, 12];
            assert_eq!(
                made(code, &slices, &present, &[0, 1, 2, 3, 4]),
                &slices[..5],
                "{engine:?}, {len} bytes"
            );
            for slot in [1, 8] {
                let row = &slices[usize::from(slot)];
                assert_eq!(&made(code, &slices, &present, &[slot])[0], row, "{engine:?}, {len} bytes");
            }
        }
    }
}

/// Goal: large profiles and slices are coded alike. Method: the largest numbers of data and of parity slices.
#[test]
fn large_profiles_on_every_engine() {
    for (k, n, len) in [(20, 42, 70_001), (1, 255, 5000), (254, 255, 5000), (128, 255, 9001)] {
        let profile = profile(k, n);
        let slices = judged(profile, 8, len);
        let (last, all): (Vec<u8>, Vec<u8>) = ((n - k..n).collect(), (0..n).collect());
        for code in codes(profile) {
            assert_eq!(encoded(&code, &slices), &slices[usize::from(k)..], "{:?}, {profile}", code.engine());
            assert_eq!(made(&code, &slices, &last, &all), slices, "{:?}, {profile}", code.engine());
        }
    }
}

/// Goal: factors are kept for what was asked lately, and for a bounded number of losses. Method: many losses, again and
/// again.
#[test]
fn factors_are_kept() {
    let profile = profile(3, 12);
    let slices = judged(profile, 1, 40);
    let code = Code::new(profile, Engine::best());
    assert_eq!(made(&code, &slices, &[2, 0, 1], &[4, 11])[0], slices[4]);
    assert_eq!(code.recent_len(), 0, "the data are always known");
    for round in 0..3 {
        for a in 0..12 {
            for b in (a + 1..12).filter(|b| *b > 2) {
                let others = [a, b, (3..12).find(|slot| *slot != a && *slot != b).expect("one")];
                let all: Vec<u8> = (0..12).collect();
                let before = code.recent_len();
                assert_eq!(made(&code, &slices, &others, &all), slices, "round {round}");
                assert_eq!(made(&code, &slices, &others, &[8, 0]), [slices[8].clone(), slices[0].clone()]);
                assert!(code.recent_len() <= 32.min(before + 1));
            }
        }
    }
    assert_eq!(code.recent_len(), 32);
}

fn any_loss() -> impl Strategy<Value = (Profile, usize, u64, Vec<u8>, usize)> {
    (1_u8..24, 1_u8..30, 1_usize..300, any::<u64>()).prop_flat_map(|(k, parity, len, seed)| {
        let n = k + parity;
        let order = Just((0..n).collect::<Vec<u8>>()).prop_shuffle();
        let extra = 0..=usize::from(parity);
        (Just(profile(k, n)), Just(len), Just(seed >> 8), order, extra)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Goal: any k slices, in any order, with or without more, give back all; and as the crate itself would, on
    /// every engine. Method: random profiles, lengths and losses against `reconstruct` of the crate.
    #[test]
    fn any_k_slices_are_enough((profile, len, seed, order, extra) in any_loss()) {
        let slices = stripe(profile, seed, len);
        let k = usize::from(profile.data());
        let kept = &order[..k + extra];
        let mut whole: Vec<Option<Vec<u8>>> = vec![None; slices.len()];
        for slot in kept {
            whole[usize::from(*slot)] = Some(slices[usize::from(*slot)].clone());
        }
        judge(profile).reconstruct(&mut whole).expect("enough");
        let whole: Vec<Vec<u8>> = whole.into_iter().map(|slice| slice.expect("made")).collect();
        prop_assert_eq!(&whole, &slices);

        for code in codes(profile) {
            prop_assert_eq!(encoded(&code, &slices), &slices[k..], "{:?}", code.engine());
            let mut data = vec![vec![0; len]; k];
            let mut out: Vec<&mut [u8]> = data.iter_mut().map(Vec::as_mut_slice).collect();
            code.decode(&pick(&slices, kept), &mut out).expect("enough");
            prop_assert_eq!(&data[..], &slices[..k], "{:?}", code.engine());
            for slot in &order {
                let row = made(&code, &slices, &kept[..k], &[*slot]);
                prop_assert_eq!(&row[0], &slices[usize::from(*slot)], "{:?}", code.engine());
            }
        }
    }

    /// Goal: ranges of slices are coded as in the whole. Method: recreate a random range and compare.
    #[test]
    fn ranges_are_coded_alike((profile, len, seed, order, _) in any_loss(), cut in any::<(u16, u16)>()) {
        let slices = stripe(profile, seed, len);
        let begin = usize::from(cut.0) % len;
        let end = begin + 1 + usize::from(cut.1) % (len - begin);
        let ranges: Vec<Vec<u8>> = slices.iter().map(|slice| slice[begin..end].to_vec()).collect();
        let kept = &order[..usize::from(profile.data())];
        let made = recreate(profile, &pick(&ranges, kept), &order, end - begin).expect("enough");
        for (slot, row) in order.iter().zip(made) {
            prop_assert_eq!(row, &slices[usize::from(*slot)][begin..end]);
        }
    }

    /// Goal: no input panics. Method: random slots, lengths and counts.
    #[test]
    fn nothing_panics(
        shape in (1_u8..6, 1_u8..6),
        present in proptest::collection::vec((0_u8..14, 0_usize..4), 0..8),
        wanted in proptest::collection::vec((0_u8..14, 0_usize..4), 0..6),
    ) {
        let profile = profile(shape.0, shape.0 + shape.1);
        let slices: Vec<(SlotIndex, Vec<u8>)> =
            present.iter().map(|(slot, len)| (SlotIndex::new(*slot), vec![*slot; *len])).collect();
        let given: Vec<(SlotIndex, &[u8])> = slices.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
        let slots: Vec<SlotIndex> = wanted.iter().map(|(slot, _)| SlotIndex::new(*slot)).collect();
        let mut out: Vec<Vec<u8>> = wanted.iter().map(|(_, len)| vec![0; *len]).collect();
        let mut buffers: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        let _ = codec(profile).recreate(&given, &slots, &mut buffers);
        let bytes: Vec<&[u8]> = slices.iter().map(|(_, bytes)| &bytes[..]).collect();
        let _ = codec(profile).encode(&bytes, &mut buffers);
    }
}

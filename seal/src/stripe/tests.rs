#![allow(clippy::cast_possible_truncation, reason = "test patterns")]

use proptest::prelude::*;

use super::*;
use crate::keys::MaskSecret;
use tallow_types::id::StripeId;

fn profile(k: u8, n: u8) -> Profile {
    Profile::from_k_of_n(k, n).expect("in range")
}

fn piece(slot: u8, offset: u32, len: u32) -> Piece {
    Piece { slot: SlotIndex::new(slot), offset, len }
}

/// A stream whose bytes tell where they are.
fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 251 % 256) as u8).collect()
}

/// The data slices of a stream, filled up with zeros.
fn scatter(layout: Layout, stream: &[u8]) -> Vec<Vec<u8>> {
    let mut slices = vec![vec![0; layout.slice_len() as usize]; usize::from(layout.data)];
    let mut rest = stream;
    for piece in layout.locate(0, stream.len() as u32).expect("fits") {
        let (part, behind) = rest.split_at(piece.len as usize);
        slices[usize::from(piece.slot.get())][piece.offset as usize..][..part.len()].copy_from_slice(part);
        rest = behind;
    }
    slices
}

/// Goal: slices are as long as the format says. Method: a table around the edges of rows and units.
#[test]
fn slice_lengths() {
    let row = 4 * TILE as usize;
    let table = [
        (1, 1024),
        (4096, 1024),
        (4097, 2048),
        (row - 1, TILE),
        (row, TILE),
        (row + 1, TILE + 1024),
        (3 * row + 5000, 3 * TILE + 2048),
        (4 * SLICE_MAX as usize, SLICE_MAX),
    ];
    for (len, expected) in table {
        let layout = Layout::for_stream(profile(4, 12), len).expect("fits");
        assert_eq!(layout.slice_len(), expected, "stream of {len}");
        assert!(layout.capacity() as usize >= len);
    }
    for len in [0, 4 * SLICE_MAX as usize + 1, usize::MAX] {
        let error = LayoutError::Stream { data: 4, len: len as u64 };
        assert_eq!(Layout::for_stream(profile(4, 12), len), Err(error));
    }
    for len in [0, 1, 1023, 1025, SLICE_MAX + 1, SLICE_MAX + 1024] {
        assert_eq!(Layout::from_slice_len(profile(4, 12), len), Err(LayoutError::Slice { len }));
    }
}

/// Goal: the layout is the one drawn. Method: places worked out by hand, across tiles, rows and into the short row.
#[test]
fn places_are_the_drawn_ones() {
    let layout = Layout::from_slice_len(profile(3, 5), 2 * TILE + 2048).expect("in range");
    let row = 3 * TILE;
    assert_eq!(layout.locate(0, 10), Ok(vec![piece(0, 0, 10)]));
    assert_eq!(layout.locate(TILE - 1, 2), Ok(vec![piece(0, TILE - 1, 1), piece(1, 0, 1)]));
    assert_eq!(layout.locate(row - 1, 2), Ok(vec![piece(2, TILE - 1, 1), piece(0, TILE, 1)]));
    assert_eq!(
        layout.locate(2 * row - 1, 3000),
        Ok(vec![piece(2, 2 * TILE - 1, 1), piece(0, 2 * TILE, 2048), piece(1, 2 * TILE, 951)])
    );
    assert_eq!(
        layout.spans(TILE - 1, row),
        Ok(vec![piece(0, TILE - 1, TILE), piece(1, 0, TILE), piece(2, 0, TILE)])
    );
    assert_eq!(layout.locate(5, 0), Ok(vec![]));
    let capacity = layout.capacity();
    assert_eq!(capacity, 2 * row + 3 * 2048);
    for (offset, len) in [(capacity, 1), (capacity - 1, 2), (u32::MAX, 2), (0, capacity + 1)] {
        let error = LayoutError::Range { offset, len, capacity };
        assert_eq!(layout.locate(offset, len), Err(error));
        assert_eq!(layout.spans(offset, len), Err(error));
    }
}

/// Goal: full stripes stay inside the memory that a stripe may take. Method: every n with the smallest and largest k.
#[test]
fn target_length_is_bounded() {
    assert_eq!(target_slice_len(profile(4, 12)), 42 * TILE);
    for n in 2..=255 {
        let len = target_slice_len(profile(1, n));
        assert_eq!(len, target_slice_len(profile(n - 1, n)));
        assert!(is_slice_len(len) && len.is_multiple_of(TILE));
        assert!(len == SLICE_MAX || u32::from(n) * (len + TILE) > STRIPE_MEMORY);
        assert!(u32::from(n) * len <= STRIPE_MEMORY);
    }
}

/// Goal: chunks are packed one behind the other until full. Method: fill a small stripe to its last byte.
#[test]
fn builder_packs_to_the_last_byte() {
    let mut builder = StripeBuilder::new(profile(2, 4), 1500);
    assert_eq!((builder.room(), builder.is_empty()), (2048, true));
    assert_eq!(builder.push(&[1; 1000]), Ok(0));
    assert!(builder.fits(1048) && !builder.fits(1049));
    assert_eq!(builder.push(&[2; 1049]), Err(Full { room: 1048, len: 1049 }));
    assert_eq!(builder.push(&[3; 1048]), Ok(1000));
    assert_eq!((builder.room(), builder.len()), (0, 2048));
    let stripe = builder.close().expect("not empty");
    assert_eq!(stripe.stream(), [vec![1; 1000], vec![3; 1048]].concat());
    assert_eq!(stripe.layout().slice_len(), 1024);
    assert!(StripeBuilder::new(profile(2, 4), 1500).close().is_none());
    assert_eq!(StripeBuilder::new(profile(2, 4), 0).room(), 2048);
    assert_eq!(StripeBuilder::new(profile(2, 4), u32::MAX).room(), 2 * SLICE_MAX);
}

/// Goal: the digest names everything that decides the slices. Method: change profile and stream one at a time.
#[test]
fn digest_names_all_that_is_coded() {
    let digest = |k, n, bytes: Vec<u8>| Stripe::new(profile(k, n), bytes).expect("fits").digest();
    let base = digest(2, 4, vec![7; 2048]);
    assert_eq!(base, digest(2, 4, vec![7; 2048]));
    assert_ne!(base, digest(2, 5, vec![7; 2048]));
    assert_ne!(base, digest(1, 4, vec![7; 2048]));
    assert_ne!(base, digest(2, 4, vec![7; 2047]));
    assert_ne!(base, digest(2, 4, [vec![7; 2047], vec![6]].concat()));
}

/// Goal: slices that are not those of the layout are refused. Method: one missing, one short, a span that ends early.
#[test]
fn wrong_slices_are_named() {
    let layout = Layout::from_slice_len(profile(2, 4), 1024).expect("in range");
    let (whole, short) = ([0; 1024], [0; 1023]);
    let slot = |slot| Err(LayoutError::Slot { slot: SlotIndex::new(slot) });
    assert_eq!(layout.gather(&[&whole]), slot(1));
    assert_eq!(layout.gather(&[&short, &whole]), slot(0));
    assert_eq!(layout.gather_range(1000, 100, &[(piece(0, 1000, 24), &whole[..24])]), slot(1));
    assert_eq!(layout.gather_range(0, 2, &[(piece(0, 1, 24), &whole[..24])]), slot(0));
}

fn any_layout() -> impl Strategy<Value = (Profile, usize)> {
    (1_u8..9, 1_u8..5, 0_u32..3, 1_usize..=(8 * TILE as usize)).prop_map(|(k, parity, rows, rest)| {
        let row = usize::from(k) * TILE as usize;
        (profile(k, k + parity), rows as usize * row + 1 + rest % row)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Goal: every byte of the slices is one byte of the stream or its padding, once. Method: mark each located byte.
    #[test]
    fn layout_covers_every_byte_once((profile, len) in any_layout()) {
        let layout = Layout::for_stream(profile, len).expect("fits");
        let mut seen = vec![vec![0_u8; layout.slice_len() as usize]; usize::from(profile.data())];
        for piece in layout.locate(0, layout.capacity()).expect("whole") {
            let begin = piece.offset as usize;
            let slice = &mut seen[usize::from(piece.slot.get())];
            slice[begin..begin + piece.len as usize].iter_mut().for_each(|count| *count += 1);
        }
        prop_assert!(seen.iter().flatten().all(|count| *count == 1));
        prop_assert!(layout.capacity() as usize - len < usize::from(profile.data()) * 1024);
    }

    /// Goal: the slice length alone gives the layout back, and gathering is the inverse of scattering. Method: random
    /// streams.
    #[test]
    fn gather_inverts_scatter((profile, len) in any_layout()) {
        let stream = stream(len);
        let layout = Layout::for_stream(profile, len).expect("fits");
        prop_assert_eq!(Layout::from_slice_len(profile, layout.slice_len()), Ok(layout));
        let slices = scatter(layout, &stream);
        prop_assert!(slices.iter().all(|slice| slice.len() == layout.slice_len() as usize));
        let slices: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
        let gathered = layout.gather(&slices).expect("whole");
        prop_assert_eq!(&gathered[..len], &stream[..]);
        prop_assert!(gathered[len..].iter().all(|byte| *byte == 0));
    }

    /// Goal: a range read through its spans is that range, at one contiguous span a slot, masked or not. Method: random
    /// ranges.
    #[test]
    fn range_reads_equal_the_whole((profile, len) in any_layout(), cut in any::<(u32, u32)>()) {
        let stream = stream(len);
        let layout = Layout::for_stream(profile, len).expect("fits");
        let slices = scatter(layout, &stream);
        let begin = cut.0 as usize % len;
        let end = begin + cut.1 as usize % (len - begin + 1);
        let (offset, size) = (begin as u32, (end - begin) as u32);
        let spans = layout.spans(offset, size).expect("inside");
        prop_assert!(spans.len() <= usize::from(profile.data()));
        prop_assert!(spans.is_sorted_by(|a, b| a.slot < b.slot));
        prop_assert_eq!(spans.iter().map(|span| span.len).sum::<u32>(), size);
        let given: Vec<(Piece, &[u8])> = spans
            .iter()
            .map(|span| {
                let bytes = &slices[usize::from(span.slot.get())][span.offset as usize..];
                (*span, &bytes[..span.len as usize])
            })
            .collect();
        let gathered = layout.gather_range(offset, size, &given).expect("covered");
        prop_assert_eq!(&gathered, &stream[begin..end]);

        let mask = MaskSecret::new([5; 32].into()).stripe(&StripeId::new([6; 16]));
        let mut masked: Vec<(Piece, Vec<u8>)> = given.iter().map(|(span, bytes)| (*span, bytes.to_vec())).collect();
        masked.iter_mut().for_each(|(span, bytes)| mask.apply(span.slot, span.offset, bytes));
        let masked: Vec<(Piece, &[u8])> = masked.iter().map(|(span, bytes)| (*span, &bytes[..])).collect();
        let mut out = vec![1, 2, 3];
        layout.unmask_into(offset, size, &masked, &mask, &mut out).expect("covered");
        prop_assert_eq!(&out[3..], &gathered[..]);
    }
}

use proptest::prelude::*;

use super::*;
use crate::keys::{ContractKeys, Seed};

fn keys(fill: u8) -> ContractKeys {
    Seed::new(Zeroizing::new([fill; 64])).contract(0, 0)
}

/// Bytes that don't compress.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

/// Seals, and makes the reference.
fn sealed(keys: &ChunkKeys, plain: &[u8], level: i32) -> (ChunkRef, Vec<u8>) {
    let named = keys.identify(plain);
    let bytes = Sealer::new(level).seal(keys, &named).expect("length is in range");
    let wanted = ChunkRef {
        id: named.id(),
        leaf: LeafIndex::ZERO,
        offset: 0,
        sealed_len: u32::try_from(bytes.len()).expect("short"),
        plain_len: u32::try_from(plain.len()).expect("short"),
    };
    (wanted, bytes)
}

/// A chunk whose ciphertext holds `body` as it is, under the flags given: what a broken or hostile writer with the
/// right keys could make.
fn forged(keys: &ChunkKeys, plain: &[u8], plain_len: u32, flags: u8, body: &[u8]) -> (ChunkRef, Vec<u8>) {
    let id = keys.identify(plain).id();
    let nonce = nonce_of(&keys.nonces, &[body]);
    let mut out = vec![VERSION, flags];
    out.extend_from_slice(&plain_len.to_le_bytes());
    let mut body = body.to_vec();
    let aad = out.clone();
    let tag = aead::seal(&keys.key(&id), &nonce, &aad, &mut body);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    out.extend_from_slice(&tag);
    let sealed_len = u32::try_from(out.len()).expect("short");
    (ChunkRef { id, leaf: LeafIndex::ZERO, offset: 0, sealed_len, plain_len }, out)
}

fn nonce(sealed: &[u8]) -> &[u8] {
    &sealed[AAD_LEN..HEADER_LEN]
}

/// Goal: one chunk sealed by two compressors is two messages, so it has two nonces, and both open. Method: two zstd
/// levels that pack it differently.
#[test]
fn two_zstd_levels_give_two_nonces() {
    let keys = keys(1).catalog;
    let plain: Vec<u8> = (0..60_000_u32).flat_map(|i| (i * i / 7).to_le_bytes()).collect();
    let (wanted_a, a) = sealed(&keys, &plain, 1);
    let (wanted_b, b) = sealed(&keys, &plain, 19);
    assert_ne!(
        a[HEADER_LEN..],
        b[HEADER_LEN..],
        "the levels must pack differently for this test to mean anything"
    );
    assert_eq!(wanted_a.id, wanted_b.id);
    assert_ne!(nonce(&a), nonce(&b));
    assert_eq!(open(&keys, &wanted_a, &a).as_ref(), Ok(&plain));
    assert_eq!(open(&keys, &wanted_b, &b).as_ref(), Ok(&plain));
}

/// Goal: sealing again gives the same bytes, so that a resumed upload replays. Method: fresh sealers.
#[test]
fn sealing_is_deterministic() {
    let keys = keys(1).catalog;
    for plain in [noise(5000), vec![7; 5000]] {
        assert_eq!(sealed(&keys, &plain, 3), sealed(&keys, &plain, 3));
    }
}

/// Goal: chunks are packed exactly when that saves a sixteenth. Method: noise with a compressible part of growing size;
/// zstd asked directly says what would be saved.
#[test]
fn packs_only_what_is_worth_it() {
    let keys = keys(1).catalog;
    let mut closest = (usize::MAX, 0);
    for zeros in (0..2048).step_by(16) {
        let mut plain = noise(16 << 10);
        plain[..zeros].fill(0);
        let saved = plain.len() - zstd::bulk::compress(&plain, 3).expect("packs").len().min(plain.len());
        let (wanted, bytes) = sealed(&keys, &plain, 3);
        assert_eq!(bytes[1] == FLAG_ZSTD, saved >= plain.len() / 16, "{saved} bytes saved");
        if bytes[1] == FLAG_ZSTD {
            closest.0 = closest.0.min(saved);
        } else {
            closest.1 = closest.1.max(saved);
            assert_eq!(wanted.sealed_len, wanted.plain_len + CHUNK_OVERHEAD);
        }
        assert_eq!(open(&keys, &wanted, &bytes), Ok(plain));
    }
    assert!(closest.0 - closest.1 < 32, "the edge must be tried from both sides, not {closest:?}");
}

/// Goal: long chunks are tried if a part of them packs, wherever it is, and noise is not tried. Method: noise with text in an
/// eighth of it, at each eighth; then noise alone.
#[test]
fn samples_find_what_packs() {
    let keys = keys(1).catalog;
    let text: Vec<u8> = (0..100_000_u32).flat_map(|i| (i * 7919 % 1000).to_string().into_bytes()).collect();
    let len = 512 << 10;
    for eighth in 0..8 {
        let mut plain = noise(len);
        plain[eighth * len / 8..][..len / 8].copy_from_slice(&text[..len / 8]);
        let (wanted, bytes) = sealed(&keys, &plain, 3);
        assert_eq!(bytes[1], FLAG_ZSTD, "text in eighth {eighth}");
        assert_eq!(open(&keys, &wanted, &bytes), Ok(plain));
    }
    assert_eq!(sealed(&keys, &noise(len), 3).1[1], 0);
}

/// Goal: memory that was used before leaves no trace. Method: seal in place in memory full of something else, against fresh
/// memory; open in place.
#[test]
fn used_memory_changes_nothing() {
    let keys = keys(1).catalog;
    for plain in [noise(5000), vec![7; 70_000]] {
        let (wanted, bytes) = sealed(&keys, &plain, 3);
        let chunk = Chunk::copied(&plain, vec![0x77; 100_000]).expect("length is in range").name(&keys);
        assert_eq!((chunk.id(), chunk.plain_len()), (wanted.id, wanted.plain_len));
        assert_eq!(Sealer::new(3).seal_in_place(&keys, chunk), bytes);
        let mut bytes = bytes;
        assert_eq!(open_in_place(&keys, &wanted, &mut bytes).as_deref(), Ok(&plain[..]));
    }
}

/// Goal: lengths are limited when sealing, one above is refused. Method: the edges.
#[test]
fn seal_limits() {
    let keys = keys(1).catalog;
    let max = CHUNK_MAX as usize;
    let largest = vec![0; max + 1];
    let mut sealer = Sealer::default();
    assert_eq!(sealer.seal(&keys, &keys.identify(&[])), Err(SealError { len: 0 }));
    assert!(sealer.seal(&keys, &keys.identify(&largest[..max])).is_ok());
    assert_eq!(sealer.seal(&keys, &keys.identify(&largest)), Err(SealError { len: max + 1 }));
    let incompressible = noise(max);
    let (wanted, bytes) = sealed(&keys, &incompressible, 1);
    assert!(bytes.len() <= SEALED_CHUNK_MAX as usize);
    assert_eq!(open(&keys, &wanted, &bytes), Ok(incompressible));
}

/// Goal: any changed byte is noticed. Method: flip a bit of each byte of a short chunk, packed and not.
#[test]
fn tampering_is_noticed_everywhere() {
    let keys = keys(1).catalog;
    for plain in [noise(40), vec![b'a'; 400]] {
        let (wanted, good) = sealed(&keys, &plain, 3);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let error = open(&keys, &wanted, &bad).expect_err("a byte was changed");
            let expected = match at {
                0 => OpenError::UnknownVersion { found: VERSION ^ 0x10 },
                1..AAD_LEN => OpenError::Header,
                _ => OpenError::Unauthentic,
            };
            assert_eq!(error, expected, "byte {at}");
            assert!(error.is_damage());
        }
        let mut other_flag = good.clone();
        other_flag[1] ^= FLAG_ZSTD;
        assert_eq!(open(&keys, &wanted, &other_flag), Err(OpenError::Unauthentic));
        let short = good.len() - 1;
        assert_eq!(
            open(&keys, &wanted, &good[..short]),
            Err(OpenError::Length { expected: wanted.sealed_len, found: short })
        );
    }
}

/// Goal: a chunk opens with its own keys and under its own id only. Method: another account, contract, kind of key,
/// and another chunk's bytes in its place.
#[test]
fn wrong_keys_and_swapped_chunks() {
    let mine = keys(1);
    let (wanted, bytes) = sealed(&mine.catalog, &noise(100), 3);
    let next_contract = Seed::new(Zeroizing::new([1; 64])).contract(1, 0);
    for other in [&keys(2).catalog, &next_contract.catalog, &mine.repair] {
        assert_eq!(open(other, &wanted, &bytes), Err(OpenError::Unauthentic));
    }
    let (_, swapped) = sealed(&mine.catalog, &noise(101)[1..], 3);
    assert_eq!(open(&mine.catalog, &wanted, &swapped), Err(OpenError::Unauthentic));
}

/// Goal: a decompression bomb gets no more memory than its reference announces, and none above the limit. Method: a
/// megabyte of zeros that claims to be 64 bytes, one that claims to be less than the limit but more than it is, and a
/// reference one above the limit.
#[test]
fn bombs_are_bounded() {
    let keys = keys(1).catalog;
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 19).expect("packs");
    let (wanted, bytes) = forged(&keys, b"x", 256, FLAG_ZSTD, &bomb);
    assert_eq!(open(&keys, &wanted, &bytes), Err(OpenError::Unpack { plain_len: 256 }));
    let (wanted, bytes) = forged(&keys, b"x", CHUNK_MAX, FLAG_ZSTD, &bomb);
    assert_eq!(open(&keys, &wanted, &bytes), Err(OpenError::Unpack { plain_len: CHUNK_MAX }));
    let (wanted, bytes) = forged(&keys, b"x", CHUNK_MAX + 1, FLAG_ZSTD, &bomb);
    assert!(matches!(open(&keys, &wanted, &bytes), Err(OpenError::Length { .. })));
    let (wanted, bytes) = forged(&keys, b"x", 200, FLAG_ZSTD, b"not a frame");
    assert_eq!(open(&keys, &wanted, &bytes), Err(OpenError::Unpack { plain_len: 200 }));
    assert!(!OpenError::Unpack { plain_len: 200 }.is_damage());
}

/// Goal: an authentic chunk with other content than its id names is refused. Method: seal other bytes under the id.
#[test]
fn content_must_match_its_id() {
    let keys = keys(1).catalog;
    let (wanted, bytes) = forged(&keys, b"four", 5, 0, b"other");
    assert_eq!(open(&keys, &wanted, &bytes), Err(OpenError::WrongContent));
    let (wanted, bytes) = forged(&keys, b"other", 5, 0, b"other");
    assert_eq!(open(&keys, &wanted, &bytes).as_deref(), Ok(b"other".as_slice()));
    let (wanted, bytes) = forged(&keys, b"other", 5, 2, b"other");
    assert_eq!(open(&keys, &wanted, &bytes), Err(OpenError::Header));
}

/// Goal: references out of range don't decode. Method: one above each limit.
#[test]
fn references_are_bounded() {
    let good = ChunkRef {
        id: ChunkId::new([1; 32]),
        leaf: LeafIndex::new(3),
        offset: 0,
        sealed_len: CHUNK_MAX + CHUNK_OVERHEAD,
        plain_len: CHUNK_MAX,
    };
    let decodes = |found: ChunkRef| {
        let bytes = borsh::to_vec(&found).expect("encodes");
        assert_eq!(bytes.len(), ChunkRef::LEN);
        ChunkRef::try_from_slice(&bytes).is_ok()
    };
    assert!(decodes(good));
    assert!(!decodes(ChunkRef { plain_len: CHUNK_MAX + 1, ..good }));
    assert!(!decodes(ChunkRef { plain_len: 0, ..good }));
    assert!(!decodes(ChunkRef { sealed_len: good.sealed_len + 1, ..good }));
    assert!(!decodes(ChunkRef { sealed_len: CHUNK_OVERHEAD, ..good }));
    assert!(!decodes(ChunkRef { offset: u32::MAX - good.sealed_len + 1, ..good }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: what was sealed opens. Method: random lengths, contents more or less compressible, and levels.
    #[test]
    fn round_trip(len in 1_usize..40_000, repeat in 1_usize..5000, level in 1_i32..8) {
        let keys = keys(9).catalog;
        let plain: Vec<u8> = noise(repeat).into_iter().cycle().take(len).collect();
        let (wanted, bytes) = sealed(&keys, &plain, level);
        prop_assert!(wanted.is_well_formed());
        prop_assert_eq!(open(&keys, &wanted, &bytes), Ok(plain));
    }

    /// Goal: no bytes make `open` panic. Method: random ones, with lengths that fit the reference.
    #[test]
    fn random_bytes_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        plain_len in 0_u32..300,
        shape in any::<[bool; 3]>(),
    ) {
        if let ([true, ..], Some(first)) = (shape, bytes.first_mut()) {
            *first = VERSION;
        }
        if let ([_, true, flag], Some(header)) = (shape, bytes.get_mut(1..AAD_LEN)) {
            header[0] = u8::from(flag);
            header[1..].copy_from_slice(&plain_len.to_le_bytes());
        }
        let sealed_len = u32::try_from(bytes.len()).expect("short");
        let wanted = ChunkRef { id: ChunkId::new([0; 32]), leaf: LeafIndex::ZERO, offset: 0, sealed_len, plain_len };
        prop_assert!(open(&keys(1).catalog, &wanted, &bytes).is_err());
    }
}

use chacha20poly1305::{AeadInOut, Key, KeyInit, XChaCha20Poly1305, XNonce};
use proptest::prelude::*;

use super::*;

/// Goal: the vector of the draft, appendix A.3.1. Method: its plaintext, associated data, key and nonce; the tag and both
/// ends of the ciphertext.
#[test]
fn vector_of_the_draft() {
    let mut body =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it."
            .to_vec();
    let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").expect("hex");
    let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).expect("short"));
    let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + u8::try_from(i).expect("short"));
    let tag = seal(&Zeroizing::new(key), &nonce, &aad, &mut body);
    assert_eq!(hex::encode(tag), "c0875924c1c7987947deafd8780acf49");
    assert_eq!(hex::encode(&body[..16]), "bd6d179d3e83d43b9576579493c0e939");
    assert_eq!(hex::encode(&body[112..]), "b52e");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: the same bytes as the crate `chacha20poly1305`, both ways, and no tag but the right one. Method: random keys,
    /// nonces, data and lengths around the blocks of the ciphers; one bit changed anywhere.
    #[test]
    fn same_as_the_peer(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; NONCE_LEN]>(),
        aad in proptest::collection::vec(any::<u8>(), 0..40),
        len in prop_oneof![0_usize..700, 4000_usize..4200, 65_000_usize..66_000],
        skip in 0_usize..40,
        flip in any::<(u32, u8)>(),
    ) {
        let plain: Vec<u8> = key.iter().chain(&nonce).copied().cycle().take(len).collect();
        let (mut ours, mut theirs) = (plain.clone(), plain.clone());
        let peer = XChaCha20Poly1305::new(&Key::from(key));
        let expected = peer
            .encrypt_inout_detached(&XNonce::from(nonce), &aad, theirs.as_mut_slice().into())
            .expect("short");
        let key = Zeroizing::new(key);
        let tag = seal(&key, &nonce, &aad, &mut ours);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(&tag[..], &expected[..]);

        let mut sealed = vec![0x5a; skip];
        sealed.extend_from_slice(&ours);
        sealed.extend_from_slice(&tag);
        let mut bad = sealed.clone();
        let at = skip + flip.0 as usize % (len + TAG_LEN);
        bad[at] ^= 1 << (flip.1 % 8);
        prop_assert!(open(&key, &nonce, &aad, &mut bad, skip).is_none());
        prop_assert_eq!(open(&key, &nonce, &aad, &mut sealed, skip).map(|body| body.to_vec()), Some(plain));
    }
}

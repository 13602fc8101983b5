//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) for chunks: HChaCha20 makes a key of key and nonce, under which `ring`
//! runs ChaCha20-Poly1305, in place and half as fast again as the crate `chacha20poly1305`, whose bytes it gives.
//!
//! Guarantees: the bytes of the draft, held by its vector and by tests against that crate. The derived key is wiped.
//!
//! Does not choose nonces, nor limit lengths: chunks are far below what one nonce may cover.

use chacha20::{R20, hchacha};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::keys::Secret;

pub(crate) const NONCE_LEN: usize = 24;
pub(crate) const TAG_LEN: usize = 16;

/// The inner cipher and its nonce: four zeros, then what HChaCha20 has not used.
fn inner(key: &Secret, nonce: &[u8; NONCE_LEN]) -> (LessSafeKey, Nonce) {
    let (first, rest) = nonce.split_at(16);
    let first: &[u8; 16] = first.try_into().expect("split at its length");
    let key: &[u8; 32] = key;
    let derived = Zeroizing::new(<[u8; 32]>::from(hchacha::<R20>(key.into(), first.into())));
    let mut short = [0; 12];
    short[4..].copy_from_slice(rest);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*derived).expect("a key of this cipher has 32 bytes");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(short))
}

/// Encrypts in place, and gives the tag. The nonce must cover no other message under this key.
pub(crate) fn seal(key: &Secret, nonce: &[u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
    let (cipher, nonce) = inner(key, nonce);
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
        .expect("a chunk is far below the cipher's limit of 256 GiB");
    tag.as_ref().try_into().expect("a tag of this cipher has 16 bytes")
}

/// Decrypts what follows `skip` bytes, tag at the end, to the front of the same buffer. `None` if the tag doesn't fit; the
/// buffer holds nothing of use then.
pub(crate) fn open<'a>(
    key: &Secret,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    buffer: &'a mut [u8],
    skip: usize,
) -> Option<&'a mut [u8]> {
    let (cipher, nonce) = inner(key, nonce);
    cipher.open_within(nonce, Aad::from(aad), buffer, skip..).ok()
}

#[cfg(test)]
mod tests;

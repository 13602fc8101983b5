//! Heads: the sealed references in a commit, to the newest record of the catalog and of the repair index. With one of
//! them and the phrase, a bare machine finds everything else. A log without records has a head, too, of zeros.
//!
//! ```text
//! | "HD" | version u8 | key check 16 | nonce 24 | ciphertext of the reference | tag 16 |
//! key   = CATALOG_HEAD or REPAIR_HEAD (content key or repair key)
//! data  = contract id 32 | incarnation u32 | lease u64 | sequence u64 | everything before the nonce    authenticated with it
//! nonce = first 24 bytes of keyed BLAKE3 (CHUNK_NONCE (that key), data | reference)
//! ```
//!
//! Guarantees: the length tells nothing; a head of another contract, of a commit of another rank or of the other kind
//! doesn't open, so nobody without the key makes a commit of a new rank whose heads open; a wrong key is told apart
//! from damage by the key check.

use borsh::{BorshDeserialize, BorshSerialize};
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use tallow_types::codec::BoundedBytes;
use tallow_types::commit::{Commit, Rank};
use tallow_types::domain;
use tallow_types::id::{ContractId, StripeId};
use tallow_types::limits::COMMIT_HEAD_MAX;
use zeroize::Zeroizing;

use crate::chunk::{ChunkRef, NONCE_LEN, TAG_LEN, nonce_of};
use crate::keys::{ChunkKeys, KeyCheck};
use crate::stripe::is_slice_len;

const TAG: [u8; 2] = *b"HD";
const VERSION: u8 = 1;
const PREFIX_LEN: usize = TAG.len() + 1 + KeyCheck::LEN;
const BODY_LEN: usize = HeadRef::LEN;
const HEAD_LEN: usize = PREFIX_LEN + NONCE_LEN + BODY_LEN + TAG_LEN;
const _: () = assert!(HEAD_LEN <= COMMIT_HEAD_MAX);

/// A chunk, with what it takes to fetch it without any index: its stripe and the length of that stripe's slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct HeadRef {
    /// The chunk: the root of a record.
    pub chunk: ChunkRef,
    /// Its stripe.
    pub stripe: StripeId,
    /// Length of each slice of that stripe. Bytes.
    pub slice_len: u32,
}

impl HeadRef {
    /// Length of its encoding in bytes.
    pub const LEN: usize = ChunkRef::LEN + StripeId::LEN + 4;
}

impl BorshDeserialize for HeadRef {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        let found = Self {
            chunk: ChunkRef::deserialize_reader(reader)?,
            stripe: StripeId::deserialize_reader(reader)?,
            slice_len: u32::deserialize_reader(reader)?,
        };
        let in_range = is_slice_len(found.slice_len);
        let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "slice length out of range");
        in_range.then_some(found).ok_or_else(bad)
    }
}

/// Which of the two heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The catalog's, under the content key.
    Catalog,
    /// The repair index's, under the repair key.
    Repair,
}

fn cipher(keys: &ChunkKeys, which: Which) -> XChaCha20Poly1305 {
    let domain = match which {
        Which::Catalog => domain::CATALOG_HEAD,
        Which::Repair => domain::REPAIR_HEAD,
    };
    XChaCha20Poly1305::new(&Key::from(*Zeroizing::new(domain.hash(&[&*keys.content]))))
}

fn prefix(check: KeyCheck) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    prefix[..2].copy_from_slice(&TAG);
    prefix[2] = VERSION;
    prefix[3..].copy_from_slice(check.as_bytes());
    prefix
}

/// The commit that a head is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its contract.
    pub contract: ContractId,
    /// Its lease and sequence.
    pub rank: Rank,
}

impl From<&Commit> for Place {
    fn from(commit: &Commit) -> Self {
        Self { contract: commit.contract, rank: commit.rank() }
    }
}

fn aad(place: &Place, check: KeyCheck) -> Vec<u8> {
    let Rank { lease, sequence } = place.rank;
    let mut data = place.contract.as_bytes().to_vec();
    data.extend_from_slice(&lease.incarnation.get().to_le_bytes());
    data.extend_from_slice(&lease.counter.to_le_bytes());
    data.extend_from_slice(&sequence.get().to_le_bytes());
    data.extend_from_slice(&prefix(check));
    data
}

/// Seals a head for a commit; `None` for a log that has no record yet.
///
/// # Panics
/// Never: the length is fixed and inside the limit.
#[must_use]
pub fn seal_head(
    keys: &ChunkKeys,
    which: Which,
    place: &Place,
    head: Option<&HeadRef>,
) -> BoundedBytes<COMMIT_HEAD_MAX> {
    let encoded = head.map(|head| borsh::to_vec(head).expect("writing to a vector cannot fail"));
    let mut body = encoded.unwrap_or_else(|| vec![0; BODY_LEN]);
    let aad = aad(place, keys.check());
    let nonce = nonce_of(&keys.nonces, &[&aad, &body]);
    let tag = cipher(keys, which)
        .encrypt_inout_detached(&XNonce::from(nonce), &aad, body.as_mut_slice().into())
        .expect("a head is far below the cipher's limit");
    let mut out = prefix(keys.check()).to_vec();
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    out.extend_from_slice(&tag);
    BoundedBytes::new(out).expect("a head has a fixed length inside the limit")
}

/// Why a head doesn't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum HeadError {
    /// Not the bytes of a head.
    #[error("these bytes are not a head")]
    NotAHead,
    /// Sealed by a newer program.
    #[error("the head has version {found}, this program opens version {VERSION}")]
    UnknownVersion { found: u8 },
    /// Sound as far as one can tell, but sealed with another key: another phrase, contract index or generation.
    #[error("the head is sealed with another key")]
    WrongKey,
    /// The right key, but other bytes, another commit's head or the other kind.
    #[error("the head is damaged or belongs to another commit")]
    Damaged,
}

/// Opens a head out of a commit; `None` if its log has no record yet.
///
/// # Errors
/// See [`HeadError`].
///
/// # Panics
/// Never: the length is checked first.
pub fn open_head(
    keys: &ChunkKeys,
    which: Which,
    place: &Place,
    sealed: &[u8],
) -> Result<Option<HeadRef>, HeadError> {
    let [tag0, tag1, version, ..] = sealed else { return Err(HeadError::NotAHead) };
    if [*tag0, *tag1] != TAG {
        return Err(HeadError::NotAHead);
    }
    if *version != VERSION {
        return Err(HeadError::UnknownVersion { found: *version });
    }
    if sealed.len() != HEAD_LEN {
        return Err(HeadError::NotAHead);
    }
    let (prefix, rest) = sealed.split_at(PREFIX_LEN);
    let (nonce, rest) = rest.split_at(NONCE_LEN);
    let (body, tag) = rest.split_at(BODY_LEN);
    if prefix[3..] != *keys.check().as_bytes() {
        return Err(HeadError::WrongKey);
    }
    let mut body = body.to_vec();
    let nonce: [u8; NONCE_LEN] = nonce.try_into().expect("split at its length");
    let tag: [u8; TAG_LEN] = tag.try_into().expect("split at its length");
    cipher(keys, which)
        .decrypt_inout_detached(
            &XNonce::from(nonce),
            &aad(place, keys.check()),
            body.as_mut_slice().into(),
            &Tag::from(tag),
        )
        .map_err(|_| HeadError::Damaged)?;
    if body == [0; BODY_LEN] {
        return Ok(None);
    }
    HeadRef::try_from_slice(&body).map(Some).map_err(|_| HeadError::Damaged)
}

#[cfg(test)]
mod tests;

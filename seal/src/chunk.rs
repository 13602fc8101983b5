//! One sealed chunk: a cut of a blob, or a piece of a record, compressed and encrypted on its own.
//!
//! ```text
//! | version u8 | flags u8 | plain length u32 | nonce 24 | ciphertext | tag 16 |       flag 1: the plaintext is zstd
//!  `------ authenticated, in the clear -----'
//!
//! id    = keyed BLAKE3 (id secret, plaintext)
//! key   = CHUNK_KEY (content key | id)
//! nonce = first 24 bytes of keyed BLAKE3 (CHUNK_NONCE (content key), the very bytes encrypted)
//! ```
//!
//! Guarantees: the nonce follows from the bytes that are encrypted, so that the same chunk packed by another zstd, which
//! is another message, has another nonce. A chunk that opens is the one its id names. It never unpacks to more than its
//! header says, and that never is more than `CHUNK_MAX`.
//!
//! Does not hide: the length of the sealed bytes. Stripes do that.

mod sealer;

use std::borrow::Cow;
use std::cell::RefCell;

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::domain;
use tallow_types::limits::{CHUNK_MAX, SEALED_CHUNK_MAX};
use tallow_types::unit::LeafIndex;
use zeroize::Zeroizing;

pub use sealer::{Chunk, DEFAULT_LEVEL, NamedChunk, SealError, Sealer};

use crate::aead;
pub(crate) use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::keys::{ChunkKeys, Secret};

const VERSION: u8 = 1;
const FLAG_ZSTD: u8 = 1;
const AAD_LEN: usize = 6;
const HEADER_LEN: usize = AAD_LEN + NONCE_LEN;

/// What sealing adds to a chunk that does not compress. Bytes.
pub const CHUNK_OVERHEAD: u32 = 46;
const _: () = assert!(CHUNK_OVERHEAD as usize == HEADER_LEN + TAG_LEN);
const _: () = assert!(CHUNK_MAX + CHUNK_OVERHEAD <= SEALED_CHUNK_MAX);

/// Names a chunk by its plaintext, under the owner's secret: equal chunks of one account have equal ids, and nobody else
/// can tell what an id is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    /// From raw bytes, as a cache holds them.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "ChunkId({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// Where a sealed chunk is, and what it must open to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct ChunkRef {
    /// Its id.
    pub id: ChunkId,
    /// The stripe that holds it, by the position of its leaf.
    pub leaf: LeafIndex,
    /// Where it begins in the stripe's stream. Bytes.
    pub offset: u32,
    /// Length of the sealed bytes.
    pub sealed_len: u32,
    /// Length of the plaintext.
    pub plain_len: u32,
}

impl ChunkRef {
    /// Length of its encoding in bytes.
    pub const LEN: usize = 52;

    /// Whether its lengths are inside their limits. Every decoded one is.
    #[must_use]
    pub const fn is_well_formed(&self) -> bool {
        self.plain_len > 0
            && self.plain_len <= CHUNK_MAX
            && self.sealed_len > CHUNK_OVERHEAD
            && self.sealed_len <= self.plain_len + CHUNK_OVERHEAD
            && self.offset.checked_add(self.sealed_len).is_some()
    }
}

impl BorshDeserialize for ChunkRef {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        let found = Self {
            id: ChunkId::deserialize_reader(reader)?,
            leaf: LeafIndex::deserialize_reader(reader)?,
            offset: u32::deserialize_reader(reader)?,
            sealed_len: u32::deserialize_reader(reader)?,
            plain_len: u32::deserialize_reader(reader)?,
        };
        let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "chunk lengths out of range");
        found.is_well_formed().then_some(found).ok_or_else(bad)
    }
}

/// A plaintext with the id that was made from it.
#[derive(Clone, Copy)]
pub struct Plain<'a> {
    bytes: &'a [u8],
    id: ChunkId,
}

impl Plain<'_> {
    /// The id.
    #[must_use]
    pub const fn id(&self) -> ChunkId {
        self.id
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it; such a chunk can't be sealed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl ChunkKeys {
    /// Makes the id of a plaintext: ask with it whether the chunk is stored already, before it is sealed.
    #[must_use]
    pub fn identify<'a>(&self, bytes: &'a [u8]) -> Plain<'a> {
        Plain { bytes, id: self.id_of(bytes) }
    }

    fn id_of(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.ids, plain).as_bytes())
    }

    /// The key of one chunk.
    fn key(&self, id: &ChunkId) -> Secret {
        Zeroizing::new(domain::CHUNK_KEY.hash(&[&*self.content, &id.0]))
    }
}

/// A nonce that follows from the message: 24 bytes of a keyed hash over all of it.
pub(crate) fn nonce_of(key: &[u8; 32], message: &[&[u8]]) -> [u8; NONCE_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in message {
        hasher.update(part);
    }
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_LEN]);
    nonce
}

/// Why a sealed chunk doesn't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum OpenError {
    /// It has not the length that its reference says.
    #[error("the sealed chunk has {found} bytes, its reference says {expected}")]
    Length { expected: u32, found: usize },
    /// Sealed by a newer program, or damaged.
    #[error("the chunk has version {found}, this program opens version {VERSION}")]
    UnknownVersion { found: u8 },
    /// A header that contradicts the reference or sets unknown flags.
    #[error("the chunk's header is damaged")]
    Header,
    /// The tag doesn't fit: other bytes, another chunk, or another key.
    #[error("the chunk is damaged or sealed with another key")]
    Unauthentic,
    /// Authentic, but it doesn't unpack to the length it announces.
    #[error("the chunk does not unpack to the {plain_len} bytes that it announces")]
    Unpack { plain_len: u32 },
    /// Authentic, but its plaintext has another id.
    #[error("the chunk holds other content than its id names")]
    WrongContent,
}

impl OpenError {
    /// Whether other bytes for the same reference may open: worth asking other seeders. What is authentic but wrong was
    /// sealed wrong; that is a bug of the writer, and other copies are the same.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Unpack { .. } | Self::WrongContent)
    }
}

/// Opens a sealed chunk, if it is the one that the reference names.
///
/// # Errors
/// See [`OpenError`].
pub fn open(keys: &ChunkKeys, wanted: &ChunkRef, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut memory = sealed.to_vec();
    let len = match open_in_place(keys, wanted, &mut memory)? {
        Cow::Owned(plain) => return Ok(plain),
        Cow::Borrowed(plain) => plain.len(),
    };
    memory.truncate(len);
    Ok(memory)
}

/// The same in the memory of the sealed bytes: a plaintext that was not compressed lies at its front then. After an error
/// the memory holds nothing of use.
///
/// # Errors
/// See [`OpenError`].
///
/// # Panics
/// Never: lengths are checked first.
pub fn open_in_place<'a>(
    keys: &ChunkKeys,
    wanted: &ChunkRef,
    sealed: &'a mut [u8],
) -> Result<Cow<'a, [u8]>, OpenError> {
    let in_limits = wanted.is_well_formed() && sealed.len() == wanted.sealed_len as usize;
    if !in_limits {
        return Err(OpenError::Length { expected: wanted.sealed_len, found: sealed.len() });
    }
    let aad: [u8; AAD_LEN] = sealed[..AAD_LEN].try_into().expect("split at its length");
    let nonce: [u8; NONCE_LEN] = sealed[AAD_LEN..HEADER_LEN].try_into().expect("split at its length");
    if aad[0] != VERSION {
        return Err(OpenError::UnknownVersion { found: aad[0] });
    }
    let is_packed = aad[1] == FLAG_ZSTD;
    if aad[1] & !FLAG_ZSTD != 0 || aad[2..] != wanted.plain_len.to_le_bytes() {
        return Err(OpenError::Header);
    }
    let body = aead::open(&keys.key(&wanted.id), &nonce, &aad, sealed, HEADER_LEN);
    let body: &'a [u8] = body.ok_or(OpenError::Unauthentic)?;
    let plain_len = wanted.plain_len as usize;
    let plain = if is_packed { unpack(body, plain_len).map(Cow::Owned) } else { Some(Cow::Borrowed(body)) };
    let plain = plain
        .filter(|plain| plain.len() == plain_len)
        .ok_or(OpenError::Unpack { plain_len: wanted.plain_len })?;
    if blake3::keyed_hash(&keys.ids, &plain) == blake3::Hash::from_bytes(wanted.id.0) {
        Ok(plain)
    } else {
        Err(OpenError::WrongContent)
    }
}

thread_local! {
    /// A decompressor takes memory that is better kept than made for every chunk.
    static UNPACKER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses into exactly the memory that was announced; a bomb has nowhere to grow.
fn unpack(packed: &[u8], plain_len: usize) -> Option<Vec<u8>> {
    let mut plain = vec![0; plain_len];
    let written = UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(kept) => kept,
            none => none.insert(zstd::bulk::Decompressor::new().ok()?),
        };
        unpacker.decompress_to_buffer(packed, plain.as_mut_slice()).ok()
    })?;
    plain.truncate(written);
    Some(plain)
}

#[cfg(test)]
mod tests;

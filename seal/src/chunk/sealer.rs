//! Sealing: compression where it pays, then encryption, in the memory that the plaintext lies in.
//!
//! Most bytes that people keep are compressed already. Trying costs as much as encrypting, so a long chunk is tried on a
//! sample first, and as a whole only if that gets shorter. The sample is taken at fixed places: the same chunk is sealed
//! to the same bytes by everybody who has this zstd.

use tallow_types::limits::CHUNK_MAX;

use super::{AAD_LEN, ChunkId, FLAG_ZSTD, HEADER_LEN, Plain, TAG_LEN, VERSION, nonce_of};
use crate::aead;
use crate::keys::ChunkKeys;

/// zstd's own default, a good trade on one core.
pub const DEFAULT_LEVEL: i32 = 3;

/// Pieces of a sample, one from each part of the chunk.
const PIECES: usize = 16;
/// Length of a piece. Bytes.
const PIECE: usize = 1 << 10;
/// The longest chunk that is tried as a whole at once. Bytes.
const SHORT: usize = 2 * PIECES * PIECE;
/// What the pieces have to save together for the whole chunk to be tried. Parts of a chunk that pack well make up for
/// others that don't, so this is far less than the sixteenth that the whole has to save. Bytes.
const HOPE: usize = PIECES * PIECE / 64;

/// Why a chunk can't be sealed. The caller's fault: it cuts blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk has 1 to {CHUNK_MAX} bytes, not {len}")]
pub struct SealError {
    /// How many bytes it has.
    pub len: usize,
}

/// The plaintext of a chunk in memory with room for header and tag, so that it is sealed where it lies.
pub struct Chunk {
    /// Room for the header, then the plaintext.
    memory: Vec<u8>,
}

impl Chunk {
    /// Copies a plaintext into memory that was used before.
    ///
    /// # Errors
    /// [`SealError`] if it is empty or too long.
    pub fn copied(plain: &[u8], mut memory: Vec<u8>) -> Result<Self, SealError> {
        if plain.is_empty() || plain.len() > CHUNK_MAX as usize {
            return Err(SealError { len: plain.len() });
        }
        memory.clear();
        memory.reserve(HEADER_LEN + plain.len() + TAG_LEN);
        memory.extend_from_slice(&[0; HEADER_LEN]);
        memory.extend_from_slice(plain);
        Ok(Self { memory })
    }

    fn plain(&self) -> &[u8] {
        &self.memory[HEADER_LEN..]
    }

    /// Makes the id: ask with it whether the chunk is stored already, before it is sealed.
    #[must_use]
    pub fn name(self, keys: &ChunkKeys) -> NamedChunk {
        NamedChunk { id: keys.id_of(self.plain()), chunk: self }
    }
}

/// A plaintext with the id that was made from it, ready to be sealed where it lies.
pub struct NamedChunk {
    id: ChunkId,
    chunk: Chunk,
}

impl NamedChunk {
    /// The id.
    #[must_use]
    pub const fn id(&self) -> ChunkId {
        self.id
    }

    /// Length of the plaintext.
    ///
    /// # Panics
    /// Never: it is limited.
    #[must_use]
    pub fn plain_len(&self) -> u32 {
        u32::try_from(self.chunk.plain().len()).expect("a chunk is at most 4 MiB long")
    }

    /// Its memory, for another chunk.
    #[must_use]
    pub fn into_memory(self) -> Vec<u8> {
        self.chunk.memory
    }
}

/// Seals chunks. It keeps the compressor's memory, so each worker has one of its own.
pub struct Sealer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new(DEFAULT_LEVEL)
    }
}

impl Sealer {
    /// With a zstd level. Any level opens the same; without memory for a compressor, chunks are sealed as they are.
    #[must_use]
    pub fn new(level: i32) -> Self {
        Self { compressor: zstd::bulk::Compressor::new(level).ok(), packed: Vec::new() }
    }

    /// The sealed bytes of a chunk.
    ///
    /// # Errors
    /// [`SealError`] if it is empty or too long.
    pub fn seal(&mut self, keys: &ChunkKeys, plain: &Plain<'_>) -> Result<Vec<u8>, SealError> {
        let chunk = Chunk::copied(plain.bytes, Vec::new())?;
        Ok(self.seal_in_place(keys, NamedChunk { id: plain.id, chunk }))
    }

    /// The same in the memory of the plaintext.
    #[must_use]
    pub fn seal_in_place(&mut self, keys: &ChunkKeys, chunk: NamedChunk) -> Vec<u8> {
        let plain_len = chunk.plain_len();
        let mut memory = chunk.chunk.memory;
        let is_packed = self.pack(&memory[HEADER_LEN..]);
        if is_packed {
            memory.truncate(HEADER_LEN);
            memory.extend_from_slice(&self.packed);
        }
        let (header, body) = memory.split_at_mut(HEADER_LEN);
        let nonce = nonce_of(&keys.nonces, &[body]);
        header[0] = VERSION;
        header[1] = if is_packed { FLAG_ZSTD } else { 0 };
        header[2..AAD_LEN].copy_from_slice(&plain_len.to_le_bytes());
        header[AAD_LEN..].copy_from_slice(&nonce);
        let tag = aead::seal(&keys.key(&chunk.id), &nonce, &header[..AAD_LEN], body);
        memory.extend_from_slice(&tag);
        memory
    }

    /// Whether compressing saves at least a sixteenth; the frame is in `packed` then.
    fn pack(&mut self, plain: &[u8]) -> bool {
        let is_hopeful = plain.len() <= SHORT || self.is_hopeful(plain);
        is_hopeful && self.compress(plain, plain.len() - plain.len().div_ceil(16)).is_some()
    }

    /// Compresses pieces of a chunk until they have saved enough.
    fn is_hopeful(&mut self, plain: &[u8]) -> bool {
        let mut saved = 0;
        (0..PIECES).any(|number| {
            // Not at equal distances: what repeats itself at the same ones would be seen from one side only.
            let part = plain.len() / PIECES;
            let begin = part * number + (part - PIECE) / PIECES * (number * 5 % PIECES);
            let piece = &plain[begin..][..PIECE];
            saved += self.compress(piece, PIECE).map_or(0, |len| PIECE - len);
            saved >= HOPE
        })
    }

    /// Puts the frame of some bytes into `packed` and answers its length, if that is no more than `most` bytes.
    fn compress(&mut self, bytes: &[u8], most: usize) -> Option<usize> {
        self.packed.resize(most, 0);
        let written = self.compressor.as_mut()?.compress_to_buffer(bytes, self.packed.as_mut_slice()).ok()?;
        self.packed.truncate(written);
        Some(written)
    }
}

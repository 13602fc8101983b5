//! What the catalog says of one blob: its kind, content, mode and times.
//!
//! A small blob lives in its entry. A larger one names its chunks; one of more than 4,096 chunks names lists of chunks,
//! each a sealed chunk itself, so that neither writer nor record holds the references of a whole disk image at once.

use std::io::{Error as IoError, ErrorKind, Read};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::codec::{Bounded, BoundedBytes};
use tallow_types::limits::{
    CHUNK_LIST_MAX, ENTRY_CHUNKS_MAX, ENTRY_LISTS_MAX, INLINE_BLOB_MAX, LINK_TARGET_MAX,
};
use tallow_types::tagged;
use tallow_types::unit::{Bytes, TimeMs};

use crate::chunk::ChunkRef;

/// One blob, folder or link.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    /// What it is, and what is in it.
    pub kind: Kind,
    /// When its content was changed last, as its file system told.
    pub modified: FileTime,
    /// Who may do what, as its file system told.
    pub mode: Mode,
    /// When it was stored.
    pub stored_at: TimeMs,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    /// A file, or a stream without a file.
    File(Content),
    /// A folder; listed so that empty ones, and the modes of all, come back.
    Dir,
    /// A symbolic link.
    Symlink(LinkTarget),
}

impl Entry {
    /// Bytes of content; of a link, of its target.
    #[must_use]
    pub fn size(&self) -> Bytes {
        match &self.kind {
            Kind::File(content) => content.size(),
            Kind::Dir => Bytes::ZERO,
            Kind::Symlink(target) => Bytes::new(target.as_bytes().len() as u64),
        }
    }
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Content {
    /// The bytes themselves.
    Inline(BoundedBytes<INLINE_BLOB_MAX>),
    /// Chunks in order.
    Chunks(Bounded<ChunkRef, ENTRY_CHUNKS_MAX>),
    /// Lists of chunks in order, each a chunk that holds an encoded [`ChunkList`].
    Lists {
        /// Bytes of content.
        size: Bytes,
        /// The lists.
        lists: Bounded<ChunkRef, ENTRY_LISTS_MAX>,
    },
}

impl Content {
    /// Bytes of content.
    #[must_use]
    pub fn size(&self) -> Bytes {
        match self {
            Self::Inline(bytes) => Bytes::new(bytes.len() as u64),
            Self::Chunks(chunks) => Bytes::new(chunks.iter().map(|chunk| u64::from(chunk.plain_len)).sum()),
            Self::Lists { size, .. } => *size,
        }
    }
}

/// Part of the chunks of a large blob. Its encoding is sealed as a chunk.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ChunkList {
    /// In order.
    pub chunks: Bounded<ChunkRef, CHUNK_LIST_MAX>,
}
tagged!(ChunkList, b"CL", 1, "chunk list", CHUNK_LIST_MAX * ChunkRef::LEN + 8);

/// Collects the chunks of one blob in bounded memory.
///
/// Whenever [`ContentBuilder::push`] or [`ContentBuilder::rest`] give a list, its encoding is to be sealed as a chunk,
/// and the reference of that chunk handed to [`ContentBuilder::listed`] before anything else is pushed.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    chunks: Vec<ChunkRef>,
    lists: Vec<ChunkRef>,
    size: u64,
}

impl ContentBuilder {
    /// Adds the next chunk. A list that is full comes back, to be sealed and stored.
    ///
    /// # Panics
    /// Never: a list is handed out when it is full.
    pub fn push(&mut self, chunk: ChunkRef) -> Option<ChunkList> {
        self.chunks.push(chunk);
        self.size += u64::from(chunk.plain_len);
        (self.chunks.len() == CHUNK_LIST_MAX).then(|| self.take())
    }

    fn take(&mut self) -> ChunkList {
        let chunks = std::mem::take(&mut self.chunks);
        ChunkList { chunks: Bounded::new(chunks).expect("handed out as soon as it is full") }
    }

    /// Adds the reference of a list that was handed out.
    pub fn listed(&mut self, list: ChunkRef) {
        self.lists.push(list);
    }

    /// After the last chunk: the list that is still to be stored, if the entry can't name all chunks itself.
    pub fn rest(&mut self) -> Option<ChunkList> {
        let fits = self.lists.is_empty() && self.chunks.len() <= ENTRY_CHUNKS_MAX;
        (!fits && !self.chunks.is_empty()).then(|| self.take())
    }

    /// The content; `None` if the blob has more lists than an entry names, some 64 TiB.
    #[must_use]
    pub fn finish(self) -> Option<Content> {
        if self.lists.is_empty() {
            return Bounded::new(self.chunks).map(Content::Chunks);
        }
        let lists = Bounded::new(self.lists).filter(|_| self.chunks.is_empty())?;
        Some(Content::Lists { size: Bytes::new(self.size), lists })
    }
}

/// A moment as file systems keep it, before 1970 too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize)]
pub struct FileTime {
    seconds: i64,
    nanos: u32,
}

impl FileTime {
    /// From seconds since 1970-01-01 UTC and nanoseconds after that; `None` unless `nanos` is below a second.
    #[must_use]
    pub const fn new(seconds: i64, nanos: u32) -> Option<Self> {
        if nanos < 1_000_000_000 { Some(Self { seconds, nanos }) } else { None }
    }

    /// From a clock's milliseconds, for streams that have no file.
    ///
    /// # Panics
    /// Never: a `u64` of milliseconds is an `i64` of seconds.
    #[must_use]
    pub fn from_clock(now: TimeMs) -> Self {
        let (seconds, ms) = (now.get() / 1000, now.get() % 1000);
        let seconds = i64::try_from(seconds).expect("a thousandth of u64::MAX fits");
        Self { seconds, nanos: u32::try_from(ms).expect("below 1000") * 1_000_000 }
    }

    /// Seconds since 1970-01-01 UTC, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after that second.
    #[must_use]
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

impl BorshDeserialize for FileTime {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (seconds, nanos) = <(i64, u32)>::deserialize_reader(reader)?;
        Self::new(seconds, nanos).ok_or_else(|| IoError::new(ErrorKind::InvalidData, "time out of range"))
    }
}

/// Permission bits: read, write, execute for three parties, and the three special ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Mode(u16);

impl Mode {
    const ALL: u16 = 0o7777;

    /// From the mode that a file system tells; the bits that say what kind of file it is are left out.
    #[must_use]
    pub fn from_system(mode: u32) -> Self {
        let [low, high, ..] = mode.to_le_bytes();
        Self(u16::from_le_bytes([low, high]) & Self::ALL)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

impl BorshDeserialize for Mode {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bits = u16::deserialize_reader(reader)?;
        let bad = || IoError::new(ErrorKind::InvalidData, "mode out of range");
        (bits & !Self::ALL == 0).then_some(Self(bits)).ok_or_else(bad)
    }
}

/// The target of a symbolic link, byte for byte: kept, never followed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct LinkTarget(BoundedBytes<LINK_TARGET_MAX>);

impl LinkTarget {
    /// From the bytes of a link; `None` if there are none, too many, or a NUL among them.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let is_target = !bytes.is_empty() && !bytes.contains(&0);
        BoundedBytes::new(bytes).filter(|_| is_target).map(Self)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl BorshDeserialize for LinkTarget {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bytes = BoundedBytes::<LINK_TARGET_MAX>::deserialize_reader(reader)?.into_vec();
        Self::new(bytes).ok_or_else(|| IoError::new(ErrorKind::InvalidData, "link target out of range"))
    }
}

#[cfg(test)]
mod tests;

//! Records: how the catalog and the repair index are written down. Both are tables; a log of records tells how each
//! came to be.
//!
//! ```text
//! record  | tag u16 | version u8 | 0 snapshot, 1 delta | count u32 | (key | value, or in a delta: 0, or 1 and value)... |
//! pieces    the record's bytes cut every 1 MiB, each sealed as a chunk
//! root    | "RR" | version u8 | previous root: 0, or 1 and a head reference | length u32 | pieces: count u32, chunk references |
//!           sealed as a chunk; the head in a commit names the newest
//! ```
//!
//! A log may begin with the snapshot of an empty table and tell the table in the deltas behind it. So a table of any size
//! is written down in parts of bounded size, one after the other, and only the roots that chain them are written at once.
//!
//! Guarantees: keys ascend, so that one table has one encoding and no key counts twice; a reader that goes back to the
//! last snapshot has everything; a record's size is checked against its limit before memory is taken for it.

mod parts;

use std::collections::BTreeMap;
use std::io::{Error as IoError, ErrorKind, Read};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::codec::{Bounded, DecodeError, Tagged, decode, encode};
use tallow_types::limits::{RECORD_CHANGES_MAX, RECORD_MAX, RECORD_PIECE_MAX, RECORD_PIECES_MAX};
use tallow_types::tagged;

use crate::chunk::ChunkRef;
use crate::head::HeadRef;

pub use parts::{Items, PARTS_MAX, Parts, head};

/// Where a writer ends one record and begins the next: no single change comes near the rest. Bytes.
const RECORD_TARGET: usize = RECORD_MAX / 2;

/// A table as its log tells it.
pub type Table<K, V> = BTreeMap<K, V>;

/// Changes of a table by key; `None` removes.
pub type Changes<K, V> = BTreeMap<K, Option<V>>;

/// One record of the log of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<K, V> {
    /// The table from here on, whatever was before.
    Snapshot(Vec<(K, V)>),
    /// What changes.
    Delta(Vec<(K, Option<V>)>),
}

impl<K: Ord + Clone + BorshSerialize, V: Clone + BorshSerialize> Record<K, V> {
    /// Changes as records: one, or several where they are too many for one. Only the last one's root goes into a
    /// commit, so they count together or not at all.
    #[must_use]
    pub fn deltas(changes: Changes<K, V>) -> Vec<Self> {
        let mut groups = group(changes.into_iter());
        if groups.is_empty() {
            groups.push(Vec::new());
        }
        groups.into_iter().map(Self::Delta).collect()
    }

    /// A whole table as records: a snapshot, and deltas behind it for what is too much for one.
    #[must_use]
    pub fn snapshots(table: &Table<K, V>) -> Vec<Self> {
        let mut groups = group(table.iter().map(|(key, value)| (key.clone(), value.clone()))).into_iter();
        let mut records = vec![Self::Snapshot(groups.next().unwrap_or_default())];
        records
            .extend(groups.map(|group| {
                Self::Delta(group.into_iter().map(|(key, value)| (key, Some(value))).collect())
            }));
        records
    }
}

impl<K: Ord, V> Record<K, V> {
    /// Whether it needs no record before it.
    #[must_use]
    pub const fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot(_))
    }

    /// Brings a table to the state after this record.
    pub fn apply(self, table: &mut Table<K, V>) {
        match self {
            Self::Snapshot(entries) => *table = entries.into_iter().collect(),
            Self::Delta(changes) => {
                for (key, change) in changes {
                    match change {
                        Some(value) => table.insert(key, value),
                        None => table.remove(&key),
                    };
                }
            }
        }
    }

    fn ascends(&self) -> bool {
        match self {
            Self::Snapshot(entries) => entries.is_sorted_by(|(a, _), (b, _)| a < b),
            Self::Delta(changes) => changes.is_sorted_by(|(a, _), (b, _)| a < b),
        }
    }
}

fn group<T: BorshSerialize>(items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    let (mut groups, mut bytes) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let len = borsh::object_length(&item).expect("measuring cannot fail");
        match groups.last_mut() {
            Some(group) if bytes + len <= RECORD_TARGET && group.len() < RECORD_CHANGES_MAX => {
                group.push(item)
            }
            _ => {
                groups.push(vec![item]);
                bytes = 0;
            }
        }
        bytes += len;
    }
    groups
}

impl<K: BorshSerialize, V: BorshSerialize> BorshSerialize for Record<K, V> {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        match self {
            Self::Snapshot(entries) => (0_u8, entries).serialize(writer),
            Self::Delta(changes) => (1_u8, changes).serialize(writer),
        }
    }
}

impl<K: Ord + BorshDeserialize, V: BorshDeserialize> BorshDeserialize for Record<K, V> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bad = |reason| IoError::new(ErrorKind::InvalidData, reason);
        let record = match u8::deserialize_reader(reader)? {
            0 => Self::Snapshot(Bounded::<_, RECORD_CHANGES_MAX>::deserialize_reader(reader)?.into_vec()),
            1 => Self::Delta(Bounded::<_, RECORD_CHANGES_MAX>::deserialize_reader(reader)?.into_vec()),
            _ => return Err(bad("neither snapshot nor delta")),
        };
        if record.ascends() { Ok(record) } else { Err(bad("keys do not ascend")) }
    }
}

/// Whether the table should be written down anew: as soon as reading its log costs twice what reading the table would. A
/// record counts as 4 KiB at least, because each one is a round trip. So a log that only adds never is, and each change
/// pays for its share of a snapshot once.
#[must_use]
pub const fn is_snapshot_due(records: u64, bytes: u64, table_bytes: u64) -> bool {
    let cost = bytes.saturating_add(records.saturating_mul(4 << 10));
    let worth = if table_bytes > 256 << 10 { table_bytes } else { 256 << 10 };
    cost >= worth.saturating_mul(2)
}

/// The encoding of a record, cut into the pieces that are sealed as chunks.
#[must_use]
pub fn pieces<T: Tagged>(record: &T) -> Vec<Vec<u8>> {
    encode(record).chunks(RECORD_PIECE_MAX).map(<[u8]>::to_vec).collect()
}

/// The root of a record: what came before it, and where its pieces are. Its encoding is sealed as a chunk.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RecordRoot {
    /// The root of the record before it.
    pub previous: Option<HeadRef>,
    /// Length of the record. Bytes.
    pub length: u32,
    /// Its pieces in order.
    pub pieces: Bounded<ChunkRef, RECORD_PIECES_MAX>,
}
tagged!(RecordRoot, b"RR", 1, "record root", RECORD_PIECES_MAX * ChunkRef::LEN + 128);

/// Why pieces make no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum RecordError {
    /// More than a record may have.
    #[error("a record of {len} bytes in {pieces} pieces is larger than the limit")]
    TooLarge { len: u64, pieces: usize },
    /// The pieces are not those that the root names.
    #[error("the record has {expected} bytes, its pieces have {found}")]
    Length { expected: u32, found: usize },
    /// The bytes are no record.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl RecordRoot {
    /// For pieces that are sealed and placed.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] above the limits of a record.
    pub fn new(previous: Option<HeadRef>, pieces: Vec<ChunkRef>) -> Result<Self, RecordError> {
        let len: u64 = pieces.iter().map(|piece| u64::from(piece.plain_len)).sum();
        let bad = RecordError::TooLarge { len, pieces: pieces.len() };
        let length = u32::try_from(len).ok().filter(|len| *len as usize <= RECORD_MAX);
        match (length, Bounded::new(pieces)) {
            (Some(length), Some(pieces)) => Ok(Self { previous, length, pieces }),
            _ => Err(bad),
        }
    }

    /// The record out of its opened pieces.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn join<T: Tagged>(&self, pieces: &[Vec<u8>]) -> Result<T, RecordError> {
        let found: usize = pieces.iter().map(Vec::len).sum();
        if found != self.length as usize || pieces.len() != self.pieces.len() {
            return Err(RecordError::Length { expected: self.length, found });
        }
        Ok(decode(&pieces.concat())?)
    }
}

#[cfg(test)]
mod tests;

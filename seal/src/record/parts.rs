//! Records piece by piece: a delta made of parts that were encoded one by one, and the items of any record read from its
//! pieces without holding it whole.
//!
//! ```text
//! a delta of parts   first piece   tag | version | 1 | count            the head alone
//!                    the others    (key | 1 | value)...                 a part each: its bytes depend on its items only
//! ```
//!
//! Where one part ends and the next begins is told by the keys, so that a part whose items have not changed has the bytes
//! that it had in the snapshot before, and the chunk of then is used again.

use std::marker::PhantomData;

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::codec::{DecodeError, Tagged, encode};
use tallow_types::domain;
use tallow_types::limits::{RECORD_CHANGES_MAX, RECORD_PIECE_MAX};

use super::{Record, RecordError};

/// Of so many keys, one ends a part that is large enough.
const KEYS_PER_END: u16 = 1 << 11;
/// Most parts of one record: what a reader that wants a record whole has to hold stays small.
pub const PARTS_MAX: usize = 15;
/// Longest encoding of one item, with room to spare: a blob that names 4,096 chunks, under the longest path. Bytes.
const ITEM_MAX: usize = 512 << 10;

/// Collects items of a table, in order, into a part.
#[derive(Debug)]
pub struct Parts {
    bytes: Vec<u8>,
    count: u32,
    max: usize,
}

impl Parts {
    /// Parts of about this size at most, and a quarter of it at least. Bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), count: 0, max: max.min(RECORD_PIECE_MAX / 2) }
    }

    /// Adds an item; true when the part ends with it.
    ///
    /// # Panics
    /// Never: writing to a vector cannot fail.
    pub fn push<K: BorshSerialize, V: BorshSerialize>(&mut self, key: &K, value: &V) -> bool {
        let begin = self.bytes.len();
        key.serialize(&mut self.bytes).expect("writing to a vector cannot fail");
        let [low, high, ..] = domain::PART_END.hash(&[&self.bytes[begin..]]);
        let is_end = u16::from_le_bytes([low, high]).is_multiple_of(KEYS_PER_END);
        (1u8, value).serialize(&mut self.bytes).expect("writing to a vector cannot fail");
        self.count += 1;
        let is_full = self.bytes.len() >= self.max || self.count as usize >= RECORD_CHANGES_MAX / PARTS_MAX;
        is_full || is_end && self.bytes.len() >= self.max / 4
    }

    /// The part, and how many items it has.
    #[must_use]
    pub fn take(self) -> (Vec<u8>, u32) {
        (self.bytes, self.count)
    }
}

/// The first piece of a record of parts: of a delta with so many items in all of them, or, where there are none, of the
/// snapshot of an empty table.
#[must_use]
pub fn head<K, V>(count: u32) -> Vec<u8>
where
    Record<K, V>: Tagged,
{
    let record = if count > 0 { Record::<K, V>::Delta(Vec::new()) } else { Record::Snapshot(Vec::new()) };
    let mut bytes = encode(&record);
    bytes.truncate(HEAD_LEN - 4);
    bytes.extend(count.to_le_bytes());
    bytes
}

/// Tag, version, kind and count. Bytes.
const HEAD_LEN: usize = 8;

/// Reads the items of a record from its pieces, whatever their lengths, holding no more than a piece and the start of an item.
#[derive(Debug)]
pub struct Items<K, V> {
    rest: Vec<u8>,
    /// Whether it is a snapshot, once that is known.
    kind: Option<bool>,
    left: u32,
    last: Option<K>,
    items: PhantomData<V>,
}

impl<K, V> Default for Items<K, V> {
    fn default() -> Self {
        Self { rest: Vec::new(), kind: None, left: 0, last: None, items: PhantomData }
    }
}

impl<K: Ord + Clone + BorshDeserialize, V: BorshDeserialize> Items<K, V>
where
    Record<K, V>: Tagged,
{
    /// Whether the record is a snapshot; `None` before its first piece.
    #[must_use]
    pub const fn is_snapshot(&self) -> Option<bool> {
        self.kind
    }

    /// The items that end in the next piece; `None` removes.
    ///
    /// # Errors
    /// [`RecordError::Decode`] if this is no record.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<(K, Option<V>)>, RecordError> {
        self.rest.extend_from_slice(piece);
        let rest = std::mem::take(&mut self.rest);
        let mut at = rest.as_slice();
        if self.kind.is_none() && !self.begin(&mut at)? {
            self.rest = rest;
            return Ok(Vec::new());
        }
        let mut items = Vec::new();
        while self.left > 0 && !at.is_empty() {
            let mut ahead = at;
            match self.item(&mut ahead) {
                Ok(item) => {
                    if self.last.as_ref().is_some_and(|last| *last >= item.0) {
                        return Err(damaged::<K, V>("keys do not ascend"));
                    }
                    self.last = Some(item.0.clone());
                    items.push(item);
                    self.left -= 1;
                    at = ahead;
                }
                // Its end may be in the next piece.
                Err(_) if at.len() < ITEM_MAX => break,
                Err(error) => return Err(damaged::<K, V>(&error.to_string())),
            }
        }
        if self.left == 0 && !at.is_empty() {
            return Err(damaged::<K, V>("bytes behind its end"));
        }
        self.rest = at.to_vec();
        Ok(items)
    }

    fn item(&self, at: &mut &[u8]) -> std::io::Result<(K, Option<V>)> {
        let key = K::deserialize(at)?;
        let value =
            if self.kind == Some(true) { Some(V::deserialize(at)?) } else { Option::deserialize(at)? };
        Ok((key, value))
    }

    /// Reads the head; false if it is not all there yet.
    fn begin(&mut self, at: &mut &[u8]) -> Result<bool, RecordError> {
        let Some(([tag0, tag1, version, kind, count @ ..], rest)) = at.split_first_chunk::<HEAD_LEN>() else {
            return Ok(false);
        };
        let (name, known) = (<Record<K, V> as Tagged>::NAME, <Record<K, V> as Tagged>::VERSION);
        if !head::<K, V>(0).starts_with(&[*tag0, *tag1]) {
            return Err(DecodeError::WrongTag { name }.into());
        }
        if *version != known {
            return Err(DecodeError::UnknownVersion { name, found: *version, known }.into());
        }
        let count = u32::from_le_bytes(*count);
        if *kind > 1 {
            return Err(damaged::<K, V>("neither snapshot nor delta"));
        }
        if count as usize > RECORD_CHANGES_MAX {
            return Err(damaged::<K, V>("more items than the limit"));
        }
        (self.kind, self.left) = (Some(*kind == 0), count);
        *at = rest;
        Ok(true)
    }

    /// After the last piece.
    ///
    /// # Errors
    /// [`RecordError::Decode`] if something is missing.
    pub fn end(self) -> Result<(), RecordError> {
        let is_whole = self.kind.is_some() && self.left == 0 && self.rest.is_empty();
        if is_whole { Ok(()) } else { Err(damaged::<K, V>("its end is missing or not in order")) }
    }
}

fn damaged<K, V>(reason: &str) -> RecordError
where
    Record<K, V>: Tagged,
{
    DecodeError::Damaged { name: <Record<K, V> as Tagged>::NAME, reason: reason.to_owned() }.into()
}

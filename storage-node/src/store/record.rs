//! Bytes of a segment file: a header, then records, each of which says what it is. `docs/formats/segment.md` draws
//! them.
//!
//! Guarantees: a record is found and named from the segment alone, without an index; a header that was torn, belongs to
//! another segment or was put there by a client inside its own slice is not taken for one. The last holds because the
//! check value covers a random salt that only the segment's own header shows.
//!
//! Does not say whether the slice behind a header is whole: its root does.

use tallow_types::limits::SLICE_MAX;
use tallow_types::{ContractId, Epoch, SliceRoot, SlotIndex, StripeId};

use super::backend::SegmentId;
use super::key::SliceKey;

/// Length of both headers, and what every record is aligned to. Slices are multiples of 1 KiB. Bytes.
pub const HEADER: u64 = 128;
pub(super) const LEN: usize = 128;
const CHECK: usize = LEN - 4;
const SEGMENT_MAGIC: &[u8; 8] = b"TLWSEGMT";
const RECORD_MAGIC: &[u8; 4] = b"TLWR";
/// Layout of segment files that this program writes.
pub const VERSION: u8 = 1;

/// Random bytes of one segment.
pub type Salt = [u8; 16];

/// The start of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its ordinal.
    pub id: SegmentId,
    /// Its length. Bytes.
    pub length: u64,
    /// What its records' check values cover.
    pub salt: Salt,
}

/// Why a segment header isn't one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Torn, or no segment.
    #[error("not a segment file, or its first bytes are damaged")]
    Damaged,
    /// Written by another program version.
    #[error("segment file has version {0}, this program reads version {VERSION}")]
    Version(u8),
}

impl SegmentHeader {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..8].copy_from_slice(SEGMENT_MAGIC);
        out[8] = VERSION;
        out[16..24].copy_from_slice(&self.id.to_le_bytes());
        out[24..32].copy_from_slice(&self.length.to_le_bytes());
        out[32..48].copy_from_slice(&self.salt);
        let check = crc32fast::hash(&out[..CHECK]);
        out[CHECK..].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn decode(bytes: &[u8; LEN]) -> Result<Self, HeaderError> {
        if &bytes[..8] != SEGMENT_MAGIC || crc32fast::hash(&bytes[..CHECK]).to_le_bytes() != bytes[CHECK..] {
            return Err(HeaderError::Damaged);
        }
        if bytes[8] != VERSION {
            return Err(HeaderError::Version(bytes[8]));
        }
        Ok(Self { id: u64_at(bytes, 16), length: u64_at(bytes, 24), salt: array_at(bytes, 32) })
    }
}

/// The start of a record: names the slice that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Which slice.
    pub key: SliceKey,
    /// Its length. Bytes.
    pub length: u32,
    /// BLAKE3 of it.
    pub root: SliceRoot,
    /// When it was stored.
    pub stored: Epoch,
}

impl RecordHeader {
    /// Bytes that the record takes in its segment, this header included.
    #[must_use]
    pub fn span(length: u32) -> u64 {
        (HEADER + u64::from(length)).next_multiple_of(HEADER)
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self, salt: &Salt) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..4].copy_from_slice(RECORD_MAGIC);
        out[4] = VERSION;
        out[5] = self.key.slot.get();
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..44].copy_from_slice(self.key.contract.as_bytes());
        out[44..60].copy_from_slice(self.key.stripe.as_bytes());
        out[60..92].copy_from_slice(self.root.as_bytes());
        out[92..100].copy_from_slice(&self.stored.get().to_le_bytes());
        let check = check(&out, salt);
        out[CHECK..].copy_from_slice(&check);
        out
    }

    /// From bytes; `None` if they are anything else.
    #[must_use]
    pub fn decode(bytes: &[u8; LEN], salt: &Salt) -> Option<Self> {
        if &bytes[..4] != RECORD_MAGIC || bytes[4] != VERSION || check(bytes, salt) != bytes[CHECK..] {
            return None;
        }
        let length = u32::from_le_bytes(array_at(bytes, 8));
        let key = SliceKey {
            contract: ContractId::new(array_at(bytes, 12)),
            slot: SlotIndex::new(bytes[5]),
            stripe: StripeId::new(array_at(bytes, 44)),
        };
        let stored = Epoch::new(u64_at(bytes, 92));
        (length <= SLICE_MAX).then_some(Self {
            key,
            length,
            root: SliceRoot::new(array_at(bytes, 60)),
            stored,
        })
    }
}

fn check(header: &[u8; LEN], salt: &Salt) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(salt);
    hasher.update(&header[..CHECK]);
    hasher.finalize().to_le_bytes()
}

fn array_at<const N: usize>(bytes: &[u8; LEN], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("fields lie inside the header")
}

fn u64_at(bytes: &[u8; LEN], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> RecordHeader {
        RecordHeader {
            key: SliceKey {
                contract: ContractId::new([1; 32]),
                slot: SlotIndex::new(2),
                stripe: StripeId::new([3; 16]),
            },
            length: 1024,
            root: SliceRoot::new([4; 32]),
            stored: Epoch::new(5),
        }
    }

    /// Goal: any damaged byte, and any other segment's salt, is noticed. Method: flip each byte of a good header.
    #[test]
    fn headers_notice_damage() {
        let salt = [9; 16];
        let good = record().encode(&salt);
        assert_eq!(RecordHeader::decode(&good, &salt), Some(record()));
        assert_eq!(RecordHeader::decode(&good, &[8; 16]), None);
        let segment = SegmentHeader { id: 7, length: 1 << 20, salt };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
        for at in 0..LEN {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert_eq!(RecordHeader::decode(&bad, &salt), None, "byte {at}");
            let mut bad = segment.encode();
            bad[at] ^= 0x40;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
    }

    /// Goal: a length above the largest slice is no record. Method: encode one above.
    #[test]
    fn length_is_limited() {
        let salt = [0; 16];
        for (length, ok) in [(SLICE_MAX, true), (SLICE_MAX + 1, false)] {
            let bytes = RecordHeader { length, ..record() }.encode(&salt);
            assert_eq!(RecordHeader::decode(&bytes, &salt).is_some(), ok);
        }
    }
}

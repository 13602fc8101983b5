//! What a codec says when it is handed the wrong things. All of it is the caller's fault, found before any work is done.

use tallow_types::unit::SlotIndex;

/// Why a stripe can't be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum EncodeError {
    /// Not k data slices.
    #[error("the code takes {expected} data slices, not {found}")]
    DataCount { expected: u8, found: usize },
    /// Not n - k buffers.
    #[error("the code makes {expected} parity slices, not {found}")]
    ParityCount { expected: u8, found: usize },
    /// Slices without a byte.
    #[error("slices are empty")]
    Empty,
    /// A slice or buffer of another length than the first data slice.
    #[error("slice {slot} has {found} bytes, the others have {expected}")]
    Length { slot: SlotIndex, expected: usize, found: usize },
}

/// Why slices can't be made from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum DecodeError {
    /// Fewer than k.
    #[error("{found} slices are too few, {needed} are needed")]
    TooFew { needed: u8, found: usize },
    /// A slot that the profile doesn't have.
    #[error("slot {slot} is not one of the {slots} of the stripe")]
    NoSuchSlot { slot: SlotIndex, slots: u8 },
    /// A slot that is given, or wanted, twice.
    #[error("slot {slot} is named twice")]
    Twice { slot: SlotIndex },
    /// Slices without a byte.
    #[error("slices are empty")]
    Empty,
    /// A slice or buffer of another length than the first slice given.
    #[error("slice {slot} has {found} bytes, the others have {expected}")]
    Length { slot: SlotIndex, expected: usize, found: usize },
    /// Not one buffer for each slice wanted.
    #[error("{wanted} slices are wanted, but {found} buffers are given")]
    Buffers { wanted: usize, found: usize },
}

impl DecodeError {
    /// Whether more slices would help; everything else is a bug of the caller.
    #[must_use]
    pub const fn needs_more_slices(&self) -> bool {
        matches!(self, Self::TooFew { .. })
    }
}

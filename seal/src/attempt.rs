//! The rule of the upload journal: a stripe that can't be replayed byte for byte is abandoned, never coded again under
//! its id. Otherwise one keystream would cover two messages, and a seeder that saw both would know their difference.
//!
//! Before a stripe is coded, its attempt is written to the journal and synced. Slices are masked for a network only
//! with a [`Permit`], and only an attempt whose digest fits the stream gives one. A machine without its journal has no
//! attempts, so it begins new ones, with new random ids.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::id::{ContractId, Digest, SliceRoot, StripeId};
use tallow_types::limits::TILE;
use tallow_types::tagged;
use tallow_types::unit::SlotIndex;

use crate::keys::MaskSecret;
use crate::mask::StripeMask;
use crate::stripe::Stripe;

/// One encoding attempt, as the journal keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StripeAttempt {
    /// The contract, whose mask secret it takes.
    pub contract: ContractId,
    /// The stripe: 128 random bits, new for each attempt.
    pub stripe: StripeId,
    /// What is coded under that id: profile, slice length and sealed bytes.
    pub digest: Digest,
}
tagged!(StripeAttempt, b"SA", 1, "stripe attempt", 128);

/// The stripe's bytes are not those of the attempt: its id must never be used again. Begin a new attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stripe {} can't be replayed byte for byte and is abandoned", .stripe.short())]
pub struct Abandoned {
    /// The id that is spent.
    pub stripe: StripeId,
}

/// Why slices can't be masked: they are not those of the stripe. A bug of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum MaskError {
    /// Not n slices.
    #[error("the stripe has {expected} slices, not {found}")]
    Count { expected: u8, found: usize },
    /// A slice of another length, or a data slice with other bytes than the permit is for.
    #[error("slice {slot} is not the one that this stripe has")]
    Slice { slot: SlotIndex },
}

impl StripeAttempt {
    /// A new attempt under a fresh random id. Journal it durably before asking for a permit.
    #[must_use]
    pub fn begin(contract: ContractId, stripe: StripeId, content: &Stripe) -> Self {
        Self { contract, stripe, digest: content.digest() }
    }

    /// The right to code `content` under this attempt's id.
    ///
    /// # Errors
    /// [`Abandoned`] if its bytes are not those that the attempt was begun with.
    pub fn permit<'a>(&self, content: &'a Stripe) -> Result<Permit<'a>, Abandoned> {
        if content.digest() == self.digest {
            Ok(Permit { stripe: self.stripe, content })
        } else {
            Err(Abandoned { stripe: self.stripe })
        }
    }
}

/// The right to mask one content under one stripe id.
pub struct Permit<'a> {
    stripe: StripeId,
    content: &'a Stripe,
}

impl Permit<'_> {
    /// The stripe's id.
    #[must_use]
    pub const fn stripe(&self) -> StripeId {
        self.stripe
    }

    /// Masks all n slices in place, data first, and gives their roots. That the data slices are the stripe's is
    /// checked; parity is the code's word, which is a function of them.
    ///
    /// # Errors
    /// [`MaskError`] if these are not the slices of the stripe; some may be masked already.
    pub fn mask(&self, secret: &MaskSecret, slices: &mut [Vec<u8>]) -> Result<Vec<SliceRoot>, MaskError> {
        let profile = self.content.profile();
        if slices.len() != usize::from(profile.slots()) {
            return Err(MaskError::Count { expected: profile.slots(), found: slices.len() });
        }
        self.check_lengths(slices)?;
        self.check_data(slices)?;
        let mask = secret.stripe(&self.stripe);
        Ok(profile.slot_indices().zip(slices).map(|(slot, slice)| mask_slice(&mask, slot, slice)).collect())
    }

    fn check_lengths(&self, slices: &[Vec<u8>]) -> Result<(), MaskError> {
        let len = self.content.layout().slice_len() as usize;
        let slots = self.content.profile().slot_indices();
        match slots.zip(slices).find(|(_, slice)| slice.len() != len) {
            Some((slot, _)) => Err(MaskError::Slice { slot }),
            None => Ok(()),
        }
    }

    fn check_data(&self, slices: &[Vec<u8>]) -> Result<(), MaskError> {
        let (layout, stream) = (self.content.layout(), self.content.stream());
        let mut rest = stream;
        let pieces = layout.locate(0, layout.capacity()).expect("a layout holds its own capacity");
        for piece in pieces {
            let begin = piece.offset as usize;
            let found = &slices[usize::from(piece.slot.get())][begin..begin + piece.len as usize];
            let (expected, behind) = rest.split_at(found.len().min(rest.len()));
            let (stored, padding) = found.split_at(expected.len());
            if stored != expected || padding.iter().any(|byte| *byte != 0) {
                return Err(MaskError::Slice { slot: piece.slot });
            }
            rest = behind;
        }
        Ok(())
    }
}

/// Masks a slice and makes its root, tile by tile, so that each is hashed while it is in cache.
fn mask_slice(mask: &StripeMask, slot: SlotIndex, slice: &mut [u8]) -> SliceRoot {
    let mut hasher = blake3::Hasher::new();
    for (offset, tile) in (0..).step_by(TILE as usize).zip(slice.chunks_mut(TILE as usize)) {
        mask.apply(slot, offset, tile);
        hasher.update(tile);
    }
    SliceRoot::new(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests;

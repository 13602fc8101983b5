//! The rule of the upload journal: a stripe that can't be replayed byte for byte is abandoned, never coded again under
//! its id. Otherwise one keystream would cover two messages, and a seeder that saw both would know their difference.
//!
//! Before a stripe is coded, its attempt is written to the journal. It need not be durable for this rule: an id is random, so
//! a row that is lost leads to another id, and one that is found names its digest. Slices are masked for a network only
//! with a [`Permit`], and only an attempt whose digest fits the stream gives one. The permit itself takes the data slices
//! out of that stream, so there is no way to hand it other bytes or another order. A machine without its journal has no
//! attempts, so it begins new ones, with new random ids.
//!
//! Slices are made row by row, each tile coded, masked and hashed while it is in cache.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::id::{ContractId, Digest, SliceRoot, StripeId};
use tallow_types::tagged;

use crate::keys::MaskSecret;
use crate::mask::{Pad, SlotMask};
use crate::stripe::Stripe;

/// Columns that are coded, masked and hashed at a time: n pieces of this many bytes, and the k that they are made of, are
/// in the second cache together. A power of two, or hashing takes smaller steps.
const STEP: usize = 32 << 10;

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

/// Why slices can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum CodeError<E> {
    /// The caller's memory has another size.
    #[error("the slices of the stripe take {expected} bytes, not {found}")]
    Room { expected: usize, found: usize },
    /// What the code says.
    #[error(transparent)]
    Encode(#[from] E),
}

impl StripeAttempt {
    /// A new attempt under a fresh random id. Journal it before asking for a permit, so that it can be gone on with.
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

    /// Bytes that all n slices take together.
    #[must_use]
    pub fn room(&self) -> usize {
        usize::from(self.content.profile().slots()) * self.content.layout().slice_len() as usize
    }

    /// Writes all n slices, masked, to `out`, one behind the other, and gives their roots. `encode` makes tiles of parity
    /// out of tiles of data, some of all columns at a time; what it writes is the code's word, a function of the data.
    ///
    /// # Errors
    /// [`CodeError`] if `out` has not [`Permit::room`] bytes, or `encode` fails; `out` may hold anything then.
    pub fn code<E>(
        self,
        secret: &MaskSecret,
        out: &mut [u8],
        mut encode: impl FnMut(&[&[u8]], &mut [&mut [u8]]) -> Result<(), E>,
    ) -> Result<Vec<SliceRoot>, CodeError<E>> {
        if out.len() != self.room() {
            return Err(CodeError::Room { expected: self.room(), found: out.len() });
        }
        let (profile, layout) = (self.content.profile(), self.content.layout());
        let mask = secret.stripe(&self.stripe);
        let slices = out.chunks_exact_mut(layout.slice_len() as usize);
        let mut slices: Vec<Making<'_>> = profile
            .slot_indices()
            .zip(slices)
            .map(|(slot, rest)| Making::new(mask.slot(slot), rest))
            .collect();
        let mut pad = Pad::new();
        for row in self.content.rows() {
            let tile = row.len() / usize::from(profile.data());
            for begin in (0..tile).step_by(STEP) {
                let len = STEP.min(tile - begin);
                let data: Vec<&[u8]> = row.chunks_exact(tile).map(|tile| &tile[begin..begin + len]).collect();
                let mut tiles: Vec<&mut [u8]> = slices.iter_mut().map(|slice| slice.next(len)).collect();
                let (data_out, parity_out) = tiles.split_at_mut(data.len());
                encode(&data, parity_out)?;
                let (data_slices, parity_slices) = slices.split_at_mut(data.len());
                for ((slice, plain), out) in data_slices.iter_mut().zip(&data).zip(data_out) {
                    slice.mask.write(slice.offset, plain, out);
                    slice.hash(out);
                }
                for (slice, out) in parity_slices.iter_mut().zip(parity_out) {
                    slice.mask.apply(slice.offset, out, &mut pad);
                    slice.hash(out);
                }
            }
        }
        Ok(slices.iter().map(|slice| SliceRoot::new(*slice.hasher.finalize().as_bytes())).collect())
    }
}

/// A slice in the making.
struct Making<'a> {
    mask: SlotMask,
    hasher: blake3::Hasher,
    /// Where the next tile begins. Bytes.
    offset: u32,
    rest: &'a mut [u8],
}

impl<'a> Making<'a> {
    fn new(mask: SlotMask, rest: &'a mut [u8]) -> Self {
        Self { mask, hasher: blake3::Hasher::new(), offset: 0, rest }
    }

    /// Room for the next tile.
    fn next(&mut self, len: usize) -> &'a mut [u8] {
        let (tile, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        tile
    }

    fn hash(&mut self, tile: &[u8]) {
        self.hasher.update(tile);
        self.offset += u32::try_from(tile.len()).expect("a tile has at most 64 KiB");
    }
}

#[cfg(test)]
mod tests;

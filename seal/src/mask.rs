//! Masks: the keystream over each slice that keeps seeders from re-creating each other's. It depends on stripe and
//! slot, so whoever repairs makes the same bytes again.
//!
//! ```text
//! stripe key = MASK_STRIPE (mask secret | stripe id 16)
//! slice key  = MASK_SLICE (stripe key | slot u8)
//! keystream  = keyed BLAKE3 (slice key, nothing), extended output, from byte 0 of the slice
//! ```
//!
//! Guarantees: a range is masked as in the whole; masking twice gives back what was. A share can hand out the key of
//! its own stripes and nothing more.
//!
//! Does not see to it that a keystream covers one message only: that is [`crate::attempt`]'s part.

use tallow_types::domain;
use tallow_types::id::StripeId;
use tallow_types::unit::SlotIndex;
use zeroize::{Zeroize, Zeroizing};

use crate::keys::{MaskSecret, Secret};

impl MaskSecret {
    /// The masks of one stripe.
    #[must_use]
    pub fn stripe(&self, stripe: &StripeId) -> StripeMask {
        StripeMask(Zeroizing::new(domain::MASK_STRIPE.hash(&[&*self.0, stripe.as_bytes()])))
    }
}

/// The masks of one stripe.
pub struct StripeMask(Secret);

impl StripeMask {
    /// Masks or unmasks `bytes`, which begin at `offset` in the slice of `slot`.
    pub fn apply(&self, slot: SlotIndex, offset: u32, bytes: &mut [u8]) {
        let key: Secret = Zeroizing::new(domain::MASK_SLICE.hash(&[&*self.0, &[slot.get()]]));
        let mut keystream = blake3::Hasher::new_keyed(&key).finalize_xof();
        keystream.set_position(u64::from(offset));
        let mut pad = [0; 4096];
        for part in bytes.chunks_mut(pad.len()) {
            let pad = &mut pad[..part.len()];
            keystream.fill(pad);
            for (byte, mask) in part.iter_mut().zip(pad.iter()) {
                *byte ^= mask;
            }
        }
        pad.zeroize();
    }
}

#[cfg(test)]
mod tests;

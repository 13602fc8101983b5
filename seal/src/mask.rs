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

use blake3::OutputReader;
use tallow_types::domain;
use tallow_types::id::StripeId;
use tallow_types::unit::SlotIndex;
use zeroize::Zeroizing;

use crate::keys::{MaskSecret, Secret};

/// Keystream that is made at once: many blocks side by side, and still in the first cache when it is used.
const PAD: usize = 8 << 10;

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
        self.slot(slot).apply(offset, bytes, &mut Pad::new());
    }

    pub(crate) fn slot(&self, slot: SlotIndex) -> SlotMask {
        let key: Secret = Zeroizing::new(domain::MASK_SLICE.hash(&[&*self.0, &[slot.get()]]));
        SlotMask(blake3::Hasher::new_keyed(&key).finalize_xof())
    }
}

/// Room for keystream. Whoever masks many ranges keeps one, for it is wiped when it goes.
pub(crate) struct Pad([u8; PAD]);

impl Pad {
    pub const fn new() -> Self {
        Self([0; PAD])
    }
}

impl Drop for Pad {
    fn drop(&mut self) {
        self.0.fill(0);
        zeroize::optimization_barrier(&self.0);
    }
}

/// The mask of one slice.
pub(crate) struct SlotMask(OutputReader);

impl SlotMask {
    /// Masks or unmasks in place.
    pub fn apply(&mut self, offset: u32, bytes: &mut [u8], pad: &mut Pad) {
        self.0.set_position(u64::from(offset));
        for part in bytes.chunks_mut(PAD) {
            let pad = &mut pad.0[..part.len()];
            self.0.fill(pad);
            add(part, pad);
        }
    }

    /// Writes `plain` masked to `out`, which has its length.
    pub fn write(&mut self, offset: u32, plain: &[u8], out: &mut [u8]) {
        self.0.set_position(u64::from(offset));
        for (plain, out) in plain.chunks(PAD).zip(out.chunks_mut(PAD)) {
            self.0.fill(out);
            add(out, plain);
        }
    }
}

fn add(bytes: &mut [u8], mask: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;

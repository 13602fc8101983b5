//! Erasure coding of one stripe: `data` slices in, `parity` slices out, and any `data` of them bring back the rest.
//!
//! Guarantees: those of [`Codec`], by every [`Engine`] alike; the best that the processor has is chosen at run time. Does
//! not contain: masks and lengths of stripes (see `seal`), any check that slices are what they should be; slices are
//! compared with their roots before they come here.

mod code;
mod engine;
mod error;
mod factors;
mod field;
mod slots;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

pub use code::Code;
pub use engine::Engine;
pub use error::{DecodeError, EncodeError};

/// A systematic erasure code over the slices of one stripe.
///
/// # Format
/// The code is Reed-Solomon over GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1. Its n x k matrix is the
/// Vandermonde matrix `v[r][c] = r^c` times the inverse of its upper k x k part: what the crate `reed-solomon-erasure`
/// computes, which is the judge in all tests. An engine that gives other bytes is wrong.
///
/// # Systematic
/// The slices of slots `0..k` are the data itself, byte for byte.
///
/// # Any k
/// Any k different slices of a stripe give back every other one of it, data or parity.
///
/// # By column
/// Byte i of a slice depends on byte i of the others alone. So all calls take ranges of slices as well as whole ones,
/// as long as they are the same range of each.
///
/// # Single rows
/// [`Codec::recreate`] makes the slices asked for and no others, and reads exactly k. One slice, data or parity, costs one
/// pass over k.
///
/// # Deterministic
/// The same input gives the same bytes, on every platform and from every engine.
///
/// # Any memory
/// Lengths and alignments are free. Slices that begin at multiples of 64 bytes, best all in one piece of memory, are
/// coded up to twice as fast as slices that an allocator placed one by one.
///
/// # Caller's buffers
/// Results are written to the caller's memory, wholly overwritten and not read; nothing of the size of a slice is allocated. After an
/// error, which is always found before any work is done, they are as before.
pub trait Codec: Send + Sync {
    /// k of n.
    fn profile(&self) -> Profile;

    /// Makes all parity slices from all data slices.
    ///
    /// # Errors
    /// [`EncodeError`] unless there are k data slices and n - k buffers of one length, at least one byte.
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), EncodeError>;

    /// Makes all k data slices from any k or more slices, in any order; what is there already is copied.
    ///
    /// # Errors
    /// [`DecodeError`] unless `present` has at least k different slots and `data_out` k buffers, all of one length.
    fn decode(&self, present: &[(SlotIndex, &[u8])], data_out: &mut [&mut [u8]]) -> Result<(), DecodeError>;

    /// Makes the slices of the slots wanted, data or parity, from any k or more slices, in any order; what is there
    /// already is copied.
    ///
    /// # Errors
    /// [`DecodeError`] unless `present` has at least k different slots and `out` one buffer for each of `wanted`, all of
    /// one length.
    fn recreate(
        &self,
        present: &[(SlotIndex, &[u8])],
        wanted: &[SlotIndex],
        out: &mut [&mut [u8]],
    ) -> Result<(), DecodeError>;
}

/// Most codecs that are kept. A program works with a handful of profiles.
const CACHED_MAX: usize = 64;

static CACHE: Mutex<BTreeMap<Profile, Arc<Code>>> = Mutex::new(BTreeMap::new());

/// The codec of a profile, on the best engine of this processor. Codecs remember the factors of losses that they have
/// seen, so they are kept and shared.
#[must_use]
pub fn codec(profile: Profile) -> Arc<dyn Codec> {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = cache.get(&profile) {
        return known.clone();
    }
    if cache.len() == CACHED_MAX {
        cache.clear();
    }
    let made = Arc::new(Code::new(profile, Engine::best()));
    cache.insert(profile, made.clone());
    made
}

#[cfg(test)]
mod tests;

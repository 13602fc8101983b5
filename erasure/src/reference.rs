//! The first engine: the crate `reed-solomon-erasure`, whose code is the format.
//!
//! Encoding is the crate's. For decoding it would want every slice as an owned buffer, so this engine only asks it how:
//! given unit vectors instead of slices, `reconstruct` answers with the coefficients by which any row of the code is made
//! of the k rows at hand, since the code is linear. The slices then go once through the crate's field arithmetic, from
//! the caller's buffers into the caller's buffers.

use reed_solomon_erasure::galois_8::{self, ReedSolomon};
use tallow_types::limits::TILE;
use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

use crate::Codec;
use crate::error::{DecodeError, EncodeError};

/// Work goes in pieces of this many bytes of each slice, so that a row of them stays in cache.
const STEP: usize = TILE as usize;

/// Reed-Solomon by the crate `reed-solomon-erasure`.
pub struct Reference {
    profile: Profile,
    engine: ReedSolomon,
}

impl Reference {
    /// For one profile.
    ///
    /// # Panics
    /// Never: every profile is inside the range of the code.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let (data, parity) = (usize::from(profile.data()), usize::from(profile.parity()));
        let engine = ReedSolomon::new(data, parity).expect("a profile has at most 255 slots");
        Self { profile, engine }
    }

    /// The coefficients of every row in terms of the rows of `sources`, which are k different ones in ascending order.
    fn coefficients(&self, sources: &[SlotIndex]) -> Vec<Option<Vec<u8>>> {
        let mut rows = vec![None; usize::from(self.profile.slots())];
        for (at, source) in sources.iter().enumerate() {
            let mut unit = vec![0; sources.len()];
            unit[at] = 1;
            rows[row_of(*source)] = Some(unit);
        }
        self.engine.reconstruct(&mut rows).expect("k different rows of the code make all others");
        rows
    }

    /// Checks slices that were given, and sorts them by slot.
    fn sorted<'a>(
        &self,
        present: &[(SlotIndex, &'a [u8])],
    ) -> Result<Vec<(SlotIndex, &'a [u8])>, DecodeError> {
        let mut sorted = present.to_vec();
        sorted.sort_by_key(|(slot, _)| *slot);
        self.check_slots(sorted.iter().map(|(slot, _)| *slot))?;
        let needed = self.profile.data();
        let Some(((_, first), true)) =
            sorted.first().map(|first| (first, sorted.len() >= usize::from(needed)))
        else {
            return Err(DecodeError::TooFew { needed, found: sorted.len() });
        };
        if first.is_empty() {
            return Err(DecodeError::Empty);
        }
        let expected = first.len();
        match sorted.iter().find(|(_, bytes)| bytes.len() != expected) {
            Some((slot, bytes)) => Err(DecodeError::Length { slot: *slot, expected, found: bytes.len() }),
            None => Ok(sorted),
        }
    }

    /// Each slot in ascending order is one of the profile's and named once.
    fn check_slots(&self, slots: impl Iterator<Item = SlotIndex>) -> Result<(), DecodeError> {
        let mut last = None;
        for slot in slots {
            if slot.get() >= self.profile.slots() {
                return Err(DecodeError::NoSuchSlot { slot, slots: self.profile.slots() });
            }
            if last.replace(slot) == Some(slot) {
                return Err(DecodeError::Twice { slot });
            }
        }
        Ok(())
    }
}

fn row_of(slot: SlotIndex) -> usize {
    usize::from(slot.get())
}

impl Codec for Reference {
    fn profile(&self) -> Profile {
        self.profile
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), EncodeError> {
        let profile = self.profile;
        if data.len() != usize::from(profile.data()) {
            return Err(EncodeError::DataCount { expected: profile.data(), found: data.len() });
        }
        if parity.len() != usize::from(profile.parity()) {
            return Err(EncodeError::ParityCount { expected: profile.parity(), found: parity.len() });
        }
        let expected = data[0].len();
        if expected == 0 {
            return Err(EncodeError::Empty);
        }
        let lengths = data.iter().map(|slice| slice.len()).chain(parity.iter().map(|slice| slice.len()));
        for (slot, found) in profile.slot_indices().zip(lengths) {
            if found != expected {
                return Err(EncodeError::Length { slot, expected, found });
            }
        }
        for begin in (0..expected).step_by(STEP) {
            let end = expected.min(begin + STEP);
            let data: Vec<&[u8]> = data.iter().map(|slice| &slice[begin..end]).collect();
            let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|slice| &mut slice[begin..end]).collect();
            self.engine.encode_sep(&data, &mut parity).expect("counts and lengths are checked");
        }
        Ok(())
    }

    fn decode(&self, present: &[(SlotIndex, &[u8])], data_out: &mut [&mut [u8]]) -> Result<(), DecodeError> {
        let wanted: Vec<SlotIndex> = (0..self.profile.data()).map(SlotIndex::new).collect();
        self.recreate(present, &wanted, data_out)
    }

    fn recreate(
        &self,
        present: &[(SlotIndex, &[u8])],
        wanted: &[SlotIndex],
        out: &mut [&mut [u8]],
    ) -> Result<(), DecodeError> {
        let sorted = self.sorted(present)?;
        let mut asked = wanted.to_vec();
        asked.sort_unstable();
        self.check_slots(asked.into_iter())?;
        if out.len() != wanted.len() {
            return Err(DecodeError::Buffers { wanted: wanted.len(), found: out.len() });
        }
        let expected = sorted[0].1.len();
        for (slot, buffer) in wanted.iter().zip(out.iter()) {
            if buffer.len() != expected {
                return Err(DecodeError::Length { slot: *slot, expected, found: buffer.len() });
            }
        }
        let mut missing = Vec::new();
        for (slot, buffer) in wanted.iter().zip(out.iter_mut()) {
            match sorted.binary_search_by_key(slot, |(present, _)| *present) {
                Ok(at) => buffer.copy_from_slice(sorted[at].1),
                Err(_) => missing.push((*slot, &mut **buffer)),
            }
        }
        if !missing.is_empty() {
            self.make(&sorted[..usize::from(self.profile.data())], &mut missing);
        }
        Ok(())
    }
}

impl Reference {
    /// Makes rows out of exactly k others, all of one length.
    fn make(&self, sources: &[(SlotIndex, &[u8])], missing: &mut [(SlotIndex, &mut [u8])]) {
        let slots: Vec<SlotIndex> = sources.iter().map(|(slot, _)| *slot).collect();
        let rows = self.coefficients(&slots);
        let len = sources[0].1.len();
        for begin in (0..len).step_by(STEP) {
            let end = len.min(begin + STEP);
            for (slot, buffer) in missing.iter_mut() {
                let row = rows[row_of(*slot)].as_deref().expect("all rows were made");
                let out = &mut buffer[begin..end];
                out.fill(0);
                for (factor, (_, source)) in row.iter().zip(sources) {
                    galois_8::mul_slice_xor(*factor, &source[begin..end], out);
                }
            }
        }
    }
}

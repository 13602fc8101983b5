//! The codec of one profile on one engine: checks what it is given, finds the factors, and lets the engine multiply.

use std::sync::{Arc, Mutex, PoisonError};

use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

use crate::Codec;
use crate::engine::Engine;
use crate::error::{DecodeError, EncodeError};
use crate::factors::Factors;
use crate::slots::{AtHand, SlotSet, check_wanted};

/// Most sets of sources whose factors a code keeps. A contract in trouble has a few of them, the same for each of its
/// stripes, and each takes at most 64 KiB.
const RECENT_MAX: usize = 32;

/// Reed-Solomon by one engine.
pub struct Code {
    profile: Profile,
    engine: Engine,
    data: SlotSet,
    /// Factors in terms of the data.
    encoding: Arc<Factors>,
    /// Factors in terms of other sources, those asked for last first.
    recent: Mutex<Vec<(SlotSet, Arc<Factors>)>>,
}

impl Code {
    /// For one profile on one engine.
    #[must_use]
    pub fn new(profile: Profile, engine: Engine) -> Self {
        let data = SlotSet::first(profile.data());
        let encoding = Arc::new(Factors::new(profile, &data));
        Self { profile, engine, data, encoding, recent: Mutex::default() }
    }

    /// What it runs on.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The factors of all slots in terms of some; made once for all tiles and stripes that miss the same slices.
    fn factors(&self, sources: &SlotSet) -> Arc<Factors> {
        if *sources == self.data {
            return self.encoding.clone();
        }
        let find = |recent: &mut Vec<(SlotSet, Arc<Factors>)>| {
            let at = recent.iter().position(|(known, _)| known == sources)?;
            recent[..=at].rotate_right(1);
            Some(recent[0].1.clone())
        };
        if let Some(known) = find(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner)) {
            return known;
        }
        let made = Arc::new(Factors::new(self.profile, sources));
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been as far in the meantime.
        if find(&mut recent).is_none() {
            recent.truncate(RECENT_MAX - 1);
            recent.insert(0, (*sources, made.clone()));
        }
        made
    }

    #[cfg(test)]
    pub(crate) fn recent_len(&self) -> usize {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Codec for Code {
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
        let rows: Vec<&[u8]> =
            (profile.data()..profile.slots()).map(|slot| self.encoding.row(slot)).collect();
        self.engine.multiply(&rows, data, parity);
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
        let at_hand = AtHand::check(self.profile, present)?;
        check_wanted(self.profile, wanted)?;
        if out.len() != wanted.len() {
            return Err(DecodeError::Buffers { wanted: wanted.len(), found: out.len() });
        }
        let expected = at_hand.len();
        for (slot, buffer) in wanted.iter().zip(out.iter()) {
            if buffer.len() != expected {
                return Err(DecodeError::Length { slot: *slot, expected, found: buffer.len() });
            }
        }
        let (mut missing, mut buffers) = (Vec::with_capacity(out.len()), Vec::with_capacity(out.len()));
        for (slot, buffer) in wanted.iter().zip(out.iter_mut()) {
            if let Some(known) = at_hand.get(*slot) {
                buffer.copy_from_slice(known);
            } else {
                missing.push(*slot);
                buffers.push(&mut **buffer);
            }
        }
        if !missing.is_empty() {
            let (set, sources) = at_hand.sources(self.profile);
            let factors = self.factors(&set);
            let rows: Vec<&[u8]> = missing.iter().map(|slot| factors.row(slot.get())).collect();
            self.engine.multiply(&rows, &sources, &mut buffers);
        }
        Ok(())
    }
}

//! Sets of slots, and slices by their slots.

use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;

use crate::error::DecodeError;

/// A set of slots, without memory of its own.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SlotSet([u64; 4]);

impl SlotSet {
    /// The first slots of a stripe.
    pub(crate) fn first(count: u8) -> Self {
        let mut set = Self::default();
        (0..count).for_each(|slot| {
            set.insert(slot);
        });
        set
    }

    /// Adds a slot; whether it was new.
    pub(crate) fn insert(&mut self, slot: u8) -> bool {
        let (word, bit) = (&mut self.0[usize::from(slot >> 6)], 1 << (slot & 63));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub(crate) fn contains(&self, slot: u8) -> bool {
        self.0[usize::from(slot >> 6)] >> (slot & 63) & 1 == 1
    }

    /// All of them, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|slot| self.contains(*slot))
    }
}

/// Slices of one stripe, found by slot, and all checked against its profile.
pub(crate) struct AtHand<'p, 'a> {
    present: &'p [(SlotIndex, &'a [u8])],
    slots: SlotSet,
    /// Where in `present` a slot of the set is.
    places: [u8; 256],
}

impl<'p, 'a> AtHand<'p, 'a> {
    /// Checks that they are slots of the profile, each once, at least k of them, and of one length.
    pub(crate) fn check(profile: Profile, present: &'p [(SlotIndex, &'a [u8])]) -> Result<Self, DecodeError> {
        let (mut slots, mut places) = (SlotSet::default(), [0; 256]);
        // No more than 256 places: a profile has at most 255 slots, and one that is named twice ends the loop.
        for (place, (slot, _)) in (0..=u8::MAX).zip(present) {
            insert(&mut slots, profile, *slot)?;
            places[usize::from(slot.get())] = place;
        }
        let needed = profile.data();
        let Some(((_, first), true)) =
            present.first().map(|first| (first, present.len() >= usize::from(needed)))
        else {
            return Err(DecodeError::TooFew { needed, found: present.len() });
        };
        if first.is_empty() {
            return Err(DecodeError::Empty);
        }
        let expected = first.len();
        match present.iter().find(|(_, bytes)| bytes.len() != expected) {
            Some((slot, bytes)) => Err(DecodeError::Length { slot: *slot, expected, found: bytes.len() }),
            None => Ok(Self { present, slots, places }),
        }
    }

    /// The length of each.
    pub(crate) fn len(&self) -> usize {
        self.present[0].1.len()
    }

    pub(crate) fn get(&self, slot: SlotIndex) -> Option<&'a [u8]> {
        self.slots.contains(slot.get()).then(|| self.slice(slot.get()))
    }

    /// The lowest k slots and their slices: as much data as there is, which has the simplest factors.
    pub(crate) fn sources(&self, profile: Profile) -> (SlotSet, Vec<&'a [u8]>) {
        let mut set = SlotSet::default();
        let mut slices = Vec::with_capacity(usize::from(profile.data()));
        for slot in self.slots.iter().take(usize::from(profile.data())) {
            set.insert(slot);
            slices.push(self.slice(slot));
        }
        (set, slices)
    }

    fn slice(&self, slot: u8) -> &'a [u8] {
        self.present[usize::from(self.places[usize::from(slot)])].1
    }
}

/// Checks that slots asked for are of the profile, each once.
pub(crate) fn check_wanted(profile: Profile, wanted: &[SlotIndex]) -> Result<(), DecodeError> {
    let mut slots = SlotSet::default();
    wanted.iter().try_for_each(|slot| insert(&mut slots, profile, *slot))
}

fn insert(set: &mut SlotSet, profile: Profile, slot: SlotIndex) -> Result<(), DecodeError> {
    if slot.get() >= profile.slots() {
        return Err(DecodeError::NoSuchSlot { slot, slots: profile.slots() });
    }
    if set.insert(slot.get()) { Ok(()) } else { Err(DecodeError::Twice { slot }) }
}

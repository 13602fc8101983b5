//! Which places were hashed of late, so that they need not be hashed at every read.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::row::Place;

/// Places remembered in each of two generations: 2^17 of 16 bytes in all.
const PLACES_MAX: usize = 1 << 16;
/// A generation's age at which the next one begins.
const GENERATION: Duration = Duration::from_mins(10);

struct Generations {
    young: HashSet<Place>,
    old: HashSet<Place>,
    begun: Instant,
}

/// A bounded memory of places. What it says is at most two generations old.
pub(super) struct Verified(Mutex<Generations>);

impl Default for Verified {
    fn default() -> Self {
        let (young, old) = (HashSet::new(), HashSet::new());
        Self(Mutex::new(Generations { young, old, begun: Instant::now() }))
    }
}

impl Verified {
    fn generations(&self) -> MutexGuard<'_, Generations> {
        // The sets are whole after every single operation on them, whatever panics between.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.young.len() >= PLACES_MAX || all.begun.elapsed() >= GENERATION {
            all.old = std::mem::take(&mut all.young);
            all.begun = Instant::now();
        }
        all
    }

    /// Notes places whose bytes were just found to be right.
    pub(super) fn add(&self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            self.generations().young.insert(place);
        }
    }

    /// Whether a place was noted of late.
    pub(super) fn has(&self, place: &Place) -> bool {
        let all = self.generations();
        all.young.contains(place) || all.old.contains(place)
    }
}

//! Chance that depends on nothing but a seed, a way between two peers, and a count.

use std::ops::Range;
use std::time::Duration;

use tallow_types::PublicKey;

/// A stream of numbers (SplitMix64, Steele, Lea and Flood 2014).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, from: &PublicKey, to: &PublicKey, count: u64) -> Self {
        let mut dice = Self(seed);
        for chunk in from.as_bytes().chunks(8).chain(to.as_bytes().chunks(8)) {
            let word = chunk.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
            dice.0 = dice.next() ^ word;
        }
        dice.0 = dice.next() ^ count;
        dice
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with this probability in thousandths. Always takes one number, so that switching one fault on does not
    /// move the others.
    pub(super) fn permille(&mut self, probability: u16) -> bool {
        self.next() % 1000 < u64::from(probability)
    }

    /// A time in the range; zero if it is empty. Whole microseconds.
    pub(super) fn duration(&mut self, range: &Range<Duration>) -> Duration {
        let number = self.next();
        let width = range.end.saturating_sub(range.start).as_micros();
        if width == 0 {
            return if range.end > range.start { range.start } else { Duration::ZERO };
        }
        let width = u64::try_from(width).unwrap_or(u64::MAX);
        range.start + Duration::from_micros(number % width)
    }
}

/// A number below `limit`, which is not 0.
pub(super) fn below(number: u64, limit: usize) -> usize {
    let limit_wide = u64::try_from(limit).unwrap_or(u64::MAX);
    usize::try_from(number % limit_wide).expect("below a usize")
}

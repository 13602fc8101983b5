//! Chance from a seed.

/// A stream of numbers (SplitMix64, Steele, Lea and Flood 2014). The same seed gives the same stream everywhere.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A stream.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `low..high`; `low` if that is empty.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low);
        let number = self.roll();
        if width == 0 { low } else { low + number % width }
    }

    /// An index below `len`, which must not be 0.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        assert!(len > 0, "nothing to choose from");
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        usize::try_from(self.roll() % len).expect("below a usize")
    }

    /// True with this probability in thousandths.
    pub const fn chance(&mut self, permille: u64) -> bool {
        self.roll() % 1000 < permille
    }
}

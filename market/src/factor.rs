//! Factors: what part of its fee a seeder earned in an epoch, and their running sum.
//!
//! A factor is a fraction of [`ONE`]. The sum grows by the factor of each epoch; a lane earns by the growth since it
//! was settled last, so that an epoch writes each seeder once however many lanes it holds. A proof is remembered with
//! its epoch and joins the sum only when that epoch is over: settlements inside it do not see it yet.

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::Epoch;

/// The factor of an epoch without fault.
pub const ONE: u64 = 1 << 16;

/// A factor, or a sum of factors, in parts of [`ONE`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Factor(u64);

impl Factor {
    /// Nothing earned.
    pub const ZERO: Self = Self(0);
    /// All earned.
    pub const ONE: Self = Self(ONE);

    /// From parts of [`ONE`].
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// In parts of [`ONE`].
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What came on top of `earlier`; zero if nothing did.
    #[must_use]
    pub const fn growth_since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// `max(0, 1 - 3 missing/samples)`, rounded down; one if there was nothing to sample.
    #[must_use]
    pub const fn of_samples(missing: u32, samples: u32) -> Self {
        let (missing, samples) = (missing as u64, samples as u64);
        match (missing * 3 * ONE).checked_div(samples) {
            None => Self::ONE,
            Some(_) => Self((samples * ONE).saturating_sub(missing * 3 * ONE) / samples),
        }
    }
}

/// A seeder's running sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FactorSum {
    /// Epochs that are over, but for `newest`.
    sum: Factor,
    /// The newest epoch that it proved, and the factor of that epoch.
    newest: Option<(Epoch, Factor)>,
}

impl FactorSum {
    /// The sum over all epochs before `now`.
    #[must_use]
    pub const fn before(&self, now: Epoch) -> Factor {
        match self.newest {
            Some((epoch, factor)) if epoch.get() < now.get() => Factor(self.sum.0.saturating_add(factor.0)),
            _ => self.sum,
        }
    }

    /// The newest epoch that was proven.
    #[must_use]
    pub const fn newest(&self) -> Option<Epoch> {
        match self.newest {
            Some((epoch, _)) => Some(epoch),
            None => None,
        }
    }

    /// The sum with a proof of `epoch` added, or `None` if that epoch or a later one was proven before.
    #[must_use]
    pub fn proven(&self, epoch: Epoch, factor: Factor) -> Option<Self> {
        if self.newest.is_some_and(|(newest, _)| newest >= epoch) {
            return None;
        }
        Some(Self { sum: self.before(epoch), newest: Some((epoch, factor)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a proof counts once, when its epoch is over. Method: prove, look before and after, prove again.
    #[test]
    fn proofs_join_after_their_epoch() {
        let (four, five, seven) = (Epoch::new(4), Epoch::new(5), Epoch::new(7));
        let sum = FactorSum::default().proven(four, Factor::ONE).expect("first proof");
        assert_eq!((sum.before(four), sum.before(five)), (Factor::ZERO, Factor::ONE));
        assert_eq!(sum.proven(four, Factor::ONE), None);
        let sum = sum.proven(seven, Factor::new(10)).expect("later epoch");
        assert_eq!((sum.before(seven), sum.before(Epoch::new(8))), (Factor::ONE, Factor::new(ONE + 10)));
        assert_eq!(sum.proven(five, Factor::ONE), None);
        assert_eq!(sum.newest(), Some(seven));
    }

    /// Goal: a third of the samples missing earns nothing, none missing earns all. Method: a table.
    #[test]
    fn penalty_is_linear() {
        for (missing, samples, expected) in
            [(0, 8, ONE), (1, 8, ONE * 5 / 8), (2, 8, ONE / 4), (3, 8, 0), (8, 8, 0), (0, 0, ONE)]
        {
            assert_eq!(Factor::of_samples(missing, samples), Factor::new(expected));
        }
    }
}

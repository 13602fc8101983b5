//! Lazy settlement of one lane.
//!
//! A contract pays each epoch's rate in advance into its escrow. When it is settled, each lane's share of the epochs
//! that passed leaves the escrow: what the seeder's factors earned is paid, less the protocol's share, which burns; of
//! the rest half returns to the contract and half burns, so that neither side gains by the other's absence.
//!
//! ```text
//! charged = rate x epochs          earned  = floor(rate x growth / ONE), at most charged
//! paid    = floor(earned x (10000 - share) / 10000)
//! refund  = floor((charged - earned) / 2)             burned = charged - paid - refund: all dust
//! ```

use tallow_types::params::Params;
use tallow_types::{EpochCount, Fuel};

use crate::factor::{Factor, ONE};
use crate::fee;

/// Parts of one in which shares are given.
const BASIS: u128 = 10_000;

/// Where the money of one lane goes. The last three add up to the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    /// What leaves the escrow.
    pub charged: Fuel,
    /// What the seeder gets.
    pub paid: Fuel,
    /// What burns.
    pub burned: Fuel,
    /// What returns to the contract's fuel.
    pub refunded: Fuel,
}

/// Settles a lane that was charged `rate` for each of `epochs`, while its seeder's sum grew by `growth`. `None` on
/// overflow, which amounts below [`tallow_types::limits::SUPPLY_MAX`] cannot reach.
#[must_use]
pub fn lane(params: &Params, rate: Fuel, epochs: EpochCount, growth: Factor) -> Option<Settlement> {
    let charged = fee::times(rate, epochs.get())?;
    let earned = rate.mul_div_floor(u128::from(growth.get()), u128::from(ONE))?.min(charged);
    let share = u128::from(params.protocol_share_bp).min(BASIS);
    let paid = earned.mul_div_floor(BASIS - share, BASIS)?;
    let refunded = charged.checked_sub(earned)?.mul_div_floor(1, 2)?;
    let burned = charged.checked_sub(paid)?.checked_sub(refunded)?;
    Some(Settlement { charged, paid, burned, refunded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tallow_types::limits::SUPPLY_MAX;

    fn settle(rate: u128, epochs: u64, growth: u64) -> Settlement {
        lane(&Params::main(), Fuel::new(rate), EpochCount::new(epochs), Factor::new(growth))
            .expect("in range")
    }

    /// Goal: the split is what the module says. Method: hand-computed cases, odd amounts included.
    #[test]
    fn split_by_hand() {
        let is = |s: Settlement, charged, paid, burned, refunded| {
            assert_eq!(
                (s.charged, s.paid, s.burned, s.refunded),
                (Fuel::new(charged), Fuel::new(paid), Fuel::new(burned), Fuel::new(refunded))
            );
        };
        is(settle(1_000, 1, ONE), 1_000, 970, 30, 0);
        is(settle(1_000, 2, ONE), 2_000, 970, 530, 500);
        is(settle(1_001, 1, 0), 1_001, 0, 501, 500);
        is(settle(33, 1, ONE), 33, 32, 1, 0);
        is(settle(1_000, 1, 5 * ONE), 1_000, 970, 30, 0);
        is(settle(7, 0, 0), 0, 0, 0, 0);
    }

    proptest! {
        /// Goal: money is conserved to the unit and nobody gets more than was charged. Method: any amounts that a
        /// network may hold.
        #[test]
        fn conserves(rate in 0..SUPPLY_MAX >> 16, epochs in 0..4_096u64, growth in 0..1u64 << 27, bp in 0..=10_000u16) {
            let params = Params { protocol_share_bp: bp, ..Params::main() };
            let s = lane(&params, Fuel::new(rate), EpochCount::new(epochs), Factor::new(growth)).expect("in range");
            let parts = fee::sum([s.paid, s.burned, s.refunded]).expect("in range");
            prop_assert_eq!(parts, s.charged);
            prop_assert_eq!(s.charged.get(), rate * u128::from(epochs));
        }

        /// Goal: settling twice never pays more than settling once, and loses at most the dust of two. Method: split
        /// a stretch at any point.
        #[test]
        fn splitting_gains_nothing(rate in 0..1u128 << 60, first in 0..64u64, second in 0..64u64, share in 0..=ONE) {
            let all = settle(rate, first + second, (first + second) * share);
            let (a, b) = (settle(rate, first, first * share), settle(rate, second, second * share));
            let parts = a.paid.get() + b.paid.get();
            prop_assert!(parts <= all.paid.get() && all.paid.get() - parts <= 4);
        }
    }
}

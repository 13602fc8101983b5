//! Which profiles are safe.
//!
//! A profile is strong if, with every seeder surviving on its own with probability 3/4, a stripe survives with at least
//! 99.99 %. Computed exactly:
//!
//! ```text
//! P(fewer than k of n survive) = sum over i < k of C(n,i) 3^i / 4^n  <=  1/10000
//! ```
//!
//! both sides multiplied by 10000 x 4^n, in integers of 576 bits: 4^255 x 10000 has 524.

use tallow_types::Profile;

/// An unsigned integer, least significant limb first. Large enough for every profile; overflow is a bug and panics.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wide([u32; 18]);

impl Wide {
    const ZERO: Self = Self([0; 18]);
    const ONE: Self = Self({
        let mut limbs = [0; 18];
        limbs[0] = 1;
        limbs
    });

    fn plus(mut self, other: Self) -> Self {
        let mut carry = 0u64;
        for (limb, more) in self.0.iter_mut().zip(other.0) {
            let sum = u64::from(*limb) + u64::from(more) + carry;
            (*limb, carry) = split(sum);
        }
        assert!(carry == 0, "sums stay below 576 bits");
        self
    }

    fn times(mut self, factor: u32) -> Self {
        let mut carry = 0u64;
        for limb in &mut self.0 {
            let product = u64::from(*limb) * u64::from(factor) + carry;
            (*limb, carry) = split(product);
        }
        assert!(carry == 0, "products stay below 576 bits");
        self
    }

    /// Exact division; what is left over is a bug.
    fn over(mut self, divisor: u32) -> Self {
        let mut rest = 0u64;
        for limb in self.0.iter_mut().rev() {
            let part = (rest << 32) | u64::from(*limb);
            *limb = split(part / u64::from(divisor)).0;
            rest = part % u64::from(divisor);
        }
        assert!(rest == 0, "the next term of the sum is an integer");
        self
    }

    fn at_most(&self, other: &Self) -> bool {
        self.0.iter().rev().le(other.0.iter().rev())
    }
}

/// Low limb and carry.
fn split(value: u64) -> (u32, u64) {
    let low = u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits");
    (low, value >> 32)
}

/// Whether the profile survives the loss of a quarter of all seeders with at least 99.99 %.
#[must_use]
pub fn is_strong(profile: Profile) -> bool {
    let (k, n) = (u32::from(profile.data()), u32::from(profile.slots()));
    let mut lost = Wide::ZERO;
    let mut term = Wide::ONE;
    for i in 0..k {
        lost = lost.plus(term);
        // C(n,i+1) 3^(i+1) from C(n,i) 3^i.
        term = term.times(3 * (n - i)).over(i + 1);
    }
    let all = (0..n).fold(Wide::ONE, |power, _| power.times(4));
    lost.times(10_000).at_most(&all)
}

/// The fewest slots with which `data` slices make a strong profile, for hints; `None` if 255 are not enough.
#[must_use]
pub fn least_slots(data: u8) -> Option<u8> {
    (data.checked_add(1)?..=u8::MAX).find(|n| Profile::from_k_of_n(data, *n).is_some_and(is_strong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strong(k: u8, n: u8) -> bool {
        is_strong(Profile::from_k_of_n(k, n).expect("in range"))
    }

    /// Goal: the rule gives the edges that independent arithmetic gives. Method: edges computed with rationals of
    /// unlimited size.
    #[test]
    fn edges_by_independent_arithmetic() {
        for (k, least) in EDGES {
            assert!(strong(k, least), "{k} of {least}");
            assert!(!strong(k, least - 1), "{k} of {}", least - 1);
            assert_eq!(least_slots(k), Some(least));
        }
        assert!(strong(20, 42) && !strong(4, 12));
        assert_eq!(least_slots(250), None);
    }

    /// Goal: more slots never make a profile weaker, more data never stronger, and no profile panics. Method: all.
    #[test]
    fn strength_is_monotone() {
        for n in 2..=254u8 {
            for k in 1..n {
                let here = strong(k, n);
                assert!(!here || strong(k, n + 1), "{k} of {n}");
                assert!(here || k + 1 >= n || !strong(k + 1, n), "{k} of {n}");
            }
        }
    }

    const EDGES: [(u8, u8); 13] = [
        (1, 7),
        (2, 10),
        (3, 12),
        (4, 14),
        (8, 21),
        (10, 25),
        (16, 35),
        (20, 41),
        (29, 55),
        (64, 109),
        (100, 162),
        (128, 202),
        (150, 234),
    ];
}

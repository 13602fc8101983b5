//! Units. Arithmetic is checked and answers `None` on overflow; there is no conversion from a raw number but `new`,
//! so that bytes cannot be added to epochs by accident.

use borsh::{BorshDeserialize, BorshSerialize};

macro_rules! unit {
    ($($(#[$doc:meta])* $name:ident($raw:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name($raw);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);
            /// The most that the type holds.
            pub const MAX: Self = Self(<$raw>::MAX);

            /// From a raw number of this unit.
            #[must_use]
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The raw number.
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }

            /// Sum, or `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Difference, or `None` below zero.
            #[must_use]
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }

            /// Difference, or zero: for distances that a report shows, never for money.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// The next value, or `None` at the end.
            #[must_use]
            pub const fn next(self) -> Option<Self> {
                self.checked_add(Self(1))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

unit! {
    /// A number of bytes.
    Bytes(u64);
    /// An amount of money in base units. 2^40 base units are one fuel for people.
    Fuel(u128);
    /// A storage price: base units for one MiB kept for one epoch.
    FuelPerMibEpoch(u64);
    /// The ordinal of an epoch; the first is 0.
    Epoch(u64);
    /// A number of epochs.
    EpochCount(u64);
    /// The ordinal of a block; genesis is 0.
    Height(u64);
    /// Milliseconds since 1970-01-01 UTC.
    TimeMs(u64);
    /// A duration in milliseconds.
    DurationMs(u64);
    /// The ordinal of a commit in its lease; the first is 1.
    Sequence(u64);
    /// The position of a stripe's leaf in every lane of its contract.
    LeafIndex(u64);
    /// The position of a slot in its contract, and of a slice in its stripe.
    SlotIndex(u8);
    /// How often a single validator was rebuilt after losing its disk; leads every lease number.
    Incarnation(u32);
}

impl Fuel {
    /// One fuel for people: 2^40 base units, so that the cheapest realistic price stays above 1,000 base units per
    /// MiB and epoch.
    pub const ONE: Self = Self(1 << 40);

    /// `self x numerator / denominator`, rounded down; `None` on overflow or a zero denominator. The caller says who
    /// gets the dust.
    #[must_use]
    pub const fn mul_div_floor(self, numerator: u128, denominator: u128) -> Option<Self> {
        match self.0.checked_mul(numerator) {
            Some(product) => match product.checked_div(denominator) {
                Some(raw) => Some(Self(raw)),
                None => None,
            },
            None => None,
        }
    }
}

impl Epoch {
    /// The epoch `count` later, or `None` at the end of time.
    #[must_use]
    pub const fn after(self, count: EpochCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// How many epochs have passed since `earlier`; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> EpochCount {
        EpochCount(self.0.saturating_sub(earlier.0))
    }
}

impl TimeMs {
    /// The moment `duration` later, or `None` at the end of time.
    #[must_use]
    pub const fn after(self, duration: DurationMs) -> Option<Self> {
        match self.0.checked_add(duration.0) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The time passed since `earlier`; zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
}

/// The number of a write lease. Higher ones win; a rebuilt validator leads with a higher incarnation, so that no lease
/// it forgot can outrank one it grants.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Lease {
    /// Incarnation of the ledger that granted it.
    pub incarnation: Incarnation,
    /// Ordinal of the grant in the contract; the first is 1, 0 is "none yet".
    pub counter: u64,
}

impl Lease {
    /// Before any grant.
    pub const NONE: Self = Self { incarnation: Incarnation::ZERO, counter: 0 };
}

impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: overflow is an answer, never a wrap. Method: the edges of each operation.
    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Bytes::MAX.checked_add(Bytes::new(1)), None);
        assert_eq!(Bytes::ZERO.checked_sub(Bytes::new(1)), None);
        assert_eq!(Fuel::new(7).mul_div_floor(2, 4), Some(Fuel::new(3)));
        assert_eq!(Fuel::new(7).mul_div_floor(2, 0), None);
        assert_eq!(Fuel::MAX.mul_div_floor(2, 4), None);
        assert_eq!(Epoch::new(3).since(Epoch::new(5)), EpochCount::ZERO);
    }

    /// Goal: a later incarnation outranks any counter. Method: compare across the edge.
    #[test]
    fn lease_order_leads_with_incarnation() {
        let old = Lease { incarnation: Incarnation::new(0), counter: u64::MAX };
        let new = Lease { incarnation: Incarnation::new(1), counter: 1 };
        assert!(new > old && old > Lease::NONE);
    }
}

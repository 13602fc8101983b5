//! What a lane costs.

use tallow_types::params::Params;
use tallow_types::{Bytes, Fuel, FuelPerMibEpoch};

/// Bytes of one MiB.
const MIB: u128 = 1 << 20;

/// What a lane costs for one epoch: `max(price x bytes / MiB, least fee)`, the quotient rounded down in favour of the
/// owner.
#[must_use]
pub const fn rate(params: &Params, price: FuelPerMibEpoch, bytes: Bytes) -> Fuel {
    // Two factors below 2^64 cannot overflow.
    let fee = price.get() as u128 * bytes.get() as u128 / MIB;
    let least = params.lane_fee_min.get();
    Fuel::new(if fee > least { fee } else { least })
}

/// What all lanes cost for one epoch; `None` on overflow.
#[must_use]
pub fn sum(rates: impl IntoIterator<Item = Fuel>) -> Option<Fuel> {
    rates.into_iter().try_fold(Fuel::ZERO, Fuel::checked_add)
}

/// `rate` for `count` epochs; `None` on overflow.
#[must_use]
pub fn times(rate: Fuel, count: u64) -> Option<Fuel> {
    rate.get().checked_mul(u128::from(count)).map(Fuel::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the fee is the product rounded down, never below the least, never an overflow. Method: a table.
    #[test]
    fn rate_is_floor_with_a_least() {
        let params = Params::main();
        let least = params.lane_fee_min;
        for (price, bytes, expected) in [
            (1_000, 0, least),
            (1_000, 1 << 20, least),
            (1_100, 1 << 20, Fuel::new(1_100)),
            (1_100, (2 << 20) - 1, Fuel::new(2_199)),
            (u64::MAX, u64::MAX, Fuel::new((u128::from(u64::MAX) * u128::from(u64::MAX)) >> 20)),
        ] {
            assert_eq!(rate(&params, FuelPerMibEpoch::new(price), Bytes::new(bytes)), expected);
        }
        assert_eq!(sum([Fuel::MAX, Fuel::new(1)]), None);
        assert_eq!(times(Fuel::MAX, 2), None);
    }
}

//! What a seeder stands to lose for a lane.

use tallow_types::params::Params;
use tallow_types::{Bytes, Fuel, FuelPerMibEpoch};

use crate::fee;

/// The collateral of a lane: its fee at full room for [`Params::collateral_epochs`]. Taken for the room, not for what
/// lies in it, so that a commit inside the room never needs more. `None` on overflow.
#[must_use]
pub fn of_lane(params: &Params, price: FuelPerMibEpoch, room: Bytes) -> Option<Fuel> {
    fee::times(fee::rate(params, price, room), params.collateral_epochs.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: collateral follows price, room and the parameter, and an absurd one is no panic. Method: a table.
    #[test]
    fn collateral_is_epochs_of_full_fee() {
        let params = Params::dev();
        let of = |price, room| of_lane(&params, FuelPerMibEpoch::new(price), Bytes::new(room));
        assert_eq!(of(2_000, 3 << 20), Some(Fuel::new(20 * 6_000)));
        assert_eq!(of(2_000, 0), Some(Fuel::new(20 << 10)));
        let endless = Params { collateral_epochs: tallow_types::EpochCount::MAX, ..params };
        assert_eq!(of_lane(&endless, FuelPerMibEpoch::MAX, Bytes::MAX), None);
    }
}

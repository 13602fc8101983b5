//! What storing costs, before and after the fact: the very integers that the ledger charges.

use tallow_types::params::Params;
use tallow_types::{Bytes, Epoch, EpochCount, Fuel, FuelPerMibEpoch};

use crate::{collateral, fee};

/// A lane as far as money is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCost {
    /// What its seeder asks.
    pub price: FuelPerMibEpoch,
    /// What lies in it.
    pub bytes: Bytes,
}

/// What all lanes cost for one epoch; `None` on overflow.
#[must_use]
pub fn per_epoch(params: &Params, lanes: impl IntoIterator<Item = LaneCost>) -> Option<Fuel> {
    fee::sum(lanes.into_iter().map(|lane| fee::rate(params, lane.price, lane.bytes)))
}

/// What all lanes cost for `count` epochs; `None` on overflow.
#[must_use]
pub fn for_epochs(
    params: &Params,
    lanes: impl IntoIterator<Item = LaneCost>,
    count: EpochCount,
) -> Option<Fuel> {
    fee::times(per_epoch(params, lanes)?, count.get())
}

/// Money that pays a contract, and what it pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Funds {
    /// What is not charged yet.
    pub fuel: Fuel,
    /// The first epoch that is not paid in advance.
    pub prepaid_until: Epoch,
    /// What one epoch costs from there on.
    pub per_epoch: Fuel,
}

/// The first epoch that nothing will pay, if every seeder proves and nothing changes; `None` if that never comes.
#[must_use]
pub fn paid_until(funds: Funds) -> Option<Epoch> {
    let count = funds.fuel.get().checked_div(funds.per_epoch.get())?;
    funds.prepaid_until.after(EpochCount::new(u64::try_from(count).ok()?))
}

/// What a seeder must have to take a lane; `None` on overflow.
#[must_use]
pub fn collateral(params: &Params, price: FuelPerMibEpoch, room: Bytes) -> Option<Fuel> {
    collateral::of_lane(params, price, room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(price: u64, mib: u64) -> LaneCost {
        LaneCost { price: FuelPerMibEpoch::new(price), bytes: Bytes::new(mib << 20) }
    }

    /// Goal: a quote is the sum of rates, and the date is where fuel stops to pay. Method: by hand.
    #[test]
    fn quote_and_date_by_hand() {
        let params = Params::dev();
        let lanes = [lane(2_000, 10), lane(3_000, 10), lane(2_000, 0)];
        let rate = per_epoch(&params, lanes).expect("in range");
        assert_eq!(rate, Fuel::new(20_000 + 30_000 + 1_024));
        assert_eq!(for_epochs(&params, lanes, EpochCount::new(10)), Some(Fuel::new(510_240)));
        let until =
            |fuel| paid_until(Funds { fuel: Fuel::new(fuel), prepaid_until: Epoch::new(7), per_epoch: rate });
        assert_eq!(until(51_023), Some(Epoch::new(7)));
        assert_eq!(until(51_024 * 3), Some(Epoch::new(10)));
        let free = Funds { fuel: Fuel::new(1), prepaid_until: Epoch::ZERO, per_epoch: Fuel::ZERO };
        assert_eq!(paid_until(free), None);
    }
}

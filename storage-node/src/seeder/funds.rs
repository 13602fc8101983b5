//! Whether a contract can pay for what it is about to hold: a seeder that takes slices is bound for its notice, and must
//! not sit on them unpaid. What is held already is kept and served whatever the fuel.

use tallow_ledger::record::{Contract, Phase};
use tallow_market::fee;
use tallow_types::commit::Commit;
use tallow_types::fault::{Code, Fault};
use tallow_types::params::Params;
use tallow_types::{Bytes, Fuel, SlotIndex};

use super::{Seeder, storage};
use crate::store::LaneKey;

impl Seeder {
    /// Whether more slices may come. The other lanes are taken to hold as much: slices of a stripe have one length.
    pub(super) fn check_fuel_for_slices(&self, key: LaneKey, more: Bytes) -> Result<(), Fault> {
        let usage = self.store.lane_usage(key).map_err(storage)?;
        let sizes = [usage.held, usage.loose, more];
        let after = Bytes::new(sizes.iter().fold(0u64, |sum, size| sum.saturating_add(size.get())));
        self.check_fuel(key, |_, paid| paid.max(after))
    }

    /// Whether a commit that makes the lane larger may be countersigned.
    pub(super) fn check_fuel_for_commit(&self, key: LaneKey, commit: &Commit) -> Result<(), Fault> {
        self.check_fuel(key, |slot, paid| {
            commit.slots.get(usize::from(slot.get())).map_or(paid, |state| state.bytes)
        })
    }

    fn check_fuel(&self, key: LaneKey, after: impl Fn(SlotIndex, Bytes) -> Bytes) -> Result<(), Fault> {
        let behind = || Fault::new(Code::Behind, "the contract is not on the ledger as known here");
        let contract = self.contract(&key.contract)?.ok_or_else(behind)?;
        if contract.phase == Phase::Embers {
            return Err(Fault::new(
                Code::NoFuel,
                "the contract's fuel is used up: refuel it before it grows",
            ));
        }
        let need = notice(&contract, &self.params()?, key.slot, after);
        let have = contract.fuel.checked_add(contract.escrow).unwrap_or(Fuel::MAX);
        if need.is_none_or(|need| have < need) {
            let text = "the contract's fuel does not pay for the notice of its seeders at this size: refuel it first";
            return Err(Fault::new(Code::NoFuel, text));
        }
        Ok(())
    }
}

/// What all lanes cost for the notice of one, at the size that they will have. `None` on overflow.
fn notice(
    contract: &Contract,
    params: &Params,
    slot: SlotIndex,
    after: impl Fn(SlotIndex, Bytes) -> Bytes,
) -> Option<Fuel> {
    let rates = contract.lanes().map(|(slot, lane)| fee::rate(params, lane.price, after(slot, lane.bytes)));
    fee::times(fee::sum(rates)?, contract.lane(slot)?.notice.get())
}

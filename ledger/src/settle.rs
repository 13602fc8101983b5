//! Settling a contract at a boundary: pay what its lanes earned, apply what waited for the boundary, charge ahead.
//!
//! The order matters. First the epochs that passed are paid out of the escrow at the rates that were charged for them;
//! what was charged for epochs not begun returns to the fuel whole. Then lanes end and the pending commit becomes active.
//! Then the next epochs are charged at the rates that follow. So no change ever reaches back, and an epoch is paid to
//! whoever held the lane in it.
//!
//! A contract is settled when the queue of due epochs names it, never merely because an epoch passes.

use tallow_market::phase::Phase;
use tallow_market::{fee, settle};
use tallow_types::commit::CommitCertificate;
use tallow_types::{EpochCount, Fuel, SlotIndex};

use crate::key;
use crate::record::{Contract, Former, Lane, Owned, Prepaid};
use crate::state::{ReadError, StateRead};
use crate::work::{Work, damaged, minus, plus};

/// Settles a contract in the current epoch. `None` if it is gone then.
pub(crate) fn settle(work: &mut Work<'_>, mut contract: Contract) -> Result<Option<Contract>, ReadError> {
    work.unqueue(&mut contract);
    pay_out(work, &mut contract)?;
    if contract.closing {
        close(work, &contract)?;
        return Ok(None);
    }
    end_lanes(work, &mut contract)?;
    activate(work, &mut contract)?;
    charge(work, &mut contract)?;
    work.save_contract(&contract);
    Ok(Some(contract))
}

/// Pays the prepaid epochs that passed, and frees what was charged for those not begun.
fn pay_out(work: &mut Work<'_>, contract: &mut Contract) -> Result<(), ReadError> {
    let Some(Prepaid { from, until }) = contract.prepaid.take() else { return Ok(()) };
    let passed = work.epoch.min(until).since(from);
    for slot in contract.slots.iter_mut() {
        let Some(lane) = &mut slot.lane else { continue };
        let seeder = work.seeder_of_lane(&lane.seeder)?;
        let growth = seeder.factors.before(work.epoch).growth_since(lane.since);
        let split = settle::lane(&work.params, lane.rate, passed, growth)
            .ok_or_else(|| damaged("a lane's fee overflows"))?;
        contract.escrow = minus(contract.escrow, split.charged)?;
        contract.fuel = plus(contract.fuel, split.refunded)?;
        work.pay(&seeder.ask.payout, split.paid)?;
        work.burn(split.burned)?;
        lane.rate = Fuel::ZERO;
    }
    contract.fuel = plus(contract.fuel, contract.escrow)?;
    contract.escrow = Fuel::ZERO;
    Ok(())
}

/// Vacates the slots whose lanes end by now.
fn end_lanes(work: &mut Work<'_>, contract: &mut Contract) -> Result<(), ReadError> {
    let room = contract.terms.room;
    for slot in contract.slots.iter_mut() {
        if let Some(lane) = slot.lane.take_if(|lane| lane.ends.is_some_and(|ends| ends <= work.epoch)) {
            slot.former = Some(Former { seeder: lane.seeder, consent: lane.consent });
            free(work, &lane, room)?;
        }
    }
    Ok(())
}

/// Returns a lane's collateral and its seeder's room.
fn free(work: &mut Work<'_>, lane: &Lane, room: tallow_types::Bytes) -> Result<(), ReadError> {
    let mut seeder = work.seeder_of_lane(&lane.seeder)?;
    seeder.lanes =
        seeder.lanes.checked_sub(1).ok_or_else(|| damaged("a seeder has fewer lanes than none"))?;
    seeder.reserved =
        seeder.reserved.checked_sub(room).ok_or_else(|| damaged("a seeder has less room than none"))?;
    seeder.collateral = minus(seeder.collateral, lane.collateral)?;
    work.save_seeder(&seeder);
    work.pay(&lane.backer, lane.collateral)
}

/// Makes the pending commit the active one. A lane follows it if its own seeder countersigned; else it stays bound to
/// the commit before and is paid for no more than both name.
fn activate(work: &mut Work<'_>, contract: &mut Contract) -> Result<(), ReadError> {
    let Some(summary) = contract.pending.take() else { return Ok(()) };
    let certificate: CommitCertificate =
        work.load(&key::pending(&contract.id))?.ok_or_else(|| damaged("a pending commit is missing"))?;
    let commit = &certificate.signed.commit;
    for ((index, slot), state) in (0u8..).zip(contract.slots.iter_mut()).zip(commit.slots.iter()) {
        let Some(lane) = &mut slot.lane else { continue };
        let signed = certificate
            .countersignatures
            .iter()
            .any(|counter| counter.slot == SlotIndex::new(index) && counter.seeder == lane.seeder);
        if signed {
            (lane.root, lane.bytes, lane.signed) = (state.root, state.bytes, summary.rank);
        } else {
            lane.bytes = lane.bytes.min(state.bytes);
        }
    }
    contract.active = Some(summary);
    work.state.remove(key::pending(&contract.id));
    work.save(key::active(&contract.id), &certificate);
    Ok(())
}

/// Charges the next epochs in advance, as many as fuel allows; without fuel for one, nobody is paid until somebody
/// refuels. A lane that ends before is settled at its end, where the rest returns.
fn charge(work: &mut Work<'_>, contract: &mut Contract) -> Result<(), ReadError> {
    if let Some(end) = contract.lanes().filter_map(|(_, lane)| lane.ends).min() {
        work.queue(contract, end);
    }
    // A rate beyond all money is one that no fuel pays.
    let total = contract.rate(&work.params).unwrap_or(Fuel::MAX);
    let affordable = contract.fuel.get().checked_div(total.get());
    contract.phase = if affordable == Some(0) { Phase::Embers } else { Phase::Burning };
    let count = match affordable {
        // Either fuel for nothing, or nothing to pay.
        Some(0) | None => return Ok(()),
        Some(count) => u64::try_from(count).unwrap_or(u64::MAX),
    };
    prepay(work, contract, total, count.min(work.params.settle.get()))
}

/// Moves the price of `count` epochs into the escrow and notes where each lane's earnings begin.
fn prepay(work: &mut Work<'_>, contract: &mut Contract, total: Fuel, count: u64) -> Result<(), ReadError> {
    let from = work.epoch;
    for slot in contract.slots.iter_mut() {
        let Some(lane) = &mut slot.lane else { continue };
        lane.rate = fee::rate(&work.params, lane.price, lane.bytes);
        lane.since = work.seeder_of_lane(&lane.seeder)?.factors.before(from);
    }
    let charged = fee::times(total, count).ok_or_else(|| damaged("a fee that fuel pays overflows"))?;
    contract.fuel = minus(contract.fuel, charged)?;
    contract.escrow = charged;
    let until = from.after(EpochCount::new(count)).ok_or_else(|| damaged("epochs end"))?;
    contract.prepaid = Some(Prepaid { from, until });
    work.queue(contract, until);
    Ok(())
}

/// Ends a contract: lanes end, fuel and deposit return to the owner, the index stays taken.
fn close(work: &mut Work<'_>, contract: &Contract) -> Result<(), ReadError> {
    for (_, lane) in contract.lanes() {
        free(work, lane, contract.terms.room)?;
    }
    work.pay(&contract.terms.owner, plus(contract.fuel, contract.deposit)?)?;
    for key in [key::contract(&contract.id), key::active(&contract.id), key::pending(&contract.id)] {
        work.state.remove(key);
    }
    let owned = Owned { contract: contract.id, closed: true };
    work.save(key::owned(&contract.terms.owner, contract.terms.index), &owned);
    Ok(())
}

/// Settles contracts that are due, at most as many as one block may. Whether more wait.
pub(crate) fn settle_due(work: &mut Work<'_>) -> Result<bool, ReadError> {
    let most = usize::from(work.params.settle_per_block);
    let queue = work.state.scan(key::DUE, &[], most + 1)?;
    for (place, (key, _)) in queue.iter().enumerate() {
        let (due, id) = key::parse_due(key).ok_or_else(|| damaged("the queue of due contracts"))?;
        if due > work.epoch {
            return Ok(false);
        }
        if place == most {
            return Ok(true);
        }
        let contract = work.load(&key::contract(&id))?.ok_or_else(|| damaged("a due contract is missing"))?;
        settle(work, contract)?;
    }
    Ok(false)
}

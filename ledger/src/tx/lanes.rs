//! Opening a contract, filling its slots, ending lanes, closing it.

use tallow_market::phase::Phase;
use tallow_market::placement::{Candidate, Placement};
use tallow_market::{collateral, factor::Factor, strength};
use tallow_types::commit::Rank;
use tallow_types::contract::{Acceptance, SignedAcceptance, Terms};
use tallow_types::limits::ROOM_MAX;
use tallow_types::policy::Policy;
use tallow_types::{AccountId, Bounded, Bytes, ContractId, Fuel, Height, LaneRoot, SeederId, SlotIndex};

use crate::key;
use crate::record::{Contract, Lane, LeaseRecord, Owned, Seeder, Slot};
use crate::refusal::{LanesRefusal, Refusal};
use crate::work::{Stop, Work, plus};

/// Opens a contract: its index is new, its profile safe, and enough seeders accepted to acknowledge a commit.
pub(super) fn open(
    work: &mut Work<'_>,
    sender: &AccountId,
    terms: &Terms,
    acceptances: &[SignedAcceptance],
    fuel: Fuel,
) -> Result<(), Stop> {
    check_terms(work, sender, terms)?;
    let (have, need) = (acceptances.len(), usize::from(terms.profile.quorum()));
    if have < need {
        return Err(LanesRefusal::TooFew { have, need }.into());
    }
    let id = terms.contract(&work.chain);
    let index = key::owned(&terms.owner, terms.index);
    if work.load::<Owned>(&index)?.is_some() {
        return Err(LanesRefusal::Exists { contract: id }.into());
    }
    let deposit = work.params.contract_deposit;
    work.take(sender, deposit)?;
    work.take(sender, fuel)?;
    let slots = Bounded::new(vec![Slot::default(); usize::from(terms.profile.slots())]);
    let mut contract = Contract {
        id,
        terms: terms.clone(),
        opened: work.epoch,
        slots: slots.expect("a profile has at most as many slots as a contract"),
        active: None,
        pending: None,
        lease: LeaseRecord::default(),
        fuel,
        escrow: Fuel::ZERO,
        deposit,
        prepaid: None,
        due: None,
        phase: Phase::Burning,
        closing: false,
    };
    work.save(index, &Owned { contract: id, closed: false });
    seat(work, &mut contract, acceptances)?;
    let need = super::reserve(work, &contract)?;
    if fuel < need {
        return Err(LanesRefusal::LittleFuel { fuel, need }.into());
    }
    Ok(())
}

fn check_terms(work: &Work<'_>, sender: &AccountId, terms: &Terms) -> Result<(), LanesRefusal> {
    let (owner, sender, profile) = (terms.owner, *sender, terms.profile);
    if owner != sender {
        return Err(LanesRefusal::NotOwner { owner, sender });
    }
    if !work.params.weak_profiles && !strength::is_strong(profile) {
        return Err(LanesRefusal::Weak { profile, least: strength::least_slots(profile.data()) });
    }
    let (room, most) = (terms.room, Bytes::new(ROOM_MAX));
    if room == Bytes::ZERO || room > most {
        return Err(LanesRefusal::BadRoom { room, most });
    }
    Ok(())
}

/// Fills vacant slots.
pub(super) fn fill(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    acceptances: &[SignedAcceptance],
) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    if acceptances.is_empty() {
        return Err(LanesRefusal::TooFew { have: 0, need: 1 }.into());
    }
    seat(work, &mut contract, acceptances)
}

/// Gives slots to the seeders that accepted them, who cost from the next boundary.
fn seat(work: &mut Work<'_>, contract: &mut Contract, acceptances: &[SignedAcceptance]) -> Result<(), Stop> {
    let mut held = Vec::new();
    for (slot, lane) in contract.lanes() {
        held.push((lane.seeder, work.seeder_of_lane(&lane.seeder)?.ask.payout, slot));
    }
    let terms = contract.terms.clone();
    let mut placement = Placement::new(&terms, held);
    for signed in acceptances {
        let acceptance = signed.verify(&work.chain)?;
        let seeder = check_acceptance(work, contract, acceptance)?;
        let candidate = Candidate {
            seeder: acceptance.seeder,
            operator: seeder.ask.payout,
            slot: acceptance.slot,
            price: acceptance.price,
            free: seeder.free(),
        };
        placement.add(&candidate).map_err(LanesRefusal::from)?;
        let slot = &mut contract.slots[usize::from(acceptance.slot.get())];
        if slot.former.is_some_and(|f| f.seeder == acceptance.seeder && f.consent >= acceptance.expires) {
            return Err(LanesRefusal::UsedConsent { seeder: acceptance.seeder }.into());
        }
        slot.lane = Some(lock(work, &terms, seeder, acceptance.expires)?);
    }
    let next = work.next_epoch()?;
    work.queue(contract, next);
    work.save_contract(contract);
    Ok(())
}

/// Whether a seeder's consent is to this contract, now, at the price it asks. Its entry, if so.
fn check_acceptance(work: &Work<'_>, contract: &Contract, acceptance: &Acceptance) -> Result<Seeder, Stop> {
    let id = acceptance.seeder;
    if acceptance.contract != contract.id || acceptance.terms != contract.terms {
        return Err(LanesRefusal::OtherTerms { seeder: id }.into());
    }
    if acceptance.expires < work.height {
        return Err(LanesRefusal::AcceptanceExpired { seeder: id, expires: acceptance.expires }.into());
    }
    let seeder = work.seeder(&id)?.ok_or(LanesRefusal::NoSeeder { seeder: id })?;
    let (accepted, asked) = (acceptance.price, seeder.ask.price);
    if accepted != asked {
        return Err(LanesRefusal::PriceMoved { seeder: id, accepted, asked }.into());
    }
    Ok(seeder)
}

/// Locks the collateral of a new lane and reserves its room.
fn lock(work: &mut Work<'_>, terms: &Terms, mut seeder: Seeder, consent: Height) -> Result<Lane, Stop> {
    let (id, backer, price) = (seeder.ask.seeder, seeder.backer, seeder.ask.price);
    let need = collateral::of_lane(&work.params, price, terms.room).ok_or(Refusal::Overflow)?;
    let have = work.balance(&backer)?;
    if have < need {
        return Err(LanesRefusal::Collateral { seeder: id, backer, have, need }.into());
    }
    work.take(&backer, need)?;
    seeder.lanes = seeder.lanes.checked_add(1).ok_or(Refusal::Overflow)?;
    seeder.reserved = seeder.reserved.checked_add(terms.room).ok_or(Refusal::Overflow)?;
    seeder.collateral = plus(seeder.collateral, need)?;
    work.save_seeder(&seeder);
    Ok(Lane {
        seeder: id,
        price,
        notice: seeder.ask.notice,
        consent,
        backer,
        collateral: need,
        root: LaneRoot::ZERO,
        bytes: Bytes::ZERO,
        signed: Rank::default(),
        rate: Fuel::ZERO,
        since: Factor::ZERO,
        ends: None,
    })
}

/// Ends a lane: for the owner at the next boundary, for the seeder's side after its notice.
pub(super) fn end(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    slot: SlotIndex,
    seeder: &SeederId,
) -> Result<(), Stop> {
    let mut contract = work.open_contract(id)?;
    let next = work.next_epoch()?;
    let owner = contract.terms.owner;
    let not_held = LanesRefusal::NotHeld { slot, seeder: *seeder };
    let lane = contract.slots.get_mut(usize::from(slot.get())).and_then(|slot| slot.lane.as_mut());
    let lane = lane.filter(|lane| lane.seeder == *seeder).ok_or(not_held)?;
    let ends = if *sender == owner {
        next
    } else {
        let payout = work.seeder_of_lane(seeder)?.ask.payout;
        let own = Policy::Key(seeder.public_key()).account();
        if ![payout, own, lane.backer].contains(sender) {
            return Err(LanesRefusal::NotYours { sender: *sender }.into());
        }
        next.after(lane.notice).ok_or(Refusal::Overflow)?
    };
    if let Some(ends) = lane.ends.filter(|earlier| *earlier <= ends) {
        return Err(LanesRefusal::Ending { slot, ends }.into());
    }
    lane.ends = Some(ends);
    // The next boundary sees the end and queues the contract for it.
    work.queue(&mut contract, next);
    work.save_contract(&contract);
    Ok(())
}

/// Ends a contract at the next boundary.
pub(super) fn close(work: &mut Work<'_>, sender: &AccountId, id: &ContractId) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    contract.closing = true;
    let next = work.next_epoch()?;
    work.queue(&mut contract, next);
    work.save_contract(&contract);
    Ok(())
}

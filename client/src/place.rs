//! Finding seeders: whose ask fits, who says yes, who gets which slot.
//!
//! Cheapest first; among equals those that proved most, then by id, so that the choice can be explained.

use std::cmp::Reverse;

use bytes::Bytes as Payload;
use tallow_ledger::record::{Contract, Seeder};
use tallow_market::placement::{Candidate, Placement};
use tallow_market::quote;
use tallow_net::Peer;
use tallow_types::codec::Bounded;
use tallow_types::contract::{SignedAcceptance, Terms};
use tallow_types::id::{AccountId, ChainId};
use tallow_types::params::Params;
use tallow_types::tx::Action;
use tallow_types::unit::{Bytes, EpochCount, Fuel, FuelPerMibEpoch, SlotIndex};
use tallow_types::wire::{Request, Response};

use crate::chain::Chain;
use crate::error::{Blame, LedgerError, PutError, SessionError};
use crate::identity::Identity;
use crate::options::ContractPlan;
use crate::seats::{Caller, Seat};

/// Most room that is asked for unless the user says so. Bytes a lane.
const ROOM_DEFAULT: u64 = 16 << 30;
/// Least room that a default is lowered to. Bytes a lane.
const ROOM_LEAST: u64 = 64 << 20;
/// Plain bytes that default fuel is reckoned for at least.
const LEAST_ESTIMATE: u64 = 64 << 20;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Epochs in so many days.
pub(crate) fn epochs_of_days(params: &Params, days: u32) -> EpochCount {
    EpochCount::new(u64::from(days) * DAY_MS / params.epoch.get().max(1))
}

/// Seeders that fit a plan, best first.
pub(crate) fn suited(seeders: &[Seeder], plan: &ContractPlan, ceiling: FuelPerMibEpoch) -> Vec<Seeder> {
    let fits = |seeder: &&Seeder| {
        seeder.ask.price <= ceiling
            && (plan.regions.is_empty()
                || plan.regions.iter().any(|region| region == seeder.ask.region.as_str()))
    };
    let mut suited: Vec<Seeder> = seeders.iter().filter(fits).cloned().collect();
    suited.sort_by_key(|seeder| (seeder.ask.price, Reverse(seeder.free()), seeder.ask.seeder));
    suited
}

/// The ceiling of a plan: four times the median ask unless it is named.
pub(crate) fn ceiling(seeders: &[Seeder], plan: &ContractPlan) -> FuelPerMibEpoch {
    plan.price_ceiling.unwrap_or_else(|| {
        let mut prices: Vec<u64> = seeders.iter().map(|seeder| seeder.ask.price.get()).collect();
        prices.sort_unstable();
        FuelPerMibEpoch::new(prices.get(prices.len() / 2).copied().unwrap_or(0).saturating_mul(4))
    })
}

/// Opens the account's contract.
pub(crate) async fn open(
    chain: &Chain,
    caller: &Caller,
    network: &ChainId,
    identity: &Identity,
    (plan, params, estimate): (&ContractPlan, &Params, u64),
) -> Result<(), PutError> {
    let session = |error: LedgerError| PutError::Session(error.into());
    let purpose = "open 0";
    if let Some(finished) = chain.resume(purpose).await.map_err(session)? {
        tracing::info!(height = finished.height.get(), "finished opening a contract");
        return Ok(());
    }
    let seeders = chain.seeders().await.map_err(session)?;
    let ceiling = ceiling(&seeders, plan);
    let suited = suited(&seeders, plan, ceiling);
    let mut room = match plan.room {
        Some(room) => room,
        None => affordable(chain, params, plan, &suited).await.map_err(session)?,
    };
    let quorum = usize::from(plan.profile.quorum());
    let all = usize::from(plan.profile.slots()).min(suited.len());
    let (terms, accepted, refused) = loop {
        let terms = Terms {
            owner: identity.account(),
            index: 0,
            profile: plan.profile,
            room,
            price_ceiling: ceiling,
            slots_per_operator: plan.slots_per_operator,
        };
        let slots: Vec<SlotIndex> = plan.profile.slot_indices().collect();
        let placement = Placement::new(&terms, []);
        let (accepted, refused) = ask(caller, network, &terms, (&suited, &slots), placement).await;
        let enough = accepted.len() >= all || plan.room.is_some() || room.get() / 2 < ROOM_LEAST;
        if enough && accepted.len() >= quorum || room.get() / 2 < ROOM_LEAST || plan.room.is_some() {
            break (terms, accepted, refused);
        }
        room = Bytes::new(room.get() / 2);
    };
    if accepted.len() < quorum {
        let (have, profile) = (accepted.len(), plan.profile.to_string());
        return Err(PutError::TooFewSeeders { have, need: quorum, profile, refused });
    }
    let fuel = first_fuel(chain, identity, (plan, params, estimate), &accepted).await.map_err(session)?;
    let acceptances = Bounded::new(accepted).unwrap_or_default();
    let action = Action::Open { terms, acceptances, fuel };
    chain.transact(purpose, action).await.map_err(session)?;
    Ok(())
}

/// Room that enough suited seeders have, on their disks and in their backers' accounts.
async fn affordable(
    chain: &Chain,
    params: &Params,
    plan: &ContractPlan,
    suited: &[Seeder],
) -> Result<Bytes, LedgerError> {
    let mut rooms = Vec::with_capacity(suited.len());
    for seeder in suited.iter().take(256) {
        let balance = chain.account(&seeder.backer).await?.map_or(Fuel::ZERO, |account| account.balance);
        let covers = |room: u64| {
            quote::collateral(params, seeder.ask.price, Bytes::new(room)).is_some_and(|need| need <= balance)
        };
        let mut room = seeder.free().get().min(ROOM_DEFAULT);
        while room >= ROOM_LEAST && !covers(room) {
            room /= 2;
        }
        rooms.push(room);
    }
    rooms.sort_unstable_by_key(|room| Reverse(*room));
    let last = usize::from(plan.profile.slots()).min(rooms.len()).saturating_sub(1);
    Ok(Bytes::new(rooms.get(last).copied().unwrap_or(0).max(ROOM_LEAST)))
}

async fn first_fuel(
    chain: &Chain,
    identity: &Identity,
    (plan, params, estimate): (&ContractPlan, &Params, u64),
    accepted: &[SignedAcceptance],
) -> Result<Fuel, LedgerError> {
    let balance = chain.account(&identity.account()).await?.map_or(Fuel::ZERO, |account| account.balance);
    let need = |fuel: Fuel| fuel.checked_add(params.contract_deposit).unwrap_or(Fuel::MAX);
    if let Some(fuel) = plan.fuel {
        if need(fuel) > balance {
            return Err(LedgerError::Poor { have: balance, need: need(fuel) });
        }
        return Ok(fuel);
    }
    let lane = Bytes::new(estimate.max(LEAST_ESTIMATE).div_ceil(u64::from(plan.profile.data())));
    let lanes = accepted.iter().map(|signed| quote::LaneCost { price: signed.acceptance.price, bytes: lane });
    let wanted =
        quote::for_epochs(params, lanes, epochs_of_days(params, plan.fuel_days)).unwrap_or(Fuel::MAX);
    if need(Fuel::ZERO) >= balance {
        return Err(LedgerError::Poor { have: balance, need: need(wanted) });
    }
    // An account that can't pay for so long puts in half of what it has.
    let half = Fuel::new((balance.get() - params.contract_deposit.get()) / 2);
    Ok(wanted.min(half))
}

/// Finds seeders for vacant slots of a contract.
pub(crate) async fn fill(
    chain: &Chain,
    caller: &Caller,
    network: &ChainId,
    contract: &Contract,
    vacant: &[SlotIndex],
) -> Result<(Vec<SignedAcceptance>, Vec<Blame>), SessionError> {
    let seeders = chain.seeders().await?;
    let terms = &contract.terms;
    let plan = ContractPlan::new(terms.profile);
    let held: Vec<_> = contract
        .lanes()
        .filter_map(|(slot, lane)| {
            let record = seeders.iter().find(|record| record.ask.seeder == lane.seeder)?;
            Some((lane.seeder, record.ask.payout, slot))
        })
        .collect();
    let mut suited = suited(&seeders, &plan, terms.price_ceiling);
    suited.retain(|seeder| !held.iter().any(|(id, ..)| *id == seeder.ask.seeder));
    let placement = Placement::new(terms, held);
    Ok(ask(caller, network, terms, (&suited, vacant), placement).await)
}

/// Asks seeders in their order for the slots in theirs.
async fn ask(
    caller: &Caller,
    network: &ChainId,
    terms: &Terms,
    (suited, slots): (&[Seeder], &[SlotIndex]),
    mut placement: Placement<'_>,
) -> (Vec<SignedAcceptance>, Vec<Blame>) {
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    let mut waiting = suited.iter();
    let mut open: Vec<SlotIndex> = slots.iter().rev().copied().collect();
    while !open.is_empty() {
        // As many at once as there are slots to give.
        let round: Vec<(SlotIndex, &Seeder)> = open.iter().rev().copied().zip(waiting.by_ref()).collect();
        if round.is_empty() {
            break;
        }
        let calls = round.iter().map(|(slot, seeder)| accept(caller, network, terms, *slot, seeder));
        let answers = futures::future::join_all(calls).await;
        for ((slot, seeder), answer) in round.into_iter().zip(answers) {
            let candidate = Candidate {
                seeder: seeder.ask.seeder,
                operator: operator(seeder),
                slot,
                price: seeder.ask.price,
                free: seeder.free(),
            };
            let placed = answer.and_then(|signed| match placement.add(&candidate) {
                Ok(()) => Ok(signed),
                Err(error) => Err(error.to_string()),
            });
            match placed {
                Ok(signed) => {
                    open.retain(|other| *other != slot);
                    accepted.push(signed);
                }
                Err(reason) => {
                    let seeder = seeder.ask.seeder.short();
                    refused.push(Blame { slot: slot.get(), seeder, reason });
                }
            }
        }
    }
    (accepted, refused)
}

fn operator(seeder: &Seeder) -> AccountId {
    seeder.ask.payout
}

async fn accept(
    caller: &Caller,
    network: &ChainId,
    terms: &Terms,
    slot: SlotIndex,
    seeder: &Seeder,
) -> Result<SignedAcceptance, String> {
    let id = seeder.ask.seeder;
    let peer = Peer::new(id.public_key(), seeder.ask.addresses.iter().cloned().collect());
    let seat = Seat { slot, seeder: id, peer };
    let request = Request::Accept { terms: terms.clone(), slot };
    let reply = caller.call(&seat, request, Payload::new()).await.map_err(|fault| fault.to_string())?;
    let Response::Accepted(signed) = reply.response else { return Err("an answer of another kind".into()) };
    let said = signed.verify(network).map_err(|error| error.to_string())?;
    let fits = said.contract == terms.contract(network)
        && said.terms == *terms
        && said.slot == slot
        && said.seeder == id
        && said.price == seeder.ask.price;
    if fits { Ok(signed) } else { Err("it accepted something else".into()) }
}

//! Applying one transaction: who asks, whether they may, what it costs, what it does.
//!
//! A refused transaction changes nothing, not even by its fee, and is never part of a block.

mod commit;
mod lanes;
mod lease;

use tallow_types::contract::SignedAsk;
use tallow_types::limits::{TX_LIFETIME_MAX, TX_MAX};
use tallow_types::policy::{Policy, Witness, shown_by};
use tallow_types::sign::verify;
use tallow_types::tx::{Action, Transaction};
use tallow_types::wire::Receipt;
use tallow_types::{AccountId, ContractId, Digest, Fuel, Height, PublicKey, domain, encode};

use tallow_market::phase::Phase;

use crate::block::Applied;
use crate::key;
use crate::record::{Contract, Seeder, Seen};
use crate::refusal::{OfferRefusal, Refusal};
use crate::work::{Stop, Work, plus};

/// Applies a transaction, or refuses it and changes nothing.
pub(crate) fn apply(work: &mut Work<'_>, tx: &Transaction) -> Result<Applied, Stop> {
    work.attempt(|work| {
        let sender = tx.sender();
        let bytes = encode(tx);
        let seen = seen(work, tx, &sender)?;
        admit(work, tx, &sender, bytes.len())?;
        charge(work, &sender, bytes.len())?;
        authorise(work, tx, &sender)?;
        act(work, &sender, &tx.core.action)?;
        remember(work, tx, &sender, &seen);
        let receipt = Receipt { tx: seen.tx, height: seen.height };
        Ok(Applied { sender, key: tx.core.key, receipt })
    })
}

/// The record that the transaction will leave, or its refusal if its key left one before.
fn seen(work: &Work<'_>, tx: &Transaction, sender: &AccountId) -> Result<Seen, Stop> {
    let action = borsh::to_vec(&tx.core.action).expect("writing to a vector cannot fail");
    let new =
        Seen { tx: tx.id(), action: Digest::new(domain::TX_ACTION.hash(&[&action])), height: work.height };
    match work.load::<Seen>(&key::seen(&tx.core.key, sender))? {
        None => Ok(new),
        Some(old) if old.action == new.action => Err(Refusal::Applied(old.receipt()).into()),
        Some(old) => Err(Refusal::KeyReused { tx: old.tx }.into()),
    }
}

/// Remembers a key for as long as any transaction signed before now could still be applied under it.
fn remember(work: &mut Work<'_>, tx: &Transaction, sender: &AccountId, seen: &Seen) {
    let until = Height::new(work.height.get().saturating_add(TX_LIFETIME_MAX));
    work.save(key::seen(&tx.core.key, sender), seen);
    work.state.put(key::forget(until, &tx.core.key, sender), Vec::new());
}

/// Checks size, expiry and the shape of policy and witnesses.
fn admit(work: &Work<'_>, tx: &Transaction, sender: &AccountId, len: usize) -> Result<(), Refusal> {
    let account = *sender;
    if len > TX_MAX {
        return Err(Refusal::TooLarge { len, max: TX_MAX });
    }
    let (expires, height) = (tx.core.expires, work.height);
    if expires < height {
        return Err(Refusal::Expired { expires, height });
    }
    let max = Height::new(height.get().saturating_add(TX_LIFETIME_MAX));
    if expires > max {
        return Err(Refusal::FarExpiry { expires, max });
    }
    if !tx.core.policy.is_well_formed() {
        return Err(Refusal::BadPolicy { account });
    }
    if !are_asked_for(&tx.core.policy, &tx.witnesses) {
        return Err(Refusal::StrayWitness { account });
    }
    Ok(())
}

/// Checks that the witnesses meet the policy. After the fee is taken, because signatures cost a validator most: whoever
/// cannot pay must not make it verify any.
fn authorise(work: &Work<'_>, tx: &Transaction, sender: &AccountId) -> Result<(), Refusal> {
    let (signed, shown) =
        shown_by(&tx.witnesses, |key, signature| verify(&work.chain, key, &tx.core, signature))?;
    if tx.core.policy.is_met(&signed, &shown, work.time) {
        Ok(())
    } else {
        Err(Refusal::PolicyNotMet { account: *sender })
    }
}

/// Whether every witness is one that the policy names, each once: else whoever carries a transaction could make it
/// longer, and dearer, than its sender did.
fn are_asked_for(policy: &Policy, witnesses: &[Witness]) -> bool {
    let (mut keys, mut hashes) = (Vec::new(), Vec::new());
    name(policy, &mut keys, &mut hashes);
    witnesses.iter().all(|witness| match witness {
        Witness::Signature(key, _) => take(&mut keys, key),
        Witness::Preimage(bytes) => take(&mut hashes, &Digest::new(*blake3::hash(bytes).as_bytes())),
    })
}

/// Removes all places of a value from a list; whether there was any.
fn take<T: PartialEq>(list: &mut Vec<T>, value: &T) -> bool {
    let before = list.len();
    list.retain(|other| other != value);
    list.len() < before
}

/// The keys and hashes that a policy names.
fn name(policy: &Policy, keys: &mut Vec<PublicKey>, hashes: &mut Vec<Digest>) {
    match policy {
        Policy::Key(key) => keys.push(*key),
        Policy::Hash(hash) => hashes.push(*hash),
        Policy::After(_) => {}
        Policy::Threshold { of, .. } => of.iter().for_each(|part| name(part, keys, hashes)),
    }
}

/// Burns the fee for a transaction's bytes.
fn charge(work: &mut Work<'_>, sender: &AccountId, len: usize) -> Result<(), Stop> {
    let bytes = u64::try_from(len).map_err(|_| Refusal::Overflow)?;
    let fee = tallow_market::fee::times(work.params.fee_per_byte, bytes).ok_or(Refusal::Overflow)?;
    work.take(sender, fee)?;
    Ok(work.burn(fee)?)
}

fn act(work: &mut Work<'_>, sender: &AccountId, action: &Action) -> Result<(), Stop> {
    match action {
        Action::Transfer { to, amount } => transfer(work, sender, to, *amount),
        Action::Offer(ask) => offer(work, sender, ask),
        Action::Open { terms, acceptances, fuel } => lanes::open(work, sender, terms, acceptances, *fuel),
        Action::Fill { contract, acceptances } => lanes::fill(work, sender, contract, acceptances),
        Action::End { contract, slot, seeder } => lanes::end(work, sender, contract, *slot, seeder),
        Action::Refuel { contract, amount } => refuel(work, sender, contract, *amount),
        Action::Withdraw { contract, amount } => withdraw(work, sender, contract, *amount),
        Action::Close { contract } => lanes::close(work, sender, contract),
        Action::Lease { contract, device } => lease::lease(work, sender, contract, device),
        Action::Release { contract, device } => lease::release(work, sender, contract, device),
        Action::Post(certificate) => commit::post(work, certificate),
    }
}

fn some(amount: Fuel) -> Result<Fuel, Refusal> {
    if amount == Fuel::ZERO { Err(Refusal::Nothing) } else { Ok(amount) }
}

fn transfer(work: &mut Work<'_>, sender: &AccountId, to: &AccountId, amount: Fuel) -> Result<(), Stop> {
    work.take(sender, some(amount)?)?;
    Ok(work.pay(to, amount)?)
}

/// Takes a seeder's terms from an account that can speak for it, because that account's money will back its lanes.
fn offer(work: &mut Work<'_>, sender: &AccountId, signed: &SignedAsk) -> Result<(), Stop> {
    let ask = signed.verify(&work.chain)?.clone();
    let (seeder, least, most) = (ask.seeder, work.params.price_min, work.params.collateral_epochs);
    let own = Policy::Key(seeder.public_key()).account();
    if *sender != ask.payout && *sender != own {
        return Err(OfferRefusal::NotBacker { seeder, sender: *sender }.into());
    }
    if ask.price < least {
        return Err(OfferRefusal::TooCheap { price: ask.price, least }.into());
    }
    if ask.notice > most {
        return Err(OfferRefusal::LongNotice { notice: ask.notice, most }.into());
    }
    let record = match work.seeder(&seeder)? {
        Some(old) if old.ask.sequence >= ask.sequence => {
            let (sequence, known) = (ask.sequence, old.ask.sequence);
            return Err(OfferRefusal::Stale { seeder, sequence, known }.into());
        }
        Some(old) => Seeder { ask, backer: *sender, ..old },
        None => Seeder {
            ask,
            backer: *sender,
            factors: tallow_market::factor::FactorSum::default(),
            lanes: 0,
            reserved: tallow_types::Bytes::ZERO,
            collateral: Fuel::ZERO,
        },
    };
    work.save_seeder(&record);
    Ok(())
}

/// Adds fuel. A contract in embers that can pay again is charged from the next boundary.
fn refuel(work: &mut Work<'_>, sender: &AccountId, id: &ContractId, amount: Fuel) -> Result<(), Stop> {
    let mut contract = work.open_contract(id)?;
    work.take(sender, some(amount)?)?;
    contract.fuel = plus(contract.fuel, amount)?;
    if contract.phase == Phase::Embers
        && contract.rate(&work.params).is_some_and(|rate| contract.fuel >= rate)
    {
        let next = work.next_epoch()?;
        work.queue(&mut contract, next);
    }
    work.save_contract(&contract);
    Ok(())
}

/// Takes fuel back, but not what the lanes' notice needs at the larger of the active and the pending size.
fn withdraw(work: &mut Work<'_>, sender: &AccountId, id: &ContractId, amount: Fuel) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    some(amount)?;
    let (fuel, reserve) = (contract.fuel, reserve(work, &contract)?);
    let rest = fuel.checked_sub(amount).filter(|rest| *rest >= reserve);
    contract.fuel = rest.ok_or(Refusal::Reserved { amount, fuel, reserve })?;
    work.save_contract(&contract);
    Ok(work.pay(sender, amount)?)
}

/// What all lanes cost for the notice of each: the least that a contract must hold to open, and keep when its owner takes
/// fuel back.
fn reserve(work: &Work<'_>, contract: &Contract) -> Result<Fuel, Stop> {
    let pending = commit::pending_bytes(work, contract)?;
    let mut sum = Fuel::ZERO;
    for (slot, lane) in contract.lanes() {
        let coming = pending.get(usize::from(slot.get())).copied().unwrap_or_default();
        let rate = tallow_market::fee::rate(&work.params, lane.price, lane.bytes.max(coming));
        let all = tallow_market::fee::times(rate, lane.notice.get()).and_then(|fee| fee.checked_add(sum));
        sum = all.ok_or(Refusal::Overflow)?;
    }
    Ok(sum)
}

//! The write lease of a contract: one device at a time.
//!
//! * Nobody holds it, or the holder's time is over and nobody waits: it is granted to whoever asks.
//! * The holder asks again and nobody waits: its time is extended under the same number.
//! * Another device asks: it waits, and from then on the holder can only finish and give back.
//! * The holder's time is over and a device waits: that device has it from that moment on, for one term, whether it
//!   asked again or not; so a dead device in the line blocks nobody for longer than a term.
//!
//! Time is block time. A number granted by an earlier incarnation is never extended: the rebuilt ledger may have
//! forgotten a grant, so a new number is given, which outranks it.

use tallow_types::{AccountId, Bounded, ContractId, Incarnation, Lease, PublicKey, TimeMs};

use crate::record::{Holder, LeaseRecord};
use crate::refusal::{LeaseRefusal, Refusal};
use crate::work::{Stop, Work};

/// Asks for the lease, or renews it.
pub(super) fn lease(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    device: &PublicKey,
) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    ask(work, &mut contract.lease, *device)?;
    work.save_contract(&contract);
    Ok(())
}

/// Gives the lease, or a place in its line, back.
pub(super) fn release(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    device: &PublicKey,
) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    let lease = &mut contract.lease;
    hand_over(work, lease)?;
    if lease.holder.is_some_and(|holder| holder.device == *device) {
        lease.holder = None;
        if let Some(next) = lease.waiting.take() {
            grant(work.incarnation, lease, next, term(work, work.time)?)?;
        }
    } else if lease.waiting == Some(*device) {
        lease.waiting = None;
    } else {
        return Err(LeaseRefusal::NotHolder { device: *device }.into());
    }
    work.save_contract(&contract);
    Ok(())
}

fn ask(work: &Work<'_>, lease: &mut LeaseRecord, device: PublicKey) -> Result<(), Refusal> {
    hand_over(work, lease)?;
    let until = term(work, work.time)?;
    let Some(holder) = lease.holder.filter(|holder| holder.expires > work.time || holder.device == device)
    else {
        return grant(work.incarnation, lease, device, until);
    };
    match lease.waiting {
        _ if holder.device != device => wait(lease, holder, device),
        Some(_) => Err(LeaseRefusal::Wanted { until: holder.expires }.into()),
        None if lease.last.incarnation != work.incarnation => grant(work.incarnation, lease, device, until),
        None => {
            lease.holder = Some(Holder { device, expires: until });
            Ok(())
        }
    }
}

/// Puts a device in line. Asking again keeps its place.
fn wait(lease: &mut LeaseRecord, holder: Holder, device: PublicKey) -> Result<(), Refusal> {
    match lease.waiting {
        Some(other) if other != device => {
            Err(LeaseRefusal::Busy { device: other, until: holder.expires }.into())
        }
        _ => {
            lease.waiting = Some(device);
            Ok(())
        }
    }
}

/// Gives an expired lease to the device that waits for it, from the moment it expired.
fn hand_over(work: &Work<'_>, lease: &mut LeaseRecord) -> Result<(), Refusal> {
    let Some(expired) = lease.holder.filter(|holder| holder.expires <= work.time) else { return Ok(()) };
    match lease.waiting.take() {
        Some(next) => grant(work.incarnation, lease, next, term(work, expired.expires)?),
        None => Ok(()),
    }
}

fn term(work: &Work<'_>, from: TimeMs) -> Result<TimeMs, Refusal> {
    from.after(work.params.lease).ok_or(Refusal::Overflow)
}

/// Grants the next number.
fn grant(
    incarnation: Incarnation,
    lease: &mut LeaseRecord,
    device: PublicKey,
    expires: TimeMs,
) -> Result<(), Refusal> {
    let counter = lease.last.counter.checked_add(1).ok_or(Refusal::Overflow)?;
    lease.last = Lease { incarnation, counter };
    lease.holder = Some(Holder { device, expires });
    let mut recent = std::mem::take(&mut lease.recent).into_vec();
    if recent.len() == tallow_types::limits::LEASES_KEPT {
        recent.remove(0);
    }
    recent.push((lease.last, device));
    lease.recent = Bounded::new(recent).expect("one was removed before one was added");
    Ok(())
}

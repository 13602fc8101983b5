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
//!
//! Pure functions from record to record, so that a simulator plays by the very rules.

use tallow_types::limits::LEASES_KEPT;
use tallow_types::{Bounded, DurationMs, Incarnation, Lease, PublicKey, TimeMs};

use crate::record::{Holder, LeaseRecord};
use crate::refusal::{LeaseRefusal, Refusal};

/// When a request is judged, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time of the block.
    pub now: TimeMs,
    /// How long a lease lasts unless renewed.
    pub term: DurationMs,
    /// Incarnation of the ledger.
    pub incarnation: Incarnation,
}

impl Moment {
    fn end_of_term(&self, from: TimeMs) -> Result<TimeMs, Refusal> {
        from.after(self.term).ok_or(Refusal::Overflow)
    }
}

/// A device asks for the lease, or renews it.
///
/// # Errors
/// [`LeaseRefusal`] if it can't have it, extend it, or wait for it now.
pub fn ask(record: &LeaseRecord, device: PublicKey, at: &Moment) -> Result<LeaseRecord, Refusal> {
    let mut lease = hand_over(record.clone(), at)?;
    let until = at.end_of_term(at.now)?;
    let held = lease.holder.filter(|holder| holder.expires > at.now || holder.device == device);
    let Some(holder) = held else { return grant(lease, device, until, at) };
    if holder.device != device {
        return wait(lease, holder, device);
    }
    if lease.waiting.is_some() {
        return Err(LeaseRefusal::Wanted { until: holder.expires }.into());
    }
    if lease.last.incarnation != at.incarnation {
        return grant(lease, device, until, at);
    }
    lease.holder = Some(Holder { device, expires: until });
    Ok(lease)
}

/// A device gives the lease, or its place in the line, back.
///
/// # Errors
/// [`LeaseRefusal::NotHolder`] if it has neither.
pub fn release(record: &LeaseRecord, device: PublicKey, at: &Moment) -> Result<LeaseRecord, Refusal> {
    let held = record.holder.is_some_and(|holder| holder.device == device);
    let mut lease = hand_over(record.clone(), at)?;
    if lease.holder.is_some_and(|holder| holder.device == device) {
        lease.holder = None;
        return match lease.waiting.take() {
            Some(next) => grant(lease, next, at.end_of_term(at.now)?, at),
            None => Ok(lease),
        };
    }
    if lease.waiting == Some(device) {
        lease.waiting = None;
        return Ok(lease);
    }
    // Its time was over, and the device that waited has it: given back already. A refusal would undo the handover, and
    // if that device is dead, nobody else would bring it about.
    if held {
        return Ok(lease);
    }
    Err(LeaseRefusal::NotHolder { device }.into())
}

/// Puts a device in line. Asking again keeps its place.
fn wait(mut lease: LeaseRecord, holder: Holder, device: PublicKey) -> Result<LeaseRecord, Refusal> {
    if let Some(other) = lease.waiting.filter(|other| *other != device) {
        return Err(LeaseRefusal::Busy { device: other, until: holder.expires }.into());
    }
    lease.waiting = Some(device);
    Ok(lease)
}

/// Gives an expired lease to the device that waits for it, from the moment it expired.
fn hand_over(mut lease: LeaseRecord, at: &Moment) -> Result<LeaseRecord, Refusal> {
    let Some(expired) = lease.holder.filter(|holder| holder.expires <= at.now) else { return Ok(lease) };
    match lease.waiting.take() {
        Some(next) => grant(lease, next, at.end_of_term(expired.expires)?, at),
        None => Ok(lease),
    }
}

/// Grants the next number.
fn grant(
    mut lease: LeaseRecord,
    device: PublicKey,
    expires: TimeMs,
    at: &Moment,
) -> Result<LeaseRecord, Refusal> {
    let counter = lease.last.counter.checked_add(1).ok_or(Refusal::Overflow)?;
    lease.last = Lease { incarnation: at.incarnation, counter };
    lease.holder = Some(Holder { device, expires });
    let mut recent = lease.recent.into_vec();
    if recent.len() == LEASES_KEPT {
        recent.remove(0);
    }
    recent.push((lease.last, device));
    lease.recent = Bounded::new(recent).expect("one was removed before one was added");
    Ok(lease)
}

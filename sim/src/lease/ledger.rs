//! A model of the ledger's part: who holds the lease, by block time. The rules are those of the ledger's lease
//! transactions, on its own record.

use std::collections::BTreeSet;

use tallow_ledger::record::{Holder, LeaseRecord};
use tallow_types::limits::LEASES_KEPT;
use tallow_types::{Bounded, DurationMs, Incarnation, Lease, PublicKey, TimeMs};

/// What a device sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Lease,
    Release,
}

/// A state of the ledger: what a follower's copy is.
#[derive(Clone, Debug, Default)]
pub(super) struct Version {
    pub(super) time: TimeMs,
    pub(super) lease: LeaseRecord,
}

/// All versions, oldest first.
pub(super) struct Ledger {
    versions: Vec<Version>,
    term: DurationMs,
    applied: BTreeSet<u64>,
}

impl Ledger {
    pub(super) fn new(term: DurationMs) -> Self {
        Self { versions: vec![Version::default()], term, applied: BTreeSet::new() }
    }

    pub(super) const fn height(&self) -> usize {
        self.versions.len() - 1
    }

    pub(super) fn at(&self, height: usize) -> &Version {
        &self.versions[height]
    }

    /// Makes a block of one transaction; once only, however often it comes. A refused one changes nothing.
    pub(super) fn submit(&mut self, id: u64, now_ms: u64, device: PublicKey, action: Action) {
        if !self.applied.insert(id) {
            return;
        }
        let mut next = self.at(self.height()).clone();
        next.time = TimeMs::new(now_ms.max(next.time.get() + 1));
        let before = next.lease.clone();
        let accepted = match action {
            Action::Lease => self.ask(&mut next, device),
            Action::Release => self.release(&mut next, device),
        };
        if !accepted {
            next.lease = before;
        }
        self.versions.push(next);
    }

    fn ask(&self, version: &mut Version, device: PublicKey) -> bool {
        self.hand_over(version);
        let Version { time, lease } = version;
        let until = self.after(*time);
        let Some(holder) = lease.holder.filter(|holder| holder.expires > *time || holder.device == device)
        else {
            grant(lease, device, until);
            return true;
        };
        if holder.device != device {
            let free = lease.waiting.is_none_or(|other| other == device);
            lease.waiting = lease.waiting.or(Some(device));
            return free;
        }
        if lease.waiting.is_some() {
            return false;
        }
        lease.holder = Some(Holder { device, expires: until });
        true
    }

    fn release(&self, version: &mut Version, device: PublicKey) -> bool {
        let held = version.lease.holder.is_some_and(|holder| holder.device == device);
        self.hand_over(version);
        let Version { time, lease } = version;
        if lease.holder.is_some_and(|holder| holder.device == device) {
            lease.holder = None;
            if let Some(next) = lease.waiting.take() {
                grant(lease, next, self.after(*time));
            }
            return true;
        }
        if lease.waiting == Some(device) {
            lease.waiting = None;
            return true;
        }
        // Its time was over and another one has it now: given back already. A refusal would undo the handover.
        held
    }

    fn hand_over(&self, version: &mut Version) {
        let Version { time, lease } = version;
        if let Some(expired) = lease.holder.filter(|holder| holder.expires <= *time)
            && let Some(next) = lease.waiting.take()
        {
            grant(lease, next, self.after(expired.expires));
        }
    }

    fn after(&self, time: TimeMs) -> TimeMs {
        time.after(self.term).expect("simulated time is short")
    }
}

fn grant(lease: &mut LeaseRecord, device: PublicKey, expires: TimeMs) {
    lease.last = Lease { incarnation: Incarnation::ZERO, counter: lease.last.counter + 1 };
    lease.holder = Some(Holder { device, expires });
    let mut recent = std::mem::take(&mut lease.recent).into_vec();
    if recent.len() == LEASES_KEPT {
        recent.remove(0);
    }
    recent.push((lease.last, device));
    lease.recent = Bounded::new(recent).expect("one was removed before one was added");
}

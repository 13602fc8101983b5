//! The ledger's part: its own rules of who holds the lease, by block time, in a model of its blocks: one transaction
//! each.

use std::collections::BTreeSet;

use tallow_ledger::lease::{self, Moment};
use tallow_ledger::record::LeaseRecord;
use tallow_types::{DurationMs, Incarnation, PublicKey, TimeMs};

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
        let before = self.at(self.height());
        let now = TimeMs::new(now_ms.max(before.time.get() + 1));
        let at = Moment { now, term: self.term, incarnation: Incarnation::ZERO };
        let after = match action {
            Action::Lease => lease::ask(&before.lease, device, &at),
            Action::Release => lease::release(&before.lease, device, &at),
        };
        let lease = after.unwrap_or_else(|_| before.lease.clone());
        self.versions.push(Version { time: now, lease });
    }
}

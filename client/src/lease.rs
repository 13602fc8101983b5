//! The write lease, seen from one device: ask the ledger, fence the seeders, find the base, keep, hand over.
//!
//! A pure core: `handle(event) -> effects`. The shell (this crate's session, or a simulator) runs the effects and feeds
//! their results back.
//!
//! Guarantees: `Ready` comes only after `quorum` seeders promised to refuse lower leases, with the base that their
//! answers imply; a lease number that was granted to this device before this core was made is never written under
//! (its commits may have been forgotten), it is given back and a new one taken.
//!
//! Does not: talk to anyone, know the time (it comes with the events), or check signatures.

use std::collections::BTreeMap;

use tallow_types::commit::Commit;
use tallow_types::id::{CommitHash, PublicKey};
use tallow_types::profile::Profile;
use tallow_types::unit::{DurationMs, Lease, SlotIndex, TimeMs};

use crate::base::{Answer, Step, Walk};

/// The lease as the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number.
    pub lease: Lease,
    /// Who holds it; `None` when it was given back.
    pub device: Option<PublicKey>,
    /// When it ends unless renewed, in block time.
    pub expires: TimeMs,
    /// Who waits for it.
    pub pending: Option<PublicKey>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// There is something to write.
    Want,
    /// The ledger's record at its newest block, and who holds a slot.
    Record {
        /// The lease.
        grant: Grant,
        /// Time of that block.
        now: TimeMs,
        /// Slots that have a seeder.
        held: Vec<SlotIndex>,
    },
    /// A seeder made the promise; this is its newest commit.
    Fenced {
        /// Its slot.
        slot: SlotIndex,
        /// What it signed last.
        newest: Option<Box<Commit>>,
    },
    /// A seeder did not.
    NotFenced {
        /// Its slot.
        slot: SlotIndex,
    },
    /// Enough patience with those who have not answered the fence.
    Straggling,
    /// A commit that was asked for.
    Shown(Box<Commit>),
    /// Nobody shows it: those who stand on it count as silent.
    Hidden(CommitHash),
    /// Time to look after the lease, if it is held. `now` is an estimate of block time.
    Tick {
        /// The estimate.
        now: TimeMs,
    },
    /// A seeder refused us as not the holder, or a commit failed: what we hold can't be relied on.
    Broken,
    /// Nothing is left to write, or what was under way is finished for a hand-over.
    Done,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the record from the ledger.
    Read,
    /// Send `Action::Lease`, then read the record.
    Ask,
    /// Send `Action::Release`, then read the record.
    Release,
    /// Wait about this long, then read the record.
    Wait(DurationMs),
    /// Fence these slots.
    Fence {
        /// With this lease.
        lease: Lease,
        /// All that are held.
        slots: Vec<SlotIndex>,
    },
    /// Ask these slots for a commit.
    Show {
        /// Which.
        commit: CommitHash,
        /// Who has it.
        from: Vec<SlotIndex>,
    },
    /// Writing may begin on this base.
    Ready {
        /// Under this lease.
        lease: Lease,
        /// From here; `None`: the contract's first commit.
        base: Option<CommitHash>,
    },
    /// Finish what is under way and say `Done`: another device waits, or the lease can't be renewed.
    HandOver,
    /// What was held is gone; nothing more may be sent under it.
    Lost,
    /// Too few seeders answer: read-only for now.
    ReadOnly {
        /// Who answered.
        have: usize,
        /// k + margin.
        need: usize,
    },
}

enum Phase {
    Idle,
    /// Reading the record before asking.
    Looking,
    /// Asked, or waiting in the queue.
    Asking,
    Fencing {
        lease: Lease,
        answers: BTreeMap<SlotIndex, Option<CommitHash>>,
        commits: Vec<Commit>,
        open: usize,
    },
    Walking {
        lease: Lease,
        walk: Walk,
    },
    Held {
        lease: Lease,
        since: TimeMs,
        told: bool,
    },
    Releasing {
        again: bool,
    },
}

/// The lease of one contract, as this device sees it.
pub struct LeaseCore {
    device: PublicKey,
    profile: Profile,
    length: DurationMs,
    share: DurationMs,
    phase: Phase,
    expires: TimeMs,
    /// Numbers up to this one were granted before this core was made, or broke.
    stale: Option<Lease>,
}

/// How often a waiting device looks again, and the least that any wait lasts.
const LOOK: DurationMs = DurationMs::new(200);

impl LeaseCore {
    /// A device that holds nothing. `length` is the network's lease; a holder keeps a lease for `share` at least while
    /// it has work and another device waits.
    #[must_use]
    pub const fn new(device: PublicKey, profile: Profile, length: DurationMs, share: DurationMs) -> Self {
        Self { device, profile, length, share, phase: Phase::Idle, expires: TimeMs::ZERO, stale: None }
    }

    /// The lease under which writing may go on, if any.
    #[must_use]
    pub const fn held(&self) -> Option<Lease> {
        match self.phase {
            Phase::Held { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Stops waiting for a lease that does not come. A grant that comes after all is taken for an old one.
    pub fn give_up(&mut self) {
        if !matches!(self.phase, Phase::Held { .. }) {
            self.phase = Phase::Idle;
        }
    }

    /// Takes what happened, says what to do.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Want => self.want(),
            Event::Record { grant, now, held } => self.record(grant, now, held),
            Event::Fenced { slot, newest } => self.fenced(slot, Some(newest)),
            Event::NotFenced { slot } => self.fenced(slot, None),
            Event::Straggling => self.straggling(),
            Event::Shown(commit) => self.walk(|walk| walk.show(&commit)),
            Event::Hidden(commit) => self.walk(|walk| walk.give_up(commit)),
            Event::Tick { now } => self.tick(now),
            Event::Broken => self.broken(),
            Event::Done => self.done(),
        }
    }

    fn want(&mut self) -> Vec<Effect> {
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Looking;
                vec![Effect::Read]
            }
            Phase::Releasing { .. } => {
                self.phase = Phase::Releasing { again: true };
                vec![]
            }
            _ => vec![],
        }
    }

    fn record(&mut self, grant: Grant, now: TimeMs, held: Vec<SlotIndex>) -> Vec<Effect> {
        let ours = grant.device == Some(self.device);
        match self.phase {
            Phase::Looking => {
                if ours {
                    self.stale = self.stale.max(Some(grant.lease));
                    self.phase = Phase::Releasing { again: true };
                    return vec![Effect::Release];
                }
                self.phase = Phase::Asking;
                vec![Effect::Ask]
            }
            Phase::Asking if ours && self.stale.is_some_and(|stale| grant.lease <= stale) => {
                self.phase = Phase::Releasing { again: true };
                vec![Effect::Release]
            }
            Phase::Asking if ours => self.granted(grant, now, held),
            Phase::Asking => {
                let free = grant.device.is_none() || now >= grant.expires;
                let queued = grant.pending == Some(self.device);
                if free || !queued && grant.pending.is_none() {
                    return vec![Effect::Wait(DurationMs::new(20)), Effect::Ask];
                }
                let left = grant.expires.since(now).get();
                vec![Effect::Wait(DurationMs::new(left.clamp(20, LOOK.get()))), Effect::Read]
            }
            Phase::Held { lease, since, told } => {
                if !ours || grant.lease != lease {
                    return self.broken();
                }
                self.expires = grant.expires;
                let waiting = grant.pending.is_some_and(|other| other != self.device);
                if waiting && !told && now.since(since) >= self.share {
                    self.phase = Phase::Held { lease, since, told: true };
                    return vec![Effect::HandOver];
                }
                vec![]
            }
            Phase::Releasing { again } => {
                if ours && self.stale.is_some_and(|stale| grant.lease <= stale) {
                    return vec![Effect::Wait(DurationMs::new(50)), Effect::Release];
                }
                self.phase = Phase::Idle;
                if again { self.want() } else { vec![] }
            }
            _ => vec![],
        }
    }

    fn granted(&mut self, grant: Grant, now: TimeMs, held: Vec<SlotIndex>) -> Vec<Effect> {
        self.expires = grant.expires.max(now);
        let lease = grant.lease;
        let quorum = usize::from(self.profile.quorum());
        if held.len() < quorum {
            self.stale = Some(lease);
            self.phase = Phase::Idle;
            return vec![Effect::ReadOnly { have: held.len(), need: quorum }];
        }
        self.phase =
            Phase::Fencing { lease, answers: BTreeMap::new(), commits: Vec::new(), open: held.len() };
        vec![Effect::Fence { lease, slots: held }]
    }

    fn fenced(&mut self, slot: SlotIndex, newest: Option<Option<Box<Commit>>>) -> Vec<Effect> {
        let Phase::Fencing { answers, commits, open, .. } = &mut self.phase else { return vec![] };
        *open = open.saturating_sub(1);
        if let Some(newest) = newest {
            answers.insert(slot, newest.as_ref().map(|commit| commit.hash()));
            commits.extend(newest.map(|commit| *commit));
        }
        if *open == 0 { self.straggling() } else { vec![] }
    }

    fn straggling(&mut self) -> Vec<Effect> {
        let quorum = usize::from(self.profile.quorum());
        let Phase::Fencing { lease, answers, commits, open } = &mut self.phase else { return vec![] };
        if answers.len() < quorum {
            if *open > 0 {
                return vec![];
            }
            let have = answers.len();
            self.stale = Some(*lease);
            self.phase = Phase::Idle;
            return vec![Effect::ReadOnly { have, need: quorum }];
        }
        let answers: Vec<Answer> =
            answers.iter().map(|(slot, newest)| Answer { slot: *slot, newest: *newest }).collect();
        let mut walk = Walk::new(&answers, self.profile.data(), quorum);
        for commit in commits.drain(..) {
            walk.show(&commit);
        }
        self.phase = Phase::Walking { lease: *lease, walk };
        self.walk(|_| ())
    }

    fn walk(&mut self, change: impl FnOnce(&mut Walk)) -> Vec<Effect> {
        let Phase::Walking { lease, walk } = &mut self.phase else { return vec![] };
        change(walk);
        let lease = *lease;
        match walk.step() {
            Step::Need { commit, from } => vec![Effect::Show { commit, from }],
            Step::TooFew { have } => {
                self.stale = Some(lease);
                self.phase = Phase::Idle;
                vec![Effect::ReadOnly { have, need: usize::from(self.profile.quorum()) }]
            }
            Step::Found(base) => {
                // Time since the grant is not known exactly; counting from the expiry never keeps it longer.
                let since = TimeMs::new(self.expires.get().saturating_sub(self.length.get()));
                self.phase = Phase::Held { lease, since, told: false };
                vec![Effect::Ready { lease, base }]
            }
        }
    }

    fn tick(&mut self, now: TimeMs) -> Vec<Effect> {
        let Phase::Held { lease, since, told } = self.phase else { return vec![] };
        if now >= self.expires && !told {
            // It may still be ours: asking tells, and extends it if nobody waits.
            self.phase = Phase::Held { lease, since, told };
            return vec![Effect::Ask];
        }
        let left = self.expires.since(now).get();
        if left * 3 <= self.length.get() * 2 && !told { vec![Effect::Ask] } else { vec![Effect::Read] }
    }

    fn broken(&mut self) -> Vec<Effect> {
        let lease = match &self.phase {
            Phase::Held { lease, .. } | Phase::Fencing { lease, .. } | Phase::Walking { lease, .. } => *lease,
            _ => return vec![],
        };
        self.stale = self.stale.max(Some(lease));
        self.phase = Phase::Idle;
        vec![Effect::Lost]
    }

    fn done(&mut self) -> Vec<Effect> {
        let Phase::Held { lease, .. } = self.phase else { return vec![] };
        self.stale = self.stale.max(Some(lease));
        self.phase = Phase::Releasing { again: false };
        vec![Effect::Release]
    }
}

#[cfg(test)]
mod tests;

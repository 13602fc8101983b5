//! Which commits count: those that a device of the account made, and those that the ledger shows with enough signatures.
//!
//! Guarantees: without the account's keys nobody makes a commit that is taken for one of the account's, whatever seeders
//! or ledger nodes join in; a certificate counts only if k + margin slots signed it, by seeders that hold them or held
//! them last.
//!
//! Does not: prove that the contract's record is the true one. A node that answers with another record can hide newer
//! commits, never make one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes as Payload;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tallow_ledger::record::Contract;
use tallow_seal::head::{Place, Which, open_head};
use tallow_seal::keys::ContractKeys;
use tallow_types::commit::{Commit, CommitCertificate, Countersignature, SignedCommit};
use tallow_types::fault::Code;
use tallow_types::id::{ChainId, CommitHash, ContractId, PublicKey, SeederId, Signature};
use tallow_types::unit::SlotIndex;
use tallow_types::wire::{LaneState, Request, Response};

use crate::seats::{Caller, Seat};

/// How long to wait before a commit that could not be shown is asked for again.
const AGAIN: Duration = Duration::from_millis(50);

/// Commits, and countersignatures, that are remembered as good.
const GOOD_MAX: usize = 4096;

/// Judges commits of one contract.
#[derive(Clone)]
pub(crate) struct Judge {
    pub network: ChainId,
    pub contract: ContractId,
    pub keys: Arc<ContractKeys>,
    /// What was found good before.
    pub good: Arc<Good>,
}

/// Commits of the account and countersignatures of them that were checked and found good: whoever looks at one contract often
/// sees the same ones.
#[derive(Default)]
pub(crate) struct Good(Mutex<Known>);

#[derive(Default)]
struct Known {
    commits: BTreeMap<CommitHash, (PublicKey, Signature)>,
    counters: BTreeMap<(CommitHash, SlotIndex), (SeederId, Signature)>,
}

impl Good {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_commit(&self, commit: CommitHash, signed: &SignedCommit, check: impl FnOnce() -> bool) -> bool {
        let by = (signed.signer, signed.signature);
        if self.known().commits.get(&commit) == Some(&by) {
            return true;
        }
        let is_good = check();
        if is_good {
            let mut known = self.known();
            if known.commits.len() >= GOOD_MAX {
                known.commits.clear();
            }
            known.commits.insert(commit, by);
        }
        is_good
    }

    fn is_counter(
        &self,
        network: &ChainId,
        commit: (CommitHash, &Commit),
        counter: &Countersignature,
    ) -> bool {
        let (key, by) = ((commit.0, counter.slot), (counter.seeder, counter.signature));
        if self.known().counters.get(&key) == Some(&by) {
            return true;
        }
        let is_good = counter.verify(network, commit.1).is_ok();
        if is_good {
            let mut known = self.known();
            if known.counters.len() >= GOOD_MAX {
                known.counters.clear();
            }
            known.counters.insert(key, by);
        }
        is_good
    }
}

impl Judge {
    /// Whether a device of the account made this commit: both heads are sealed for its rank, and who signed it held its
    /// lease, if the ledger still remembers that one.
    pub fn is_ours(&self, record: &Contract, signed: &SignedCommit) -> bool {
        let commit = &signed.commit;
        let place = Place::from(commit);
        let holder = record.lease.device_of(commit.lease);
        commit.contract == self.contract
            && commit.slots.len() == record.slots.len()
            && holder.is_none_or(|device| device == signed.signer)
            && self.good.is_commit(commit.hash(), signed, || {
                signed.verify(&self.network).is_ok()
                    && open_head(&self.keys.catalog, Which::Catalog, &place, &commit.catalog_head).is_ok()
                    && open_head(&self.keys.repair, Which::Repair, &place, &commit.repair_head).is_ok()
            })
    }

    /// Whether a seeder's newest commit is one of ours, countersigned by it.
    pub fn is_sound(&self, record: &Contract, seat: &Seat, lane: &LaneState) -> bool {
        lane.newest.as_ref().is_none_or(|(signed, countersignature)| {
            countersignature.slot == seat.slot
                && countersignature.seeder == seat.seeder
                && self.is_signed((signed.commit.hash(), &signed.commit), countersignature)
                && self.is_ours(record, signed)
        })
    }

    fn is_signed(&self, commit: (CommitHash, &Commit), countersignature: &Countersignature) -> bool {
        self.good.is_counter(&self.network, commit, countersignature)
    }

    /// Whether a certificate is of one of our commits and shows that it was acknowledged.
    pub fn is_acknowledged(&self, record: &Contract, certificate: &CommitCertificate) -> bool {
        let commit = &certificate.signed.commit;
        let commit = (commit.hash(), commit);
        let mut slots = BTreeSet::new();
        for counter in certificate.countersignatures.iter() {
            let Some(slot) = record.slots.get(usize::from(counter.slot.get())) else { continue };
            let holds = slot.lane.is_some_and(|lane| lane.seeder == counter.seeder)
                || slot.former.is_some_and(|former| former.seeder == counter.seeder);
            if holds && self.is_signed(commit, counter) {
                slots.insert(counter.slot);
            }
        }
        slots.len() >= usize::from(record.terms.profile.quorum()) && self.is_ours(record, &certificate.signed)
    }
}

/// Asks for one commit and those before it.
pub(crate) struct Show<'a> {
    pub caller: &'a Caller,
    pub judge: &'a Judge,
    pub record: &'a Contract,
    pub seats: &'a [Seat],
    /// Another seat is asked whenever none has answered for this long.
    pub hedge: Duration,
    /// For how long those who did not answer are asked again.
    pub patience: Duration,
}

/// What a seat said: commits, nothing, or no answer at all.
enum Shown {
    Commits(Vec<SignedCommit>),
    Unknown,
    NoAnswer,
}

impl Show<'_> {
    /// A commit and some before it, newest first; empty if nobody shows it. Those of `first` are asked before the others.
    pub async fn run(&self, commit: CommitHash, first: &[SlotIndex]) -> Vec<SignedCommit> {
        let mut order: Vec<&Seat> = self.seats.iter().collect();
        order.sort_by_key(|seat| !first.contains(&seat.slot));
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let mut waiting = order.iter().map(|seat| self.one(seat, commit));
            let mut running: FuturesUnordered<_> = waiting.by_ref().take(1).collect();
            let mut is_final = true;
            loop {
                match tokio::time::timeout(self.hedge, running.next()).await {
                    Ok(Some(Shown::Commits(found))) => return found,
                    Ok(Some(Shown::Unknown)) => running.extend(waiting.next()),
                    Ok(Some(Shown::NoAnswer)) => {
                        is_final = false;
                        running.extend(waiting.next());
                    }
                    Ok(None) => break,
                    Err(_) => running.extend(waiting.next()),
                }
            }
            if is_final || tokio::time::Instant::now() >= deadline {
                return Vec::new();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Only commits that are ours and hang together are taken.
    async fn one(&self, seat: &Seat, from: CommitHash) -> Shown {
        let request = Request::Commits { contract: self.judge.contract, slot: seat.slot, from };
        let commits = match self.caller.call(seat, request, Payload::new()).await.map(|reply| reply.response)
        {
            Ok(Response::Commits { commits }) => commits,
            Err(fault) if fault.code() != Code::NotFound => return Shown::NoAnswer,
            _ => return Shown::Unknown,
        };
        let mut wanted = from;
        let mut found = Vec::new();
        for signed in commits.into_vec() {
            if signed.commit.hash() != wanted || !self.judge.is_ours(self.record, &signed) {
                break;
            }
            wanted = signed.commit.previous;
            found.push(signed);
        }
        if found.is_empty() { Shown::Unknown } else { Shown::Commits(found) }
    }
}

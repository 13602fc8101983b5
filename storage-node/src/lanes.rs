//! What a seeder may sign for a lane: fences and countersignatures. A small consensus of its own, so the rules are pure:
//! an event and what the ledger says go in, a step comes out; nothing is promised before the step's update is durable.
//!
//! Guarantees of one seeder with its records:
//! * it never countersigns two commits of one rank, nor one whose lease is below a fence it gave;
//! * each commit it countersigns extends the one before, or belongs to a later lease than that one;
//! * what it countersigns names exactly the lane that it holds.
//!
//! A seeder without records of a lane is silent: it gives fences, but does not say "no commit yet", until it has
//! countersigned again. If it once had records, or has only old ones, it may have signed anything in the leases so far; it
//! serves from the next one on.
//!
//! Does not know which commit is the base of a new lease: the device finds it among k + margin answers. Does not look at
//! slices: the store refuses an update that names one it does not have.

mod chain;
mod change;

pub use change::Change;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use tallow_proofs::lane::{Changed, SumTree};
use tallow_types::commit::{Countersignature, Countersigned, Fence, Leaf, Rank, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::COMMIT_CHAIN_MAX;
use tallow_types::sign::{BadSignature, Keypair};
use tallow_types::{Bytes, ChainId, CommitHash, LeafIndex, Lease, PublicKey, Signature, StripeId};

use crate::store::{KeptCommit, LaneKey, LaneRecord, LaneRow, LaneUpdate, Origin};

/// What the ledger says about a contract, as far as lanes need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The network.
    pub chain: ChainId,
    /// The lease granted last.
    pub lease: Lease,
    /// Who holds it; `None` once it was given back.
    pub device: Option<PublicKey>,
    /// Who gets the next one.
    pub waiting: Option<PublicKey>,
    /// Former leases that the ledger remembers, with their devices.
    pub former: Vec<(Lease, PublicKey)>,
    /// Most bytes of a lane.
    pub room: Bytes,
    /// Rank of the newest commit that the ledger has with this seeder's countersignature.
    pub signed: Rank,
    /// Slots of the contract.
    pub slots: usize,
    /// Whether nobody held the slot before: then "no commit yet" is all there is to know of it.
    pub first_holder: bool,
}

/// What a device asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Refuse lower leases, and tell your newest commit.
    Fence {
        /// The caller's lease.
        lease: Lease,
    },
    /// Countersign the last commit.
    Countersign {
        /// Commits up to it.
        chain: Vec<SignedCommit>,
        /// How the lane gets there.
        change: Change,
    },
}

/// What the device is told once the update is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The promise.
    Fenced {
        /// What is promised.
        fence: Fence,
        /// The seeder's signature.
        signature: Signature,
    },
    /// The promise holds, but there are no records to tell of.
    Silent,
    /// The countersignature.
    Countersigned(Countersignature),
}

/// Why a seeder does not sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request contradicts itself.
    #[error("{0}")]
    Malformed(&'static str),
    /// The ledger here does not know this lease yet.
    #[error("lease {lease} is not known here yet, the last known is {known}")]
    Behind {
        /// The caller's.
        lease: Lease,
        /// The last one known.
        known: Lease,
    },
    /// A later lease was granted or promised.
    #[error("lease {lease} is over, this seeder serves {served} and later")]
    Fenced {
        /// The caller's.
        lease: Lease,
        /// The lowest that is served.
        served: Lease,
    },
    /// The caller does not hold the lease.
    #[error("only the device that holds the write lease may do this")]
    Forbidden,
    /// Records were lost in this lease.
    #[error(
        "this seeder does not know all that was signed for the slot; it serves from the lease after {floor} on"
    )]
    Lost {
        /// The lease that was current when this was noticed.
        floor: Lease,
    },
    /// A signature in the chain is not valid.
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
    /// The chain does not lead from the newest commit to the last.
    #[error("commit does not follow: {0}")]
    Chain(&'static str),
    /// The change does not lead to what the commit names.
    #[error("lane after the change is not what the commit names: {0}")]
    Lane(&'static str),
    /// More bytes than the contract's room.
    #[error("lane would have {bytes} bytes, the contract's room is {room}")]
    NoRoom {
        /// Bytes that it would have.
        bytes: Bytes,
        /// The room.
        room: Bytes,
    },
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Malformed(_) => Code::Malformed,
            Refusal::Behind { .. } => Code::Behind,
            Refusal::Fenced { .. } => Code::Fenced,
            Refusal::Forbidden => Code::Forbidden,
            Refusal::BadSignature(_) => Code::BadSignature,
            Refusal::Lost { .. } | Refusal::Chain(_) | Refusal::Lane(_) => Code::WrongCommit,
            Refusal::NoRoom { .. } => Code::NoRoom,
        };
        Self::new(code, refusal.to_string())
    }
}

/// What an event leads to. The update first, then the answer, then [`Lane::apply`]; a step that isn't applied never
/// happened.
#[derive(Debug)]
pub struct Step {
    /// What must be durable before anybody is told.
    pub update: Option<LaneUpdate>,
    /// What the device is told.
    pub answer: Answer,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Same,
    Row(LaneRow),
    Commit { row: LaneRow, changed: Changed, change: Change, commits: Vec<KeptCommit> },
}

/// A lane as its seeder knows it.
#[derive(Clone, Debug)]
pub struct Lane {
    key: LaneKey,
    row: LaneRow,
    tree: SumTree,
    leaves: Vec<Option<Leaf>>,
    stripes: BTreeSet<StripeId>,
    /// Newest last.
    commits: VecDeque<KeptCommit>,
}

/// Records of a lane that contradict each other: the index is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("records of a lane contradict each other")]
pub struct BadRecords;

impl Lane {
    /// A lane without commits.
    #[must_use]
    pub fn new(key: LaneKey, row: LaneRow) -> Self {
        Self {
            key,
            row,
            tree: SumTree::new(),
            leaves: Vec::new(),
            stripes: BTreeSet::new(),
            commits: VecDeque::new(),
        }
    }

    /// From what was kept; checked against the newest commit, because a wrong lane would make wrong signatures.
    ///
    /// # Errors
    /// [`BadRecords`].
    pub fn from_record(key: LaneKey, record: LaneRecord) -> Result<Self, BadRecords> {
        let count = usize::try_from(record.row.leaves.get()).map_err(|_| BadRecords)?;
        let mut leaves = vec![None; count];
        for (index, leaf) in record.leaves {
            let at = usize::try_from(index.get()).map_err(|_| BadRecords)?;
            *leaves.get_mut(at).ok_or(BadRecords)? = Some(leaf);
        }
        let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref)).map_err(|_| BadRecords)?;
        let stripes = leaves.iter().flatten().map(|leaf| leaf.stripe).collect();
        let commits: VecDeque<_> = record.commits.into();
        let lane = Self { key, row: record.row, tree, leaves, stripes, commits };
        if let Some((hash, _)) = lane.row.newest {
            let kept = lane.commits.back().filter(|kept| kept.signed.commit.hash() == hash);
            let slot = kept.and_then(|kept| kept.signed.commit.slots.get(usize::from(key.slot.get())));
            if slot.is_none_or(|slot| slot.root != lane.tree.root()) {
                return Err(BadRecords);
            }
        }
        Ok(lane)
    }

    /// What it promises.
    #[must_use]
    pub const fn row(&self) -> &LaneRow {
        &self.row
    }

    /// Takes a row that was changed outside the rules: room, expiry, whether the ledger still knows the lane.
    pub fn set_row(&mut self, row: LaneRow) {
        self.row = row;
    }

    /// Bytes of its slices.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.tree.bytes()
    }

    /// The newest commit with this seeder's countersignature.
    #[must_use]
    pub fn newest(&self) -> Option<(&SignedCommit, Countersignature)> {
        let kept = self.commits.back()?;
        Some((&kept.signed, kept.countersignature?))
    }

    /// Commits from one backwards, newest first, as far as they are kept.
    #[must_use]
    pub fn commits_from(&self, from: &CommitHash) -> Vec<SignedCommit> {
        let (mut want, mut found) = (*from, Vec::new());
        for kept in self.commits.iter().rev() {
            if kept.signed.commit.hash() == want {
                want = kept.signed.commit.previous;
                found.push(kept.signed.clone());
            }
        }
        found
    }

    /// At most `limit` leaves from an index on.
    #[must_use]
    pub fn leaves_from(&self, from: LeafIndex, limit: usize) -> &[Option<Leaf>] {
        let from = usize::try_from(from.get()).unwrap_or(usize::MAX).min(self.leaves.len());
        &self.leaves[from..self.leaves.len().min(from.saturating_add(limit))]
    }

    /// Decides what to do. Changes nothing.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn handle(
        &self,
        seeder: &Keypair,
        grant: &Grant,
        caller: PublicKey,
        event: Event,
    ) -> Result<Step, Refusal> {
        match event {
            Event::Fence { lease } => self.fence(seeder, grant, caller, lease),
            Event::Countersign { chain, change } => self.countersign(seeder, grant, caller, chain, change),
        }
    }

    /// Takes a step whose update is durable.
    pub fn apply(&mut self, step: Step) -> Answer {
        match step.next {
            Next::Same => {}
            Next::Row(row) => self.row = row,
            Next::Commit { row, changed, change, commits } => {
                let keep = usize::try_from(change.keep.get()).expect("checked against the leaves in memory");
                for leaf in self.leaves.drain(keep..).flatten() {
                    self.stripes.remove(&leaf.stripe);
                }
                for index in &change.dropped {
                    let at = usize::try_from(index.get()).expect("checked against the leaves in memory");
                    if let Some(leaf) = self.leaves[at].take() {
                        self.stripes.remove(&leaf.stripe);
                    }
                }
                self.stripes.extend(change.appended.iter().flatten().map(|leaf| leaf.stripe));
                self.leaves.extend(change.appended);
                self.row = row;
                self.tree.accept(changed);
                self.commits.extend(commits);
                let surplus = self.commits.len().saturating_sub(COMMIT_CHAIN_MAX);
                self.commits.drain(..surplus);
            }
        }
        step.answer
    }

    /// Whether the ledger has a later commit from this seeder than the records: they were put back from a copy, and what
    /// was signed since is not known. `None` once that is written down.
    #[must_use]
    pub fn found_stale(&self, grant: &Grant) -> Option<Origin> {
        let newest = self.row.newest.map_or(Rank::default(), |(_, rank)| rank);
        let known = matches!(self.row.origin, Origin::Lost { floor } if newest.lease <= floor);
        (grant.signed > newest && !known).then_some(Origin::Lost { floor: grant.lease })
    }

    fn authorise(&self, grant: &Grant, caller: PublicKey, lease: Lease) -> Result<(), Refusal> {
        if lease > grant.lease {
            return Err(Refusal::Behind { lease, known: grant.lease });
        }
        let served = grant.lease.max(self.row.fence);
        if lease < served {
            return Err(Refusal::Fenced { lease, served });
        }
        if grant.device != Some(caller) { Err(Refusal::Forbidden) } else { Ok(()) }
    }

    fn fence(
        &self,
        seeder: &Keypair,
        grant: &Grant,
        caller: PublicKey,
        lease: Lease,
    ) -> Result<Step, Refusal> {
        self.authorise(grant, caller, lease)?;
        let row = LaneRow { fence: lease, ..self.row.clone() };
        let knows = match (row.newest, row.origin) {
            (None, origin) => origin == Origin::Founder && grant.first_holder,
            (Some((_, rank)), Origin::Lost { floor }) => rank.lease > floor,
            (Some(_), _) => true,
        };
        let answer = if !knows {
            Answer::Silent
        } else {
            let (newest, rank) = row.newest.unwrap_or((CommitHash::ZERO, Rank::default()));
            let fence = Fence { contract: self.key.contract, slot: self.key.slot, lease, newest, rank };
            Answer::Fenced { fence, signature: seeder.sign(&grant.chain, &fence) }
        };
        if row == self.row {
            return Ok(Step { update: None, answer, next: Next::Same });
        }
        let update = Some(LaneUpdate::row(self.key, row.clone()));
        Ok(Step { update, answer, next: Next::Row(row) })
    }

    fn countersign(
        &self,
        seeder: &Keypair,
        grant: &Grant,
        caller: PublicKey,
        chain: Vec<SignedCommit>,
        change: Change,
    ) -> Result<Step, Refusal> {
        let target = &chain.last().ok_or(Refusal::Malformed("there is no commit to countersign"))?.commit;
        self.authorise(grant, caller, target.lease)?;
        let (hash, rank) = (target.hash(), target.rank());
        let message = Countersigned { contract: self.key.contract, commit: hash, rank, slot: self.key.slot };
        let signature = Countersignature {
            slot: self.key.slot,
            seeder: seeder.public().seeder(),
            signature: seeder.sign(&grant.chain, &message),
        };
        let answer = Answer::Countersigned(signature);
        if self.row.newest.is_some_and(|(newest, _)| newest == hash) {
            return Ok(Step { update: None, answer, next: Next::Same });
        }
        if let Origin::Lost { floor } = self.row.origin
            && target.lease <= floor
        {
            return Err(Refusal::Lost { floor });
        }
        let linked = chain::check(self.key.contract, self.row.newest, grant, &chain)?;
        let changed = self.changed(grant, target, &change, linked)?;
        let row = LaneRow {
            fence: target.lease,
            newest: Some((hash, rank)),
            leaves: target.leaves,
            room: grant.room,
            ..self.row.clone()
        };
        let last = chain.len() - 1;
        let commits: Vec<_> = chain
            .into_iter()
            .enumerate()
            .map(|(n, signed)| KeptCommit { signed, countersignature: (n == last).then_some(signature) })
            .collect();
        let update = LaneUpdate {
            forget: self.surplus(commits.len()),
            commits: commits.clone(),
            removed: self.removed(&change),
            appended: (change.keep.get()..)
                .map(LeafIndex::new)
                .zip(change.appended.iter().copied())
                .filter_map(|(index, leaf)| Some((index, leaf?)))
                .collect(),
            rebased: !linked || self.row.newest.is_none(),
            ..LaneUpdate::row(self.key, row.clone())
        };
        Ok(Step { update: Some(update), answer, next: Next::Commit { row, changed, change, commits } })
    }

    /// What a change makes of the tree, if that is what the commit names.
    fn changed(
        &self,
        grant: &Grant,
        target: &tallow_types::commit::Commit,
        change: &Change,
        linked: bool,
    ) -> Result<Changed, Refusal> {
        if target.slots.len() != grant.slots {
            return Err(Refusal::Lane("number of slots"));
        }
        let slot = target.slots.get(usize::from(self.key.slot.get())).ok_or(Refusal::Lane("no such slot"))?;
        if slot.bytes > grant.room {
            return Err(Refusal::NoRoom { bytes: slot.bytes, room: grant.room });
        }
        if linked && change.keep != self.tree.len() {
            return Err(Refusal::Lane("only the first commit of a lease may leave others behind"));
        }
        let changed = self.tree.change(change.keep, &change.dropped, &change.appended);
        let changed = changed.map_err(|_| Refusal::Lane("change does not fit the lane"))?;
        let gone: BTreeSet<_> = self.removed(change).iter().map(|(_, leaf)| leaf.stripe).collect();
        let mut new = BTreeSet::new();
        for Leaf { stripe, .. } in change.appended.iter().flatten() {
            if (self.stripes.contains(stripe) && !gone.contains(stripe)) || !new.insert(*stripe) {
                return Err(Refusal::Lane("a stripe has two leaves"));
            }
        }
        if changed.len() != target.leaves {
            return Err(Refusal::Lane("number of leaves"));
        }
        if changed.root() != slot.root || changed.bytes() != slot.bytes {
            return Err(Refusal::Lane("root or bytes"));
        }
        Ok(changed)
    }

    /// Leaves that a change takes away.
    fn removed(&self, change: &Change) -> Vec<(LeafIndex, Leaf)> {
        let named = |at: u64| {
            let leaf = self.leaves.get(usize::try_from(at).ok()?).copied().flatten()?;
            Some((LeafIndex::new(at), leaf))
        };
        let dropped = change.dropped.iter().map(|index| index.get());
        let mut removed: Vec<_> =
            dropped.chain(change.keep.get()..self.leaves.len() as u64).filter_map(named).collect();
        removed.sort_unstable_by_key(|(index, _)| *index);
        removed.dedup();
        removed
    }

    /// Ranks that make place for so many more commits.
    fn surplus(&self, more: usize) -> Vec<Rank> {
        let surplus = (self.commits.len() + more).saturating_sub(COMMIT_CHAIN_MAX);
        self.commits.iter().take(surplus).map(|kept| kept.signed.commit.rank()).collect()
    }
}

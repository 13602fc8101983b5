//! Making a commit: a group is staged, its records written and sent, the commit signed and shown, and the book follows.
//!
//! Guarantees: those of the committer that concern one commit: all or nothing, and never two of one rank.

use std::collections::BTreeSet;
use std::sync::Arc;

use tallow_seal::head::{Place, Which, seal_head};
use tallow_types::codec::Bounded;
use tallow_types::commit::{Commit, Rank, SignedCommit, SlotState};
use tallow_types::id::CommitHash;
use tallow_types::unit::{LeafIndex, Sequence};
use tokio::sync::oneshot;

use super::cell::{Cell, Failure, State};
use super::committer::{Committer, DEAD, Session};
use super::countersign::Verdict;
use super::group::{
    Acked, Finish, Fresh, Resolver, Staged, catalog_records, count_records, repair_records, stage,
};
use super::lanes::Made;
use super::packer::{Closed, Known};
use super::tail::{Done, Tail};
use crate::db;
use crate::error::{Explain as _, PutError, SessionError};
use crate::stripes::Row;

/// Data in the open stripe above which it gets a stripe of its own, so that a resume finds it again. Bytes.
const SHARED_TAIL_MAX: u32 = 1 << 20;
/// How often a group is tried under a new lease.
const TRIES: usize = 4;

/// What goes wrong with a commit, and what is to be told.
pub(crate) enum Trouble {
    /// Try again under a new lease.
    Again(SessionError),
    /// Tell it to whoever waits.
    Final(PutError),
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::LeaseLost => Self::Again(error),
            other => Self::Final(other.into()),
        }
    }
}

fn internal(reason: impl std::fmt::Display) -> Trouble {
    Trouble::Final(SessionError::Internal(reason.to_string()).into())
}

impl Committer {
    /// Commits a group and tells everybody in it.
    pub async fn commit_group(&mut self, mut group: Vec<Finish>) {
        let mut last = SessionError::LeaseLost;
        for _ in 0..TRIES {
            match self.try_group(&mut group).await {
                Ok(acked) => {
                    for finish in group {
                        let _gone = finish.reply.send(Ok(acked.clone()));
                    }
                    return;
                }
                Err(Trouble::Again(error)) => last = error,
                Err(Trouble::Final(error)) => return tell_all(group, error),
            }
        }
        tell_all(group, last.into());
    }

    async fn try_group(&mut self, group: &mut Vec<Finish>) -> Result<Acked, Trouble> {
        self.ensure_session().await?;
        let works = self.works.clone();
        if works.packer.open_len() > SHARED_TAIL_MAX
            && let Some(closed) = works.packer.close()
        {
            works.uplink.send_apart(closed, None);
        }
        let (open, tail_cell) = works.packer.take();
        self.settle_group(group, &tail_cell).await;
        // A lease lost while waiting: what was taken goes back as a stripe of its own and is found settled next time.
        let is_lost = works.keeper.held.borrow().is_none();
        if group.is_empty() || is_lost {
            if let Some(stripe) = open.close() {
                works.uplink.send_apart(Closed { cell: tail_cell, stripe }, None);
            }
            return if is_lost { Err(Trouble::Again(SessionError::LeaseLost)) } else { Ok(Acked::default()) };
        }
        let fresh = Fresh::new(works.uplink.settled(), self.book.leaves());
        let tail_leaf = fresh.end(self.book.leaves());
        let tail = Tail::resume(works.profile, &works.packer, (open, tail_cell.clone()), tail_leaf);
        let mut staged = Staged::default();
        let made = self.write_group(group, fresh, (tail, &tail_cell, tail_leaf), &mut staged).await;
        let plan = match made {
            Ok(plan) => plan,
            Err(trouble) => {
                staged.revert(&mut self.book.catalog);
                return Err(trouble);
            }
        };
        let paths: BTreeSet<_> = staged.changes.keys().cloned().collect();
        match self.commit(plan).await {
            Ok(mut acked) => {
                self.look_for_dead = true;
                acked.dead_stripes = self.dead.len() as u64;
                self.save(&paths).map_err(|error| Trouble::Final(SessionError::from(error).into()))?;
                Ok(acked)
            }
            Err(trouble) => {
                staged.revert(&mut self.book.catalog);
                Err(trouble)
            }
        }
    }

    /// Commits the book as it is, with what is new in it to the repair index.
    pub async fn commit_alone(&mut self) -> Result<(), SessionError> {
        let (reply, answer) = oneshot::channel();
        self.commit_group(vec![Finish { changes: Vec::new(), usage: None, reply }]).await;
        match answer.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(PutError::Session(error))) => Err(error),
            Ok(Err(error)) => {
                Err(SessionError::Shared { text: error.to_string(), kind: error.kind(), hint: error.hint() })
            }
            Err(_) => Err(SessionError::Internal("a commit was not answered".into())),
        }
    }

    /// Waits for the stripes that a group needs; those whose stripes failed are told and leave it.
    async fn settle_group(&self, group: &mut Vec<Finish>, tail: &Arc<Cell>) {
        let mut waiting = std::mem::take(group).into_iter();
        while let Some(finish) = waiting.next() {
            let cells = finish.cells();
            let mut failed = None;
            for cell in cells.iter().filter(|cell| !Arc::ptr_eq(cell, tail)) {
                match self.settled_or_lost(cell).await {
                    Some(State::Failed(failure)) => failed = Some(failure),
                    Some(_) => continue,
                    None => {
                        group.push(finish);
                        group.extend(waiting);
                        return;
                    }
                }
                break;
            }
            match failed {
                Some(failure) => drop(finish.reply.send(Err(failure.into()))),
                None => group.push(finish),
            }
        }
    }

    /// Waits for a stripe; `None` if the lease goes first: whoever waits then is the one who has to get it back.
    async fn settled_or_lost(&self, cell: &Cell) -> Option<State> {
        let mut held = self.works.keeper.held.subscribe();
        tokio::select! {
            biased;
            state = cell.settled() => Some(state),
            _ = async { held.wait_for(Option::is_none).await.is_ok() } => None,
        }
    }

    /// Stages the group, writes its records into the tail and sends that.
    async fn write_group(
        &mut self,
        group: &mut Vec<Finish>,
        fresh: Fresh,
        (mut tail, tail_cell, tail_leaf): (Tail<'_>, &Arc<Cell>, LeafIndex),
        staged: &mut Staged,
    ) -> Result<Plan, Trouble> {
        let works = self.works.clone();
        let dropped = self.droppable().await;
        let resolver = Resolver { fresh: &fresh, tail: tail_cell, tail_leaf };
        let mut waiting = std::mem::take(group);
        for finish in waiting.drain(..) {
            let keys = &works.keys.catalog;
            match stage(staged, &mut self.book, &finish.changes, &resolver, (&mut tail, keys)) {
                Ok(()) => group.push(finish),
                Err(error) => drop(finish.reply.send(Err(error))),
            }
        }
        let mut catalog = catalog_records(&self.book, staged.changes.clone());
        let before = self.book.leaves();
        for (_, row, _) in &fresh.cells {
            self.book.rows.push(Row::clone(row));
        }
        let mut repair = repair_records(&self.book, &dropped);
        self.book.rows.truncate(before);
        let previous = (catalog.previous, repair.previous);
        let catalog_put =
            tail.records(&works.keys.catalog, &catalog.records, previous.0).map_err(internal)?;
        let repair_put = tail.records(&works.keys.repair, &repair.records, previous.1).map_err(internal)?;
        let logs = [(&works.keys.catalog, catalog_put), (&works.keys.repair, repair_put)];
        let (stripes, heads) = tail.finish(logs).map_err(internal)?;
        let leaves: BTreeSet<LeafIndex> =
            (tail_leaf.get()..).take(stripes.len()).map(LeafIndex::new).collect();
        count_records(&mut catalog, leaves.clone());
        count_records(&mut repair, leaves);
        catalog.log.head = heads[0];
        repair.log.head = heads[1];
        let tail = self.send_tail(stripes).await?;
        let heads = Some(Heads { catalog: catalog.log, repair: repair.log, is_covering: true });
        Ok(Plan { fresh, tail, heads, dropped })
    }

    /// The stripes of a tail that comes to nothing. Blobs may lie in the first of them: it goes on, and a later commit takes it
    /// in as it is.
    fn set_aside(&self, tail: &[Arc<Cell>]) {
        let Some((first, records)) = tail.split_first() else { return };
        self.works.uplink.register(first);
        records.iter().for_each(|cell| self.works.uplink.give_up(cell));
    }

    async fn send_tail(&self, stripes: Vec<Done>) -> Result<Vec<(Arc<Cell>, Arc<Row>)>, Trouble> {
        let mut cells = Vec::with_capacity(stripes.len());
        for Done { closed, stripe } in stripes {
            cells.push(closed.cell.clone());
            self.works.uplink.send_apart(closed, Some(stripe));
        }
        let mut sent = Vec::with_capacity(cells.len());
        for cell in &cells {
            match self.settled_or_lost(cell).await {
                Some(State::Settled(row)) => sent.push((cell.clone(), row)),
                Some(State::Failed(Failure::Lost)) | None => {
                    self.set_aside(&cells);
                    return Err(Trouble::Again(SessionError::LeaseLost));
                }
                Some(State::Failed(failure)) => {
                    self.set_aside(&cells);
                    return Err(Trouble::Final(failure.into()));
                }
                Some(_) => return Err(internal("a stripe of records is in a commit already")),
            }
        }
        Ok(sent)
    }

    /// Makes a commit out of a plan, has it countersigned, and brings the book to it. On trouble the book's rows are as they
    /// were, and the lease is not used again.
    pub async fn commit(&mut self, plan: Plan) -> Result<Acked, Trouble> {
        let works = self.works.clone();
        let Some(mut session) = self.session.take() else {
            return Err(Trouble::Again(SessionError::LeaseLost));
        };
        let before = self.book.leaves();
        let rows = &mut self.book.rows;
        let saved: Vec<_> = plan.dropped.iter().map(|leaf| (*leaf, rows.set(*leaf, None))).collect();
        let added =
            plan.fresh.cells.iter().map(|(_, row, _)| row).chain(plan.tail.iter().map(|(_, row)| row));
        for row in added {
            rows.push(Row::clone(row));
        }
        let signed = self.make(&mut session, &plan, before);
        let verdict = match signed {
            Ok(_) => {
                let patience = (works.tuning.straggler, works.tuning.patience);
                session
                    .lanes
                    .countersign((&session.fetcher, &works.uplink), &works.network, &self.book, patience)
                    .await
            }
            Err(trouble) => {
                self.undo_rows(before, saved);
                works.keeper.broken().await;
                return Err(trouble);
            }
        };
        let (have, need) = (verdict.signatures.len(), usize::from(works.profile.quorum()));
        if have < need {
            self.undo_rows(before, saved);
            let tail: Vec<_> = plan.tail.iter().map(|(cell, _)| cell.clone()).collect();
            self.set_aside(&tail);
            works.keeper.broken().await;
            works.uplink.set_gate(false);
            if verdict.is_broken {
                return Err(Trouble::Again(SessionError::LeaseLost));
            }
            let mut failed = verdict.failed;
            for blame in works.uplink.lost().into_iter().chain(session.failed) {
                if !failed.iter().any(|known| known.slot == blame.slot) {
                    failed.push(blame);
                }
            }
            return Err(Trouble::Final(PutError::TooFew { have, need, failed }));
        }
        let acked = self.acknowledged(&mut session, plan, &verdict);
        self.session = Some(session);
        Ok(acked)
    }

    fn undo_rows(&mut self, before: LeafIndex, dropped: Vec<(LeafIndex, Option<Row>)>) {
        self.book.rows.truncate(before);
        for (leaf, row) in dropped {
            self.book.rows.set(leaf, row);
        }
    }

    /// Signs the next commit.
    fn make(&self, session: &mut Session, plan: &Plan, before: LeafIndex) -> Result<SignedCommit, Trouble> {
        let works = &self.works;
        let mut slots = Vec::with_capacity(session.trees.len());
        for (slot, tree) in works.profile.slot_indices().zip(&mut session.trees) {
            for leaf in &plan.dropped {
                tree.clear(*leaf).map_err(internal)?;
            }
            for (_, row) in self.book.rows.from(before) {
                let leaf = row.and_then(|row| row.leaf(slot));
                tree.append(leaf.as_ref()).map_err(internal)?;
            }
            slots.push(SlotState { root: tree.root(), bytes: tree.bytes() });
        }
        let (catalog, repair) = match &plan.heads {
            Some(heads) => (heads.catalog.head, heads.repair.head),
            None => (self.book.catalog_log.head, self.book.repair_log.head),
        };
        let (lease, sequence) = (session.lease, Sequence::new(session.sequence + 1));
        let place = Place { contract: works.contract, rank: Rank { lease, sequence } };
        let seal = |keys, which, head: Option<_>| seal_head(keys, which, &place, head.as_ref());
        let previous = session.lanes.made.last().map(|made| &made.signed).or(session.lanes.base.as_ref());
        let commit = Commit {
            contract: works.contract,
            lease,
            sequence,
            previous: previous.map_or(CommitHash::ZERO, |signed| signed.commit.hash()),
            leaves: self.book.leaves(),
            width: self.book.rows.width(works.profile),
            slots: Bounded::new(slots).ok_or_else(|| internal("more slots than a contract has"))?,
            catalog_head: seal(&works.keys.catalog, Which::Catalog, catalog),
            repair_head: seal(&works.keys.repair, Which::Repair, repair),
        };
        let signed = commit.sign(&works.network, works.identity.device());
        session.sequence += 1;
        session.lanes.made.push(Made { signed: signed.clone(), dropped: plan.dropped.clone() });
        Ok(signed)
    }

    /// The commit counts: the book follows, and everybody who waits for it may know.
    fn acknowledged(&mut self, session: &mut Session, plan: Plan, verdict: &Verdict) -> Acked {
        let works = self.works.clone();
        let signed = session.lanes.made.last().map(|made| made.signed.clone());
        if let Some(certificate) = signed.as_ref().and_then(|signed| verdict.certificate(signed)) {
            works.poster.post(certificate);
        }
        self.book.commit = signed;
        if let Some(heads) = plan.heads {
            self.book.catalog_log = heads.catalog;
            self.book.repair_log = heads.repair;
            if heads.is_covering {
                let rows = &mut self.book.rows;
                let first = rows.len().get() - plan.tail.len() as u64;
                let covered: Vec<_> = rows.uncovered().range(..LeafIndex::new(first)).copied().collect();
                rows.cover(covered);
            }
        }
        // Who countersigns holds all of its lane, whatever it missed before.
        for signature in &verdict.signatures {
            self.book.rows.mark_present(signature.slot);
        }
        for leaf in &plan.dropped {
            self.dead.remove(leaf);
        }
        let first = self.book.leaves().get() - plan.tail.len() as u64;
        let tail_leaves = (first..).map(LeafIndex::new);
        let fresh = plan.fresh.cells.iter().map(|(cell, row, leaf)| (cell, row, *leaf));
        let tail = plan.tail.iter().zip(tail_leaves).map(|((cell, row), leaf)| (cell, row, leaf));
        let mut known: Vec<(tallow_seal::chunk::ChunkId, Known)> = Vec::new();
        let mut digests = Vec::new();
        for (cell, row, leaf) in fresh.chain(tail) {
            for packed in cell.chunks() {
                let chunk = tallow_seal::chunk::ChunkRef {
                    id: packed.id,
                    leaf,
                    offset: packed.offset,
                    sealed_len: packed.sealed_len,
                    plain_len: packed.plain_len,
                };
                known.push((packed.id, (row.stripe, chunk)));
            }
            digests.extend(cell.digest.get().copied());
            cell.set(State::Committed { leaf, stripe: row.stripe });
        }
        self.tell_packer();
        let rows = known.iter().map(|(id, known)| (id.as_bytes().as_slice(), Some(known)));
        let indexed = works.db.write(|tx| db::put_keys(tx, db::CHUNKS, rows));
        let forgotten = works.uplink.forget_attempts(&digests);
        if let Err(error) = indexed.and(forgotten) {
            tracing::warn!(%error, "the local index of chunks could not be written");
        }
        for (cell, ..) in &plan.fresh.cells {
            works.packer.arrived(cell);
        }
        for (cell, _) in &plan.tail {
            works.packer.arrived(cell);
        }
        let cells =
            plan.fresh.cells.iter().map(|(cell, ..)| cell).chain(plan.tail.iter().map(|(cell, _)| cell));
        works.uplink.arrived(self.book.rows.bytes().get(), cells.map(|cell| cell.ordinal));
        let signers = u8::try_from(verdict.signatures.len()).unwrap_or(u8::MAX);
        Acked { signers, slots: works.profile.slots(), dead_stripes: 0 }
    }

    /// Writes the book's changes to the local database. It is a cache, but a stale one costs a sync.
    pub fn save(
        &mut self,
        paths: &BTreeSet<tallow_seal::path::BlobPath>,
    ) -> Result<(), crate::error::LocalError> {
        self.book.save_changes(&self.works.db, paths)?;
        self.works.db.set_named(db::META, DEAD, &self.dead)
    }
}

/// What a commit is made of.
pub(crate) struct Plan {
    pub fresh: Fresh,
    pub tail: Vec<(Arc<Cell>, Arc<Row>)>,
    /// New heads; `None` keeps the old ones.
    pub heads: Option<Heads>,
    pub dropped: Vec<LeafIndex>,
}

pub(crate) struct Heads {
    pub catalog: crate::book::Log,
    pub repair: crate::book::Log,
    /// Whether the repair log now tells of every row but the tail's.
    pub is_covering: bool,
}

fn tell_all(group: Vec<Finish>, error: PutError) {
    // Errors hold what can't be cloned: everybody but the first gets what it says.
    let shared = (error.to_string(), error.kind(), error.hint());
    let mut error = Some(error);
    for finish in group {
        let told = error.take().unwrap_or_else(|| {
            let (text, kind, hint) = shared.clone();
            SessionError::Shared { text, kind, hint }.into()
        });
        let _gone = finish.reply.send(Err(told));
    }
}

//! Making a commit: a group is staged, its records written and sent, the commit signed and shown, and the book follows.
//!
//! Guarantees: those of the committer that concern one commit: all or nothing, and never two of one rank.

use std::sync::Arc;
use std::time::Instant;

use tallow_proofs::lane::{Changed, SumTree};
use tallow_seal::chunk::{ChunkId, ChunkRef};
use tallow_seal::head::{Place, Which, seal_head};
use tallow_types::codec::Bounded;
use tallow_types::commit::{Commit, Rank, SlotState};
use tallow_types::id::{CommitHash, Digest, StripeId};
use tallow_types::unit::{LeafIndex, Sequence, SlotIndex};
use tokio::sync::oneshot;

use super::carry::{Carried, Sent};
use super::cell::{Cell, Failure, Packed, State};
use super::committer::{Committer, DEAD, Session};
use super::countersign::Verdict;
use super::group::{Acked, Finish, Fresh, Resolver, Staged, stage};
use super::lanes::Made;
use super::packer::{Closed, Known};
use super::snapshot::{Step, catalog_step, repair_step};
use super::tail::Tail;
use super::uplink::Attempt;
use crate::book::Book;
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

pub(crate) fn internal(reason: impl std::fmt::Display) -> Trouble {
    Trouble::Final(SessionError::Internal(reason.to_string()).into())
}

impl Committer {
    /// Commits a group and tells everybody in it.
    pub async fn commit_group(&mut self, mut group: Vec<Finish>) {
        let mut last = SessionError::LeaseLost;
        for _ in 0..TRIES {
            match self.try_group(&mut group).await {
                Ok((acked, staged)) => {
                    for finish in group {
                        let _gone = finish.reply.send(Ok(acked.clone()));
                    }
                    self.save(&staged);
                    return;
                }
                Err(Trouble::Again(error)) => last = error,
                Err(Trouble::Final(error)) => return tell_all(group, error),
            }
        }
        tell_all(group, last.into());
    }

    /// With what it changed.
    async fn try_group(&mut self, group: &mut Vec<Finish>) -> Result<(Acked, Staged), Trouble> {
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
            return if is_lost {
                Err(Trouble::Again(SessionError::LeaseLost))
            } else {
                Ok(Default::default())
            };
        }
        let fresh = self.fresh();
        let tail_leaf = fresh.end(self.book.leaves());
        let tail = Tail::resume(works.profile, &works.packer, (open, tail_cell.clone()), tail_leaf);
        let mut staged = Staged::default();
        let made = self.write_group(group, fresh, (tail, &tail_cell, tail_leaf), &mut staged).await;
        // If nobody is left, everybody has been told why.
        let Some(plan) = made? else { return Ok(Default::default()) };
        let mut acked = self.commit(plan).await?;
        self.look_for_dead = true;
        acked.dead_stripes = self.dead.len() as u64;
        Ok((acked, staged))
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
    pub async fn settled_or_lost(&self, cell: &Cell) -> Option<State> {
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
    ) -> Result<Option<Plan>, Trouble> {
        let works = self.works.clone();
        let dropped = self.droppable().await;
        let resolver = Resolver { fresh: &fresh, tail: tail_cell, tail_leaf };
        let mut waiting = std::mem::take(group);
        for finish in waiting.drain(..) {
            let keys = &works.keys.catalog;
            match stage(staged, &self.book, &finish.changes, &resolver, (&mut tail, keys)) {
                Ok(()) => group.push(finish),
                Err(error) => drop(finish.reply.send(Err(error))),
            }
        }
        if group.is_empty() {
            if let Some(closed) = tail.give_up() {
                works.uplink.send_apart(closed, None);
            }
            return Ok(None);
        }
        let before = self.book.leaves();
        for (_, row, _) in &fresh.cells {
            self.book.rows_mut().push(Row::clone(row));
        }
        let written = catalog_step(&mut tail, &works.keys.catalog, &self.book, &staged.changes);
        let written = written.and_then(|catalog| {
            Ok((catalog, repair_step(&mut tail, &works.keys.repair, &self.book, &dropped)?))
        });
        self.book.rows_mut().truncate(before);
        let (mut catalog, mut repair) = match written {
            Ok(written) => written,
            Err(bug) => {
                // Blobs of others may lie in its first stripe.
                if let Some(closed) = tail.give_up() {
                    works.uplink.send_apart(closed, None);
                }
                return Err(internal(bug));
            }
        };
        let logs = [(&works.keys.catalog, &mut catalog), (&works.keys.repair, &mut repair)];
        let stripes = tail.finish(logs).map_err(|bug| {
            tail_cell.set(State::Failed(Failure::Internal(bug.clone())));
            internal(bug)
        })?;
        let (tail, carried) = self.tail(stripes).await?;
        Ok(Some(Plan { fresh, tail, carried, steps: Some(Steps { catalog, repair }), dropped }))
    }

    /// Makes a commit out of a plan, has it countersigned, and brings the book to it. On trouble the book's rows are as they
    /// were, and the lease is not used again.
    pub async fn commit(&mut self, plan: Plan) -> Result<Acked, Trouble> {
        let works = self.works.clone();
        let Some(mut session) = self.session.take() else {
            self.put_back(plan);
            return Err(Trouble::Again(SessionError::LeaseLost));
        };
        let before = self.book.leaves();
        let rows = self.book.rows_mut();
        let saved: Vec<_> = plan.dropped.iter().map(|leaf| (*leaf, rows.set(*leaf, None))).collect();
        let added =
            plan.fresh.cells.iter().map(|(_, row, _)| row).chain(plan.tail.iter().map(|(_, row)| row));
        for row in added {
            rows.push(Row::clone(row));
        }
        let changes = match self.make(&mut session, &plan, before) {
            Ok(changes) => changes,
            Err(trouble) => {
                self.undo_rows(before, saved);
                works.keeper.broken().await;
                self.put_back(plan);
                return Err(trouble);
            }
        };
        let shown = (&self.book, plan.carried.as_ref());
        let everybody = (&session.fetcher, &works.uplink);
        let verdict = session.lanes.countersign(everybody, &works.network, shown, &works.waits()).await;
        let (have, need) = (verdict.signatures.len(), usize::from(works.profile.quorum()));
        if have < need {
            self.undo_rows(before, saved);
            works.keeper.broken().await;
            works.uplink.set_gate(false);
            self.put_back(plan);
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
        for ((_, tree), changed) in works.profile.slot_indices().zip(&mut self.trees.1).zip(changes) {
            tree.accept(changed);
        }
        let acked = self.acknowledged(&mut session, plan, &verdict);
        self.trees.0 = self.book.hash();
        self.session = Some(session);
        Ok(acked)
    }

    fn undo_rows(&mut self, before: LeafIndex, dropped: Vec<(LeafIndex, Option<Row>)>) {
        let rows = self.book.rows_mut();
        rows.truncate(before);
        for (leaf, row) in dropped {
            rows.set(leaf, row);
        }
    }

    /// Signs the next commit. What it makes of each lane tree is to be taken when it counts.
    fn make(&self, session: &mut Session, plan: &Plan, first: LeafIndex) -> Result<Vec<Changed>, Trouble> {
        let works = &self.works;
        let change = |(slot, tree): (SlotIndex, &SumTree)| {
            let appended =
                self.book.leaves_from(slot, first).ok_or_else(|| internal("a root is not known"))?;
            tree.change(first, &plan.dropped, &appended).map_err(internal)
        };
        let changes: Vec<Changed> =
            works.profile.slot_indices().zip(&self.trees.1).map(change).collect::<Result<_, _>>()?;
        let slots = changes.iter().map(|changed| SlotState { root: changed.root(), bytes: changed.bytes() });
        let slots: Vec<SlotState> = slots.collect();
        let (catalog, repair) = match &plan.steps {
            Some(steps) => (steps.catalog.head(), steps.repair.head()),
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
        session.lanes.made.push(Made { signed, dropped: plan.dropped.clone() });
        Ok(changes)
    }

    /// The commit counts: the book follows, and everybody who waits for it may know.
    fn acknowledged(&mut self, session: &mut Session, plan: Plan, verdict: &Verdict) -> Acked {
        let works = self.works.clone();
        let signed = session.lanes.made.last().map(|made| made.signed.clone());
        if let Some(certificate) = signed.as_ref().and_then(|signed| verdict.certificate(signed)) {
            works.poster.post(certificate);
        }
        self.book.commit = signed;
        if let Some(Steps { catalog, repair }) = plan.steps {
            catalog.apply(&mut self.book.catalog_log);
            repair.apply(&mut self.book.repair_log);
            let rows = self.book.rows_mut();
            let first = rows.len().get() - plan.tail.len() as u64;
            let covered: Vec<_> = rows.uncovered().range(..LeafIndex::new(first)).copied().collect();
            rows.cover(covered);
        }
        // Who countersigns holds all of its lane, whatever it missed before.
        for signature in &verdict.signatures {
            self.book.rows_mut().mark_present(signature.slot);
        }
        if let Some(carried) = &plan.carried {
            self.tell_of_carried(carried, verdict);
        }
        for leaf in &plan.dropped {
            self.dead.remove(leaf);
        }
        let first = self.book.leaves().get() - plan.tail.len() as u64;
        let tail_leaves = (first..).map(LeafIndex::new);
        let fresh = plan.fresh.cells.iter().map(|(cell, row, leaf)| (cell, row, *leaf));
        let tail = plan.tail.iter().zip(tail_leaves).map(|((cell, row), leaf)| (cell, row, leaf));
        for (cell, row, leaf) in fresh.chain(tail) {
            self.unsaved.note(cell, leaf, row.stripe);
            cell.set(State::Committed { leaf, stripe: row.stripe });
            works.packer.add_stripes([(leaf, row.stripe)]);
        }
        let cells = plan.fresh.cells.iter().map(|(cell, ..)| cell);
        let cells = cells.chain(plan.tail.iter().map(|(cell, _)| cell));
        works.uplink.arrived(self.book.rows.bytes().get(), cells.map(|cell| cell.ordinal));
        let signers = u8::try_from(verdict.signatures.len()).unwrap_or(u8::MAX);
        Acked { signers, slots: works.profile.slots(), dead_stripes: 0 }
    }

    /// Writes what commits changed to the local database, to be made durable soon: what a crash undoes costs a sync with the
    /// seeders.
    pub fn save(&mut self, staged: &Staged) {
        let Unsaved { chunks, attempts, cells } = std::mem::take(&mut self.unsaved);
        let (none, dead): (Option<&Attempt>, _) = (None, &self.dead);
        let saved = self.book.save(&self.works.db, (&staged.changes, &staged.listed), |tx| {
            let known = chunks.iter().map(|(id, known)| (id.as_bytes().as_slice(), Some(known)));
            db::put_keys(tx, db::CHUNKS, known)?;
            let done = attempts.iter().map(|digest| (digest.as_bytes().as_slice(), none));
            db::put_keys(tx, db::ATTEMPTS, done)?;
            db::put_named(tx, db::META, DEAD, dead)
        });
        self.unsynced.get_or_insert_with(Instant::now);
        // The journal must not fall back behind a commit: what it tells of is looked for in the book, but costs a large stripe.
        if !attempts.is_empty() {
            self.sync();
        }
        // Until here they were found as chunks on their way.
        cells.iter().for_each(|cell| self.works.packer.arrived(cell));
        if !matches!(saved, Ok(true)) {
            if let Err(error) = saved {
                tracing::warn!(%error, "the local database could not be written");
            }
            // It is what counts here: the next lease leads from it to where the seeders stand.
            self.session = None;
            self.works.uplink.set_gate(false);
            self.book = Book::load(&self.works.db, None).unwrap_or_default();
        }
    }
}

/// What the local database is still to learn.
#[derive(Default)]
pub(crate) struct Unsaved {
    chunks: Vec<(ChunkId, Known)>,
    attempts: Vec<Digest>,
    cells: Vec<Arc<Cell>>,
}

impl Unsaved {
    /// A stripe is in a commit.
    pub fn note(&mut self, cell: &Arc<Cell>, leaf: LeafIndex, stripe: StripeId) {
        for packed in cell.chunks() {
            let Packed { id, offset, sealed_len, plain_len } = packed;
            self.chunks.push((id, (stripe, ChunkRef { id, leaf, offset, sealed_len, plain_len })));
        }
        self.attempts.extend(cell.digest.get().copied());
        self.cells.push(cell.clone());
    }
}

/// What a commit is made of.
pub(crate) struct Plan {
    pub fresh: Fresh,
    pub tail: Sent,
    /// The slices of the tail, if they go with the commit.
    pub carried: Option<Carried>,
    /// What is added to the logs; `None` leaves them.
    pub steps: Option<Steps>,
    pub dropped: Vec<LeafIndex>,
}

pub(crate) struct Steps {
    pub catalog: Step,
    pub repair: Step,
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

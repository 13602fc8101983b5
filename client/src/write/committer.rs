//! The committer: one task a contract that holds the lease, groups what is to be committed, and makes commits.
//!
//! Guarantees: `Ok` to a put means that k + margin seeders countersigned a commit that names it; puts that arrive while
//! a commit is under way share the next one; stripes of a long put are committed as they settle (a checkpoint), so that
//! seeders keep them; a failed group leaves the book as it was, and the lease is taken anew before anything else is
//! signed, so that no two commits of one rank are ever shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tallow_proofs::lane::SumTree;
use tallow_seal::head::{Which, seal_head};
use tallow_types::codec::Bounded;
use tallow_types::commit::{Commit, SignedCommit, SlotState};
use tallow_types::id::{CommitHash, StripeId};
use tallow_types::unit::{LeafIndex, Lease, Sequence, SlotIndex, TimeMs};
use tokio::sync::{mpsc, oneshot};

use super::cell::{Cell, State};
use super::countersign::{Lanes, Verdict};
use super::group::{
    Acked, Finish, Fresh, Resolver, Staged, catalog_records, count_records, repair_records, stage,
};
use super::lanes::{Made, Standing};
use super::packer::{Closed, Known, Packer};
use super::poster::Poster;
use super::session::{Begun, Keeper};
use super::tail::{Done, Tail};
use super::uplink::Uplink;
use crate::book::{Book, Row};
use crate::db::{self, Db};
use crate::error::{Explain as _, PutError, SessionError};
use crate::fetch::Fetcher;
use crate::options::{Clock, Tuning};
use crate::seats::Caller;
use crate::sync::{bring, complete};

/// Data in the open stripe above which it gets a stripe of its own, so that a resume finds it again. Bytes.
const SHARED_TAIL_MAX: u32 = 1 << 20;
/// How often a group is tried under a new lease.
const TRIES: usize = 4;
/// Dead leaves that are known, with the time since when, in the local database.
const DEAD: &str = "dead";

/// What all parts of a contract's writing share.
pub(crate) struct Works {
    pub chain: Arc<crate::chain::Chain>,
    pub db: Arc<Db>,
    pub caller: Arc<Caller>,
    pub keeper: Keeper,
    pub packer: Packer,
    pub uplink: Arc<Uplink>,
    pub poster: Poster,
    pub identity: crate::identity::Identity,
    pub network: tallow_types::id::ChainId,
    pub contract: tallow_types::id::ContractId,
    pub profile: tallow_types::profile::Profile,
    pub keys: Arc<tallow_seal::keys::ContractKeys>,
    pub params: tallow_types::params::Params,
    pub tuning: Tuning,
    pub clock: Arc<dyn Clock>,
    /// Puts and removals under way.
    pub active: AtomicUsize,
}

/// What the committer is asked.
pub(crate) enum Command {
    /// Take the lease, so that sending may begin.
    Ready(oneshot::Sender<Result<(), SessionError>>),
    Finish(Finish),
    Repair(
        oneshot::Sender<Result<crate::report::RepairReport, SessionError>>,
        Arc<dyn crate::progress::Progress>,
    ),
    /// Finish what is under way, post, give the lease back.
    Stop(oneshot::Sender<Result<(), SessionError>>),
}

/// What holds while a lease does.
pub(crate) struct Session {
    pub lease: Lease,
    pub lanes: Lanes,
    pub fetcher: Fetcher,
    pub trees: Vec<SumTree>,
    pub sequence: u64,
    pub failed: Vec<crate::error::Blame>,
}

/// The committer of one contract.
pub(crate) struct Committer {
    pub works: Arc<Works>,
    commands: mpsc::Receiver<Command>,
    pub book: Book,
    pub session: Option<Session>,
    dead: BTreeMap<LeafIndex, TimeMs>,
    /// Whether something was removed or overwritten since dead stripes were last looked for.
    look_for_dead: bool,
}

/// What goes wrong with a commit, and what is to be told.
enum Trouble {
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
    pub fn new(works: Arc<Works>, commands: mpsc::Receiver<Command>, book: Book) -> Self {
        let dead = works.db.named(db::META, DEAD).ok().flatten().unwrap_or_default();
        Self { works, commands, book, session: None, dead, look_for_dead: true }
    }

    /// Works until it is stopped or nobody can ask any more.
    pub async fn run(mut self) {
        let mut hand_over = self.works.keeper.hand_over.subscribe();
        let mut held = self.works.keeper.held.subscribe();
        let mut ended = self.works.uplink.ended.subscribe();
        let pause = self.checkpoint_after() / 2;
        let idle = Duration::from_millis(self.works.params.lease.get()) / 4;
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => if self.command(command).await { return },
                    None => return,
                },
                // The value must be let go before the handler runs, or it would lock itself out.
                true = async { hand_over.wait_for(|wanted| *wanted).await.is_ok() } => self.hand_over().await,
                _ = held.changed() => self.regain().await,
                _ = ended.changed() => self.checkpoint_if_many().await,
                () = tokio::time::sleep(pause), if self.has_work() => self.checkpoint_logged().await,
                () = tokio::time::sleep(idle), if !self.has_work() && self.session.is_some() => self.rest().await,
            }
        }
    }

    fn checkpoint_after(&self) -> Duration {
        let epoch = Duration::from_millis(self.works.params.epoch.get());
        self.works.tuning.checkpoint_after.unwrap_or(epoch / 3).max(Duration::from_secs(1))
    }

    fn has_work(&self) -> bool {
        self.works.active.load(Ordering::Relaxed) > 0
    }

    /// True when it is to end.
    async fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Ready(reply) => {
                let ready = self.ensure_session().await;
                let _gone = reply.send(ready);
            }
            Command::Finish(first) => {
                let group = self.company(first).await;
                self.commit_group(group).await;
            }
            Command::Repair(reply, progress) => {
                let report = self.repair(&progress).await;
                let _gone = reply.send(report);
            }
            Command::Stop(reply) => {
                let stopped = self.stop().await;
                let _gone = reply.send(stopped);
                return true;
            }
        }
        false
    }

    /// Others who want the same commit: those who wait already, and, if more puts are under way, those who come within a
    /// moment.
    async fn company(&mut self, first: Finish) -> Vec<Finish> {
        let mut group = vec![first];
        let deadline = tokio::time::Instant::now() + self.works.tuning.linger;
        while group.len() < 4096 {
            let more = self.works.active.load(Ordering::Relaxed) > group.len();
            let next = if more {
                tokio::time::timeout_at(deadline, self.commands.recv()).await.ok().flatten()
            } else {
                self.commands.try_recv().ok()
            };
            match next {
                Some(Command::Finish(finish)) => group.push(finish),
                Some(Command::Ready(reply)) => drop(reply.send(self.ensure_session().await)),
                Some(Command::Repair(reply, _)) => {
                    let busy = SessionError::Internal("puts are under way; repair when they are done".into());
                    drop(reply.send(Err(busy)));
                }
                Some(Command::Stop(reply)) => {
                    drop(reply.send(Err(SessionError::Internal("puts are under way".into()))));
                }
                None => break,
            }
        }
        group
    }

    async fn stop(&mut self) -> Result<(), SessionError> {
        let released = if self.works.keeper.held.borrow().is_some() {
            self.works.keeper.release().await
        } else {
            Ok(())
        };
        self.session = None;
        self.works.uplink.set_gate(false);
        self.works.poster.flush(self.works.tuning.patience).await?;
        released
    }

    /// Another device waits: finish, give it back, and queue up again if there is work left.
    async fn hand_over(&mut self) {
        self.works.uplink.admit.send_replace(false);
        for cell in self.works.uplink.sending() {
            let _waited = tokio::time::timeout(self.works.tuning.straggler, cell.settled()).await;
        }
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(%error, "no checkpoint before the hand-over");
        }
        if let Err(error) = self.works.keeper.release().await {
            tracing::warn!(%error, "the lease could not be given back");
        }
        self.works.uplink.set_gate(false);
        self.session = None;
        if self.has_work() {
            self.regain().await;
        }
    }

    /// The lease is gone although there is work: take it again, so that what waits to be sent can go on.
    async fn regain(&mut self) {
        let is_held = self.works.keeper.held.borrow().is_some();
        if is_held || !self.has_work() {
            return;
        }
        self.works.uplink.set_gate(false);
        self.session = None;
        if let Err(error) = self.ensure_session().await {
            tracing::warn!(%error, "the write lease is not to be had");
        }
    }

    /// Takes the lease and brings the book to its base, unless that is so already.
    pub async fn ensure_session(&mut self) -> Result<(), SessionError> {
        let held = *self.works.keeper.held.borrow();
        if self.session.as_ref().is_some_and(|session| Some(session.lease) == held) {
            return Ok(());
        }
        self.session = None;
        let patience = self.works.tuning.patience;
        let limit = patience.max(Duration::from_millis(self.works.params.lease.get()) * 3);
        let begun = self.works.keeper.acquire(limit).await?;
        match self.begin(begun).await {
            Ok(session) => {
                self.session = Some(session);
                self.works.uplink.set_gate(true);
                Ok(())
            }
            Err(error) => {
                self.works.keeper.broken().await;
                Err(error)
            }
        }
    }

    async fn begin(&mut self, begun: Begun) -> Result<Session, SessionError> {
        let works = self.works.clone();
        let fetcher = Fetcher {
            caller: works.caller.clone(),
            contract: works.contract,
            profile: works.profile,
            keys: works.keys.clone(),
            seats: begun.seats.clone(),
            hedge_after: works.tuning.hedge_after,
            progress: super::uplink::silent(),
            bad: std::sync::Mutex::default(),
        };
        let book = std::mem::take(&mut self.book);
        let is_same = begun.base.as_ref().map(|signed| signed.commit.hash())
            == book.commit.as_ref().map(|signed| signed.commit.hash());
        self.book = match &begun.base {
            None => Book::default(),
            Some(base) => bring(&fetcher, book, base, works.tuning.straggler).await?,
        };
        complete(&fetcher, &mut self.book).await?;
        if !is_same {
            self.book.save_whole(&works.db)?;
            self.look_for_dead = true;
        }
        let trees = works.profile.slot_indices().map(|slot| self.tree(slot)).collect::<Result<_, _>>()?;
        let mut lanes = Lanes::new(begun.base.clone());
        let base = begun.base.as_ref().map(|signed| signed.commit.hash());
        for (seat, newest) in &begun.promised {
            if newest.as_ref().map(|signed| signed.commit.hash()) == base {
                lanes.set(seat.slot, Standing::Base);
            }
        }
        for seat in &begun.silent {
            lanes.set(seat.slot, Standing::Elsewhere(Vec::new()));
        }
        let sitting = begun.promised.iter().map(|(seat, _)| seat).chain(&begun.silent).cloned().collect();
        works.uplink.set_seats(sitting);
        works.uplink.ledger_time.store(begun.now.get(), Ordering::Relaxed);
        works.uplink.set_room(begun.contract.terms.room.get(), self.room_used());
        self.tell_packer();
        self.adopt_known();
        Ok(Session { lease: begun.lease, lanes, fetcher, trees, sequence: 0, failed: begun.failed })
    }

    fn tree(&self, slot: SlotIndex) -> Result<SumTree, SessionError> {
        let bug = |reason: String| SessionError::Internal(reason);
        let leaves =
            self.book.lane(slot).map_err(|leaf| bug(format!("a root of leaf {leaf} is not known")))?;
        SumTree::from_leaves(leaves.iter().map(Option::as_ref)).map_err(|error| bug(error.to_string()))
    }

    fn room_used(&self) -> u64 {
        let settled: u64 = self.works.uplink.settled().iter().map(|(_, row)| u64::from(row.slice_len)).sum();
        self.book.lane_bytes().get() + settled
    }

    fn tell_packer(&self) {
        let stripes: BTreeMap<LeafIndex, StripeId> = (0u64..)
            .map(LeafIndex::new)
            .zip(&self.book.rows)
            .filter_map(|(leaf, row)| Some((leaf, row.as_ref()?.stripe)))
            .collect();
        self.works.packer.set_stripes(stripes);
    }

    /// Stripes of ours that the base names already: a commit that we thought lost was the base after all.
    fn adopt_known(&self) {
        for (cell, row) in self.works.uplink.settled() {
            let at = self
                .book
                .rows
                .iter()
                .position(|known| known.as_ref().is_some_and(|k| k.stripe == row.stripe));
            if let Some(at) = at {
                cell.set(State::Committed(LeafIndex::new(at as u64)));
                self.works.packer.arrived(&cell);
            }
        }
    }

    async fn checkpoint_if_many(&mut self) {
        if self.works.uplink.settled().len() >= self.works.tuning.checkpoint_stripes {
            self.checkpoint_logged().await;
        }
    }

    /// Nothing to do for a while: others may write.
    async fn rest(&mut self) {
        self.session = None;
        self.works.uplink.set_gate(false);
        if let Err(error) = self.works.keeper.release().await {
            tracing::warn!(%error, "the lease could not be given back");
        }
    }

    async fn checkpoint_logged(&mut self) {
        if let Err(error) = self.checkpoint().await {
            tracing::warn!(%error, "a checkpoint could not be made");
        }
    }

    /// Commits what has settled, without records: seeders keep it then, and a resume finds it.
    async fn checkpoint(&mut self) -> Result<(), PutError> {
        let settled = self.works.uplink.settled();
        if settled.is_empty() || self.works.keeper.held.borrow().is_none() {
            return Ok(());
        }
        self.ensure_session().await?;
        let fresh = Fresh::new(self.works.uplink.settled(), self.book.leaves());
        if fresh.cells.is_empty() {
            return Ok(());
        }
        let plan = Plan { fresh, tail: Vec::new(), heads: None, dropped: Vec::new() };
        match self.commit(plan).await {
            Ok(_) => self.save(&BTreeSet::new()).map_err(|error| SessionError::from(error).into()),
            Err(Trouble::Again(error)) => Err(error.into()),
            Err(Trouble::Final(error)) => Err(error),
        }
    }

    /// Commits a group and tells everybody in it.
    async fn commit_group(&mut self, mut group: Vec<Finish>) {
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
            works.uplink.send(closed, None).await;
        }
        let (open, tail_cell) = works.packer.take();
        self.settle_group(group, &tail_cell).await;
        // A lease lost while waiting: what was taken goes back as a stripe of its own and is found settled next time.
        let is_lost = works.keeper.held.borrow().is_none();
        if group.is_empty() || is_lost {
            if let Some(stripe) = open.close() {
                works.uplink.send(Closed { cell: tail_cell, stripe }, None).await;
            }
            return if is_lost { Err(Trouble::Again(SessionError::LeaseLost)) } else { Ok(Acked::default()) };
        }
        let fresh = Fresh::new(works.uplink.settled(), self.book.leaves());
        let tail_leaf = fresh.end(self.book.leaves());
        let tail = Tail::resume(works.profile, &works.packer, (open, tail_cell.clone()), tail_leaf);
        let mut staged = Staged::default();
        let made = self.write_group(group, fresh, (tail, &tail_cell, tail_leaf), &mut staged).await;
        let rows = self.book.rows.len();
        let plan = match made {
            Ok(plan) => plan,
            Err(trouble) => {
                staged.revert(&mut self.book.catalog);
                return Err(trouble);
            }
        };
        debug_assert_eq!(rows, self.book.rows.len());
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
        self.commit_group(vec![Finish { changes: Vec::new(), reply }]).await;
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
        let mut waiting = std::mem::take(group);
        for finish in waiting.drain(..) {
            let mut failed = None;
            for cell in finish.cells() {
                if Arc::ptr_eq(&cell, tail) {
                    continue;
                }
                if let State::Failed(failure) = cell.settled().await {
                    failed = Some(failure);
                    break;
                }
            }
            match failed {
                Some(failure) => drop(finish.reply.send(Err(failure.into()))),
                None => group.push(finish),
            }
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
        let covered: Vec<usize> = self.add_rows(&fresh);
        let mut repair = repair_records(&self.book, &dropped);
        self.book.rows.truncate(self.book.rows.len() - covered.len());
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

    /// Adds fresh rows to the book for a moment.
    fn add_rows(&mut self, fresh: &Fresh) -> Vec<usize> {
        let first = self.book.rows.len();
        self.book.rows.extend(fresh.cells.iter().map(|(_, row, _)| Some(Row::clone(row))));
        (first..self.book.rows.len()).collect()
    }

    async fn send_tail(&self, stripes: Vec<Done>) -> Result<Vec<(Arc<Cell>, Arc<Row>)>, Trouble> {
        let mut cells = Vec::with_capacity(stripes.len());
        for Done { closed, stripe } in stripes {
            cells.push(closed.cell.clone());
            self.works.uplink.send(closed, Some(stripe)).await;
        }
        let mut sent = Vec::with_capacity(cells.len());
        for cell in cells {
            match cell.settled().await {
                State::Settled(row) => sent.push((cell, row)),
                State::Failed(failure) => {
                    self.works.packer.arrived(&cell);
                    return Err(Trouble::Final(failure.into()));
                }
                _ => return Err(internal("a stripe of records is in a commit already")),
            }
        }
        Ok(sent)
    }

    /// Makes a commit out of a plan, has it countersigned, and brings the book to it. On trouble the book's rows are as they
    /// were, and the lease is not used again.
    async fn commit(&mut self, plan: Plan) -> Result<Acked, Trouble> {
        let works = self.works.clone();
        let Some(mut session) = self.session.take() else {
            return Err(Trouble::Again(SessionError::LeaseLost));
        };
        let before = self.book.rows.len();
        let saved: Vec<_> =
            plan.dropped.iter().map(|leaf| (*leaf, self.row_mut(*leaf).and_then(Option::take))).collect();
        let added =
            plan.fresh.cells.iter().map(|(_, row, _)| row).chain(plan.tail.iter().map(|(_, row)| row));
        self.book.rows.extend(added.map(|row| Some(Row::clone(row))));
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
            // Blobs may lie in the first stripe of the tail: a later commit takes it in as it is.
            plan.tail.iter().take(1).for_each(|(cell, _)| works.uplink.register(cell));
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

    fn row_mut(&mut self, leaf: LeafIndex) -> Option<&mut Option<Row>> {
        self.book.rows.get_mut(usize::try_from(leaf.get()).ok()?)
    }

    fn undo_rows(&mut self, before: usize, dropped: Vec<(LeafIndex, Option<Row>)>) {
        self.book.rows.truncate(before);
        for (leaf, row) in dropped {
            if let Some(place) = self.row_mut(leaf) {
                *place = row;
            }
        }
    }

    /// Signs the next commit.
    fn make(&self, session: &mut Session, plan: &Plan, before: usize) -> Result<SignedCommit, Trouble> {
        let works = &self.works;
        let mut slots = Vec::with_capacity(session.trees.len());
        for (slot, tree) in works.profile.slot_indices().zip(&mut session.trees) {
            for leaf in &plan.dropped {
                tree.clear(*leaf).map_err(internal)?;
            }
            for row in &self.book.rows[before..] {
                let leaf = row.as_ref().and_then(|row| row.leaf(slot));
                tree.append(leaf.as_ref()).map_err(internal)?;
            }
            slots.push(SlotState { root: tree.root(), bytes: tree.bytes() });
        }
        let (catalog, repair) = match &plan.heads {
            Some(heads) => (heads.catalog.head, heads.repair.head),
            None => (self.book.catalog_log.head, self.book.repair_log.head),
        };
        let seal = |keys, which, head: Option<_>| {
            head.map_or_else(Bounded::empty, |head| seal_head(keys, which, &works.contract, &head))
        };
        let previous = session.lanes.made.last().map(|made| &made.signed).or(session.lanes.base.as_ref());
        let commit = Commit {
            contract: works.contract,
            lease: session.lease,
            sequence: Sequence::new(session.sequence + 1),
            previous: previous.map_or(CommitHash::ZERO, |signed| signed.commit.hash()),
            leaves: self.book.leaves(),
            width: self.book.width(works.profile),
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
                let uncovered = self.book.rows.len() - plan.tail.len();
                self.book.rows[..uncovered]
                    .iter_mut()
                    .flatten()
                    .for_each(|row| row.is_covered = row.is_complete());
            }
        }
        for leaf in &plan.dropped {
            self.dead.remove(leaf);
        }
        let first = self.book.rows.len() - plan.tail.len();
        let tail_leaves = (first as u64..).map(LeafIndex::new);
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
            cell.set(State::Committed(leaf));
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
        let signers = u8::try_from(verdict.signatures.len()).unwrap_or(u8::MAX);
        Acked { signers, slots: works.profile.slots(), dead_stripes: 0 }
    }

    /// Writes the book's changes to the local database. It is a cache, but a stale one costs a sync.
    fn save(
        &mut self,
        paths: &BTreeSet<tallow_seal::path::BlobPath>,
    ) -> Result<(), crate::error::LocalError> {
        let leaves: BTreeSet<LeafIndex> = (0u64..self.book.rows.len() as u64).map(LeafIndex::new).collect();
        self.book.save_changes(&self.works.db, paths, &leaves)?;
        self.works.db.set_named(db::META, DEAD, &self.dead)
    }
}

impl Committer {
    /// Stripes that have been dead for longer than the grace; newly dead ones are noted.
    async fn droppable(&mut self) -> Vec<LeafIndex> {
        if !self.look_for_dead && self.dead.is_empty() {
            return Vec::new();
        }
        self.look_for_dead = false;
        let Some(listed) = self.listed().await else { return Vec::new() };
        let mut kept = self.works.packer.used();
        // Stripes of checkpoints that puts under way will name are dead only to the eye.
        if self.has_work() {
            kept.extend(
                self.book
                    .rows
                    .iter()
                    .zip(0u64..)
                    .filter(|(row, _)| row.as_ref().is_some_and(|row| !row.is_covered))
                    .map(|(_, leaf)| LeafIndex::new(leaf)),
            );
        }
        let now = self.works.clock.now();
        let dead = self.book.dead(&listed, &kept);
        self.dead.retain(|leaf, _| dead.contains(leaf));
        for leaf in dead {
            self.dead.entry(leaf).or_insert(now);
        }
        let grace = u64::try_from(self.works.tuning.drop_grace.as_millis()).unwrap_or(u64::MAX);
        let ripe = self.dead.iter().filter(|(_, since)| now.since(**since).get() >= grace);
        ripe.map(|(leaf, _)| *leaf).take(tallow_types::limits::COMMIT_CHANGES_MAX / 2).collect()
    }

    /// The leaves that lists of chunks name; `None` if one can't be read now, and so nothing can be judged dead.
    async fn listed(&self) -> Option<BTreeMap<LeafIndex, BTreeSet<LeafIndex>>> {
        use tallow_seal::entry::{ChunkList, Content, Kind};
        let session = self.session.as_ref()?;
        let mut listed: BTreeMap<LeafIndex, BTreeSet<LeafIndex>> = BTreeMap::new();
        for entry in self.book.catalog.values() {
            let Kind::File(Content::Lists { lists, .. }) = &entry.kind else { continue };
            for list in lists.iter() {
                let row = self.book.row(list.leaf)?;
                let found =
                    session.fetcher.chunks(&row.into(), &[*list], crate::fetch::Under::Catalog).await.ok()?;
                let chunks: ChunkList = tallow_types::codec::decode(found.first()?).ok()?;
                listed.entry(list.leaf).or_default().extend(chunks.chunks.iter().map(|chunk| chunk.leaf));
            }
        }
        Some(listed)
    }
}

/// What a commit is made of.
struct Plan {
    fresh: Fresh,
    tail: Vec<(Arc<Cell>, Arc<Row>)>,
    /// New heads; `None` keeps the old ones.
    heads: Option<Heads>,
    dropped: Vec<LeafIndex>,
}

struct Heads {
    catalog: crate::book::Log,
    repair: crate::book::Log,
    /// Whether the repair log now tells of every row but the tail's.
    is_covering: bool,
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

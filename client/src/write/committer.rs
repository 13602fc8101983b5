//! The committer: one task a contract that holds the lease, groups what is to be committed, and makes commits.
//!
//! Guarantees: `Ok` to a put means that k + margin seeders countersigned a commit that names it; puts that arrive while
//! a commit is under way share the next one; stripes of a long put are committed as they settle (a checkpoint), so that
//! seeders keep them; a failed group leaves the book as it was, and the lease is taken anew before anything else is
//! signed, so that no two commits of one rank are ever shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tallow_proofs::lane::SumTree;
use tallow_types::id::{CommitHash, StripeId};
use tallow_types::unit::{LeafIndex, Lease, SlotIndex, TimeMs};
use tokio::sync::{mpsc, oneshot};

use super::cell::{Cell, State};
use super::commit::{Plan, Trouble, Unsaved};
use super::countersign::{Lanes, Waits};
use super::group::{Finish, Fresh, STEP_MAX, Staged};
use super::lanes::Standing;
use super::packer::Packer;
use super::poster::Poster;
use super::sealing::Workshop;
use super::session::{Begun, Keeper};
use super::uplink::Uplink;
use crate::book::Book;
use crate::db::{self, Db};
use crate::error::{PutError, SessionError};
use crate::fetch::Fetcher;
use crate::options::{Clock, Tuning};
use crate::seats::{Caller, Seat};
use crate::sync::{bring_to, complete};

/// How long what is learnt of commits may stay without being made durable here.
const SYNC_AFTER: Duration = Duration::from_millis(250);

/// Dead leaves that are known, with the time since when, in the local database.
pub(crate) const DEAD: &str = "dead";

/// What all parts of a contract's writing share.
pub(crate) struct Works {
    pub chain: Arc<crate::chain::Chain>,
    pub db: Arc<Db>,
    pub caller: Arc<Caller>,
    pub keeper: Keeper,
    pub packer: Packer,
    pub workshop: Workshop,
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
    /// When the ledger was looked at last.
    pub looked: Mutex<BTreeMap<Look, Instant>>,
}

/// What a put looks up on the ledger beside its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Look {
    /// Whether there are vacant slots.
    Vacant,
    /// Whether there is fuel enough.
    Fuel,
}

impl Works {
    /// Whether a put should look. Of many under way at once one does, every now and then.
    pub fn may_look(&self, what: Look) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = Duration::from_millis(self.params.epoch.get()) / 4;
        let lately = looked.get(&what).is_some_and(|at| at.elapsed() < pause);
        if lately && self.active.load(Ordering::Relaxed) > 1 {
            return false;
        }
        looked.insert(what, Instant::now());
        true
    }

    /// How long to wait for whom when a commit is shown.
    pub fn waits(&self) -> Waits {
        let Tuning { straggler, patience, page_leaves, .. } = self.tuning;
        Waits { straggler, patience, page: page_leaves }
    }
}

/// What the committer is asked.
pub(crate) enum Command {
    /// Take the lease, so that sending may begin.
    Ready(oneshot::Sender<Result<(), SessionError>>),
    Finish(Finish),
    Repair(
        oneshot::Sender<Result<crate::report::RepairReport, SessionError>>,
        Arc<dyn crate::progress::Progress>,
        Extent,
    ),
    /// Finish what is under way, post, give the lease back.
    Stop(oneshot::Sender<Result<(), SessionError>>),
}

/// How much a repair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything that is missing.
    Whole,
    /// Nothing, unless a vacant slot found a seeder.
    IfFilled,
}

/// What holds while a lease does.
pub(crate) struct Session {
    pub lease: Lease,
    pub lanes: Lanes,
    pub fetcher: Fetcher,
    pub sequence: u64,
    pub failed: Vec<crate::error::Blame>,
    /// Slots that promised and did not stand at the base.
    pub behind: BTreeSet<SlotIndex>,
}

/// The committer of one contract.
pub(crate) struct Committer {
    pub works: Arc<Works>,
    commands: mpsc::Receiver<Command>,
    pub book: Book,
    pub session: Option<Session>,
    /// The lane trees of every slot at a commit.
    pub trees: (CommitHash, Vec<SumTree>),
    pub dead: BTreeMap<LeafIndex, TimeMs>,
    /// Whether something was removed or overwritten since dead stripes were last looked for.
    pub look_for_dead: bool,
    /// What the local database is still to learn of commits that were made.
    pub unsaved: Unsaved,
    /// Stripes on their way that were shown to seeders with a commit that came to nothing, or so it seemed.
    pub shown: Vec<(Arc<Cell>, StripeId)>,
    /// Since when the local database has not been made durable.
    pub unsynced: Option<Instant>,
}

impl Committer {
    pub fn new(works: Arc<Works>, commands: mpsc::Receiver<Command>, book: Book) -> Self {
        let dead = works.db.named(db::META, DEAD).ok().flatten().unwrap_or_default();
        Self {
            works,
            commands,
            book,
            session: None,
            trees: (CommitHash::ZERO, Vec::new()),
            dead,
            look_for_dead: true,
            unsaved: Unsaved::default(),
            shown: Vec::new(),
            unsynced: None,
        }
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
                () = tokio::time::sleep(pause), if self.has_work() => self.look_after().await,
                () = tokio::time::sleep(idle), if !self.has_work() && self.session.is_some() => self.rest().await,
                () = tokio::time::sleep(SYNC_AFTER), if self.unsynced.is_some() => self.sync(),
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
                self.sync();
            }
        }
    }

    fn checkpoint_after(&self) -> Duration {
        let epoch = Duration::from_millis(self.works.params.epoch.get());
        self.works.tuning.checkpoint_after.unwrap_or(epoch / 3).max(Duration::from_secs(1))
    }

    pub fn has_work(&self) -> bool {
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
            Command::Repair(reply, progress, extent) => {
                let report = self.repair(&progress, extent).await;
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
        let mut changes = first.changes.len();
        let mut group = vec![first];
        let deadline = tokio::time::Instant::now() + self.works.tuning.linger;
        while group.len() < 4096 && changes < STEP_MAX {
            let more = self.works.active.load(Ordering::Relaxed) > group.len();
            let next = if more {
                tokio::time::timeout_at(deadline, self.commands.recv()).await.ok().flatten()
            } else {
                self.commands.try_recv().ok()
            };
            match next {
                Some(Command::Finish(finish)) => {
                    changes += finish.changes.len();
                    group.push(finish);
                }
                Some(Command::Ready(reply)) => drop(reply.send(self.ensure_session().await)),
                Some(Command::Repair(reply, ..)) => {
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

    /// Makes the local database durable. Failing at it costs a sync with the seeders at the next start.
    pub fn sync(&mut self) {
        self.unsynced = None;
        if let Err(error) = self.works.db.sync() {
            tracing::warn!(%error, "the local database could not be made durable");
        }
    }

    async fn stop(&mut self) -> Result<(), SessionError> {
        self.sync();
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
            self.works.uplink.fail_all();
        }
    }

    /// Takes the lease and brings the book to its base, unless that is so already; lanes that miss little get it first.
    pub async fn ensure_session(&mut self) -> Result<(), SessionError> {
        let before = self.session.as_ref().map(|session| session.lease);
        self.take_session().await?;
        if self.session.as_ref().map(|session| session.lease) != before {
            self.catch_up().await;
        }
        Ok(())
    }

    /// Takes the lease and brings the book to its base, unless that is so already.
    pub async fn take_session(&mut self) -> Result<(), SessionError> {
        let held = *self.works.keeper.held.borrow();
        if self.session.as_ref().is_some_and(|session| Some(session.lease) == held) {
            if self.works.uplink.seats().len() >= usize::from(self.works.profile.quorum()) {
                return Ok(());
            }
            // Too many dropped out: under a new lease all of them are asked again.
            self.works.uplink.set_gate(false);
            self.works.uplink.fail_short();
            self.works.keeper.broken().await;
        } else if held.is_some() {
            // It outlived what it was for: the local database failed.
            self.works.keeper.broken().await;
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
        let base = begun.base.as_ref();
        self.look_for_dead |=
            bring_to(&fetcher, &works.db, &mut self.book, base, works.tuning.straggler).await?;
        if self.trees.0 != self.book.hash() || self.trees.1.is_empty() {
            complete(&fetcher, &mut self.book).await?;
            let slots = works.profile.slot_indices();
            self.trees = (self.book.hash(), slots.map(|slot| self.tree(slot)).collect::<Result<_, _>>()?);
        }
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
        works.uplink.set_room(begun.contract.terms.room.get(), self.book.rows.bytes().get());
        self.tell_packer();
        self.adopt_known();
        let is_behind = |seat: &Seat| !lanes.is_at_base(seat.slot);
        let sitting = begun.promised.iter().map(|(seat, _)| seat).chain(&begun.silent);
        let behind = sitting.filter(|seat| is_behind(seat)).map(|seat| seat.slot).collect();
        let (lease, failed) = (begun.lease, begun.failed);
        Ok(Session { lease, lanes, fetcher, sequence: 0, failed, behind })
    }

    fn tree(&self, slot: SlotIndex) -> Result<SumTree, SessionError> {
        let bug = |reason: String| SessionError::Internal(reason);
        let leaves =
            self.book.lane(slot).map_err(|leaf| bug(format!("a root of leaf {leaf} is not known")))?;
        SumTree::from_leaves(leaves.iter().map(Option::as_ref)).map_err(|error| bug(error.to_string()))
    }

    fn tell_packer(&self) {
        let stripes: BTreeMap<LeafIndex, StripeId> =
            self.book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row?.stripe))).collect();
        self.works.packer.set_stripes(stripes);
    }

    /// Stripes of ours that the base names already: a commit that we thought lost was the base after all.
    fn adopt_known(&mut self) {
        let settled = self.works.uplink.settled().into_iter().map(|(cell, row)| (cell, row.stripe));
        let ours: Vec<_> = settled.chain(std::mem::take(&mut self.shown)).collect();
        for (cell, stripe) in ours {
            if let Some(leaf) = self.book.rows.leaf_of(&stripe) {
                self.unsaved.note(&cell, leaf, stripe);
                cell.set(State::Committed { leaf, stripe });
                self.works.uplink.free_room(&cell);
            }
        }
    }

    /// Stripes that the next commit takes in. One that the book has already is not among them: a seeder refuses it a second
    /// place, and it may be there although the journal does not say so.
    pub fn fresh(&mut self) -> Fresh {
        self.adopt_known();
        Fresh::new(self.works.uplink.settled(), self.book.leaves())
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
        self.sync();
    }

    async fn look_after(&mut self) {
        self.regain().await;
        self.checkpoint_logged().await;
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
        let fresh = self.fresh();
        if fresh.cells.is_empty() {
            return Ok(());
        }
        let plan = Plan { fresh, tail: Vec::new(), carried: None, steps: None, dropped: Vec::new() };
        match self.commit(plan).await {
            Ok(_) => {
                self.save(&Staged::default());
                Ok(())
            }
            Err(Trouble::Again(error)) => Err(error.into()),
            Err(Trouble::Final(error)) => Err(error),
        }
    }
}

//! The client itself: what is shared by all operations, and how they find the contract and its newest commit.

mod view;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes as Payload;
use tallow_ledger::{key, record};
use tallow_seal::keys::ContractKeys;
use tallow_types::commit::{CommitCertificate, SignedCommit};
use tallow_types::fault::Code;
use tallow_types::id::{CommitHash, ContractId};
use tallow_types::params::Params;
use tallow_types::unit::{DurationMs, SlotIndex};
use tallow_types::wire::{Request, Response};
use tokio::sync::{mpsc, oneshot};

use crate::base::{Answer, Step, Walk};
use crate::book::Book;
use crate::chain::Chain;
use crate::db::{Db, IfLocked};
use crate::error::{Blame, LedgerError, PutError, SessionError};
use crate::fetch::Fetcher;
use crate::gather::{Whose, gather_of};
use crate::judge::{Good, Judge, Show};
use crate::lease::LeaseCore;
use crate::options::{Access, Options};
use crate::place;
use crate::progress::Progress;
use crate::seats::{Caller, Seat, seats};
use crate::stripes::Stripes;
use crate::write::committer::{Command, Committer, Works};
use crate::write::packer::Packer;
use crate::write::poster::Poster;
use crate::write::sealing::Workshop;
use crate::write::session::{Keeper, KeeperSetup};
use crate::write::uplink::{Setup, Uplink};

/// One account on one network. Cheap to clone; all methods may run at once.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub options: Options,
    pub chain: Arc<Chain>,
    pub caller: Arc<Caller>,
    pub db: Arc<Db>,
    pub keys: Arc<ContractKeys>,
    pub contract: ContractId,
    good: Arc<Good>,
    writer: tokio::sync::Mutex<Option<Writer>>,
    /// The stripe table that was read last, and its commit.
    rows: Mutex<Option<(CommitHash, Arc<Stripes>)>>,
}

/// The writing side, once something is written.
#[derive(Clone)]
pub(crate) struct Writer {
    pub works: Arc<Works>,
    pub commands: mpsc::Sender<Command>,
    tasks: Arc<Tasks>,
}

/// Ends its tasks when the last writer goes.
struct Tasks {
    works: Arc<Works>,
    handles: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Tasks {
    /// Ends all tasks and waits until they have let go of the client's folder.
    async fn end(&self) {
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        handles.iter().for_each(tokio::task::JoinHandle::abort);
        let _ended = futures::future::join_all(handles).await;
        self.works.uplink.end().await;
        self.works.poster.end().await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|task| task.abort());
        self.works.uplink.stop();
    }
}

/// A contract as readers see it: its record, and the newest commit that can be relied on.
pub(crate) struct Sight {
    pub contract: record::Contract,
    pub seats: Vec<Seat>,
    pub newest: Option<SignedCommit>,
    /// Seats that answered, with the newest commit each.
    pub answered: Vec<(SlotIndex, Option<SignedCommit>)>,
    pub failed: Vec<Blame>,
}

impl Sight {
    pub fn has_answered(&self, slot: SlotIndex) -> bool {
        self.answered.iter().any(|(other, _)| *other == slot)
    }
}

impl Client {
    /// Opens the client's folder and says hello to the network.
    ///
    /// # Errors
    /// Another network, no network, or a folder that is not this account's or in use.
    pub async fn open(options: Options) -> Result<Self, SessionError> {
        if options.transport.key() != options.identity.device().public() {
            return Err(SessionError::Internal(
                "the transport is not connected with this device's key".into(),
            ));
        }
        let account = options.identity.account();
        let if_locked = match options.access {
            Access::Read => IfLocked::UseOwn,
            Access::Write => IfLocked::Fail,
        };
        let (dir, network) = (options.dir.clone(), options.chain);
        let opened =
            tokio::task::spawn_blocking(move || Db::open(dir.as_deref(), &network, &account, if_locked));
        let db = Arc::new(opened.await.map_err(|error| SessionError::Internal(error.to_string()))??);
        let tuning = &options.tuning;
        let chain = Arc::new(Chain::new(
            options.transport.clone(),
            options.bootstrap.clone(),
            options.chain,
            options.identity.clone(),
            db.clone(),
            (tuning.request_timeout, tuning.patience),
        ));
        chain.connect().await?;
        let caller = Arc::new(Caller::new(options.transport.clone(), tuning.request_timeout));
        let contract = tallow_types::contract::contract_id(&options.chain, &account, 0);
        let keys = Arc::new(options.identity.contract(0));
        let writer = tokio::sync::Mutex::new(None);
        let (rows, good) = (Mutex::new(None), Arc::default());
        Ok(Self { inner: Arc::new(Inner { options, chain, caller, db, keys, contract, good, writer, rows }) })
    }

    /// The rules of the network.
    ///
    /// # Errors
    /// The ledger can't be reached.
    pub async fn params(&self) -> Result<Params, SessionError> {
        Ok(self.inner.chain.params().await?)
    }

    /// Posts the newest commit and gives the write lease back. To be called before the program ends; without it other
    /// devices wait until the lease expires.
    ///
    /// # Errors
    /// The ledger can't be reached. Nothing is lost by it.
    pub async fn close(&self) -> Result<(), SessionError> {
        let Some(writer) = self.inner.writer.lock().await.take() else { return Ok(()) };
        let (reply, answer) = oneshot::channel();
        let gone = |_| SessionError::Internal("the committer is gone".into());
        writer.commands.send(Command::Stop(reply)).await.map_err(|_| SessionError::LeaseLost)?;
        let stopped = answer.await.map_err(gone)?;
        writer.tasks.end().await;
        stopped
    }
}

impl Inner {
    pub fn fetcher(&self, sight: &Sight, progress: Arc<dyn Progress>) -> Fetcher {
        Fetcher {
            caller: self.caller.clone(),
            contract: self.contract,
            profile: sight.contract.terms.profile,
            keys: self.keys.clone(),
            seats: sight.seats.clone(),
            hedge_after: self.options.tuning.hedge_after,
            progress,
            bad: Mutex::new(
                sight.failed.iter().map(|blame| (SlotIndex::new(blame.slot), blame.clone())).collect(),
            ),
        }
    }

    /// The account's contract and its seeders' newest word. Who only reads needs no more than a quorum's.
    pub async fn sight(&self, whose: Whose) -> Result<Sight, SessionError> {
        let keys = [key::contract(&self.contract), key::active(&self.contract), key::pending(&self.contract)];
        let mut records = self.chain.records(&keys).await?.into_iter().map(Option::unwrap_or_default);
        let mut next = || records.next().unwrap_or_default();
        let (contract, active, pending) = (next(), next(), next());
        if contract.is_empty() {
            return Err(self.nothing().await);
        }
        let contract: record::Contract = tallow_types::codec::decode(&contract)
            .map_err(|error| LedgerError::BadRecord { what: "the contract", reason: error.to_string() })?;
        let ids: Vec<_> = contract.lanes().map(|(_, lane)| lane.seeder).collect();
        let seats = seats(&contract, &self.chain.seeders_of(&ids).await?);
        let (judge, record) = (&self.judge(), &contract);
        let calls = seats.iter().map(|seat| async move {
            let request = Request::Lane { contract: self.contract, slot: seat.slot };
            let lane = match self.caller.call(seat, request, Payload::new()).await {
                Ok(reply) => match reply.response {
                    Response::Lane(lane) => lane,
                    _ => return Err(seat.blame("an answer of another kind")),
                },
                Err(fault) if fault.code() == Code::NotFound => return Ok((seat.slot, None)),
                Err(fault) => return Err(seat.blame(fault.to_string())),
            };
            if judge.is_sound(record, seat, &lane) {
                Ok((seat.slot, lane.newest.map(|(signed, _)| signed)))
            } else {
                Err(seat.blame("its newest commit is not valid"))
            }
        });
        let enough = usize::from(contract.terms.profile.quorum());
        let (mut answered, mut failed) = (Vec::new(), Vec::new());
        for answer in gather_of(whose, calls, enough, self.options.tuning.straggler).await {
            match answer {
                Ok(answer) => answered.push(answer),
                Err(blame) => failed.push(blame),
            }
        }
        for seat in &seats {
            let heard = answered.iter().any(|(slot, _)| *slot == seat.slot)
                || failed.iter().any(|blame| blame.slot == seat.slot.get());
            if !heard {
                failed.push(seat.blame("no answer in time"));
            }
        }
        let certified = [active, pending].into_iter().filter_map(|bytes| {
            let certificate = tallow_types::codec::decode::<CommitCertificate>(&bytes).ok()?;
            judge.is_acknowledged(record, &certificate).then_some(certificate.signed)
        });
        let based = self.base_of(record, &seats, &answered, &failed).await?;
        let newest = certified.chain(based).max_by_key(|signed| signed.commit.rank());
        Ok(Sight { contract, seats, newest, answered, failed })
    }

    /// Why there is nothing: no account, or an account that stored nothing.
    async fn nothing(&self) -> SessionError {
        match self.chain.account(&self.options.identity.account()).await {
            Ok(None) => SessionError::NoAccount(self.options.chain),
            Ok(Some(_)) => SessionError::NoContract(self.options.chain),
            Err(error) => error.into(),
        }
    }

    fn judge(&self) -> Judge {
        let (network, contract, keys) = (self.options.chain, self.contract, self.keys.clone());
        Judge { network, contract, keys, good: self.good.clone() }
    }

    async fn base_of(
        &self,
        contract: &record::Contract,
        seats: &[Seat],
        answered: &[(SlotIndex, Option<SignedCommit>)],
        failed: &[Blame],
    ) -> Result<Option<SignedCommit>, SessionError> {
        let answers: Vec<Answer> = answered
            .iter()
            .map(|(slot, newest)| Answer {
                slot: *slot,
                newest: newest.as_ref().map(|signed| signed.commit.hash()),
            })
            .collect();
        // With fewer answers than that the newest commit may be missed, but what is seen can still be read.
        let quorum = usize::from(contract.terms.profile.quorum());
        let mut walk = Walk::new(&answers, contract.terms.profile.data(), quorum.min(answers.len()));
        let (judge, tuning) = (self.judge(), &self.options.tuning);
        let show = Show {
            caller: &self.caller,
            judge: &judge,
            record: contract,
            seats,
            hedge: tuning.straggler,
            patience: tuning.patience,
        };
        let mut known: Vec<SignedCommit> = answered.iter().filter_map(|(_, newest)| newest.clone()).collect();
        known.iter().for_each(|signed| walk.show(&signed.commit));
        loop {
            match walk.step() {
                Step::Found(found) => {
                    return Ok(known.into_iter().find(|signed| Some(signed.commit.hash()) == found));
                }
                Step::Need { commit, from } => {
                    let shown = show.run(commit, &from).await;
                    if shown.is_empty() {
                        walk.give_up(commit);
                    }
                    shown.iter().for_each(|signed| walk.show(&signed.commit));
                    known.extend(shown);
                }
                Step::TooFew { have } => {
                    let what = "the newest commit".into();
                    return Err(SessionError::Unreadable {
                        what,
                        have,
                        need: quorum,
                        failed: failed.to_vec(),
                    });
                }
            }
        }
    }

    /// The writing side of an existing contract.
    pub async fn writer(&self) -> Result<Writer, SessionError> {
        if self.options.access == Access::Read {
            return Err(SessionError::NotWritable);
        }
        let mut writer = self.writer.lock().await;
        if let Some(writer) = writer.as_ref().filter(|writer| !writer.commands.is_closed()) {
            return Ok(writer.clone());
        }
        let Some(contract) = self.chain.contract(&self.contract).await? else {
            return Err(self.nothing().await);
        };
        let params = self.chain.params().await?;
        let started = self.start_writer(&contract, params)?;
        *writer = Some(started.clone());
        Ok(started)
    }

    /// The writing side; opens a contract if the account has none.
    pub async fn writer_for_put(&self, estimate: u64) -> Result<Writer, PutError> {
        match self.writer().await {
            Err(SessionError::NoContract(_)) => {}
            other => return Ok(other?),
        }
        let params = self.chain.params().await.map_err(SessionError::from)?;
        let plan = (&self.options.contract, &params, estimate);
        place::open(&self.chain, &self.caller, &self.options.chain, &self.options.identity, plan).await?;
        Ok(self.writer().await?)
    }

    fn start_writer(&self, contract: &record::Contract, params: Params) -> Result<Writer, SessionError> {
        let (options, tuning) = (&self.options, &self.options.tuning);
        let profile = contract.terms.profile;
        let share = tuning
            .lease_share
            .map_or(params.lease.get() / 4, |share| u64::try_from(share.as_millis()).unwrap_or(u64::MAX));
        let device = options.identity.device().public();
        let core = LeaseCore::new(device, profile, params.lease, DurationMs::new(share));
        let keeper = KeeperSetup {
            chain: self.chain.clone(),
            caller: self.caller.clone(),
            judge: self.judge(),
            device,
            straggler: tuning.straggler,
            patience: tuning.patience,
        };
        let packer = Packer::new(profile, tuning.stripe_bytes, self.db.clone());
        let uplink = Uplink::new(Setup {
            caller: self.caller.clone(),
            db: self.db.clone(),
            contract: self.contract,
            profile,
            keys: self.keys.clone(),
            stripes_in_flight: tuning.stripes_in_flight,
            stripe_room: packer.stripe_room(),
            streams: packer.streams(),
            straggler: tuning.straggler,
            patience: tuning.patience,
        });
        let works = Arc::new(Works {
            chain: self.chain.clone(),
            db: self.db.clone(),
            caller: self.caller.clone(),
            keeper: Keeper::new(keeper, core),
            packer,
            workshop: Workshop::default(),
            uplink,
            poster: Poster::start(self.chain.clone(), Duration::from_millis(params.epoch.get()) / 4),
            identity: options.identity.clone(),
            network: options.chain,
            contract: self.contract,
            profile,
            keys: self.keys.clone(),
            params,
            tuning: tuning.clone(),
            clock: options.clock.clone(),
            active: AtomicUsize::new(0),
            looked: Mutex::default(),
        });
        let book = Book::load(&self.db, None)?;
        let (commands, queue) = mpsc::channel(256);
        let committing = tokio::spawn(Committer::new(works.clone(), queue, book).run());
        let guarding = tokio::spawn(guard(works.clone()));
        let handles = Mutex::new(vec![committing, guarding]);
        Ok(Writer { works: works.clone(), commands, tasks: Arc::new(Tasks { works, handles }) })
    }
}

impl Writer {
    /// Takes the lease, so that what is sent finds its way.
    pub async fn ready(&self) -> Result<(), SessionError> {
        let _alive = &self.tasks;
        let (uplink, quorum) = (&self.works.uplink, usize::from(self.works.profile.quorum()));
        if *uplink.open.borrow() && uplink.seats().len() >= quorum {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Ready(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

pub(crate) fn gone() -> SessionError {
    SessionError::Internal("the committer is gone".into())
}

/// Keeps the lease while there is work, and notices when seeders refuse it.
async fn guard(works: Arc<Works>) {
    let mut broken = works.uplink.broken.subscribe();
    let pause = Duration::from_millis((works.params.lease.get() / 6).clamp(50, 10_000));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {
                let is_held = works.keeper.held.borrow().is_some();
                let has_work = works.active.load(std::sync::atomic::Ordering::Relaxed) > 0;
                if is_held && has_work && let Err(error) = works.keeper.tick().await {
                    tracing::warn!(%error, "the lease could not be looked after");
                }
            }
            changed = broken.changed() => {
                if changed.is_err() {
                    return;
                }
                works.uplink.set_gate(false);
                works.keeper.broken().await;
            }
        }
    }
}

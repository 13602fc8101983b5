//! The write lease in use: the shell around the lease core, which talks to the ledger and to the seeders.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes as Payload;
use tallow_ledger::{key, record};
use tallow_types::codec::decode;
use tallow_types::commit::SignedCommit;
use tallow_types::fault::{Code, Fault};
use tallow_types::id::{CommitHash, PublicKey};
use tallow_types::tx::Action;
use tallow_types::unit::{DurationMs, Lease, SlotIndex, TimeMs};
use tallow_types::wire::{LaneState, Request, Response};
use tokio::sync::{Mutex, watch};

use crate::chain::Chain;
use crate::error::{Blame, LedgerError, SessionError};
use crate::gather::gather;
use crate::judge::{Judge, Show};
use crate::lease::{Effect, Event, Grant, LeaseCore};
use crate::seats::{Caller, Seat, seats};

/// What a lease begins with.
pub(crate) struct Begun {
    pub lease: Lease,
    pub base: Option<SignedCommit>,
    pub contract: record::Contract,
    /// Everybody who holds a slot.
    pub seats: Vec<Seat>,
    /// Those who promised, with their newest commits.
    pub promised: Vec<(Seat, Option<SignedCommit>)>,
    /// Those who joined without a commit: they keep the promise, but count as silent until they have countersigned.
    pub silent: Vec<Seat>,
    /// Those who did not.
    pub failed: Vec<Blame>,
    /// The ledger's time.
    pub now: TimeMs,
}

struct Inner {
    core: LeaseCore,
    /// The newest block time that we know of, and when we learnt it.
    clock: (TimeMs, Instant),
    fence: Vec<(Seat, Result<LaneState, Fault>)>,
    contract: Option<record::Contract>,
    seats: Vec<Seat>,
    shown: Vec<SignedCommit>,
    /// Who stands on a commit that nobody showed.
    hidden: Vec<SlotIndex>,
}

/// The lease of one contract.
pub(crate) struct Keeper {
    chain: Arc<Chain>,
    caller: Arc<Caller>,
    judge: Judge,
    device: PublicKey,
    straggler: Duration,
    patience: Duration,
    inner: Mutex<Inner>,
    /// Set when what is under way should be finished and the lease given back.
    pub hand_over: watch::Sender<bool>,
    /// Set while the lease is held.
    pub held: watch::Sender<Option<Lease>>,
}

/// What an effect asks of whoever drives the core.
enum Outcome {
    Nothing,
    Ready(Lease, Option<CommitHash>),
    ReadOnly(usize, usize),
}

pub(crate) struct KeeperSetup {
    pub chain: Arc<Chain>,
    pub caller: Arc<Caller>,
    pub judge: Judge,
    pub device: PublicKey,
    pub straggler: Duration,
    pub patience: Duration,
}

impl Keeper {
    pub fn new(setup: KeeperSetup, core: LeaseCore) -> Self {
        let inner = Inner {
            core,
            clock: (TimeMs::ZERO, Instant::now()),
            fence: Vec::new(),
            contract: None,
            seats: Vec::new(),
            shown: Vec::new(),
            hidden: Vec::new(),
        };
        Self {
            chain: setup.chain,
            caller: setup.caller,
            judge: setup.judge,
            device: setup.device,
            straggler: setup.straggler,
            patience: setup.patience,
            inner: Mutex::new(inner),
            hand_over: watch::Sender::new(false),
            held: watch::Sender::new(None),
        }
    }

    /// Takes the lease, waiting for other devices to hand it over.
    pub async fn acquire(&self, limit: Duration) -> Result<Begun, SessionError> {
        let began = Instant::now();
        let mut inner = self.inner.lock().await;
        self.hand_over.send_replace(false);
        let effects = inner.core.handle(Event::Want);
        let outcome = tokio::time::timeout(limit, self.drive(&mut inner, effects)).await;
        let Ok(outcome) = outcome else {
            // Whatever was under way is asked for anew next time.
            inner.core.give_up();
            return Err(SessionError::LeaseHeld { waited_s: began.elapsed().as_secs() });
        };
        let failed = |inner: &Inner| {
            let blame = |(seat, answer): &(Seat, Result<LaneState, Fault>)| match answer {
                Ok(_) if inner.hidden.contains(&seat.slot) => {
                    Some(seat.blame("nobody shows the commits that it has signed"))
                }
                Ok(_) => None,
                Err(fault) => Some(seat.blame(fault.to_string())),
            };
            inner.fence.iter().filter_map(blame).collect::<Vec<_>>()
        };
        match outcome? {
            Outcome::Ready(lease, base) => self.begun(&mut inner, lease, base),
            Outcome::ReadOnly(have, need) => {
                Err(SessionError::ReadOnly { have, need, failed: failed(&inner) })
            }
            Outcome::Nothing => Err(SessionError::Internal("the lease core asked for nothing".into())),
        }
    }

    fn begun(
        &self,
        inner: &mut Inner,
        lease: Lease,
        base: Option<CommitHash>,
    ) -> Result<Begun, SessionError> {
        let contract = inner.contract.clone().ok_or(SessionError::LeaseLost)?;
        let known = inner
            .fence
            .iter()
            .filter_map(|(_, answer)| answer.as_ref().ok()?.newest.as_ref().map(|(signed, _)| signed));
        let base = match base {
            None => None,
            Some(hash) => {
                let mut all = known.chain(&inner.shown);
                let found = all.find(|signed| signed.commit.hash() == hash).cloned();
                Some(found.ok_or_else(|| SessionError::Internal("the base was never shown".into()))?)
            }
        };
        let (mut promised, mut silent, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (seat, answer) in std::mem::take(&mut inner.fence) {
            match answer {
                Ok(lane) => promised.push((seat, lane.newest.map(|(signed, _)| signed))),
                Err(fault) if fault.code() == Code::NotFound => silent.push(seat),
                Err(fault) => failed.push(seat.blame(fault.to_string())),
            }
        }
        let heard = |seat: &Seat| {
            promised.iter().any(|(other, _)| other == seat)
                || silent.contains(seat)
                || failed.iter().any(|blame| blame.slot == seat.slot.get())
        };
        let unheard: Vec<Blame> = inner
            .seats
            .iter()
            .filter(|seat| !heard(seat))
            .map(|seat| seat.blame("no answer in time"))
            .collect();
        failed.extend(unheard);
        self.held.send_replace(Some(lease));
        let (seats, now) = (inner.seats.clone(), inner.clock.0);
        Ok(Begun { lease, base, contract, seats, promised, silent, failed, now })
    }

    /// Looks after the lease while it is held.
    pub async fn tick(&self) -> Result<(), SessionError> {
        let mut inner = self.inner.lock().await;
        let now = inner.now();
        let effects = inner.core.handle(Event::Tick { now });
        self.drive(&mut inner, effects).await.map(drop)
    }

    /// What is held can't be relied on any more.
    pub async fn broken(&self) {
        let mut inner = self.inner.lock().await;
        let effects = inner.core.handle(Event::Broken);
        drop(self.drive(&mut inner, effects).await);
        self.held.send_replace(None);
    }

    /// Gives it back.
    pub async fn release(&self) -> Result<(), SessionError> {
        let mut inner = self.inner.lock().await;
        self.held.send_replace(None);
        self.hand_over.send_replace(false);
        let effects = inner.core.handle(Event::Done);
        self.drive(&mut inner, effects).await.map(drop)
    }

    /// Runs effects until there are none.
    async fn drive(&self, inner: &mut Inner, effects: Vec<Effect>) -> Result<Outcome, SessionError> {
        let mut queue = std::collections::VecDeque::from(effects);
        let mut outcome = Outcome::Nothing;
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Read => queue.extend(self.read(inner).await?),
                Effect::Ask => {
                    self.submit(Action::Lease { contract: self.judge.contract, device: self.device }).await?;
                    queue.extend(self.read(inner).await?);
                }
                Effect::Release => {
                    self.submit(Action::Release { contract: self.judge.contract, device: self.device })
                        .await?;
                    queue.extend(self.read(inner).await?);
                }
                Effect::Wait(time) => tokio::time::sleep(Duration::from_millis(time.get())).await,
                Effect::Fence { lease, slots } => queue.extend(self.fence(inner, lease, &slots).await),
                Effect::Show { commit, from } => queue.extend(self.show(inner, commit, &from).await),
                Effect::Ready { lease, base } => outcome = Outcome::Ready(lease, base),
                Effect::HandOver => {
                    self.hand_over.send_replace(true);
                }
                Effect::Lost => {
                    self.held.send_replace(None);
                }
                Effect::ReadOnly { have, need } => outcome = Outcome::ReadOnly(have, need),
            }
        }
        Ok(outcome)
    }

    /// A refusal says only that the lease stands otherwise than we thought; reading it tells how.
    async fn submit(&self, action: Action) -> Result<(), SessionError> {
        match self.chain.act(action).await {
            Ok(_) => Ok(()),
            Err(LedgerError::Refused(fault)) if fault.code() == Code::Refused => {
                tracing::debug!(%fault, "the lease was refused");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self, inner: &mut Inner) -> Result<Vec<Effect>, SessionError> {
        let keys = [key::HEAD.to_vec(), key::contract(&self.judge.contract)];
        let mut found = self.chain.records(&keys).await?.into_iter();
        let (head, contract) = (found.next().flatten(), found.next().flatten());
        let (Some(head), Some(contract)) = (head, contract) else {
            return Err(SessionError::NoContract(self.judge.network));
        };
        let bad = |what, error: tallow_types::codec::DecodeError| LedgerError::BadRecord {
            what,
            reason: error.to_string(),
        };
        let head: record::Head = decode(&head).map_err(|error| bad("the head", error))?;
        let contract: record::Contract = decode(&contract).map_err(|error| bad("the contract", error))?;
        if head.time > inner.clock.0 {
            inner.clock = (head.time, Instant::now());
        }
        let lease = &contract.lease;
        let grant = Grant {
            lease: lease.last,
            device: lease.holder.map(|holder| holder.device),
            expires: lease.holder.map_or(TimeMs::ZERO, |holder| holder.expires),
            pending: lease.waiting,
        };
        let held = contract.lanes().map(|(slot, _)| slot).collect();
        // An idle ledger makes no blocks, so its time may be far behind; expiry is judged by the next block's.
        let now = inner.now();
        inner.contract = Some(contract);
        Ok(inner.core.handle(Event::Record { grant, now, held }))
    }

    async fn fence(&self, inner: &mut Inner, lease: Lease, slots: &[SlotIndex]) -> Vec<Effect> {
        let Some(contract) = inner.contract.clone() else { return Vec::new() };
        let ids: Vec<_> = contract.lanes().map(|(_, lane)| lane.seeder).collect();
        inner.seats = match self.chain.seeders_of(&ids).await {
            Ok(records) => seats(&contract, &records),
            Err(_) => Vec::new(),
        };
        inner.shown.clear();
        inner.hidden.clear();
        let quorum = usize::from(contract.terms.profile.quorum());
        let calls =
            inner.seats.clone().into_iter().filter(|seat| slots.contains(&seat.slot)).map(|seat| async {
                let answer = self.fence_one(&contract, &seat, lease).await;
                let is_good = answer.is_ok();
                let answered = (seat, answer);
                if is_good { Ok(answered) } else { Err(answered) }
            });
        let answers = gather(calls, quorum, self.straggler).await;
        inner.fence = answers.into_iter().map(|answer| answer.unwrap_or_else(|failed| failed)).collect();
        let mut effects = Vec::new();
        let mut heard = Vec::new();
        for (seat, answer) in inner.fence.clone() {
            heard.push(seat.slot);
            effects.extend(inner.core.handle(match answer {
                Ok(lane) => {
                    let newest = lane.newest.map(|(signed, _)| Box::new(signed.commit));
                    Event::Fenced { slot: seat.slot, newest }
                }
                Err(_) => Event::NotFenced { slot: seat.slot },
            }));
        }
        for slot in slots.iter().filter(|slot| !heard.contains(slot)) {
            effects.extend(inner.core.handle(Event::NotFenced { slot: *slot }));
        }
        effects
    }

    /// One seeder's promise. A seeder whose ledger doesn't know the grant yet is asked again.
    async fn fence_one(
        &self,
        record: &record::Contract,
        seat: &Seat,
        lease: Lease,
    ) -> Result<LaneState, Fault> {
        let deadline = tokio::time::Instant::now() + self.patience / 2;
        loop {
            let request = Request::Fence { contract: self.judge.contract, slot: seat.slot, lease };
            let fault = match self.caller.call(seat, request, Payload::new()).await {
                Ok(reply) => match reply.response {
                    Response::Fenced { fence, signature, lane } => {
                        let signer = seat.seeder.public_key();
                        let newest = lane.newest.as_ref().map(|(signed, _)| signed.commit.hash());
                        let fits = fence.contract == self.judge.contract
                            && fence.slot == seat.slot
                            && fence.lease == lease
                            && fence.newest == newest.unwrap_or(CommitHash::ZERO)
                            && tallow_types::sign::verify(&self.judge.network, &signer, &fence, &signature)
                                .is_ok()
                            && self.judge.is_sound(record, seat, &lane);
                        if fits {
                            return Ok(lane);
                        }
                        return Err(Fault::new(Code::Garbage, "its promise is not what was asked for"));
                    }
                    _ => Fault::new(Code::Garbage, "an answer of another kind"),
                },
                Err(fault) => fault,
            };
            let again = matches!(fault.code(), Code::Behind | Code::Busy);
            if !again || tokio::time::Instant::now() >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn show(&self, inner: &mut Inner, commit: CommitHash, from: &[SlotIndex]) -> Vec<Effect> {
        let Some(record) = &inner.contract else { return Vec::new() };
        let show = Show {
            caller: &self.caller,
            judge: &self.judge,
            record,
            seats: &inner.seats,
            hedge: self.straggler,
            patience: self.patience / 2,
        };
        let found = show.run(commit, from).await;
        let event = match found.first() {
            Some(signed) => Event::Shown(Box::new(signed.commit.clone())),
            None => {
                inner.hidden.extend(from);
                Event::Hidden(commit)
            }
        };
        inner.shown.extend(found);
        inner.core.handle(event)
    }
}

impl Inner {
    /// An estimate of the time that the next block will have.
    fn now(&self) -> TimeMs {
        let (time, learnt) = self.clock;
        let since = u64::try_from(learnt.elapsed().as_millis()).unwrap_or(u64::MAX);
        time.after(DurationMs::new(since)).unwrap_or(time)
    }
}

//! The validator as a pure machine: from the state of the tip, the time and an event, to effects.
//!
//! One call makes one block at most. A block is due when the ledger says so (boundary, gap, beacon, settlement), or
//! when transactions or proofs have waited for company a moment. The shell makes the effects true in their order, and
//! only then calls again, with the state after them.

use tallow_ledger::block::{self, Built};
use tallow_ledger::record::{Head, Network};
use tallow_ledger::tree::TreeUpdate;
use tallow_ledger::{
    BlockEnv, BlockError, Due, DueKind, ProofRefusal, ReadError, Refusal, StateRead, Writes, key,
};
use tallow_proofs::beacon;
use tallow_types::block::{Block, Header, SignedEpochProof};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::TICK_EPOCHS_MAX;
use tallow_types::sign::Keypair;
use tallow_types::tx::Transaction;
use tallow_types::wire::Receipt;
use tallow_types::{BlockHash, ChainId, DurationMs, Epoch, Incarnation, StateRoot, TimeMs, decode};

use super::Ticket;
use super::pool::{Full, Pool};
use crate::chain::{Change, View};
use crate::clock::Clock;

/// How long a transaction waits for others to share its block.
pub const TX_WINDOW: DurationMs = DurationMs::new(10);
/// Longest that an epoch proof waits for others to share its block.
const PROOF_WINDOW_MAX: DurationMs = DurationMs::new(2_000);

/// The state after the newest block.
pub trait Base: StateRead {
    /// That block.
    fn header(&self) -> &Header;
    /// Its hash.
    fn hash(&self) -> BlockHash {
        self.header().hash()
    }
    /// The root after these writes, and what they change in the tree.
    ///
    /// # Errors
    /// [`ReadError`] if the tree can't be read.
    fn root_after(&self, writes: &Writes) -> Result<(StateRoot, TreeUpdate), ReadError>;
}

impl Base for View {
    fn header(&self) -> &Header {
        self.header()
    }

    fn root_after(&self, writes: &Writes) -> Result<(StateRoot, TreeUpdate), ReadError> {
        self.root_after(writes)
    }
}

/// What happens to a validator.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody asks for a transaction.
    Submit(Ticket, Box<Transaction>),
    /// A seeder sends its epoch proof.
    Prove(Ticket, Box<SignedEpochProof>),
    /// Somebody moves the manual clock by epochs.
    Tick(Ticket, u32),
    /// Time has passed.
    Wake,
}

/// What the shell does next, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Remember the block in the guard, then commit it. If either fails nothing that follows may happen.
    Commit(Box<Block>, Box<Change>),
    /// Answer.
    Reply(Ticket, Answer),
    /// Call again with [`Event::Wake`] when this time has passed, unless something happens before.
    WakeIn(DurationMs),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The transaction is in a block.
    Applied(Receipt),
    /// The proof is in a block.
    Proven,
    /// The clock moved; this is the epoch now.
    Ticked(Epoch),
    /// No.
    Refused(Fault),
}

/// The pure part of a validator.
pub struct Core {
    signer: Keypair,
    vrf: beacon::Secret,
    clock: Clock,
    incarnation: Incarnation,
    pool: Pool,
    ticking: Option<(Vec<Ticket>, Epoch)>,
}

impl Core {
    /// A validator with nothing to do.
    #[must_use]
    pub fn new(signer: Keypair, vrf: beacon::Secret, clock: Clock, incarnation: Incarnation) -> Self {
        Self { signer, vrf, clock, incarnation, pool: Pool::default(), ticking: None }
    }

    /// Takes an event at a time, `base` being the state after the newest block.
    ///
    /// # Errors
    /// [`BlockError`] if the state can't be read, or this validator can't make blocks on it. Nothing was done.
    pub fn handle(&mut self, base: &dyn Base, now: TimeMs, event: Event) -> Result<Vec<Effect>, BlockError> {
        let mut effects = Vec::new();
        let head: Head = record(base, key::HEAD)?;
        self.take(event, base, &head, now, &mut effects);
        match self.next(base, &head, now, &mut effects)? {
            Next::Make { time, bare } => self.make(base, &head, (time, bare), now, &mut effects)?,
            Next::Wait(None) => {}
            Next::Wait(Some(wait)) => effects.push(Effect::WakeIn(wait)),
        }
        Ok(effects)
    }

    fn take(&mut self, event: Event, base: &dyn Base, head: &Head, now: TimeMs, effects: &mut Vec<Effect>) {
        match event {
            Event::Submit(ticket, tx) => {
                if let Err(full) = self.pool.add_tx(ticket, *tx, now) {
                    effects.push(Effect::Reply(ticket, Answer::Refused(full.into())));
                }
            }
            Event::Prove(ticket, proof) => {
                self.take_proof(ticket, *proof, &base.header().chain, now, effects)
            }
            Event::Tick(ticket, epochs) => self.tick(ticket, epochs, head, effects),
            Event::Wake => {}
        }
    }

    /// A proof in a seeder's name that the seeder did not sign must not take the place of one that it did.
    fn take_proof(
        &mut self,
        ticket: Ticket,
        proof: SignedEpochProof,
        chain: &ChainId,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) {
        let refused = match proof.verify(chain).map_err(ProofRefusal::from) {
            Err(refusal) => Fault::from(&refusal),
            Ok(_) => match self.pool.add_proof(ticket, proof, now) {
                Ok(replaced) => {
                    let fault = Fault::new(Code::Refused, "a newer proof took its place");
                    return reply(effects, replaced, &Answer::Refused(fault));
                }
                Err(full) => full.into(),
            },
        };
        effects.push(Effect::Reply(ticket, Answer::Refused(refused)));
    }

    fn tick(&mut self, ticket: Ticket, epochs: u32, head: &Head, effects: &mut Vec<Effect>) {
        let mut refuse =
            |code, text: &str| effects.push(Effect::Reply(ticket, Answer::Refused(Fault::new(code, text))));
        if self.clock != Clock::Manual {
            return refuse(Code::Unsupported, "this network runs by the wall clock; it can't be moved");
        }
        if epochs > TICK_EPOCHS_MAX {
            return refuse(Code::Malformed, "the clock is moved by at most 10,000 epochs at once");
        }
        let (mut tickets, from) = self.ticking.take().unwrap_or_else(|| (Vec::new(), head.epoch.epoch));
        tickets.push(ticket);
        self.ticking = Some((tickets, Epoch::new(from.get().saturating_add(u64::from(epochs)))));
    }

    /// Whether to make a block, or how long to wait.
    fn next(
        &mut self,
        base: &dyn Base,
        head: &Head,
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) -> Result<Next, BlockError> {
        let Due { kind, at } = tallow_ledger::due(base)?;
        let soonest = TimeMs::new(base.header().time.get().saturating_add(1));
        let time = match self.clock {
            Clock::Wall => now.max(soonest),
            Clock::Manual => soonest,
        };
        let ticks = self.ticking.as_ref().is_some_and(|(_, target)| head.epoch.epoch < *target);
        if kind != DueKind::Boundary || at <= time || ticks {
            return Ok(Next::Make { time: time.max(at), bare: true });
        }
        if let Some((tickets, _)) = self.ticking.take() {
            reply(effects, tickets, &Answer::Ticked(head.epoch.epoch));
        }
        if base.header().incarnation < self.incarnation {
            // A new incarnation shows itself at once, so that followers of the old branch learn of it.
            return Ok(Next::Make { time, bare: true });
        }
        let (tx, proof) = self.pool.oldest();
        let tx_window = if self.pool.is_rich() { DurationMs::ZERO } else { TX_WINDOW };
        let proof_window = proof_window(base)?;
        let tx = tx.map(|since| left(since, tx_window, now));
        let proof = proof.map(|since| left(since, proof_window, now));
        let company = [tx, proof].into_iter().flatten().min();
        if company == Some(DurationMs::ZERO) {
            return Ok(Next::Make { time, bare: false });
        }
        let boundary = (self.clock == Clock::Wall).then(|| at.since(now));
        Ok(Next::Wait([company, boundary].into_iter().flatten().min()))
    }

    /// Makes a block of what waits; if `bare`, also of nothing.
    fn make(
        &mut self,
        base: &dyn Base,
        head: &Head,
        (time, bare): (TimeMs, bool),
        now: TimeMs,
        effects: &mut Vec<Effect>,
    ) -> Result<(), BlockError> {
        let height =
            base.header().height.next().ok_or_else(|| ReadError::new("the last height is reached"))?;
        let env = BlockEnv {
            height,
            parent: base.hash(),
            time,
            proposer: self.signer.public(),
            vrf: beacon::prove(&self.vrf, &head.beacon, height),
            incarnation: self.incarnation,
        };
        let (txs, proofs) = self.pool.candidates();
        let built = block::build(base, &env, txs, proofs)?;
        if bare || !built.body.transactions.is_empty() || !built.body.proofs.is_empty() {
            let (root, tree) = base.root_after(&built.outcome.writes)?;
            let header = block::header(base, &env, &built.body, root)?;
            let signature = self.signer.sign(&header.chain, &header);
            let change = Change { writes: built.outcome.writes.clone(), tree };
            let block = Block { header, signature, body: built.body.clone() };
            effects.push(Effect::Commit(Box::new(block), Box::new(change)));
        }
        self.answer(&built, now, effects);
        effects.push(Effect::WakeIn(DurationMs::ZERO));
        Ok(())
    }

    fn answer(&mut self, built: &Built, now: TimeMs, effects: &mut Vec<Effect>) {
        for applied in &built.outcome.applied {
            let tickets = self.pool.take_tx(&applied.receipt.tx);
            reply(effects, tickets, &Answer::Applied(applied.receipt.clone()));
        }
        for (id, refusal) in &built.rejected {
            let answer = match refusal {
                Refusal::Applied(receipt) => Answer::Applied(receipt.clone()),
                other => Answer::Refused(other.into()),
            };
            reply(effects, self.pool.take_tx(id), &answer);
        }
        for proof in built.body.proofs.iter() {
            reply(effects, self.pool.take_proof(&proof.proof.seeder), &Answer::Proven);
        }
        for (seeder, refusal) in &built.rejected_proofs {
            reply(effects, self.pool.take_proof(seeder), &Answer::Refused(refusal.into()));
        }
        self.pool.settle(now);
    }
}

/// What to do now.
enum Next {
    /// Make a block at this time; if `bare`, even with nothing in it.
    Make { time: TimeMs, bare: bool },
    /// Wait, for so long at most.
    Wait(Option<DurationMs>),
}

fn reply(effects: &mut Vec<Effect>, tickets: Vec<Ticket>, answer: &Answer) {
    effects.extend(tickets.into_iter().map(|ticket| Effect::Reply(ticket, answer.clone())));
}

/// What is left of a window that began at `since`. A clock that was set back must not make anybody wait.
fn left(since: TimeMs, window: DurationMs, now: TimeMs) -> DurationMs {
    if now < since { DurationMs::ZERO } else { window.saturating_sub(now.since(since)) }
}

/// How long proofs wait for company: a small part of the time in which they count.
fn proof_window(base: &dyn Base) -> Result<DurationMs, ReadError> {
    let network: Network = record(base, key::NETWORK)?;
    Ok(DurationMs::new(network.params.window.get() / 8).min(PROOF_WINDOW_MAX))
}

fn record<T: tallow_types::Tagged>(base: &dyn Base, key: &[u8]) -> Result<T, ReadError> {
    let bytes = base.get(key)?.ok_or_else(|| ReadError::new("a record of the network is missing"))?;
    decode(&bytes).map_err(ReadError::new)
}

impl From<Full> for Fault {
    fn from(full: Full) -> Self {
        let code = match full {
            Full::Pool => Code::Busy,
            Full::TooLarge(_) => Code::Malformed,
        };
        Self::new(code, full.to_string())
    }
}

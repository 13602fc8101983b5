//! Runs a validator: a thread that owns ledger, guard and pure core, and a handle that asks it.
//!
//! A thread and not a task, because executing a block and syncing a disk would hold up whatever else a runtime does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tallow_ledger::BlockError;
use tallow_proofs::beacon::{self, R255, Vrf};
use tallow_types::block::SignedEpochProof;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::VALIDATOR_QUEUE_MAX;
use tallow_types::sign::Keypair;
use tallow_types::tx::Transaction;
use tallow_types::wire::Receipt;
use tallow_types::{Epoch, TimeMs};
use tokio::sync::{oneshot, watch};

use super::Ticket;
use super::core::{Answer, Core, Effect, Event};
use super::guard::{Guard, GuardError};
use super::seat::Seat;
use crate::chain::{Chain, ChainError};
use crate::clock::{self, Clock};

/// What a validator signs with, and by which clock.
pub struct Config {
    /// Signs blocks; genesis names its public key.
    pub signer: Keypair,
    /// Makes beacon shares; genesis names its public key.
    pub vrf: beacon::Secret,
    /// Where time comes from.
    pub clock: Clock,
}

/// Why a validator can't run, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The keys are not those that genesis names.
    #[error("these keys are not those of the network's validator")]
    NotValidator,
    /// The system gives no thread.
    #[error("the validator's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The guard refused or failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The ledger's file failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The state can't be read, or its rules refuse this validator's own block.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// Who gets which answer, and how long it may take until the next call.
pub type Handled = (Vec<(Ticket, Answer)>, Option<Duration>);

/// The machine and its disk, without thread or clock: what the shell drives, and tests too.
pub struct Runner {
    core: Core,
    pub(super) guard: Guard,
    chain: Arc<Chain>,
}

impl Runner {
    /// From a seat and keys.
    ///
    /// # Errors
    /// [`RunError::NotValidator`].
    pub fn new(seat: Seat, config: Config) -> Result<Self, RunError> {
        let Seat { chain, guard } = seat;
        let (key, vrf_key) = (config.signer.public(), R255::public(&config.vrf));
        let mut set = chain.genesis().validators.iter();
        if !set.any(|validator| validator.key == key && validator.vrf_key == vrf_key) {
            return Err(RunError::NotValidator);
        }
        let core = Core::new(config.signer, config.vrf, config.clock, guard.incarnation());
        Ok(Self { core, guard, chain })
    }

    /// The ledger.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Handles one event: what is to be committed is on disk when this returns.
    ///
    /// # Errors
    /// [`RunError`]: the validator must not go on, and nobody may be told anything.
    pub fn handle(&mut self, now: TimeMs, event: Event) -> Result<Handled, RunError> {
        let view = self.chain.view()?;
        let effects = self.core.handle(&view, now, event)?;
        drop(view);
        let (mut answers, mut wake) = (Vec::new(), None);
        for effect in effects {
            match effect {
                Effect::Commit(block, change) => {
                    self.guard.remember(&block)?;
                    let status = self.chain.commit(&block, &change)?;
                    let txs = block.body.transactions.len();
                    tracing::debug!(height = %status.height, epoch = %status.epoch, txs, "made a block");
                }
                Effect::Reply(ticket, answer) => answers.push((ticket, answer)),
                Effect::WakeIn(wait) => wake = Some(Duration::from_millis(wait.get())),
            }
        }
        Ok((answers, wake))
    }
}

enum Message {
    Submit(Box<Transaction>, oneshot::Sender<Answer>),
    Prove(Box<SignedEpochProof>, oneshot::Sender<Answer>),
    Tick(u32, oneshot::Sender<Answer>),
    Stop(oneshot::Sender<()>),
}

/// Asks a running validator. It stops when all handles are gone, or when told.
#[derive(Clone)]
pub struct Handle {
    chain: Arc<Chain>,
    queue: SyncSender<Message>,
    end: watch::Receiver<Option<String>>,
}

/// Starts a validator.
///
/// # Errors
/// [`RunError`] if the keys are not the network's.
pub fn spawn(seat: Seat, config: Config) -> Result<Handle, RunError> {
    let runner = Runner::new(seat, config)?;
    let chain = runner.chain.clone();
    let (queue, messages) = sync_channel(VALIDATOR_QUEUE_MAX);
    let thread = std::thread::Builder::new().name("validator".to_owned());
    let (ended, end) = watch::channel(None);
    let work = move || {
        if let Err(error) = run(runner, &messages) {
            tracing::error!(%error, "the validator stops");
            ended.send_replace(Some(error.to_string()));
        }
    };
    thread.spawn(work).map_err(RunError::Thread)?;
    Ok(Handle { chain, queue, end })
}

impl Handle {
    /// The ledger that the validator writes.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Asks for a transaction; answers when a block holds it.
    ///
    /// # Errors
    /// The refusal, or that the validator is busy or has stopped.
    pub async fn submit(&self, tx: Transaction) -> Result<Receipt, Fault> {
        match self.ask(|answer| Message::Submit(Box::new(tx), answer)).await? {
            Answer::Applied(receipt) => Ok(receipt),
            other => Err(unexpected(other)),
        }
    }

    /// Sends an epoch proof; answers when a block holds it.
    ///
    /// # Errors
    /// The refusal, or that the validator is busy or has stopped.
    pub async fn prove(&self, proof: SignedEpochProof) -> Result<(), Fault> {
        match self.ask(|answer| Message::Prove(Box::new(proof), answer)).await? {
            Answer::Proven => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Moves a manual clock by epochs; answers the epoch after that.
    ///
    /// # Errors
    /// The clock is the wall clock, or the validator is busy or has stopped.
    pub async fn tick(&self, epochs: u32) -> Result<Epoch, Fault> {
        match self.ask(|answer| Message::Tick(epochs, answer)).await? {
            Answer::Ticked(epoch) => Ok(epoch),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until the validator stops; answers why, if nobody told it to. Then this node must not go on either: it would
    /// serve a ledger that stands still.
    pub async fn stopped(&self) -> Option<String> {
        let mut end = self.end.clone();
        // The other end goes with the thread: an error means that it is gone, with or without a reason.
        let _gone = end.changed().await;
        end.borrow().clone()
    }

    /// Stops the validator; when this returns it signs and writes nothing any more.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let mut message = Message::Stop(done);
        // A full queue empties by itself: the validator never waits for those who ask.
        while let Err(TrySendError::Full(again)) = self.queue.try_send(message) {
            message = again;
            tokio::task::yield_now().await;
        }
        // An error means that it stopped before.
        let _stopped = stopped.await;
    }

    async fn ask(&self, message: impl FnOnce(oneshot::Sender<Answer>) -> Message) -> Result<Answer, Fault> {
        let (sender, answer) = oneshot::channel();
        match self.queue.try_send(message(sender)) {
            Ok(()) => answer.await.map_err(|_| stopped()),
            Err(TrySendError::Full(_)) => {
                Err(Fault::new(Code::Busy, "too many requests wait for the validator"))
            }
            Err(TrySendError::Disconnected(_)) => Err(stopped()),
        }
    }
}

fn stopped() -> Fault {
    Fault::new(Code::Internal, "the validator has stopped; what was asked may or may not be in a block")
}

fn unexpected(answer: Answer) -> Fault {
    match answer {
        Answer::Refused(fault) => fault,
        other => Fault::new(Code::Internal, format!("the validator answered something else: {other:?}")),
    }
}

fn run(mut runner: Runner, messages: &Receiver<Message>) -> Result<(), RunError> {
    let mut waiting: BTreeMap<Ticket, oneshot::Sender<Answer>> = BTreeMap::new();
    let mut last: Ticket = 0;
    let mut wake = Some(Duration::ZERO);
    loop {
        let message = match wake {
            Some(wait) => messages.recv_timeout(wait),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        last += 1;
        let (event, sender) = match message {
            Ok(Message::Submit(tx, sender)) => (Event::Submit(last, tx), Some(sender)),
            Ok(Message::Prove(proof, sender)) => (Event::Prove(last, proof), Some(sender)),
            Ok(Message::Tick(epochs, sender)) => (Event::Tick(last, epochs), Some(sender)),
            Ok(Message::Stop(done)) => {
                // The files are closed before anybody hears of it. Whoever asked may have gone.
                drop(runner);
                let _gone = done.send(());
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => (Event::Wake, None),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        waiting.extend(sender.map(|sender| (last, sender)));
        let (answers, next) = runner.handle(clock::wall(), event)?;
        wake = next;
        for (ticket, answer) in answers {
            // Whoever asked may have gone; the block stays.
            let _gone = waiting.remove(&ticket).map(|sender| sender.send(answer));
        }
    }
}

//! Posting: the newest acknowledged commit goes to the ledger, so that payment and public health follow it.
//!
//! Commits that were followed by newer ones before their turn came are skipped: the newest says it all. One goes at once,
//! the next a part of an epoch later: each costs a fee, and a block that every node of the network executes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tallow_types::commit::{CommitCertificate, Rank};
use tallow_types::tx::Action;
use tokio::sync::{Notify, watch};

use crate::chain::Chain;
use crate::error::LedgerError;

/// Hands certificates to the ledger, one at a time.
pub(crate) struct Poster {
    newest: watch::Sender<Option<CommitCertificate>>,
    posted: watch::Receiver<Rank>,
    hurry: Arc<Notify>,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Poster {
    /// Posts at most once in `pause`, unless there is a hurry.
    pub fn start(chain: Arc<Chain>, pause: Duration) -> Self {
        let newest = watch::Sender::new(None);
        let (done, posted) = watch::channel(Rank::default());
        let hurry = Arc::new(Notify::new());
        let running = run(chain, newest.subscribe(), done, (pause, hurry.clone()));
        let task = Mutex::new(Some(tokio::spawn(running)));
        Self { newest, posted, hurry, task }
    }

    /// This one next.
    pub fn post(&self, certificate: CommitCertificate) {
        self.newest.send_replace(Some(certificate));
    }

    /// Waits until the newest is on the ledger, or refused by it.
    pub async fn flush(&self, patience: Duration) -> Result<(), LedgerError> {
        let wanted = self.newest.borrow().as_ref().map(|certificate| certificate.signed.commit.rank());
        let Some(wanted) = wanted else { return Ok(()) };
        self.hurry.notify_one();
        let mut posted = self.posted.clone();
        let waited = tokio::time::timeout(patience, posted.wait_for(|rank| *rank >= wanted)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(LedgerError::Unreachable { last: "the newest commit could not be posted yet".into() }),
        }
    }
}

impl Poster {
    fn take(&self) -> Option<tokio::task::JoinHandle<()>> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        task.inspect(tokio::task::JoinHandle::abort)
    }

    /// Stops and waits until it has stopped.
    pub async fn end(&self) {
        if let Some(task) = self.take() {
            let _aborted = task.await;
        }
    }
}

impl Drop for Poster {
    fn drop(&mut self) {
        let _aborted = self.take();
    }
}

async fn run(
    chain: Arc<Chain>,
    mut newest: watch::Receiver<Option<CommitCertificate>>,
    posted: watch::Sender<Rank>,
    (pause, hurry): (Duration, Arc<Notify>),
) {
    while newest.changed().await.is_ok() {
        let Some(certificate) = newest.borrow_and_update().clone() else { continue };
        let rank = certificate.signed.commit.rank();
        loop {
            match chain.act(Action::Post(certificate.clone())).await {
                Ok(_) => break,
                Err(error @ LedgerError::Refused(_)) => {
                    // Overtaken by a newer one, or by the end of the contract: nothing is lost by it.
                    tracing::info!(%error, "the ledger did not take a commit");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "posting a commit will be tried again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if newest.has_changed().unwrap_or(true) {
                        break;
                    }
                }
            }
        }
        posted.send_replace(rank);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hurry.notified() => {}
        }
    }
}

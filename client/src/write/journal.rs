//! The journal of acknowledgements: which seeder holds which slice of an attempt, so that a put that goes on sends none of
//! them again.
//!
//! Guarantees: what was noted before the end is written, also when the put that it belongs to was interrupted. A crash loses
//! what came in the last moment; those slices are sent again, no more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tallow_types::id::{Digest, SeederId};
use tallow_types::unit::SlotIndex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::uplink::Attempt;
use crate::db::{self, ATTEMPTS, Db};
use crate::error::LocalError;

/// A pause between two writes, each of which costs a sync of the disk.
const EVERY: Duration = Duration::from_millis(100);

/// A slice that a seeder acknowledged: of which attempt, in which slot, who.
pub(crate) type Ack = (Digest, SlotIndex, SeederId);

/// Takes acknowledgements until it is stopped or dropped, and then writes what it still has.
pub(crate) struct Journal {
    acks: Mutex<Option<mpsc::UnboundedSender<Ack>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    pub fn start(db: Arc<Db>) -> Self {
        let (sender, acks) = mpsc::unbounded_channel();
        let task = tokio::spawn(keep(db, acks));
        Self { acks: Mutex::new(Some(sender)), task: Mutex::new(Some(task)) }
    }

    pub fn note(&self, ack: Ack) {
        if let Some(acks) = &*self.acks.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ended = acks.send(ack);
        }
    }

    /// Takes no more.
    pub fn stop(&self) {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Stops, and waits until all is written.
    pub async fn end(&self) {
        self.stop();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ended = task.await;
        }
    }
}

/// Writes as many at once as come within a pause.
async fn keep(db: Arc<Db>, mut acks: mpsc::UnboundedReceiver<Ack>) {
    let mut batch = Vec::new();
    while !batch.is_empty() || acks.recv_many(&mut batch, 4096).await > 0 {
        let (db, written) = (db.clone(), std::mem::take(&mut batch));
        match tokio::task::spawn_blocking(move || write(&db, written)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the journal of acknowledgements could not be written"),
            Err(error) => tracing::warn!(%error, "the journal of acknowledgements was not written"),
        }
        let next = Instant::now() + EVERY;
        while let Ok(Some(ack)) = timeout_at(next, acks.recv()).await {
            batch.push(ack);
        }
    }
}

fn write(db: &Db, acks: Vec<Ack>) -> Result<(), LocalError> {
    let mut by_digest: BTreeMap<Digest, Vec<(SlotIndex, SeederId)>> = BTreeMap::new();
    for (digest, slot, seeder) in acks {
        by_digest.entry(digest).or_default().push((slot, seeder));
    }
    db.write(|tx| {
        for (digest, acks) in by_digest {
            // Read where it is written: an attempt that is done with meanwhile stays gone.
            if let Some(mut attempt) = db::keyed_in::<Attempt>(tx, ATTEMPTS, digest.as_bytes())? {
                attempt.acknowledged.extend(acks);
                db::put_keys(tx, ATTEMPTS, [(digest.as_bytes().as_slice(), Some(&attempt))])?;
            }
        }
        Ok(())
    })
}

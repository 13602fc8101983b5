//! The memory of a node's requests and answers, and who may hold how much of it for how long.
//!
//! ```text
//! all                 256 MiB  `Tuning::memory`
//!   of one peer        64 MiB  `Tuning::peer_memory`
//!   of all strangers  128 MiB  `Tuning::strangers_memory`
//!     of one stranger  16 MiB  `Tuning::stranger_memory`
//! ```
//! A peer is *known* for an hour after the service answered `Stored`, `Countersigned` or `Fenced` to it, which it does to
//! those who hold a lease there and to nobody else. All others are strangers, whose keys cost nothing.
//!
//! Guarantees: strangers, however many, never hold or wait for more than their part, so the rest is there for known
//! peers. What a request takes is taken in one piece, so that no two requests wait for each other. Shares are given in
//! the order of asking. While somebody waits for memory of the node, strangers, and known peers with more than a
//! stranger's share, must move 64 KiB/s (`Tuning::rate_busy`); everybody else, and at any other time, 1 KiB/s
//! (`Tuning::rate`).
//!
//! Does not: tell strangers apart. Many keys of one person can fill the part of all strangers, as long as they move
//! bytes at that rate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallow_types::PublicKey;
use tallow_types::wire::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Tuning;
use crate::stream::{CREDIT_MIN, to_units};

/// How long a peer stays known. Longer than any pause between two writes of one who holds a lease.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Most peers known at once; the one longest unheard of is forgotten.
const KNOWN_MAX: usize = 1024;

/// The memory of a node.
pub(crate) struct Budget {
    all: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    peer_units: usize,
    stranger_units: usize,
    rate: u64,
    rate_busy: u64,
    /// Requests that wait for memory of the node, not counting those that wait for their own peer's.
    waiting: AtomicUsize,
    /// When each was last seen to hold a lease.
    known: Mutex<BTreeMap<PublicKey, Instant>>,
}

/// The part of one peer.
pub(crate) struct Share {
    peer: PublicKey,
    all: Arc<Semaphore>,
    as_stranger: Arc<Semaphore>,
}

/// Memory granted; given back when dropped.
pub(crate) struct Memory(Vec<OwnedSemaphorePermit>);

impl Memory {
    /// Gives back what is beyond `units`.
    pub(crate) fn shrink(&mut self, units: u32) {
        for permit in &mut self.0 {
            let rest = permit.num_permits().saturating_sub(units as usize);
            drop(permit.split(rest));
        }
    }
}

impl Budget {
    /// Each part is at least as large as the largest request.
    pub(crate) fn new(tuning: &Tuning) -> Self {
        let units = |bytes: usize| to_units(bytes).max(CREDIT_MIN) as usize;
        Self {
            all: Arc::new(Semaphore::new(units(tuning.memory))),
            strangers: Arc::new(Semaphore::new(units(tuning.strangers_memory.min(tuning.memory / 2)))),
            peer_units: units(tuning.peer_memory),
            stranger_units: units(tuning.stranger_memory),
            rate: tuning.rate,
            rate_busy: tuning.rate_busy.max(tuning.rate),
            waiting: AtomicUsize::new(0),
            known: Mutex::default(),
        }
    }

    pub(crate) fn share(&self, peer: PublicKey) -> Share {
        Share {
            peer,
            all: Arc::new(Semaphore::new(self.peer_units)),
            as_stranger: Arc::new(Semaphore::new(self.stranger_units)),
        }
    }

    /// Waits for memory: first for the peer's own, so that one that waits for itself holds up nobody; last for that of
    /// all, so that strangers wait there only within their part.
    pub(crate) async fn take(&self, share: &Share, units: u32) -> Memory {
        let mut permits = vec![acquire(&share.all, units).await];
        if !self.is_known(&share.peer) {
            permits.push(acquire(&share.as_stranger, units).await);
            permits.push(self.of_node(&self.strangers, units).await);
        }
        permits.push(self.of_node(&self.all, units).await);
        Memory(permits)
    }

    async fn of_node(&self, pool: &Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
        // This passes by nobody: freed permits go to those who wait, even when they are too few yet.
        if let Ok(permit) = pool.clone().try_acquire_many_owned(units) {
            return permit;
        }
        let _waiting = Waiting::begin(&self.waiting);
        acquire(pool, units).await
    }

    /// Learns from an answer of the service that the peer holds a lease here.
    pub(crate) fn learn(&self, peer: PublicKey, response: &Response) {
        let needs_lease = matches!(
            response,
            Response::Stored | Response::Countersigned { .. } | Response::Fenced { .. } | Response::Staged
        );
        if !needs_lease {
            return;
        }
        let mut known = self.lock_known();
        known.insert(peer, Instant::now());
        if known.len() > KNOWN_MAX {
            let oldest = known.iter().min_by_key(|(_, seen)| **seen).map(|(peer, _)| *peer);
            oldest.map(|peer| known.remove(&peer));
        }
    }

    fn is_known(&self, peer: &PublicKey) -> bool {
        self.lock_known().get(peer).is_some_and(|seen| seen.elapsed() < KNOWN_FOR)
    }

    /// Bytes a second that a frame of this peer must move now.
    pub(crate) fn rate(&self, share: &Share) -> u64 {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return self.rate;
        }
        let held = self.peer_units.saturating_sub(share.all.available_permits());
        if held <= self.stranger_units && self.is_known(&share.peer) { self.rate } else { self.rate_busy }
    }

    fn lock_known(&self) -> MutexGuard<'_, BTreeMap<PublicKey, Instant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is free of the whole. Units.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

async fn acquire(pool: &Arc<Semaphore>, units: u32) -> OwnedSemaphorePermit {
    pool.clone().acquire_many_owned(units).await.expect("budgets are never closed")
}

/// Counts one that waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

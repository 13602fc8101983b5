//! Answers the network: every request of `types::wire`, for a seeder, a validator, a mere follower, or all in one.
//!
//! Guarantees: what it says is stored, promised or applied is durable; who may write is decided by the ledger and the key
//! of the connection; a request costs bounded memory and one of a bounded number of places, and gets `Busy` when those
//! are taken.
//!
//! A request that comes before its block does waits a moment for the block, then gets `Behind`.

mod lane;
mod ledger;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tallow_consensus::Chain;
use tallow_consensus::validator::Handle;
use tallow_net::{Reply, Service};
use tallow_types::contract::Address;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{REQUESTS_BEHIND_MAX, REQUESTS_DISK_MAX, REQUESTS_WAITING_MAX};
use tallow_types::wire::{Request, Response};
use tallow_types::{ChainId, PublicKey};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::seeder::{Seeder, fitted};
use crate::upstream::Upstream;

/// How long a request waits for the ledger here to know what it needs.
const BEHIND: Duration = Duration::from_secs(2);

/// The service of one node.
pub struct StorageService {
    chain: Arc<Chain>,
    validator: Option<Handle>,
    seeder: Option<Arc<Seeder>>,
    upstream: Upstream,
    bootstrap: OnceLock<Vec<Address>>,
    disk: Semaphore,
    behind: Semaphore,
    polls: Semaphore,
    waiting: Semaphore,
}

impl StorageService {
    /// From the parts of a node.
    #[must_use]
    pub fn new(
        chain: Arc<Chain>,
        validator: Option<Handle>,
        seeder: Option<Arc<Seeder>>,
        upstream: Upstream,
    ) -> Self {
        Self {
            chain,
            validator,
            seeder,
            upstream,
            bootstrap: OnceLock::new(),
            disk: Semaphore::new(REQUESTS_DISK_MAX),
            behind: Semaphore::new(REQUESTS_BEHIND_MAX),
            polls: Semaphore::new(REQUESTS_WAITING_MAX),
            waiting: Semaphore::new(REQUESTS_WAITING_MAX),
        }
    }

    /// Says where this node listens, once it does.
    pub fn listens(&self, own: Vec<Address>) {
        let others = self.upstream.peers().iter().flat_map(tallow_net::Peer::bootstrap);
        let all = own.into_iter().chain(others).take(tallow_types::limits::ADDRESSES_MAX).collect();
        // A second call changes nothing: a node listens once.
        let _ = self.bootstrap.set(all);
    }

    fn hello(&self, chain: ChainId) -> Result<Reply, Fault> {
        if chain != self.chain.id() {
            let text = format!("this node is of network {}, not of {chain}", self.chain.id());
            return Err(Fault::new(Code::WrongChain, text));
        }
        let bootstrap = self.bootstrap.get().cloned().unwrap_or_default();
        let seeder = self.seeder.as_ref().map(|seeder| seeder.id());
        Ok(Response::Hello { chain, seeder, bootstrap: fitted(bootstrap) }.into())
    }

    fn seeder(&self) -> Result<&Arc<Seeder>, Fault> {
        self.seeder.as_ref().ok_or_else(|| Fault::new(Code::Unsupported, "this node is no seeder"))
    }

    async fn answer(&self, from: PublicKey, request: Request, payload: Bytes) -> Result<Reply, Fault> {
        match request {
            Request::Hello { chain } => self.hello(chain),
            Request::Store { .. }
            | Request::Countersign { .. }
            | Request::Commit { .. }
            | Request::Stage { .. }
            | Request::Fence { .. }
            | Request::Lane { .. }
            | Request::Commits { .. }
            | Request::Leaves { .. }
            | Request::Read { .. }
            | Request::Damaged { .. }
            | Request::Accept { .. } => lane::answer(self, from, request, payload).await,
            // Anybody may wait for a block: it must not keep a transaction out.
            Request::Status { .. } | Request::Blocks { .. } => {
                let _place = place(&self.polls)?;
                ledger::answer(self, from, request, payload).await
            }
            _ => {
                let _place = place(&self.waiting)?;
                ledger::answer(self, from, request, payload).await
            }
        }
    }

    /// Tries again whenever the ledger moves, as long as the ledger is behind what is asked, for a moment. Anybody may ask
    /// for what is on no ledger: when too many wait, the others are told at once.
    async fn when_known<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Fault> {
        let mut tip = self.chain.subscribe();
        let mut waits = None;
        let deadline = tokio::time::Instant::now() + BEHIND;
        loop {
            tip.mark_unchanged();
            match attempt().await {
                Err(fault) if fault.code() == Code::Behind => {
                    if waits.is_none() {
                        let Ok(place) = self.behind.try_acquire() else { return Err(fault) };
                        waits = Some(place);
                    }
                    // Neither the end of time nor of the ledger changes the answer.
                    if !matches!(tokio::time::timeout_at(deadline, tip.changed()).await, Ok(Ok(()))) {
                        return Err(fault);
                    }
                }
                other => return other,
            }
        }
    }
}

fn place(places: &Semaphore) -> Result<SemaphorePermit<'_>, Fault> {
    places.try_acquire().map_err(|_| Fault::new(Code::Busy, "too many requests are under way here"))
}

#[async_trait]
impl Service for StorageService {
    async fn serve(&self, from: PublicKey, request: Request, payload: Bytes) -> Reply {
        self.answer(from, request, payload).await.unwrap_or_else(|fault| {
            tracing::debug!(from = from.short(), %fault, "request failed");
            fault.into()
        })
    }
}

//! The streams to each peer that is called: opened when needed, shared by all calls, replaced when broken.
//!
//! The first stream to a peer carries messages without payload, so that they never wait behind a slice; the others
//! carry bulk, each call the one with the most credit left. Memory: a few hundred bytes for each peer ever called.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::AsyncWriteExt;
use libp2p::PeerId;
use tallow_types::PublicKey;
use tallow_types::fault::Fault;
use tokio::time::{Instant, timeout};

use crate::config::Tuning;
use crate::exchange::{Rule, unreachable};
use crate::node::driver::Dialer;
use crate::node::streams::OpenError;
use crate::peer::{Peer, peer_id};
use crate::stream::caller::{Caller, Failure};
use crate::transport::Reply;

/// How often a stream is opened when the connection under it ends meanwhile.
const OPEN_TRIES: u32 = 4;
/// Pause before the second try; doubled for each further one.
const OPEN_PAUSE: Duration = Duration::from_millis(5);
/// How often a call that was not sent looks for another stream.
const UNSENT_TRIES: u32 = 3;

/// All streams that this node opened.
pub(super) struct Links {
    dialer: Dialer,
    tuning: Tuning,
    peers: Mutex<BTreeMap<PublicKey, Arc<Link>>>,
}

/// The streams to one peer.
struct Link {
    id: PeerId,
    slots: Vec<Slot>,
    backoff: Mutex<Backoff>,
}

/// A place for one stream. Whoever finds it empty opens it, the others wait for that.
#[derive(Default)]
struct Slot {
    caller: Mutex<Option<Arc<Caller>>>,
    opening: tokio::sync::Mutex<()>,
}

/// When a peer that could not be reached is tried again.
#[derive(Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    reason: String,
}

impl Links {
    pub(super) fn new(dialer: Dialer, tuning: Tuning) -> Self {
        Self { dialer, tuning, peers: Mutex::default() }
    }

    pub(super) const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(super) async fn call(
        &self,
        peer: &Peer,
        rule: Rule,
        header: Bytes,
        payload: Bytes,
    ) -> Result<Reply, Fault> {
        let link = self.link(peer.key)?;
        let bulk = !payload.is_empty() || rule.answer_payload > 0;
        for _ in 0..UNSENT_TRIES {
            let slot = link.choose(bulk);
            let caller = self.caller(&link, slot, peer).await?;
            match caller.call(rule, header.clone(), payload.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Sent(fault)) => return Err(fault),
                // The stream broke before; a new one may hold.
                Err(Failure::Unsent) => slot.clear(&caller),
            }
        }
        Err(unreachable("streams to the peer break before anything can be sent"))
    }

    fn link(&self, key: PublicKey) -> Result<Arc<Link>, Fault> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = peers.get(&key) {
            return Ok(link.clone());
        }
        let id = peer_id(&key).ok_or_else(|| unreachable(format!("{key} is not a key of a peer")))?;
        let slots = (0..self.tuning.streams.max(1)).map(|_| Slot::default()).collect();
        let link = Arc::new(Link { id, slots, backoff: Mutex::default() });
        peers.insert(key, link.clone());
        Ok(link)
    }

    /// The stream of a slot, opened if need be.
    async fn caller(&self, link: &Link, slot: &Slot, peer: &Peer) -> Result<Arc<Caller>, Fault> {
        if let Some(caller) = slot.get() {
            return Ok(caller);
        }
        let _opening = slot.opening.lock().await;
        if let Some(caller) = slot.get() {
            return Ok(caller);
        }
        link.check_backoff()?;
        let opened = timeout(2 * self.tuning.connect, self.open(link, peer)).await.unwrap_or_else(|_| {
            // Whatever holds that connection up, the next try gets a fresh one.
            self.dialer.disconnect(link.id);
            Err(unreachable("the peer did not answer in time when a stream was opened"))
        });
        link.note(&opened, &self.tuning);
        let caller = Arc::new(opened?);
        slot.set(caller.clone());
        Ok(caller)
    }

    async fn open(&self, link: &Link, peer: &Peer) -> Result<Caller, Fault> {
        let mut last = String::new();
        for attempt in 0..OPEN_TRIES {
            if attempt > 0 {
                tokio::time::sleep(OPEN_PAUSE * 2u32.pow(attempt - 1)).await;
            }
            self.dialer.connect(link.id, &peer.addresses).await?;
            let mut stream = match self.dialer.open(link.id).await {
                Ok(stream) => stream,
                Err(error @ OpenError::Unsupported) => return Err(unreachable(error.to_string())),
                Err(error) => {
                    last = error.to_string();
                    continue;
                }
            };
            // The name of the protocol must be on its way before the handshake is timed.
            let flushed = stream.flush().await;
            match flushed {
                Ok(()) => match Caller::open(stream, &self.tuning).await {
                    Ok(caller) => return Ok(caller),
                    Err(error) if error.is_violation() => {
                        return Err(crate::exchange::garbage(error.to_string()));
                    }
                    Err(error) => last = error.to_string(),
                },
                Err(error) => last = error.to_string(),
            }
        }
        Err(unreachable(format!("cannot open a stream: {last}")))
    }
}

impl Link {
    /// The slot for a call.
    fn choose(&self, bulk: bool) -> &Slot {
        let (first, others) = self.slots.split_first().expect("at least one slot");
        if !bulk {
            return first;
        }
        // An empty slot counts as one with nothing outstanding, but an open one that is as free comes first.
        others.iter().min_by_key(|slot| slot.load()).unwrap_or(first)
    }

    fn check_backoff(&self) -> Result<(), Fault> {
        let backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        match backoff.until {
            Some(until) if Instant::now() < until => {
                Err(unreachable(format!("{} (not tried again yet)", backoff.reason)))
            }
            _ => Ok(()),
        }
    }

    fn note(&self, opened: &Result<Caller, Fault>, tuning: &Tuning) {
        let mut backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(_) => *backoff = Backoff::default(),
            Err(fault) => {
                let pause = tuning.backoff_min.saturating_mul(2u32.saturating_pow(backoff.failures));
                backoff.failures = backoff.failures.saturating_add(1);
                backoff.until = Some(Instant::now() + pause.min(tuning.backoff_max));
                fault.text.as_str().clone_into(&mut backoff.reason);
            }
        }
    }
}

impl Slot {
    fn get(&self) -> Option<Arc<Caller>> {
        self.lock().as_ref().filter(|caller| !caller.is_broken()).cloned()
    }

    fn set(&self, caller: Arc<Caller>) {
        *self.lock() = Some(caller);
    }

    /// Empties the slot if it still holds that stream.
    fn clear(&self, broken: &Arc<Caller>) {
        let mut caller = self.lock();
        if caller.as_ref().is_some_and(|caller| Arc::ptr_eq(caller, broken)) {
            *caller = None;
        }
    }

    /// Sorts slots by how much is outstanding. Units, and 1 if the slot is empty.
    fn load(&self) -> (usize, u8) {
        match self.get() {
            Some(caller) => (caller.credit_used(), 0),
            None => (0, 1),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Caller>>> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

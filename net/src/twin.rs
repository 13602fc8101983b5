//! A network in memory, with faults from a seed.
//!
//! Same traits, same limits and the same kinds of fault as [`Node`](crate::Node); no sockets, and no credit: calls to
//! one peer never wait for each other. On a current-thread runtime with paused time it is deterministic: one seed and
//! one order of calls give the same faults and delays.

mod dice;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::FRAME_PAYLOAD_MAX;
use tallow_types::wire::{Request, Response};
use tallow_types::{PublicKey, decode, encode};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::exchange::{self, Rule, garbage, unreachable};
use crate::peer::Peer;
use crate::transport::{Reply, Service, Transport};
use dice::Dice;

/// How a peer misbehaves, as seen by those who call it. Probabilities are in thousandths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How long a request takes on its way, and the answer on its way back. Empty for none.
    pub delay: Range<Duration>,
    /// The request is lost: it is never served, and the caller waits until it gives up.
    pub drop_request: u16,
    /// The request is served but its answer is lost.
    pub drop_answer: u16,
    /// The answer is of another kind, which the network layer notices.
    pub garbage: u16,
    /// A byte of the answer's payload is flipped, which only a check of the content notices.
    pub corrupt: u16,
    /// The payload ends early, which only a check of the content notices.
    pub truncate: u16,
    /// The payload is longer than was asked for, which the network layer notices.
    pub too_long: u16,
    /// Takes requests and never answers any.
    pub silent: bool,
}

/// A network in memory. Clones are the same network.
#[derive(Clone)]
pub struct Twin {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    seed: u64,
    idle: Duration,
    peers: BTreeMap<PublicKey, Member>,
    faults: BTreeMap<PublicKey, Faults>,
    cuts: BTreeSet<(PublicKey, PublicKey)>,
    calls: BTreeMap<(PublicKey, PublicKey), u64>,
}

/// One life of a peer, from `join` to `kill`.
#[derive(Clone)]
struct Member {
    service: Option<Arc<dyn Service>>,
    life: CancellationToken,
}

impl Twin {
    /// An empty network. All chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            seed,
            idle: Duration::from_secs(10),
            peers: BTreeMap::new(),
            faults: BTreeMap::new(),
            cuts: BTreeSet::new(),
            calls: BTreeMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// How long callers wait for silent peers before `Unreachable`; 10 s unless set.
    pub fn set_idle(&self, idle: Duration) {
        self.lock().idle = idle;
    }

    /// A caller, and if it has a service, a peer that others reach by its key. Joining again with the same key is a
    /// restart: the life before ends as by [`kill`](Self::kill).
    #[must_use]
    pub fn join(&self, key: PublicKey, service: Option<Arc<dyn Service>>) -> TwinNode {
        let life = CancellationToken::new();
        let before = self.lock().peers.insert(key, Member { service, life: life.clone() });
        if let Some(before) = before {
            before.life.cancel();
        }
        TwinNode { twin: self.clone(), key, life }
    }

    /// Kills a peer as kill -9 would: what it is serving stops at its next await, calls to and from it break at once.
    pub fn kill(&self, key: PublicKey) {
        let before = self.lock().peers.remove(&key);
        if let Some(before) = before {
            before.life.cancel();
        }
    }

    /// Sets how a peer misbehaves from now on, through restarts too.
    pub fn set_faults(&self, key: PublicKey, faults: Faults) {
        self.lock().faults.insert(key, faults);
    }

    /// Cuts all ways between two groups; calls across the cut wait until they give up.
    pub fn partition(&self, left: &[PublicKey], right: &[PublicKey]) {
        let mut shared = self.lock();
        for (&a, &b) in left.iter().flat_map(|a| right.iter().map(move |b| (a, b))) {
            shared.cuts.insert((a, b));
            shared.cuts.insert((b, a));
        }
    }

    /// Mends all cuts.
    pub fn heal(&self) {
        self.lock().cuts.clear();
    }

    /// The peer value for a key: a twin needs no addresses.
    #[must_use]
    pub const fn peer(key: PublicKey) -> Peer {
        Peer::new(key, Vec::new())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self, from: PublicKey, to: PublicKey) -> bool {
        self.lock().cuts.contains(&(from, to))
    }

    /// What will happen to the next call on one way: depends on the seed, the way, and how many came before.
    fn fate(&self, from: PublicKey, to: PublicKey) -> Fate {
        let mut shared = self.lock();
        let count = shared.calls.entry((from, to)).or_default();
        *count += 1;
        let mut dice = Dice::new(shared.seed, &from, &to, shared.calls[&(from, to)]);
        let faults = shared.faults.get(&to).cloned().unwrap_or_default();
        Fate {
            there: dice.duration(&faults.delay),
            back: dice.duration(&faults.delay),
            lost: dice.permille(faults.drop_request) || faults.silent,
            unanswered: dice.permille(faults.drop_answer),
            garbage: dice.permille(faults.garbage),
            corrupt: dice.permille(faults.corrupt).then(|| dice.next()),
            truncate: dice.permille(faults.truncate).then(|| dice.next()),
            too_long: dice.permille(faults.too_long),
        }
    }
}

/// What happens to one call.
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    unanswered: bool,
    garbage: bool,
    corrupt: Option<u64>,
    truncate: Option<u64>,
    too_long: bool,
}

impl Fate {
    /// Does to an answer what a broken or hostile peer would.
    fn tamper(&self, mut reply: Reply, rule: &Rule) -> Reply {
        if self.garbage {
            // A kind that was not asked for; `Proven` has no content that could be right by chance.
            let other = if rule.accepts(&Response::Proven) { Response::Stored } else { Response::Proven };
            return Reply::new(other);
        }
        let length = reply.payload.len();
        if let Some(at) = self.corrupt.filter(|_| length > 0) {
            let mut bytes = BytesMut::from(&reply.payload[..]);
            bytes[dice::below(at, length)] ^= 1;
            reply.payload = bytes.freeze();
        }
        if let Some(at) = self.truncate.filter(|_| length > 0) {
            reply.payload.truncate(dice::below(at, length));
        }
        if self.too_long {
            let mut bytes = BytesMut::from(&reply.payload[..]);
            bytes.resize(rule.answer_payload + 1, 0);
            reply.payload = bytes.freeze();
        }
        reply
    }
}

/// One caller on a [`Twin`]. It can't call any more once its life has ended.
#[derive(Clone)]
pub struct TwinNode {
    twin: Twin,
    key: PublicKey,
    life: CancellationToken,
}

#[async_trait]
impl Transport for TwinNode {
    fn key(&self) -> PublicKey {
        self.key
    }

    async fn call(&self, peer: &Peer, request: Request, payload: Bytes) -> Result<Reply, Fault> {
        let rule = Rule::of(&request);
        let request = through_codec(&rule, &request, &payload)?;
        if peer.key == self.key {
            return Err(exchange::to_oneself());
        }
        tokio::select! {
            biased;
            () = self.life.cancelled() => Err(unreachable("this node was stopped")),
            result = self.exchange(peer.key, &rule, request, payload) => result,
        }
    }
}

impl TwinNode {
    async fn exchange(
        &self,
        to: PublicKey,
        rule: &Rule,
        request: Request,
        payload: Bytes,
    ) -> Result<Reply, Fault> {
        let fate = self.twin.fate(self.key, to);
        pass(fate.there).await;
        let member = self.twin.lock().peers.get(&to).cloned();
        if self.twin.is_cut(self.key, to) {
            return Err(self.silence(&CancellationToken::new()).await);
        }
        let Some(Member { service: Some(service), life }) = member else {
            return Err(unreachable(format!("nobody listens as {}", to.short())));
        };
        if fate.lost {
            return Err(self.silence(&life).await);
        }
        let reply = serve(self.key, rule, service, request, payload, &life).await?;
        pass(fate.back).await;
        if fate.unanswered || self.twin.is_cut(self.key, to) {
            return Err(self.silence(&life).await);
        }
        rule.judge(fate.tamper(reply, rule))
    }

    /// Waits as a caller waits for a peer that says nothing.
    async fn silence(&self, life: &CancellationToken) -> Fault {
        let idle = self.twin.lock().idle;
        tokio::select! {
            biased;
            () = life.cancelled() => unreachable("the connection broke"),
            () = tokio::time::sleep(idle) => unreachable("the peer fell silent"),
        }
    }
}

/// Runs the service as a node would: what writes runs to its end even when the caller goes, what reads stops.
async fn serve(
    from: PublicKey,
    rule: &Rule,
    service: Arc<dyn Service>,
    request: Request,
    payload: Bytes,
    life: &CancellationToken,
) -> Result<Reply, Fault> {
    let dies = life.clone();
    let task = tokio::spawn(async move {
        tokio::select! {
            biased;
            () = dies.cancelled() => None,
            reply = service.serve(from, request, payload) => Some(reply),
        }
    });
    let joined = if rule.writes { task.await } else { AbortOnDropHandle::new(task).await };
    match joined {
        Ok(Some(reply)) => Ok(exchange::within_limits(rule, reply).0),
        Ok(None) => Err(unreachable("the connection broke")),
        Err(_) => Err(Fault::new(Code::Internal, "the service panicked")),
    }
}

/// What the frame layer does to a request: limits, and both directions of the encoding.
fn through_codec(rule: &Rule, request: &Request, payload: &Bytes) -> Result<Request, Fault> {
    exchange::check_request(rule, &encode(request), payload)?;
    debug_assert!(payload.len() <= FRAME_PAYLOAD_MAX, "no rule allows more than a frame");
    decode(&encode(request)).map_err(|error| garbage(error.to_string()))
}

async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[cfg(test)]
mod tests;

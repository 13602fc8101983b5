//! The seeders of a contract, as peers: who holds which slot, how to call them, and how fast they answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes as Payload;
use tallow_ledger::record::{Contract, Seeder};
use tallow_net::{Peer, Reply, Transport};
use tallow_types::fault::{Code, Fault};
use tallow_types::id::SeederId;
use tallow_types::unit::SlotIndex;
use tallow_types::wire::Request;
use tokio::time::Instant;

use crate::error::Blame;
use crate::pace::Pace;

/// One held slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub slot: SlotIndex,
    pub seeder: SeederId,
    pub peer: Peer,
}

impl Seat {
    pub fn blame(&self, reason: impl Into<String>) -> Blame {
        Blame { slot: self.slot.get(), seeder: self.seeder.short(), reason: reason.into() }
    }
}

/// The seats of a contract, given the records of its seeders.
pub(crate) fn seats(contract: &Contract, seeders: &[Seeder]) -> Vec<Seat> {
    contract
        .lanes()
        .filter_map(|(slot, lane)| {
            let record = seeders.iter().find(|record| record.ask.seeder == lane.seeder)?;
            let addresses = record.ask.addresses.iter().cloned().collect();
            let peer = Peer::new(lane.seeder.public_key(), addresses);
            Some(Seat { slot, seeder: lane.seeder, peer })
        })
        .collect()
}

/// Calls seeders and remembers how they do.
pub(crate) struct Caller {
    transport: Arc<dyn Transport>,
    timeout: Duration,
    known: Mutex<BTreeMap<SeederId, Known>>,
}

/// A seeder's pace, and when it was last heard of.
struct Known {
    pace: Pace,
    at: Instant,
}

/// Seats in the order in which to ask them.
pub(crate) struct Ranking {
    pub seats: Vec<Seat>,
    /// What those who are not slow usually take, if that is known.
    pub usual: Option<Duration>,
}

impl Caller {
    pub fn new(transport: Arc<dyn Transport>, timeout: Duration) -> Self {
        Self { transport, timeout, known: Mutex::new(BTreeMap::new()) }
    }

    /// One request to one seeder. What is dropped before it is answered counts against the seeder if it had taken long.
    pub async fn call(&self, seat: &Seat, request: Request, payload: Payload) -> Result<Reply, Fault> {
        let mut watch =
            Watch { caller: self, seat, bytes: answer_len(&request), began: Some(Instant::now()) };
        let is_bulk = matches!(request, Request::Store { .. } | Request::Read { .. });
        let call = self.transport.call(&seat.peer, request, payload);
        let answer = if is_bulk {
            // A slow line may take long over it. The transport ends calls in which nothing moves.
            call.await
        } else {
            let late = |_| Err(Fault::new(Code::Unreachable, "no answer in time"));
            tokio::time::timeout(self.timeout, call).await.unwrap_or_else(late)
        };
        let is_failure = answer.as_ref().is_err_and(|fault| {
            matches!(fault.code(), Code::Unreachable | Code::Garbage | Code::Internal | Code::Storage)
        });
        watch.end(is_failure);
        answer
    }

    fn note(&self, seeder: &SeederId, what: impl FnOnce(&mut Pace)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let known = known.entry(*seeder).or_insert_with(|| Known { pace: Pace::default(), at });
        known.at = at;
        what(&mut known.pace);
    }

    /// Orders seats for a read of so many bytes each: those who do well by their slots, so that data comes before parity,
    /// then the slow ones, the slowest last.
    pub fn rank(&self, mut seats: Vec<Seat>, bytes: u32) -> Ranking {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |seat: &Seat| known.get(&seat.seeder);
        let mut times: Vec<Duration> =
            seats.iter().filter_map(|seat| of(seat)?.pace.expected(bytes)).collect();
        times.sort_unstable();
        let usual = times.get(times.len() / 2).copied();
        seats.sort_by_cached_key(|seat| {
            let malus =
                |known: &Known| known.pace.malus(bytes, usual.unwrap_or_default(), known.at.elapsed());
            (of(seat).map(malus).unwrap_or_default(), seat.slot)
        });
        Ranking { seats, usual }
    }

    /// A seeder that was caught with wrong bytes is asked last.
    pub fn distrust(&self, seeder: &SeederId) {
        self.note(seeder, Pace::lied);
    }
}

/// Bytes that come back beside an answer; `None` for requests that wait for a disk or a block, whose times say nothing of
/// reads.
fn answer_len(request: &Request) -> Option<u32> {
    match request {
        Request::Read { length, .. } => Some(*length),
        Request::Lane { .. } => Some(0),
        _ => None,
    }
}

/// Sees how a call ends.
struct Watch<'a> {
    caller: &'a Caller,
    seat: &'a Seat,
    bytes: Option<u32>,
    began: Option<Instant>,
}

impl Watch<'_> {
    fn end(&mut self, is_failure: bool) {
        let (Some(began), bytes) = (self.began.take(), self.bytes) else { return };
        self.caller.note(&self.seat.seeder, |pace| match bytes {
            _ if is_failure => pace.failed(),
            Some(bytes) => pace.answered(bytes, began.elapsed()),
            None => pace.worked(),
        });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let (Some(began), Some(bytes)) = (self.began, self.bytes) {
            self.caller.note(&self.seat.seeder, |pace| pace.given_up(bytes, began.elapsed()));
        }
    }
}

//! The seeders of a contract, as peers: who holds which slot, how to call them, and how fast they answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes as Payload;
use tallow_ledger::record::{Contract, Seeder};
use tallow_net::{Peer, Reply, Transport};
use tallow_types::fault::{Code, Fault};
use tallow_types::id::SeederId;
use tallow_types::unit::SlotIndex;
use tallow_types::wire::Request;

use crate::error::Blame;

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

#[derive(Clone, Copy, Default)]
struct Pace {
    /// Moving average of what a request takes. Milliseconds.
    ms: u64,
    /// Failures since the last success.
    failures: u32,
}

/// Calls seeders and remembers how they do.
pub(crate) struct Caller {
    transport: Arc<dyn Transport>,
    timeout: Duration,
    paces: Mutex<BTreeMap<SeederId, Pace>>,
}

impl Caller {
    pub fn new(transport: Arc<dyn Transport>, timeout: Duration) -> Self {
        Self { transport, timeout, paces: Mutex::new(BTreeMap::new()) }
    }

    /// One request to one seeder.
    pub async fn call(&self, seat: &Seat, request: Request, payload: Payload) -> Result<Reply, Fault> {
        let began = Instant::now();
        let call = self.transport.call(&seat.peer, request, payload);
        let answer = match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::new(Code::Unreachable, "no answer in time")),
        };
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.entry(seat.seeder).or_default();
        let is_failure = answer.as_ref().is_err_and(|fault| {
            matches!(fault.code(), Code::Unreachable | Code::Garbage | Code::Internal | Code::Storage)
        });
        if is_failure {
            pace.failures = pace.failures.saturating_add(1);
        } else {
            *pace = Pace { ms: (pace.ms * 3 + took) / 4, failures: 0 };
        }
        answer
    }

    /// What to expect of a seeder: lower is better.
    pub fn cost(&self, seeder: &SeederId) -> u64 {
        let paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.get(seeder).copied().unwrap_or_default();
        pace.ms.saturating_add(u64::from(pace.failures).saturating_mul(10_000))
    }

    /// A seeder that was caught with wrong bytes is asked last.
    pub fn distrust(&self, seeder: &SeederId) {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        paces.entry(*seeder).or_default().failures += 100;
    }
}

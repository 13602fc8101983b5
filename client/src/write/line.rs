//! One seeder's queue, and how the stripes in it settle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes as Payload, BytesMut};
use tallow_seal::repair::SlotSet;
use tallow_types::codec::Bounded;
use tallow_types::commit::Leaf;
use tallow_types::fault::{Code, Fault};
use tallow_types::id::Digest;
use tallow_types::limits::{BATCH_SLICES_MAX, FRAME_PAYLOAD_MAX};
use tallow_types::wire::{Request, Response};
use tokio::sync::{Semaphore, mpsc, watch};

use super::cell::{Cell, Failure, State};
use super::uplink::Uplink;
use crate::error::Blame;
use crate::seats::Seat;
use crate::stripes::Row;

/// Requests to one seeder under way at once.
const LINE_WIDTH: usize = 2;

/// One seeder's queue.
pub(crate) struct Line {
    pub seat: Seat,
    pub queue: mpsc::UnboundedSender<Job>,
    pub out: watch::Sender<Option<String>>,
}

impl Line {
    pub fn is_in(&self) -> bool {
        self.out.borrow().is_none()
    }
}

pub(crate) struct Job {
    pub flight: Arc<Flight>,
    pub leaf: Leaf,
    /// Holds the memory of the whole stripe until the last of its slices is done with.
    pub bytes: Payload,
}

#[derive(Default, Clone)]
pub(crate) struct Tally {
    pub acknowledged: SlotSet,
    pub failed: Vec<Blame>,
    pub asked: usize,
    /// Those who were asked.
    pub slots: SlotSet,
}

/// A coded stripe on its way.
pub(crate) struct Flight {
    pub digest: Option<Digest>,
    pub tally: watch::Sender<Tally>,
}

impl Flight {
    pub fn fail(&self, seat: &Seat, reason: &str) {
        self.tally.send_modify(|tally| tally.failed.push(seat.blame(reason)));
    }
}

/// Waits for the answers to one stripe and decides how it ends.
pub(crate) async fn settle(uplink: Arc<Uplink>, cell: Arc<Cell>, flight: Arc<Flight>, mut row: Row) {
    let quorum = usize::from(uplink.setup.profile.quorum());
    let mut tally = flight.tally.subscribe();
    let started = tokio::time::Instant::now();
    // Before it is decided nobody is late: all may share a slow line, and a call in which nothing moves ends by itself.
    let mut deadline: Option<tokio::time::Instant> = None;
    let mut is_late = false;
    let state = loop {
        let now = tally.borrow_and_update().clone();
        let (have, failed) = (usize::from(now.acknowledged.len()), now.failed.len());
        if have + failed >= now.asked || is_late && have >= quorum {
            break finish(&uplink, now, &mut row);
        }
        if is_late {
            break finish(&uplink, now, &mut row);
        }
        if have >= quorum || now.asked.saturating_sub(failed) < quorum {
            // It is decided. Slow disks and slow lines get as long again as the others took.
            let fair = tokio::time::Instant::now() + uplink.setup.straggler.max(started.elapsed());
            deadline = Some(deadline.map_or(fair, |deadline| deadline.min(fair)));
        }
        let changed = async {
            match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, tally.changed()).await.is_ok(),
                None => tally.changed().await.is_ok(),
            }
        };
        if !changed.await {
            if !*uplink.open.borrow() {
                // Nothing can arrive while the lease is gone.
                let mut open = uplink.open.subscribe();
                tokio::select! {
                    _ = async { open.wait_for(|open| *open).await.is_ok() } => {}
                    _ = async { cell.settled().await } => return,
                }
                deadline = None;
                continue;
            }
            is_late = true;
            for seat in uplink.seats().into_iter().filter(|seat| tally.borrow().slots.contains(seat.slot)) {
                let now = flight.tally.borrow().clone();
                let answered = now.acknowledged.contains(seat.slot)
                    || now.failed.iter().any(|blame| blame.slot == seat.slot.get());
                if !answered {
                    uplink.drop_out(seat.slot, "too slow: the others had long answered");
                }
            }
        }
    };
    if matches!(state, State::Failed(_)) {
        uplink.free_room(&cell);
    }
    cell.set(state);
    uplink.ended.send_modify(|count| *count += 1);
}

fn finish(uplink: &Uplink, tally: Tally, row: &mut Row) -> State {
    let (have, need) = (usize::from(tally.acknowledged.len()), usize::from(uplink.setup.profile.quorum()));
    if have < need {
        let mut failed = tally.failed;
        for blame in uplink.lost() {
            if !failed.iter().any(|known| known.slot == blame.slot) {
                failed.push(blame);
            }
        }
        return State::Failed(Failure::TooFew { have, need, failed });
    }
    row.present = tally.acknowledged;
    State::Settled(Arc::new(row.clone()))
}

/// Sends what is queued for one seeder, small slices together, a few requests at once.
pub(crate) async fn run_line(uplink: Arc<Uplink>, line: Arc<Line>, mut jobs: mpsc::UnboundedReceiver<Job>) {
    let width = Arc::new(Semaphore::new(LINE_WIDTH));
    let mut carried = None;
    loop {
        let first = match carried.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let Ok(turn) = width.clone().acquire_owned().await else { return };
        let mut bytes = first.bytes.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_SLICES_MAX {
            let Ok(job) = jobs.try_recv() else { break };
            if bytes + job.bytes.len() > FRAME_PAYLOAD_MAX {
                carried = Some(job);
                break;
            }
            bytes += job.bytes.len();
            batch.push(job);
        }
        let (owner, uplink, line) = (uplink.clone(), uplink.clone(), line.clone());
        owner.spawn(async move {
            let mut out = line.out.subscribe();
            let reason = tokio::select! {
                reason = out.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
                sent = send_batch(&uplink, &line, &batch) => sent.err().map(|fault| fault.to_string()),
            };
            if let Some(reason) = reason {
                uplink.drop_out(line.seat.slot, &reason);
                batch.iter().for_each(|job| job.flight.fail(&line.seat, &reason));
            }
            drop(turn);
        });
    }
}

async fn send_batch(uplink: &Uplink, line: &Line, batch: &[Job]) -> Result<(), Fault> {
    let seat = &line.seat;
    let payload = match batch {
        [only] => only.bytes.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(|job| job.bytes.len()).sum());
            many.iter().for_each(|job| all.extend_from_slice(&job.bytes));
            all.freeze()
        }
    };
    let slices = Bounded::new(batch.iter().map(|job| job.leaf).collect()).unwrap_or_default();
    let request = Request::Store { contract: uplink.setup.contract, slot: seat.slot, slices };
    store(uplink, seat, &request, payload).await?;
    for job in batch {
        let bytes = u64::from(job.leaf.length);
        uplink.stored.fetch_add(bytes, Ordering::Relaxed);
        uplink.tell(|progress| progress.acknowledged(seat.slot, &seat.seeder, bytes));
        if let Some(digest) = job.flight.digest {
            uplink.journal.note((digest, seat.slot, seat.seeder));
        }
        job.flight.tally.send_modify(|tally| tally.acknowledged.insert(seat.slot));
    }
    Ok(())
}

/// One `Store`, repeated while that can help.
async fn store(uplink: &Uplink, seat: &Seat, request: &Request, payload: Payload) -> Result<(), Fault> {
    let mut deadline = tokio::time::Instant::now() + uplink.setup.patience;
    let mut pause = Duration::from_millis(20);
    let mut unreachable = 0;
    loop {
        if !*uplink.open.borrow() {
            let mut open = uplink.open.subscribe();
            // Ends too when this seeder drops out, or the uplink stops.
            let _is_open = open.wait_for(|open| *open).await.is_ok();
            deadline = tokio::time::Instant::now() + uplink.setup.patience;
        }
        let bytes = payload.len() as u64;
        uplink.tell(|progress| progress.moved(seat.slot, &seat.seeder, bytes));
        let fault = match uplink.setup.caller.call(seat, request.clone(), payload.clone()).await {
            Ok(reply) if reply.response == Response::Stored => return Ok(()),
            Ok(_) => Fault::new(Code::Garbage, "an answer of another kind"),
            Err(fault) => fault,
        };
        match fault.code() {
            Code::Fenced | Code::Forbidden => uplink.broken.send_modify(|count| *count += 1),
            Code::Unreachable => unreachable += 1,
            Code::Behind | Code::Busy | Code::Internal => {}
            _ => return Err(fault),
        }
        if unreachable > 2 || tokio::time::Instant::now() + pause >= deadline {
            return Err(fault);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

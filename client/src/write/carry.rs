//! How the tail of a commit gets to the seeders: ahead of the commit like other stripes, or, when it is one small stripe, with
//! it, in one round trip and one turn of their disks.
//!
//! Guarantees: whatever becomes of the commit, blobs in the tail's first stripe stay on their way, under the id that seeders
//! may know it by.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes as Payload;
use tallow_seal::repair::SlotSet;
use tallow_types::id::StripeId;
use tallow_types::unit::LeafIndex;

use super::cell::{Cell, Failure, State};
use super::commit::{Plan, Trouble, internal};
use super::committer::Committer;
use super::countersign::Verdict;
use super::packer::Closed;
use super::tail::Done;
use crate::error::SessionError;
use crate::stripes::Row;

/// Slices up to this length go with the commit that names them. Bytes.
const CARRIED_MAX: u32 = 256 << 10;

/// A small last stripe: it goes with the commit that names it.
pub(crate) struct Carried {
    pub closed: Closed,
    pub stripe: StripeId,
    pub slices: Vec<Payload>,
    pub row: Arc<Row>,
}

/// Stripes that seeders hold, with what the book is to say of them.
pub(crate) type Sent = Vec<(Arc<Cell>, Arc<Row>)>;

impl Committer {
    /// Sends a tail, or makes its one small stripe ready to go with the commit.
    pub async fn tail(&self, stripes: Vec<Done>) -> Result<(Sent, Option<Carried>), Trouble> {
        let is_small = |done: &Done| done.closed.stripe.layout().slice_len() <= CARRIED_MAX;
        match <[Done; 1]>::try_from(stripes) {
            Ok([done]) if is_small(&done) => {
                let carried = self.code_tail(done).await?;
                Ok((vec![(carried.closed.cell.clone(), carried.row.clone())], Some(carried)))
            }
            Ok(one) => Ok((self.send_tail(one.into()).await?, None)),
            Err(many) => Ok((self.send_tail(many).await?, None)),
        }
    }

    /// The stripes of a tail that comes to nothing. Blobs may lie in the first of them: it goes on, and a later commit takes it
    /// in as it is.
    fn set_aside(&self, tail: &[Arc<Cell>]) {
        let Some((first, records)) = tail.split_first() else { return };
        self.works.uplink.register(first);
        records.iter().for_each(|cell| self.works.uplink.give_up(cell));
    }

    /// Codes the one small stripe of a tail, to go with the commit that names it. Everybody who is asked to sign is taken to
    /// hold it: who does not sign does not hold the lane that the commit names.
    async fn code_tail(&self, Done { closed, stripe }: Done) -> Result<Carried, Trouble> {
        let (uplink, cell) = (self.works.uplink.clone(), closed.cell.clone());
        let present = uplink.seats().iter().map(|seat| seat.slot).collect();
        let coded = match uplink.take_room(&cell, closed.stripe.layout().slice_len()) {
            Err(failure) => Err(failure),
            Ok(()) => {
                let coding = tokio::task::spawn_blocking(move || {
                    let coded = uplink.code(&closed.stripe, Some(stripe), None);
                    coded.map(|coded| (closed, coded))
                });
                let coded = coding.await.unwrap_or_else(|error| Err(error.to_string()));
                coded.map_err(Failure::Internal)
            }
        };
        match coded {
            Ok((closed, coded)) => {
                let row = Arc::new(coded.row(present));
                Ok(Carried { closed, stripe, slices: coded.slices, row })
            }
            Err(failure) => {
                self.works.uplink.free_room(&cell);
                cell.set(State::Failed(failure.clone()));
                Err(Trouble::Final(failure.into()))
            }
        }
    }

    /// The tail of a commit that came to nothing.
    pub fn put_back(&mut self, plan: Plan) {
        let uplink = self.works.uplink.clone();
        let tail: Vec<_> = plan.tail.iter().map(|(cell, _)| cell.clone()).collect();
        self.set_aside(&tail);
        if let Some(Carried { closed, stripe, .. }) = plan.carried {
            // From here on it goes the way of other stripes, under the id that some seeders know it by.
            uplink.free_room(&closed.cell);
            self.shown.push((closed.cell.clone(), stripe));
            uplink.send_apart(closed, Some(stripe));
        }
    }

    async fn send_tail(&self, stripes: Vec<Done>) -> Result<Vec<(Arc<Cell>, Arc<Row>)>, Trouble> {
        let mut cells = Vec::with_capacity(stripes.len());
        for Done { closed, stripe } in stripes {
            cells.push(closed.cell.clone());
            self.works.uplink.send_apart(closed, Some(stripe));
        }
        let mut sent = Vec::with_capacity(cells.len());
        for cell in &cells {
            match self.settled_or_lost(cell).await {
                Some(State::Settled(row)) => sent.push((cell.clone(), row)),
                Some(State::Failed(Failure::Lost)) | None => {
                    self.set_aside(&cells);
                    return Err(Trouble::Again(SessionError::LeaseLost));
                }
                Some(State::Failed(failure)) => {
                    self.set_aside(&cells);
                    return Err(Trouble::Final(failure.into()));
                }
                Some(_) => return Err(internal("a stripe of records is in a commit already")),
            }
        }
        Ok(sent)
    }

    /// A stripe that went with its commit is held by those who signed, and by no others.
    pub fn tell_of_carried(&mut self, carried: &Carried, verdict: &Verdict) {
        let uplink = &self.works.uplink;
        let leaf = LeafIndex::new(self.book.leaves().get().saturating_sub(1));
        let signers: SlotSet = verdict.signatures.iter().map(|signature| signature.slot).collect();
        for slot in carried.row.present.iter().filter(|slot| !signers.contains(*slot)) {
            self.book.rows_mut().unmark_present(slot, &[(leaf, carried.row.stripe)]);
        }
        let bytes = u64::from(carried.row.slice_len);
        for signature in &verdict.signatures {
            uplink.stored.fetch_add(bytes, Ordering::Relaxed);
            uplink.tell(|progress| {
                progress.moved(signature.slot, &signature.seeder, bytes);
                progress.acknowledged(signature.slot, &signature.seeder, bytes);
            });
        }
    }
}

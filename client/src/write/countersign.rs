//! Countersignatures: showing a commit to every seeder that is in, with the slices of its last stripe if they are small,
//! and collecting what they sign.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Payload;
use tallow_types::codec::{Bounded, encode};
use tallow_types::commit::{CommitCertificate, Countersignature, LaneChange, Leaf, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::id::ChainId;
use tallow_types::limits::{COMMIT_CHANGES_MAX, COMMIT_SLICES_MAX, FRAME_HEADER_MAX, STAGE_PAGE_MAX};
use tallow_types::unit::{LeafIndex, SlotIndex};
use tallow_types::wire::{Request, Response};

use super::carry::Carried;
use super::lanes::{Standing, Trail, Way, path};
use super::uplink::Uplink;
use crate::book::Book;
use crate::error::Blame;
use crate::fetch::Fetcher;
use crate::gather::gather;
use crate::seats::Seat;
use crate::sync::whole_lane;

/// What one leaf takes in a message, and what everything but commits and leaves does. Bytes.
const LEAF_LEN: usize = 53;
const SPARE: usize = 4096;

/// Where the lanes of a contract stand under one lease.
pub(crate) struct Lanes {
    pub base: Option<SignedCommit>,
    pub made: Trail,
    standing: BTreeMap<SlotIndex, Standing>,
}

/// How a commit fared.
pub(crate) struct Verdict {
    pub signatures: Vec<Countersignature>,
    pub failed: Vec<Blame>,
    /// Somebody refused us as not the holder of the lease.
    pub is_broken: bool,
}

impl Verdict {
    /// Takes a countersignature. A slot counts once, however often its seeder was asked.
    fn add(&mut self, signature: Countersignature) {
        if self.signatures.iter().all(|known| known.slot != signature.slot) {
            self.signatures.push(signature);
        }
    }

    /// The certificate, for the ledger.
    pub fn certificate(&self, signed: &SignedCommit) -> Option<CommitCertificate> {
        let countersignatures = Bounded::new(self.signatures.clone())?;
        Some(CommitCertificate { signed: signed.clone(), countersignatures })
    }
}

impl Lanes {
    pub fn new(base: Option<SignedCommit>) -> Self {
        Self { base, made: Trail::default(), standing: BTreeMap::new() }
    }

    /// Says where a lane stands; until then it is asked.
    pub fn set(&mut self, slot: SlotIndex, standing: Standing) {
        self.standing.insert(slot, standing);
    }

    /// Whether a lane stood at the base when the lease began.
    pub fn is_at_base(&self, slot: SlotIndex) -> bool {
        matches!(self.standing.get(&slot), Some(Standing::Base))
    }

    fn base_leaves(&self) -> LeafIndex {
        self.base.as_ref().map_or(LeafIndex::ZERO, |signed| signed.commit.leaves)
    }

    /// Asks a seeder where its lane stands.
    pub async fn ask(&self, fetcher: &Fetcher, seat: &Seat) -> Option<Standing> {
        let request = Request::Lane { contract: fetcher.contract, slot: seat.slot };
        let reply = fetcher.caller.call(seat, request, Payload::new()).await;
        let newest = match reply {
            Ok(reply) => match reply.response {
                Response::Lane(lane) => lane.newest.map(|(signed, _)| signed),
                _ => return None,
            },
            // It has joined and signed nothing yet.
            Err(fault) if fault.code() == Code::NotFound => None,
            Err(_) => return None,
        };
        let hash = newest.as_ref().map(|signed| signed.commit.hash());
        if hash == self.base.as_ref().map(|signed| signed.commit.hash()) {
            return Some(Standing::Base);
        }
        if let Some(standing) = hash.and_then(|hash| self.made.standing(hash)) {
            return Some(standing);
        }
        let leaves = newest.map_or(LeafIndex::ZERO, |signed| signed.commit.leaves);
        whole_lane(fetcher, seat, leaves).await.map(Standing::Elsewhere)
    }

    /// Shows the last commit made to everybody who is in. Those who fail drop out.
    pub async fn countersign(
        &mut self,
        (fetcher, uplink): (&Fetcher, &Arc<Uplink>),
        network: &ChainId,
        (book, carried): (&Book, Option<&Carried>),
        waits: &Waits,
    ) -> Verdict {
        let quorum = usize::from(fetcher.profile.quorum());
        let seats = uplink.seats();
        let this: &Self = self;
        let calls = seats.iter().map(|seat| async move {
            let showing = Showing { fetcher, network, book, seat, carried, page: waits.page };
            match this.one(&showing, waits.patience).await {
                Ok(signature) => Ok((seat, signature)),
                Err(fault) => Err((seat, fault)),
            }
        });
        let answers = gather(calls, quorum, waits.straggler).await;
        let mut verdict = Verdict { signatures: Vec::new(), failed: Vec::new(), is_broken: false };
        let mut done = Vec::new();
        for answer in answers {
            match answer {
                Ok((seat, signature)) => {
                    done.push(seat.slot);
                    verdict.add(signature);
                }
                Err((seat, fault)) => {
                    done.push(seat.slot);
                    verdict.is_broken |= matches!(fault.code(), Code::Fenced | Code::Forbidden);
                    verdict.failed.push(seat.blame(fault.to_string()));
                    uplink.drop_out(seat.slot, &fault.to_string());
                }
            }
        }
        for signature in &verdict.signatures {
            self.standing.insert(signature.slot, Standing::Signed(self.made.count()));
        }
        for seat in seats.iter().filter(|seat| !done.contains(&seat.slot)) {
            // It may have signed and be slow to say so: it is asked again when its turn comes.
            self.standing.remove(&seat.slot);
            verdict.failed.push(seat.blame("slow to countersign"));
        }
        verdict
    }

    async fn one(&self, showing: &Showing<'_>, patience: Duration) -> Result<Countersignature, Fault> {
        let (fetcher, seat) = (showing.fetcher, showing.seat);
        let unknown = || Fault::new(Code::Unreachable, "it does not tell where its lane stands");
        let mut standing = match self.standing.get(&seat.slot) {
            Some(standing) => standing.clone(),
            None => self.ask(fetcher, seat).await.ok_or_else(unknown)?,
        };
        let deadline = tokio::time::Instant::now() + patience;
        let mut asked_again = false;
        loop {
            let target = |from| showing.book.leaves_from(seat.slot, from);
            let way = match path(&standing, self.base_leaves(), &self.made, target) {
                None if matches!(standing, Standing::Base) => {
                    // More commits behind than are remembered: it may leave the base behind, too.
                    let leaves = whole_lane(fetcher, seat, self.base_leaves()).await.ok_or_else(unknown)?;
                    path(&Standing::Elsewhere(leaves), self.base_leaves(), &self.made, target)
                }
                way => way,
            };
            let way = way.ok_or_else(|| Fault::new(Code::WrongCommit, "its lane is too far behind"))?;
            let fault = match showing.show(way).await {
                Ok(signature) => return Ok(signature),
                Err(fault) => fault,
            };
            match fault.code() {
                Code::Behind | Code::Busy if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Code::WrongCommit | Code::Unreachable if !asked_again => {
                    asked_again = true;
                    standing = self.ask(fetcher, seat).await.ok_or(fault)?;
                }
                _ => return Err(fault),
            }
        }
    }
}

/// How long to wait for whom, and how much to show at once.
pub(crate) struct Waits {
    pub straggler: Duration,
    pub patience: Duration,
    /// Leaves in one message.
    pub page: usize,
}

/// One commit shown to one seeder.
struct Showing<'a> {
    fetcher: &'a Fetcher,
    network: &'a ChainId,
    book: &'a Book,
    seat: &'a Seat,
    carried: Option<&'a Carried>,
    page: usize,
}

impl Showing<'_> {
    /// Shows what leads there, in pages first if it is long, and checks the answer.
    async fn show(&self, way: Way) -> Result<Countersignature, Fault> {
        let Way { chain, keep, dropped, mut appended } = way;
        let malformed = || Fault::new(Code::Internal, "a commit that no message can show");
        let commit = chain.last().map(|signed| signed.commit.clone()).ok_or_else(malformed)?;
        let other = chain.iter().map(|signed| encode(signed).len()).sum::<usize>() + 8 * dropped.len();
        let fits = FRAME_HEADER_MAX.saturating_sub(other + SPARE) / LEAF_LEN;
        let direct = appended.len().min(self.page).min(fits).min(COMMIT_CHANGES_MAX);
        let last = appended.split_off(appended.len() - direct);
        let staged = !appended.is_empty();
        self.stage(keep, &appended).await?;
        let change = LaneChange {
            keep,
            dropped: Bounded::new(dropped).ok_or_else(malformed)?,
            appended: Bounded::new(last).ok_or_else(malformed)?,
        };
        let (slices, payload) = self.carried(&change);
        let (slot, chain) = (self.seat.slot, Bounded::new(chain).ok_or_else(malformed)?);
        let request = if staged || !slices.is_empty() {
            Request::Commit { slot, chain, change, staged, slices }
        } else {
            Request::Countersign { slot, chain, change }
        };
        match self.fetcher.caller.call(self.seat, request, payload).await?.response {
            Response::Countersigned { signature }
                if signature.slot == slot
                    && signature.seeder == self.seat.seeder
                    && signature.verify(self.network, &commit).is_ok() =>
            {
                Ok(signature)
            }
            _ => Err(Fault::new(Code::Garbage, "its countersignature is not valid")),
        }
    }

    async fn stage(&self, keep: LeafIndex, leaves: &[Option<Leaf>]) -> Result<(), Fault> {
        let mut from = keep.get();
        for page in leaves.chunks(self.page.clamp(1, STAGE_PAGE_MAX)) {
            let (contract, slot) = (self.fetcher.contract, self.seat.slot);
            let page_from = LeafIndex::new(from);
            let leaves = Bounded::new(page.to_vec()).unwrap_or_default();
            let request = Request::Stage { contract, slot, keep, from: page_from, leaves };
            match self.fetcher.caller.call(self.seat, request, Payload::new()).await?.response {
                Response::Staged => from += page.len() as u64,
                _ => return Err(Fault::new(Code::Garbage, "an answer of another kind")),
            }
        }
        Ok(())
    }

    /// The slice that goes with this change, unless the lane has it by now.
    fn carried(&self, change: &LaneChange) -> (Bounded<Leaf, COMMIT_SLICES_MAX>, Payload) {
        let at = usize::from(self.seat.slot.get());
        let carried = self.carried.and_then(|carried| {
            let leaf =
                carried.row.leaf(self.seat.slot).filter(|leaf| change.appended.contains(&Some(*leaf)))?;
            Some((Bounded::new(vec![leaf])?, carried.slices.get(at)?.clone()))
        });
        carried.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tallow_types::id::{SeederId, Signature};

    use super::*;

    /// Goal: nobody counts twice towards an acknowledgement. Method: the same slot again, by the same and by another seeder.
    #[test]
    fn slots_count_once() {
        let mut verdict = Verdict { signatures: Vec::new(), failed: Vec::new(), is_broken: false };
        let signature = |slot, seeder| Countersignature {
            slot: SlotIndex::new(slot),
            seeder: SeederId::new([seeder; 32]),
            signature: Signature::new([0; 64]),
        };
        for (slot, seeder) in [(0, 0), (1, 1), (0, 0), (1, 2), (2, 2)] {
            verdict.add(signature(slot, seeder));
        }
        let slots: Vec<u8> = verdict.signatures.iter().map(|signature| signature.slot.get()).collect();
        assert_eq!(slots, [0, 1, 2]);
    }
}

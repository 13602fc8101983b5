//! Countersignatures: showing a commit to every seeder that is in, and collecting what they sign.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes as Payload;
use tallow_types::codec::Bounded;
use tallow_types::commit::{CommitCertificate, Countersignature, LaneChange, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::id::{ChainId, ContractId};
use tallow_types::unit::{LeafIndex, SlotIndex};
use tallow_types::wire::{Request, Response};

use super::lanes::{Standing, Trail, path};
use super::uplink::Uplink;
use crate::book::Book;
use crate::error::Blame;
use crate::fetch::Fetcher;
use crate::gather::gather;
use crate::seats::{Caller, Seat};
use crate::sync::whole_lane;

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
        book: &Book,
        (straggler, patience): (Duration, Duration),
    ) -> Verdict {
        let quorum = usize::from(fetcher.profile.quorum());
        let seats = uplink.seats();
        let this: &Self = self;
        let calls = seats.iter().map(|seat| async move {
            match this.one(fetcher, network, book, seat, patience).await {
                Ok(signature) => Ok((seat, signature)),
                Err(fault) => Err((seat, fault)),
            }
        });
        let answers = gather(calls, quorum, straggler).await;
        let mut verdict = Verdict { signatures: Vec::new(), failed: Vec::new(), is_broken: false };
        let mut done = Vec::new();
        for answer in answers {
            match answer {
                Ok((seat, signature)) => {
                    done.push(seat.slot);
                    verdict.signatures.push(signature);
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

    async fn one(
        &self,
        fetcher: &Fetcher,
        network: &ChainId,
        book: &Book,
        seat: &Seat,
        patience: Duration,
    ) -> Result<Countersignature, Fault> {
        let unknown = || Fault::new(Code::Unreachable, "it does not tell where its lane stands");
        let mut standing = match self.standing.get(&seat.slot) {
            Some(standing) => standing.clone(),
            None => self.ask(fetcher, seat).await.ok_or_else(unknown)?,
        };
        let target = book.lane(seat.slot);
        let target = target.map_err(|_| Fault::new(Code::Internal, "a root of its lane is not known"))?;
        let deadline = tokio::time::Instant::now() + patience;
        let mut asked_again = false;
        loop {
            let Some((chain, change)) = path(&standing, self.base_leaves(), &self.made, &target) else {
                return Err(Fault::new(Code::WrongCommit, "its lane is too far behind"));
            };
            let fault = match sign(&fetcher.caller, fetcher.contract, seat, chain, change, network).await {
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

async fn sign(
    caller: &Caller,
    contract: ContractId,
    seat: &Seat,
    chain: Vec<SignedCommit>,
    change: LaneChange,
    network: &ChainId,
) -> Result<Countersignature, Fault> {
    let malformed = || Fault::new(Code::Internal, "a chain of too many commits");
    let commit = chain.last().map(|signed| signed.commit.clone()).ok_or_else(malformed)?;
    debug_assert_eq!(commit.contract, contract);
    let chain = Bounded::new(chain).ok_or_else(malformed)?;
    let request = Request::Countersign { slot: seat.slot, chain, change };
    match caller.call(seat, request, Payload::new()).await?.response {
        Response::Countersigned { signature }
            if signature.slot == seat.slot
                && signature.seeder == seat.seeder
                && signature.verify(network, &commit).is_ok() =>
        {
            Ok(signature)
        }
        _ => Err(Fault::new(Code::Garbage, "its countersignature is not valid")),
    }
}

//! Fetching: ranges of slices from the fastest holders, any k of them, put together and opened.
//!
//! A read first trusts what comes and lets the chunks' own authentication judge. Only if a chunk does not open are whole
//! slices fetched, checked against their roots, and those who lied named and left out. So garbage, truncated, overlong
//! and missing answers are survived while k good slices can be had.
//!
//! Guarantees: what is returned opened under the account's keys, and is the chunk its id names; memory is bounded by the
//! ranges asked for, n/k times that in the fallback.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes as Payload;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tallow_proofs::slice;
use tallow_seal::chunk::{ChunkRef, open};
use tallow_seal::head::HeadRef;
use tallow_seal::keys::{ChunkKeys, ContractKeys};
use tallow_seal::stripe::{Layout, Piece};
use tallow_types::id::{ContractId, SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;
use tallow_types::wire::{Request, Response};

use crate::error::{Blame, SessionError};
use crate::progress::Progress;
use crate::seats::{Caller, Seat};
use crate::stripes::Row;

/// A stripe to read from.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub stripe: StripeId,
    pub slice_len: u32,
    /// Roots by slot, as far as they are known.
    pub roots: Vec<Option<SliceRoot>>,
}

impl Place {
    fn root(&self, slot: SlotIndex) -> Option<SliceRoot> {
        self.roots.get(usize::from(slot.get())).copied().flatten()
    }
}

impl From<&Row> for Place {
    fn from(row: &Row) -> Self {
        Self { stripe: row.stripe, slice_len: row.slice_len, roots: row.roots.clone() }
    }
}

impl From<&HeadRef> for Place {
    fn from(head: &HeadRef) -> Self {
        Self { stripe: head.stripe, slice_len: head.slice_len, roots: Vec::new() }
    }
}

/// Under which keys a chunk is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Catalog,
    Repair,
}

/// The same columns of some slices, unmasked, by slot.
pub(crate) type Columns = BTreeMap<SlotIndex, Vec<u8>>;

/// Reads stripes of one contract from its seeders.
pub(crate) struct Fetcher {
    pub caller: Arc<Caller>,
    pub contract: ContractId,
    pub profile: Profile,
    pub keys: Arc<ContractKeys>,
    pub seats: Vec<Seat>,
    pub hedge_after: Duration,
    pub progress: Arc<dyn Progress>,
    /// Who answered wrongly or not at all, each once.
    pub bad: Mutex<BTreeMap<SlotIndex, Blame>>,
}

impl Fetcher {
    fn keys(&self, under: Under) -> &ChunkKeys {
        match under {
            Under::Catalog => &self.keys.catalog,
            Under::Repair => &self.keys.repair,
        }
    }

    fn blame(&self, blame: Blame) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.entry(SlotIndex::new(blame.slot)).or_insert(blame);
    }

    /// Who was done without so far.
    pub fn blames(&self) -> Vec<Blame> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One range of one slice, still masked.
    async fn masked(&self, seat: &Seat, place: &Place, offset: u32, length: u32) -> Result<Payload, Blame> {
        let request =
            Request::Read { contract: self.contract, slot: seat.slot, stripe: place.stripe, offset, length };
        let reply = match self.caller.call(seat, request, Payload::new()).await {
            Ok(reply) => reply,
            Err(fault) => return Err(seat.blame(fault.to_string())),
        };
        if !matches!(reply.response, Response::Read) || reply.payload.len() != length as usize {
            self.caller.distrust(&seat.seeder);
            let found = reply.payload.len();
            return Err(seat.blame(format!("sent {found} bytes where {length} were asked for")));
        }
        self.progress.moved(seat.slot, &seat.seeder, u64::from(length));
        Ok(reply.payload)
    }

    async fn unmasked(
        &self,
        seat: &Seat,
        place: &Place,
        (offset, length): (u32, u32),
    ) -> Result<Vec<u8>, Blame> {
        let mut bytes = Vec::from(self.masked(seat, place, offset, length).await?);
        self.keys.mask.stripe(&place.stripe).apply(seat.slot, offset, &mut bytes);
        Ok(bytes)
    }

    /// Seats in the order in which to ask them: those whose slice can be checked, fast ones first, data slots before
    /// parity among equals.
    fn ranked(&self, place: &Place, without: &BTreeSet<SlotIndex>) -> Vec<&Seat> {
        let mut seats: Vec<&Seat> = self.seats.iter().filter(|seat| !without.contains(&seat.slot)).collect();
        let is_unknown = |seat: &Seat| place.root(seat.slot).is_none();
        seats.sort_by_key(|seat| (is_unknown(seat), self.caller.cost(&seat.seeder) / 100, seat.slot));
        seats
    }

    /// The same range of k slices. Asks k seats, one more for each that fails, and one more whenever none has answered for
    /// a while.
    async fn columns(
        &self,
        place: &Place,
        range: (u32, u32),
        without: &BTreeSet<SlotIndex>,
    ) -> Result<Columns, Vec<Blame>> {
        let need = usize::from(self.profile.data());
        let mut waiting = self.ranked(place, without).into_iter();
        let mut running = FuturesUnordered::new();
        let ask = |seat: &'_ Seat| {
            let seat = seat.clone();
            async move { (seat.slot, self.unmasked(&seat, place, range).await) }
        };
        running.extend(waiting.by_ref().take(need).map(ask));
        let (mut found, mut failed) = (Columns::new(), Vec::new());
        while found.len() < need {
            match tokio::time::timeout(self.hedge_after, running.next()).await {
                Ok(Some((slot, Ok(bytes)))) => drop(found.insert(slot, bytes)),
                Ok(Some((_, Err(blame)))) => {
                    self.blame(blame.clone());
                    failed.push(blame);
                    running.extend(waiting.next().map(ask));
                }
                Ok(None) => return Err(failed),
                Err(_) => running.extend(waiting.next().map(ask)),
            }
        }
        Ok(found)
    }

    /// A range of the stream, not yet judged. Only the pieces touched are fetched.
    async fn stream(
        &self,
        place: &Place,
        (offset, len): (u32, u32),
        without: &BTreeSet<SlotIndex>,
    ) -> Result<Vec<u8>, SessionError> {
        let damaged = |error: tallow_seal::stripe::LayoutError| SessionError::Damaged {
            what: format!("stripe {}", place.stripe.short()),
            reason: error.to_string(),
        };
        let layout = Layout::from_slice_len(self.profile, place.slice_len).map_err(damaged)?;
        let spans = layout.spans(offset, len).map_err(damaged)?;
        let first = spans.iter().map(|piece| piece.offset).min().unwrap_or(0);
        let end = spans.iter().map(|piece| piece.offset + piece.len).max().unwrap_or(0);
        let columns = match self.direct(place, &spans, without).await {
            Some(given) => {
                let given: Vec<(Piece, &[u8])> =
                    spans.iter().copied().zip(given.iter().map(Vec::as_slice)).collect();
                return layout.gather_range(offset, len, &given).map_err(damaged);
            }
            None => self.columns(place, (first, end - first), without).await,
        };
        let columns = columns.map_err(|failed| self.unreadable(place, &failed))?;
        let data = self.decode(&columns, end - first)?;
        let given: Vec<(Piece, &[u8])> = self
            .profile
            .slot_indices()
            .zip(&data)
            .map(|(slot, bytes)| (Piece { slot, offset: first, len: end - first }, bytes.as_slice()))
            .collect();
        layout.gather_range(offset, len, &given).map_err(damaged)
    }

    /// A short range that lies in fewer than k data slices: just those, if they answer in time.
    async fn direct(
        &self,
        place: &Place,
        spans: &[Piece],
        without: &BTreeSet<SlotIndex>,
    ) -> Option<Vec<Vec<u8>>> {
        if spans.len() >= usize::from(self.profile.data()) {
            return None;
        }
        let seats: Vec<&Seat> = spans
            .iter()
            .map(|span| {
                self.seats.iter().find(|seat| seat.slot == span.slot && !without.contains(&seat.slot))
            })
            .collect::<Option<_>>()?;
        let reads =
            seats.iter().zip(spans).map(|(seat, span)| self.unmasked(seat, place, (span.offset, span.len)));
        let reads = futures::future::try_join_all(reads);
        tokio::time::timeout(self.hedge_after, reads).await.ok()?.ok()
    }

    fn decode(&self, columns: &Columns, len: u32) -> Result<Vec<Vec<u8>>, SessionError> {
        let present: Vec<_> = columns.iter().map(|(slot, bytes)| (*slot, bytes.as_slice())).collect();
        let mut data = vec![vec![0; len as usize]; usize::from(self.profile.data())];
        let mut out: Vec<&mut [u8]> = data.iter_mut().map(Vec::as_mut_slice).collect();
        tallow_erasure::codec(self.profile)
            .decode(&present, &mut out)
            .map_err(|error| SessionError::Internal(error.to_string()))?;
        Ok(data)
    }

    fn unreadable(&self, place: &Place, failed: &[Blame]) -> SessionError {
        let mut blames = failed.to_vec();
        let held: BTreeSet<u8> = self.seats.iter().map(|seat| seat.slot.get()).collect();
        for slot in self.profile.slot_indices().map(SlotIndex::get).filter(|slot| !held.contains(slot)) {
            blames.push(Blame { slot, seeder: "vacant".into(), reason: "nobody holds it".into() });
        }
        SessionError::Unreadable {
            what: format!("stripe {}", place.stripe.short()),
            have: usize::from(self.profile.slots()).saturating_sub(blames.len()),
            need: usize::from(self.profile.data()),
            failed: blames,
        }
    }

    /// k whole slices with the right roots, unmasked. Names those that are wrong.
    pub async fn verified(
        &self,
        place: &Place,
        without: &BTreeSet<SlotIndex>,
    ) -> Result<Columns, SessionError> {
        let need = usize::from(self.profile.data());
        let ask = |seat: &'_ Seat| {
            let seat = seat.clone();
            async move { (seat.clone(), self.masked(&seat, place, 0, place.slice_len).await) }
        };
        let mut waiting = self.ranked(place, without).into_iter();
        let mut running: FuturesUnordered<_> = waiting.by_ref().take(need).map(ask).collect();
        let (mut found, mut failed) = (Columns::new(), Vec::new());
        while found.len() < need {
            let Some((seat, answer)) = running.next().await else {
                return Err(self.unreadable(place, &failed));
            };
            let known = place.root(seat.slot);
            let judged = answer.and_then(|bytes| {
                if known.is_some_and(|root| slice::root(&bytes) != root) {
                    self.caller.distrust(&seat.seeder);
                    return Err(seat.blame("sent a slice that is not the one it signed for"));
                }
                Ok(bytes)
            });
            match judged {
                Ok(bytes) => {
                    let mut bytes = Vec::from(bytes);
                    self.keys.mask.stripe(&place.stripe).apply(seat.slot, 0, &mut bytes);
                    found.insert(seat.slot, bytes);
                }
                Err(blame) => {
                    self.blame(blame.clone());
                    failed.push(blame);
                    running.extend(waiting.next().map(ask));
                }
            }
        }
        Ok(found)
    }

    /// Chunks of one stripe, opened. They may lie anywhere in it; what is between them is fetched too, so callers ask for
    /// neighbours.
    pub async fn chunks(
        &self,
        place: &Place,
        refs: &[ChunkRef],
        under: Under,
    ) -> Result<Vec<Vec<u8>>, SessionError> {
        let Some(first) = refs.iter().map(|chunk| chunk.offset).min() else { return Ok(Vec::new()) };
        let end = refs.iter().map(|chunk| chunk.offset + chunk.sealed_len).max().unwrap_or(first);
        let bytes = self.stream(place, (first, end - first), &BTreeSet::new()).await?;
        if let Ok(plain) = self.open_all(refs, &bytes, first, under) {
            return Ok(plain);
        }
        let columns = self.verified(place, &BTreeSet::new()).await?;
        let data = self.decode(&columns, place.slice_len)?;
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let layout = Layout::from_slice_len(self.profile, place.slice_len);
        let stream = layout.and_then(|layout| layout.gather(&slices));
        let stream = stream.map_err(|error| SessionError::Internal(error.to_string()))?;
        self.open_all(refs, &stream, 0, under).map_err(|error| SessionError::Damaged {
            what: format!("stripe {}", place.stripe.short()),
            reason: error.to_string(),
        })
    }

    fn open_all(
        &self,
        refs: &[ChunkRef],
        bytes: &[u8],
        first: u32,
        under: Under,
    ) -> Result<Vec<Vec<u8>>, tallow_seal::chunk::OpenError> {
        refs.iter()
            .map(|chunk| {
                let begin = (chunk.offset - first) as usize;
                let sealed = bytes.get(begin..begin + chunk.sealed_len as usize).unwrap_or_default();
                open(self.keys(under), chunk, sealed)
            })
            .collect()
    }

    /// One chunk by a head reference.
    pub async fn chunk(
        &self,
        head: &HeadRef,
        roots: Option<&Row>,
        under: Under,
    ) -> Result<Vec<u8>, SessionError> {
        let place = roots.map_or_else(|| Place::from(head), Place::from);
        let mut found = self.chunks(&place, &[head.chunk], under).await?;
        found.pop().ok_or_else(|| SessionError::Internal("no chunk came back".into()))
    }

    /// All n roots of a stripe, by making its slices again from k good ones.
    pub async fn all_roots(&self, place: &Place) -> Result<Vec<SliceRoot>, SessionError> {
        let columns = self.verified(place, &BTreeSet::new()).await?;
        let wanted: Vec<SlotIndex> = self.profile.slot_indices().collect();
        let slices = self.recreate(place, &columns, &wanted)?;
        Ok(slices.iter().map(|bytes| slice::root(bytes)).collect())
    }

    /// Slices of some slots, masked, from k good ones.
    pub fn recreate(
        &self,
        place: &Place,
        columns: &Columns,
        wanted: &[SlotIndex],
    ) -> Result<Vec<Vec<u8>>, SessionError> {
        let present: Vec<_> = columns.iter().map(|(slot, bytes)| (*slot, bytes.as_slice())).collect();
        let mut slices = vec![vec![0; place.slice_len as usize]; wanted.len()];
        let mut out: Vec<&mut [u8]> = slices.iter_mut().map(Vec::as_mut_slice).collect();
        tallow_erasure::codec(self.profile)
            .recreate(&present, wanted, &mut out)
            .map_err(|error| SessionError::Internal(error.to_string()))?;
        let mask = self.keys.mask.stripe(&place.stripe);
        for (slot, bytes) in wanted.iter().zip(&mut slices) {
            mask.apply(*slot, 0, bytes);
        }
        Ok(slices)
    }
}

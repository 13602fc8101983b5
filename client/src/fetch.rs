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
use tallow_seal::chunk::ChunkRef;
use tallow_seal::head::HeadRef;
use tallow_seal::keys::ContractKeys;
use tallow_seal::stripe::{Layout, Piece};
use tallow_types::id::{ContractId, SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::SlotIndex;
use tallow_types::wire::{Request, Response};
use tokio::time::Instant;

use crate::error::{Blame, SessionError};
use crate::hedge::Hedge;
use crate::progress::Progress;
use crate::seats::{Caller, Ranking, Seat};
use crate::stripes::Row;
use crate::unpack::{Given, Unpack};

pub(crate) use crate::unpack::Under;

/// Chunks up to this length are opened where they arrive: moving them to another thread would take as long. Bytes.
const COMPUTED_HERE_MAX: u32 = 64 << 10;

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

    fn damaged(&self, reason: &dyn std::fmt::Display) -> SessionError {
        let what = format!("stripe {}", self.stripe.short());
        SessionError::Damaged { what, reason: reason.to_string() }
    }
}

/// Runs work for a processor: little at once, much on a thread that may take its time.
async fn computed<T: Send + 'static>(
    bytes: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SessionError> {
    if bytes <= COMPUTED_HERE_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SessionError::Internal(error.to_string()))
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

    /// Seats in the order in which to ask them for so many bytes each: those whose slice can be checked first, then as
    /// the caller ranks them.
    fn ranked(&self, place: &Place, bytes: u32, without: &BTreeSet<SlotIndex>) -> Ranking {
        let seats = self.seats.iter().filter(|seat| !without.contains(&seat.slot)).cloned().collect();
        let mut ranking = self.caller.rank(seats, bytes);
        ranking.seats.sort_by_key(|seat| place.root(seat.slot).is_none());
        ranking
    }

    /// A read of so many answers that should take as long as others took.
    fn hedge(&self, need: usize, usual: Option<Duration>) -> Hedge {
        Hedge::new(need, usual.unwrap_or(self.hedge_after))
    }

    /// The same range of k slices, masked. Asks k seats, one more for each that fails or whose bytes are judged to be
    /// wrong, and one more whenever some dawdle.
    async fn columns(
        &self,
        place: &Place,
        (offset, length): (u32, u32),
        without: &BTreeSet<SlotIndex>,
        judge: impl Fn(&Seat, &Payload) -> Result<(), Blame>,
    ) -> Result<Vec<(SlotIndex, Payload)>, SessionError> {
        let need = usize::from(self.profile.data());
        let Ranking { seats, usual } = self.ranked(place, length, without);
        let mut waiting = seats.iter();
        let ask = |seat: &'_ Seat| {
            let (seat, judge) = (seat.clone(), &judge);
            async move {
                let bytes = self.masked(&seat, place, offset, length).await?;
                judge(&seat, &bytes)?;
                Ok((seat.slot, bytes))
            }
        };
        let mut running: FuturesUnordered<_> = waiting.by_ref().take(need).map(ask).collect();
        let (mut given, mut failed) = (Vec::with_capacity(need), Vec::new());
        let (began, mut hedge) = (Instant::now(), self.hedge(need, usual));
        while given.len() < need {
            match tokio::time::timeout_at(began + hedge.due(), running.next()).await {
                Ok(Some(Ok(part))) => {
                    hedge.answered(began.elapsed());
                    given.push(part);
                }
                Ok(Some(Err(blame))) => {
                    self.blame(Blame::clone(&blame));
                    failed.push(blame);
                    running.extend(waiting.next().map(ask));
                }
                Ok(None) => return Err(self.unreadable(place, &failed)),
                Err(_) => {
                    hedge.spared();
                    running.extend(waiting.next().map(ask));
                }
            }
        }
        Ok(given)
    }

    /// What a range of the stream is made of, not yet judged.
    async fn range(&self, place: &Place, layout: Layout, range: (u32, u32)) -> Result<Given, SessionError> {
        let damaged = |error| place.damaged(&error);
        let pieces = layout.spans(range.0, range.1).map_err(damaged)?;
        let rows = layout.columns(range.0, range.1).map_err(damaged)?;
        let nobody = BTreeSet::new();
        let columns = self.columns(place, (rows.offset(), rows.len()), &nobody, |_, _| Ok(()));
        let columns = async { columns.await.map(Given::Columns) };
        let Some((direct, patience)) = self.direct(place, &pieces) else { return columns.await };
        let mut direct = std::pin::pin!(direct);
        match tokio::time::timeout(patience, &mut direct).await {
            Ok(Some(given)) => Ok(given),
            Ok(None) => columns.await,
            // Whichever is whole first.
            Err(_) => tokio::select! {
                Some(given) = &mut direct => Ok(given),
                given = columns => given,
            },
        }
    }

    /// For a short range, which lies in fewer than k data slices: just those, unless one of them is known to be slow; and
    /// how long to wait before k others are asked.
    fn direct<'a>(
        &'a self,
        place: &'a Place,
        pieces: &'a [Piece],
    ) -> Option<(impl Future<Output = Option<Given>> + 'a, Duration)> {
        let need = usize::from(self.profile.data());
        if pieces.len() >= need {
            return None;
        }
        let longest = pieces.iter().map(|piece| piece.len).max()?;
        let Ranking { seats, usual } = self.ranked(place, longest, &BTreeSet::new());
        let first = |slot| seats.iter().take(need).find(|seat| seat.slot == slot).cloned();
        let asked: Vec<Seat> = pieces.iter().map(|piece| first(piece.slot)).collect::<Option<_>>()?;
        let reads = asked.into_iter().zip(pieces).map(move |(seat, piece)| async move {
            let read = self.masked(&seat, place, piece.offset, piece.len).await;
            read.map(|bytes| (*piece, bytes)).map_err(|blame| self.blame(blame))
        });
        let reads = futures::future::try_join_all(reads);
        Some((async { reads.await.ok().map(Given::Pieces) }, self.hedge(pieces.len(), usual).due()))
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

    /// k whole slices with the right roots. Names those that are wrong.
    async fn whole(
        &self,
        place: &Place,
        without: &BTreeSet<SlotIndex>,
    ) -> Result<Vec<(SlotIndex, Payload)>, SessionError> {
        let judge = |seat: &Seat, bytes: &Payload| {
            if place.root(seat.slot).is_some_and(|root| slice::root(bytes) != root) {
                self.caller.distrust(&seat.seeder);
                return Err(seat.blame("sent a slice that is not the one it signed for"));
            }
            Ok(())
        };
        self.columns(place, (0, place.slice_len), without, judge).await
    }

    /// The same, unmasked.
    pub async fn verified(
        &self,
        place: &Place,
        without: &BTreeSet<SlotIndex>,
    ) -> Result<Columns, SessionError> {
        let mask = self.keys.mask.stripe(&place.stripe);
        let unmasked = self.whole(place, without).await?.into_iter().map(|(slot, bytes)| {
            let mut bytes = Vec::from(bytes);
            mask.apply(slot, 0, &mut bytes);
            (slot, bytes)
        });
        Ok(unmasked.collect())
    }

    /// [`Fetcher::payloads`] in memory of their own.
    pub async fn chunks(
        &self,
        place: &Place,
        refs: &[ChunkRef],
        under: Under,
    ) -> Result<Vec<Vec<u8>>, SessionError> {
        Ok(self.payloads(place, refs, under).await?.into_iter().map(Vec::from).collect())
    }

    /// Chunks of one stripe, opened. They may lie anywhere in it without overlapping; what is between them is fetched too,
    /// so callers ask for neighbours.
    pub async fn payloads(
        &self,
        place: &Place,
        refs: &[ChunkRef],
        under: Under,
    ) -> Result<Vec<Payload>, SessionError> {
        if refs.is_empty() {
            return Ok(Vec::new());
        }
        let layout = Layout::from_slice_len(self.profile, place.slice_len);
        let layout = layout.map_err(|error| place.damaged(&error))?;
        let (keys, refs) = (self.keys.clone(), refs.to_vec());
        let unpack =
            Arc::new(Unpack { keys, profile: self.profile, stripe: place.stripe, layout, under, refs });
        let given = self.range(place, layout, unpack.range()).await?;
        let (bytes, work) = (unpack.range().1, unpack.clone());
        if let Ok(plain) = computed(bytes, move || work.run(&given)).await? {
            return Ok(plain);
        }
        let slices = self.whole(place, &BTreeSet::new()).await?;
        let opened = computed(bytes, move || unpack.run_whole(slices)).await?;
        opened.map_err(|reason| place.damaged(&reason))
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

#[cfg(test)]
mod tests;

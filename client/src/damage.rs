//! What seeders say of their own disks: slices that they hold but can't give any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes as Payload;
use tallow_types::id::{ContractId, StripeId};
use tallow_types::unit::SlotIndex;
use tallow_types::wire::{Request, Response};

use crate::book::Book;
use crate::gather::gather;
use crate::seats::{Caller, Seat};

/// Stripes whose slices are damaged, by slot. Who does not tell in time, or knows no such question, is taken for whole:
/// reads show the rest.
pub(crate) async fn damaged(
    caller: &Caller,
    contract: ContractId,
    seats: &[Seat],
    straggler: Duration,
) -> BTreeMap<SlotIndex, BTreeSet<StripeId>> {
    let calls = seats.iter().map(|seat| async move {
        let request = Request::Damaged { contract, slot: seat.slot };
        match caller.call(seat, request, Payload::new()).await.map(|reply| reply.response) {
            Ok(Response::Damaged { stripes }) => Ok((seat.slot, stripes.iter().copied().collect())),
            _ => Err(()),
        }
    });
    let answers = gather(calls, seats.len().div_ceil(2), straggler).await;
    answers.into_iter().flatten().filter(|(_, stripes): &(_, BTreeSet<_>)| !stripes.is_empty()).collect()
}

/// What damage comes to in the stripes that a commit holds.
pub(crate) struct Harm {
    slices: BTreeMap<SlotIndex, u64>,
    /// Slices that are whole in the stripe that has the fewest, of those with damage.
    pub narrowest: u8,
}

impl Harm {
    pub fn new(book: &Book, told: BTreeMap<SlotIndex, BTreeSet<StripeId>>) -> Self {
        let mut harm = Self { slices: BTreeMap::new(), narrowest: u8::MAX };
        if told.is_empty() {
            return harm;
        }
        for row in book.rows.iter().filter_map(|(_, row)| row) {
            let is_harmed = |slot: &SlotIndex| row.present.contains(*slot);
            let slots = told.iter().filter(|(_, stripes)| stripes.contains(&row.stripe));
            let harmed: Vec<_> = slots.map(|(slot, _)| *slot).filter(is_harmed).collect();
            if !harmed.is_empty() {
                let lost = u8::try_from(harmed.len()).unwrap_or(u8::MAX);
                harm.narrowest = harm.narrowest.min(row.present.len().saturating_sub(lost));
            }
            for slot in harmed {
                *harm.slices.entry(slot).or_default() += 1;
            }
        }
        harm
    }

    pub fn slices_of(&self, slot: SlotIndex) -> u64 {
        self.slices.get(&slot).copied().unwrap_or_default()
    }
}

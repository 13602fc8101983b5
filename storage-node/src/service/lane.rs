//! Requests about lanes that a seeder holds.

use std::sync::Arc;

use bytes::Bytes;
use tallow_net::Reply;
use tallow_types::commit::{LaneChange, Leaf, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{COMMIT_CHAIN_MAX, COMMIT_SLICES_MAX, PAGE_MAX};
use tallow_types::wire::{Request, Response};
use tallow_types::{Bounded, PublicKey, SlotIndex};

use super::{StorageService, place};
use crate::seeder::{Asked, Seeder, blocking, fitted, storage, unread};
use crate::store::{LaneKey, Slice};

pub(super) async fn answer(
    service: &StorageService,
    from: PublicKey,
    request: Request,
    payload: Bytes,
) -> Result<Reply, Fault> {
    let seeder = service.seeder()?;
    match request {
        Request::Store { contract, slot, slices } => {
            let key = LaneKey { contract, slot };
            service
                .when_known(|| {
                    let (slices, payload) = (slices.clone(), payload.clone());
                    on_disk(service, seeder, move |seeder| {
                        // Who may not store shall not make this node hash.
                        seeder.check_writer(from, key)?;
                        seeder.put(from, key, cut(&slices, payload)?)
                    })
                })
                .await?;
            Ok(Response::Stored.into())
        }
        Request::Countersign { slot, chain, change } => {
            let asked = Message { chain, change, staged: false, slices: Bounded::empty() };
            countersign(service, seeder, from, slot, (asked, payload)).await
        }
        Request::Commit { slot, chain, change, staged, slices } => {
            let asked = Message { chain, change, staged, slices };
            countersign(service, seeder, from, slot, (asked, payload)).await
        }
        Request::Stage { contract, slot, keep, from: first, leaves } => {
            let key = LaneKey { contract, slot };
            let stage = || {
                let leaves = leaves.to_vec();
                on_disk(service, seeder, move |seeder| seeder.stage(from, key, (keep, first), leaves))
            };
            service.when_known(stage).await?;
            Ok(Response::Staged.into())
        }
        Request::Fence { contract, slot, lease } => {
            let key = LaneKey { contract, slot };
            let fence = || on_disk(service, seeder, move |seeder| seeder.fence(from, key, lease));
            let Some((fence, signature, lane)) = service.when_known(fence).await? else {
                let text =
                    "this seeder has no records of the lane; it counts when it has countersigned a base";
                return Err(Fault::new(Code::NotFound, text));
            };
            Ok(Response::Fenced { fence, signature, lane }.into())
        }
        Request::Lane { contract, slot } => {
            let key = LaneKey { contract, slot };
            Ok(Response::Lane(on_disk(service, seeder, move |seeder| seeder.lane_state(key)).await?).into())
        }
        Request::Commits { contract, slot, from } => {
            let key = LaneKey { contract, slot };
            let found =
                on_disk(service, seeder, move |seeder| seeder.look(key, |lane| Ok(lane.commits_from(&from))));
            Ok(Response::Commits { commits: fitted(found.await?) }.into())
        }
        Request::Leaves { contract, slot, from } => {
            let key = LaneKey { contract, slot };
            let look = move |seeder: &Seeder| {
                seeder.look(key, |lane| Ok(lane.leaves_from(from, 16 * PAGE_MAX).to_vec()))
            };
            Ok(Response::Leaves { leaves: fitted(on_disk(service, seeder, look).await?) }.into())
        }
        Request::Read { contract, slot, stripe, offset, length } => {
            let key = LaneKey { contract, slot }.slice(stripe);
            let read = move |seeder: &Seeder| seeder.store().read(&key, offset, length).map_err(unread);
            Ok(Reply::with(Response::Read, on_disk(service, seeder, read).await?))
        }
        Request::Damaged { contract, slot } => {
            let key = LaneKey { contract, slot };
            let look = move |seeder: &Seeder| seeder.store().damaged_of(key, 16 * PAGE_MAX).map_err(storage);
            Ok(Response::Damaged { stripes: fitted(on_disk(service, seeder, look).await?) }.into())
        }
        Request::Accept { terms, slot } => {
            let accepted = on_disk(service, seeder, move |seeder| seeder.accept(terms, slot)).await?;
            Ok(Response::Accepted(accepted).into())
        }
        _ => Err(Fault::new(Code::Internal, "a request went the wrong way")),
    }
}

/// Does work on the disk, in a place that is held no longer than that.
async fn on_disk<T: Send + 'static>(
    service: &StorageService,
    seeder: &Arc<Seeder>,
    work: impl FnOnce(&Seeder) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let _place = place(&service.disk)?;
    let seeder = seeder.clone();
    blocking(move || work(&seeder)).await
}

/// A request to countersign, with or without what comes before.
#[derive(Clone)]
struct Message {
    chain: Bounded<SignedCommit, COMMIT_CHAIN_MAX>,
    change: LaneChange,
    staged: bool,
    slices: Bounded<Leaf, COMMIT_SLICES_MAX>,
}

/// Once begun it runs to its end on its own thread, whether or not the caller still waits.
async fn countersign(
    service: &StorageService,
    seeder: &Arc<Seeder>,
    from: PublicKey,
    slot: SlotIndex,
    (message, payload): (Message, Bytes),
) -> Result<Reply, Fault> {
    let first = message.chain.first().map(|signed| signed.commit.contract);
    let contract = first.ok_or_else(|| Fault::new(Code::Malformed, "there is no commit"))?;
    let key = LaneKey { contract, slot };
    let sign = || {
        let (Message { chain, change, staged, slices }, payload) = (message.clone(), payload.clone());
        on_disk(service, seeder, move |seeder| {
            if !slices.is_empty() {
                // Who may not store shall not make this node hash.
                seeder.check_writer(from, key)?;
            }
            let slices = cut(&slices, payload)?;
            let asked = Asked { chain: chain.into_vec(), change: change.into(), staged, slices };
            seeder.countersign(from, key, asked)
        })
    };
    let signature = service.when_known(sign).await?;
    Ok(Response::Countersigned { signature }.into())
}

/// Cuts a payload into the slices that it was announced to hold.
fn cut(leaves: &[Leaf], mut payload: Bytes) -> Result<Vec<Slice>, Fault> {
    let announced: u64 = leaves.iter().map(|leaf| u64::from(leaf.length)).sum();
    if announced != payload.len() as u64 {
        return Err(Fault::new(Code::Malformed, "the payload is not as long as its slices"));
    }
    let verify = |leaf: &Leaf| {
        let bytes = payload.split_to(leaf.length as usize);
        Slice::verify(*leaf, bytes).map_err(|error| Fault::new(Code::WrongBytes, error.to_string()))
    };
    leaves.iter().map(verify).collect()
}

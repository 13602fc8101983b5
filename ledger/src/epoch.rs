//! How blocks move time, and time moves epochs.
//!
//! ```text
//!   boundary      gap         beacon                                   boundary
//!   epoch e       height      height          proofs count             epoch e+1
//!   |-------------+-----------+===============window=======------------|
//!   cutoff        cutoff+1    cutoff+gap                               epoch length reached
//! ```
//!
//! * The time between two blocks counts, unless it is longer than two epochs: then the chain was halted, and none of it
//!   counts. So a halt never ends more than the epoch it found, and a boundary that comes a little late still comes.
//! * What an epoch lasted beyond its length is not carried over, and an epoch whose beacon came late lasts until its
//!   window has passed: every epoch leaves its window whole.
//! * An epoch ends only when its due contracts are settled, so work never piles up.

use tallow_types::params::Params;
use tallow_types::{Digest, DurationMs, Height, TimeMs};

use crate::block::{BlockEnv, Due, DueKind};
use crate::record::{EpochState, Head};
use crate::state::ReadError;
use crate::work::damaged;

/// The epoch that a network begins with: genesis is its boundary.
pub(crate) const fn first() -> EpochState {
    EpochState {
        epoch: tallow_types::Epoch::ZERO,
        elapsed: DurationMs::ZERO,
        cutoff: Height::ZERO,
        beacon: None,
        settling: false,
    }
}

/// The part of the time between two blocks that counts.
fn counted(params: &Params, between: DurationMs) -> DurationMs {
    let halted = between.get() > params.epoch.get().saturating_mul(2);
    if halted { DurationMs::ZERO } else { between }
}

/// How long an epoch lasts whose beacon became known at `opened`.
fn length(params: &Params, opened: DurationMs) -> DurationMs {
    params.epoch.max(DurationMs::new(opened.get().saturating_add(params.window.get())))
}

/// The height of an epoch's beacon block.
fn beacon_height(params: &Params, epoch: &EpochState) -> Height {
    Height::new(epoch.cutoff.get().saturating_add(u64::from(params.beacon_gap)))
}

/// The epoch after a block made in `env`, whose beacon is `beacon`.
pub(crate) fn advance(
    params: &Params,
    head: &Head,
    env: &BlockEnv,
    beacon: Digest,
) -> Result<EpochState, ReadError> {
    let mut epoch = head.epoch;
    let counted = counted(params, env.time.since(head.time));
    epoch.elapsed = DurationMs::new(epoch.elapsed.get().saturating_add(counted.get()));
    match epoch.beacon {
        None if env.height >= beacon_height(params, &epoch) => epoch.beacon = Some((beacon, epoch.elapsed)),
        Some((_, opened)) if epoch.elapsed >= length(params, opened) && !epoch.settling => {
            let next = epoch.epoch.next().ok_or_else(|| damaged("epochs end"))?;
            epoch = EpochState { epoch: next, cutoff: env.height, settling: true, ..first() };
        }
        _ => {}
    }
    Ok(epoch)
}

/// The block that must be made next.
pub(crate) fn due(params: &Params, head: &Head) -> Due {
    let soon = head.time.get().saturating_add(1);
    let next = head.height.get().saturating_add(1);
    let (kind, at) = match head.epoch.beacon {
        None if next >= beacon_height(params, &head.epoch).get() => (DueKind::Beacon, soon),
        None => (DueKind::Gap, soon),
        Some(_) if head.epoch.settling => (DueKind::Settle, soon),
        Some((_, opened)) => {
            let left = length(params, opened).saturating_sub(head.epoch.elapsed).get();
            (DueKind::Boundary, head.time.get().saturating_add(left).max(soon))
        }
    };
    Due { kind, at: TimeMs::new(at) }
}

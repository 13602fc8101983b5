//! How blocks move time, and time moves epochs.
//!
//! ```text
//!   boundary      gap         beacon                                   boundary
//!   epoch e       height      height          proofs count             epoch e+1
//!   |-------------+-----------+===============window=======------------|
//!   cutoff        cutoff+1    cutoff+gap                               epoch length reached
//! ```
//!
//! * The time between two blocks counts up to one epoch; if it is longer than two, the chain was halted and it counts
//!   as zero. So a halt never ends more than the epoch it found, and a boundary that comes a little late still comes.
//! * What an epoch lasted beyond its length is not carried over: every epoch leaves its window whole.
//! * An epoch ends only when its beacon is known and its due contracts are settled, so work never piles up.

use tallow_types::params::Params;
use tallow_types::{Digest, DurationMs, Height};

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
    if halted { DurationMs::ZERO } else { between.min(params.epoch) }
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
    if epoch.beacon.is_none() {
        if env.height >= beacon_height(params, &epoch) {
            epoch.beacon = Some((beacon, epoch.elapsed));
        }
    } else if epoch.elapsed >= params.epoch && !epoch.settling {
        let next = epoch.epoch.next().ok_or_else(|| damaged("epochs end"))?;
        epoch = EpochState { epoch: next, cutoff: env.height, settling: true, ..first() };
    }
    Ok(epoch)
}

/// The block that must be made next.
pub(crate) fn due(params: &Params, head: &Head) -> Due {
    let soon = head.time.get().saturating_add(1);
    let left = params.epoch.saturating_sub(head.epoch.elapsed).get();
    let next = head.height.get().saturating_add(1);
    let (kind, at) = if head.epoch.beacon.is_none() {
        let is_beacon = next >= beacon_height(params, &head.epoch).get();
        (if is_beacon { DueKind::Beacon } else { DueKind::Gap }, soon)
    } else if head.epoch.settling {
        (DueKind::Settle, soon)
    } else {
        (DueKind::Boundary, head.time.get().saturating_add(left).max(soon))
    };
    Due { kind, at: tallow_types::TimeMs::new(at) }
}

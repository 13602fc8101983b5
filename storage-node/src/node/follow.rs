//! The loop that follows the ledger.

use std::sync::Arc;

use tallow_consensus::{Chain, Follower, Source};
use tallow_types::DurationMs;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{PAUSE_MAX, PAUSE_MIN};
use crate::upstream::Upstream;

/// How long one question waits for a block.
const WAIT: DurationMs = DurationMs::new(20_000);

/// Starts following, unless this node makes the blocks or knows nobody. Answers whether the ledger was once known up to
/// now, and whether it forked.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    chain: &Arc<Chain>,
    makes_blocks: bool,
    upstream: &Upstream,
) -> (watch::Receiver<bool>, watch::Receiver<bool>) {
    let (synced, is_synced) = watch::channel(makes_blocks || upstream.peers().is_empty());
    let (halted, is_halted) = watch::channel(false);
    if !*is_synced.borrow() {
        let follower = Follower::new(chain.clone());
        let upstream = upstream.clone();
        tasks.spawn(async move {
            follow(&follower, &upstream, &synced).await;
            // Returns only when the ledger forked.
            halted.send_replace(true);
        });
    }
    (is_synced, is_halted)
}

async fn follow(follower: &Follower, upstream: &Upstream, synced: &watch::Sender<bool>) {
    let mut pause = PAUSE_MIN;
    loop {
        let is_synced = *synced.borrow();
        let wait = if is_synced { WAIT } else { DurationMs::ZERO };
        match follower.step(upstream, wait).await {
            Ok(progress) => {
                pause = PAUSE_MIN;
                if let Some(height) = progress.stepped_back {
                    tracing::warn!(%height, "the validator was rebuilt; stepped back to follow it");
                }
                if !is_synced && is_level(follower.chain(), upstream).await {
                    tracing::info!(height = %follower.chain().status().height, "the ledger is known up to now");
                    synced.send_replace(true);
                }
            }
            Err(error) if error.is_fork() => {
                tracing::error!(%error, "this node halts");
                return;
            }
            Err(error) => {
                if error.blames_source() {
                    tracing::debug!(%error, "another peer is asked for the ledger");
                    upstream.distrust();
                } else {
                    tracing::error!(%error, "the ledger can't be followed");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether this node's ledger is as high as that of whom it asks.
async fn is_level(chain: &Chain, upstream: &Upstream) -> bool {
    match Source::status(upstream).await {
        Ok(theirs) => chain.status().height >= theirs.height,
        Err(_) => false,
    }
}

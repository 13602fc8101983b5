//! Where blocks and snapshots come from.

use std::fs::File;
use std::io::Write;

use async_trait::async_trait;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{SNAPSHOT_PIECE_MAX, SNAPSHOT_PIECES_MAX};
use tallow_types::wire::ChainStatus;
use tallow_types::{DurationMs, Height};

use super::FollowError;
use crate::chain::{Chain, ChainError, Piece};

/// A peer that is asked for blocks. What it sends is never trusted.
#[async_trait]
pub trait Source: Send + Sync {
    /// Where its ledger stands.
    async fn status(&self) -> Result<ChainStatus, Fault>;

    /// Encodings of blocks from a height, none if there are none within `wait`; a fault with code `NotFound` if it no
    /// longer keeps blocks so old. From 0, the first is the encoding of genesis.
    async fn blocks(&self, from: Height, wait: DurationMs) -> Result<Vec<Vec<u8>>, Fault>;

    /// One piece of a snapshot; height 0 for the newest.
    async fn snapshot(&self, height: Height, piece: u32) -> Result<Piece, Fault>;
}

/// A ledger in this process is a source: for tests, and for a node that serves itself.
#[async_trait]
impl Source for Chain {
    async fn status(&self) -> Result<ChainStatus, Fault> {
        Ok(self.status())
    }

    async fn blocks(&self, from: Height, wait: DurationMs) -> Result<Vec<Vec<u8>>, Fault> {
        self.wait_above(Height::new(from.get().saturating_sub(1)), wait).await;
        Ok(self.blocks(from)?)
    }

    async fn snapshot(&self, height: Height, piece: u32) -> Result<Piece, Fault> {
        Ok(self.snapshot_piece(height, piece)?)
    }
}

/// Fetches a snapshot into a file without a name, so that it takes no memory and goes by itself.
pub(super) async fn download(chain: &Chain, source: &dyn Source) -> Result<(File, u64), FollowError> {
    let first = source.snapshot(Height::ZERO, 0).await?;
    let (height, pieces) = (first.height, first.pieces);
    let invalid = |reason: &str| FollowError::Invalid { what: "snapshot", reason: reason.to_owned() };
    if pieces == 0 || pieces > SNAPSHOT_PIECES_MAX {
        return Err(invalid("it has no piece, or more than are taken"));
    }
    // A forger is found out before it has cost more than one piece.
    chain.check_snapshot(&first.bytes)?;
    let (mut file, mut len, mut next) = (chain.scratch()?, 0, Some(first));
    for number in 0..pieces {
        let piece = match next.take() {
            Some(first) => first,
            None => source.snapshot(height, number).await?,
        };
        let is_last = number + 1 == pieces;
        let fits = piece.bytes.len() == SNAPSHOT_PIECE_MAX
            || is_last && piece.bytes.len() < SNAPSHOT_PIECE_MAX && !piece.bytes.is_empty();
        if !fits || piece.height != height || piece.pieces != pieces {
            return Err(Fault::new(Code::Garbage, "the pieces are not of one snapshot").into());
        }
        len += piece.bytes.len() as u64;
        file.write_all(&piece.bytes).map_err(|error| FollowError::from(ChainError::io(&error)))?;
    }
    Ok((file, len))
}

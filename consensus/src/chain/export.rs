//! Snapshots for peers: the state as of one block, in pieces.
//!
//! ```text
//! | length u32 | head | record | record | ...        one stream, cut every SNAPSHOT_PIECE_MAX bytes
//! head   = genesis, header, its certificate, number of records       (tagged SN, version 1)
//! record = | key length u32 | key | value length u32 | value |       in key order, each key once
//! ```
//!
//! The stream is written to a file beside the ledger when somebody asks for its first piece and the newest one is old,
//! so that a peer that reads slowly keeps no page of the ledger from being used again. The file is a cache: it is not
//! synced, and removed when the ledger opens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use borsh::{BorshDeserialize, BorshSerialize};
use redb::ReadableTableMetadata;
use tallow_types::block::Header;
use tallow_types::limits::SNAPSHOT_PIECE_MAX;
use tallow_types::params::Genesis;
use tallow_types::{Height, Signature, encode, tagged};

use super::{Chain, ChainError, View};

/// Beginning of the names of files that go when the ledger opens.
pub(super) const PREFIX: &str = "snapshot-";

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Head {
    /// Where the network began.
    pub genesis: Genesis,
    /// The block that the state is after.
    pub header: Header,
    /// Its certificate.
    pub signature: Signature,
    /// Records that follow.
    pub records: u64,
}
tagged!(Head, b"SN", 1, "snapshot", 160 << 10);

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The height of the snapshot.
    pub height: Height,
    /// How many pieces it has.
    pub pieces: u32,
    /// The bytes of this one.
    pub bytes: Vec<u8>,
}

/// A snapshot that lies ready.
#[derive(Debug)]
pub(super) struct Export {
    height: Height,
    len: u64,
    file: File,
    path: PathBuf,
}

impl Drop for Export {
    fn drop(&mut self) {
        // A leftover is removed when the ledger opens the next time.
        let _best_effort = std::fs::remove_file(&self.path);
    }
}

impl Chain {
    /// One piece of a snapshot. Height 0 means the newest; later pieces are asked for by the height that the first one
    /// named.
    ///
    /// # Errors
    /// [`ChainError::NoPiece`] if there is no such piece, or no longer: begin again with height 0. Else the disk failed.
    pub fn snapshot_piece(&self, height: Height, piece: u32) -> Result<Piece, ChainError> {
        let export = self.export(height)?;
        let start = u64::from(piece) * SNAPSHOT_PIECE_MAX as u64;
        let left = export.len.checked_sub(start).filter(|left| *left > 0).ok_or(ChainError::NoPiece)?;
        let size = usize::try_from(left).map_or(SNAPSHOT_PIECE_MAX, |left| left.min(SNAPSHOT_PIECE_MAX));
        let mut bytes = vec![0; size];
        export.file.read_exact_at(&mut bytes, start).map_err(|error| ChainError::io(&error))?;
        let pieces = export.len.div_ceil(SNAPSHOT_PIECE_MAX as u64);
        Ok(Piece { height: export.height, pieces: u32::try_from(pieces).unwrap_or(u32::MAX), bytes })
    }

    fn export(&self, height: Height) -> Result<Arc<Export>, ChainError> {
        // A panic while writing a snapshot leaves the one before it.
        let mut ready = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest_useful = self.status().height.get().saturating_sub(self.options.keep_blocks / 2);
        if let Some(export) = ready.as_ref() {
            let fresh = height == Height::ZERO && export.height.get() >= oldest_useful;
            if fresh || height == export.height {
                return Ok(export.clone());
            }
        }
        if height != Height::ZERO {
            return Err(ChainError::NoPiece);
        }
        let view = self.view()?;
        let path = self.dir.join(format!("{PREFIX}{}-{}", view.height(), view.hash().short()));
        let export = Arc::new(write(&view, &self.genesis, path)?);
        *ready = Some(export.clone());
        Ok(export)
    }
}

fn write(view: &View, genesis: &Genesis, path: PathBuf) -> Result<Export, ChainError> {
    let io = |error: std::io::Error| ChainError::folder(&path, &error);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(io)?;
    // From here on the file goes when this value does, on every way out.
    let mut export = Export { height: view.height(), len: 0, file, path: path.clone() };
    let head = encode(&Head {
        genesis: genesis.clone(),
        header: view.header().clone(),
        signature: view.tip().signature,
        records: view.records().len()?,
    });
    let mut out = BufWriter::with_capacity(1 << 18, &export.file);
    let mut len = put(&mut out, &head).map_err(io)?;
    for entry in view.records().range::<&[u8]>(..)? {
        let (key, value) = entry?;
        len += put(&mut out, key.value()).map_err(io)?;
        len += put(&mut out, value.value()).map_err(io)?;
    }
    out.flush().map_err(io)?;
    drop(out);
    export.len = len;
    Ok(export)
}

fn put(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<u64> {
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)?;
    Ok(4 + u64::from(len))
}

/// Removes what an earlier run left.
pub(super) fn clean(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _best_effort = std::fs::remove_file(entry.path());
        }
    }
}

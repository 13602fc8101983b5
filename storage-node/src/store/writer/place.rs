//! Where a record goes, and how it is written there.

use std::io;
use std::sync::Arc;

use crate::store::backend::{SegmentFile, SegmentId};
use crate::store::record::{HEADER, RecordHeader, Salt};

/// Largest single write: longer ones are slower by a factor. Bytes.
const PIECE: usize = 1 << 20;
/// Slices up to this size are written together with their header. Bytes.
const TOGETHER: usize = 64 << 10;

/// The segment that records are added to.
pub(super) struct Active {
    pub(super) id: SegmentId,
    pub(super) file: Arc<dyn SegmentFile>,
    pub(super) salt: Salt,
}

impl Active {
    pub(super) fn place(&self, offset: u64) -> Place {
        Place { segment: self.id, offset, file: self.file.clone(), salt: self.salt }
    }
}

/// Where one record goes.
pub(super) struct Place {
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
    pub(super) file: Arc<dyn SegmentFile>,
    pub(super) salt: Salt,
}

impl Place {
    pub(super) fn write(&self, header: &RecordHeader, bytes: &[u8]) -> io::Result<()> {
        let header = header.encode(&self.salt);
        if bytes.len() <= TOGETHER {
            return self.file.write_at(self.offset, &[&header[..], bytes].concat());
        }
        let mut at = self.offset + HEADER;
        for piece in bytes.chunks(PIECE) {
            self.file.write_at(at, piece)?;
            at += piece.len() as u64;
        }
        self.file.write_at(self.offset, &header)
    }
}

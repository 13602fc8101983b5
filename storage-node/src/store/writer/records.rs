//! How records are written: what lies one behind another in one go, in pieces of a bounded size.

use std::io;
use std::sync::Arc;

use crate::store::Buffer;
use crate::store::backend::{SegmentFile, SegmentId};
use crate::store::record::{RecordHeader, Salt};
use crate::store::row::Place;

/// Largest single write: longer ones are slower by a factor. Bytes.
const PIECE: usize = 1 << 20;
/// Most parts of a single write.
const PARTS: usize = 1024;

/// Where one record goes.
pub(super) struct Spot {
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
    pub(super) file: Arc<dyn SegmentFile>,
    pub(super) salt: Salt,
}

impl Spot {
    pub(super) const fn place(&self) -> Place {
        (self.segment, self.offset)
    }
}

/// A record with its place.
pub(super) struct Record {
    pub(super) spot: Spot,
    pub(super) header: RecordHeader,
    pub(super) bytes: Buffer,
}

/// Bytes that lie one behind another and are not written yet.
struct Run {
    segment: SegmentId,
    file: Arc<dyn SegmentFile>,
    start: u64,
    length: usize,
    parts: Vec<Buffer>,
}

impl Run {
    fn add(&mut self, mut part: Buffer) -> io::Result<()> {
        while !part.is_empty() {
            let piece = part.split_to(part.len().min(PIECE - self.length));
            self.length += piece.len();
            self.parts.push(piece);
            if self.length == PIECE || self.parts.len() == PARTS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.length > 0 {
            let parts: Vec<&[u8]> = self.parts.iter().map(|part| &part[..]).collect();
            self.file.write_all_at(self.start, &parts)?;
            self.start += self.length as u64;
            self.length = 0;
            self.parts.clear();
        }
        Ok(())
    }
}

/// Writes records in the order of their places.
pub(super) fn write(records: Vec<Record>) -> io::Result<()> {
    let mut run: Option<Run> = None;
    for Record { spot, header, bytes } in records {
        let next = match &mut run {
            Some(run) if run.segment == spot.segment && run.start + run.length as u64 == spot.offset => run,
            run => {
                if let Some(run) = run {
                    run.flush()?;
                }
                let Spot { segment, offset: start, file, .. } = spot;
                run.insert(Run { segment, file, start, length: 0, parts: Vec::new() })
            }
        };
        next.add(Buffer::copy_from_slice(&header.encode(&spot.salt)))?;
        next.add(bytes)?;
    }
    run.map_or(Ok(()), |mut run| run.flush())
}

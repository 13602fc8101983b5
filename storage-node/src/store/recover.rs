//! What happens when a store is opened: the index is brought back in step with the segments.
//!
//! Behind what the index knows, the last segment may hold slices that were written and perhaps synced, but never
//! acknowledged. Those that are whole are kept, as slices in no commit; the rest is zeroed and given back. Without an
//! index all segments are read from their first byte. Nothing is ever added to a segment of an earlier run, so what a
//! failed write left behind is never written over.

use std::io;
use std::sync::Arc;

use redb::{Database, DatabaseError, StorageError, TableHandle};

use super::backend::{Backend, SegmentFile, SegmentId};
use super::index::{DAMAGED, FORMAT, IndexError, IndexFile, META_FORMAT, META_NEXT, META_USAGE, Tables};
use super::record::{HEADER, LEN, RecordHeader, Salt, SegmentHeader};
use super::row::{SegmentRow, SliceRow, SliceState};
use super::{INDEX_CACHE, OpenError, root_of};

/// How much of a segment is looked through at a time. A multiple of [`HEADER`]. Bytes.
const WINDOW: usize = 1 << 20;

/// Opens the index, repairs it, and says which segment comes next.
pub(super) fn open(backend: &Arc<dyn Backend>) -> Result<(Database, SegmentId), OpenError> {
    let rebuild = !backend.has_index()?;
    let files = backend.segments()?;
    let database = open_database(&**backend)?;
    // The name of a new index must be as durable as what it will hold.
    backend.sync_names()?;
    let txn = database.begin_write().map_err(IndexError::from)?;
    let lists_damaged = lists(&txn, DAMAGED.name())?;
    let mut tables = Tables::open(&txn)?;
    match tables.meta::<u32>(META_FORMAT)? {
        Some(FORMAT) => {}
        Some(found) => return Err(OpenError::Format { found, known: FORMAT }),
        None => {
            tables.set_meta(META_FORMAT, &FORMAT)?;
            let usage = tables.usage()?;
            tables.set_meta(META_USAGE, &usage)?;
        }
    }
    if !lists_damaged {
        tables.list_damaged()?;
    }
    if rebuild && !files.is_empty() {
        tracing::warn!(segments = files.len(), "index is missing and is built again from the segments");
    }
    let mut pass = Pass { backend: &**backend, tables: &mut tables, rebuild, empty: Vec::new() };
    for id in &files {
        pass.segment(*id)?;
    }
    let empty = pass.empty;
    for (id, row) in tables.segments()? {
        if !files.contains(&id) {
            forget(&mut tables, id, row)?;
        }
    }
    let next = tables.meta::<SegmentId>(META_NEXT)?.unwrap_or(1);
    let next = files.last().map_or(next, |last| next.max(last + 1));
    tables.set_meta(META_NEXT, &next)?;
    tables.close()?;
    txn.commit().map_err(IndexError::from)?;
    for id in empty {
        backend.remove(id)?;
    }
    Ok((database, next))
}

fn lists(txn: &redb::WriteTransaction, name: &str) -> Result<bool, IndexError> {
    Ok(txn.list_tables()?.any(|table| table.name() == name))
}

fn open_database(backend: &dyn Backend) -> Result<Database, OpenError> {
    let file = backend.open_index().map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => OpenError::InUse,
        _ => OpenError::Io(error),
    })?;
    let opened = Database::builder().set_cache_size(INDEX_CACHE).create_with_backend(IndexFile(file));
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse,
        DatabaseError::Storage(StorageError::Io(error)) => OpenError::Io(error),
        other => OpenError::Index(other.into()),
    })
}

/// A segment that the index knows and the disk doesn't: dead, unless somebody deleted it.
fn forget(tables: &mut Tables<'_>, id: SegmentId, row: SegmentRow) -> Result<(), IndexError> {
    let lost = tables.places(id, 0)?;
    if lost.is_empty() {
        return tables.remove_segment(id);
    }
    tracing::error!(segment = id, slices = lost.len(), bytes = row.live, "segment file is gone");
    for (_, key) in lost {
        if let Some(slice) = tables.slice(key)? {
            tables.put_slice(key, &SliceRow { damaged: true, ..slice })?;
        }
    }
    Ok(())
}

struct Pass<'a, 'txn> {
    backend: &'a dyn Backend,
    tables: &'a mut Tables<'txn>,
    rebuild: bool,
    /// Segments in which nothing lives.
    empty: Vec<SegmentId>,
}

impl Pass<'_, '_> {
    fn segment(&mut self, id: SegmentId) -> Result<(), OpenError> {
        let known = self.tables.segment(id)?;
        if known.is_some_and(|row| row.sealed && row.live > 0) {
            return Ok(());
        }
        let file = self.backend.open(id)?;
        let mut start = [0; LEN];
        let header = match file.read_at(0, &mut start) {
            Ok(()) => SegmentHeader::decode(&start).ok().filter(|header| header.id == id),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error.into()),
        };
        let Some(header) = header else {
            if self.rebuild || known.is_some() {
                // There may be slices in it that somebody could still dig out: it is left alone.
                tracing::error!(segment = id, "first bytes of a segment are damaged");
            } else {
                self.empty.push(id);
            }
            return Ok(());
        };
        let length = file.length()?;
        let from = known.map_or(HEADER, |row| row.end);
        let mut row = known.unwrap_or(SegmentRow { length, end: from, live: 0, sealed: true });
        for (offset, header) in scan(&*file, &header.salt, from, length)? {
            self.found(id, offset, &header, &mut row)?;
        }
        row.sealed = true;
        if row.live == 0 {
            self.tables.remove_segment(id)?;
            self.empty.push(id);
            return Ok(());
        }
        self.tables.set_segment(id, &row)?;
        if row.end < length
            && let Err(error) = file.punch(row.end, length - row.end)
        {
            tracing::warn!(segment = id, %error, "unused end of a segment keeps its disk");
        }
        Ok(())
    }

    fn found(
        &mut self,
        segment: SegmentId,
        offset: u64,
        header: &RecordHeader,
        row: &mut SegmentRow,
    ) -> Result<(), IndexError> {
        let span = RecordHeader::span(header.length);
        row.end = row.end.max(offset + span);
        // A damaged slice that was stored again takes the new place, and its reason to stay.
        let known = self.tables.slice(header.key)?;
        if known.is_some_and(|known| !known.damaged || known.root != header.root) {
            return Ok(());
        }
        let fresh =
            if self.rebuild { SliceState::Recovered } else { SliceState::Loose { since: header.stored } };
        let new = SliceRow {
            segment,
            offset,
            length: header.length,
            root: header.root,
            state: known.map_or(fresh, |known| known.state),
            damaged: false,
        };
        row.live += span;
        tracing::debug!(segment, offset, "slice found behind the index");
        let old = self.tables.put_slice(header.key, &new)?;
        if let Some(old) = old {
            let span = RecordHeader::span(old.length);
            if old.segment == segment {
                row.live = row.live.saturating_sub(span);
            } else if let Some(other) = self.tables.segment(old.segment)? {
                let live = other.live.saturating_sub(span);
                self.tables.set_segment(old.segment, &SegmentRow { live, ..other })?;
            }
        }
        Ok(())
    }
}

/// Every whole record from an offset to the end of a segment. Looks at each aligned place, so that one damaged record
/// doesn't hide those behind it.
fn scan(file: &dyn SegmentFile, salt: &Salt, from: u64, length: u64) -> io::Result<Vec<(u64, RecordHeader)>> {
    let mut found = Vec::new();
    let mut at = from;
    let mut window = vec![0; WINDOW];
    while at + HEADER <= length {
        let size = usize::try_from(length - at).unwrap_or(WINDOW).min(WINDOW);
        file.read_at(at, &mut window[..size])?;
        at = look(file, salt, at, length, &window[..size], &mut found)?;
    }
    Ok(found)
}

/// Looks through one window that begins at `start`; answers where to go on.
fn look(
    file: &dyn SegmentFile,
    salt: &Salt,
    start: u64,
    length: u64,
    window: &[u8],
    found: &mut Vec<(u64, RecordHeader)>,
) -> io::Result<u64> {
    let mut at = 0;
    while let Some(bytes) = window.get(at..at + LEN) {
        let bytes = bytes.try_into().expect("as long as a header");
        let place = start + at as u64;
        if let Some(header) = RecordHeader::decode(bytes, salt)
            && place + RecordHeader::span(header.length) <= length
        {
            let mut slice = vec![0; header.length as usize];
            file.read_at(place + HEADER, &mut slice)?;
            if root_of(&slice) == header.root {
                found.push((place, header));
                return Ok(place + RecordHeader::span(header.length));
            }
        }
        at += LEN;
    }
    Ok(start + at.max(LEN) as u64)
}

//! Giving the places of freed slices back to the file system.

use super::Caretaker;
use crate::store::backend::SegmentId;
use crate::store::index::{IndexError, View};
use crate::store::record::{HEADER, RecordHeader};

/// Nothing is given back for less than this share of a segment's living bytes.
const WORTH: u64 = 64;

impl Caretaker {
    /// Gives back what was freed since the last time. A failure costs disk, never data.
    pub(super) fn tidy(&self) {
        for segment in self.shared.bell.take_gaps() {
            self.tidy_one(segment);
        }
    }

    /// Looks for gaps everywhere.
    pub(super) fn tidy_all(&self) {
        let rows = View::open(&self.shared.database).and_then(|view| view.segments());
        for (id, row) in rows.unwrap_or_default() {
            let allocated = self.shared.segments.file(id).and_then(|file| file.allocated());
            if row.sealed && allocated.is_ok_and(|bytes| bytes > row.live + row.live / WORTH + HEADER) {
                self.tidy_one(id);
            }
            if self.shared.bell.is_stopped() {
                return;
            }
        }
    }

    fn tidy_one(&self, id: SegmentId) {
        // Held over the look and the deed: what is a gap now may be somebody's place once the segment was used again.
        let held = self.shared.segments.spares();
        let outcome = self.gaps(id);
        let given = outcome.map_err(std::io::Error::other).and_then(|gaps| {
            self.shared.segments.give_back();
            let file = self.shared.segments.file(id)?;
            gaps.into_iter().try_for_each(|(start, end)| file.punch(start, end - start))
        });
        drop(held);
        if let Err(error) = given {
            tracing::warn!(segment = id, %error, "dead slices keep their disk");
        }
    }

    /// What lies between the records of a segment that live. Nothing is ever added there.
    fn gaps(&self, id: SegmentId) -> Result<Vec<(u64, u64)>, IndexError> {
        let view = View::open(&self.shared.database)?;
        let Some(row) = view.segment(id)? else { return Ok(Vec::new()) };
        let (mut gaps, mut at) = (Vec::new(), HEADER);
        for (_, slice) in view.records(id, HEADER, usize::MAX)? {
            if slice.offset > at {
                gaps.push((at, slice.offset));
            }
            at = slice.offset + RecordHeader::span(slice.length);
        }
        let end = if row.sealed { row.length } else { row.end };
        if end > at {
            gaps.push((at, end));
        }
        Ok(gaps)
    }
}

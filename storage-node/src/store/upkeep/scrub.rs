//! Reading every slice once in a while. What the disk holds is looked at, not what memory kept of it, and memory is left as
//! it was.

use std::time::{Duration, Instant};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::Bytes;

use super::Caretaker;
use super::compact::header;
use crate::store::index::{META_SCRUB, View};
use crate::store::job::Job;
use crate::store::key::SliceKey;
use crate::store::record::{HEADER, RecordHeader};
use crate::store::row::{Place, SliceRow};
use crate::store::{ReadError, root_of};

/// Most bytes and slices looked at in one step.
const STEP_BYTES: u64 = 4 << 20;
const STEP_SLICES: usize = 256;
/// How often it is written down how far the scrub has come.
const NOTED: Duration = Duration::from_mins(5);

/// How far the scrub has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(in crate::store) struct Cursor {
    /// Where it goes on.
    pub(in crate::store) next: Place,
    /// How often it has come to the end.
    pub(in crate::store) passes: u64,
}

/// What a scrub looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Slices.
    pub slices: u64,
    /// Their length.
    pub bytes: Bytes,
    /// Those of them that were found damaged only now.
    pub damaged: u64,
    /// Those whose headers were damaged and that were written again.
    pub mended: u64,
}

/// When the next step of the scrub is due.
pub(super) struct Pace {
    period: Option<Duration>,
    next: Instant,
    cursor: Option<Cursor>,
    noted: Instant,
}

impl Pace {
    pub(super) fn new(period: Option<Duration>) -> Self {
        Self { period, next: Instant::now(), cursor: None, noted: Instant::now() }
    }

    pub(super) fn is_due(&self) -> bool {
        self.period.is_some() && Instant::now() >= self.next
    }

    pub(super) fn due(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now()).max(Duration::from_millis(50))
    }
}

impl Caretaker {
    /// Takes the next step of the scrub in the background, and sets the time of the one after it: as much of the period has
    /// to go by as the step looked at of all that is there.
    pub(super) fn scrub_on(&self, pace: &mut Pace) {
        let Some(period) = pace.period else { return };
        let step = || -> Result<(Cursor, Scrubbed, u64), ReadError> {
            let view = View::open(&self.shared.database)?;
            let cursor = match pace.cursor {
                Some(cursor) => cursor,
                None => view.meta(META_SCRUB)?.unwrap_or_default(),
            };
            let total = view.usage()?.bytes().get();
            drop(view);
            let mut scrubbed = Scrubbed::default();
            let next = self.step(cursor.next, &mut scrubbed)?;
            let passes = cursor.passes + u64::from(next.is_none());
            Ok((Cursor { next: next.unwrap_or_default(), passes }, scrubbed, total))
        };
        let wait = match step() {
            Ok((cursor, scrubbed, total)) => {
                let is_over = pace.cursor.is_some_and(|before| before.passes < cursor.passes);
                pace.cursor = Some(cursor);
                if is_over || pace.noted.elapsed() >= NOTED {
                    pace.noted = Instant::now();
                    // If it is not written down, the next run looks at a little twice.
                    let _ = self.write(|done| Job::Scrubbed(cursor, done));
                }
                let share = scrubbed.bytes.get() as f64 / total.max(1) as f64;
                if scrubbed.bytes == Bytes::ZERO { NOTED } else { period.mul_f64(share.min(1.0)) }
            }
            Err(error) => {
                tracing::warn!(%error, "scrub stops for a while");
                NOTED
            }
        };
        pace.next = Instant::now() + wait;
    }

    /// Looks at everything, with no pause.
    pub(super) fn scrub_all(&self) -> Result<Scrubbed, ReadError> {
        let mut scrubbed = Scrubbed::default();
        let mut next = Some(Place::default());
        while let Some(from) = next {
            next = self.step(from, &mut scrubbed)?;
        }
        Ok(scrubbed)
    }

    /// Looks at some slices from a place on; answers where to go on, or `None` at the end.
    fn step(&self, from: Place, scrubbed: &mut Scrubbed) -> Result<Option<Place>, ReadError> {
        let view = View::open(&self.shared.database)?;
        let Some((id, _)) = view.segments_from(from.0)? else { return Ok(None) };
        let offset = if id == from.0 { from.1 } else { 0 };
        let records = view.records(id, offset, STEP_SLICES)?;
        drop(view);
        let (mut next, mut bytes) = ((id + 1, 0), 0);
        if records.len() == STEP_SLICES {
            next = records.last().map_or(next, |(_, last)| (id, last.offset + 1));
        }
        let (mut damaged, mut headless) = (Vec::new(), Vec::new());
        for (key, row) in records {
            if bytes >= STEP_BYTES {
                next = row.place();
                break;
            }
            bytes += u64::from(row.length);
            scrubbed.slices += 1;
            if row.damaged {
                continue;
            }
            match self.look(&row)? {
                Look::Whole => {}
                Look::Headless => headless.push((key, row)),
                Look::Damaged => damaged.push((key, row.place())),
            }
        }
        scrubbed.bytes = Bytes::new(scrubbed.bytes.get().saturating_add(bytes));
        self.mark(damaged, scrubbed)?;
        self.mend(headless, scrubbed)?;
        Ok(Some(next))
    }

    fn look(&self, row: &SliceRow) -> std::io::Result<Look> {
        let span = RecordHeader::span(row.length);
        let read = || -> std::io::Result<Look> {
            let file = self.shared.segments.file(row.segment)?;
            file.forget_cached(row.offset, span);
            let mut bytes = vec![0; row.length as usize];
            file.read_at(row.offset + HEADER, &mut bytes)?;
            let header = header(&*file, row)?;
            file.forget_cached(row.offset, span);
            Ok(match (root_of(&bytes) == row.root, header) {
                (true, Some(_)) => Look::Whole,
                (true, None) => Look::Headless,
                (false, _) => Look::Damaged,
            })
        };
        match read() {
            Err(error) if is_damage(&error) => Ok(Look::Damaged),
            other => other,
        }
    }

    /// Marks slices, unless they were moved or freed meanwhile.
    fn mark(&self, damaged: Vec<(SliceKey, Place)>, scrubbed: &mut Scrubbed) -> Result<(), ReadError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let view = View::open(&self.shared.database)?;
        let before = view.damaged()?;
        drop(view);
        self.write(|done| Job::Damaged(damaged.clone(), done)).map_err(std::io::Error::other)?;
        let found = View::open(&self.shared.database)?.damaged()?.saturating_sub(before);
        scrubbed.damaged += found;
        if found > 0 {
            tracing::error!(slices = found, "scrub found damaged slices");
        }
        Ok(())
    }

    /// Writes slices again that could not be found without the index.
    fn mend(&self, headless: Vec<(SliceKey, SliceRow)>, scrubbed: &mut Scrubbed) -> Result<(), ReadError> {
        let mut moved = Vec::new();
        for (key, row) in headless {
            moved.extend(self.lift(key, &row)?);
        }
        if !moved.is_empty() {
            scrubbed.mended += moved.len() as u64;
            self.write(|done| Job::Move(moved, done)).map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

/// Whether an error tells of the disk under a slice, and not of anything else that this process lacks.
pub(super) fn is_damage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | UnexpectedEof)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

enum Look {
    Whole,
    /// The slice is whole, but its record does not say so.
    Headless,
    Damaged,
}

//! Open segment files, a bounded number at a time, and dead ones that wait to be used again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, SegmentFile, SegmentId};

/// Most files kept open, those written in this run with two descriptors each.
const OPEN_MAX: usize = 128;
/// Most dead segments kept: writing over them is faster than into new ones.
const SPARES_MAX: usize = 4;

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<SegmentId, Arc<dyn SegmentFile>>,
    /// The file that was closed last to make place for another.
    hand: SegmentId,
}

#[derive(Debug)]
pub(crate) struct Segments {
    backend: Arc<dyn Backend>,
    /// Length of a segment that can be used again.
    usual: u64,
    open: Mutex<Open>,
    spares: Mutex<Vec<SegmentId>>,
    /// How often places were given back.
    given_back: AtomicU64,
}

impl Segments {
    /// Takes over the dead segments that an earlier run kept, as far as they are of use.
    pub(super) fn open_all(backend: Arc<dyn Backend>, usual: u64) -> io::Result<Self> {
        let mut spares = Vec::new();
        for old in backend.retired()? {
            if spares.len() < SPARES_MAX && backend.open_retired(old)?.length()? == usual {
                spares.push(old);
            } else {
                backend.discard(old)?;
            }
        }
        let (open, spares) = (Mutex::default(), Mutex::new(spares));
        Ok(Self { backend, usual, open, spares, given_back: AtomicU64::new(0) })
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is whole after every single operation on it, whatever panics between them.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While it is held, nothing dead is let go or used again.
    pub(super) fn spares(&self) -> MutexGuard<'_, Vec<SegmentId>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the disk that dead segments keep for the next ones, at least.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.usual / 4 * 3 * self.spares().len() as u64
    }

    pub(super) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        if let Some(file) = self.open().files.get(&id) {
            return Ok(file.clone());
        }
        let file = self.backend.open(id)?;
        self.keep(id, &file);
        Ok(file)
    }

    pub(super) fn create(&self, id: SegmentId, length: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.backend.create(id, length)?;
        self.keep(id, &file);
        Ok(file)
    }

    /// Makes a segment of a dead one, if there is one of this length and the disk has room for what it lacks. Its header is durable before it has its name, so that
    /// what the dead one held is never read under the old salt.
    pub(super) fn reuse(
        &self,
        id: SegmentId,
        length: u64,
        free: u64,
        header: &[u8],
    ) -> io::Result<Option<Arc<dyn SegmentFile>>> {
        if length != self.usual {
            return Ok(None);
        }
        let Some(old) = self.spares().pop() else { return Ok(None) };
        let file = self.backend.open_retired(old).inspect_err(|_| self.spares().push(old))?;
        // Its holes need the disk like anything new. Where there is none for them it waits.
        let lacks = length.saturating_sub(file.allocated()?);
        let filled = if lacks > free { Err(io::ErrorKind::StorageFull.into()) } else { file.fill(length) };
        if let Err(error) = filled {
            self.spares().push(old);
            return if error.kind() == io::ErrorKind::StorageFull { Ok(None) } else { Err(error) };
        }
        file.write_all_at(0, &[header])?;
        file.sync()?;
        self.backend.revive(old, id)?;
        self.keep(id, &file);
        Ok(Some(file))
    }

    /// One after another gives way in turn, so that a walk through all of them closes none that was just opened.
    fn keep(&self, id: SegmentId, file: &Arc<dyn SegmentFile>) {
        let mut open = self.open();
        if open.files.len() >= OPEN_MAX {
            let next = open.files.range(open.hand + 1..).next().or_else(|| open.files.first_key_value());
            if let Some(next) = next.map(|(next, _)| *next) {
                open.files.remove(&next);
                open.hand = next;
            }
        }
        open.files.insert(id, file.clone());
    }

    /// To be called before bytes are given back that somebody may still be reading.
    pub(super) fn give_back(&self) {
        self.given_back.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::SeqCst)
    }

    /// Lets go of a segment in which nothing lives: keeps it for the next one, or removes it. A failure costs disk, never
    /// data.
    pub(super) fn let_go(&self, id: SegmentId) {
        let mut spares = self.spares();
        self.give_back();
        let is_useful = spares.len() < SPARES_MAX && self.is_full(id).unwrap_or(false);
        self.open().files.remove(&id);
        let gone = match is_useful {
            true => self.backend.retire(id).map(|()| spares.push(id)),
            false => self.backend.remove(id),
        };
        if let Err(error) = gone {
            tracing::warn!(segment = id, %error, "dead segment keeps its disk");
        }
    }

    /// Whether it is of the usual length with few holes in it: only blocks that are there already are faster to write.
    fn is_full(&self, id: SegmentId) -> io::Result<bool> {
        let file = self.file(id)?;
        Ok(file.length()? == self.usual && file.allocated()? >= self.usual / 4 * 3)
    }
}

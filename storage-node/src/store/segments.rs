//! Open segment files, a bounded number at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Backend, SegmentFile, SegmentId};

/// Most files kept open.
const OPEN_MAX: usize = 256;

type Open = BTreeMap<SegmentId, Arc<dyn SegmentFile>>;

#[derive(Debug)]
pub(crate) struct Segments {
    backend: Arc<dyn Backend>,
    open: Mutex<Open>,
}

impl Segments {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, open: Mutex::default() }
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is whole after every single operation on it, whatever panics between them.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn file(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        if let Some(file) = self.open().get(&id) {
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

    /// Old segments go first: new ones are written, and what was stored last is read most.
    fn keep(&self, id: SegmentId, file: &Arc<dyn SegmentFile>) {
        let mut open = self.open();
        open.insert(id, file.clone());
        if open.len() > OPEN_MAX {
            open.pop_first();
        }
    }

    pub(super) fn remove(&self, id: SegmentId) -> io::Result<()> {
        self.open().remove(&id);
        self.backend.remove(id)
    }
}

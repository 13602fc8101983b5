//! Where the store keeps its bytes: segment files and the file of the index, behind two small traits.
//!
//! # What an implementation guarantees
//! * *Sync*: what was written to a segment before [`SegmentFile::sync`] returns survives a crash, its length included.
//! * *Names*: segments created or removed before [`Backend::sync_names`] returns stay so after a crash.
//! * Nothing else: a write, a name or an index page that was not synced may survive a crash, vanish, or survive in
//!   part. The tests run the store on a backend that makes the worst of this.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};

mod plain;

use plain::{Bounce, PlainFile};

/// The ordinal of a segment; never used twice in one store.
pub type SegmentId = u64;

/// The files of one store.
pub trait Backend: Debug + Send + Sync + 'static {
    /// Opens the file of the index, empty if there was none.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open_index(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Whether there is an index.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn has_index(&self) -> io::Result<bool>;

    /// Puts the index aside, so that the next open starts an empty one.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn retire_index(&self) -> io::Result<()>;

    /// All segments, in order.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn segments(&self) -> io::Result<Vec<SegmentId>>;

    /// Creates a segment of `length` bytes with its blocks taken, so that later writes can't run out of disk. Leaves
    /// nothing behind on failure.
    ///
    /// # Errors
    /// Whatever the file system says; a full disk as [`io::ErrorKind::StorageFull`].
    fn create(&self, id: SegmentId, length: u64) -> io::Result<Arc<dyn SegmentFile>>;

    /// Opens a segment.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;

    /// Removes a segment.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, id: SegmentId) -> io::Result<()>;

    /// Takes a segment's name away and keeps its blocks, to be used again.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn retire(&self, id: SegmentId) -> io::Result<()>;

    /// Segments that were retired, by the names that they had.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn retired(&self) -> io::Result<Vec<SegmentId>>;

    /// Opens a retired segment.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open_retired(&self, old: SegmentId) -> io::Result<Arc<dyn SegmentFile>>;

    /// Gives a retired segment a new name.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn revive(&self, old: SegmentId, id: SegmentId) -> io::Result<()>;

    /// Removes a retired segment.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn discard(&self, old: SegmentId) -> io::Result<()>;

    /// Makes creations, removals and changes of names durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes that the file system still has for this store.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn free(&self) -> io::Result<u64>;
}

/// One segment file.
pub trait SegmentFile: Debug + Send + Sync {
    /// Its length. Bytes.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Fills `out` from an offset.
    ///
    /// # Errors
    /// Whatever the file system says; a file too short as [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Bytes that it takes of the disk.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn allocated(&self) -> io::Result<u64>;

    /// Takes the blocks of a file of this length that it lacks, so that writes into it can't run out of disk.
    ///
    /// # Errors
    /// Whatever the file system says; a full disk as [`io::ErrorKind::StorageFull`].
    fn fill(&self, length: u64) -> io::Result<()>;

    /// Writes parts one behind another, from an offset on.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn write_all_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Lets the system forget what it keeps of a range in memory, so that it is read from the disk next time and takes no
    /// room from what is read more often. Only advice.
    fn forget_cached(&self, offset: u64, length: u64);

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Whatever the file system says. The file must not be trusted with more writes after it.
    fn sync(&self) -> io::Result<()>;

    /// Turns a range into zeros and gives its blocks back.
    ///
    /// # Errors
    /// Whatever the file system says; [`io::ErrorKind::Unsupported`] where it has no holes.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// The backend that seeders use: a directory.
///
/// ```text
/// <dir>/index.redb
/// <dir>/segments/0000000000000001.segment
/// <dir>/segments/0000000000000001.spare          retired
/// ```
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    segments: PathBuf,
    bounce: Arc<Mutex<Bounce>>,
    /// Both folders, kept open: their names must be synced even where descriptors are short.
    folders: [File; 2],
}

const INDEX: &str = "index.redb";
const SUFFIX: &str = ".segment";
const RETIRED: &str = ".spare";

impl Directory {
    /// Opens the directory, made if it isn't there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(root: &Path) -> io::Result<Self> {
        let segments = root.join("segments");
        std::fs::create_dir_all(&segments)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // What the store makes durable later is no more durable than its own name.
            File::open(parent)?.sync_all()?;
        }
        let folders = [File::open(&segments)?, File::open(root)?];
        Ok(Self { root: root.to_owned(), segments, bounce: Arc::default(), folders })
    }

    fn path(&self, id: SegmentId, suffix: &str) -> PathBuf {
        self.segments.join(format!("{id:016}{suffix}"))
    }

    fn named(&self, suffix: &str) -> io::Result<Vec<SegmentId>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.segments)? {
            let name = entry?.file_name();
            // A stranger's file is left alone: only names that this store gives are segments.
            let id = name.to_str().and_then(|name| name.strip_suffix(suffix));
            ids.extend(id.and_then(|id| id.parse::<SegmentId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn open_at(&self, path: &Path) -> io::Result<PlainFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(PlainFile::new(file, self.bounce.clone()))
    }
}

impl Backend for Directory {
    fn open_index(&self) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.root.join(INDEX);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let backend = redb::backends::FileBackend::new(file).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process has the index open")
            }
            other => io::Error::other(other),
        })?;
        Ok(Box::new(backend))
    }

    fn has_index(&self) -> io::Result<bool> {
        match std::fs::metadata(self.root.join(INDEX)) {
            Ok(metadata) => Ok(metadata.len() > 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn retire_index(&self) -> io::Result<()> {
        let from = self.root.join(INDEX);
        let free = (0u32..).map(|n| self.root.join(format!("{INDEX}.old-{n}"))).find(|path| !path.exists());
        match std::fs::rename(from, free.expect("there are fewer than 2^32 files")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn segments(&self) -> io::Result<Vec<SegmentId>> {
        self.named(SUFFIX)
    }

    fn create(&self, id: SegmentId, length: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let path = self.path(id, SUFFIX);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = allocate(&file, length) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(PlainFile::new(file, self.bounce.clone()).for_bulk(&path)))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(self.open_at(&self.path(id, SUFFIX))?))
    }

    fn remove(&self, id: SegmentId) -> io::Result<()> {
        std::fs::remove_file(self.path(id, SUFFIX))
    }

    fn retire(&self, id: SegmentId) -> io::Result<()> {
        std::fs::rename(self.path(id, SUFFIX), self.path(id, RETIRED))
    }

    fn retired(&self) -> io::Result<Vec<SegmentId>> {
        self.named(RETIRED)
    }

    fn open_retired(&self, old: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        let path = self.path(old, RETIRED);
        Ok(Arc::new(self.open_at(&path)?.for_bulk(&path)))
    }

    fn revive(&self, old: SegmentId, id: SegmentId) -> io::Result<()> {
        std::fs::rename(self.path(old, RETIRED), self.path(id, SUFFIX))
    }

    fn discard(&self, old: SegmentId) -> io::Result<()> {
        std::fs::remove_file(self.path(old, RETIRED))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.folders.iter().try_for_each(File::sync_all)
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.segments)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn allocate(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        // A file system without fallocate still stores; it may run out of disk while a record is written.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(length),
        other => Ok(other?),
    }
}

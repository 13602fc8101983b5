//! Writing files out.
//!
//! Guarantees: nothing is written outside the target, through no link, whatever names a catalog holds; a file appears
//! under its name only when it is whole; what exists is not replaced unless that is asked for; what can't be kept of
//! modes and times is noted.
//!
//! A file alone is synced before it gets its name. A whole tree is synced once, before `get` reports success: a power cut
//! in the middle of a `get` is answered by running it again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tallow_seal::entry::{Entry, FileTime};

mod large;

use large::{LARGE_MIN, Large};

use crate::error::GetError;
use crate::identity::random_bytes;
use crate::report::Skipped;

/// Where `get` writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetTarget {
    /// A file's content to this path; a folder's content below it. A file into a folder that is there gets its own name in
    /// it.
    Path(PathBuf),
}

/// How `get` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Replace what exists.
    pub force: bool,
}

/// A tree being written below one root.
pub(crate) struct Target {
    root: PathBuf,
    force: bool,
    /// Whether the root itself is the file to write.
    is_file: bool,
    checked: BTreeSet<PathBuf>,
    open: Option<Open>,
    folders: Vec<(PathBuf, Entry)>,
    links: Vec<(PathBuf, Entry, Vec<u8>)>,
    pub notes: Vec<Skipped>,
}

struct Open {
    temporary: Temporary,
    large: Option<Large>,
    path: PathBuf,
    entry: Entry,
}

/// A file without its name yet; gone if it never gets one.
struct Temporary {
    file: File,
    path: PathBuf,
    is_named: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_named {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> GetError {
    let path = path.display().to_string();
    move |source| GetError::Target { path, source }
}

impl Target {
    /// One file.
    pub fn file(path: PathBuf, force: bool) -> Result<Self, GetError> {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {
                return Err(GetError::Exists { path: path.display().to_string() });
            }
            Ok(_) if !force => return Err(GetError::Exists { path: path.display().to_string() }),
            _ => {}
        }
        let mut target = Self::new(path, force);
        target.is_file = true;
        Ok(target)
    }

    /// A tree. A folder that is there must be empty, unless forced.
    pub fn folder(path: PathBuf, force: bool) -> Result<Self, GetError> {
        match std::fs::read_dir(&path) {
            Ok(mut entries) => {
                if !force && entries.next().is_some() {
                    return Err(GetError::Exists { path: path.display().to_string() });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&path).map_err(failed(&path))?;
            }
            Err(error) => return Err(failed(&path)(error)),
        }
        Ok(Self::new(path, force))
    }

    fn new(root: PathBuf, force: bool) -> Self {
        Self {
            root,
            force,
            is_file: false,
            checked: BTreeSet::new(),
            open: None,
            folders: Vec::new(),
            links: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The local path of a name below the root. Names are checked again here, whatever checked them before.
    fn place(&mut self, relative: &str) -> Result<PathBuf, GetError> {
        if self.is_file {
            return Ok(self.root.clone());
        }
        let unsafe_name =
            |reason: &str| GetError::UnsafeName { name: relative.to_owned(), reason: reason.to_owned() };
        if relative.is_empty() {
            return Ok(self.root.clone());
        }
        let path = Path::new(relative);
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !relative.split('/').all(is_plain) {
            return Err(unsafe_name("it leads elsewhere"));
        }
        let full = self.root.join(path);
        let mut at = self.root.clone();
        let parents = path.parent().map(Path::components).into_iter().flatten();
        for part in parents {
            at.push(part);
            if self.checked.contains(&at) {
                continue;
            }
            match at.symlink_metadata() {
                Ok(meta) if meta.is_dir() => {}
                Ok(meta) if meta.is_symlink() => return Err(unsafe_name("a folder above it is a link")),
                Ok(_) => return Err(GetError::Exists { path: at.display().to_string() }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    std::fs::create_dir(&at).map_err(failed(&at))?;
                }
                Err(error) => return Err(failed(&at)(error)),
            }
            self.checked.insert(at.clone());
        }
        Ok(full)
    }

    /// Makes a folder; its mode and time are set at the end, so that it can be written to until then.
    pub fn dir(&mut self, relative: &str, entry: Entry) -> Result<(), GetError> {
        let path = self.place(relative)?;
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(GetError::Exists { path: path.display().to_string() }),
            Err(_) => std::fs::create_dir(&path).map_err(failed(&path))?,
        }
        self.checked.insert(path.clone());
        self.folders.push((path, entry));
        Ok(())
    }

    /// Notes a link; links are made last, so that nothing is ever written through one.
    pub fn link(&mut self, relative: &str, entry: Entry, to: &[u8]) -> Result<(), GetError> {
        let path = self.place(relative)?;
        self.links.push((path, entry, to.to_vec()));
        Ok(())
    }

    /// Begins a file.
    pub fn begin(&mut self, relative: &str, entry: Entry) -> Result<(), GetError> {
        let path = self.place(relative)?;
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(GetError::Exists { path: path.display().to_string() });
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = format!(".tallow-{:016x}.part", u64::from_le_bytes(random_bytes()));
        let temporary = parent.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(failed(&path))?;
        let temporary = Temporary { file, path: temporary, is_named: false };
        let size = entry.size().get();
        let large = (size >= LARGE_MIN).then(|| Large::begin(&temporary.file, &temporary.path, size));
        let large = large.transpose().map_err(failed(&path))?;
        self.open = Some(Open { temporary, large, path, entry });
        Ok(())
    }

    /// Writes to the file begun last.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), GetError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut file = &open.temporary.file;
        let written = match &mut open.large {
            Some(large) => large.write(file, bytes),
            None => file.write_all(bytes),
        };
        written.map_err(failed(&open.path))
    }

    /// Gives the file its mode, time and name.
    pub fn end(&mut self) -> Result<(), GetError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let file = &open.temporary.file;
        if let Some(large) = open.large.take() {
            large.end(file).map_err(failed(&open.path))?;
        }
        if self.is_file {
            file.sync_all().map_err(failed(&open.path))?;
        }
        let mode = std::fs::Permissions::from_mode(open.entry.mode.bits());
        if let Err(error) = file.set_permissions(mode) {
            note(&mut self.notes, &open.path, "its mode could not be kept", &error);
        }
        if let Err(error) = rustix::fs::futimens(file, &times(open.entry.modified)) {
            note(&mut self.notes, &open.path, "its time could not be kept", &error.into());
        }
        let named = if self.force {
            std::fs::rename(&open.temporary.path, &open.path)
        } else {
            match rustix::fs::renameat_with(
                CWD,
                &open.temporary.path,
                CWD,
                &open.path,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                // Some file systems can't; the name was free a moment ago.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    std::fs::rename(&open.temporary.path, &open.path)
                }
                other => other.map_err(Into::into),
            }
        };
        match named {
            Ok(()) => {
                open.temporary.is_named = true;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(GetError::Exists { path: open.path.display().to_string() })
            }
            Err(error) => Err(failed(&open.path)(error)),
        }
    }

    /// Makes the links, sets modes and times of folders, deepest first, and syncs.
    pub fn finish(mut self) -> Result<Vec<Skipped>, GetError> {
        for (path, entry, to) in std::mem::take(&mut self.links) {
            if let Ok(meta) = path.symlink_metadata() {
                if !self.force || meta.is_dir() {
                    return Err(GetError::Exists { path: path.display().to_string() });
                }
                std::fs::remove_file(&path).map_err(failed(&path))?;
            }
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&to), &path).map_err(failed(&path))?;
            let kept = rustix::fs::utimensat(CWD, &path, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW);
            if let Err(error) = kept {
                note(&mut self.notes, &path, "its time could not be kept", &error.into());
            }
        }
        for (path, entry) in std::mem::take(&mut self.folders).into_iter().rev() {
            let mode = std::fs::Permissions::from_mode(entry.mode.bits());
            if let Err(error) = std::fs::set_permissions(&path, mode) {
                note(&mut self.notes, &path, "its mode could not be kept", &error);
            }
            let kept = rustix::fs::utimensat(CWD, &path, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW);
            if let Err(error) = kept {
                note(&mut self.notes, &path, "its time could not be kept", &error.into());
            }
        }
        let synced = if self.is_file { self.root.parent().unwrap_or(Path::new(".")) } else { &self.root };
        let synced = if synced.as_os_str().is_empty() { Path::new(".") } else { synced };
        if let Ok(folder) = File::open(synced) {
            let done = if self.is_file {
                folder.sync_all()
            } else {
                rustix::fs::syncfs(&folder).map_err(Into::into)
            };
            done.map_err(failed(synced))?;
        }
        Ok(self.notes)
    }
}

fn note(notes: &mut Vec<Skipped>, path: &Path, what: &str, error: &std::io::Error) {
    notes.push(Skipped { path: path.display().to_string(), reason: format!("{what}: {error}") });
}

/// The time of the last access is not kept: it becomes that of the last change.
fn times(modified: FileTime) -> Timestamps {
    let time = Timespec { tv_sec: modified.seconds(), tv_nsec: i64::from(modified.nanos()) };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_seal::entry::{Content, Kind, Mode};
    use tallow_types::codec::Bounded;
    use tallow_types::unit::{Bytes, TimeMs};

    fn entry(mode: u32) -> Entry {
        let modified = FileTime::new(1_000_000_000, 5).expect("valid");
        Entry { kind: Kind::Dir, modified, mode: Mode::from_system(mode), stored_at: TimeMs::ZERO }
    }

    fn put(target: &mut Target, name: &str) -> Result<(), GetError> {
        target.begin(name, entry(0o640))?;
        target.write(b"content")?;
        target.end()
    }

    /// Goal: no name and no link leads outside, and nothing is left behind. Method: each kind of evil name.
    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path().join("out");
        let mut target = Target::folder(root.clone(), false).expect("empty");
        for name in ["../evil", "/evil", "a/../../evil", "a/./b", "..", "."] {
            let refused = put(&mut target, name);
            assert!(matches!(refused, Err(GetError::UnsafeName { .. })), "{name}: {refused:?}");
        }
        std::os::unix::fs::symlink(dir.path(), root.join("link")).expect("links");
        assert!(matches!(put(&mut target, "link/evil"), Err(GetError::UnsafeName { .. })));
        target.link("later", entry(0o777), b"..").expect("noted");
        put(&mut target, "later2/fine").expect("writes");
        target.finish().expect("finishes");
        assert!(!dir.path().join("evil").exists());
        assert_eq!(std::fs::read_link(root.join("later")).expect("a link"), Path::new(".."));
    }

    /// Goal: large files come out as they went in, in whatever pieces they came and wherever they end. Method: sizes around
    /// whole blocks, in pieces that fit none.
    #[test]
    fn large_files_are_whole() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut bytes = vec![0; usize::try_from(LARGE_MIN).expect("fits") + (1 << 20) + 1];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for len in [bytes.len(), bytes.len() - 1, bytes.len() - (1 << 20), bytes.len() - 4098] {
            let path = dir.path().join(len.to_string());
            let mut target = Target::file(path.clone(), false).expect("free");
            let content = Content::Lists { size: Bytes::new(len as u64), lists: Bounded::default() };
            target.begin("", Entry { kind: Kind::File(content), ..entry(0o640) }).expect("begins");
            bytes[..len].chunks(300_007).for_each(|piece| target.write(piece).expect("writes"));
            target.end().expect("ends");
            target.finish().expect("finishes");
            assert!(std::fs::read(&path).expect("reads") == bytes[..len], "{len} bytes");
        }
    }

    /// Goal: a file appears whole or not at all, with mode and time, and replaces nothing. Method: drop one half-way.
    #[test]
    fn files_appear_whole() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f");
        let mut target = Target::file(path.clone(), false).expect("free");
        target.begin("", entry(0o640)).expect("begins");
        target.write(b"half").expect("writes");
        drop(target);
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0);
        let mut target = Target::file(path.clone(), false).expect("free");
        put(&mut target, "").expect("writes");
        assert!(target.finish().expect("finishes").is_empty());
        let meta = path.metadata().expect("is there");
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
        assert_eq!(
            meta.modified().expect("has one"),
            std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5)
        );
        assert!(matches!(Target::file(path.clone(), false), Err(GetError::Exists { .. })));
        assert!(Target::file(path, true).is_ok());
        assert!(matches!(Target::folder(dir.path().to_owned(), false), Err(GetError::Exists { .. })));
    }
}

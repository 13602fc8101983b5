//! What `put` reads: a file, a folder with everything below it, or a stream of unknown length.
//!
//! Guarantees: the same tree is walked in the same order; symbolic links are stored as links, never followed below the
//! root; whatever is not stored is reported with its reason; a file that changes while it is read is noticed.
//!
//! Does not: cross the question of what to do about it. The caller decides whether an oddity is an error.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::report::Skipped;

/// Where the bytes come from.
pub enum Source {
    /// A file, a folder, or a symbolic link (which is followed: it is what the user named).
    Path(PathBuf),
    /// A stream, read to its end.
    Reader {
        /// The stream.
        reader: Box<dyn Read + Send>,
        /// Permission bits of the blob.
        mode: u32,
    },
}

impl Source {
    /// A file or folder.
    #[must_use]
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::Path(path.into())
    }

    /// A stream; its blob gets the mode of an ordinary private file.
    #[must_use]
    pub fn reader(reader: Box<dyn Read + Send>) -> Self {
        Self::Reader { reader, mode: 0o600 }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "Path({})", path.display()),
            Self::Reader { .. } => f.write_str("Reader"),
        }
    }
}

/// When content last changed: whole seconds since 1970, negative before, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modified {
    pub seconds: i64,
    pub nanos: u32,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File { size: u64 },
    Dir,
    Link { target: Vec<u8> },
}

/// One thing to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below the root, with `/`; empty for the root itself.
    pub relative: String,
    pub what: What,
    pub mode: u32,
    pub modified: Modified,
}

/// What the walk comes upon.
#[derive(Debug)]
pub(crate) enum Found {
    Item(Item),
    Skipped(Skipped),
}

/// Walks a tree, parents before children, names in byte order. Memory is bounded by the entries of the folders on one
/// path from the root.
pub(crate) struct Walker {
    stack: Vec<(PathBuf, String)>,
}

/// Why the root of a walk can't be stored.
#[derive(Debug)]
pub(crate) enum RootError {
    Io(std::io::Error),
    Odd(&'static str),
}

impl Walker {
    /// Begins at `root`, whose own item comes first.
    pub fn new(root: &Path) -> Result<Self, RootError> {
        let meta = std::fs::metadata(root).map_err(RootError::Io)?;
        if let Some(odd) = oddity(&meta) {
            return Err(RootError::Odd(odd));
        }
        Ok(Self { stack: vec![(root.to_owned(), String::new())] })
    }

    fn visit(&mut self, path: PathBuf, relative: String) -> Found {
        let skipped = |path: &Path, reason: String| {
            Found::Skipped(Skipped { path: path.to_string_lossy().into_owned(), reason })
        };
        let meta = if relative.is_empty() { std::fs::metadata(&path) } else { path.symlink_metadata() };
        let meta = match meta {
            Ok(meta) => meta,
            Err(error) => return skipped(&path, error.to_string()),
        };
        if let Some(odd) = oddity(&meta) {
            return skipped(&path, format!("a {odd} can't be stored"));
        }
        let what = if meta.is_symlink() {
            match std::fs::read_link(&path) {
                Ok(target) => What::Link { target: target.into_os_string().into_vec() },
                Err(error) => return skipped(&path, error.to_string()),
            }
        } else if meta.is_dir() {
            match names(&path) {
                Ok(names) => self.descend(&path, &relative, names),
                Err(error) => return skipped(&path, format!("folder can't be read: {error}")),
            }
            What::Dir
        } else {
            What::File { size: meta.len() }
        };
        Found::Item(Item { path, relative, what, mode: meta.mode() & 0o7777, modified: modified(&meta) })
    }

    fn descend(&mut self, path: &Path, relative: &str, names: Vec<OsString>) {
        for name in names.into_iter().rev() {
            let child = path.join(&name);
            // A name that isn't UTF-8 is kept on the stack with a mark that no real name has.
            let name = name.into_string().unwrap_or_else(|_| "\0".to_owned());
            let below = if relative.is_empty() { name } else { format!("{relative}/{name}") };
            self.stack.push((child, below));
        }
    }
}

impl Iterator for Walker {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let (path, relative) = self.stack.pop()?;
        if relative.ends_with('\0') {
            let path = path.to_string_lossy().into_owned();
            return Some(Found::Skipped(Skipped { path, reason: "its name is not UTF-8".into() }));
        }
        Some(self.visit(path, relative))
    }
}

fn names(path: &Path) -> std::io::Result<Vec<OsString>> {
    let mut names = std::fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn oddity(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_fifo() {
        Some("fifo")
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("device")
    } else {
        None
    }
}

fn modified(meta: &Metadata) -> Modified {
    Modified { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) }
}

/// What of a file must be the same before and after reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    modified: Modified,
}

impl Print {
    fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), size: meta.len(), modified: modified(meta) }
    }
}

/// A file being read, with what it was like when it was opened.
pub(crate) struct Watched {
    file: File,
    path: PathBuf,
    print: Print,
    mode: u32,
}

impl Watched {
    /// Opens a regular file. What has become something else since the walk is refused, without waiting on it.
    pub fn open(path: &Path, follow: bool) -> std::io::Result<Self> {
        let flags = rustix::fs::OFlags::NONBLOCK
            | if follow { rustix::fs::OFlags::empty() } else { rustix::fs::OFlags::NOFOLLOW };
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(std::io::Error::other("it is no longer a regular file"));
        }
        Ok(Self { file, path: path.to_owned(), print: Print::of(&meta), mode: meta.mode() & 0o7777 })
    }

    pub const fn modified(&self) -> Modified {
        self.print.modified
    }

    pub const fn mode(&self) -> u32 {
        self.mode
    }

    /// The bytes.
    pub fn reader(&mut self) -> &mut File {
        &mut self.file
    }

    /// Whether the file is still what it was, and `read` all of it: the open file, and what the path leads to.
    pub fn is_unchanged(&self, read: u64) -> bool {
        let same = |meta: std::io::Result<Metadata>| meta.is_ok_and(|meta| Print::of(&meta) == self.print);
        read == self.print.size && same(self.file.metadata()) && same(std::fs::metadata(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn walk(root: &Path) -> (Vec<Item>, Vec<Skipped>) {
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        for found in Walker::new(root).expect("walks") {
            match found {
                Found::Item(item) => items.push(item),
                Found::Skipped(skip) => skipped.push(skip),
            }
        }
        (items, skipped)
    }

    /// Goal: everything is either an item or reported. Method: a tree with one of each kind.
    #[test]
    fn every_kind_is_stored_or_reported() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/empty")).expect("makes folders");
        std::fs::write(root.join("b/file"), b"x").expect("writes");
        std::fs::write(root.join("a"), b"").expect("writes");
        std::os::unix::fs::symlink("nowhere/at all", root.join("link")).expect("links");
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"x").expect("writes");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("binds");
        let (items, skipped) = walk(root);
        let names: Vec<_> = items.iter().map(|item| item.relative.as_str()).collect();
        assert_eq!(names, ["", "a", "b", "b/empty", "b/file", "link"]);
        assert_eq!(items[5].what, What::Link { target: b"nowhere/at all".to_vec() });
        assert_eq!(items[4].what, What::File { size: 1 });
        let reasons: Vec<_> = skipped.iter().map(|skip| skip.reason.as_str()).collect();
        assert_eq!(reasons, ["its name is not UTF-8", "a socket can't be stored"]);
    }

    /// Goal: a root that can't be stored is an error at once. Method: nothing, and a socket.
    #[test]
    fn odd_roots_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert!(matches!(Walker::new(&dir.path().join("none")), Err(RootError::Io(_))));
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        assert!(matches!(Walker::new(&path), Err(RootError::Odd("socket"))));
    }

    /// Goal: each way in which a file can change is noticed. Method: change it between open and check.
    #[test]
    fn changes_are_noticed() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("f");
        std::fs::write(&path, b"four").expect("writes");
        let open = || Watched::open(&path, true).expect("opens");
        assert!(open().is_unchanged(4));
        assert!(!open().is_unchanged(3));
        let watched = open();
        std::fs::write(&path, b"five!").expect("writes");
        assert!(!watched.is_unchanged(4) && !watched.is_unchanged(5));
        let watched = open();
        let other = dir.path().join("g");
        std::fs::write(&other, b"five!").expect("writes");
        std::fs::rename(&other, &path).expect("renames");
        assert!(!watched.is_unchanged(5));
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        assert!(Watched::open(&link, false).is_err() && Watched::open(dir.path(), true).is_err());
    }
}

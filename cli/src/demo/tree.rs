//! The tree that a demo stores: the one named, or a real one found on this machine. And the comparison of what came back.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result, file_failed};

/// A file of at most this size is small. Bytes.
const SMALL: u64 = 4 << 10;
/// A file of at least this size is large. Bytes.
const LARGE: u64 = 1 << 20;
/// A demo tree has at least so many bytes.
const TREE_MIN: u64 = 20_000_000;
/// And, when it is chosen without being asked for, at most so many.
const TREE_MAX: u64 = 48 << 20;
/// Folders that are looked at before giving up.
const LOOKS_MAX: usize = 400;

/// What a tree is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Regular files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Small files.
    pub small: u64,
    /// Large files.
    pub large: u64,
    /// Whether something in it can't be stored or read by us.
    pub odd: bool,
}

impl Measure {
    /// Of a file or folder; stops early when it is beyond `most` bytes.
    pub fn of(path: &Path, most: u64) -> std::io::Result<Self> {
        let mut measure = Self::default();
        measure.add(path, &path.symlink_metadata()?, most)?;
        Ok(measure)
    }

    fn add(&mut self, path: &Path, meta: &Metadata, most: u64) -> std::io::Result<()> {
        if self.bytes > most {
            return Ok(());
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                self.add(&entry.path(), &entry.metadata()?, most)?;
            }
        } else if meta.is_file() {
            self.files += 1;
            self.bytes += meta.len();
            self.small += u64::from(meta.len() <= SMALL);
            self.large += u64::from(meta.len() >= LARGE);
            self.odd |= path.to_str().is_none();
        } else if !meta.is_symlink() {
            self.odd = true;
        }
        Ok(())
    }

    const fn suits(&self) -> bool {
        self.bytes >= TREE_MIN && self.bytes <= TREE_MAX && self.small >= 20 && self.large >= 1 && !self.odd
    }
}

/// A tree of this machine with small and large files, not too big for a minute.
pub fn find() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let roots = [
        PathBuf::from("/usr/share/perl"),
        PathBuf::from("/usr/lib/python3"),
        PathBuf::from("/usr/share/doc"),
        PathBuf::from("/usr/share"),
        home.join(".rustup/toolchains"),
        home.join(".cargo/registry/src"),
        PathBuf::from("/usr/local/rustup/toolchains"),
        PathBuf::from("/usr/local/cargo/registry/src"),
        PathBuf::from("/usr/lib"),
        PathBuf::from("/usr/include"),
        PathBuf::from("/usr/bin"),
    ];
    search(roots.to_vec(), LOOKS_MAX).ok_or_else(|| {
        Failure::user("no tree of 20 to 50 MB with small and large files was found on this machine")
            .hint("name one: tallow demo DIR")
    })
}

/// Breadth first: a folder that is too big is looked into, one that is too small is not.
fn search(mut layer: Vec<PathBuf>, mut looks: usize) -> Option<PathBuf> {
    while !layer.is_empty() {
        let mut below = Vec::new();
        for folder in layer {
            looks = looks.checked_sub(1)?;
            let Ok(measure) = Measure::of(&folder, TREE_MAX) else { continue };
            if measure.suits() {
                return Some(folder);
            }
            if measure.bytes > TREE_MAX {
                below.extend(subfolders(&folder));
            }
        }
        layer = below;
    }
    None
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// Every entry below a root by its relative path; the root itself under the empty one.
pub fn entries(root: &Path) -> Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let meta = root.symlink_metadata().map_err(|error| file_failed("read", root, &error))?;
    collect(root, Path::new(""), meta, &mut found)?;
    Ok(found)
}

fn collect(
    root: &Path,
    relative: &Path,
    meta: Metadata,
    found: &mut BTreeMap<PathBuf, Metadata>,
) -> Result<()> {
    let path = root.join(relative);
    if meta.is_dir() {
        let failed = |error: &std::io::Error| file_failed("read", &path, error);
        for entry in std::fs::read_dir(&path).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let meta = entry.metadata().map_err(|error| failed(&error))?;
            collect(root, &relative.join(entry.file_name()), meta, found)?;
        }
    }
    found.insert(relative.to_owned(), meta);
    Ok(())
}

/// Where two trees differ: contents, kinds, link targets, permissions. Empty if nowhere.
pub fn differences(left: &Path, right: &Path) -> Result<Vec<String>> {
    let (mut ours, mut theirs) = (entries(left)?, entries(right)?);
    let mut differences = Vec::new();
    while let Some((path, a)) = ours.pop_first() {
        let shown =
            if path.as_os_str().is_empty() { "the root".to_owned() } else { path.display().to_string() };
        match theirs.remove(&path) {
            None => differences.push(format!("{shown} is missing")),
            Some(b) => {
                let at = |root: &Path| {
                    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) }
                };
                if let Some(how) = differ(&at(left), &a, &at(right), &b)? {
                    differences.push(format!("{shown}: {how}"));
                }
            }
        }
    }
    differences.extend(theirs.into_keys().map(|path| format!("{} is new", path.display())));
    Ok(differences)
}

fn differ(left: &Path, a: &Metadata, right: &Path, b: &Metadata) -> Result<Option<&'static str>> {
    if a.file_type() != b.file_type() {
        return Ok(Some("another kind"));
    }
    if a.is_symlink() {
        let same = std::fs::read_link(left).ok() == std::fs::read_link(right).ok();
        return Ok((!same).then_some("leads elsewhere"));
    }
    let mode = |meta: &Metadata| meta.permissions().mode() & 0o777;
    if mode(a) != mode(b) {
        return Ok(Some("other permissions"));
    }
    if a.is_file() && (a.len() != b.len() || !same_bytes(left, right)?) {
        return Ok(Some("other bytes"));
    }
    Ok(None)
}

fn same_bytes(left: &Path, right: &Path) -> Result<bool> {
    let open = |path: &Path| File::open(path).map_err(|error| file_failed("read", path, &error));
    let (mut a, mut b) = (open(left)?, open(right)?);
    let (mut x, mut y) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = a.read(&mut x).map_err(|error| file_failed("read", left, &error))?;
        if read == 0 {
            let rest = b.read(&mut y).map_err(|error| file_failed("read", right, &error))?;
            return Ok(rest == 0);
        }
        match b.read_exact(&mut y[..read]) {
            Ok(()) if x[..read] == y[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(file_failed("read", right, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::testing::write;

    /// Goal: every kind of difference is seen, equality too. Method: change one thing at a time.
    #[test]
    fn differences_are_seen() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for root in [&a, &b] {
            write(&root.join("x/one"), b"1111");
            write(&root.join("two"), &[2; 100_000]);
            std::os::unix::fs::symlink("two", root.join("link")).expect("links");
        }
        let seen = || differences(&a, &b).expect("reads");
        assert_eq!(seen(), Vec::<String>::new());
        write(&b.join("x/one"), b"1112");
        assert_eq!(seen(), ["x/one: other bytes"]);
        write(&b.join("x/one"), b"111");
        assert_eq!(seen(), ["x/one: other bytes"]);
        std::fs::remove_file(b.join("x/one")).expect("removes");
        write(&b.join("three"), b"");
        assert_eq!(seen(), ["x/one is missing", "three is new"]);
        std::fs::remove_file(b.join("three")).expect("removes");
        write(&b.join("x/one"), b"1111");
        std::fs::set_permissions(b.join("two"), std::fs::Permissions::from_mode(0o600)).expect("sets");
        std::fs::set_permissions(a.join("two"), std::fs::Permissions::from_mode(0o640)).expect("sets");
        assert_eq!(seen(), ["two: other permissions"]);
        assert_eq!(differences(&a.join("x/one"), &b.join("x/one")).expect("reads"), Vec::<String>::new());
    }

    /// Goal: a suitable tree is found inside one that is too big. Method: folders of sparse files.
    #[test]
    fn suitable_trees_are_found() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let sparse = |name: &str, bytes: u64| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("makes");
            File::create(path).and_then(|file| file.set_len(bytes)).expect("makes");
        };
        sparse("big/huge", 2 * TREE_MAX);
        for number in 0..20 {
            sparse(&format!("right/small-{number}"), 10);
        }
        sparse("right/sub/large", TREE_MIN);
        assert_eq!(search(vec![dir.path().to_owned()], 10), Some(dir.path().join("right")));
        assert_eq!(search(vec![dir.path().to_owned()], 1), None);
        std::fs::remove_file(dir.path().join("right/small-3")).expect("removes");
        assert_eq!(search(vec![dir.path().to_owned()], 10), None);
    }
}

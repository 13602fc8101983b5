use tallow_types::unit::TimeMs;

use super::*;
use crate::entry::{Content, FileTime, LinkTarget, Mode};

fn path(text: &str) -> BlobPath {
    BlobPath::parse(text).expect("is a path")
}

fn file() -> Kind {
    Kind::File(Content::Inline(tallow_types::codec::Bounded::empty()))
}

fn catalog(entries: &[(&str, Kind)]) -> Catalog {
    let entry = |kind: &Kind| Entry {
        kind: kind.clone(),
        modified: FileTime::default(),
        mode: Mode::from_system(0o644),
        stored_at: TimeMs::ZERO,
    };
    entries.iter().map(|(name, kind)| (path(name), entry(kind))).collect()
}

/// Goal: a folder's contents are found among names that sort between. Method: names around the slash.
#[test]
fn within_a_folder() {
    let names = ["a", "a!", "a.txt", "a/b", "a/b/c", "a/z", "a0", "ab/c"];
    let catalog = catalog(&names.map(|name| (name, Kind::Dir)));
    let found = |folder: &str| {
        let folder = path(folder);
        within(&catalog, &folder).map(|(path, _)| path.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("a"), ["a", "a/b", "a/b/c", "a/z"]);
    assert_eq!(found("a/b"), ["a/b", "a/b/c"]);
    assert_eq!(found("ab"), ["ab/c"]);
    assert!(found("b").is_empty());
}

/// Goal: a catalog never names a blob below a blob, which no file system could take back; links count as blobs, or a
/// get could be led elsewhere. Method: a table of what stands in the way of what.
#[test]
fn conflicts() {
    let link = Kind::Symlink(LinkTarget::new(b"/etc".to_vec()).expect("a target"));
    let catalog =
        catalog(&[("dir", Kind::Dir), ("dir/file", file()), ("link", link.clone()), ("x/y/z", file())]);
    let below = |above: &str| Err(Conflict::BelowBlob { above: path(above) });
    let above = |below: &str| Err(Conflict::AboveBlob { below: path(below) });
    let table = [
        ("dir/other", file(), Ok(())),
        ("dir/file", file(), Ok(())),
        ("dir/file", link.clone(), Ok(())),
        ("dir/file", Kind::Dir, Ok(())),
        ("dir/file/deeper/still", file(), below("dir/file")),
        ("link/passwd", file(), below("link")),
        ("link/sub", Kind::Dir, below("link")),
        ("dir", file(), above("dir/file")),
        ("dir", link, above("dir/file")),
        ("dir", Kind::Dir, Ok(())),
        ("x", file(), above("x/y/z")),
        ("x/y", Kind::Dir, Ok(())),
        ("x/y.txt", file(), Ok(())),
    ];
    for (name, kind, expected) in table {
        assert_eq!(check(&catalog, &path(name), &kind), expected, "{name}");
    }
}

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> BlobPath {
    BlobPath::parse(text).expect("is a path")
}

/// Goal: each bad name has its own answer. Method: a table, and one above each limit.
#[test]
fn bad_paths_are_named() {
    let owned = |path: &str| path.to_owned();
    let name = "n".repeat(PATH_COMPONENT_MAX);
    let long = format!("{}/x", name);
    assert!(BlobPath::parse(&long).is_ok());
    let deepest = ["a"; PATH_MAX / 2].join("/") + "b";
    assert_eq!(deepest.len(), PATH_MAX);
    assert!(BlobPath::parse(&deepest).is_ok());
    let table = [
        (owned(""), PathError::Empty),
        (deepest + "b", PathError::TooLong { len: PATH_MAX + 1 }),
        (format!("a/{name}n"), PathError::ComponentTooLong { len: PATH_COMPONENT_MAX + 1 }),
        (owned("/etc/passwd"), PathError::NotRelative { path: owned("/etc/passwd") }),
        (owned("/"), PathError::NotRelative { path: owned("/") }),
        (owned("a//b"), PathError::EmptyComponent { path: owned("a//b") }),
        (owned("a/"), PathError::EmptyComponent { path: owned("a/") }),
        (owned("a/../b"), PathError::Dots { path: owned("a/../b"), component: ".." }),
        (owned(".."), PathError::Dots { path: owned(".."), component: ".." }),
        (owned("./a"), PathError::Dots { path: owned("./a"), component: "." }),
        (owned("a\0b"), PathError::Nul { path: owned("a\\u{0}b") }),
    ];
    for (text, error) in table {
        assert_eq!(BlobPath::parse(&text), Err(error.clone()));
        let bytes = borsh::to_vec(&text).expect("encodes");
        assert!(BlobPath::try_from_slice(&bytes).is_err(), "{error} passes the decoder");
    }
    assert!(BlobPath::try_from_slice(&[2, 0, 0, 0, 0xff, 0xfe]).is_err());
}

/// Goal: odd but legal names are kept as they are. Method: a list, round trip.
#[test]
fn odd_names_are_kept() {
    for text in ["...", "a b", "..a", "a..", "C:\\x", "tab\there", "\u{1f600}", "-", "~", "a:b", ".hidden"] {
        let path = path(text);
        assert_eq!(path.as_str(), text);
        let bytes = borsh::to_vec(&path).expect("encodes");
        assert_eq!(BlobPath::try_from_slice(&bytes).expect("decodes"), path);
    }
}

/// Goal: system paths are taken as what they name, or refused by name. Method: relative, absolute, climbing, and not
/// UTF-8.
#[test]
fn system_paths() {
    assert_eq!(BlobPath::from_path(Path::new("./a//b/./c/")), Ok(path("a/b/c")));
    assert_eq!(BlobPath::from_path(Path::new("")), Err(PathError::Empty));
    assert!(matches!(BlobPath::from_path(Path::new("/a")), Err(PathError::NotRelative { .. })));
    assert!(matches!(BlobPath::from_path(Path::new("a/../b")), Err(PathError::Dots { component: "..", .. })));
    let odd = Path::new(OsStr::from_bytes(b"dir/caf\xe9\x1b[2J.txt"));
    let error = PathError::NotUtf8 { shown: "dir/caf\\xe9\\u{1b}[2J.txt".to_owned() };
    assert_eq!(BlobPath::from_path(odd), Err(error));
}

/// Goal: what is shown can't steer a terminal. Method: an escape sequence, a newline, a right-to-left override.
#[test]
fn display_is_harmless() {
    assert_eq!(path("a\u{1b}[31m\nb\u{202e}txt").to_string(), "a\\u{1b}[31m\\nb\\u{202e}txt");
    assert_eq!(format!("{:>6}|", path("caf\u{e9}")), "  caf\u{e9}|");
}

/// Goal: parts of a path are found. Method: examples.
#[test]
fn parts() {
    let deep = path("a/b/c");
    assert_eq!(deep.parents().collect::<Vec<_>>(), [path("a/b"), path("a")]);
    assert_eq!(path("a").parents().count(), 0);
    assert_eq!((deep.name(), path("a").name()), ("c", "a"));
    assert!(deep.is_within(&path("a")) && deep.is_within(&deep) && !deep.is_within(&path("a/b/cc")));
    assert!(!path("ab/c").is_within(&path("a")));
    assert_eq!(path("a/b").join(&path("c")), Ok(deep));
    let long = path(&["a"; PATH_MAX / 2].join("/"));
    assert!(matches!(long.join(&long), Err(PathError::TooLong { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Goal: no name leads outside the folder that it is joined to. Method: random texts of dangerous parts.
    #[test]
    fn joined_paths_stay_below(parts in proptest::collection::vec("(\\.|\\.\\.|/|a|~|\\\\|\u{0}|\u{e9}| |\n){0,4}", 1..6)) {
        let text = parts.join("/");
        if let Ok(path) = BlobPath::parse(&text) {
            let joined = path.under(Path::new("/target"));
            prop_assert!(joined.starts_with("/target") && joined != Path::new("/target"));
            prop_assert!(joined.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir)));
            prop_assert_eq!(joined.strip_prefix("/target").expect("below").as_os_str(), OsStr::new(&text));
            prop_assert_eq!(BlobPath::from_path(joined.strip_prefix("/target").expect("below")), Ok(path));
        }
    }

    /// Goal: the decoder takes exactly what the parser takes, and never panics. Method: random bytes.
    #[test]
    fn decoder_agrees_with_parser(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
        let encoded = borsh::to_vec(&bytes).expect("encodes");
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| BlobPath::parse(text).ok());
        prop_assert_eq!(BlobPath::try_from_slice(&encoded).ok(), parsed);
        let _ = BlobPath::try_from_slice(&bytes);
    }
}

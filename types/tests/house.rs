//! The rules of the house, as tests: which crate may import which, what pure crates may not know, how files look.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A crate that is not listed does not exist yet.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("erasure", &["types"]),
    ("seal", &["types"]),
    ("proofs", &["types"]),
    ("net", &["types"]),
    ("market", &["types", "proofs"]),
    ("ledger", &["types", "market", "proofs"]),
    ("consensus", &["types", "ledger", "proofs"]),
    ("client", &["types", "erasure", "seal", "proofs", "market", "ledger", "net"]),
    ("storage-node", &["types", "proofs", "market", "ledger", "consensus", "net"]),
    ("cli", &["types", "seal", "proofs", "market", "ledger", "consensus", "net", "client", "storage-node"]),
];

/// Crates that nothing may import and that may import everything.
const TOPS: &[&str] = &["sim", "benches"];

/// Crates that know no runtime, clock, randomness, floats or unordered maps.
const PURE: &[&str] = &["types", "erasure", "seal", "proofs", "market", "ledger"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn imports_of(folder: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let normal = text.split("[dev-dependencies]").next().unwrap();
    let name = |line: &str| line.strip_prefix("tallow-")?.split(['.', ' ', '=']).next().map(str::to_owned);
    normal.lines().filter_map(name).collect()
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// All source files of the workspace with their text and the folder of their crate.
fn all_sources() -> Vec<(String, PathBuf, String)> {
    let folders = IMPORTS.iter().map(|(name, _)| *name).chain(TOPS.iter().copied());
    let mut files = Vec::new();
    for folder in folders {
        let mut paths = Vec::new();
        sources(&root().join(folder), &mut paths);
        files.extend(paths.into_iter().map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (folder.to_owned(), path, text)
        }));
    }
    files
}

/// The product part of a file: what stands before its test module.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

fn is_product_file(path: &Path) -> bool {
    let in_src = path.components().any(|part| part.as_os_str() == "src");
    in_src && path.file_stem().is_some_and(|stem| stem != "tests")
}

/// Goal: imports point one way. Method: read every manifest and compare it with the table above.
#[test]
fn imports_point_one_way() {
    let allowed: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    for (folder, may) in &allowed {
        for import in imports_of(folder) {
            assert!(may.contains(&import.as_str()), "{folder} may not import {import}");
        }
    }
    let members = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let list = members.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    for member in list.split('"').skip(1).step_by(2) {
        assert!(allowed.contains_key(member) || TOPS.contains(&member), "{member} has no place in the house");
    }
}

/// Goal: rules are functions of their arguments. Method: look for the words that would break it.
#[test]
fn pure_crates_know_no_world() {
    let banned = [
        "tokio",
        "SystemTime",
        "Instant::now",
        "HashMap",
        "HashSet",
        "getrandom",
        "rand::",
        "std::fs",
        "std::net",
        " f32",
        " f64",
        "thread::spawn",
    ];
    for (folder, path, text) in all_sources() {
        if !PURE.contains(&folder.as_str()) || !is_product_file(&path) {
            continue;
        }
        for (number, line) in product(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in banned {
                assert!(!code.contains(word), "{}:{}: pure code knows {word}", path.display(), number + 1);
            }
        }
    }
}

/// Goal: files stay readable. Method: length, ASCII, no leftovers.
#[test]
fn files_are_tidy() {
    let leftovers = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"];
    for (_, path, text) in all_sources() {
        let shown = path.display();
        assert!(path.file_name().is_some_and(|name| name != "mod.rs"), "{shown}: use name.rs and name/");
        assert!(text.is_ascii(), "{shown}: not ASCII");
        if is_product_file(&path) {
            let lines = product(&text).lines().count();
            assert!(lines <= 500, "{shown}: {lines} lines of product code, at most 500");
            assert!(text.starts_with("//!"), "{shown}: begins without saying what it is");
        }
        if path.ends_with("types/tests/house.rs") {
            continue;
        }
        for word in leftovers {
            assert!(!text.contains(word), "{shown}: {word} left over");
        }
    }
}

/// Goal: one file lists all domain tags. Method: no key derivation context anywhere else.
#[test]
fn domain_tags_are_in_one_file() {
    for (_, path, text) in all_sources() {
        let is_list = path.ends_with("types/src/domain.rs") || path.ends_with("types/tests/house.rs");
        assert!(
            is_list || !text.contains("derive_key("),
            "{}: domain tags live in types::domain",
            path.display()
        );
    }
}

/// Goal: the documents lead somewhere. Method: every relative link in every page exists.
#[test]
fn links_in_documents_exist() {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            assert!(page.parent().unwrap().join(target).exists(), "{}: no {target}", page.display());
        }
    }
}

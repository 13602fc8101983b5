//! The search of a demo: what is looked for in the files of seeders and validator, taken from the tree that is stored.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::demo::network::DemoNetwork;
use crate::demo::search::{Find, NAME_MIN, Needles, Searched, What};
use crate::demo::story::Story;
use crate::demo::tree;
use crate::failure::{Failure, Result, file_failed};
use crate::human;

/// How much plaintext is sampled. Bytes.
const SAMPLE: usize = 1 << 20;
/// It is taken in pieces of this size, from all over the tree. Bytes.
const SAMPLE_PIECE: u64 = 64 << 10;

/// The search for plaintext, prepared before anything is stored.
pub struct Hunt {
    needles: Needles,
    /// Names too short to be looked for without their folder, or at all.
    unsearchable: usize,
    poor: u64,
    known: usize,
}

impl Hunt {
    /// From the tree that will be stored and the network's files as they are before.
    pub fn prepare(network: &DemoNetwork, tree: &Path) -> Result<Self> {
        let (names, unsearchable) = names(tree)?;
        let samples = sample(tree)?;
        let (mut needles, poor) = Needles::new(names.iter().map(Vec::as_slice), &samples);
        // What stands in the network's files before it has seen any of our data proves nothing later.
        let before = search(&needles, network)?;
        needles.leave_out(&before.finds);
        if needles.names() + needles.windows() == 0 {
            return Err(Failure::user(
                "there is nothing in this tree to search for: no name of 6 bytes, no 16 bytes in a row",
            )
            .hint("name a larger one: tallow demo DIR"));
        }
        Ok(Self { needles, unsearchable, poor, known: before.finds.len() })
    }

    /// Searches; then plants plaintext and searches again.
    pub fn run(&self, network: &DemoNetwork, story: &mut Story) -> Result<()> {
        let searched = search(&self.needles, network)?;
        if let Some(find) = searched.finds.first() {
            return Err(Failure::bug(format!("plaintext in {}: {}", find.file.display(), describe(find))));
        }
        let planted = self.plant(network)?;
        story.held(
            &format!(
                "{} and {} of 16 bytes: none in {} of {}",
                human::count(self.needles.names() as u64, "name"),
                human::count(self.needles.windows() as u64, "window"),
                human::size(searched.bytes),
                human::count(searched.files, "seeder and ledger file"),
            ),
            json!({
                "names": self.needles.names(),
                "windows": self.needles.windows(),
                "short_names": self.unsearchable,
                "poor_windows": self.poor,
                "known_before": self.known,
                "files": searched.files,
                "bytes": searched.bytes,
                "planted_found": planted,
            }),
        );
        let finds = human::count(planted as u64, "find");
        story.detail(&format!("planted plaintext is found by the same search: {finds}"));
        story.detail(&format!(
            "not searched: {} of fewer than {NAME_MIN} bytes, {} of few distinct bytes, {} found before the put",
            human::count(self.unsearchable as u64, "name"),
            human::count(self.poor, "window"),
            human::count(self.known as u64, "string"),
        ));
        Ok(())
    }

    /// Puts plaintext into a seeder's folder, and finds it.
    fn plant(&self, network: &DemoNetwork) -> Result<usize> {
        let name = self.needles.any_name();
        let window = self.needles.any_window();
        let disk = network.disk_of(&network.seeders()[0]);
        let path = disk.join("planted");
        let mut bytes = vec![0x5a; 4099];
        bytes.extend(window.unwrap_or_default());
        bytes.extend([0xa5; 31]);
        bytes.extend(name.unwrap_or_default());
        std::fs::write(&path, &bytes).map_err(|error| file_failed("write", &path, &error))?;
        let searched = search(&self.needles, network)?;
        std::fs::remove_file(&path).map_err(|error| file_failed("remove", &path, &error))?;
        let wanted = usize::from(name.is_some()) + usize::from(window.is_some());
        let found = searched.finds.iter().filter(|find| find.file == path).count();
        if found < wanted {
            return Err(Failure::bug("the search does not find a planted plaintext"));
        }
        Ok(found)
    }
}

fn search(needles: &Needles, network: &DemoNetwork) -> Result<Searched> {
    needles
        .search(&network.disks())
        .map_err(|error| Failure::unavailable("cannot read the seeders' files").because(&error))
}

fn describe(find: &Find) -> String {
    match &find.what {
        What::Name(name) => format!("the name {}", String::from_utf8_lossy(name)),
        What::Window(window) => format!("the bytes {}", hex::encode(window)),
    }
}

/// Every name in the tree; a short one together with its folder's. The number of those that stay too short.
fn names(root: &Path) -> Result<(BTreeSet<Vec<u8>>, usize)> {
    let mut names = BTreeSet::new();
    let mut short = BTreeSet::new();
    let top = root.file_name().map(PathBuf::from).unwrap_or_default();
    for relative in tree::entries(root)?.into_keys() {
        let path = top.join(relative);
        let Some(name) = path.file_name() else { continue };
        let with_folder = path.parent().and_then(Path::file_name).map(|folder| Path::new(folder).join(name));
        let candidates = [Some(PathBuf::from(name)), with_folder];
        let long = candidates.into_iter().flatten().find(|name| name.as_os_str().len() >= NAME_MIN);
        match long {
            Some(name) => names.insert(name.into_os_string().into_encoded_bytes()),
            None => short.insert(path.into_os_string().into_encoded_bytes()),
        };
    }
    Ok((names, short.len()))
}

/// A MiB of the tree's bytes, or all of them if there are fewer: pieces from files spread over the whole.
fn sample(root: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = tree::entries(root)?;
    let files: Vec<(PathBuf, u64)> = entries
        .into_iter()
        .filter(|(_, meta)| meta.is_file() && meta.len() > 0)
        .map(|(relative, meta)| {
            (if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(relative) }, meta.len())
        })
        .collect();
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let pieces = (SAMPLE as u64).div_ceil(SAMPLE_PIECE);
    let stride = (total / pieces).max(SAMPLE_PIECE);
    let (mut samples, mut passed) = (Vec::new(), 0_u64);
    // A piece begins at each multiple of the stride in the concatenation of all files and goes on into the next file.
    let (mut due, mut owed) = (0_u64, 0_u64);
    for (path, len) in files {
        let mut at = 0;
        while at < len {
            if owed == 0 {
                let next = due.saturating_sub(passed).max(at);
                if next >= len || samples.iter().map(Vec::len).sum::<usize>() >= SAMPLE {
                    break;
                }
                (at, due, owed) = (next, due + stride, SAMPLE_PIECE);
            }
            let bytes = read_part(&path, at, owed)?;
            let read = bytes.len() as u64;
            samples.push(bytes);
            at += read;
            owed -= read;
            if read == 0 {
                break;
            }
        }
        passed += len;
    }
    Ok(samples)
}

fn read_part(path: &Path, from: u64, most: u64) -> Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(most).read_to_end(&mut bytes)
    });
    read.map_err(|error| file_failed("read", path, &error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::testing::write;

    /// Goal: a sample is a MiB if the tree has one, from all of it, small files too. Method: trees below and above a MiB.
    #[test]
    fn samples_reach_everywhere() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for number in 0..100 {
            write(&dir.path().join(format!("f{number:02}")), &[number; 1000]);
        }
        let all = sample(dir.path()).expect("reads");
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), 100_000);
        write(&dir.path().join("g"), &[200; 5 << 20]);
        let some = sample(dir.path()).expect("reads");
        let total = some.iter().map(Vec::len).sum::<usize>();
        assert!((SAMPLE..SAMPLE + (64 << 10)).contains(&total), "{total}");
        assert!(some.iter().any(|bytes| bytes[0] < 100) && some.iter().any(|bytes| bytes[0] == 200));
    }

    /// Goal: every name is looked for, a short one with its folder's. Method: one of each.
    #[test]
    fn short_names_take_their_folder() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path().join("r");
        write(&root.join("a long name"), b"");
        write(&root.join("src/a.c"), b"");
        write(&root.join("x"), b"");
        let (names, short) = names(&root).expect("reads");
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"a long name"[..], b"src/a.c"]);
        // `r`, `r/src` and `r/x` stay too short.
        assert_eq!(short, 3);
    }
}

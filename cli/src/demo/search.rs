//! Looks for plaintext in files that must not hold any: names, and every 16-byte window of a sample.
//!
//! Windows are found by their aligned words: any 16 bytes at any place of a file cover one 8-byte word at a multiple of 8,
//! so looking up every such word among *all* 8-byte substrings of the sample misses nothing, at an eighth of the cost.
//! Names are found by a filter over their first six bytes.
//!
//! Some strings prove nothing: windows of few distinct bytes (runs of zeros occur in every database file) and strings
//! that were in the files before anything was stored. They are left out, and counted, never in silence.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Length of a window. Bytes.
pub const WINDOW: usize = 16;
/// Shortest name that is looked for as it is: five bytes occur by chance in some hundred MiB of random ones.
pub const NAME_MIN: usize = 6;
/// A window of fewer distinct bytes is no evidence.
const DISTINCT_MIN: usize = 6;
/// Files are read in pieces of this size. Bytes.
const PIECE: usize = 1 << 20;
/// Zeros are passed over in blocks of this size. Bytes.
const BLOCK: usize = 4096;
/// Most finds that are kept; one is enough to fail.
const FINDS_MAX: usize = 1000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A name.
    Name(Vec<u8>),
    /// A window of the sample.
    Window([u8; WINDOW]),
}

/// A piece of plaintext where none may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Find {
    /// In which file.
    pub file: PathBuf,
    /// What.
    pub what: What,
}

/// What a search did.
#[derive(Debug, Default)]
pub struct Searched {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What was found, at most some.
    pub finds: Vec<Find>,
}

/// What to look for.
pub struct Needles {
    names: HashMap<u64, Vec<Vec<u8>>>,
    name_filter: Filter,
    windows: HashSet<[u8; WINDOW]>,
    words: Filter,
    longest: usize,
}

/// Says "no" for most keys that are not in a set.
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    fn new(log2_bits: u32) -> Self {
        Self { bits: vec![0; 1 << (log2_bits - 6)], shift: 64 - log2_bits }
    }

    fn place(&self, key: u64) -> (usize, u64) {
        // Multiplication by the golden ratio spreads keys over the top bits.
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        (usize::try_from(hash >> 6).expect("an index of the table"), 1 << (hash & 63))
    }

    fn add(&mut self, key: u64) {
        let (at, bit) = self.place(key);
        self.bits[at] |= bit;
    }

    fn may_hold(&self, key: u64) -> bool {
        let (at, bit) = self.place(key);
        self.bits[at] & bit != 0
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// The first six of eight bytes.
fn head(bytes: &[u8]) -> u64 {
    word(bytes) & 0xffff_ffff_ffff
}

impl Needles {
    /// Of names, each at least [`NAME_MIN`] long, and samples of plaintext. The second value counts windows left out
    /// because they have too few distinct bytes.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a [u8]>, samples: &[Vec<u8>]) -> (Self, u64) {
        let mut needles = Self {
            names: HashMap::new(),
            name_filter: Filter::new(20),
            windows: HashSet::new(),
            words: Filter::new(24),
            longest: WINDOW,
        };
        for name in names {
            assert!(name.len() >= NAME_MIN, "a short name would be found by chance");
            let mut padded = name[..NAME_MIN].to_vec();
            padded.resize(8, 0);
            let key = head(&padded);
            needles.name_filter.add(key);
            needles.longest = needles.longest.max(name.len());
            needles.names.entry(key).or_default().push(name.to_vec());
        }
        let mut poor = 0;
        for sample in samples {
            for window in sample.windows(WINDOW) {
                if is_poor(window) {
                    poor += 1;
                } else {
                    needles.windows.insert(window.try_into().expect("of its length"));
                }
            }
            for eight in sample.windows(8) {
                needles.words.add(word(eight));
            }
        }
        (needles, poor)
    }

    /// How many names are looked for.
    pub fn names(&self) -> usize {
        self.names.values().map(Vec::len).sum()
    }

    /// How many different windows are looked for.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// One of the names.
    pub fn any_name(&self) -> Option<&[u8]> {
        self.names.values().flatten().next().map(Vec::as_slice)
    }

    /// One of the windows.
    pub fn any_window(&self) -> Option<&[u8]> {
        self.windows.iter().next().map(|window| &window[..])
    }

    /// Leaves out what was found before anything was stored.
    pub fn leave_out(&mut self, finds: &[Find]) {
        for find in finds {
            match &find.what {
                What::Name(name) => {
                    self.names.values_mut().for_each(|list| list.retain(|known| known != name))
                }
                What::Window(window) => drop(self.windows.remove(window)),
            }
        }
    }

    /// Searches all regular files below some folders.
    pub fn search(&self, folders: &[PathBuf]) -> std::io::Result<Searched> {
        let mut files = Vec::new();
        for folder in folders {
            list(folder, &mut files)?;
        }
        let next = AtomicUsize::new(0);
        let total = Mutex::new((Searched::default(), None));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut finds = Vec::new();
                        let read = self.search_file(file, &mut finds);
                        let mut total = total.lock().expect("no searcher panics");
                        total.0.files += 1;
                        match read {
                            Ok(bytes) => total.0.bytes += bytes,
                            Err(error) => total.1 = Some(error),
                        }
                        let room = FINDS_MAX.saturating_sub(total.0.finds.len());
                        total.0.finds.extend(finds.into_iter().take(room));
                    }
                });
            }
        });
        match total.into_inner().expect("no searcher panics") {
            (_, Some(error)) => Err(error),
            (searched, None) => Ok(searched),
        }
    }

    fn search_file(&self, path: &Path, finds: &mut Vec<Find>) -> std::io::Result<u64> {
        let mut file = File::open(path)?;
        // Whole words, so that a word is aligned in the buffer when it is in the file.
        let keep = self.longest.next_multiple_of(8);
        let mut buffer = vec![0; keep + PIECE + 8];
        let (mut held, mut bytes) = (0, 0);
        loop {
            let mut filled = held;
            while filled < keep + PIECE {
                match file.read(&mut buffer[filled..keep + PIECE])? {
                    0 => break,
                    read => filled += read,
                }
            }
            bytes += (filled - held) as u64;
            // Zeros behind the end, so that the last bytes can be read as a word.
            buffer[filled..filled + 8].fill(0);
            self.search_bytes(&buffer[..filled + 8], filled, path, finds);
            if filled < keep + PIECE || finds.len() >= FINDS_MAX {
                return Ok(bytes);
            }
            let start = (filled - keep) / 8 * 8;
            buffer.copy_within(start..filled, 0);
            held = filled - start;
        }
    }

    /// Searches `bytes[..len]`; eight zeros follow.
    fn search_bytes(&self, bytes: &[u8], len: usize, path: &Path, finds: &mut Vec<Find>) {
        let mut found = |what: What| {
            let find = Find { file: path.to_owned(), what };
            if !finds.contains(&find) && finds.len() < FINDS_MAX {
                finds.push(find);
            }
        };
        for block in (0..len).step_by(BLOCK) {
            let end = len.min(block + BLOCK);
            if is_zero(&bytes[block..end]) {
                // No name holds a zero byte, and a window with anything else in it reaches over an edge of the block.
                for at in [block, (end - 1) / 8 * 8] {
                    self.windows_around(at, bytes, len, &mut found);
                }
                continue;
            }
            if !self.names.is_empty() {
                for at in block..end {
                    self.names_at(at, bytes, len, &mut found);
                }
            }
            for at in (block..end).step_by(8) {
                self.windows_around(at, bytes, len, &mut found);
            }
        }
    }

    fn names_at(&self, at: usize, bytes: &[u8], len: usize, found: &mut impl FnMut(What)) {
        let key = head(&bytes[at..]);
        if self.name_filter.may_hold(key) {
            let names = self.names.get(&key).into_iter().flatten();
            names
                .filter(|name| bytes[at..len].starts_with(name))
                .for_each(|name| found(What::Name(name.clone())));
        }
    }

    /// Looks for windows that cover the word at a multiple of 8.
    fn windows_around(&self, at: usize, bytes: &[u8], len: usize, found: &mut impl FnMut(What)) {
        if !self.words.may_hold(word(&bytes[at..])) {
            return;
        }
        for start in at.saturating_sub(8)..=at {
            let Some(window) = bytes[..len].get(start..start + WINDOW) else { continue };
            let window: [u8; WINDOW] = window.try_into().expect("of its length");
            if self.windows.contains(&window) {
                found(What::Window(window));
            }
        }
    }
}

fn is_poor(window: &[u8]) -> bool {
    let mut seen = [false; 256];
    let mut distinct = 0;
    for byte in window {
        distinct += usize::from(!seen[usize::from(*byte)]);
        seen[usize::from(*byte)] = true;
    }
    distinct < DISTINCT_MIN
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |or, byte| or | byte) == 0
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn search(needles: &Needles, content: &[u8]) -> Vec<What> {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("file"), content).expect("writes");
        let searched = needles.search(&[dir.path().to_owned()]).expect("reads");
        assert_eq!((searched.files, searched.bytes), (1, content.len() as u64));
        searched.finds.into_iter().map(|find| find.what).collect()
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Goal: one planted window is found wherever it lies, also across pieces, and its neighbours are not claimed.
        /// Method: 16 bytes of a sample at a random place of noise.
        #[test]
        fn any_window_is_found(at in 0usize..(PIECE + 60_000), from in 0usize..500) {
            let sample = noise(600, 1);
            let (needles, _) = Needles::new([], std::slice::from_ref(&sample));
            let mut content = noise(PIECE + 70_000, 2);
            prop_assert_eq!(search(&needles, &content), vec![]);
            content[at..at + WINDOW].copy_from_slice(&sample[from..from + WINDOW]);
            let wanted = What::Window(sample[from..from + WINDOW].try_into().expect("of its length"));
            prop_assert!(search(&needles, &content).contains(&wanted));
        }

        /// Goal: names of any length are found anywhere. Method: likewise.
        #[test]
        fn any_name_is_found(at in 0usize..(PIECE + 60_000), len in NAME_MIN..300usize) {
            let name = noise(len, 3).iter().map(|byte| byte % 26 + b'a').collect::<Vec<u8>>();
            let (needles, _) = Needles::new([name.as_slice()], &[]);
            let mut content = noise(PIECE + 70_000, 4);
            content[at..at + len].copy_from_slice(&name);
            prop_assert_eq!(search(&needles, &content), vec![What::Name(name)]);
        }
    }

    /// Goal: the very end of a file is searched, and runs of zeros are no evidence. Method: plant there.
    #[test]
    fn ends_and_zeros() {
        let mut sample = vec![0; 64];
        sample.extend(noise(64, 5));
        let (mut needles, poor) = Needles::new([b"letter.txt".as_slice()], std::slice::from_ref(&sample));
        assert!(poor >= 49, "{poor} windows of zeros");
        assert_eq!(search(&needles, &[0; 100_000]), vec![]);
        // A window of zeros but for its last bytes, at the edge of a block of zeros.
        let mut content = vec![0; BLOCK];
        content.extend(&sample[64..70]);
        content.extend(noise(100, 7));
        let edge = What::Window(sample[54..70].try_into().expect("of its length"));
        assert!(search(&needles, &content).contains(&edge));
        let mut content = noise(1001, 6);
        content.extend(b"letter.txt");
        assert_eq!(search(&needles, &content), vec![What::Name(b"letter.txt".to_vec())]);
        content.extend(&sample[112..]);
        let finds = search(&needles, &content);
        assert_eq!(finds.len(), 2);
        needles.leave_out(
            &finds.iter().map(|what| Find { file: PathBuf::new(), what: what.clone() }).collect::<Vec<_>>(),
        );
        assert_eq!(search(&needles, &content), vec![]);
    }
}

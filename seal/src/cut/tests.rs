use fastcdc::v2020::FastCDC;
use proptest::prelude::*;
use std::io::{Cursor, Error};

use super::*;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// All chunks of what a reader gives.
fn all<R: Read>(mut cutter: Cutter<R>) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| cutter.next_chunk().expect("can be read").map(<[u8]>::to_vec)).collect()
}

fn cut(sizes: Sizes, bytes: &[u8]) -> Vec<Vec<u8>> {
    all(Cutter::new(sizes, Cursor::new(bytes)))
}

/// Lengths as the crate that the cuts are from says them.
fn peer(sizes: Sizes, bytes: &[u8]) -> Vec<usize> {
    let [min, average, max] = [sizes.min, sizes.average, sizes.max].map(|size| size as usize);
    FastCDC::with_level(bytes, min, average, max, Normalization::Level1).map(|chunk| chunk.length).collect()
}

/// Goal: sizes are the documented ones, and a chunk always fits an empty stripe. Method: the standard, and every
/// profile.
#[test]
fn sizes_fit_stripes() {
    assert_eq!(Sizes::STANDARD, Sizes { min: 256 << 10, average: 1 << 20, max: 4 << 20 });
    for n in 2..=255 {
        for k in 1..n {
            let profile = Profile::from_k_of_n(k, n).expect("in range");
            let capacity = u32::from(k) * target_slice_len(profile);
            let sizes = Sizes::for_profile(profile);
            assert!(sizes.max() + CHUNK_OVERHEAD <= capacity);
            assert!(sizes == Sizes::STANDARD || capacity < CHUNK_MAX + CHUNK_OVERHEAD);
        }
    }
    assert_eq!(Sizes::for_capacity(SMALLEST_MAX + CHUNK_OVERHEAD - 1), None);
    assert!(Sizes::for_capacity(SMALLEST_MAX + CHUNK_OVERHEAD).is_some());
    assert_eq!(Sizes::for_capacity(0), None);
}

/// Goal: cuts never change, or nothing that is stored would be found again. Method: lengths of a fixed 24 MiB stream.
#[test]
fn cuts_are_stable() {
    let lengths: Vec<usize> = cut(Sizes::STANDARD, &noise(1, 24 << 20)).iter().map(Vec::len).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 24 << 20);
    let (last, inner) = lengths.split_last().expect("not empty");
    assert!(*last <= 4 << 20 && inner.iter().all(|len| (256 << 10..=4 << 20).contains(len)));
    assert_eq!(lengths, GOLDEN);
}

const GOLDEN: &[usize] = &[
    491952, 1049634, 651579, 532654, 3140351, 1903252, 1268433, 1766743, 2072515, 1449882, 1372992, 848913,
    2033847, 729372, 1384502, 1142215, 419131, 1155230, 1418400, 334227,
];

/// Goal: an insertion moves only the cuts around it. Method: insert a byte near the front and count equal chunks.
#[test]
fn insertions_move_few_cuts() {
    let sizes = Sizes::for_capacity(64 << 10).expect("enough");
    let before = noise(2, 4 << 20);
    let mut after = before.clone();
    after.insert(100_000, 0x42);
    let (before, after) = (cut(sizes, &before), cut(sizes, &after));
    let kept = after.iter().filter(|chunk| before.contains(chunk)).count();
    assert!(before.len() > 100 && kept + 8 > before.len(), "{kept} of {} kept", before.len());
}

/// A reader that gives little at a time, is interrupted, and fails once.
struct Stutter<'a> {
    rest: &'a [u8],
    calls: usize,
    fails_at: Option<usize>,
}

impl Read for Stutter<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            return Err(Error::from(ErrorKind::Interrupted));
        }
        if self.fails_at == Some(self.calls) {
            return Err(Error::other("the disk is gone"));
        }
        let count = out.len().min(self.rest.len()).min(1 + self.calls * 37 % 5000);
        out[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

/// Goal: a failed read loses nothing and doubles nothing. Method: fail at many places, ask again, compare.
#[test]
fn failed_reads_can_be_repeated() {
    let sizes = Sizes::for_capacity(16 << 10).expect("enough");
    let bytes = noise(3, 100_000);
    for fails_at in (1..60).filter(|call| call % 3 != 0) {
        let reader = Stutter { rest: &bytes, calls: 0, fails_at: Some(fails_at) };
        let mut cutter = Cutter::new(sizes, reader);
        let (mut chunks, mut failures) = (Vec::new(), 0);
        loop {
            match cutter.next_chunk() {
                Ok(Some(chunk)) => chunks.push(chunk.to_vec()),
                Ok(None) => break,
                Err(_) => failures += 1,
            }
        }
        assert_eq!(failures, usize::from(fails_at <= cutter.source.calls));
        assert_eq!(chunks, cut(sizes, &bytes), "failed at call {fails_at}");
    }
}

/// Goal: memory is bounded by the longest chunk and one read. Method: look at the window while a long stream is cut; a
/// window that is used again changes nothing.
#[test]
fn memory_is_bounded() {
    let sizes = Sizes::for_capacity(300 << 10).expect("enough");
    let mut cutter = Cutter::new(sizes, std::io::repeat(7).take(4 << 20));
    while let Some(chunk) = cutter.next_chunk().expect("can be read") {
        assert!(chunk.len() <= sizes.max() as usize);
        assert!(cutter.window.bytes.len() <= sizes.max() as usize + 2 * READ_STEP);
    }
    let mut small = Cutter::with_window(Sizes::STANDARD, Cursor::new([1; 10]), cutter.into_window());
    assert_eq!(small.next_chunk().expect("can be read"), Some([1; 10].as_slice()));
    assert_eq!(small.next_chunk().expect("can be read"), None);
    let mut small = Cutter::new(Sizes::STANDARD, Cursor::new([1; 10]));
    assert!(small.next_chunk().is_ok_and(|chunk| chunk.is_some()));
    assert!(small.window.bytes.len() <= 2 * READ_STEP);
    assert!(cut(Sizes::STANDARD, &[]).is_empty());
}

/// Goal: cuts are those of the crate where cuts are rare or many, close together or missing. Method: noise, text of few
/// words, runs, and lengths around the edges, cut by both.
#[test]
fn cuts_are_those_of_the_crate() {
    let words: Vec<u8> =
        noise(4, 300_000).iter().flat_map(|byte| format!("{} ", byte % 7).into_bytes()).collect();
    let sources = [noise(5, 700_001), words, vec![0; 200_003], noise(6, 37).repeat(9000)];
    for max in [4 << 10, 16 << 10, 64 << 10, 1 << 20] {
        let sizes = Sizes::for_capacity(max + CHUNK_OVERHEAD).expect("enough");
        let [min, average, max] = [sizes.min, sizes.average, sizes.max].map(|size| size as usize);
        for source in &sources {
            let edges = [min, average, max].into_iter().flat_map(|edge| edge.saturating_sub(2)..edge + 3);
            for len in edges.chain([source.len(), source.len() - 1]).filter(|len| *len <= source.len()) {
                let lengths: Vec<usize> = cut(sizes, &source[..len]).iter().map(Vec::len).collect();
                assert_eq!(lengths, peer(sizes, &source[..len]), "{len} bytes, at most {max}");
            }
        }
    }
}

/// Goal: two scans at once find what one finds, whichever of them comes first. Method: masks of few bits, so that both
/// find something close together, against one scan of everything.
#[test]
fn two_scans_are_one() {
    let bytes = noise(8, 40 * LANE);
    for bits in 1..16 {
        let mask = ((1_u64 << bits) - 1) << 40;
        for begin in (0..bytes.len() - 3 * LANE).step_by(997) {
            let (mut one, mut two) = (Gear::new(), Gear::new());
            let found = two.scan(&bytes[begin..begin + 3 * LANE], mask);
            assert_eq!(
                found,
                one.scan_one(&bytes[begin..begin + 3 * LANE], mask),
                "{bits} bits from {begin}"
            );
            assert!(found.is_some() || one.hash == two.hash);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Goal: how bytes arrive changes nothing, and nothing is lost. Method: whole against stuttering readers.
    #[test]
    fn arrival_does_not_matter(seed in any::<u64>(), len in 0_usize..150_000, period in 1_usize..9000) {
        let sizes = Sizes::for_capacity(16 << 10).expect("enough");
        let bytes: Vec<u8> = noise(seed, period).into_iter().cycle().take(len).collect();
        let stuttered = all(Cutter::new(sizes, Stutter { rest: &bytes, calls: 0, fails_at: None }));
        let lengths: Vec<usize> = stuttered.iter().map(Vec::len).collect();
        prop_assert_eq!(lengths, peer(sizes, &bytes));
        prop_assert_eq!(stuttered.concat(), &bytes[..]);
        prop_assert_eq!(stuttered, cut(sizes, &bytes));
    }
}

//! Cuts a blob into chunks where its content says so, so that an insertion moves few cuts. FastCDC, the 2020 form
//! (Xia et al., IEEE TPDS 31(9)), normalisation level 1: 256 KiB at least, 1 MiB on average, 4 MiB at most.
//!
//! Guarantees: the same bytes give the same cuts, however they arrive; memory is bounded by the longest chunk and one
//! read.
//!
//! The cuts, the gear table and the masks are those of the crate `fastcdc`, version 5, and a test holds them together. The
//! scan is our own, for two reasons. It goes on where it stopped when more bytes arrive, so what is read is scanned while
//! it is in cache and nothing is read ahead of the cut; the crate wants the longest chunk in memory before it looks. And it
//! looks at two places at once: the hash of a byte waits for that of the byte before, but it reaches back 64 bytes only,
//! so a second scan can begin further on.
//!
//! Rejected: MinCDC (crate `mothcdc`), four times as fast. It cuts elsewhere, so no chunk stored before would be found
//! again, in return for a tenth of a put's time; and it is a young fork of one author.
//!
//! Does not hide lengths behind a secret: stripes are masked, so nobody sees where chunks begin.

use std::io::{ErrorKind, Read};

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};
use tallow_types::limits::CHUNK_MAX;
use tallow_types::profile::Profile;

use crate::chunk::CHUNK_OVERHEAD;
use crate::stripe::target_slice_len;

/// Bytes read at once: they are still in cache when they are scanned.
const READ_STEP: usize = 128 << 10;
const SMALLEST_MAX: u32 = 4 << 10;
/// Bytes that each of two scans side by side goes over before they are compared.
const LANE: usize = 4 << 10;
/// Bytes that the hash reaches back: an older one has been shifted out.
const REACH: usize = 64;

/// How long chunks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    min: u32,
    average: u32,
    max: u32,
}

impl Sizes {
    /// 256 KiB, 1 MiB, 4 MiB.
    pub const STANDARD: Self = Self::with_max(CHUNK_MAX);

    const fn with_max(max: u32) -> Self {
        Self { min: even(max / 16), average: even(max / 4), max: even(max) }
    }

    /// The sizes for stripes of a profile: the standard ones, unless a full stripe is too small to hold the longest
    /// chunk, as with one data slice.
    ///
    /// # Panics
    /// Never: the smallest full stripe there is holds 128 KiB.
    #[must_use]
    pub fn for_profile(profile: Profile) -> Self {
        let capacity = u32::from(profile.data()) * target_slice_len(profile);
        Self::for_capacity(capacity).expect("a full stripe of any profile holds 128 KiB")
    }

    /// The sizes for streams of at most `capacity` bytes; `None` below what cutting by content takes, some 4 KiB.
    #[must_use]
    pub fn for_capacity(capacity: u32) -> Option<Self> {
        let max = capacity.checked_sub(CHUNK_OVERHEAD)?.min(CHUNK_MAX);
        (max >= SMALLEST_MAX).then_some(Self::with_max(max))
    }

    /// The longest chunk. Bytes.
    #[must_use]
    pub const fn max(self) -> u32 {
        self.max
    }
}

/// The cutter steps two bytes at a time.
const fn even(size: u32) -> u32 {
    size - size % 2
}

/// The rolling hash over bytes, and the question whether it says to cut.
struct Gear {
    table: [u64; 256],
    /// The table shifted by one: two bytes are taken into the hash with one shift.
    shifted: [u64; 256],
    hash: u64,
}

impl Gear {
    fn new() -> Self {
        let (table, shifted) = get_gear_with_seed(0);
        let mut gear = Self { table: [0; 256], shifted: [0; 256], hash: 0 };
        gear.table.copy_from_slice(&table);
        gear.shifted.copy_from_slice(&shifted);
        gear
    }

    /// Goes over bytes, and stops before the first one at which to cut.
    fn scan(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        let mut done = 0;
        for both in bytes.chunks_exact(2 * LANE) {
            let (near, far) = both.split_at(LANE);
            if self.scan_two(near, far, mask) {
                // Rare enough to look again, one by one.
                let found = self.scan_one(near, mask);
                let found = found.or_else(|| self.scan_one(far, mask).map(|at| LANE + at));
                return found.map(|at| done + at);
            }
            done += both.len();
        }
        self.scan_one(&bytes[done..], mask).map(|at| done + at)
    }

    fn scan_one(&mut self, bytes: &[u8], mask: u64) -> Option<usize> {
        let mut hash = self.hash;
        let found = bytes.iter().position(|byte| {
            hash = (hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            hash & mask == 0
        });
        self.hash = hash;
        found
    }

    /// Two neighbours of one length at the same time: whether there is a cut in them. What the hash of the second one
    /// reaches back to lies in the first. Goes on behind both only if there is none.
    fn scan_two(&mut self, near: &[u8], far: &[u8], mask: u64) -> bool {
        let mut ahead = 0_u64;
        for byte in &near[near.len() - REACH..] {
            ahead = (ahead << 1).wrapping_add(self.table[usize::from(*byte)]);
        }
        let mut hash = self.hash;
        let (table, shifted, twice) = (&self.table, &self.shifted, mask << 1);
        let pairs = near.as_chunks::<2>().0.iter().zip(far.as_chunks::<2>().0);
        for ([a, b], [c, d]) in pairs {
            hash = (hash << 2).wrapping_add(shifted[usize::from(*a)]);
            ahead = (ahead << 2).wrapping_add(shifted[usize::from(*c)]);
            if hash & twice == 0 || ahead & twice == 0 {
                return true;
            }
            hash = hash.wrapping_add(table[usize::from(*b)]);
            ahead = ahead.wrapping_add(table[usize::from(*d)]);
            if hash & mask == 0 || ahead & mask == 0 {
                return true;
            }
        }
        self.hash = ahead;
        false
    }
}

/// Cuts what a reader gives.
pub struct Cutter<R> {
    source: R,
    sizes: Sizes,
    window: Window,
    gear: Gear,
    /// Strict below the average length, and loose above it.
    masks: (u64, u64),
    is_at_end: bool,
}

/// Memory for what was read and is not cut yet. It can be used for one reader after another.
#[derive(Default)]
pub struct Window {
    bytes: Vec<u8>,
    /// Where the chunk in the making begins.
    begin: usize,
    /// How much of it the scan has seen.
    seen: usize,
    /// Where what was read ends.
    end: usize,
}

impl Window {
    const fn len(&self) -> usize {
        self.end - self.begin
    }

    /// Room for another read. What is cut is overwritten as soon as that moves fewer bytes than it makes free; the window
    /// grows with what is there, so that small files cost little.
    fn room(&mut self) -> &mut [u8] {
        if self.len() <= self.begin {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.len());
        }
        let wanted = self.end + READ_STEP;
        if self.bytes.len() < wanted {
            self.bytes.reserve_exact(wanted - self.bytes.len());
            self.bytes.resize(wanted, 0);
        }
        &mut self.bytes[self.end..wanted]
    }
}

impl<R: Read> Cutter<R> {
    /// Begins at the reader's position.
    #[must_use]
    pub fn new(sizes: Sizes, source: R) -> Self {
        Self::with_window(sizes, source, Window::default())
    }

    /// The same with memory that another cutter used before.
    #[must_use]
    pub fn with_window(sizes: Sizes, source: R, mut window: Window) -> Self {
        (window.begin, window.seen, window.end) = (0, 0, 0);
        let masks = select_masks(sizes.average as usize, Normalization::Level1);
        Self { source, sizes, window, gear: Gear::new(), masks, is_at_end: false }
    }

    /// Its memory, for the next one.
    #[must_use]
    pub fn into_window(self) -> Window {
        self.window
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// What the reader says, except for interruptions. Nothing read is lost: the call may be repeated.
    pub fn next_chunk(&mut self) -> std::io::Result<Option<&[u8]>> {
        let len = loop {
            if let Some(len) = self.cut() {
                break len;
            }
            match self.source.read(self.window.room()) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.window.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let begin = self.window.begin;
        self.window.begin += len;
        self.window.seen = 0;
        self.gear.hash = 0;
        Ok((len > 0).then(|| &self.window.bytes[begin..begin + len]))
    }

    /// The length of the next chunk, if what was read says it; 0 at the end of everything.
    fn cut(&mut self) -> Option<usize> {
        let [min, average, max] =
            [self.sizes.min, self.sizes.average, self.sizes.max].map(|size| size as usize);
        let known = self.window.len().min(max);
        // The format's scan goes by two bytes, so an odd last one is never asked.
        let end = known - known % 2;
        self.window.seen = self.window.seen.max(min.min(end));
        for (mask, until) in [(self.masks.0, average.min(end)), (self.masks.1, end)] {
            let (begin, seen) = (self.window.begin, self.window.seen);
            if seen >= until {
                continue;
            }
            if let Some(at) = self.gear.scan(&self.window.bytes[begin + seen..begin + until], mask) {
                return Some(seen + at);
            }
            self.window.seen = until;
        }
        (known == max || self.is_at_end).then_some(known)
    }
}

#[cfg(test)]
mod tests;

//! Cuts a blob into chunks where its content says so, so that an insertion moves few cuts. FastCDC, the 2020 form
//! (Xia et al., IEEE TPDS 31(9)), normalisation level 1: 256 KiB at least, 1 MiB on average, 4 MiB at most.
//!
//! Guarantees: the same bytes give the same cuts, however they arrive; memory is bounded by the longest chunk.
//!
//! Does not hide lengths behind a secret: stripes are masked, so nobody sees where chunks begin.

use std::io::{ErrorKind, Read};

use fastcdc::v2020::{FastCDC, Normalization};
use tallow_types::limits::CHUNK_MAX;
use tallow_types::profile::Profile;

use crate::chunk::CHUNK_OVERHEAD;
use crate::stripe::target_slice_len;

const READ_STEP: usize = 64 << 10;
const SMALLEST_MAX: u32 = 4 << 10;

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

/// Cuts what a reader gives.
pub struct Cutter<R> {
    source: R,
    sizes: Sizes,
    window: Vec<u8>,
    is_at_end: bool,
}

impl<R: Read> Cutter<R> {
    /// Begins at the reader's position.
    pub const fn new(sizes: Sizes, source: R) -> Self {
        Self { source, sizes, window: Vec::new(), is_at_end: false }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// What the reader says, except for interruptions. Nothing read is lost: the call may be repeated.
    pub fn next_chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        self.fill()?;
        if self.window.is_empty() {
            return Ok(None);
        }
        let Sizes { min, average, max } = self.sizes;
        let [min, average, max] = [min, average, max].map(|size| size as usize);
        let cutter = FastCDC::with_level(&self.window, min, average, max, Normalization::Level1);
        let (_, cut) = cutter.cut(0, self.window.len());
        let chunk = self.window[..cut].to_vec();
        self.window.drain(..cut);
        Ok(Some(chunk))
    }

    /// Reads until the window holds the longest chunk, or all there is. It grows with what is there, so that small
    /// files cost little.
    fn fill(&mut self) -> std::io::Result<()> {
        let max = self.sizes.max as usize;
        while !self.is_at_end && self.window.len() < max {
            let len = self.window.len();
            let step = len.max(READ_STEP).min(max - len);
            self.window.reserve_exact(step);
            self.window.resize(len + step, 0);
            let read = self.source.read(&mut self.window[len..]);
            self.window.truncate(len + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(count) => self.is_at_end = count == 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! AVX2: looks products of half bytes up, 32 at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Lanes};
use crate::field::NIBBLES;

/// Rows at once: 3 by 2 of the 16 registers are sums, 4 are halves of sources and 2 are tables.
pub(super) const GROUP: usize = 3;

pub(super) fn usable() -> bool {
    is_x86_feature_detected!("avx2")
}

#[derive(Clone, Copy)]
struct Ymm(__m256i);

/// Of a source its half bytes, of a factor their products.
#[derive(Clone, Copy)]
struct Halves {
    low: __m256i,
    high: __m256i,
}

// SAFETY of all blocks: the caller promises the features and the bytes, as the trait says.
impl Lanes for Ymm {
    const WIDTH: usize = 32;
    type Source = Halves;
    type Factor = Halves;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: See above.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Halves {
        // SAFETY: See above.
        unsafe {
            let low = _mm256_set1_epi8(0x0f);
            let high = _mm256_srli_epi64::<4>(self.0);
            Halves { low: _mm256_and_si256(self.0, low), high: _mm256_and_si256(high, low) }
        }
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> Halves {
        let tables = NIBBLES[usize::from(factor)].as_ptr();
        // SAFETY: See above; a table has 16 bytes for the low halves and 16 for the high ones.
        unsafe {
            let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.cast()));
            let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.add(16).cast()));
            Halves { low, high }
        }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Halves, source: Halves) -> Self {
        // SAFETY: See above.
        unsafe {
            let low = _mm256_shuffle_epi8(factor.low, source.low);
            let high = _mm256_shuffle_epi8(factor.high, source.high);
            Self(_mm256_xor_si256(self.0, _mm256_xor_si256(low, high)))
        }
    }
}

#[target_feature(enable = "avx2")]
fn tiles<const R: usize, const C: usize>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    out: &mut [&mut [u8]],
    columns: Range<usize>,
) {
    // SAFETY: This function has the features.
    unsafe { tile::multiply::<Ymm, R, C, 1>(rows, sources, out, columns) }
}

/// # Safety
/// Only where [`usable`].
pub(super) unsafe fn multiply(
    rows: &[&[u8]],
    sources: &[&[u8]],
    out: &mut [&mut [u8]],
    columns: Range<usize>,
) {
    let tiles = match rows.len() {
        1 => tiles::<1, 2>,
        2 => tiles::<2, 2>,
        _ => tiles::<3, 2>,
    };
    // SAFETY: The caller has asked whether this engine is usable.
    unsafe { tiles(rows, sources, out, columns) }
}

//! GFNI in registers of 32 bytes, for processors that have it without AVX-512.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Lanes};
use crate::field::AFFINE;

/// Rows at once: 5 by 2 of the 16 registers are sums.
pub(super) const GROUP: usize = 5;

pub(super) fn usable() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni")
}

#[derive(Clone, Copy)]
struct Ymm(__m256i);

// SAFETY of all blocks: the caller promises the features and the bytes, as the trait says.
impl Lanes for Ymm {
    const WIDTH: usize = 32;
    type Source = Self;
    type Factor = Self;

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
    unsafe fn source(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm256_set1_epi64x(AFFINE[usize::from(factor)].cast_signed()) })
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Self, source: Self) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm256_xor_si256(self.0, _mm256_gf2p8affine_epi64_epi8::<0>(source.0, factor.0)) })
    }
}

#[target_feature(enable = "avx2,gfni")]
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
        1 => tiles::<1, 4>,
        2 => tiles::<2, 4>,
        3 => tiles::<3, 2>,
        4 => tiles::<4, 2>,
        _ => tiles::<5, 2>,
    };
    // SAFETY: The caller has asked whether this engine is usable.
    unsafe { tiles(rows, sources, out, columns) }
}

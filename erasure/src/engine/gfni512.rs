//! GFNI in registers of 64 bytes: one instruction multiplies each byte by an 8 x 8 matrix of bits.
//!
//! Multiplying by a factor is linear in the bits of the other, so there is a matrix for it. GFNI's own product of field
//! elements is of no use: its polynomial is another one.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Lanes};
use crate::field::AFFINE;

/// Rows at once: 5 by 3 of the 32 registers are sums, 2 by 3 are sources.
pub(super) const GROUP: usize = 5;

pub(super) fn usable() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("gfni")
}

#[derive(Clone, Copy)]
struct Zmm(__m512i);

/// The lowest `len` of 64 bytes.
fn first(len: usize) -> __mmask64 {
    debug_assert!(0 < len && len <= 64);
    u64::MAX >> (64 - len)
}

// SAFETY of all blocks: the caller promises the features and the bytes, as the trait says; masked loads and stores touch
// no byte that is not in the mask.
impl Lanes for Zmm {
    const WIDTH: usize = 64;
    type Source = Self;
    type Factor = Self;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm512_loadu_si512(from.cast()) })
    }

    #[inline(always)]
    unsafe fn load_part(from: *const u8, len: usize) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm512_maskz_loadu_epi8(first(len), from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: See above.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        // SAFETY: See above.
        unsafe { _mm512_mask_storeu_epi8(to.cast(), first(len), self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm512_set1_epi64(AFFINE[usize::from(factor)].cast_signed()) })
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Self, source: Self) -> Self {
        // SAFETY: See above.
        Self(unsafe { _mm512_xor_si512(self.0, _mm512_gf2p8affine_epi64_epi8::<0>(source.0, factor.0)) })
    }
}

#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn tiles<const R: usize, const C: usize>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    out: &mut [&mut [u8]],
    columns: Range<usize>,
) {
    // Two sources at a time, as AVX-512 adds three registers in one instruction.
    // SAFETY: This function has the features.
    unsafe { tile::multiply::<Zmm, R, C, 2>(rows, sources, out, columns) }
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
        1 => tiles::<1, 8>,
        2 => tiles::<2, 4>,
        3 => tiles::<3, 4>,
        4 => tiles::<4, 3>,
        _ => tiles::<5, 3>,
    };
    // SAFETY: The caller has asked whether this engine is usable.
    unsafe { tiles(rows, sources, out, columns) }
}

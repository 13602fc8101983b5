//! NEON, of every 64-bit ARM processor: looks products of half bytes up, 16 at once.

use std::arch::aarch64::*;
use std::ops::Range;

use super::tile::{self, Lanes};
use crate::field::NIBBLES;

/// Rows at once: 4 by 4 of the 32 registers are sums, 8 are halves of sources and 2 are tables.
pub(super) const GROUP: usize = 4;

pub(super) fn usable() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

#[derive(Clone, Copy)]
struct Vector(uint8x16_t);

/// Of a source its half bytes, of a factor their products.
#[derive(Clone, Copy)]
struct Halves {
    low: uint8x16_t,
    high: uint8x16_t,
}

// SAFETY of all blocks: the caller promises the features and the bytes, as the trait says.
impl Lanes for Vector {
    const WIDTH: usize = 16;
    type Source = Halves;
    type Factor = Halves;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: See above.
        Self(unsafe { vdupq_n_u8(0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: See above.
        Self(unsafe { vld1q_u8(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: See above.
        unsafe { vst1q_u8(to, self.0) }
    }

    #[inline(always)]
    unsafe fn source(self) -> Halves {
        // SAFETY: See above.
        unsafe { Halves { low: vandq_u8(self.0, vdupq_n_u8(0x0f)), high: vshrq_n_u8::<4>(self.0) } }
    }

    #[inline(always)]
    unsafe fn factor(factor: u8) -> Halves {
        let tables = NIBBLES[usize::from(factor)].as_ptr();
        // SAFETY: See above; a table has 16 bytes for the low halves and 16 for the high ones.
        unsafe { Halves { low: vld1q_u8(tables), high: vld1q_u8(tables.add(16)) } }
    }

    #[inline(always)]
    unsafe fn add_product(self, factor: Halves, source: Halves) -> Self {
        // SAFETY: See above.
        unsafe {
            let low = vqtbl1q_u8(factor.low, source.low);
            let high = vqtbl1q_u8(factor.high, source.high);
            Self(veorq_u8(self.0, veorq_u8(low, high)))
        }
    }
}

#[target_feature(enable = "neon")]
fn tiles<const R: usize, const C: usize>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    out: &mut [&mut [u8]],
    columns: Range<usize>,
) {
    // SAFETY: This function has the features.
    unsafe { tile::multiply::<Vector, R, C, 1>(rows, sources, out, columns) }
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
        3 => tiles::<3, 4>,
        _ => tiles::<4, 4>,
    };
    // SAFETY: The caller has asked whether this engine is usable.
    unsafe { tiles(rows, sources, out, columns) }
}

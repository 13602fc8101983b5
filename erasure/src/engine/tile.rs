//! The loop of all engines that have registers of many bytes: the only place that walks through memory by pointer.
//!
//! A tile is R rows by C registers of columns. Its sums stay in registers while the sources go by once, so each byte of a
//! source is loaded once for R rows, and outputs are only ever written.

#![expect(
    clippy::needless_range_loop,
    reason = "loops by index are unrolled, so that their arrays become registers"
)]

use std::ops::Range;

/// A register full of columns.
///
/// # Safety
/// All methods need the processor features of the engine. Those with pointers touch `WIDTH` bytes from there on, or the
/// first `len` of them, and no others; pointers need no alignment.
pub(super) trait Lanes: Copy {
    /// Bytes in a register, at most [`WIDTH_MAX`].
    const WIDTH: usize;
    /// A source in the form in which factors are applied to it.
    type Source: Copy;
    /// A factor in the form in which it is applied.
    type Factor: Copy;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    unsafe fn source(self) -> Self::Source;
    unsafe fn factor(factor: u8) -> Self::Factor;

    /// `self + factor * source`, in each byte.
    unsafe fn add_product(self, factor: Self::Factor, source: Self::Source) -> Self;

    /// Loads the first `len` bytes, at most a register; the others are of no matter.
    #[inline(always)]
    unsafe fn load_part(from: *const u8, len: usize) -> Self {
        let mut whole = [0; WIDTH_MAX];
        // SAFETY: The caller has `len` bytes there to read, and the slicing checks that `whole` has as many. A register
        // is no wider than `whole`.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole[..len].as_mut_ptr(), len);
            Self::load(whole.as_ptr())
        }
    }

    /// Stores the first `len` bytes, at most a register.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut u8, len: usize) {
        let mut whole = [0; WIDTH_MAX];
        // SAFETY: A register is no wider than `whole`. The slicing checks that it has `len` bytes, and the caller has as
        // many to write to.
        unsafe {
            self.store(whole.as_mut_ptr());
            std::ptr::copy_nonoverlapping(whole[..len].as_ptr(), to, len);
        }
    }
}

/// The widest register there is.
pub(super) const WIDTH_MAX: usize = 64;

/// Makes `out[r] = sum over s of rows[r][s] * sources[s]` in some columns, S sources at a time.
///
/// # Safety
/// The processor has the features of `V`.
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, const R: usize, const C: usize, const S: usize>(
    rows: &[&[u8]],
    sources: &[&[u8]],
    out: &mut [&mut [u8]],
    columns: Range<usize>,
) {
    // What all unsafe code below relies on.
    assert!(rows.iter().all(|row| row.len() == sources.len()), "a factor for each source");
    assert!(sources.iter().all(|source| columns.end <= source.len()), "sources have these columns");
    assert!(out.iter().all(|out| columns.end <= out.len()), "outputs have these columns");
    let rows: &[&[u8]; R] = rows.try_into().expect("R rows");
    let out: &mut [&mut [u8]; R] = out.try_into().expect("R outputs");

    let mut at = columns.start;
    while at + C * V::WIDTH <= columns.end {
        // SAFETY: The loop ends before a tile would pass the end of the columns, and what is asserted above holds. The
        // outputs are borrowed for writing, so they overlap nothing.
        unsafe {
            let mut sums = [[V::zero(); C]; R];
            let mut first = 0;
            while first + S <= sources.len() {
                add::<V, R, C, S>(&mut sums, rows, sources, first, at);
                first += S;
            }
            while first < sources.len() {
                add::<V, R, C, 1>(&mut sums, rows, sources, first, at);
                first += 1;
            }
            for r in 0..R {
                for c in 0..C {
                    sums[r][c].store(out[r].as_mut_ptr().add(at + c * V::WIDTH));
                }
            }
        }
        at += C * V::WIDTH;
    }
    while at < columns.end {
        let len = V::WIDTH.min(columns.end - at);
        // SAFETY: As above, with `len` columns that are before the end.
        unsafe {
            let mut sums = [V::zero(); R];
            for (s, source) in sources.iter().enumerate() {
                let part = V::load_part(source.as_ptr().add(at), len).source();
                for r in 0..R {
                    sums[r] = sums[r].add_product(V::factor(rows[r][s]), part);
                }
            }
            for r in 0..R {
                sums[r].store_part(out[r].as_mut_ptr().add(at), len);
            }
        }
        at += len;
    }
}

/// Adds the products of S sources to the sums of a tile. With two at a time a compiler may add both products to a sum
/// in one instruction.
///
/// # Safety
/// The processor has the features of `V`; there are `first + S` sources, and factors in each row; each source has
/// C registers of columns from `at` on.
#[inline(always)]
unsafe fn add<V: Lanes, const R: usize, const C: usize, const S: usize>(
    sums: &mut [[V; C]; R],
    rows: &[&[u8]; R],
    sources: &[&[u8]],
    first: usize,
    at: usize,
) {
    // SAFETY: The caller promises all of it.
    unsafe {
        let mut parts = [[V::zero().source(); C]; S];
        for s in 0..S {
            let from = sources.get_unchecked(first + s).as_ptr().add(at);
            for c in 0..C {
                parts[s][c] = V::load(from.add(c * V::WIDTH)).source();
            }
        }
        for r in 0..R {
            for s in 0..S {
                let factor = V::factor(*rows[r].get_unchecked(first + s));
                for c in 0..C {
                    sums[r][c] = sums[r][c].add_product(factor, parts[s][c]);
                }
            }
        }
    }
}

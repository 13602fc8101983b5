//! The loop of all engines that have registers of many bytes: the only place that walks through memory by pointer.
//!
//! A tile is R rows by C registers of columns. Its sums stay in registers while the sources go by once, so each byte of a
//! source is loaded once for R rows, and outputs are only ever written.

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

/// Makes `out[r] = sum over s of rows[r][s] * sources[s]` in some columns.
///
/// # Safety
/// The processor has the features of `V`.
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, const R: usize, const C: usize>(
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
            for (s, source) in sources.iter().enumerate() {
                let mut split = [V::zero().source(); C];
                for (c, split) in split.iter_mut().enumerate() {
                    *split = V::load(source.as_ptr().add(at + c * V::WIDTH)).source();
                }
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let factor = V::factor(*row.get_unchecked(s));
                    for (sum, split) in sums.iter_mut().zip(split) {
                        *sum = sum.add_product(factor, split);
                    }
                }
            }
            for (sums, out) in sums.into_iter().zip(out.iter_mut()) {
                for (c, sum) in sums.into_iter().enumerate() {
                    sum.store(out.as_mut_ptr().add(at + c * V::WIDTH));
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
                let split = V::load_part(source.as_ptr().add(at), len).source();
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum = sum.add_product(V::factor(*row.get_unchecked(s)), split);
                }
            }
            for (sum, out) in sums.into_iter().zip(out.iter_mut()) {
                sum.store_part(out.as_mut_ptr().add(at), len);
            }
        }
        at += len;
    }
}

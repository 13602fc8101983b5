//! Engines: what multiplies rows of factors with slices, each for what some processors can.
//!
//! All give the same bytes. `unsafe` is allowed below here and nowhere else: in the loop over registers (`tile`), and in
//! the few instructions that each engine gives it.

#![allow(
    unsafe_code,
    reason = "instructions that the compiler does not use by itself, on memory that tile checks"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni256;
#[cfg(target_arch = "x86_64")]
mod gfni512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tile;

use std::ops::Range;

/// Columns that are worked on for all rows before the next ones, so that sources are read from cache by all groups of
/// rows but the first. A multiple of all tiles.
const BLOCK: usize = 4608;

/// Makes `out[r] = sum over s of rows[r][s] * sources[s]`, in some columns, for no more rows than the engine's group.
type Kernel = unsafe fn(rows: &[&[u8]], sources: &[&[u8]], out: &mut [&mut [u8]], columns: Range<usize>);

/// One way to multiply, that this processor has.
#[derive(Clone, Copy)]
pub struct Engine(&'static Description);

struct Description {
    name: &'static str,
    usable: fn() -> bool,
    /// Rows whose sums fit in registers at once.
    group: usize,
    /// # Safety
    /// Only where `usable`.
    kernel: Kernel,
}

/// All of them, the fastest first.
static ENGINES: &[Description] = &[
    #[cfg(target_arch = "x86_64")]
    Description {
        name: "gfni-512",
        usable: gfni512::usable,
        group: gfni512::GROUP,
        kernel: gfni512::multiply,
    },
    #[cfg(target_arch = "x86_64")]
    Description {
        name: "gfni-256",
        usable: gfni256::usable,
        group: gfni256::GROUP,
        kernel: gfni256::multiply,
    },
    #[cfg(target_arch = "x86_64")]
    Description { name: "avx2", usable: avx2::usable, group: avx2::GROUP, kernel: avx2::multiply },
    #[cfg(target_arch = "aarch64")]
    Description { name: "neon", usable: neon::usable, group: neon::GROUP, kernel: neon::multiply },
    Description { name: "portable", usable: || true, group: usize::MAX, kernel: portable::multiply },
];

impl Engine {
    /// Every engine that this processor has, the fastest first; the last is the portable one.
    pub fn available() -> impl Iterator<Item = Self> {
        ENGINES.iter().filter(|engine| (engine.usable)()).map(Self)
    }

    /// The fastest of this processor.
    ///
    /// # Panics
    /// Never: the portable one runs anywhere.
    #[must_use]
    pub fn best() -> Self {
        Self::available().next().expect("the portable engine runs anywhere")
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Makes `out[r] = sum over s of rows[r][s] * sources[s]`, where all sources and outputs have one length.
    pub(crate) fn multiply(self, rows: &[&[u8]], sources: &[&[u8]], out: &mut [&mut [u8]]) {
        let len = out.first().map_or(0, |out| out.len());
        let groups = rows.len().div_ceil(self.0.group).max(1);
        let group = rows.len().div_ceil(groups).max(1);
        let block = if groups == 1 { len.max(1) } else { BLOCK };
        for begin in (0..len).step_by(block) {
            let columns = begin..len.min(begin + block);
            for (rows, out) in rows.chunks(group).zip(out.chunks_mut(group)) {
                // SAFETY: Engines are handed out by `available` alone, so this processor has what the kernel needs.
                unsafe { (self.0.kernel)(rows, sources, out, columns.clone()) };
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests;

//! The engine of every processor: safe code that compilers turn into whatever vector instructions they may use.
//!
//! A factor is a sum of powers of two, so a row of the product is, bit by bit of the factors from the highest: twice what
//! there is so far, plus the sources whose factor has that bit. The doublings are shared by all sources, and adding is
//! XOR.

use std::ops::Range;

use crate::field;

/// Columns worked on at once: what half of the smallest vector registers hold.
const WIDTH: usize = 128;

pub(super) fn multiply(rows: &[&[u8]], sources: &[&[u8]], out: &mut [&mut [u8]], columns: Range<usize>) {
    for (row, out) in rows.iter().zip(out) {
        let with_bit = |bit: u8| {
            let factors = row.iter().zip(sources).filter(|(factor, _)| *factor >> bit & 1 == 1);
            factors.map(|(_, source)| &source[columns.clone()]).collect()
        };
        let addends: [Vec<&[u8]>; 8] = [7, 6, 5, 4, 3, 2, 1, 0].map(with_bit);
        let (whole, rest) = out[columns.clone()].as_chunks_mut::<WIDTH>();
        for (chunk, out) in whole.iter_mut().enumerate() {
            *out = sum(&addends, |source| *source[chunk * WIDTH..].first_chunk().expect("as long as out"));
        }
        let done = whole.len() * WIDTH;
        if !rest.is_empty() {
            let padded = |source: &[u8]| {
                let mut bytes = [0; WIDTH];
                bytes[..rest.len()].copy_from_slice(&source[done..]);
                bytes
            };
            let last = sum(&addends, padded);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// The sum of a few columns of sources, which are in the order of the bits of their factors. Loops by index
/// over whole arrays are what compilers keep in registers: three times as fast as iterators.
#[inline(always)]
fn sum(addends: &[Vec<&[u8]>; 8], columns: impl Fn(&[u8]) -> [u8; WIDTH]) -> [u8; WIDTH] {
    let mut sum = [0; WIDTH];
    for addends in addends {
        for byte in &mut sum {
            *byte = field::double(*byte);
        }
        for source in addends {
            let bytes = columns(source);
            for i in 0..WIDTH {
                sum[i] ^= bytes[i];
            }
        }
    }
    sum
}

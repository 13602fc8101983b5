//! The engine of every processor: safe code that compilers turn into whatever vector instructions they may use.
//!
//! A factor is a sum of powers of two, so a row of the product is, bit by bit of the factors from the highest: twice what
//! there is so far, plus the sources whose factor has that bit. The doublings are shared by all sources, and adding is
//! XOR.

use std::ops::Range;

use crate::field;

/// Columns worked on at once, so that they stay in the first cache.
const CHUNK: usize = 1024;

pub(super) fn multiply(rows: &[&[u8]], sources: &[&[u8]], out: &mut [&mut [u8]], columns: Range<usize>) {
    for begin in columns.clone().step_by(CHUNK) {
        let chunk = begin..columns.end.min(begin + CHUNK);
        for (row, out) in rows.iter().zip(out.iter_mut()) {
            multiply_row(row, sources, &mut out[chunk.clone()], &chunk);
        }
    }
}

fn multiply_row(row: &[u8], sources: &[&[u8]], sum: &mut [u8], chunk: &Range<usize>) {
    sum.fill(0);
    for bit in (0..8).rev() {
        if bit != 7 {
            sum.iter_mut().for_each(|byte| *byte = field::double(*byte));
        }
        let with_bit = row.iter().zip(sources).filter(|(factor, _)| *factor >> bit & 1 == 1);
        let mut addends = with_bit.map(|(_, source)| &source[chunk.clone()]);
        // By twos, which reads and writes the sum half as often.
        while let Some(first) = addends.next() {
            match addends.next() {
                Some(second) => {
                    sum.iter_mut().zip(first).zip(second).for_each(|((sum, a), b)| *sum ^= a ^ b);
                }
                None => sum.iter_mut().zip(first).for_each(|(sum, a)| *sum ^= a),
            }
        }
    }
}

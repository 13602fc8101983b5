//! Which factors make the slices of a stripe out of k of them.
//!
//! The code is a polynomial of degree below k per column: slot r has its value at the point r, the byte r itself. The
//! Vandermonde matrix of the format takes coefficients to values, the inverse of its upper part takes the values at
//! 0..k, which are the data, to coefficients. So any slice is the value at its point of the polynomial through any k
//! others, and Lagrange's formula gives its factors without inverting a matrix:
//!
//! factor(r, s) = product over all other sources m of (r - m) / (s - m)

use tallow_types::profile::Profile;

use crate::field::{ORDER, exp, log};
use crate::slots::SlotSet;

/// The factors of every slot of a profile in terms of k of them.
pub(crate) struct Factors {
    sources: usize,
    /// A row of one factor for each source, for each slot.
    rows: Vec<u8>,
}

impl Factors {
    /// For sources that are k slots of the profile.
    pub(crate) fn new(profile: Profile, sources: &SlotSet) -> Self {
        let points: Vec<u8> = sources.iter().collect();
        let mut rows = Vec::with_capacity(usize::from(profile.slots()) * points.len());
        // The divisor of each source is the same in all rows.
        let divisors: Vec<usize> = points.iter().map(|point| log_of_differences(*point, &points)).collect();
        for slot in 0..profile.slots() {
            if sources.contains(slot) {
                rows.extend(points.iter().map(|point| u8::from(*point == slot)));
            } else {
                let dividend = log_of_differences(slot, &points);
                let factor =
                    |(point, divisor): (&u8, &usize)| exp(dividend + 2 * ORDER - log(slot ^ point) - divisor);
                rows.extend(points.iter().zip(&divisors).map(factor));
            }
        }
        Self { sources: points.len(), rows }
    }

    /// The factors of a slot, in ascending order of the sources.
    pub(crate) fn row(&self, slot: u8) -> &[u8] {
        &self.rows[usize::from(slot) * self.sources..][..self.sources]
    }
}

/// The logarithm, below [`ORDER`], of the product of the differences to all other points.
fn log_of_differences(from: u8, points: &[u8]) -> usize {
    points.iter().filter(|point| **point != from).map(|point| log(from ^ point)).sum::<usize>() % ORDER
}

//! One stream between a caller and a server: many requests at once, each with an id, within the credit that the
//! server gave when the stream opened.

mod budget;
pub(crate) mod caller;
pub(crate) mod server;

use crate::exchange::Rule;
use crate::frame::HEAD_LEN;
use tallow_types::limits::{FRAME_HEADER_MAX, FRAME_PAYLOAD_MAX};

/// Credit is counted in units of this. Bytes.
const UNIT: usize = 1 << 10;

/// The least credit that lets every request through: the largest with the largest answer. Units.
pub(crate) const CREDIT_MIN: u32 = to_units(HEAD_LEN + 2 * (FRAME_HEADER_MAX + FRAME_PAYLOAD_MAX));

/// What a request and its answer take of the credit while they are outstanding: the memory that the server may come
/// to hold for them. Both ends compute it from the request alone.
pub(crate) fn units(rule: &Rule, header_len: usize, payload_len: usize) -> u32 {
    to_units(HEAD_LEN + header_len + payload_len + rule.answer_header + rule.answer_payload)
}

/// Longest header of a request that is read before memory is taken for it. Bytes.
pub(crate) const HEADER_FREE: usize = 16 << 10;

/// What a request with a longer header may come to take, before it is known which one it is. Its answer has no
/// payload: see `exchange::check_request`.
pub(crate) fn units_at_most(header_len: usize, payload_len: usize) -> u32 {
    to_units(HEAD_LEN + header_len + payload_len + FRAME_HEADER_MAX)
}

/// Bytes as units, rounded up; at most `u32::MAX`.
pub(crate) const fn to_units(bytes: usize) -> u32 {
    let units = bytes.div_ceil(UNIT);
    #[expect(clippy::cast_possible_truncation, reason = "the branch excludes it")]
    if units > u32::MAX as usize { u32::MAX } else { units as u32 }
}

#[cfg(test)]
mod tests;

//! What only the owner knows: keys from the phrase, sealed chunks, masked stripes, and the records that list blobs and
//! stripes.
//!
//! Guarantees: no nonce and no keystream covers two messages; whatever opens is what was sealed, and unpacks to no more
//! than its limit; every decoder takes any bytes without panicking; the same input gives the same bytes everywhere.
//!
//! Does not contain: the code itself (see `erasure`), input or output, a clock, randomness: random bytes and times are
//! arguments.

mod aead;
pub mod attempt;
pub mod catalog;
pub mod chunk;
pub mod columns;
pub mod cut;
pub mod entry;
pub mod head;
pub mod keys;
pub mod mask;
pub mod path;
pub mod phrase;
pub mod record;
pub mod repair;
pub mod stripe;

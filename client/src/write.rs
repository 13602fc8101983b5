//! Writing: sealed chunks become stripes, stripes become slices at seeders, and a group commit makes them count.
//!
//! ```text
//! put threads -> Packer -> (code, mask, hash) -> Uplink -> one queue a seeder -> Flight settles
//!                                     Committer: lease, records, commit, countersignatures <-'
//! ```
//! Memory: `Tuning::stripes_in_flight` coded stripes, one open stream, and what the put threads hold.

pub(crate) mod carry;
pub(crate) mod cell;
pub(crate) mod commit;
pub(crate) mod committer;
pub(crate) mod countersign;
pub(crate) mod group;
pub(crate) mod lanes;
pub(crate) mod line;
pub(crate) mod packer;
pub(crate) mod poster;
pub(crate) mod repair;
pub(crate) mod session;
pub(crate) mod sweep;
pub(crate) mod tail;
pub(crate) mod uplink;

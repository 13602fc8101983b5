//! Writing: sealed chunks become stripes, stripes become slices at seeders, and a group commit makes them count.
//!
//! ```text
//! put thread: read, cut -> workers: name, look up, seal -> put thread: pack -> coders: code, mask, hash -> Uplink
//!                      (Sealing: side by side)            (Packer: in order) (two stripes at a time)       |
//!              Committer: lease, records, commit, countersignatures <- Flight settles <- one queue a seeder <'
//! ```
//! Memory, with stripes of S bytes over all slices (32 MiB at most) and streams of S k/n:
//!
//! | what | bytes | by default, 10 of 20 |
//! |---|---|---|
//! | coded stripes in flight | `Tuning::stripes_in_flight` S | 96 MiB |
//! | streams: open, being coded (two), kept in their place | 3 S k/n | 48 MiB |
//! | chunks being sealed, over all puts | 24 MiB, one batch a put | 28 MiB |
//! | window that a put cuts in | 4.25 MiB a put | 4 MiB |
//! | compressors, one a core | 1.5 times the longest chunk each | 12 MiB |
//!
//! Each further put that has a full stripe in hand waits with its stream.

pub(crate) mod block;
pub(crate) mod carry;
pub(crate) mod cell;
pub(crate) mod commit;
pub(crate) mod committer;
pub(crate) mod countersign;
pub(crate) mod group;
pub(crate) mod journal;
pub(crate) mod lanes;
pub(crate) mod line;
pub(crate) mod packer;
pub(crate) mod poster;
pub(crate) mod repair;
pub(crate) mod sealing;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod sweep;
pub(crate) mod tail;
pub(crate) mod uplink;

//! The Tallow client: put, get, list, remove, repair and restore private files, and the wallet that pays for it.
//!
//! Guarantees: what `put` reports as stored is durable at k + margin seeders and named by a commit that they
//! countersigned; what is interrupted resumes, nothing is sent or paid for twice; a failed `put` leaves nothing visible;
//! `get` never writes outside its target and never leaves a file half written. Memory is bounded whatever the size of
//! the data: see [`Tuning`].
//!
//! Does not: touch terminal, home folder or environment, or speak to anyone but by the [`Transport`] it is given.
//!
//! [`Transport`]: tallow_net::Transport

mod ahead;
mod base;
mod book;
mod chain;
mod client;
mod damage;
mod db;
mod entries;
mod error;
mod fetch;
mod gather;
mod get;
mod hedge;
mod identity;
mod judge;
pub mod lease;
mod list;
mod ops;
mod options;
mod pace;
mod place;
mod progress;
mod put;
mod report;
mod seats;
mod source;
mod stripes;
mod sync;
mod target;
mod unpack;
mod write;

pub use base::{Answer, Step, Walk};
pub use client::Client;
pub use error::{Blame, Explain, GetError, Kind, LedgerError, LocalError, PutError, SessionError};
pub use identity::{Identity, device_number};
pub use list::Listing;
pub use options::{Access, Clock, ContractPlan, Options, Tuning, WallClock};
pub use progress::{Progress, Silent, Stage};
pub use report::{
    Balance, ContractReport, GetReport, Listed, ListedKind, Paid, PutReport, Quote, RepairReport,
    RestoreReport, RmReport, Skipped, SlotReport, Stat,
};
pub use source::Source;
pub use target::{GetOptions, GetTarget};

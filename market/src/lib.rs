//! The market's rules: what lanes cost and earn, what seeders lock, which profiles are safe, how long fuel lasts.
//!
//! Guarantees: pure functions over integers; every division names its rounding and every rule conserves money to the
//! unit: charged = paid + burned + refunded.
//!
//! Does not contain: state, accounts, signatures (see `ledger`).

pub mod collateral;
pub mod factor;
pub mod fee;
pub mod money;
pub mod phase;
pub mod placement;
pub mod quote;
pub mod settle;
pub mod strength;

//! The state that a network begins with.

use std::collections::BTreeSet;

use tallow_types::limits::{SETTLE_MAX, SUPPLY_MAX};
use tallow_types::params::{Genesis, Params};
use tallow_types::{BlockHash, Digest, DurationMs, Fuel, Height, Incarnation, encode};

use crate::record::{Account, Head, Network, Supply, Validators};
use crate::state::Writes;
use crate::{epoch, key};

/// Why a genesis is none. Whoever wrote it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Nobody could make a block.
    #[error("genesis names no validator")]
    NoValidators,
    /// One key twice, or without weight.
    #[error("genesis names a validator twice, or one without weight")]
    BadValidator,
    /// One account twice, or with nothing.
    #[error("genesis endows an account twice, or with nothing")]
    BadEndowment,
    /// More than amounts are computed with.
    #[error("genesis endows more than any network may hold")]
    TooMuchMoney,
    /// Rules that cannot work.
    #[error("genesis parameter {0} is out of range")]
    BadParameter(&'static str),
}

/// The records of a new network, at height 0. The genesis block is a header without body over their root.
///
/// # Errors
/// See [`GenesisError`].
pub fn genesis(genesis: &Genesis) -> Result<Writes, GenesisError> {
    check_params(&genesis.params)?;
    check_validators(genesis)?;
    let chain = genesis.chain();
    let mut writes = Writes::new();
    let mut endowed = Fuel::ZERO;
    for (account, balance) in genesis.endowments.iter() {
        let record = encode(&Account { balance: *balance });
        if *balance == Fuel::ZERO || writes.insert(key::account(account), Some(record)).is_some() {
            return Err(GenesisError::BadEndowment);
        }
        let sum = endowed.checked_add(*balance).filter(|sum| sum.get() <= SUPPLY_MAX);
        endowed = sum.ok_or(GenesisError::TooMuchMoney)?;
    }
    let head = Head {
        height: Height::ZERO,
        time: genesis.time,
        parent: BlockHash::ZERO,
        incarnation: Incarnation::ZERO,
        // No secret is needed here: what matters is what proposers add.
        beacon: Digest::new(*chain.as_bytes()),
        epoch: epoch::first(),
    };
    let records = [
        (key::NETWORK, encode(&Network { chain, params: genesis.params })),
        (key::VALIDATORS, encode(&Validators { set: genesis.validators.clone() })),
        (key::HEAD, encode(&head)),
        (key::SUPPLY, encode(&Supply { endowed, burned: Fuel::ZERO })),
    ];
    writes.extend(records.map(|(key, record)| (key.to_vec(), Some(record))));
    Ok(writes)
}

fn check_validators(genesis: &Genesis) -> Result<(), GenesisError> {
    let keys: BTreeSet<_> = genesis.validators.iter().map(|validator| validator.key).collect();
    if keys.is_empty() {
        return Err(GenesisError::NoValidators);
    }
    if keys.len() < genesis.validators.len() || genesis.validators.iter().any(|v| v.weight == 0) {
        return Err(GenesisError::BadValidator);
    }
    Ok(())
}

/// Rules that would divide by zero, never end an epoch, or ask for proofs that do not exist yet.
fn check_params(params: &Params) -> Result<(), GenesisError> {
    let rules = [
        ("protocol", params.protocol == 1),
        ("epoch", params.epoch > DurationMs::ZERO),
        ("window", params.window > DurationMs::ZERO && params.window <= params.epoch),
        ("beacon_gap", params.beacon_gap > 0),
        ("samples", params.samples == 0),
        ("lane_fee_min", params.lane_fee_min > Fuel::ZERO),
        ("protocol_share_bp", params.protocol_share_bp <= 10_000),
        ("lease", params.lease > DurationMs::ZERO),
        ("settle", (1..=SETTLE_MAX).contains(&params.settle.get())),
        ("settle_per_block", params.settle_per_block > 0),
    ];
    match rules.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((name, _)) => Err(GenesisError::BadParameter(name)),
    }
}

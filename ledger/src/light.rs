//! For those who read the ledger without running it: records by type out of any state, records proven against a header,
//! headers checked against a validator set.
//!
//! Guarantees: what a `proven` function returns is in the state that the header names; what `certified` accepts was
//! signed by a validator of the set given. Whether that set is the right one is a matter of trust in a checkpoint.

use tallow_types::block::Header;
use tallow_types::commit::CommitCertificate;
use tallow_types::params::{ValidatorSet, validators_hash};
use tallow_types::sign::verify;
use tallow_types::{
    AccountId, ContractId, DecodeError, Fuel, IdempotencyKey, SeederId, Signature, StateRoot, Tagged, decode,
};

use crate::key;
use crate::record::{Account, Contract, Head, Network, Owned, Seeder, Seen, Supply, Validators};
use crate::state::{ReadError, StateRead};
use crate::tree::{self, ProofError, StateProof};
use crate::work::{load, need, plus};

/// The rules.
///
/// # Errors
/// [`ReadError`] if the state cannot be read, as with every function that reads here.
pub fn network(state: &dyn StateRead) -> Result<Network, ReadError> {
    need(state, key::NETWORK)
}

/// Who orders blocks.
///
/// # Errors
/// See [`network`].
pub fn validators(state: &dyn StateRead) -> Result<Validators, ReadError> {
    need(state, key::VALIDATORS)
}

/// Where the ledger stands.
///
/// # Errors
/// See [`network`].
pub fn head(state: &dyn StateRead) -> Result<Head, ReadError> {
    need(state, key::HEAD)
}

/// All money.
///
/// # Errors
/// See [`network`].
pub fn supply(state: &dyn StateRead) -> Result<Supply, ReadError> {
    need(state, key::SUPPLY)
}

/// An account; one that the ledger doesn't know has nothing.
///
/// # Errors
/// See [`network`].
pub fn account(state: &dyn StateRead, id: &AccountId) -> Result<Account, ReadError> {
    Ok(load(state, &key::account(id))?.unwrap_or_default())
}

/// A seeder.
///
/// # Errors
/// See [`network`].
pub fn seeder(state: &dyn StateRead, id: &SeederId) -> Result<Option<Seeder>, ReadError> {
    load(state, &key::seeder(id))
}

/// Seeders in the order of their ids, behind `after`.
///
/// # Errors
/// See [`network`].
pub fn seeders(
    state: &dyn StateRead,
    after: Option<&SeederId>,
    limit: usize,
) -> Result<Vec<Seeder>, ReadError> {
    let after = after.map(key::seeder).unwrap_or_default();
    let records = state.scan(key::SEEDERS, &after, limit)?;
    records.into_iter().map(|(_, bytes)| decode(&bytes).map_err(ReadError::new)).collect()
}

/// A contract.
///
/// # Errors
/// See [`network`].
pub fn contract(state: &dyn StateRead, id: &ContractId) -> Result<Option<Contract>, ReadError> {
    load(state, &key::contract(id))
}

/// The certificate of a contract's newest posted commit: the pending one, else the active one.
///
/// # Errors
/// See [`network`].
pub fn newest_certificate(
    state: &dyn StateRead,
    id: &ContractId,
) -> Result<Option<CommitCertificate>, ReadError> {
    match load(state, &key::pending(id))? {
        Some(pending) => Ok(Some(pending)),
        None => load(state, &key::active(id)),
    }
}

/// Contracts that an owner has or had, in the order of their index.
///
/// # Errors
/// See [`network`].
pub fn contracts_of(state: &dyn StateRead, owner: &AccountId, limit: usize) -> Result<Vec<Owned>, ReadError> {
    let records = state.scan(&key::owned_by(owner), &[], limit)?;
    records.into_iter().map(|(_, bytes)| decode(&bytes).map_err(ReadError::new)).collect()
}

/// What became of the transactions with an idempotency key. Senders choose keys on their own, so there may be several.
///
/// # Errors
/// See [`network`].
pub fn seen(state: &dyn StateRead, key: &IdempotencyKey, limit: usize) -> Result<Vec<Seen>, ReadError> {
    let records = state.scan(&key::seen_by_anyone(key), &[], limit)?;
    records.into_iter().map(|(_, bytes)| decode(&bytes).map_err(ReadError::new)).collect()
}

/// Why a record is not proven. Whoever sent it is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnprovenError {
    /// The proof doesn't show it.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The record is in the state but not of this type or version.
    #[error(transparent)]
    Record(#[from] DecodeError),
}

/// The record under `key`, or its absence, proven against the root of a header.
///
/// # Errors
/// See [`UnprovenError`].
pub fn proven<T: Tagged>(
    root: &StateRoot,
    key: &[u8],
    value: Option<&[u8]>,
    proof: &StateProof,
) -> Result<Option<T>, UnprovenError> {
    tree::verify(root, key, value, proof)?;
    Ok(value.map(decode).transpose()?)
}

/// Why a header doesn't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UncertifiedError {
    /// Certified by another set.
    #[error("the header names another validator set")]
    OtherSet,
    /// Proposed by a stranger.
    #[error("the header's proposer is not a validator")]
    Stranger,
    /// Not signed.
    #[error(transparent)]
    Signature(#[from] tallow_types::sign::BadSignature),
}

/// Checks that a header was signed by a validator of `set`. With one validator that is finality.
///
/// # Errors
/// See [`UncertifiedError`].
pub fn certified<'a>(
    header: &'a Header,
    signature: &Signature,
    set: &ValidatorSet,
) -> Result<&'a Header, UncertifiedError> {
    if header.validators != validators_hash(set) {
        return Err(UncertifiedError::OtherSet);
    }
    if set.iter().all(|validator| validator.key != header.proposer) {
        return Err(UncertifiedError::Stranger);
    }
    verify(&header.chain, &header.proposer, header, signature)?;
    Ok(header)
}

/// All money of a state, by where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Free balances.
    pub balances: Fuel,
    /// Fuel of contracts.
    pub fuel: Fuel,
    /// What contracts were charged and lanes have not earned.
    pub escrow: Fuel,
    /// Deposits of contracts.
    pub deposits: Fuel,
    /// Collateral of lanes.
    pub collateral: Fuel,
}

impl Audit {
    /// All of it; `None` on overflow.
    #[must_use]
    pub fn total(&self) -> Option<Fuel> {
        let parts = [self.balances, self.fuel, self.escrow, self.deposits, self.collateral];
        tallow_market::fee::sum(parts)
    }
}

/// Counts all money by reading every account and contract: for tests and for people who doubt. Equal to what was endowed
/// less what burned, or the ledger has a bug.
///
/// # Errors
/// See [`network`].
pub fn audit(state: &dyn StateRead) -> Result<Audit, ReadError> {
    let mut audit = Audit::default();
    each(state, key::ACCOUNTS, |account: Account| {
        audit.balances = plus(audit.balances, account.balance)?;
        Ok(())
    })?;
    each(state, key::CONTRACTS, |contract: Contract| {
        audit.fuel = plus(audit.fuel, contract.fuel)?;
        audit.escrow = plus(audit.escrow, contract.escrow)?;
        audit.deposits = plus(audit.deposits, contract.deposit)?;
        for (_, lane) in contract.lanes() {
            audit.collateral = plus(audit.collateral, lane.collateral)?;
        }
        Ok(())
    })?;
    Ok(audit)
}

/// Visits all records of one kind, a page at a time.
fn each<T: Tagged>(
    state: &dyn StateRead,
    prefix: &[u8],
    mut visit: impl FnMut(T) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    const PAGE: usize = 256;
    let mut after = Vec::new();
    loop {
        let page = state.scan(prefix, &after, PAGE)?;
        for (_, bytes) in &page {
            visit(decode(bytes).map_err(ReadError::new)?)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => after.clone_from(key),
            _ => return Ok(()),
        }
    }
}

//! Transactions about the write lease; its rules are in [`crate::lease`].

use tallow_types::{AccountId, ContractId, PublicKey};

use crate::lease::{self, Moment};
use crate::work::{Stop, Work};

/// Asks for the lease, or renews it.
pub(super) fn lease(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    device: &PublicKey,
) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    contract.lease = lease::ask(&contract.lease, *device, &moment(work))?;
    work.save_contract(&contract);
    Ok(())
}

/// Gives the lease, or a place in its line, back.
pub(super) fn release(
    work: &mut Work<'_>,
    sender: &AccountId,
    id: &ContractId,
    device: &PublicKey,
) -> Result<(), Stop> {
    let mut contract = work.own_contract(id, sender)?;
    contract.lease = lease::release(&contract.lease, *device, &moment(work))?;
    work.save_contract(&contract);
    Ok(())
}

fn moment(work: &Work<'_>) -> Moment {
    Moment { now: work.time, term: work.params.lease, incarnation: work.incarnation }
}

//! Taking one epoch proof.

use tallow_market::factor::Factor;
use tallow_types::block::SignedEpochProof;

use crate::record::EpochState;
use crate::refusal::ProofRefusal;
use crate::work::{Stop, Work};

/// Counts a seeder's one message of the epoch, or refuses it and changes nothing.
pub(crate) fn apply(
    work: &mut Work<'_>,
    epoch: &EpochState,
    signed: &SignedEpochProof,
) -> Result<(), Stop<ProofRefusal>> {
    let proof = &signed.proof;
    if proof.epoch != epoch.epoch {
        return Err(ProofRefusal::Epoch { found: proof.epoch, now: epoch.epoch }.into());
    }
    if !epoch.is_open(&work.params) {
        return Err(ProofRefusal::Closed { epoch: epoch.epoch }.into());
    }
    if !proof.samples.is_empty() || !proof.capacity.is_empty() {
        return Err(ProofRefusal::Unasked.into());
    }
    let bonded = work.seeder(&proof.seeder)?.filter(|seeder| seeder.lanes > 0);
    let mut seeder = bonded.ok_or(ProofRefusal::NoLanes { seeder: proof.seeder })?;
    let proven = seeder.factors.proven(proof.epoch, Factor::of_samples(0, 0));
    seeder.factors = proven.ok_or(ProofRefusal::Twice { seeder: proof.seeder, epoch: proof.epoch })?;
    signed.verify(&work.chain)?;
    work.save_seeder(&seeder);
    Ok(())
}

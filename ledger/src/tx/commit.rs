//! Posting a commit.
//!
//! A commit counts when a device that held its lease signed it and k + margin slots countersigned it, by the seeders
//! that hold them or held them last: what was acknowledged stays so when a lane ends a moment later. It is pending
//! until the next boundary. Posting the same commit again adds countersignatures, so that lanes that caught up late are
//! paid for what they hold.

use std::collections::BTreeMap;

use tallow_types::commit::{Commit, CommitCertificate, Countersignature};
use tallow_types::limits::LANE_LEAVES_MAX;
use tallow_types::{Bounded, Bytes, SeederId, SlotIndex};

use crate::key;
use crate::record::{CommitSummary, Contract};
use crate::refusal::CommitRefusal;
use crate::state::ReadError;
use crate::work::{Stop, Work};

type Signatures = BTreeMap<SlotIndex, Countersignature>;

/// Takes a certificate from anyone.
pub(super) fn post(work: &mut Work<'_>, certificate: &CommitCertificate) -> Result<(), Stop> {
    let signed = &certificate.signed;
    let mut contract = work.open_contract(&signed.commit.contract)?;
    check_shape(&contract, &signed.commit)?;
    check_lease(&contract, certificate)?;
    let known = check_rank(work, &contract, &signed.commit)?;
    signed.verify(&work.chain)?;
    let all = add(work, &contract, certificate, &known)?;
    if all == known {
        return Err(CommitRefusal::NothingNew.into());
    }
    let (have, need) = (all.len(), usize::from(contract.terms.profile.quorum()));
    if have < need {
        return Err(CommitRefusal::NotAcknowledged { have, need }.into());
    }
    let commit = &signed.commit;
    contract.pending = Some(CommitSummary {
        hash: commit.hash(),
        rank: commit.rank(),
        leaves: commit.leaves,
        width: commit.width,
    });
    let countersignatures = Bounded::new(all.into_values().collect()).expect("one for each slot at most");
    let merged = CommitCertificate { signed: signed.clone(), countersignatures };
    work.save(key::pending(&contract.id), &merged);
    let next = work.next_epoch()?;
    work.queue(&mut contract, next);
    work.save_contract(&contract);
    Ok(())
}

/// Whether the commit has the contract's slots, each inside the room.
fn check_shape(contract: &Contract, commit: &Commit) -> Result<(), CommitRefusal> {
    let (have, need) = (commit.slots.len(), contract.slots.len());
    if have != need || usize::from(commit.width) > need {
        return Err(CommitRefusal::Shape { have, width: commit.width, need });
    }
    if commit.leaves.get() > LANE_LEAVES_MAX {
        return Err(CommitRefusal::TooManyLeaves { leaves: commit.leaves, max: LANE_LEAVES_MAX });
    }
    let room = contract.terms.room;
    match (0u8..).zip(commit.slots.iter()).find(|(_, state)| state.bytes > room) {
        None => Ok(()),
        Some((index, state)) => {
            Err(CommitRefusal::NoRoom { slot: SlotIndex::new(index), bytes: state.bytes, room })
        }
    }
}

/// Whether the signer held the commit's lease.
fn check_lease(contract: &Contract, certificate: &CommitCertificate) -> Result<(), CommitRefusal> {
    let (lease, signer) = (certificate.signed.commit.lease, certificate.signed.signer);
    if contract.lease.device_of(lease) == Some(signer) {
        Ok(())
    } else {
        Err(CommitRefusal::NotLeased { lease, signer })
    }
}

/// The countersignatures known for this commit: none if it is new, which then outranks every other.
fn check_rank(work: &Work<'_>, contract: &Contract, commit: &Commit) -> Result<Signatures, Stop> {
    let Some(newest) = contract.pending.or(contract.active) else { return Ok(Signatures::new()) };
    let (rank, hash) = (commit.rank(), commit.hash());
    if hash == newest.hash {
        let key = match contract.pending {
            Some(_) => key::pending(&contract.id),
            None => key::active(&contract.id),
        };
        let known: Option<CommitCertificate> = work.load(&key)?;
        let known = known.map(|known| known.countersignatures.into_vec()).unwrap_or_default();
        return Ok(known.into_iter().map(|counter| (counter.slot, counter)).collect());
    }
    let (lease, sequence) = (newest.rank.lease, newest.rank.sequence);
    match rank.cmp(&newest.rank) {
        std::cmp::Ordering::Greater => Ok(Signatures::new()),
        std::cmp::Ordering::Equal => Err(CommitRefusal::Conflict { lease, sequence }.into()),
        std::cmp::Ordering::Less => Err(CommitRefusal::Stale { lease, sequence }.into()),
    }
}

/// The known countersignatures with the new ones that count. One of a seeder without the slot is left out; one that is
/// not valid refuses the post.
fn add(
    work: &Work<'_>,
    contract: &Contract,
    certificate: &CommitCertificate,
    known: &Signatures,
) -> Result<Signatures, Stop> {
    let mut all = known.clone();
    let mut named = Vec::new();
    for counter in certificate.countersignatures.iter() {
        let slot = contract.slots.get(usize::from(counter.slot.get()));
        let slot = slot.filter(|_| !named.contains(&counter.slot));
        let slot = slot.ok_or(CommitRefusal::BadSlot { slot: counter.slot })?;
        named.push(counter.slot);
        let holder = slot.lane.map(|lane| lane.seeder);
        let holds = |seeder: SeederId| holder == Some(seeder);
        let counts =
            holds(counter.seeder) || slot.former.is_some_and(|former| former.seeder == counter.seeder);
        // What the present holder signed is worth more than what the former one did.
        let better = known.get(&counter.slot).is_none_or(|old| !holds(old.seeder) && holds(counter.seeder));
        if counts && better {
            counter.verify(&work.chain, &certificate.signed.commit)?;
            all.insert(counter.slot, *counter);
        }
    }
    Ok(all)
}

/// Bytes by slot of the pending commit; empty if there is none.
pub(super) fn pending_bytes(work: &Work<'_>, contract: &Contract) -> Result<Vec<Bytes>, ReadError> {
    if contract.pending.is_none() {
        return Ok(Vec::new());
    }
    let pending: Option<CommitCertificate> = work.load(&key::pending(&contract.id))?;
    let bytes = |pending: CommitCertificate| {
        pending.signed.commit.slots.iter().map(|state| state.bytes).collect::<Vec<_>>()
    };
    Ok(pending.map(bytes).unwrap_or_default())
}

//! Whether a chain of commits leads to its last one, and from where.

use tallow_types::commit::{Commit, Rank, SignedCommit};
use tallow_types::{CommitHash, ContractId, PublicKey};

use super::{Grant, Refusal};

/// Checks a chain against the newest commit of a lane. Answers whether it begins right behind that commit; if not, it
/// begins in a later lease and leaves commits behind.
pub(super) fn check(
    contract: ContractId,
    newest: Option<(CommitHash, Rank)>,
    grant: &Grant,
    chain: &[SignedCommit],
) -> Result<bool, Refusal> {
    let first = &chain.first().ok_or(Refusal::Malformed("there is no commit to countersign"))?.commit;
    if chain.iter().any(|signed| signed.commit.contract != contract) {
        return Err(Refusal::Chain("it is of another contract"));
    }
    let linked = match newest {
        // Nothing to extend and nothing to leave behind: any start will do.
        None => true,
        Some((hash, rank)) if first.previous == hash => {
            if !follows(rank, first) {
                return Err(Refusal::Chain("its sequence does not follow"));
            }
            true
        }
        Some((_, rank)) if first.lease > rank.lease => false,
        Some(_) => return Err(Refusal::Chain("it does not begin behind the newest commit of this seeder")),
    };
    for pair in chain.windows(2) {
        let (before, after) = (&pair[0].commit, &pair[1].commit);
        if after.previous != before.hash() || !follows(before.rank(), after) {
            return Err(Refusal::Chain("its commits do not follow one another"));
        }
    }
    for signed in chain {
        if device_of(grant, signed).is_some_and(|device| device != signed.signer) {
            return Err(Refusal::Chain("it was signed by a device that did not hold the lease"));
        }
        signed.verify(&grant.chain)?;
    }
    Ok(linked)
}

/// One more in the same lease, or the first of a later one.
fn follows(before: Rank, after: &Commit) -> bool {
    if after.lease == before.lease {
        before.sequence.next() == Some(after.sequence)
    } else {
        after.lease > before.lease && after.sequence.get() == 1
    }
}

/// Who had to sign. `None` for a lease that the ledger has forgotten: the holder of the current lease answers for those,
/// since its commit names them by hash.
fn device_of(grant: &Grant, signed: &SignedCommit) -> Option<PublicKey> {
    if signed.commit.lease == grant.lease {
        return grant.device;
    }
    let former = grant.former.iter().find(|(lease, _)| *lease == signed.commit.lease);
    former.map(|(_, device)| *device)
}

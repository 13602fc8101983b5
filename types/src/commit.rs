//! Commits: the owner's signed next state of a contract's data, and the countersignatures that make it acknowledged.
//!
//! A commit names the root and the bytes of *every* slot. A seeder countersigns the whole of it once it holds its own
//! slot's bytes durably; `k + margin` countersignatures are an acknowledgement. Two commits of one lease and sequence
//! are never both countersigned by an honest seeder.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::{Bounded, BoundedBytes};
use crate::domain::{self, Domain};
use crate::id::{
    ChainId, CommitHash, ContractId, LaneRoot, PublicKey, SeederId, Signature, SliceRoot, StripeId,
};
use crate::limits::{COMMIT_CHANGES_MAX, COMMIT_HEAD_MAX, SLOTS_MAX};
use crate::sign::{BadSignature, Keypair, Signable, verify};
use crate::tagged;
use crate::unit::{Bytes, LeafIndex, Lease, Sequence, SlotIndex};

/// The state of one slot after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotState {
    /// Root of its lane tree.
    pub root: LaneRoot,
    /// Sum of the lengths of its slices; the root commits to it too.
    pub bytes: Bytes,
}

/// The next state of a contract's data.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// The contract.
    pub contract: ContractId,
    /// The write lease under which it is made.
    pub lease: Lease,
    /// Its ordinal in that lease, from 1.
    pub sequence: Sequence,
    /// The commit that it follows; all zeros for a contract's first.
    pub previous: CommitHash,
    /// Leaves of every lane, dropped ones counted.
    pub leaves: LeafIndex,
    /// Slices that the narrowest stripe has. What health starts from.
    pub width: u8,
    /// Root and bytes of every slot, held or vacant.
    pub slots: Bounded<SlotState, SLOTS_MAX>,
    /// The newest record of the catalog log, sealed for the owner.
    pub catalog_head: BoundedBytes<COMMIT_HEAD_MAX>,
    /// The newest record of the repair index, sealed for owner and keepers.
    pub repair_head: BoundedBytes<COMMIT_HEAD_MAX>,
}

impl Signable for Commit {
    const DOMAIN: Domain = domain::SIGN_COMMIT;
}

impl Commit {
    /// The hash by which the next commit and every countersignature name this one.
    ///
    /// # Panics
    /// Never: writing to a hasher cannot fail.
    #[must_use]
    pub fn hash(&self) -> CommitHash {
        let mut hasher = domain::COMMIT.hasher();
        self.serialize(&mut hasher).expect("writing to a hasher cannot fail");
        CommitHash::new(*hasher.finalize().as_bytes())
    }

    /// The commit's place in the order of a contract: lease, then sequence.
    #[must_use]
    pub const fn rank(&self) -> Rank {
        Rank { lease: self.lease, sequence: self.sequence }
    }

    /// Signs it with a device key.
    #[must_use]
    pub fn sign(self, chain: &ChainId, key: &Keypair) -> SignedCommit {
        let signature = key.sign(chain, &self);
        SignedCommit { commit: self, signer: key.public(), signature }
    }
}

/// The place of a commit in the order of its contract.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Rank {
    /// Higher leases outrank all commits of lower ones.
    pub lease: Lease,
    /// Orders the commits of one lease.
    pub sequence: Sequence,
}

/// A commit with its device's signature, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedCommit {
    /// What is signed.
    pub commit: Commit,
    /// The device that holds the lease.
    pub signer: PublicKey,
    /// Its signature.
    pub signature: Signature,
}
tagged!(SignedCommit, b"CM", 1, "commit", 16 << 10);

impl SignedCommit {
    /// Checks the signature. Whether the signer holds the lease is the ledger's to say.
    ///
    /// # Errors
    /// [`BadSignature`] if the signer did not sign this commit for this network.
    pub fn verify(&self, chain: &ChainId) -> Result<&Commit, BadSignature> {
        verify(chain, &self.signer, &self.commit, &self.signature)?;
        Ok(&self.commit)
    }
}

/// What a seeder signs when it countersigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Countersigned {
    /// The contract.
    pub contract: ContractId,
    /// The commit, whole.
    pub commit: CommitHash,
    /// Its rank, so that two of one rank convict without the commits themselves.
    pub rank: Rank,
    /// The slot whose bytes the seeder holds.
    pub slot: SlotIndex,
}
impl Signable for Countersigned {
    const DOMAIN: Domain = domain::SIGN_COUNTER;
}

/// A seeder's countersignature of a commit, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Countersignature {
    /// The slot.
    pub slot: SlotIndex,
    /// Who holds it.
    pub seeder: SeederId,
    /// Its signature of [`Countersigned`].
    pub signature: Signature,
}

impl Countersignature {
    /// Checks it against a commit.
    ///
    /// # Errors
    /// [`BadSignature`] if the seeder did not countersign this commit for this slot.
    pub fn verify(&self, chain: &ChainId, commit: &Commit) -> Result<(), BadSignature> {
        let message = Countersigned {
            contract: commit.contract,
            commit: commit.hash(),
            rank: commit.rank(),
            slot: self.slot,
        };
        verify(chain, &self.seeder.public_key(), &message, &self.signature)
    }
}

/// A commit with countersignatures: what is posted to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommitCertificate {
    /// The commit.
    pub signed: SignedCommit,
    /// Who says that it holds its slot of it.
    pub countersignatures: Bounded<Countersignature, SLOTS_MAX>,
}
tagged!(CommitCertificate, b"CC", 1, "commit certificate", 64 << 10);

/// One leaf of a lane: a slice as the lane tree names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Leaf {
    /// The stripe.
    pub stripe: StripeId,
    /// BLAKE3 of the masked slice.
    pub root: SliceRoot,
    /// Its length in bytes, a multiple of 1 KiB.
    pub length: u32,
}

/// How one lane changes from the state a seeder countersigned last to the state a commit names.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LaneChange {
    /// Leaves kept from the front. Less than the lane has only in the first commit of a lease, which may leave commits
    /// of earlier leases behind.
    pub keep: LeafIndex,
    /// Leaves among those kept that become empty.
    pub dropped: Bounded<LeafIndex, COMMIT_CHANGES_MAX>,
    /// Leaves added behind them; `None` for one that was dropped before this lane got so far.
    pub appended: Bounded<Option<Leaf>, COMMIT_CHANGES_MAX>,
}

/// A seeder's durable promise: from now on it refuses commits and fences of leases below this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Fence {
    /// The contract.
    pub contract: ContractId,
    /// The slot.
    pub slot: SlotIndex,
    /// The lowest lease that it will still serve.
    pub lease: Lease,
    /// The newest commit that it countersigned; all zeros if none.
    pub newest: CommitHash,
    /// The rank of that commit.
    pub rank: Rank,
}
impl Signable for Fence {
    const DOMAIN: Domain = domain::SIGN_FENCE;
}

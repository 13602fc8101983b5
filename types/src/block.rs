//! Blocks and epoch proofs: what the ledger orders.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::{Bounded, BoundedBytes, encode};
use crate::domain::{self, Domain};
use crate::id::{BlockHash, ChainId, Digest, PublicKey, SeederId, Signature, StateRoot};
use crate::limits::{BLOCK_MAX, BLOCK_PROOFS_MAX, BLOCK_TXS_MAX, PROOF_CAPACITY_MAX, PROOF_SAMPLES_MAX};
use crate::sign::{BadSignature, Signable, verify};
use crate::tagged;
use crate::tx::Transaction;
use crate::unit::{Epoch, Height, Incarnation, TimeMs};

/// The output of a validator's VRF, with its proof: 80 bytes of the suite `vrf-r255` (RFC 9381, C2SP).
pub const VRF_PROOF_LEN: usize = 80;

/// What a block says about itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// Version of the rules that made it.
    pub protocol: u16,
    /// The network.
    pub chain: ChainId,
    /// How often a single validator was rebuilt after losing its disk.
    pub incarnation: Incarnation,
    /// Its ordinal.
    pub height: Height,
    /// The block before; all zeros for genesis.
    pub parent: BlockHash,
    /// The proposer's time, later than the parent's.
    pub time: TimeMs,
    /// Who proposed it.
    pub proposer: PublicKey,
    /// The proposer's share of the beacon.
    pub vrf: [u8; VRF_PROOF_LEN],
    /// Hash of the body.
    pub body: Digest,
    /// Root of the state *after* this block.
    pub state: StateRoot,
    /// Hash of the validator set that certifies this block.
    pub validators: Digest,
    /// Hash of the set that certifies the next.
    pub next_validators: Digest,
}
impl Signable for Header {
    const DOMAIN: Domain = domain::SIGN_BLOCK;
}

impl Header {
    /// The block's name.
    ///
    /// # Panics
    /// Never: writing to a hasher cannot fail.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        let mut hasher = domain::BLOCK.hasher();
        self.serialize(&mut hasher).expect("writing to a hasher cannot fail");
        BlockHash::new(*hasher.finalize().as_bytes())
    }
}

/// A seeder's one message of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EpochProof {
    /// The epoch whose challenge it answers.
    pub epoch: Epoch,
    /// Who answers.
    pub seeder: SeederId,
    /// Answers to slice samples, each opaque here; none while `Params::samples` is 0.
    pub samples: Bounded<BoundedBytes<8192>, PROOF_SAMPLES_MAX>,
    /// The capacity sketch; empty until plots exist.
    pub capacity: BoundedBytes<PROOF_CAPACITY_MAX>,
}
impl Signable for EpochProof {
    const DOMAIN: Domain = domain::SIGN_PROOF;
}

/// An epoch proof with its seeder's signature, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedEpochProof {
    /// What is signed.
    pub proof: EpochProof,
    /// The seeder's signature.
    pub signature: Signature,
}
tagged!(SignedEpochProof, b"EP", 1, "epoch proof", 512 << 10);

impl SignedEpochProof {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`BadSignature`] if the seeder did not sign this proof for this network.
    pub fn verify(&self, chain: &ChainId) -> Result<&EpochProof, BadSignature> {
        verify(chain, &self.proof.seeder.public_key(), &self.proof, &self.signature)?;
        Ok(&self.proof)
    }
}

/// What a block orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Body {
    /// Transactions, in the order in which they apply.
    pub transactions: Bounded<Transaction, BLOCK_TXS_MAX>,
    /// Epoch proofs, applied after the transactions.
    pub proofs: Bounded<SignedEpochProof, BLOCK_PROOFS_MAX>,
}

impl Body {
    /// The hash that the header carries.
    ///
    /// # Panics
    /// Never: writing to a hasher cannot fail.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut hasher = domain::BLOCK_BODY.hasher();
        self.serialize(&mut hasher).expect("writing to a hasher cannot fail");
        Digest::new(*hasher.finalize().as_bytes())
    }
}

/// A block with its proposer's signature, not yet checked. With one validator that signature is the certificate of
/// finality.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// What it says about itself.
    pub header: Header,
    /// The proposer's signature of the header.
    pub signature: Signature,
    /// What it orders.
    pub body: Body,
}
tagged!(Block, b"BL", 1, "block", BLOCK_MAX);

impl Block {
    /// Checks that the body is the header's and that the named proposer signed it. Whether that proposer may is for
    /// the state to say.
    ///
    /// # Errors
    /// [`BadSignature`] naming the proposer: the block was not made, or was changed.
    pub fn verify(&self) -> Result<&Header, BadSignature> {
        let bad = BadSignature { key: self.header.proposer };
        if self.body.hash() != self.header.body {
            return Err(bad);
        }
        verify(&self.header.chain, &self.header.proposer, &self.header, &self.signature)?;
        Ok(&self.header)
    }

    /// Size of the encoding. Bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        encode(self).len()
    }
}

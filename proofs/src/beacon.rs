//! The beacon: a chain of unpredictable values, one link per block, made by the proposers' verifiable random function.
//!
//! ```text
//! input  = BEACON_INPUT(beacon before, height u64)      what the proposer must evaluate, and nothing else
//! beacon = BEACON(beacon before, VRF output 64 B)       what the block adds to the chain
//! ```
//!
//! Guarantees: a proposer has exactly one valid output for a height, so it can withhold a value but not choose among
//! several; everyone else can check it with the proposer's public key from the validator set.
//!
//! Does not decide: at which height an epoch's value is taken (see `ledger`).
//!
//! Sources: RFC 9381 (ECVRF) with the ciphersuite ECVRF-RISTRETTO255-SHA512, <https://c2sp.org/vrf-r255>.

use tallow_types::block::VRF_PROOF_LEN;
use tallow_types::{Digest, Height, domain};
use zeroize::Zeroizing;

/// What a proposer puts into its block: the proof, from which the output follows.
pub type VrfProof = [u8; VRF_PROOF_LEN];

/// A verifiable random function.
///
/// # Guarantees
/// * *Uniqueness*: for one public key and input at most one output has valid proofs.
/// * *Determinism*: `prove` is a function of its arguments.
/// * *Soundness*: `verify` never panics, whatever the key, input and proof.
pub trait Vrf {
    /// A secret key; its memory is wiped when it goes.
    type Secret;

    /// The secret key of a 32-byte seed.
    fn secret(seed: &[u8; 32]) -> Self::Secret;

    /// The public key of a secret key.
    fn public(secret: &Self::Secret) -> [u8; 32];

    /// Evaluates the function.
    fn prove(secret: &Self::Secret, input: &[u8]) -> VrfProof;

    /// The output that a proof shows; `None` if key or proof are not valid.
    fn verify(public: &[u8; 32], input: &[u8], proof: &VrfProof) -> Option<[u8; 64]>;
}

/// The suite `vrf-r255`.
#[derive(Clone, Copy, Debug)]
pub struct R255;

/// A secret key of [`R255`], kept as the bytes of its scalar: the library's own type leaves copies in memory and prints
/// itself.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    fn key(&self) -> vrf_r255::SecretKey {
        Option::from(vrf_r255::SecretKey::from_bytes(*self.0))
            .expect("the bytes were found to be a canonical scalar other than zero")
    }

    /// From the canonical bytes of a scalar; `None` if they are not, or zero.
    #[must_use]
    pub fn from_scalar(bytes: [u8; 32]) -> Option<Self> {
        let key: Option<vrf_r255::SecretKey> = vrf_r255::SecretKey::from_bytes(bytes).into();
        key.map(|_| Self(Zeroizing::new(bytes)))
    }
}

impl Vrf for R255 {
    type Secret = Secret;

    /// The seed without its top four bits: always below the group order 2^252 + 2^124.., so canonical, and short of
    /// uniform by less than 2^-124. The one seed that gives zero stands for one.
    fn secret(seed: &[u8; 32]) -> Secret {
        let mut scalar = *seed;
        scalar[31] &= 0x0f;
        if scalar == [0; 32] {
            scalar[0] = 1;
        }
        Secret(Zeroizing::new(scalar))
    }

    fn public(secret: &Secret) -> [u8; 32] {
        vrf_r255::PublicKey::from(secret.key()).to_bytes()
    }

    fn prove(secret: &Secret, input: &[u8]) -> VrfProof {
        secret.key().prove(input).to_bytes()
    }

    fn verify(public: &[u8; 32], input: &[u8], proof: &VrfProof) -> Option<[u8; 64]> {
        let public = vrf_r255::PublicKey::from_bytes(*public)?;
        let proof = vrf_r255::Proof::from_bytes(*proof)?;
        public.verify(input, &proof).into()
    }
}

/// What the proposer of block `height` must evaluate.
#[must_use]
pub fn input(before: &Digest, height: Height) -> [u8; 32] {
    domain::BEACON_INPUT.hash(&[before.as_bytes(), &height.get().to_le_bytes()])
}

/// The next value of the chain from the one before and a VRF output.
#[must_use]
pub fn next(before: &Digest, output: &[u8; 64]) -> Digest {
    Digest::new(domain::BEACON.hash(&[before.as_bytes(), output]))
}

/// The proposer's share of block `height`.
#[must_use]
pub fn prove(secret: &Secret, before: &Digest, height: Height) -> VrfProof {
    R255::prove(secret, &input(before, height))
}

/// A beacon share that is not its proposer's for this place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the beacon share of block {height} is not its proposer's")]
pub struct BadShare {
    /// The block that carries it.
    pub height: Height,
}

/// Checks the proposer's share of block `height` and gives the beacon after it.
///
/// # Errors
/// [`BadShare`] if key or share are not valid for this input.
pub fn advance(
    before: &Digest,
    height: Height,
    vrf_key: &[u8; 32],
    share: &VrfProof,
) -> Result<Digest, BadShare> {
    let output = R255::verify(vrf_key, &input(before, height), share).ok_or(BadShare { height })?;
    Ok(next(before, &output))
}

#[cfg(test)]
mod tests;

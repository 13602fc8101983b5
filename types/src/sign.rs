//! Signatures. What is signed is never the bare bytes: a BLAKE3 hash in the domain of the message, over the chain id
//! and the canonical encoding, so that a signature counts for one purpose on one network.
//!
//! Source: Ed25519, RFC 8032, with strict verification (small-order keys and non-canonical points refused).

use borsh::BorshSerialize;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::domain::Domain;
use crate::id::{ChainId, PublicKey, Signature};

/// A message that parties sign.
pub trait Signable: BorshSerialize {
    /// The purpose of the signature.
    const DOMAIN: Domain;

    /// The 32 bytes that are signed.
    ///
    /// # Panics
    /// Never: writing to a hasher cannot fail.
    fn signing_hash(&self, chain: &ChainId) -> [u8; 32] {
        let mut hasher = Self::DOMAIN.hasher();
        hasher.update(chain.as_bytes());
        self.serialize(&mut hasher).expect("writing to a hasher cannot fail");
        *hasher.finalize().as_bytes()
    }
}

/// A signing key. Its memory is wiped when it goes; it has no `Debug` and no `Clone`.
pub struct Keypair(SigningKey);

impl Keypair {
    /// From a 32-byte seed (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key that others verify with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::new(self.0.verifying_key().to_bytes())
    }

    /// The seed, for the one shell that hands this identity to the network library.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// Signs a message for one network.
    #[must_use]
    pub fn sign<M: Signable>(&self, chain: &ChainId, message: &M) -> Signature {
        Signature::new(self.0.sign(&message.signing_hash(chain)).to_bytes())
    }
}

/// A signature that does not fit its key and message: the signer's fault, or the carrier's.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("signature of key {} is not valid for this message on this network", .key.short())]
pub struct BadSignature {
    /// The key that was named.
    pub key: PublicKey,
}

/// Checks a signature.
///
/// # Errors
/// [`BadSignature`] if the key is no key or the signature isn't its own.
pub fn verify<M: Signable>(
    chain: &ChainId,
    key: &PublicKey,
    message: &M,
    signature: &Signature,
) -> Result<(), BadSignature> {
    let bad = BadSignature { key: *key };
    let verifying = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| bad)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    verifying.verify_strict(&message.signing_hash(chain), &signature).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain;

    #[derive(BorshSerialize)]
    struct Note(u32);
    impl Signable for Note {
        const DOMAIN: Domain = domain::SIGN_TX;
    }
    #[derive(BorshSerialize)]
    struct Other(u32);
    impl Signable for Other {
        const DOMAIN: Domain = domain::SIGN_COMMIT;
    }

    /// Goal: a signature counts for its key, message, purpose and network only. Method: change one at a time.
    #[test]
    fn signature_is_bound_to_everything() {
        let (chain, other_chain) = (ChainId::new([1; 32]), ChainId::new([2; 32]));
        let key = Keypair::from_seed(&[3; 32]);
        let stranger = Keypair::from_seed(&[4; 32]).public();
        let signature = key.sign(&chain, &Note(5));
        assert!(verify(&chain, &key.public(), &Note(5), &signature).is_ok());
        assert!(verify(&other_chain, &key.public(), &Note(5), &signature).is_err());
        assert!(verify(&chain, &stranger, &Note(5), &signature).is_err());
        assert!(verify(&chain, &key.public(), &Note(6), &signature).is_err());
        assert!(verify(&chain, &key.public(), &Other(5), &signature).is_err());
        assert!(verify(&chain, &PublicKey::ZERO, &Note(5), &signature).is_err());
    }
}

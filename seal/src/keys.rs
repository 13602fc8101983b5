//! Keys, all derived from the 64-byte seed of a phrase. Nothing else needs to be kept.
//!
//! ```text
//! key = BLAKE3 derive_key (context, seed | index...)          indices little-endian, of fixed width
//!
//! account   KEY_ACCOUNT (seed)              device  KEY_DEVICE (seed | number u64)      vrf      KEY_VRF (seed)
//! sharing   KEY_SHARING (seed)              ids     KEY_CHUNK_ID (seed)
//! content   KEY_CONTENT (seed | contract u32 | generation u32)
//! mask      KEY_MASK (seed | contract u32)  repair  KEY_REPAIR (mask)                   its ids  KEY_CHUNK_ID (repair)
//! check     KEY_CHECK (content or repair), 16 bytes of it
//! ```
//!
//! Guarantees: a key tells nothing of another one, but for `repair`, which the mask secret makes: that is what a keeper
//! is given. Secrets are wiped when they go, and have neither `Debug` nor `Clone`.

use tallow_types::domain::{self, Domain};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// 32 secret bytes that are wiped when they go.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

fn derive(domain: Domain, parts: &[&[u8]]) -> Secret {
    Zeroizing::new(domain.hash(parts))
}

/// The seed of a phrase: everything an owner has follows from it.
pub struct Seed(Zeroizing<[u8; 64]>);

impl Seed {
    /// From the 64 bytes that BIP-39 makes of a phrase.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; 64]>) -> Self {
        Self(bytes)
    }

    fn keypair(&self, domain: Domain, index: &[u8]) -> Keypair {
        Keypair::from_seed(&derive(domain, &[&*self.0, index]))
    }

    /// The key that owns the account.
    #[must_use]
    pub fn account(&self) -> Keypair {
        self.keypair(domain::KEY_ACCOUNT, &[])
    }

    /// The policy that a person's account is the hash of: this one key.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::Key(self.account().public())
    }

    /// The key of one machine. The number is random, made when the machine first opens the account, so that two
    /// machines never share a key.
    #[must_use]
    pub fn device(&self, number: u64) -> Keypair {
        self.keypair(domain::KEY_DEVICE, &number.to_le_bytes())
    }

    /// The seed of the key that makes beacons.
    #[must_use]
    pub fn vrf(&self) -> Zeroizing<[u8; 32]> {
        derive(domain::KEY_VRF, &[&*self.0])
    }

    /// The key that others wrap shares for (RFC 7748).
    #[must_use]
    pub fn sharing(&self) -> StaticSecret {
        StaticSecret::from(*derive(domain::KEY_SHARING, &[&*self.0]))
    }

    /// The secrets of one contract, with one generation of its content key; the first is 0.
    #[must_use]
    pub fn contract(&self, index: u32, generation: u32) -> ContractKeys {
        let (contract, generation) = (index.to_le_bytes(), generation.to_le_bytes());
        let content = derive(domain::KEY_CONTENT, &[&*self.0, &contract, &generation]);
        let ids = derive(domain::KEY_CHUNK_ID, &[&*self.0]);
        let mask = MaskSecret(derive(domain::KEY_MASK, &[&*self.0, &contract]));
        ContractKeys { catalog: ChunkKeys::new(content, ids), repair: mask.repair_keys(), mask }
    }
}

/// The secrets of one contract.
pub struct ContractKeys {
    /// Seals blobs, catalog records and the catalog head.
    pub catalog: ChunkKeys,
    /// Seals repair records and the repair head.
    pub repair: ChunkKeys,
    /// Makes the masks of all slices.
    pub mask: MaskSecret,
}

/// Makes the masks of a contract's slices, and the key of its repair index: all that a keeper needs.
pub struct MaskSecret(pub(crate) Secret);

impl MaskSecret {
    /// From the bytes that an owner handed to a keeper.
    #[must_use]
    pub const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes to hand to a keeper.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Keys of the repair index.
    #[must_use]
    pub fn repair_keys(&self) -> ChunkKeys {
        let repair = derive(domain::KEY_REPAIR, &[&*self.0]);
        let ids = derive(domain::KEY_CHUNK_ID, &[&*repair]);
        ChunkKeys::new(repair, ids)
    }
}

/// What seals and opens chunks: a content key, and the secret under which chunk ids are made.
pub struct ChunkKeys {
    pub(crate) content: Secret,
    pub(crate) ids: Secret,
    pub(crate) nonces: Secret,
    check: KeyCheck,
}

impl ChunkKeys {
    fn new(content: Secret, ids: Secret) -> Self {
        let nonces = derive(domain::CHUNK_NONCE, &[&*content]);
        let hash = derive(domain::KEY_CHECK, &[&*content]);
        let mut check = [0; KeyCheck::LEN];
        check.copy_from_slice(&hash[..KeyCheck::LEN]);
        Self { content, ids, nonces, check: KeyCheck(check) }
    }

    /// The check value of the content key.
    #[must_use]
    pub const fn check(&self) -> KeyCheck {
        self.check
    }
}

/// Tells a wrong key from damaged data. It is public: it stands in front of every sealed head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCheck(pub(crate) [u8; Self::LEN]);

impl KeyCheck {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

#[cfg(test)]
mod tests;

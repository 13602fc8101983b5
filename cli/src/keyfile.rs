//! The key file of a node: what it signs with and what makes its beacon shares. Mode 0600, beside the node's data.

use std::path::Path;

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_proofs::beacon::{self, Vrf as _};
use tallow_types::sign::Keypair;
use tallow_types::{decode, encode, tagged};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result, file_failed};
use crate::wallet::write_secret;

/// Seeds of a node's keys.
#[derive(BorshSerialize, BorshDeserialize, zeroize::ZeroizeOnDrop)]
pub struct NodeKey {
    signing: [u8; 32],
    vrf: [u8; 32],
}
tagged!(NodeKey, b"NK", 1, "node key file", 128);

impl NodeKey {
    /// The key in a file; made first if there is none.
    pub fn load_or_make(path: &Path) -> Result<Self> {
        match std::fs::read(path).map(Zeroizing::new) {
            Ok(bytes) => decode(&bytes).map_err(|error| {
                Failure::config(format!("cannot use the key in {}", path.display())).because(&error)
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Self { signing: *random()?, vrf: *random()? };
                let bytes = Zeroizing::new(encode(&key));
                write_secret(path, &bytes, false).map_err(|error| file_failed("write", path, &error))?;
                Ok(key)
            }
            Err(error) => Err(file_failed("read", path, &error)),
        }
    }

    /// Signs, and names the node on the network.
    pub fn keypair(&self) -> Keypair {
        Keypair::from_seed(&self.signing)
    }

    /// Makes a validator's beacon shares.
    pub fn vrf(&self) -> beacon::Secret {
        beacon::R255::secret(&self.vrf)
    }

    /// What checks them.
    pub fn vrf_public(&self) -> [u8; 32] {
        beacon::R255::public(&self.vrf())
    }
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| Failure::unavailable(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a node keeps its identity, and a damaged file is not replaced by a new one. Method: load twice, then break it.
    #[test]
    fn identity_is_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("node.key");
        let first = NodeKey::load_or_make(&path).expect("made");
        let again = NodeKey::load_or_make(&path).expect("read");
        assert_eq!(first.keypair().public(), again.keypair().public());
        assert_eq!(first.vrf_public(), again.vrf_public());
        std::fs::write(&path, b"NK").expect("writes");
        assert!(NodeKey::load_or_make(&path).is_err());
        assert_eq!(std::fs::read(&path).expect("reads"), b"NK");
    }
}

//! Who a client is: the account's keys from the phrase, and this machine's device key.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tallow_seal::keys::{ContractKeys, Seed};
use tallow_types::id::AccountId;
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;

/// The account's keys and this device's. Cheap to clone; secrets are shared, never copied.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    seed: Seed,
    account: Keypair,
    device: Keypair,
}

impl Identity {
    /// From the phrase's seed and the number of this machine (see [`device_number`]).
    #[must_use]
    pub fn new(seed: Seed, device_number: u64) -> Self {
        let (account, device) = (seed.account(), seed.device(device_number));
        Self { inner: Arc::new(Inner { seed, account, device }) }
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.policy().account()
    }

    /// The policy that the account is the hash of.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::Key(self.inner.account.public())
    }

    /// The key of this machine: the one to connect to the network with, and the one that signs commits.
    #[must_use]
    pub fn device(&self) -> &Keypair {
        &self.inner.device
    }

    pub(crate) fn account_key(&self) -> &Keypair {
        &self.inner.account
    }

    pub(crate) fn contract(&self, index: u32) -> ContractKeys {
        self.inner.seed.contract(index, 0)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({}, device {})", self.account().short(), self.inner.device.public().short())
    }
}

/// The number of this machine, kept in `dir/device`: random, made on first use, so that two machines with one phrase
/// never share a device key.
///
/// # Errors
/// Whatever the file system says; a file that holds anything else is not overwritten.
pub fn device_number(dir: &Path) -> std::io::Result<u64> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("device");
    match std::fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|_| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{} is damaged: move it away to make this a new device", path.display()),
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_number(dir, &path),
        Err(error) => Err(error),
    }
}

fn make_number(dir: &Path, path: &Path) -> std::io::Result<u64> {
    let number = random_u64();
    let temporary = dir.join(format!("device.{number:016x}"));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{number:016x}")?;
    file.sync_all()?;
    // A link, not a rename: of two processes that race, one number wins for both.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => device_number(dir),
        Err(error) => Err(error),
        Ok(()) => Ok(number),
    }
}

pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes, or nothing can be kept secret");
    bytes
}

fn random_u64() -> u64 {
    u64::from_le_bytes(random_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a machine keeps its number, and a damaged file is not replaced. Method: ask twice, damage, ask again.
    #[test]
    fn device_number_is_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let number = device_number(dir.path()).expect("makes one");
        assert_eq!(device_number(dir.path()).expect("reads it"), number);
        let other = tempfile::tempdir().expect("temporary folder");
        assert_ne!(device_number(other.path()).expect("makes one"), number);
        std::fs::write(dir.path().join("device"), "what").expect("writes");
        assert!(device_number(dir.path()).is_err());
        assert_eq!(std::fs::read_to_string(dir.path().join("device")).expect("reads"), "what");
    }
}

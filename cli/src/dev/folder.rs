//! The folder of a development network: what it is made of, and who holds it.
//!
//! ```text
//! <dir>/plan.json         what the network is: seeders, profile, clock; written last, so that it marks a whole folder
//! <dir>/genesis           where its ledger begins
//! <dir>/faucet            seed of the account that endows new wallets, mode 0600
//! <dir>/wallet-password   random password of wallets made for this network, mode 0600
//! <dir>/lock              held by the supervisor while the network is up
//! <dir>/state.json        what runs; there while the network is up
//! <dir>/supervisor.log
//! <dir>/validator.key     outside the validator's folder, so that a network survives the loss of that one
//! <dir>/validator/, <dir>/seeder-00/ ..    one folder for each node: data, log, last port; a seeder's key too
//! ```

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tallow_types::codec::Bounded;
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::{Fuel, Profile, TimeMs, decode, encode, tagged};
use zeroize::Zeroizing;

use crate::dev::hold::Hold;
use crate::failure::{Failure, Result, file_failed};
use crate::home::private_dir;
use crate::keyfile::{NodeKey, random};
use crate::wallet::write_secret;

/// Layout version of the folder.
const VERSION: u32 = 1;
/// What the faucet begins with.
const FAUCET: u128 = 1_000_000_000;
/// What each seeder's own account begins with: its transactions and its collateral. Fuel.
const SEEDER: u128 = 10_000;

/// What a development network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    version: u32,
    /// How many seeders.
    pub seeders: u8,
    /// Redundancy that puts ask for, as `k/n`.
    profile: String,
    /// Whether epochs pass on request only.
    pub manual_clock: bool,
    /// Address of this machine to listen at, if not loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
}

impl Plan {
    /// A plan for a new network.
    pub fn new(seeders: u8, profile: Profile, manual_clock: bool) -> Self {
        let profile = format!("{}/{}", profile.data(), profile.slots());
        Self { version: VERSION, seeders, profile, manual_clock, host: None }
    }

    /// Redundancy that puts ask for.
    pub fn profile(&self) -> Result<Profile> {
        self.profile
            .parse()
            .map_err(|reason| Failure::config(format!("plan.json has a bad profile: {reason}")))
    }

    /// Names of the seeders, which are also those of their folders.
    pub fn seeder_names(&self) -> impl Iterator<Item = String> {
        (0..self.seeders).map(|number| format!("seeder-{number:02}"))
    }
}

/// The seed of the account that endows wallets, as its file keeps it.
#[derive(BorshSerialize, BorshDeserialize, zeroize::ZeroizeOnDrop)]
struct Faucet {
    seed: [u8; 64],
}
tagged!(Faucet, b"FC", 1, "faucet file", 128);

/// The name of the validator and of its folder.
pub const VALIDATOR: &str = "validator";

/// The folder of a development network.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder at an absolute path.
    pub fn at(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|error| file_failed("use", dir, &error))?;
        Ok(Self { dir })
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file or folder in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The plan, or `None` if no network was made here.
    pub fn plan(&self) -> Result<Option<Plan>> {
        let path = self.path("plan.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("read", &path, &error)),
        };
        let plan: Plan = serde_json::from_str(&text)
            .map_err(|error| Failure::config(format!("cannot read {}", path.display())).because(&error))?;
        if plan.version != VERSION {
            let message = format!(
                "{} has version {}, this program reads version {VERSION}",
                path.display(),
                plan.version
            );
            return Err(Failure::config(message));
        }
        Ok(Some(plan))
    }

    /// Where the ledger begins.
    pub fn genesis(&self) -> Result<Genesis> {
        let path = self.path("genesis");
        let bytes = std::fs::read(&path).map_err(|error| file_failed("read", &path, &error))?;
        decode(&bytes)
            .map_err(|error| Failure::config(format!("cannot use {}", path.display())).because(&error))
    }

    /// The seed of the account that endows wallets.
    pub fn faucet(&self) -> Result<Zeroizing<[u8; 64]>> {
        let path = self.path("faucet");
        let bytes =
            std::fs::read(&path).map(Zeroizing::new).map_err(|error| file_failed("read", &path, &error))?;
        let faucet: Faucet = decode(&bytes)
            .map_err(|error| Failure::config(format!("cannot use {}", path.display())).because(&error))?;
        Ok(Zeroizing::new(faucet.seed))
    }

    /// The file with the password of wallets made for this network.
    pub fn password_file(&self) -> PathBuf {
        self.path("wallet-password")
    }

    /// Takes the folder; `None` if a network is up in it. Makes the folder if it is missing.
    pub fn take(&self) -> Result<Option<Hold>> {
        private_dir(&self.dir)?;
        Hold::take(&self.path("lock"))
    }

    /// The process that keeps a network up in the folder, if there is one.
    pub fn holder(&self) -> Result<Option<Pid>> {
        Hold::holder(&self.path("lock"))
    }

    /// Makes a network: keys, genesis, faucet, password, plan. The caller holds the lock.
    pub fn make(&self, plan: &Plan, now: TimeMs, params: Params) -> Result<()> {
        self.refuse_foreign_files()?;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.path(name);
            write_secret(&path, bytes, true).map_err(|error| file_failed("write", &path, &error))
        };
        let seed = random::<64>()?;
        let faucet = tallow_seal::keys::Seed::new(seed.clone()).policy().account();
        let validator = NodeKey::load_or_make(&self.key_file(VALIDATOR))?;
        let mut endowments = vec![(faucet, fuel(FAUCET))];
        for name in plan.seeder_names() {
            private_dir(&self.path(&name))?;
            let key = NodeKey::load_or_make(&self.key_file(&name))?.keypair().public();
            endowments.push((Policy::Key(key).account(), fuel(SEEDER)));
        }
        endowments.sort_unstable_by_key(|(account, _)| *account);
        let genesis = Genesis {
            time: now,
            params,
            validators: Bounded::new(vec![Validator {
                key: validator.keypair().public(),
                vrf_key: validator.vrf_public(),
                weight: 1,
            }])
            .expect("one is not too many"),
            endowments: Bounded::new(endowments).expect("256 accounts are not too many"),
            salt: *random()?,
        };
        write("genesis", &encode(&genesis))?;
        write("faucet", &Zeroizing::new(encode(&Faucet { seed: *seed }))[..])?;
        write("wallet-password", format!("{}\n", hex::encode(*random::<32>()?)).as_bytes())?;
        let text = serde_json::to_string_pretty(plan).expect("a plan is plain data");
        write("plan.json", text.as_bytes())
    }

    /// Where a node's key is.
    pub fn key_file(&self, name: &str) -> PathBuf {
        if name == VALIDATOR { self.path("validator.key") } else { self.path(name).join("node.key") }
    }

    /// A folder with other things in it is not ours to fill. What an interrupted `make` left is.
    fn refuse_foreign_files(&self) -> Result<()> {
        let ours = |name: &str| {
            ["lock", "genesis", "faucet", "wallet-password", "supervisor.log", "validator.key", VALIDATOR]
                .contains(&name)
                || name.starts_with("seeder-")
                || name.starts_with(".tallow-")
        };
        let entries = std::fs::read_dir(&self.dir).map_err(|error| file_failed("list", &self.dir, &error))?;
        for entry in entries {
            let name = entry.map_err(|error| file_failed("list", &self.dir, &error))?.file_name();
            if !ours(&name.to_string_lossy()) {
                return Err(Failure::user(format!("{} holds other files", self.dir.display()))
                    .hint("name an empty folder with --dir, or one that does not exist yet"));
            }
        }
        Ok(())
    }
}

fn fuel(amount: u128) -> Fuel {
    Fuel::ONE.mul_div_floor(amount, 1).expect("a billion fuel fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(3, Profile::from_k_of_n(1, 3).expect("a profile"), true)
    }

    /// Goal: a network is made once and stays what it is. Method: make, read back, compare ids and modes.
    #[test]
    fn network_is_made_once() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = Folder::at(&dir.path().join("net")).expect("absolute");
        assert_eq!(folder.plan().expect("reads"), None);
        let _hold = folder.take().expect("takes").expect("free");
        folder.make(&plan(), TimeMs::new(1), Params::dev()).expect("makes");
        assert_eq!(folder.plan().expect("reads"), Some(plan()));
        let genesis = folder.genesis().expect("reads");
        let key = NodeKey::load_or_make(&folder.key_file(VALIDATOR)).expect("reads");
        assert_eq!(genesis.endowments.len(), 4);
        assert_eq!(genesis.validators[0].key, key.keypair().public());
        for secret in ["faucet", "wallet-password", "seeder-02/node.key"] {
            let mode = std::fs::metadata(folder.path(secret)).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }

    /// Goal: somebody's folder is not filled with keys. Method: a folder with a letter in it.
    #[test]
    fn foreign_folders_are_left_alone() {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("letter.txt"), "dear").expect("writes");
        let folder = Folder::at(dir.path()).expect("absolute");
        let _hold = folder.take().expect("takes").expect("free");
        assert!(folder.make(&plan(), TimeMs::new(1), Params::dev()).is_err());
        assert_eq!(folder.plan().expect("reads"), None);
        assert!(!dir.path().join("faucet").exists());
    }
}

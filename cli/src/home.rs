//! What the program keeps of its user: which network is current, one wallet and one cache for each network.
//!
//! ```text
//! <home>/network               current network: a network string, or "dev <folder>"
//! <home>/wallets/<chain id>    wallet file, mode 0600
//! <home>/folders/<chain id>    folder of a development network that was up
//! <home>/clients/<chain id>/<account>/   the client library's folder: cache, journal and number of this device
//! ```
//!
//! `<home>` is `--home`, else `$XDG_STATE_HOME/tallow`, else `~/.local/state/tallow`. A wallet belongs to one network, so
//! that playing with a development network can never touch real keys.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tallow_types::{AccountId, ChainId};

use crate::failure::{Failure, Result, file_failed};
use crate::network::Network;
use crate::wallet;

/// The folder of a user's state.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

/// The network that commands use when none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// A development network kept in this folder; its addresses change with every start.
    Dev(PathBuf),
    /// A network elsewhere.
    Named(Network),
}

impl Home {
    /// From the option, else from the environment's folders.
    pub fn find(option: Option<&Path>) -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let dir = option
            .map(Path::to_owned)
            .or_else(|| set("XDG_STATE_HOME").map(|dir| dir.join("tallow")))
            .or_else(|| set("HOME").map(|dir| dir.join(".local/state/tallow")))
            .ok_or_else(|| {
                Failure::config("there is no home folder to keep wallets in").hint("give --home DIR")
            })?;
        let dir = std::path::absolute(&dir).map_err(|error| file_failed("use", &dir, &error))?;
        Ok(Self { dir })
    }

    /// Where a development network goes unless a folder is named.
    pub fn dev_dir(&self) -> PathBuf {
        self.dir.join("dev")
    }

    /// The wallet of a network.
    pub fn wallet(&self, chain: &ChainId) -> PathBuf {
        self.dir.join("wallets").join(chain.to_string())
    }

    /// Where a catalog is while the words of its account are being tried.
    pub fn restoring(&self, chain: &ChainId) -> PathBuf {
        self.dir.join("clients").join(chain.to_string()).join("restoring")
    }

    /// The client library's folder for an account on a network.
    pub fn client(&self, chain: &ChainId, account: &AccountId) -> PathBuf {
        self.dir.join("clients").join(chain.to_string()).join(account.to_string())
    }

    /// The current network, if one was chosen.
    pub fn current(&self) -> Result<Option<Current>> {
        let path = self.pointer();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("read", &path, &error)),
        };
        let text = text.trim_end_matches('\n');
        if let Some(dir) = text.strip_prefix("dev ") {
            return Ok(Some(Current::Dev(PathBuf::from(dir))));
        }
        let network = text.parse().map_err(|error| {
            Failure::config(format!("{} does not name a network", path.display()))
                .because(&error)
                .hint("choose one with --network, or delete that file")
        })?;
        Ok(Some(Current::Named(network)))
    }

    /// Makes a network the current one.
    pub fn set_current(&self, current: &Current) -> Result<()> {
        let text = match current {
            Current::Dev(dir) => {
                let dir = dir.to_str().filter(|dir| !dir.contains('\n')).ok_or_else(|| {
                    Failure::user(format!("the folder name {} is not plain text", dir.display()))
                        .hint("choose a folder whose path is UTF-8 without line breaks")
                })?;
                format!("dev {dir}\n")
            }
            Current::Named(network) => format!("{network}\n"),
        };
        let path = self.pointer();
        private_dir(&self.dir)?;
        wallet::write_secret(&path, text.as_bytes(), true)
            .map_err(|error| file_failed("write", &path, &error))
    }

    /// The folder of a development network, if one of that id was ever current here. What is in the folder now may be
    /// another network.
    pub fn folder(&self, chain: &ChainId) -> Option<PathBuf> {
        let path = self.dir.join("folders").join(chain.to_string());
        std::fs::read_to_string(path).ok().map(|text| PathBuf::from(text.trim_end_matches('\n')))
    }

    /// Notes the folder of a development network, and makes it the current one.
    pub fn set_folder(&self, chain: &ChainId, dir: &Path) -> Result<()> {
        self.set_current(&Current::Dev(dir.to_owned()))?;
        let folders = self.dir.join("folders");
        private_dir(&folders)?;
        let path = folders.join(chain.to_string());
        let text = format!("{}\n", dir.display());
        wallet::write_secret(&path, text.as_bytes(), true)
            .map_err(|error| file_failed("write", &path, &error))
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join("network")
    }
}

/// Makes a folder, and those above it, that only its owner may enter.
pub fn private_dir(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| file_failed("make the folder", dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the choice of network survives, and a damaged one is named. Method: round trip, then garbage.
    #[test]
    fn current_network_is_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let home = Home::find(Some(&dir.path().join("deep/home"))).expect("absolute");
        assert_eq!(home.current().expect("reads"), None);
        let dev = Current::Dev(PathBuf::from("/some where/dev"));
        home.set_current(&dev).expect("writes");
        assert_eq!(home.current().expect("reads"), Some(dev));
        std::fs::write(dir.path().join("deep/home/network"), "nonsense").expect("writes");
        let failure = home.current().expect_err("refused");
        assert_eq!(failure.kind, crate::failure::Kind::Config);
        assert!(home.set_current(&Current::Dev(PathBuf::from("a\nb"))).is_err());
    }
}

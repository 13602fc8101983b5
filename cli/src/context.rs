//! What every command starts from: options, home folder, output, and from these the network and its password.

use crate::args::Global;
use crate::dev::folder::Folder;
use crate::dev::state::State;
use crate::failure::{Failure, Result};
use crate::home::{Current, Home};
use crate::network::Network;
use crate::output::Output;
use crate::secret::PasswordSource;

/// What every command starts from.
pub struct Context {
    /// Options.
    pub global: Global,
    /// Wallets, caches, the current network.
    pub home: Home,
    /// How to talk.
    pub out: Output,
}

/// The network that a command works on.
pub struct Chosen {
    /// Chain id and addresses.
    pub network: Network,
    /// The folder, if it is a development network of this machine.
    pub dev: Option<Folder>,
}

impl Context {
    /// From the options.
    pub fn new(global: Global) -> Result<Self> {
        let home = Home::find(global.home.as_deref())?;
        let out = Output::new(&global);
        Ok(Self { global, home, out })
    }

    /// The network of `--network`, else the current one.
    pub fn network(&self) -> Result<Chosen> {
        if let Some(network) = &self.global.network {
            // A development network of this home keeps its conveniences, also when another is the current one.
            let folder = self.home.folder(&network.chain).map(|dir| Folder::at(&dir)).transpose()?;
            let is_it =
                |folder: &Folder| folder.genesis().is_ok_and(|genesis| genesis.chain() == network.chain);
            let dev = folder.filter(is_it);
            return Ok(Chosen { network: network.clone(), dev });
        }
        match self.home.current()? {
            Some(Current::Named(network)) => Ok(Chosen { network, dev: None }),
            Some(Current::Dev(dir)) => {
                let folder = Folder::at(&dir)?;
                Ok(Chosen { network: running(&folder)?.network()?, dev: Some(folder) })
            }
            None => Err(Failure::config("no network is chosen")
                .hint("make one on this machine with: tallow dev up")
                .hint("or name one with: --network tallow:<chain id>@<address>")),
        }
    }

    /// The folder of the development network that a `dev` command means.
    pub fn dev_folder(&self, option: Option<&std::path::Path>) -> Result<Folder> {
        if let Some(dir) = option {
            return Folder::at(dir);
        }
        match self.home.current()? {
            Some(Current::Dev(dir)) => Folder::at(&dir),
            _ => Folder::at(&self.home.dev_dir()),
        }
    }

    /// Where the password of a wallet comes from.
    pub fn password(&self, chosen: &Chosen) -> PasswordSource {
        PasswordSource::from_option(self.global.password_file.as_deref())
            .or_else(|| chosen.dev.as_ref().map(|folder| PasswordSource::File(folder.password_file())))
            .unwrap_or(PasswordSource::Terminal)
    }
}

/// What runs in the folder of a development network.
pub fn running(folder: &Folder) -> Result<State> {
    let down = || {
        Failure::unavailable(format!("the development network in {} is down", folder.dir().display()))
            .hint(format!("start it with: tallow dev up --dir {}", folder.dir().display()))
    };
    if folder.holder()?.is_none() {
        return Err(down());
    }
    State::read(&folder.path("state.json"))?.ok_or_else(|| {
        let dir = folder.dir().display();
        Failure::unavailable(format!("the development network in {dir} is just starting or stopping"))
            .hint("type it again in a moment")
    })
}

//! A wallet, opened, connected to its network: what commands that touch stored data work with.

use std::sync::Arc;

use tallow_client::{
    Access, Client, ContractPlan, Explain, Identity, Options, Tuning, WallClock, device_number,
};
use tallow_net::{Config, Node};
use tallow_seal::keys::Seed;
use tallow_seal::phrase::Phrase;
use tallow_types::Profile;

use crate::context::{Chosen, Context};
use crate::failure::{Failure, Kind, Result, file_failed};
use crate::home::private_dir;
use crate::wallet::{self, Entropy, WalletError};

/// An opened client with its way to the network.
pub struct Session {
    /// The client library.
    pub client: Client,
    node: Node,
}

impl Session {
    /// With the wallet of the chosen network.
    pub async fn open(
        ctx: &Context,
        chosen: &Chosen,
        access: Access,
        profile: Option<Profile>,
    ) -> Result<Self> {
        let entropy = open_wallet(ctx, chosen)?;
        Self::with(ctx, chosen, &entropy, access, profile).await
    }

    /// With the entropy of a wallet.
    pub async fn with(
        ctx: &Context,
        chosen: &Chosen,
        entropy: &Entropy,
        access: Access,
        profile: Option<Profile>,
    ) -> Result<Self> {
        let dir = ctx.home.client(&chosen.network.chain);
        private_dir(&dir)?;
        let number =
            device_number(&dir).map_err(|error| file_failed("keep this device's number in", &dir, &error))?;
        let identity = Identity::new(Phrase::generate(entropy).seed(), number);
        let plan = profile_for(chosen, profile)?;
        Self::connect(chosen, identity, Some(dir), access, plan).await
    }

    /// With a seed that leaves nothing on this machine: the faucet of a development network.
    pub async fn fleeting(chosen: &Chosen, seed: Seed) -> Result<Self> {
        let number = u64::from_le_bytes(*crate::keyfile::random()?);
        let plan = profile_for(chosen, None)?;
        Self::connect(chosen, Identity::new(seed, number), None, Access::Write, plan).await
    }

    async fn connect(
        chosen: &Chosen,
        identity: Identity,
        dir: Option<std::path::PathBuf>,
        access: Access,
        profile: Profile,
    ) -> Result<Self> {
        let node = Node::start(Config::new(identity.device()))
            .await
            .map_err(|error| Failure::unavailable("cannot use the network").because(&error))?;
        let client = Client::open(Options {
            dir,
            access,
            chain: chosen.network.chain,
            bootstrap: chosen.network.bootstrap.clone(),
            transport: Arc::new(node.clone()),
            identity,
            contract: ContractPlan::new(profile),
            clock: Arc::new(WallClock),
            tuning: Tuning::default(),
        })
        .await
        .map_err(explain)?;
        Ok(Self { client, node })
    }

    /// Gives back the write lease and closes all connections. To be called at the end of work that succeeded; after a
    /// failure the lease runs out by itself.
    pub async fn close(self) -> Result<()> {
        let closed = self.client.close().await.map_err(explain);
        self.node.shutdown().await;
        closed
    }
}

/// The profile asked for, else the network's usual one.
fn profile_for(chosen: &Chosen, profile: Option<Profile>) -> Result<Profile> {
    if let Some(profile) = profile {
        return Ok(profile);
    }
    let of_dev = chosen.dev.as_ref().map(|folder| folder.plan()).transpose()?.flatten();
    match of_dev {
        Some(plan) => plan.profile(),
        None => Ok(Profile::from_k_of_n(20, 42).expect("20 of 42 is a profile")),
    }
}

/// The secret in the wallet file of a network.
pub fn open_wallet(ctx: &Context, chosen: &Chosen) -> Result<Entropy> {
    let path = ctx.home.wallet(&chosen.network.chain);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let chain = chosen.network.chain.short();
            return Err(Failure::config(format!("there is no wallet for network {chain}"))
                .hint("make one with: tallow wallet new")
                .hint("or bring one back from its 24 words with: tallow wallet restore"));
        }
        Err(error) => return Err(file_failed("read the wallet", &path, &error)),
    };
    let password = ctx.password(chosen).read()?;
    wallet::open(&bytes, password.as_bytes()).map_err(|error| {
        let failure = match &error {
            WalletError::WrongPassword => return Failure::user(error.to_string()).hint(wrong_password_hint(ctx)),
            WalletError::OutOfMemory => Failure::unavailable(format!("cannot open {}", path.display())),
            WalletError::Damaged(_) | WalletError::Version(_) | WalletError::TooCostly { .. } => {
                Failure::config(format!("cannot open {}", path.display()))
                    .hint("move the file away and bring the wallet back from its 24 words with: tallow wallet restore")
            }
        };
        failure.because(&error)
    })
}

fn wrong_password_hint(ctx: &Context) -> &'static str {
    if ctx.global.password_file.is_some() {
        "check the first line of the password file; if the password is lost: tallow wallet restore"
    } else {
        "type it again, or name its file with --password-file; if it is lost: tallow wallet restore"
    }
}

/// Turns an error of the client library into a failure.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub fn explain<E: Explain + 'static>(error: E) -> Failure {
    use tallow_client::Kind as K;
    let kind = match error.kind() {
        K::User => Kind::User,
        K::Config => Kind::Config,
        K::Unavailable => Kind::Unavailable,
        K::Interrupted => Kind::Interrupted,
        K::Bug => return bug(&error),
    };
    let mut failure = Failure { kind, message: error.to_string(), causes: Vec::new(), hints: Vec::new() };
    if let Some(hint) = error.hint() {
        failure = failure.hint(hint);
    }
    failure.because(&error)
}

fn bug<E: Explain + 'static>(error: &E) -> Failure {
    let failure = Failure::bug(error.to_string()).because(error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

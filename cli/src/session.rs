//! A wallet, opened, connected to its network: what commands that touch stored data work with.

use std::sync::Arc;
use std::time::Duration;

use tallow_client::{
    Access, Blame, Client, ContractPlan, Explain, GetError, Identity, LedgerError, LocalError, Options,
    PutError, SessionError, Tuning, WallClock, device_number,
};
use tallow_net::{Config, Discovery, Node, Way};
use tallow_seal::keys::Seed;
use tallow_seal::phrase::Phrase;
use tallow_types::Profile;
use tallow_types::fault::Code;

use crate::args::Line;
use crate::context::{Chosen, Context};
use crate::failure::{Failure, Result, file_failed};
use crate::home::private_dir;
use crate::human;
use crate::network::Network;
use crate::output::Output;
use crate::wallet::{self, Entropy, WalletError};

/// How long a command waits for another one of the same user that writes.
const WAIT: Duration = Duration::from_secs(600);
/// How often it looks whether that is done.
const RETRY: Duration = Duration::from_millis(100);
/// For clients that have no folder in which anybody could be in the way.
const SILENT: Output = Output { json: false, quiet: true };

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
        Self::open_within(ctx, chosen, access, profile, &Line::default()).await
    }

    /// The same, over the line as asked for.
    pub async fn open_within(
        ctx: &Context,
        chosen: &Chosen,
        access: Access,
        profile: Option<Profile>,
        line: &Line,
    ) -> Result<Self> {
        let entropy = open_wallet(ctx, chosen)?;
        Self::of_account(ctx, chosen, &entropy, (access, profile), line).await
    }

    /// With the entropy of a wallet.
    pub async fn with(
        ctx: &Context,
        chosen: &Chosen,
        entropy: &Entropy,
        access: Access,
        profile: Option<Profile>,
    ) -> Result<Self> {
        Self::of_account(ctx, chosen, entropy, (access, profile), &Line::default()).await
    }

    async fn of_account(
        ctx: &Context,
        chosen: &Chosen,
        entropy: &Entropy,
        (access, profile): (Access, Option<Profile>),
        line: &Line,
    ) -> Result<Self> {
        let seed = Phrase::generate(entropy).seed();
        let dir = ctx.home.client(&chosen.network.chain, &seed.policy().account());
        private_dir(&dir)?;
        let number =
            device_number(&dir).map_err(|error| file_failed("keep this device's number in", &dir, &error))?;
        let identity = Identity::new(seed, number);
        let plan = profile_for(chosen, profile)?;
        let node = connect(chosen, &identity, line).await?;
        Self::over(node, ctx.out, chosen, identity, Some(dir), access, plan).await
    }

    /// With a seed that leaves nothing on this machine: the faucet of a development network, or words not yet known to
    /// be a wallet's.
    pub async fn fleeting(chosen: &Chosen, seed: Seed, access: Access) -> Result<Self> {
        Self::trying(chosen, seed, access, None).await
    }

    /// The same with a folder, for the caller to keep or to remove.
    pub async fn trying(
        chosen: &Chosen,
        seed: Seed,
        access: Access,
        dir: Option<std::path::PathBuf>,
    ) -> Result<Self> {
        let number = u64::from_le_bytes(*crate::keyfile::random()?);
        let plan = profile_for(chosen, None)?;
        let identity = Identity::new(seed, number);
        let node = connect(chosen, &identity, &Line::default()).await?;
        Self::over(node, SILENT, chosen, identity, dir, access, plan).await
    }

    async fn over(
        node: Node,
        out: Output,
        chosen: &Chosen,
        identity: Identity,
        dir: Option<std::path::PathBuf>,
        access: Access,
        profile: Profile,
    ) -> Result<Self> {
        let mut every = tokio::time::interval(RETRY);
        let until = tokio::time::Instant::now() + WAIT;
        let mut said = false;
        let client = loop {
            every.tick().await;
            let opened = Client::open(Options {
                dir: dir.clone(),
                access,
                chain: chosen.network.chain,
                bootstrap: chosen.network.bootstrap.clone(),
                transport: Arc::new(node.clone()),
                identity: identity.clone(),
                contract: ContractPlan::new(profile),
                clock: Arc::new(WallClock),
                tuning: Tuning::default(),
            });
            match opened.await {
                Ok(client) => break client,
                // Another command of this user writes: it is awaited, as two machines await each other.
                Err(SessionError::Local(LocalError::Locked(_))) if tokio::time::Instant::now() < until => {
                    if !std::mem::replace(&mut said, true) {
                        out.note("waiting for another command that writes to this account");
                    }
                }
                Err(error) => return Err(not_opened(error, chosen)),
            }
        };
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

/// A way to the network, under the key of a device.
pub async fn connect(chosen: &Chosen, identity: &Identity, line: &Line) -> Result<Node> {
    let Network { chain, bootstrap } = &chosen.network;
    let discovery = Discovery::asking(chain.to_string(), bootstrap.clone());
    let config = Config::new(identity.device()).discovery(discovery).tuning(line.limits.tuning());
    let config = if line.quic { config.prefer(Way::Quic) } else { config };
    Node::start(config).await.map_err(|error| Failure::unavailable("cannot use the network").because(&error))
}

/// Why a network cannot be used. A node of another network is a matter of set-up, whoever noticed it.
fn not_opened(error: SessionError, chosen: &Chosen) -> Failure {
    let other = match &error {
        SessionError::Ledger(LedgerError::WrongNetwork { .. }) => true,
        SessionError::Ledger(LedgerError::Refused(fault)) => fault.code() == Code::WrongChain,
        _ => false,
    };
    if !other {
        return explain(error);
    }
    let chain = chosen.network.chain.short();
    Failure::config(format!("the node at that address belongs to another network than {chain}"))
        .because(&error)
        .hint("chain id and addresses must be of one network: copy its string from `tallow wallet show`")
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

/// What the program says better about the ledger than the library can: how its commands are called, and in what unit
/// people count.
fn of_ledger(error: &LedgerError) -> Option<Failure> {
    match error {
        LedgerError::Unreachable { .. } => Some(
            Failure::unavailable(error.to_string())
                .hint("check the network string, and that its nodes are up")
                .hint("a development network shows what runs with: tallow dev status"),
        ),
        LedgerError::Poor { have, need } => {
            let (has, takes) = (human::fuel(*have), human::fuel(*need));
            Some(
                Failure::user(format!("the account has {has}, this takes {takes}"))
                    .hint("have money sent to the account that `tallow wallet show` names, or ask for less"),
            )
        }
        _ => None,
    }
}

/// Longest reason that is shown of one seeder. Characters.
const REASON_MAX: usize = 140;

/// Turns an error of the client library into a failure. What each seeder did is told in lines of its own.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
pub fn explain<E: Explain + Tells + 'static>(error: E) -> Failure {
    if let Some(failure) = error.ledger().and_then(of_ledger) {
        return failure;
    }
    let mut message = error.to_string();
    let blames = error.blames();
    if let Some(first) = blames.first()
        && let Some(at) = message.find(&format!(": {first}"))
    {
        message.truncate(at);
    }
    let mut failure = Failure::new(error.kind(), message);
    failure.details = blames.iter().map(detail).collect();
    if let Some(hint) = error.hint() {
        failure = failure.hint(hint);
    }
    if blames.is_empty() { failure.because(&error) } else { failure }
}

fn detail(blame: &Blame) -> String {
    // The id in an address repeats the seeder's, in another spelling.
    let line = without_peer_ids(&blame.to_string());
    match line.char_indices().nth(REASON_MAX) {
        Some((at, _)) => format!("{}..", &line[..at]),
        None => line,
    }
}

fn without_peer_ids(line: &str) -> String {
    let mut parts = line.split("/p2p/");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    kept
}

/// An error that may name seeders.
pub trait Tells {
    /// The seeders that failed.
    fn blames(&self) -> &[Blame];

    /// The ledger's error that it is, if it is one.
    fn ledger(&self) -> Option<&LedgerError>;
}

impl Tells for SessionError {
    fn ledger(&self) -> Option<&LedgerError> {
        if let Self::Ledger(error) = self { Some(error) } else { None }
    }

    fn blames(&self) -> &[Blame] {
        match self {
            Self::ReadOnly { failed, .. } | Self::Unreadable { failed, .. } => failed,
            _ => &[],
        }
    }
}

impl Tells for PutError {
    fn ledger(&self) -> Option<&LedgerError> {
        if let Self::Session(inner) = self { inner.ledger() } else { None }
    }

    fn blames(&self) -> &[Blame] {
        match self {
            Self::Session(inner) => inner.blames(),
            Self::TooFew { failed, .. } => failed,
            Self::TooFewSeeders { refused, .. } => refused,
            _ => &[],
        }
    }
}

impl Tells for GetError {
    fn ledger(&self) -> Option<&LedgerError> {
        if let Self::Session(inner) = self { inner.ledger() } else { None }
    }

    fn blames(&self) -> &[Blame] {
        match self {
            Self::Session(inner) => inner.blames(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: lines about seeders are short and lose nothing that matters. Method: one address, and none.
    #[test]
    fn peer_ids_are_left_out() {
        assert_eq!(
            without_peer_ids("to /ip4/1.2.3.4/tcp/5/p2p/12D3KooW: refused"),
            "to /ip4/1.2.3.4/tcp/5: refused"
        );
        assert_eq!(without_peer_ids("it does not answer"), "it does not answer");
    }
}

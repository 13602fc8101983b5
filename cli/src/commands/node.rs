//! `tallow seed run`, and the node processes of a development network: one storage node until it is told to stop.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tallow_consensus::{Chain, Clock, Options};
use tallow_ledger::{key, record};
use tallow_storage_node::seeder::Terms;
use tallow_storage_node::store::{StoreConfig, Upkeep};
use tallow_storage_node::{Join, Node, NodeConfig, SeederConfig, StartError, ValidatorConfig};
use tallow_types::contract::{Address, Region};
use tallow_types::params::Params;
use tallow_types::policy::Policy;
use tallow_types::{Bytes, EpochCount, decode};

use crate::args::{NodeRun, Role};
use crate::context::Context;
use crate::dev::fleet::ReadyLine;
use crate::dev::remote::Remote;
use crate::failure::{Failure, Result, file_failed};
use crate::home::private_dir;
use crate::keyfile::NodeKey;
use crate::stop::Stop;
use crate::{human, lifeline};

/// How long before it leaves a seeder says so, where the network allows for that: seven days. Milliseconds.
const NOTICE_MS: u64 = 7 * 24 * 3_600_000;

/// What a seeder of a development network leaves free on the disk. Bytes.
const DEV_RESERVE: u64 = 256 << 20;
/// How long its segment files are. Bytes.
const DEV_SEGMENT: u64 = 16 << 20;

/// How a node is started.
pub struct Start {
    /// What it does.
    pub role: Role,
    /// Where its network begins.
    pub genesis: Option<PathBuf>,
    /// Whether epochs pass on request only.
    pub manual_clock: bool,
    /// Whether a validator takes over a ledger that was followed.
    pub adopt: bool,
    /// Whether it ends with the process that started it.
    pub supervised: bool,
}

/// Runs a node until it is told to stop.
pub async fn run(ctx: &Context, start: Start, args: NodeRun) -> Result<()> {
    // First of all, so that not even a node that is still starting outlives its parent.
    let orphaned = start.supervised.then(|| lifeline::tie(true));
    let mut signals = Stop::listen()?;
    let stop = async {
        tokio::select! {
            failure = signals.asked() => drop(failure),
            () = parent_gone(orphaned) => {}
        }
    };
    tokio::pin!(stop);
    private_dir(&args.dir)?;
    let config = configure(ctx, &start, &args).await?;
    let node = tokio::select! {
        node = Node::start(config) => node.map_err(not_started)?,
        () = &mut stop => return Ok(()),
    };
    announce(ctx, &start, &node);
    tokio::select! {
        () = node.ready() => {
            if start.supervised {
                supervised_ready(&node);
            } else {
                let account = Policy::Key(node.peer().key).account();
                ctx.out.result("seed-ready", json!({ "account": account.to_string() }), || {
                    "ready: its terms are on the ledger\n".to_owned()
                });
            }
        }
        () = &mut stop => {
            node.stop().await;
            return Ok(());
        }
    }
    match node.run_until(stop).await {
        Some(why) => Err(Failure::bug(format!("{why}; the node has stopped"))),
        None => Ok(()),
    }
}

async fn parent_gone(orphaned: Option<tokio::sync::oneshot::Receiver<()>>) {
    match orphaned {
        Some(orphaned) => drop(orphaned.await),
        None => std::future::pending().await,
    }
}

async fn configure(ctx: &Context, start: &Start, args: &NodeRun) -> Result<NodeConfig> {
    let key_file = args.key.clone().unwrap_or_else(|| args.dir.join("node.key"));
    let key = NodeKey::load_or_make(&key_file)?;
    let join = match &start.genesis {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| file_failed("read", path, &error))?;
            let genesis = decode(&bytes)
                .map_err(|error| Failure::config(format!("cannot use {}", path.display())).because(&error))?;
            Join::Genesis(genesis)
        }
        None => {
            let network = ctx.network()?.network;
            Join::Network { chain: network.chain, bootstrap: network.bootstrap }
        }
    };
    let mut config = NodeConfig::new(args.dir.clone(), key.keypair(), join);
    config.listen = addresses(&args.listen)?;
    if !args.no_quic {
        let beside: Vec<Address> = config.listen.iter().filter_map(quic_beside).collect();
        config.listen.extend(beside);
    }
    config.announce = addresses(&args.announce)?;
    config.tuning = args.limits.tuning();
    match start.role {
        Role::Validator => {
            let clock = if start.manual_clock { Clock::Manual } else { Clock::Wall };
            config.validator = Some(ValidatorConfig { vrf: key.vrf(), clock, adopt: start.adopt });
        }
        Role::Seeder => {
            let store = StoreConfig { room: Bytes::new(args.room), ..StoreConfig::default() };
            // Many seeders share one disk in a development network: what each sets aside must stay small.
            let dev =
                StoreConfig { reserve: Bytes::new(DEV_RESERVE), segment: Bytes::new(DEV_SEGMENT), ..store };
            let store = if start.supervised { dev } else { store };
            let terms = terms(args, &rules(ctx, &config).await?)?;
            config.seeder = Some(SeederConfig { terms, store, upkeep: upkeep(args) });
        }
    }
    Ok(config)
}

fn upkeep(args: &NodeRun) -> Upkeep {
    let period = Duration::from_hours(24).saturating_mul(args.scrub_days);
    Upkeep { scrub: (!period.is_zero()).then_some(period) }
}

fn addresses(texts: &[String]) -> Result<Vec<Address>> {
    let too_long = |text: &String| Failure::config(format!("the address is too long: {text}"));
    texts.iter().map(|text| Address::new(text.clone()).ok_or_else(|| too_long(text))).collect()
}

/// The address for QUIC that goes with one for TCP: the UDP port of the same number, unless somebody has it.
fn quic_beside(address: &Address) -> Option<Address> {
    let (host, port) = address.as_str().split_once("/tcp/")?;
    let (number, ip) = (port.parse::<u16>().ok()?, host.rsplit('/').next()?.parse::<IpAddr>().ok()?);
    match UdpSocket::bind((ip, number)) {
        Ok(_) => Address::new(format!("{host}/udp/{number}/quic-v1")),
        Err(error) => {
            tracing::warn!(%error, number, "no QUIC beside TCP: its UDP port is not free");
            None
        }
    }
}

/// The rules of the network that a node is about to join: from the ledger in its folder, else from the network.
async fn rules(ctx: &Context, config: &NodeConfig) -> Result<Params> {
    if let Join::Genesis(genesis) = &config.join {
        return Ok(genesis.params);
    }
    if let Ok(chain) = Chain::reopen(&config.dir.join("ledger"), Options::default()) {
        return Ok(chain.genesis().params);
    }
    let remote = Remote::connect(&ctx.network()?.network).await?;
    let params = remote.params().await;
    remote.close().await;
    params
}

fn terms(args: &NodeRun, params: &Params) -> Result<Terms> {
    let region = Region::new(args.region.clone()).ok_or_else(|| {
        Failure::config(format!("a region label has at most {} bytes", tallow_types::limits::REGION_MAX))
    })?;
    // Collateral stays locked as long as a notice may be, so the ledger takes none that is longer.
    let wanted = EpochCount::new(NOTICE_MS / params.epoch.get().max(1));
    Ok(Terms {
        payout: args.payout,
        price: args.price.unwrap_or(params.price_min),
        region,
        notice: wanted.min(params.collateral_epochs),
        room: Bytes::new(args.room),
    })
}

/// Tells a person where the node is and, if it needs some, where to send money.
fn announce(ctx: &Context, start: &Start, node: &Node) {
    if start.supervised {
        return;
    }
    let bootstrap: Vec<String> = node.bootstrap().iter().map(|address| address.as_str().to_owned()).collect();
    let account = Policy::Key(node.peer().key).account();
    let balance = node
        .chain()
        .get(&key::account(&account))
        .ok()
        .flatten()
        .and_then(|bytes| decode::<record::Account>(&bytes).ok())
        .map(|account| account.balance);
    let value = json!({
        "address": bootstrap,
        "account": account.to_string(),
        "chain": node.chain_id().to_string(),
        "free_units": balance.map(|balance| balance.get().to_string()),
    });
    ctx.out.result("seed", value, || {
        let mut text = format!("listens on  {}\naccount     {account}\n", bootstrap.join("\n            "));
        match balance {
            Some(balance) => text.push_str(&format!("balance     {}\n", human::fuel(balance))),
            None => text.push_str(
                "balance     none: it waits until this account has some, for its terms and its collateral\n",
            ),
        }
        text
    });
}

/// The line that a supervisor waits for.
fn supervised_ready(node: &Node) {
    use std::io::Write as _;
    let address = node.bootstrap().first().map(|address| address.as_str().to_owned()).unwrap_or_default();
    let line = serde_json::to_string(&ReadyLine { address }).expect("a text is plain data");
    let mut out = std::io::stdout().lock();
    // A supervisor that is gone is noticed by the lifeline.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn not_started(error: StartError) -> Failure {
    let text = error.to_string();
    let failure = if error.is_address_in_use() {
        Failure::user(text).hint("let the system choose one with: --listen /ip4/127.0.0.1/tcp/0")
    } else if error.is_in_use() {
        Failure::user(text).hint("stop the other process, or give each node a folder of its own with --dir")
    } else if error.is_other_network() {
        Failure::config(text).hint("give each network a folder of its own with --dir")
    } else if error.is_unreachable() {
        Failure::unavailable(text).hint("check the network string, and that its nodes are up")
    } else {
        match &error {
            StartError::Net(_) | StartError::NoGenesis => Failure::config(text),
            StartError::Panicked => Failure::bug(text),
            _ => Failure::unavailable(text),
        }
    };
    failure.because(&error)
}

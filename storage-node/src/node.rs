//! One node in one folder: ledger, validator or follower, seeder, service and network, started and stopped together.
//!
//! ```text
//! <dir>/lock          held while a process has the folder
//! <dir>/address       where the node listens, one multiaddr a line; written when it does
//! <dir>/ledger/       the ledger
//! <dir>/slices/       the slice store, if it is a seeder
//! ```
//!
//! Guarantees: one process a folder; when `start` returns the node listens and answers; when `stop` returns everything is
//! closed and nothing is signed any more. A seeder's folder can be deleted and lost: it then says what it does not know.
//!
//! The newest certificate of a contract is posted by its client, which alone has all countersignatures.

mod duties;
mod error;
mod folder;
mod follow;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tallow_consensus::validator::{self, Handle};
use tallow_consensus::{Chain, ChainError, Clock, Options, follower};
use tallow_net::{Discovery, Peer, Reply, Service, Transport, Tuning};
use tallow_proofs::beacon::Secret;
use tallow_types::contract::Address;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::ADDRESSES_MAX;
use tallow_types::params::Genesis;
use tallow_types::sign::Keypair;
use tallow_types::wire::Request;
use tallow_types::{ChainId, PublicKey};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use error::StartError;

use crate::seeder::{Seeder, Terms};
use crate::service::StorageService;
use crate::store::{OpenError, SliceStore, StoreConfig, Upkeep};
use crate::upstream::Upstream;

/// How long a node that has no ledger yet looks for somebody who has.
const JOIN: Duration = Duration::from_secs(30);
/// How long files of a node that stopped in this process are waited for.
const LEAVING: Duration = Duration::from_secs(5);
/// Pause between tries to reach anybody: the first and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// How a node comes to its ledger.
#[derive(Clone, Debug)]
pub enum Join {
    /// It begins the network, or goes on with one that began so.
    Genesis(Genesis),
    /// It follows a network.
    Network {
        /// The network.
        chain: ChainId,
        /// Who is asked for it.
        bootstrap: Vec<Peer>,
    },
}

/// What a validator needs.
pub struct ValidatorConfig {
    /// Makes beacon shares.
    pub vrf: Secret,
    /// Where time comes from.
    pub clock: Clock,
    /// Whether the ledger in the folder was followed so far and the node takes the validator's place, under a new
    /// incarnation. For one start only.
    pub adopt: bool,
}

/// What a seeder needs.
#[derive(Clone, Debug)]
pub struct SeederConfig {
    /// What it asks for.
    pub terms: Terms,
    /// How its slices are kept.
    pub store: StoreConfig,
    /// How they are kept in order.
    pub upkeep: Upkeep,
}

/// What a node is started with.
pub struct NodeConfig {
    /// Its folder.
    pub dir: PathBuf,
    /// Its identity on the network, as a seeder and as a validator.
    pub keypair: Keypair,
    /// Where it listens; port 0 takes a free one.
    pub listen: Vec<Address>,
    /// Where others reach it, if not where it listens.
    pub announce: Vec<Address>,
    /// How it comes to its ledger.
    pub join: Join,
    /// Set on the validator.
    pub validator: Option<ValidatorConfig>,
    /// Set on a seeder.
    pub seeder: Option<SeederConfig>,
    /// How the ledger is kept.
    pub ledger: Options,
    /// Limits and times of its connections.
    pub tuning: Tuning,
}

impl NodeConfig {
    /// A node that only follows, with nothing set but the necessary.
    #[must_use]
    pub fn new(dir: PathBuf, keypair: Keypair, join: Join) -> Self {
        Self {
            dir,
            keypair,
            listen: Vec::new(),
            announce: Vec::new(),
            join,
            validator: None,
            seeder: None,
            ledger: Options::default(),
            tuning: Tuning::default(),
        }
    }
}

/// A running node. It stops when `stop` is called, or, less orderly, when the last clone goes.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<tallow_net::Node>,
    chain: Arc<Chain>,
    validator: Option<Handle>,
    seeder: Option<Arc<Seeder>>,
    service: Arc<StorageService>,
    ready: watch::Receiver<bool>,
    halted: watch::Receiver<bool>,
    tasks: Mutex<JoinSet<()>>,
    /// Last: the folder is free when everything else is closed.
    _folder: folder::Lock,
}

/// Stands for the service while the node is being started.
#[derive(Default)]
struct Later(OnceLock<Arc<StorageService>>);

#[async_trait]
impl Service for Later {
    async fn serve(&self, from: PublicKey, request: Request, payload: bytes::Bytes) -> Reply {
        match self.0.get() {
            Some(service) => service.serve(from, request, payload).await,
            None => Fault::new(Code::Busy, "this node is starting").into(),
        }
    }
}

impl Node {
    /// Starts a node; returns when it listens and answers.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let NodeConfig { dir, keypair, listen, announce, join, validator, seeder, ledger, tuning } = config;
        let lock = folder::Lock::take(&dir)?;
        let later = Arc::new(Later::default());
        let (id, peers) = match &join {
            Join::Genesis(genesis) => (genesis.chain(), Vec::new()),
            Join::Network { chain, bootstrap } => {
                let others = bootstrap.iter().filter(|peer| peer.key != keypair.public());
                (*chain, others.cloned().collect())
            }
        };
        let known = Arc::new(OnceLock::<Arc<Chain>>::new());
        let register = known.clone();
        let is_seeder = move |key: &PublicKey| {
            let record = register.get().map(|chain| chain.get(&tallow_ledger::key::seeder(&key.seeder())));
            matches!(record, Some(Ok(Some(_))))
        };
        let discovery = Discovery::serving(id.to_string(), peers.clone(), is_seeder);
        let mut network =
            tallow_net::Config::new(&keypair).service(later.clone()).discovery(discovery).tuning(tuning);
        network.listen = listen;
        network.announce.clone_from(&announce);
        let net = tallow_net::Node::start(network).await?;
        let upstream = Upstream::new(peers);
        let net = Arc::new(net);
        let line: Arc<dyn Transport> = net.clone();
        upstream.connect_lent(Arc::downgrade(&line));
        let ledger_dir = dir.join("ledger");
        let (chain, validator) = match validator {
            Some(config) => {
                let handle = seat(ledger_dir, join, copy(&keypair), config, ledger).await?;
                (handle.chain().clone(), Some(handle))
            }
            None => (open_ledger(ledger_dir, join, &upstream, ledger).await?, None),
        };
        let _ = known.set(chain.clone());
        let mut terms = None;
        let seeder = match seeder {
            None => None,
            Some(config) => {
                terms = Some(config.terms);
                let (own, slices) = (chain.clone(), dir.join("slices"));
                let store = patiently(move || Ok(SliceStore::open(&slices, config.store)?)).await?;
                store.keep_up(config.upkeep).map_err(OpenError::from)?;
                Some(Arc::new(Seeder::new(keypair, own, store)))
            }
        };
        let service = StorageService::new(chain.clone(), validator.clone(), seeder.clone(), upstream.clone());
        let service = Arc::new(service);
        service.listens(net.peer().bootstrap());
        let mut addresses = if announce.is_empty() { net.addresses() } else { announce };
        addresses.truncate(ADDRESSES_MAX);
        let mut tasks = JoinSet::new();
        let (synced, halted) = follow::spawn(&mut tasks, &chain, validator.is_some(), &upstream);
        let ready = match (&seeder, terms) {
            (Some(seeder), Some(terms)) => {
                let way = duties::Way { validator: validator.clone(), upstream };
                duties::announce(&mut tasks, seeder, &chain, &net, &synced);
                duties::spawn(&mut tasks, seeder, &chain, way, (terms, addresses), &synced)
            }
            _ => synced,
        };
        // Set only now: whoever gets an answer finds a whole node behind it.
        let _ = later.0.set(service.clone());
        folder::write_address(&dir, &net.peer().bootstrap())?;
        tracing::info!(key = net.key().short(), height = %chain.status().height, "node is up");
        let tasks = Mutex::new(tasks);
        let inner = Inner { net, chain, validator, seeder, service, ready, halted, tasks, _folder: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The node as a peer for others.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.net.peer()
    }

    /// The node's addresses, as others write them to reach it.
    #[must_use]
    pub fn bootstrap(&self) -> Vec<Address> {
        self.peer().bootstrap()
    }

    /// The network.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        self.inner.chain.id()
    }

    /// The ledger.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.inner.chain
    }

    /// The seeder, if it is one.
    #[must_use]
    pub fn seeder(&self) -> Option<&Arc<Seeder>> {
        self.inner.seeder.as_ref()
    }

    /// What answers the network.
    #[must_use]
    pub fn service(&self) -> &Arc<StorageService> {
        &self.inner.service
    }

    /// Returns once the ledger is known up to now and, on a seeder, has the seeder's newest terms. Never, if that never
    /// comes: a seeder without money waits for some.
    pub async fn ready(&self) {
        let mut ready = self.inner.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs until `stop` is done, or until this node must halt by itself; then stops. Answers why it halted: its ledger and
    /// the network's have parted, or its validator can't go on. Either way it would serve a ledger that stands still.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) -> Option<String> {
        let why = tokio::select! {
            () = stop => None,
            () = self.forked() => Some("the ledger followed here and the network's have parted".to_owned()),
            why = self.validator_stopped() => Some(why),
        };
        self.stop().await;
        why
    }

    async fn forked(&self) {
        if self.inner.halted.clone().wait_for(|halted| *halted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn validator_stopped(&self) -> String {
        match &self.inner.validator {
            Some(validator) => {
                validator.stopped().await.unwrap_or_else(|| "the validator stopped".to_owned())
            }
            None => std::future::pending().await,
        }
    }

    /// Stops in order: no new requests, those that write to their end, then the rest.
    pub async fn stop(&self) {
        self.inner.net.shutdown().await;
        let mut tasks = {
            let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
        if let Some(validator) = &self.inner.validator {
            validator.stop().await;
        }
        tracing::info!("node has stopped");
    }
}

/// Another holder of the same key: keys aren't cloned by accident.
fn copy(keypair: &Keypair) -> Keypair {
    Keypair::from_seed(&keypair.seed())
}

async fn seat(
    dir: PathBuf,
    join: Join,
    signer: Keypair,
    config: ValidatorConfig,
    options: Options,
) -> Result<Handle, StartError> {
    let seat = patiently(move || match &join {
        _ if config.adopt => Ok(validator::adopt(&dir, options)?),
        Join::Genesis(genesis) => Ok(validator::open(&dir, genesis, options)?),
        Join::Network { .. } => Err(StartError::NoGenesis),
    });
    let seat = seat.await?;
    Ok(validator::spawn(seat, validator::Config { signer, vrf: config.vrf, clock: config.clock })?)
}

/// Opens a file of the folder. The folder's lock is ours, so whoever still has the file open is a part of the node
/// before in this process, on its way out: it is waited for.
async fn patiently<T: Send + 'static>(
    open: impl Fn() -> Result<T, StartError> + Send + Sync + 'static,
) -> Result<T, StartError> {
    let open = Arc::new(open);
    let deadline = tokio::time::Instant::now() + LEAVING;
    loop {
        let open = open.clone();
        let opened = tokio::task::spawn_blocking(move || open()).await.map_err(|_| StartError::Panicked)?;
        match opened {
            Err(error) if error.is_in_use() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(PAUSE_MIN).await;
            }
            other => return other,
        }
    }
}

async fn open_ledger(
    dir: PathBuf,
    join: Join,
    upstream: &Upstream,
    options: Options,
) -> Result<Arc<Chain>, StartError> {
    let id = match join {
        Join::Genesis(genesis) => return patiently(move || Ok(Chain::open(&dir, &genesis, options)?)).await,
        Join::Network { chain, .. } => chain,
    };
    let here = dir.join(tallow_consensus::chain::FILE);
    if here.exists() {
        let known = dir.clone();
        let chain = patiently(move || Ok(Chain::reopen(&known, options)?)).await?;
        if chain.id() == id {
            return Ok(chain);
        }
        return Err(ChainError::OtherNetwork { wanted: id, found: chain.id() }.into());
    }
    let deadline = tokio::time::Instant::now() + JOIN;
    let mut pause = PAUSE_MIN;
    loop {
        match follower::join(&dir, id, upstream, options).await {
            Ok(chain) => return Ok(chain),
            Err(error) if error.blames_source() && tokio::time::Instant::now() < deadline => {
                tracing::debug!(%error, "nobody shows the ledger yet");
                upstream.distrust();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

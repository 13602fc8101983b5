//! A network in one process: an embedded validator, seeders with real disks behind the in-memory network, and clients.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use tallow_client::{Access, Client, ContractPlan, Identity, Options, Silent, Tuning, WallClock};
use tallow_consensus::validator::{self, Handle};
use tallow_consensus::{Chain, Clock};
use tallow_net::twin::Twin;
use tallow_net::{Peer, Reply, Service};
use tallow_proofs::beacon::{R255, Vrf};
use tallow_seal::keys::Seed;
use tallow_storage_node::StorageService;
use tallow_storage_node::seeder::{Offered, Seeder, Terms};
use tallow_storage_node::store::{SliceStore, StoreConfig};
use tallow_storage_node::upstream::Upstream;
use tallow_types::contract::{Address, Region, contract_id};
use tallow_types::fault::{Code, Fault};
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, TxCore};
use tallow_types::wire::{Request, Response};
use tallow_types::{
    Bounded, Bytes, DurationMs, EpochCount, Fuel, FuelPerMibEpoch, Height, IdempotencyKey, Profile,
    PublicKey, TimeMs,
};

pub const PROFILE: (u8, u8) = (2, 6);
pub const QUORUM: usize = 4;

/// Counts what is stored, and refuses or lies when told to.
pub struct Watched {
    inner: StorageService,
    pub seeder: Arc<Seeder>,
    pub stored: AtomicU64,
    pub refuses: AtomicBool,
    /// Says nothing of its lane, and answers reads with noise.
    pub lies: AtomicBool,
}

#[async_trait]
impl Service for Watched {
    async fn serve(&self, from: PublicKey, request: Request, payload: Buffer) -> Reply {
        let carries = matches!(&request, Request::Commit { slices, .. } if !slices.is_empty());
        if carries || matches!(&request, Request::Store { .. }) {
            if self.refuses.load(Ordering::Relaxed) {
                return Fault::new(Code::DiskFull, "the disk is full").into();
            }
            let bytes = payload.len() as u64;
            let reply = self.inner.serve(from, request, payload).await;
            if !matches!(reply.response, Response::Failed(_)) {
                self.stored.fetch_add(bytes, Ordering::Relaxed);
            }
            return reply;
        }
        if self.lies.load(Ordering::Relaxed) {
            match &request {
                Request::Leaves { .. } => return Fault::new(Code::Storage, "the disk is slow").into(),
                Request::Read { length, .. } => {
                    let payload = noise(9, *length as usize).into();
                    return Reply { response: Response::Read, payload };
                }
                _ => {}
            }
        }
        self.inner.serve(from, request, payload).await
    }
}

pub struct World {
    pub handle: Handle,
    pub chain: Arc<Chain>,
    pub twin: Twin,
    pub services: Vec<Arc<Watched>>,
    pub dir: tempfile::TempDir,
    entry: PublicKey,
}

pub fn seeder_key(n: u8) -> PublicKey {
    seeder_keypair(n).public()
}

fn seeder_keypair(n: u8) -> Keypair {
    Keypair::from_seed(&[100 + n; 32])
}

pub fn seed(n: u8) -> Seed {
    Seed::new([n; 64].into())
}

fn store_config() -> StoreConfig {
    StoreConfig { room: Bytes::new(1 << 30), reserve: Bytes::new(1 << 20), segment: Bytes::new(8 << 20) }
}

pub fn tuning() -> Tuning {
    Tuning {
        // Slices of 256 KiB: a stripe holds half a MiB.
        stripe_bytes: u64::from(PROFILE.1) * (256 << 10),
        request_timeout: Duration::from_secs(3),
        straggler: Duration::from_millis(300),
        patience: Duration::from_secs(6),
        hedge_after: Duration::from_millis(100),
        ..Tuning::default()
    }
}

impl World {
    pub async fn new(seeders: u8) -> Self {
        Self::with(seeders, Params { lease: DurationMs::new(1_500), ..Params::dev() }).await
    }

    pub async fn with(seeders: u8, params: Params) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Keypair::from_seed(&[1; 32]);
        let vrf = R255::secret(&[3; 32]);
        let rich = Fuel::new(Fuel::ONE.get() * 1_000_000);
        let mut endowments = vec![(seed(2).policy().account(), rich)];
        endowments.extend((0..10).map(|n| (Policy::Key(seeder_key(n)).account(), rich)));
        let seat = Validator { key: signer.public(), vrf_key: R255::public(&vrf), weight: 1 };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let genesis = Genesis {
            time: TimeMs::new(u64::try_from(now.as_millis()).unwrap()),
            params,
            validators: Bounded::new(vec![seat]).unwrap(),
            endowments: Bounded::new(endowments).unwrap(),
            salt: [7; 16],
        };
        let seat = validator::open(&dir.path().join("validator"), &genesis, Default::default()).unwrap();
        let config = validator::Config { signer, vrf, clock: Clock::Wall };
        let handle = validator::spawn(seat, config).unwrap();
        let chain = handle.chain().clone();
        let twin = Twin::new(1);
        twin.set_idle(Duration::from_secs(3));
        let entry = Keypair::from_seed(&[90; 32]).public();
        let service =
            StorageService::new(chain.clone(), Some(handle.clone()), None, Upstream::new(Vec::new()));
        let _node = twin.join(entry, Some(Arc::new(service)));
        let mut world = Self { handle, chain, twin, services: Vec::new(), dir, entry };
        for n in 0..seeders {
            world.add_seeder(n).await;
        }
        world
    }

    pub async fn add_seeder(&mut self, n: u8) {
        let store = SliceStore::open(&self.dir.path().join(format!("seeder-{n}")), store_config()).unwrap();
        let seeder = Arc::new(Seeder::new(seeder_keypair(n), self.chain.clone(), store));
        let terms = Terms {
            payout: None,
            price: FuelPerMibEpoch::new(5_000),
            region: Region::new("eu".into()).unwrap(),
            notice: EpochCount::new(2),
            room: Bytes::new(1 << 30),
        };
        let address = Address::new(format!("/ip4/127.0.0.1/tcp/{}", 4000 + u16::from(n))).unwrap();
        seeder.adopt().unwrap();
        match seeder.offer(&terms, &[address]).unwrap() {
            Offered::Not(tx) => drop(self.handle.submit(*tx).await.unwrap()),
            _ => panic!("the ledger can't have the offer yet"),
        }
        let service = self.watched(seeder);
        self.services.push(service.clone());
        let _node = self.twin.join(seeder_key(n), Some(service));
    }

    /// A seeder starts again, and its index is gone: the slices are found, what it signed is not.
    pub fn lose_index(&mut self, n: u8) {
        self.twin.kill(seeder_key(n));
        drop(self.services.remove(usize::from(n)));
        let dir = self.dir.path().join(format!("seeder-{n}"));
        let store = SliceStore::rebuild(&dir, store_config()).unwrap();
        let seeder = Arc::new(Seeder::new(seeder_keypair(n), self.chain.clone(), store));
        assert_eq!(seeder.adopt().unwrap(), 1);
        let service = self.watched(seeder);
        self.services.insert(usize::from(n), service.clone());
        let _node = self.twin.join(seeder_key(n), Some(service));
    }

    /// Changes a byte of every KiB that a seeder's disk holds, behind its back.
    pub fn rot(&self, n: u8) {
        let segments = self.dir.path().join(format!("seeder-{n}")).join("segments");
        for entry in std::fs::read_dir(segments).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().skip(512).step_by(1 << 10).for_each(|byte| *byte ^= 1);
            // Into the same file: the store has it open.
            std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&bytes, 0).unwrap();
        }
    }

    fn watched(&self, seeder: Arc<Seeder>) -> Arc<Watched> {
        let (handle, chain) = (self.handle.clone(), self.chain.clone());
        let inner = StorageService::new(chain, Some(handle), Some(seeder.clone()), Upstream::new(Vec::new()));
        let (refuses, lies) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Watched { inner, seeder, stored: AtomicU64::new(0), refuses, lies })
    }

    /// Takes the write lease from a device behind its back.
    pub async fn release_lease(&self, device: PublicKey) {
        let policy = seed(2).policy();
        let contract = contract_id(&self.chain.id(), &policy.account(), 0);
        let core = TxCore {
            policy,
            key: IdempotencyKey::new([9; 16]),
            expires: Height::new(self.chain.status().height.get() + 1_000),
            action: Action::Release { contract, device },
        };
        self.handle.submit(core.sign(&self.chain.id(), &[&seed(2).account()])).await.unwrap();
    }

    /// The slot that a seeder got.
    pub async fn slot_of(&self, client: &Client, n: u8) -> u8 {
        let report = client.contract().await.unwrap();
        let slot = report.slots.iter().find(|slot| slot.seeder == Some(seeder_key(n).seeder()));
        slot.expect("it holds one").slot
    }

    pub fn stored(&self) -> u64 {
        self.services.iter().map(|service| service.stored.load(Ordering::Relaxed)).sum()
    }

    pub fn options(&self, dir: Option<PathBuf>, device: u64) -> Options {
        let identity = Identity::new(seed(2), device);
        let line = self.twin.join(identity.device().public(), None);
        Options {
            dir,
            access: Access::Write,
            chain: self.chain.id(),
            bootstrap: vec![Peer::new(self.entry, Vec::new())],
            transport: Arc::new(line),
            identity,
            contract: ContractPlan::new(Profile::from_k_of_n(PROFILE.0, PROFILE.1).unwrap()),
            clock: Arc::new(WallClock),
            tuning: tuning(),
        }
    }

    /// A client of a device, with a folder of its own in the world's.
    pub async fn client(&self, device: u64) -> Client {
        let dir = self.dir.path().join(format!("device-{device}"));
        Client::open(self.options(Some(dir), device)).await.unwrap()
    }

    /// A client on a machine that knows nothing.
    pub async fn bare(&self, device: u64) -> Client {
        Client::open(self.options(None, device)).await.unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub fn silent() -> Arc<dyn tallow_client::Progress> {
    Arc::new(Silent)
}

/// Bytes that don't compress, the same for one seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub async fn read(client: &Client, path: &str) -> Result<Vec<u8>, tallow_client::GetError> {
    let mut out = Vec::new();
    client.get_to(path, None, &mut out, silent()).await?;
    Ok(out)
}

pub async fn write(
    client: &Client,
    path: &str,
    bytes: Vec<u8>,
) -> Result<tallow_client::PutReport, tallow_client::PutError> {
    let reader = Box::new(std::io::Cursor::new(bytes));
    client.put(tallow_client::Source::reader(reader), path, silent()).await
}

/// Everything of a tree that is to come back: kind, content, mode, time.
pub fn picture(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut lines = Vec::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = path.symlink_metadata().unwrap();
        let relative = path.strip_prefix(root).unwrap().display().to_string();
        let content = if meta.is_symlink() {
            format!("-> {}", std::fs::read_link(&path).unwrap().display())
        } else if meta.is_dir() {
            stack.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "folder".into()
        } else {
            blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string()
        };
        lines.push(format!("{relative} {:o} {}.{} {content}", meta.mode(), meta.mtime(), meta.mtime_nsec()));
    }
    lines.sort();
    lines
}

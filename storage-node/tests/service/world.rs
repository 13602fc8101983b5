//! A small network in one process: a validator with a manual clock, seeders behind the in-memory twin, one owner.

use std::sync::Arc;

use bytes::Bytes as Buffer;
use tallow_consensus::validator::{self, Handle};
use tallow_consensus::{Chain, Clock, Options};
use tallow_ledger::key;
use tallow_ledger::record::Contract;
use tallow_net::Transport;
use tallow_net::twin::{Twin, TwinNode};
use tallow_proofs::beacon::{R255, Secret, Vrf};
use tallow_proofs::lane::SumTree;
use tallow_storage_node::StorageService;
use tallow_storage_node::seeder::{Offered, Seeder, Terms};
use tallow_storage_node::store::{SliceStore, StoreConfig, root_of};
use tallow_storage_node::upstream::Upstream;
use tallow_types::commit::{
    Commit, CommitCertificate, Countersignature, LaneChange, Leaf, SignedCommit, SlotState,
};
use tallow_types::contract::{Address, Region};
use tallow_types::fault::Fault;
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, TxCore};
use tallow_types::wire::{LaneState, Receipt, Request, Response};
use tallow_types::{
    Bounded, BoundedBytes, Bytes, CommitHash, ContractId, EpochCount, Fuel, FuelPerMibEpoch, Height,
    IdempotencyKey, LeafIndex, Lease, Profile, PublicKey, Sequence, SlotIndex, StripeId, TimeMs, decode,
};

pub const PRICE: FuelPerMibEpoch = FuelPerMibEpoch::new(5_000);
pub const ROOM: Bytes = Bytes::new(8 << 20);

pub struct World {
    pub handle: Handle,
    pub chain: Arc<Chain>,
    pub twin: Twin,
    pub owner: Keypair,
    pub device: Keypair,
    /// The device's connection.
    pub line: TwinNode,
    pub seeders: Vec<Arc<Seeder>>,
    pub dir: tempfile::TempDir,
    counter: std::cell::Cell<u64>,
}

pub fn seeder_key(n: u8) -> Keypair {
    Keypair::from_seed(&[100 + n; 32])
}

pub fn genesis(seeders: u8, validator: &Keypair, vrf: &Secret, owner: &Keypair) -> Genesis {
    let rich = Fuel::new(Fuel::ONE.get() * 1_000_000);
    let mut endowments = vec![(Policy::Key(owner.public()).account(), rich)];
    endowments.extend((0..seeders).map(|n| (Policy::Key(seeder_key(n).public()).account(), rich)));
    let seat = Validator { key: validator.public(), vrf_key: R255::public(vrf), weight: 1 };
    Genesis {
        time: TimeMs::new(1_700_000_000_000),
        params: Params::dev(),
        validators: Bounded::new(vec![seat]).expect("one"),
        endowments: Bounded::new(endowments).expect("few"),
        salt: [7; 16],
    }
}

pub fn terms() -> Terms {
    Terms {
        payout: None,
        price: PRICE,
        region: Region::new("eu".into()).expect("short"),
        notice: EpochCount::new(2),
        room: Bytes::new(64 << 20),
    }
}

pub fn store_config() -> StoreConfig {
    StoreConfig { room: Bytes::new(64 << 20), reserve: Bytes::new(1 << 20), segment: Bytes::new(1 << 20) }
}

impl World {
    /// A network of so many seeders, each with its offer on the ledger.
    pub async fn new(seeders: u8) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (signer, owner) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
        let vrf = R255::secret(&[3; 32]);
        let genesis = genesis(seeders, &signer, &vrf, &owner);
        let seat =
            validator::open(&dir.path().join("validator"), &genesis, Options::default()).expect("opens");
        let config = validator::Config { signer, vrf, clock: Clock::Manual };
        let handle = validator::spawn(seat, config).expect("runs");
        let chain = handle.chain().clone();
        let device = Keypair::from_seed(&[4; 32]);
        let twin = Twin::new(1);
        let line = twin.join(device.public(), None);
        let mut world = Self {
            handle,
            chain,
            twin,
            owner,
            device,
            line,
            seeders: Vec::new(),
            dir,
            counter: std::cell::Cell::new(0),
        };
        for n in 0..seeders {
            let seeder = world.start_seeder(n);
            assert_eq!(seeder.adopt().expect("reads the ledger"), 0);
            world.seeders.push(seeder.clone());
            let address = Address::new(format!("/ip4/127.0.0.1/tcp/{}", 4000 + u16::from(n))).expect("short");
            let Offered::Not(tx) = seeder.offer(&terms(), std::slice::from_ref(&address)).expect("offers")
            else {
                panic!("the ledger can't have the offer yet");
            };
            world.handle.submit(*tx).await.expect("applied");
            assert!(matches!(seeder.offer(&terms(), &[address]), Ok(Offered::Yes)));
        }
        world
    }

    pub fn seeder_dir(&self, n: u8) -> std::path::PathBuf {
        self.dir.path().join(format!("seeder-{n}"))
    }

    /// Starts a seeder on its folder, which the one before must have let go of.
    pub fn start_seeder(&self, n: u8) -> Arc<Seeder> {
        let store = SliceStore::open(&self.seeder_dir(n), store_config()).expect("opens");
        let seeder = Arc::new(Seeder::new(seeder_key(n), self.chain.clone(), store));
        let service = StorageService::new(
            self.chain.clone(),
            Some(self.handle.clone()),
            Some(seeder.clone()),
            Upstream::new(Vec::new()),
        );
        let _node = self.twin.join(seeder.id().public_key(), Some(Arc::new(service)));
        seeder
    }

    pub fn number(&self) -> u64 {
        self.counter.set(self.counter.get() + 1);
        self.counter.get()
    }

    pub async fn submit(&self, action: Action) -> Result<Receipt, Fault> {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.number().to_le_bytes());
        let core = TxCore {
            policy: Policy::Key(self.owner.public()),
            key: IdempotencyKey::new(key),
            expires: Height::new(self.chain.status().height.get() + 100),
            action,
        };
        self.handle.submit(core.sign(&self.chain.id(), &[&self.owner])).await
    }

    pub async fn ask_as(
        &self,
        line: &TwinNode,
        n: u8,
        request: Request,
        payload: Buffer,
    ) -> Result<tallow_net::Reply, Fault> {
        line.call(&Twin::peer(seeder_key(n).public()), request, payload).await
    }

    pub async fn ask(&self, n: u8, request: Request) -> Result<Response, Fault> {
        Ok(self.ask_as(&self.line, n, request, Buffer::new()).await?.response)
    }

    pub fn terms(&self, index: u32) -> tallow_types::contract::Terms {
        tallow_types::contract::Terms {
            owner: Policy::Key(self.owner.public()).account(),
            index,
            profile: Profile::from_k_of_n(2, 4).expect("a profile"),
            room: ROOM,
            price_ceiling: PRICE,
            slots_per_operator: 0,
        }
    }

    /// Opens a contract over seeders 0..held, slot n at seeder n, and takes its lease.
    pub async fn open(&self, held: u8) -> ContractId {
        self.open_with(held, Fuel::new(Fuel::ONE.get() * 1_000)).await
    }

    /// The same with so much fuel.
    pub async fn open_with(&self, held: u8, fuel: Fuel) -> ContractId {
        let terms = self.terms(0);
        let mut acceptances = Vec::new();
        for n in 0..held {
            let request = Request::Accept { terms: terms.clone(), slot: SlotIndex::new(n) };
            let Response::Accepted(accepted) = self.ask(n, request).await.expect("accepts") else {
                panic!("another answer");
            };
            acceptances.push(accepted);
        }
        let contract = terms.contract(&self.chain.id());
        let acceptances = Bounded::new(acceptances).expect("few");
        self.submit(Action::Open { terms, acceptances, fuel }).await.expect("opened");
        self.lease(contract).await;
        contract
    }

    /// Takes the lease for the device, as a new one.
    pub async fn lease(&self, contract: ContractId) -> Lease {
        let device = self.device.public();
        if self.contract(contract).lease.holder.is_some() {
            self.submit(Action::Release { contract, device }).await.expect("released");
        }
        self.submit(Action::Lease { contract, device }).await.expect("granted");
        self.contract(contract).lease.last
    }

    pub fn contract(&self, id: ContractId) -> Contract {
        decode(&self.chain.get(&key::contract(&id)).expect("reads").expect("is there")).expect("decodes")
    }

    pub async fn store(&self, n: u8, contract: ContractId, numbers: &[u64]) -> Result<(), Fault> {
        let slices = numbers.iter().map(|number| slice(*number).0).collect();
        let payload: Vec<u8> = numbers.iter().flat_map(|number| slice(*number).1).collect();
        let slices = Bounded::new(slices).expect("few");
        let request = Request::Store { contract, slot: SlotIndex::new(n), slices };
        self.ask_as(&self.line, n, request, payload.into()).await.map(drop)
    }

    pub async fn countersign(
        &self,
        n: u8,
        chain: &[SignedCommit],
        change: LaneChange,
    ) -> Result<Countersignature, Fault> {
        let chain = Bounded::new(chain.to_vec()).expect("short");
        let request = Request::Countersign { slot: SlotIndex::new(n), chain, change };
        match self.ask(n, request).await? {
            Response::Countersigned { signature } => Ok(signature),
            other => panic!("another answer: {other:?}"),
        }
    }

    pub async fn lane(&self, n: u8, contract: ContractId) -> Result<LaneState, Fault> {
        match self.ask(n, Request::Lane { contract, slot: SlotIndex::new(n) }).await? {
            Response::Lane(state) => Ok(state),
            other => panic!("another answer: {other:?}"),
        }
    }

    pub async fn post(&self, signed: SignedCommit, signatures: Vec<Countersignature>) {
        let countersignatures = Bounded::new(signatures).expect("few");
        self.submit(Action::Post(CommitCertificate { signed, countersignatures })).await.expect("posted");
    }

    pub fn sign(&self, commit: Commit) -> SignedCommit {
        commit.sign(&self.chain.id(), &self.device)
    }

    pub fn key_of(&self, n: u8) -> PublicKey {
        seeder_key(n).public()
    }
}

/// The slice of a number, in every slot the same: these tests look at one seeder at a time.
pub fn slice(number: u64) -> (Leaf, Vec<u8>) {
    let bytes: Vec<u8> = (0..256u64).flat_map(|n| (n * 31 + number).to_le_bytes()).collect();
    let mut stripe = [0; 16];
    stripe[..8].copy_from_slice(&number.to_le_bytes());
    let length = u32::try_from(bytes.len()).expect("short");
    (Leaf { stripe: StripeId::new(stripe), root: root_of(&bytes), length }, bytes)
}

/// A commit of these slices in every slot; `None` for an empty leaf.
pub fn commit(
    contract: ContractId,
    lease: Lease,
    sequence: u64,
    previous: CommitHash,
    numbers: &[Option<u64>],
) -> Commit {
    let leaves: Vec<_> = numbers.iter().map(|number| number.map(|number| slice(number).0)).collect();
    let tree = SumTree::from_leaves(leaves.iter().map(Option::as_ref)).expect("a lane");
    let slot = SlotState { root: tree.root(), bytes: tree.bytes() };
    Commit {
        contract,
        lease,
        sequence: Sequence::new(sequence),
        previous,
        leaves: LeafIndex::new(leaves.len() as u64),
        width: 4,
        slots: Bounded::new(vec![slot; 4]).expect("four"),
        catalog_head: BoundedBytes::empty(),
        repair_head: BoundedBytes::empty(),
    }
}

/// Keeps so many leaves, empties some, adds some.
pub fn change(keep: u64, dropped: &[u64], appended: &[u64]) -> LaneChange {
    LaneChange {
        keep: LeafIndex::new(keep),
        dropped: Bounded::new(dropped.iter().copied().map(LeafIndex::new).collect()).expect("few"),
        appended: Bounded::new(appended.iter().map(|number| Some(slice(*number).0)).collect()).expect("few"),
    }
}

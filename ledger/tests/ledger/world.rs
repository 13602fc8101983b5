//! A small network in memory: keys, a validator, and blocks that are checked in every way there is as they are made.

use std::collections::BTreeMap;

use tallow_ledger::block::{self, BlockEnv, Built};
use tallow_ledger::record::{Contract, Head, Seeder};
use tallow_ledger::{Refusal, build, due, execute, genesis, key, light, state, tree};
use tallow_proofs::beacon::{R255, Secret, Vrf, prove};
use tallow_types::block::{Block, EpochProof, Header, SignedEpochProof};
use tallow_types::commit::{
    Commit, CommitCertificate, Countersignature, Countersigned, SignedCommit, SlotState,
};
use tallow_types::contract::{Acceptance, Ask, SignedAcceptance, SignedAsk, Terms};
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::{
    AccountId, BlockHash, Bounded, BoundedBytes, Bytes, ChainId, CommitHash, ContractId, DurationMs, Epoch,
    EpochCount, Fuel, FuelPerMibEpoch, Height, IdempotencyKey, Incarnation, LaneRoot, LeafIndex, Lease,
    Profile, Sequence, SlotIndex, StateRoot, TimeMs,
};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

pub const MIB: u64 = 1 << 20;
pub const PRICE: u64 = 100_000;
pub const ROOM: u64 = 64 * MIB;
const START: u64 = 1_700_000_000_000;

/// Keys by number: 0..=9 owners, 10.. devices, 20.. seeders, 99 the validator.
pub fn keypair(number: u8) -> Keypair {
    Keypair::from_seed(&[number; 32])
}

pub fn owner(number: u8) -> AccountId {
    Policy::Key(keypair(number).public()).account()
}

pub fn seeder_key(number: u8) -> Keypair {
    keypair(20 + number)
}

/// Rules of the tests, apart from those of any network: what is pinned must not depend on a tuned number.
pub fn params() -> Params {
    Params {
        protocol: 1,
        epoch: DurationMs::new(3_000),
        window: DurationMs::new(1_500),
        beacon_gap: 2,
        samples: 0,
        fee_per_byte: Fuel::new(1 << 16),
        contract_deposit: Fuel::new(1 << 34),
        lane_fee_min: Fuel::new(1 << 10),
        protocol_share_bp: 300,
        collateral_epochs: EpochCount::new(20),
        price_min: FuelPerMibEpoch::new(1_000),
        lease: DurationMs::new(5_000),
        fading: EpochCount::new(20),
        embers: EpochCount::new(40),
        settle: EpochCount::new(4),
        settle_per_block: 3,
        clock_drift: DurationMs::new(10_000),
        weak_profiles: true,
    }
}

fn vrf() -> Secret {
    R255::secret(&[99; 32])
}

pub struct World {
    pub chain: ChainId,
    pub params: Params,
    pub state: Map,
    pub nodes: Map,
    pub tip: Header,
    pub start: Genesis,
    pub blocks: Vec<Block>,
    pub incarnation: Incarnation,
    counter: u64,
}

impl World {
    /// Three owners and `seeders` seeders with a thousand fuel each; no seeder has an ask yet.
    pub fn new(params: Params, seeders: u8) -> Self {
        let rich = Fuel::new(1_000 << 40);
        let own = |number| owner(number);
        let accounts = (0..3).map(own).chain((0..seeders).map(|n| own(20 + n)));
        let start = Genesis {
            time: TimeMs::new(START),
            params,
            validators: Bounded::new(vec![Validator {
                key: keypair(99).public(),
                vrf_key: R255::public(&vrf()),
                weight: 1,
            }])
            .unwrap(),
            endowments: Bounded::new(accounts.map(|account| (account, rich)).collect()).unwrap(),
            salt: [7; 16],
        };
        let writes = genesis(&start).unwrap();
        let (mut state, mut nodes) = (Map::new(), Map::new());
        state::apply(&mut state, &writes);
        let (root, update) = tree::update(&nodes, Height::ZERO, &writes).unwrap();
        nodes.extend(update.nodes);
        let env = BlockEnv {
            height: Height::ZERO,
            parent: BlockHash::ZERO,
            time: start.time,
            proposer: keypair(99).public(),
            vrf: [0; 80],
            incarnation: Incarnation::ZERO,
        };
        let tip = block::header(&state, &env, &Default::default(), root).unwrap();
        Self {
            chain: start.chain(),
            params,
            state,
            nodes,
            tip,
            start,
            blocks: Vec::new(),
            incarnation: Incarnation::ZERO,
            counter: 0,
        }
    }

    /// With all seeders' asks on the ledger and the first beacon known.
    pub fn with_asks(seeders: u8) -> Self {
        Self::with_asks_under(params(), seeders)
    }

    /// The same under other rules.
    pub fn with_asks_under(params: Params, seeders: u8) -> Self {
        let mut world = Self::new(params, seeders);
        let asks = (0..seeders).map(|n| world.offer(n, 1, PRICE)).collect();
        world.pass(asks);
        world.settle_in();
        world
    }

    pub fn head(&self) -> Head {
        light::head(&self.state).unwrap()
    }

    pub fn epoch(&self) -> Epoch {
        self.head().epoch.epoch
    }

    pub fn balance(&self, account: &AccountId) -> Fuel {
        light::account(&self.state, account).unwrap().balance
    }

    pub fn contract(&self, id: &ContractId) -> Contract {
        light::contract(&self.state, id).unwrap().unwrap()
    }

    pub fn seeder(&self, number: u8) -> Seeder {
        light::seeder(&self.state, &seeder_key(number).public().seeder()).unwrap().unwrap()
    }

    pub fn env(&self, time: TimeMs) -> BlockEnv {
        let head = self.head();
        let height = head.height.next().unwrap();
        BlockEnv {
            height,
            parent: self.tip.hash(),
            time,
            proposer: keypair(99).public(),
            vrf: prove(&vrf(), &head.beacon, height),
            incarnation: self.incarnation,
        }
    }

    /// Makes a block at a time, checks it in every way, and goes on from it.
    pub fn block_at(&mut self, time: TimeMs, txs: Vec<Transaction>, proofs: Vec<SignedEpochProof>) -> Built {
        let env = self.env(time);
        let built = build(&self.state, &env, txs, proofs).unwrap();
        assert_eq!(execute(&self.state, &env, &built.body).as_ref(), Ok(&built.outcome));
        let (root, update) = tree::update(&self.nodes, env.height, &built.outcome.writes).unwrap();
        let header = block::header(&self.state, &env, &built.body, root).unwrap();
        assert_eq!(block::check_header(&self.state, &header), Ok(()));
        self.nodes.extend(update.nodes);
        update.stale.iter().for_each(|key| drop(self.nodes.remove(key)));
        state::apply(&mut self.state, &built.outcome.writes);
        let signature = keypair(99).sign(&self.chain, &header);
        let block = Block { header: header.clone(), signature, body: built.body.clone() };
        assert_eq!(block.verify(), Ok(&header));
        self.blocks.push(block);
        self.tip = header;
        self.check(root);
        built
    }

    /// A block one millisecond after the tip.
    pub fn block(&mut self, txs: Vec<Transaction>) -> Built {
        self.block_at(self.soon(), txs, Vec::new())
    }

    pub fn soon(&self) -> TimeMs {
        TimeMs::new(self.tip.time.get() + 1)
    }

    /// A block in which all of these must apply.
    pub fn pass(&mut self, txs: Vec<Transaction>) {
        let count = txs.len();
        let built = self.block(txs);
        assert_eq!(built.rejected, []);
        assert_eq!(built.outcome.applied.len(), count);
    }

    /// The reason why this one is refused.
    pub fn refused(&mut self, tx: Transaction) -> Refusal {
        let before = self.state.clone();
        let mut built = self.block(vec![tx]);
        let (_, refusal) = built.rejected.pop().expect("it must be refused");
        let changed = self.state.iter().filter(|(key, value)| before.get(*key) != Some(value));
        assert!(changed.into_iter().all(|(key, _)| key == key::HEAD), "a refusal changes nothing");
        refusal
    }

    /// Makes the blocks that are due at once: settlement, gap, beacon.
    pub fn settle_in(&mut self) {
        while due(&self.state).unwrap().kind != tallow_ledger::DueKind::Boundary {
            self.block(Vec::new());
        }
    }

    /// Lets an epoch pass in which these seeders prove, and everything that is due at its end.
    pub fn pass_epoch(&mut self, provers: &[u8]) {
        self.settle_in();
        let proofs = provers.iter().map(|n| self.proof(*n)).collect();
        let built = self.block_at(self.soon(), Vec::new(), proofs);
        assert_eq!(built.rejected_proofs, []);
        let before = self.epoch();
        self.block_at(due(&self.state).unwrap().at, Vec::new(), Vec::new());
        assert_eq!(self.epoch(), before.next().unwrap());
        self.settle_in();
    }

    /// What must hold after every block.
    fn check(&self, root: StateRoot) {
        let supply = light::supply(&self.state).unwrap();
        let audit = light::audit(&self.state).unwrap();
        assert_eq!(audit.total(), supply.endowed.checked_sub(supply.burned), "money is conserved");
        let (rebuilt, _) = tree::rebuild(self.tip.height, self.state.clone().into_iter().rev()).unwrap();
        assert_eq!(rebuilt, root, "the root is a function of the records");
        let records = state::StateRead::scan(&self.state, key::CONTRACTS, &[], 1_000).unwrap();
        let contracts: Vec<Contract> =
            records.iter().map(|(_, bytes)| tallow_types::decode(bytes).unwrap()).collect();
        let queue = state::StateRead::scan(&self.state, key::DUE, &[], 1_000).unwrap();
        let queue: Vec<_> = queue.iter().map(|(key, _)| key::parse_due(key).unwrap()).collect();
        let due: Vec<_> = contracts.iter().filter_map(|c| Some((c.due?, c.id))).collect();
        assert_eq!(queue.len(), due.len());
        assert!(due.iter().all(|entry| queue.contains(entry)), "the queue names what is due");
        for contract in &contracts {
            let epochs = contract.prepaid.map_or(0, |p| u128::from(p.until.since(p.from).get()));
            let rates: u128 = contract.lanes().map(|(_, lane)| lane.rate.get()).sum();
            assert_eq!(contract.escrow.get(), rates * epochs, "the escrow is what was charged ahead");
        }
        for seeder in light::seeders(&self.state, None, 1_000).unwrap() {
            let mine = |c: &Contract| c.lanes().filter(|(_, l)| l.seeder == seeder.ask.seeder).count() as u64;
            let lanes: u64 = contracts.iter().map(mine).sum();
            let room: u64 = contracts.iter().map(|c| mine(c) * c.terms.room.get()).sum();
            assert_eq!((u64::from(seeder.lanes), seeder.reserved.get()), (lanes, room));
            let mine = |c: &Contract| {
                let lanes = c.lanes().filter(|(_, lane)| lane.seeder == seeder.ask.seeder);
                lanes.map(|(_, lane)| lane.collateral.get()).sum::<u128>()
            };
            assert_eq!(seeder.collateral.get(), contracts.iter().map(mine).sum::<u128>());
        }
    }

    // Things that parties sign.

    pub fn core(&mut self, number: u8, action: Action) -> TxCore {
        self.counter += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.counter.to_le_bytes());
        TxCore {
            policy: Policy::Key(keypair(number).public()),
            key: IdempotencyKey::new(key),
            expires: Height::new(self.tip.height.get() + 1_000),
            action,
        }
    }

    pub fn tx(&mut self, number: u8, action: Action) -> Transaction {
        let chain = self.chain;
        self.core(number, action).sign(&chain, &[&keypair(number)])
    }

    pub fn ask(&self, number: u8, sequence: u64, price: u64) -> Ask {
        Ask {
            seeder: seeder_key(number).public().seeder(),
            sequence: Sequence::new(sequence),
            payout: owner(20 + number),
            price: FuelPerMibEpoch::new(price),
            region: tallow_types::codec::BoundedText::new("dev".to_owned()).unwrap(),
            notice: EpochCount::new(2),
            room: Bytes::new(8 * ROOM),
            addresses: Bounded::empty(),
        }
    }

    pub fn sign_ask(&self, ask: Ask, number: u8) -> SignedAsk {
        SignedAsk { signature: seeder_key(number).sign(&self.chain, &ask), ask }
    }

    pub fn offer(&mut self, number: u8, sequence: u64, price: u64) -> Transaction {
        let signed = self.sign_ask(self.ask(number, sequence, price), number);
        self.tx(20 + number, Action::Offer(signed))
    }

    pub fn terms(&self, number: u8, index: u32) -> Terms {
        Terms {
            owner: owner(number),
            index,
            profile: Profile::from_k_of_n(2, 4).unwrap(),
            room: Bytes::new(ROOM),
            price_ceiling: FuelPerMibEpoch::new(2 * PRICE),
            slots_per_operator: 0,
        }
    }

    pub fn acceptance(&self, terms: &Terms, slot: u8, number: u8) -> Acceptance {
        Acceptance {
            contract: terms.contract(&self.chain),
            terms: terms.clone(),
            slot: SlotIndex::new(slot),
            seeder: seeder_key(number).public().seeder(),
            price: FuelPerMibEpoch::new(PRICE),
            expires: Height::new(self.tip.height.get() + 100),
        }
    }

    pub fn sign_acceptance(&self, acceptance: Acceptance, number: u8) -> SignedAcceptance {
        SignedAcceptance { signature: seeder_key(number).sign(&self.chain, &acceptance), acceptance }
    }

    /// Consents of seeders 0, 1, .. to slots 0, 1, ..
    pub fn accept(&self, terms: &Terms, slots: &[u8]) -> Vec<SignedAcceptance> {
        slots.iter().map(|n| self.sign_acceptance(self.acceptance(terms, *n, *n), *n)).collect()
    }

    pub fn open_tx(&mut self, terms: &Terms, slots: &[u8], fuel: u128) -> Transaction {
        let acceptances = Bounded::new(self.accept(terms, slots)).unwrap();
        let number = (0..3).find(|n| owner(*n) == terms.owner).unwrap();
        self.tx(number, Action::Open { terms: terms.clone(), acceptances, fuel: Fuel::new(fuel) })
    }

    /// A contract of owner 0 whose slot n is held by seeder n.
    pub fn open(&mut self, index: u32, slots: &[u8], fuel: u128) -> ContractId {
        let terms = self.terms(0, index);
        let tx = self.open_tx(&terms, slots, fuel);
        self.pass(vec![tx]);
        terms.contract(&self.chain)
    }

    /// The same with slots 0 to 2 and a little fuel, for when many are needed.
    pub fn open_small(&mut self, index: u32) -> ContractId {
        self.open(index, &[0, 1, 2], 1 << 30)
    }

    /// Gives the write lease of owner 0's contract to device `number`, and tells its number.
    pub fn take_lease(&mut self, contract: ContractId, number: u8) -> Lease {
        let tx = self.tx(0, Action::Lease { contract, device: keypair(number).public() });
        self.pass(vec![tx]);
        self.contract(&contract).lease.last
    }

    pub fn commit(&self, contract: ContractId, lease: Lease, sequence: u64, bytes: &[u64]) -> Commit {
        let slots = (0u8..).zip(bytes).map(|(slot, bytes)| SlotState {
            root: LaneRoot::new([slot ^ sequence as u8; 32]),
            bytes: Bytes::new(*bytes),
        });
        Commit {
            contract,
            lease,
            sequence: Sequence::new(sequence),
            previous: CommitHash::ZERO,
            leaves: LeafIndex::new(1),
            width: 4,
            slots: Bounded::new(slots.collect()).unwrap(),
            catalog_head: BoundedBytes::empty(),
            repair_head: BoundedBytes::empty(),
        }
    }

    pub fn countersign(&self, commit: &Commit, slot: u8, number: u8) -> Countersignature {
        let slot = SlotIndex::new(slot);
        let message =
            Countersigned { contract: commit.contract, commit: commit.hash(), rank: commit.rank(), slot };
        let key = seeder_key(number);
        Countersignature { slot, seeder: key.public().seeder(), signature: key.sign(&self.chain, &message) }
    }

    /// Signed by a device and countersigned by seeders in their own slots.
    pub fn certificate(&self, commit: Commit, device: u8, signers: &[u8]) -> CommitCertificate {
        let counters = signers.iter().map(|n| self.countersign(&commit, *n, *n)).collect();
        let signed: SignedCommit = commit.sign(&self.chain, &keypair(device));
        CommitCertificate { signed, countersignatures: Bounded::new(counters).unwrap() }
    }

    pub fn proof(&self, number: u8) -> SignedEpochProof {
        let key = seeder_key(number);
        let proof = EpochProof {
            epoch: self.epoch(),
            seeder: key.public().seeder(),
            samples: Bounded::empty(),
            capacity: BoundedBytes::empty(),
        };
        SignedEpochProof { signature: key.sign(&self.chain, &proof), proof }
    }

    /// The time of the tip and some milliseconds.
    pub fn later(&self, ms: u64) -> TimeMs {
        self.tip.time.after(DurationMs::new(ms)).unwrap()
    }
}

//! The bytes of what is signed, stored or sent do not change unnoticed, and no input makes a decoder panic.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tallow_types::block::{Block, Body, EpochProof, Header, SignedEpochProof};
use tallow_types::commit::{
    Commit, CommitCertificate, Countersigned, LaneChange, Leaf, SignedCommit, SlotState,
};
use tallow_types::contract::{Acceptance, Address, Ask, Region, SignedAcceptance, SignedAsk, Terms};
use tallow_types::fault::{Code, Fault};
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::wire::{Request, Response};
use tallow_types::{
    AccountId, BlockHash, Bounded, Bytes, ChainId, CommitHash, ContractId, Digest, Epoch, EpochCount, Fuel,
    FuelPerMibEpoch, Height, IdempotencyKey, Incarnation, LaneRoot, LeafIndex, Lease, Profile, Sequence,
    SliceRoot, SlotIndex, StateRoot, StripeId, Tagged, TimeMs, decode, encode,
};

fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

fn chain() -> ChainId {
    ChainId::new([7; 32])
}

fn terms() -> Terms {
    Terms {
        owner: AccountId::new([1; 32]),
        index: 0,
        profile: Profile::from_k_of_n(4, 12).unwrap(),
        room: Bytes::new(1 << 30),
        price_ceiling: FuelPerMibEpoch::new(5000),
        slots_per_operator: 1,
    }
}

fn commit() -> SignedCommit {
    let slot = SlotState { root: LaneRoot::new([3; 32]), bytes: Bytes::new(65536) };
    Commit {
        contract: terms().contract(&chain()),
        lease: Lease { incarnation: Incarnation::new(0), counter: 1 },
        sequence: Sequence::new(1),
        previous: CommitHash::ZERO,
        leaves: LeafIndex::new(1),
        width: 12,
        slots: Bounded::new(vec![slot; 12]).unwrap(),
        catalog_head: Bounded::new(vec![4; 100]).unwrap(),
        repair_head: Bounded::new(vec![5; 90]).unwrap(),
    }
    .sign(&chain(), &key(2))
}

fn certificate() -> CommitCertificate {
    let signed = commit();
    let message = Countersigned {
        contract: signed.commit.contract,
        commit: signed.commit.hash(),
        rank: signed.commit.rank(),
        slot: SlotIndex::new(0),
    };
    let seeder = key(9);
    let signature = seeder.sign(&chain(), &message);
    let one = tallow_types::commit::Countersignature {
        slot: SlotIndex::new(0),
        seeder: seeder.public().seeder(),
        signature,
    };
    assert!(one.verify(&chain(), &signed.commit).is_ok());
    CommitCertificate { signed, countersignatures: Bounded::new(vec![one]).unwrap() }
}

fn ask() -> SignedAsk {
    let seeder = key(9);
    let ask = Ask {
        seeder: seeder.public().seeder(),
        sequence: Sequence::new(1),
        payout: AccountId::new([6; 32]),
        price: FuelPerMibEpoch::new(1000),
        region: Region::new("eu".to_owned()).unwrap(),
        notice: EpochCount::new(10),
        room: Bytes::new(1 << 34),
        addresses: Bounded::new(vec![Address::new("/ip4/127.0.0.1/tcp/4001".to_owned()).unwrap()]).unwrap(),
    };
    let signature = seeder.sign(&chain(), &ask);
    SignedAsk { ask, signature }
}

fn acceptance() -> SignedAcceptance {
    let seeder = key(9);
    let acceptance = Acceptance {
        contract: terms().contract(&chain()),
        terms: terms(),
        slot: SlotIndex::new(3),
        seeder: seeder.public().seeder(),
        price: FuelPerMibEpoch::new(1000),
        expires: Height::new(50),
    };
    let signature = seeder.sign(&chain(), &acceptance);
    SignedAcceptance { acceptance, signature }
}

fn transaction(action: Action) -> Transaction {
    let owner = key(1);
    let policy = Policy::Key(owner.public());
    let core = TxCore { policy, key: IdempotencyKey::new([8; 16]), expires: Height::new(100), action };
    core.sign(&chain(), &[&owner])
}

fn transactions() -> Vec<Transaction> {
    let contract = terms().contract(&chain());
    let (device, amount) = (key(2).public(), Fuel::ONE);
    let acceptances = Bounded::new(vec![acceptance()]).unwrap();
    let actions = vec![
        Action::Transfer { to: AccountId::new([2; 32]), amount },
        Action::Offer(ask()),
        Action::Open { terms: terms(), acceptances: acceptances.clone(), fuel: amount },
        Action::Fill { contract, acceptances },
        Action::End { contract, slot: SlotIndex::new(1), seeder: key(9).public().seeder() },
        Action::Refuel { contract, amount },
        Action::Withdraw { contract, amount },
        Action::Close { contract },
        Action::Lease { contract, device },
        Action::Release { contract, device },
        Action::Post(certificate()),
    ];
    actions.into_iter().map(transaction).collect()
}

fn genesis() -> Genesis {
    let validator = Validator { key: key(5).public(), vrf_key: [6; 32], weight: 1 };
    Genesis {
        time: TimeMs::new(1_700_000_000_000),
        params: Params::dev(),
        validators: Bounded::new(vec![validator]).unwrap(),
        endowments: Bounded::new(vec![(AccountId::new([1; 32]), Fuel::ONE)]).unwrap(),
        salt: [0; 16],
    }
}

fn block() -> Block {
    let proof = EpochProof {
        epoch: Epoch::new(4),
        seeder: key(9).public().seeder(),
        samples: Bounded::empty(),
        capacity: Bounded::empty(),
    };
    let signature = key(9).sign(&chain(), &proof);
    let proofs = Bounded::new(vec![SignedEpochProof { proof, signature }]).unwrap();
    let body = Body { transactions: Bounded::new(transactions()).unwrap(), proofs };
    let header = Header {
        protocol: 1,
        chain: chain(),
        incarnation: Incarnation::new(0),
        height: Height::new(1),
        parent: BlockHash::ZERO,
        time: TimeMs::new(1_700_000_000_500),
        proposer: key(5).public(),
        vrf: [0; 80],
        body: body.hash(),
        state: StateRoot::new([2; 32]),
        validators: Digest::new([3; 32]),
        next_validators: Digest::new([3; 32]),
    };
    let signature = key(5).sign(&chain(), &header);
    Block { header, signature, body }
}

fn store_request() -> Request {
    let leaf = Leaf { stripe: StripeId::new([1; 16]), root: SliceRoot::new([2; 32]), length: 1024 };
    Request::Store {
        contract: ContractId::new([3; 32]),
        slot: SlotIndex::new(4),
        slices: Bounded::new(vec![leaf]).unwrap(),
    }
}

fn countersign_request() -> Request {
    let change = LaneChange { keep: LeafIndex::ZERO, dropped: Bounded::empty(), appended: Bounded::empty() };
    Request::Countersign { slot: SlotIndex::new(0), chain: Bounded::new(vec![commit()]).unwrap(), change }
}

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("vectors/types").join(format!("{name}.hex"))
}

/// Compares with the vector of this version. `TALLOW_BLESS=1` writes it, which is to approve a new format.
fn holds<T: Tagged + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let text = hex::encode(encode(value));
    let path = vector(name);
    if std::env::var_os("TALLOW_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{text}\n")).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    assert_eq!(known.trim(), text, "the bytes of {} changed", T::NAME);
    assert_eq!(decode::<T>(&hex::decode(known.trim()).unwrap()).unwrap(), *value);
}

/// Goal: bytes of version 1 stay what they are. Method: golden vectors, both ways.
#[test]
fn golden_bytes() {
    holds("genesis", &genesis());
    holds("block", &block());
    holds("commit", &commit());
    holds("commit_certificate", &certificate());
    holds("ask", &ask());
    holds("request_store", &store_request());
    holds("request_countersign", &countersign_request());
    holds(
        "response_failed",
        &Response::Failed(Fault::new(Code::DiskFull, "no room left, choose another seeder")),
    );
    for (number, transaction) in transactions().iter().enumerate() {
        holds(&format!("transaction_{number:02}"), transaction);
    }
}

/// Goal: signatures and hashes tie a block together. Method: change body, header, signer in turn.
#[test]
fn a_changed_block_does_not_verify() {
    let good = block();
    assert!(good.verify().is_ok());
    let mut body = good.clone();
    body.body.transactions[0].core.expires = Height::new(101);
    assert!(body.verify().is_err());
    let mut header = good.clone();
    header.header.time = TimeMs::new(1);
    assert!(header.verify().is_err());
    let mut signer = good;
    signer.header.proposer = key(6).public();
    assert!(signer.verify().is_err());
}

/// Goal: ids bind the network. Method: the same terms on two chains.
#[test]
fn contract_ids_bind_network_owner_and_index() {
    let here = terms().contract(&chain());
    assert_ne!(here, terms().contract(&ChainId::new([8; 32])));
    assert_ne!(here, Terms { index: 1, ..terms() }.contract(&chain()));
    assert_eq!(here, Terms { room: Bytes::new(1), ..terms() }.contract(&chain()));
}

fn decode_all(bytes: &[u8]) {
    let _ = decode::<Request>(bytes);
    let _ = decode::<Response>(bytes);
    let _ = decode::<Transaction>(bytes);
    let _ = decode::<Block>(bytes);
    let _ = decode::<CommitCertificate>(bytes);
    let _ = decode::<SignedCommit>(bytes);
    let _ = decode::<SignedAsk>(bytes);
    let _ = decode::<SignedEpochProof>(bytes);
    let _ = decode::<Genesis>(bytes);
}

fn envelopes() -> impl Strategy<Value = Vec<u8>> {
    let tags =
        prop::sample::select(vec![*b"RQ", *b"RS", *b"TX", *b"BL", *b"CC", *b"CM", *b"AK", *b"EP", *b"GN"]);
    (tags, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(tag, body)| {
        let mut bytes = tag.to_vec();
        bytes.push(1);
        bytes.extend(body);
        bytes
    })
}

proptest! {
    /// Goal: random bytes are an error at worst. Method: noise behind a valid envelope.
    #[test]
    fn noise_makes_no_decoder_panic_never_panic(bytes in envelopes()) {
        decode_all(&bytes);
    }

    /// Goal: damaged real messages are an error at worst. Method: flip, cut and extend a block.
    #[test]
    fn damage_never_panic(at in 0usize..4096, flip in 1u8.., cut in 0usize..4096) {
        let mut bytes = encode(&block());
        let at = at % bytes.len();
        bytes[at] ^= flip;
        decode_all(&bytes);
        bytes.truncate(cut % bytes.len());
        decode_all(&bytes);
    }
}

//! Whole nodes over TCP on the loopback.

use std::path::Path;
use std::time::Duration;

use tallow_consensus::Clock;
use tallow_ledger::key;
use tallow_net::Transport;
use tallow_proofs::beacon::{R255, Vrf};
use tallow_storage_node::store::Upkeep;
use tallow_storage_node::{Join, Node, NodeConfig, SeederConfig, ValidatorConfig};
use tallow_types::contract::Address;
use tallow_types::fault::Code;
use tallow_types::params::Genesis;
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, TxCore};
use tallow_types::wire::{Request, Response};
use tallow_types::{Fuel, Height, IdempotencyKey};

use super::world::{genesis, seeder_key, store_config, terms};

const SOON: Duration = Duration::from_secs(9);

fn loopback() -> Vec<Address> {
    vec![Address::new("/ip4/127.0.0.1/tcp/0".into()).unwrap()]
}

fn keys() -> (Keypair, Genesis) {
    let signer = Keypair::from_seed(&[1; 32]);
    let genesis = genesis(2, &signer, &R255::secret(&[3; 32]), &Keypair::from_seed(&[2; 32]));
    (signer, genesis)
}

async fn validator(dir: &Path) -> Node {
    let (signer, genesis) = keys();
    let mut config = NodeConfig::new(dir.join("validator"), signer, Join::Genesis(genesis));
    config.listen = loopback();
    config.validator =
        Some(ValidatorConfig { vrf: R255::secret(&[3; 32]), clock: Clock::Manual, adopt: false });
    Node::start(config).await.unwrap()
}

fn seeder_config(dir: &Path, n: u8, bootstrap: Vec<tallow_net::Peer>) -> NodeConfig {
    let chain = keys().1.chain();
    let join = Join::Network { chain, bootstrap };
    let mut config = NodeConfig::new(dir.join(format!("seeder-{n}")), seeder_key(n), join);
    config.listen = loopback();
    config.seeder = Some(SeederConfig { terms: terms(), store: store_config(), upkeep: Upkeep::default() });
    config
}

/// Goal: a seeder finds its network, offers itself, follows, and does so again after a restart on another port. Method:
/// a validator and a seeder as nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeder_joins_offers_and_follows() {
    let dir = tempfile::tempdir().unwrap();
    let maker = validator(dir.path()).await;
    let seeder = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await.unwrap();
    tokio::time::timeout(SOON, seeder.ready()).await.unwrap();
    let written = std::fs::read_to_string(dir.path().join("seeder-0/address")).unwrap();
    let listed: Vec<_> = seeder.bootstrap().iter().map(|address| address.as_str().to_owned()).collect();
    assert_eq!(written.lines().collect::<Vec<_>>(), listed);
    let entry = seeder.seeder().unwrap().id();
    assert!(maker.chain().get(&key::seeder(&entry)).unwrap().is_some());
    seeder.stop().await;
    drop(seeder);

    let seeder = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await.unwrap();
    tokio::time::timeout(SOON, seeder.ready()).await.unwrap();
    let record = maker.chain().get(&key::seeder(&entry)).unwrap().unwrap();
    let record: tallow_ledger::record::Seeder = tallow_types::decode(&record).unwrap();
    assert_eq!(record.ask.addresses.to_vec(), seeder.peer().addresses, "the new port is on the ledger");
    let again = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await;
    let error = again.err().expect("the folder is in use");
    assert!(error.is_in_use(), "{error}");
    seeder.stop().await;
    maker.stop().await;
}

/// Goal: what only the validator can do is done through a seeder too, and seen there. Method: a wallet that knows the
/// seeder alone; a dropped node gives its folder back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeder_hands_on_what_it_cannot_do() {
    let dir = tempfile::tempdir().unwrap();
    let maker = validator(dir.path()).await;
    let seeder = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await.unwrap();
    tokio::time::timeout(SOON, seeder.ready()).await.unwrap();
    let owner = Keypair::from_seed(&[2; 32]);
    let wallet = tallow_net::Node::start(tallow_net::Config::new(&owner)).await.unwrap();
    let to = tallow_types::AccountId::new([5; 32]);
    let core = TxCore {
        policy: Policy::Key(owner.public()),
        key: IdempotencyKey::new([1; 16]),
        expires: Height::new(1_000),
        action: Action::Transfer { to, amount: Fuel::ONE },
    };
    let tx = core.sign(&maker.chain_id(), &[&owner]);
    let payload: bytes::Bytes = tallow_types::encode(&tx).into();
    let reply = wallet.call(&seeder.peer(), Request::Submit, payload.clone()).await.unwrap();
    let Response::Applied(receipt) = reply.response else { panic!("applied") };
    assert!(seeder.chain().get(&key::account(&to)).unwrap().is_some(), "what was applied is seen at once");
    let again = wallet.call(&seeder.peer(), Request::Submit, payload).await.unwrap();
    assert_eq!(again.response, Response::Applied(receipt), "a retry is the same transaction");
    let tick = wallet.call(&seeder.peer(), Request::Tick { epochs: 1 }, bytes::Bytes::new()).await;
    assert_eq!(tick.unwrap_err().code(), Code::Unsupported);
    let hello = Request::Hello { chain: maker.chain_id() };
    let hello = wallet.call(&seeder.peer(), hello, bytes::Bytes::new()).await.unwrap().response;
    let Response::Hello { bootstrap, seeder: id, .. } = hello else { panic!("hello") };
    assert_eq!(id, Some(seeder_key(0).public().seeder()));
    let all: Vec<_> = seeder.bootstrap().into_iter().chain(maker.bootstrap()).collect();
    assert_eq!(bootstrap.into_vec(), all);
    drop(seeder);
    let again = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await.unwrap();
    again.stop().await;
    maker.stop().await;
}

/// Goal: a port that is taken and a foreign ledger are said by name. Method: start into each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_starts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let maker = validator(dir.path()).await;
    let mut taken = seeder_config(dir.path(), 0, vec![maker.peer()]);
    taken.listen = maker.peer().addresses;
    let error = Node::start(taken).await.err().expect("the port is taken");
    assert!(error.is_address_in_use(), "{error}");
    let seeder = Node::start(seeder_config(dir.path(), 0, vec![maker.peer()])).await.unwrap();
    seeder.stop().await;
    drop(seeder);
    let mut foreign = seeder_config(dir.path(), 0, vec![maker.peer()]);
    foreign.join =
        Join::Network { chain: tallow_types::ChainId::new([9; 32]), bootstrap: vec![maker.peer()] };
    let error = Node::start(foreign).await.err().expect("another network");
    assert!(error.is_other_network(), "{error}");
    maker.stop().await;
}

//! Whole nodes over TCP on the loopback.

use std::path::Path;
use std::time::Duration;

use tallow_consensus::Clock;
use tallow_ledger::key;
use tallow_proofs::beacon::{R255, Vrf};
use tallow_storage_node::{Join, Node, NodeConfig, SeederConfig, ValidatorConfig};
use tallow_types::contract::Address;
use tallow_types::params::Genesis;
use tallow_types::sign::Keypair;

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
    config.seeder = Some(SeederConfig { terms: terms(), store: store_config() });
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

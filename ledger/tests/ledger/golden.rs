//! A small chain, pinned: `vectors/ledger/` holds its genesis and blocks, the root after each block, and the records it
//! ends with. `TALLOW_BLESS=1` writes them anew, which is the explicit approval of another format.

use std::fmt::Write as _;
use std::path::PathBuf;

use tallow_ledger::record::{Account, Contract, Head, Network, Owned, Seeder, Seen, Supply, Validators};
use tallow_ledger::{BlockEnv, block, execute, genesis, state, tree};
use tallow_types::block::Block;
use tallow_types::commit::CommitCertificate;
use tallow_types::params::Genesis;
use tallow_types::tx::Action;
use tallow_types::{DecodeError, Fuel, Height, Tagged, decode, encode};

use crate::world::{MIB, Map, World, keypair, owner};

/// A chain with every kind of record in its last state.
fn chain() -> World {
    let mut world = World::with_asks(4);
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    let closed = world.open(1, &[1, 2, 3], 1 << 30);
    let transfer = world.tx(1, Action::Transfer { to: owner(7), amount: Fuel::new(12_345) });
    let close = world.tx(0, Action::Close { contract: closed });
    world.pass(vec![transfer, close]);
    let lease = world.take_lease(contract, 10);
    for (sequence, bytes) in [(1, [MIB; 4]), (2, [3 * MIB, 2 * MIB, MIB, 0])] {
        let certificate = world.certificate(world.commit(contract, lease, sequence, &bytes), 10, &[0, 1, 2]);
        let post = world.tx(1, Action::Post(certificate));
        world.pass(vec![post]);
        world.pass_epoch(&[0, 1]);
    }
    let last = world.certificate(world.commit(contract, lease, 3, &[MIB; 4]), 10, &[0, 1, 2]);
    let (post, wait) =
        (world.tx(1, Action::Post(last)), Action::Lease { contract, device: keypair(11).public() });
    let wait = world.tx(0, wait);
    world.pass(vec![post, wait]);
    world
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors/ledger")
}

/// Compares a file with what it should be, or writes it.
fn pinned(name: &str, text: &str) -> String {
    if std::env::var_os("TALLOW_BLESS").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(folder().join(name), text).unwrap();
    }
    read(name)
}

/// Goal: rules, records and roots do not change unnoticed. Method: make the chain and compare it with the pinned one.
#[test]
fn chain_is_pinned() {
    let world = chain();
    let mut blocks = hex::encode(encode(&world.start)) + "\n";
    let mut roots = String::new();
    for block in &world.blocks {
        blocks += &(hex::encode(encode(block)) + "\n");
        writeln!(roots, "{} {}", block.header.height, block.header.state).unwrap();
    }
    let mut records = String::new();
    for (key, value) in &world.state {
        writeln!(records, "{} {}", hex::encode(key), hex::encode(value)).unwrap();
    }
    for (name, text) in [("roots.txt", roots), ("chain.hex", blocks), ("records.hex", records)] {
        assert!(pinned(name, &text) == text, "{name} differs; see the head of this file");
    }
}

/// Goal: the pinned bytes are opened and executed to the pinned roots. Method: read the files alone, without the code
/// that made them.
#[test]
fn pinned_chain_executes() {
    let text = read("chain.hex");
    let mut lines = text.lines().map(|line| hex::decode(line).unwrap());
    let start: Genesis = decode(&lines.next().unwrap()).unwrap();
    let (mut records, mut nodes) = (Map::new(), Map::new());
    let mut apply = |records: &mut Map, height, writes| {
        let (root, update) = tree::update(&nodes, height, &writes).unwrap();
        nodes.extend(update.nodes);
        state::apply(records, &writes);
        root
    };
    apply(&mut records, Height::ZERO, genesis(&start).unwrap());
    let mut roots = String::new();
    for line in lines {
        let block: Block = decode(&line).unwrap();
        let header = block.verify().unwrap();
        assert_eq!(header.chain, start.chain());
        assert_eq!(block::check_header(&records, header), Ok(()));
        let outcome = execute(&records, &BlockEnv::from(header), &block.body).unwrap();
        let root = apply(&mut records, header.height, outcome.writes);
        assert_eq!(root, header.state);
        writeln!(roots, "{} {root}", header.height).unwrap();
    }
    assert_eq!(roots, read("roots.txt"));
    let kept: Map = read("records.hex")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(key, value)| (hex::decode(key).unwrap(), hex::decode(value).unwrap()))
        .collect();
    assert_eq!(records, kept);
    let mut kinds = std::collections::BTreeSet::new();
    for (key, value) in &kept {
        open(key[0], value).unwrap();
        kinds.insert(char::from(key[0]));
    }
    assert_eq!(kinds.into_iter().collect::<String>(), "ACDHMNOPQSTVX", "one of each kind");
}

/// Goal: the page about the format names each kind of record by its key and tag. Method: look up those of the pinned
/// state.
#[test]
fn page_names_every_record() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/formats/ledger.md");
    let page = std::fs::read_to_string(page).unwrap();
    for line in read("records.hex").lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let (key, value) = (hex::decode(key).unwrap(), hex::decode(value).unwrap());
        let begins = format!("| `{}", char::from(key[0]));
        let row = page.lines().find(|row| row.starts_with(&begins)).unwrap();
        if let [first, second, ..] = value[..] {
            let tag = format!("`\"{}{}\"`", char::from(first), char::from(second));
            assert!(row.contains(&tag), "{row} lacks {tag}");
        }
    }
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// Decodes a record by the prefix of its key.
fn open(prefix: u8, value: &[u8]) -> Result<(), DecodeError> {
    fn as_a<T: Tagged>(value: &[u8]) -> Result<(), DecodeError> {
        decode::<T>(value).map(drop)
    }
    match prefix {
        b'A' => as_a::<Account>(value),
        b'C' => as_a::<Contract>(value),
        b'H' => as_a::<Head>(value),
        b'M' => as_a::<Supply>(value),
        b'N' | b'Q' => as_a::<CommitCertificate>(value),
        b'O' => as_a::<Owned>(value),
        b'P' => as_a::<Network>(value),
        b'S' => as_a::<Seeder>(value),
        b'T' => as_a::<Seen>(value),
        b'V' => as_a::<Validators>(value),
        _ => {
            assert!(value.is_empty(), "queues have no values");
            Ok(())
        }
    }
}

use std::path::PathBuf;

use tallow_ledger::tree;
use tallow_types::params::Genesis;

use super::*;
use crate::Clock;
use crate::follower;
use crate::testing::*;
use crate::validator::{Event, Runner};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn contents(chain: &Chain) -> Records {
    chain.scan(&[], &[], usize::MAX).expect("reads")
}

/// One block with one transfer.
fn step(runner: &mut Runner, id: u64) {
    drive(runner, at(0), Event::Submit(1, Box::new(transfer(10, 11, 1, id))));
    drive(runner, at(100), Event::Wake);
}

/// Goal: a file that this program did not write, or that is another network's, or in use, is refused by name. Method:
/// one of each.
#[test]
fn other_files_are_refused() {
    let dir = folder();
    assert!(Chain::reopen(dir.path(), options(8)).expect_err("nothing there").is_absent());
    let chain = Chain::open(dir.path(), &genesis(), options(8)).expect("makes one");
    assert!(Chain::open(dir.path(), &genesis(), options(8)).expect_err("two at once").is_in_use());
    drop(chain);
    let other = Genesis { salt: [6; 16], ..genesis() };
    assert!(Chain::open(dir.path(), &other, options(8)).expect_err("another").is_other_network());

    let db = Database::open(dir.path().join(FILE)).expect("opens");
    let write = db.begin_write().expect("writes");
    write
        .open_table(META)
        .expect("there")
        .insert(schema::KEY_SCHEMA, &b"tallow ledger 9"[..])
        .expect("writes");
    write.commit().expect("writes");
    drop(db);
    let error = Chain::reopen(dir.path(), options(8)).expect_err("a later layout");
    assert!(error.to_string().contains("tallow ledger 9"), "{error}");

    let broken = Genesis { validators: tallow_types::Bounded::empty(), ..genesis() };
    let dir = folder();
    assert!(Chain::open(dir.path(), &broken, options(8)).is_err());
    assert!(Chain::reopen(dir.path(), options(8)).expect_err("nothing was made").is_absent());
    std::fs::write(dir.path().join(FILE), b"not a database at all").expect("writes");
    assert!(Chain::reopen(dir.path(), options(8)).is_err());
}

/// Goal: blocks come in pages from where they are asked for, genesis before the first, nothing beyond the last; pruned
/// ones are named. Method: 300 blocks, kept and not.
#[test]
fn blocks_come_in_pages() {
    let dir = folder();
    let mut runner = validator(dir.path(), Clock::Manual, 1_000);
    drive(&mut runner, at(0), Event::Tick(1, 100));
    let chain = runner.chain().clone();
    let tip = chain.status().height;
    let first = chain.blocks(Height::ZERO).expect("reads");
    assert_eq!(first.len(), BLOCKS_PAGE_MAX);
    assert_eq!(decode::<Genesis>(&first[0]).expect("genesis"), genesis());
    assert_eq!(decode::<Block>(&first[1]).expect("a block").header.height, Height::new(1));
    let last = chain.blocks(tip).expect("reads");
    assert_eq!(last.len(), 1);
    assert_eq!(decode::<Block>(&last[0]).expect("a block").header.hash(), chain.status().tip);
    assert!(chain.blocks(Height::new(tip.get() + 1)).expect("reads").is_empty());
    assert!(chain.blocks(Height::MAX).expect("reads").is_empty());
    drop((runner, chain));

    let mut runner = validator(dir.path(), Clock::Manual, 4);
    drive(&mut runner, at(0), Event::Tick(1, 10));
    let chain = runner.chain();
    let oldest = chain.oldest().expect("reads");
    assert_eq!(oldest.get(), chain.status().height.get() - 3, "lowering the number takes effect");
    assert_eq!(chain.blocks(Height::ZERO).expect("reads").len(), 1, "genesis is always there");
    let below = Height::new(oldest.get() - 1);
    assert!(matches!(chain.blocks(below), Err(ChainError::Pruned { oldest: named }) if named == oldest));
    assert_eq!(chain.blocks(oldest).expect("reads").len(), 4);
    assert_eq!(chain.block(below).expect("reads"), None);
}

/// Goal: a reader sees one state, whatever is written meanwhile, and can prove what it saw. Method: a view across three
/// blocks; presence and absence proofs against the header's root.
#[test]
fn a_view_stays_and_proves() {
    let dir = folder();
    let mut runner = validator(dir.path(), Clock::Manual, 8);
    step(&mut runner, 1);
    let chain = runner.chain().clone();
    let (view, before) = (chain.view().expect("reads"), contents(&chain));
    (2..5).for_each(|id| step(&mut runner, id));
    assert_eq!(view.scan(&[], &[], usize::MAX).expect("reads"), before);
    assert_ne!(contents(&chain), before);
    let root = view.header().state;
    for (key, value) in &before {
        let proof = view.prove(key).expect("proves");
        tree::verify(&root, key, Some(value), &proof).expect("it is there");
        assert!(tree::verify(&chain.view().expect("reads").header().state, key, Some(b"x"), &proof).is_err());
    }
    let proof = view.prove(b"nobody").expect("proves");
    tree::verify(&root, b"nobody", None, &proof).expect("it is not there");
}

/// Goal: scanning by prefix gives pages without gaps or strangers. Method: pages of every size against the whole.
#[test]
fn scans_page_without_gaps() {
    let dir = folder();
    let mut runner = validator(dir.path(), Clock::Manual, 8);
    (0..5).for_each(|id| step(&mut runner, id));
    let (chain, whole) = (runner.chain(), contents(runner.chain()));
    for prefix in [&b""[..], b"A", b"T", b"nothing"] {
        let wanted: Records = whole.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect();
        for size in 1..7 {
            let (mut all, mut after) = (Records::new(), Vec::new());
            loop {
                let page = chain.scan(prefix, &after, size).expect("reads");
                assert!(page.len() <= size);
                let Some((key, _)) = page.last() else { break };
                after.clone_from(key);
                all.extend(page);
            }
            assert_eq!(all, wanted);
        }
    }
}

/// Goal: stepping back restores each earlier state to the byte, and going on again ends in the same state. Method:
/// remember the records at every height, step back to each, apply the same blocks again.
#[test]
fn stepping_back_restores_the_state() {
    let (a, b) = (folder(), folder());
    let mut runner = validator(a.path(), Clock::Manual, 64);
    let chain = Chain::open(b.path(), &genesis(), options(64)).expect("makes one");
    let mut states = vec![contents(&chain)];
    (0..6).for_each(|id| step(&mut runner, id));
    drive(&mut runner, at(0), Event::Tick(1, 2));
    let blocks: Vec<Block> = (1..=runner.chain().status().height.get())
        .map(|height| runner.chain().block(Height::new(height)).expect("reads").expect("kept"))
        .collect();
    for block in &blocks {
        follower::apply(&chain, block).expect("the next one");
        states.push(contents(&chain));
    }
    for to in (0..blocks.len()).rev().step_by(3).chain([0]) {
        chain.rewind(Height::new(to as u64)).expect("kept");
        assert_eq!(contents(&chain), states[to]);
        assert_eq!(chain.status().height, Height::new(to as u64));
        blocks[to..].iter().for_each(|block| follower::apply(&chain, block).expect("again"));
        assert_eq!(contents(&chain), contents(runner.chain()));
        let again =
            chain.commit(&blocks[0], &Change { writes: Default::default(), tree: Default::default() });
        assert!(matches!(again, Err(ChainError::NotNext { .. })));
    }
    drop(chain);
    let chain = Chain::reopen(b.path(), options(2)).expect("opens");
    step(&mut runner, 77);
    let tip = runner.chain().block(runner.chain().status().height).expect("reads").expect("kept");
    follower::apply(&chain, &tip).expect("the next one");
    assert!(matches!(chain.rewind(Height::new(1)), Err(ChainError::TooFarBack { .. })));
}

/// Goal: what an earlier run left of snapshots goes, and a snapshot is made again only when the old one is far back.
/// Method: count the files.
#[test]
fn snapshot_files_are_few() {
    let dir = folder();
    std::fs::write(dir.path().join("snapshot-7-leftover"), b"x").expect("writes");
    let mut runner = validator(dir.path(), Clock::Manual, 20);
    let snapshots = || {
        let names =
            std::fs::read_dir(dir.path()).expect("reads").map(|entry| entry.expect("reads").file_name());
        names.filter(|name| name.to_string_lossy().starts_with("snapshot-")).count()
    };
    assert_eq!(snapshots(), 0);
    step(&mut runner, 1);
    let first = runner.chain().snapshot_piece(Height::ZERO, 0).expect("makes one");
    step(&mut runner, 2);
    assert_eq!(runner.chain().snapshot_piece(Height::ZERO, 0).expect("the same").height, first.height);
    assert!(matches!(runner.chain().snapshot_piece(first.height, 1), Err(ChainError::NoPiece)));
    assert!(matches!(runner.chain().snapshot_piece(Height::new(999), 0), Err(ChainError::NoPiece)));
    (3..20).for_each(|id| step(&mut runner, id));
    assert!(runner.chain().snapshot_piece(Height::ZERO, 0).expect("a new one").height > first.height);
    assert!(matches!(runner.chain().snapshot_piece(first.height, 0), Err(ChainError::NoPiece)));
    assert_eq!(snapshots(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 128, ..Default::default() })]

    /// Goal: no bytes that a peer calls a snapshot make this node panic or take it. Method: random bytes, alone and in
    /// place of a part of a real one.
    #[test]
    fn snapshots_of_random_bytes_never_panic(
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        at in proptest::prelude::any::<proptest::sample::Index>(),
    ) {
        static CHAIN: std::sync::LazyLock<(tempfile::TempDir, Arc<Chain>)> = std::sync::LazyLock::new(|| {
            let dir = folder();
            let chain = Chain::open(dir.path(), &genesis(), options(8)).expect("makes one");
            (dir, chain)
        });
        let chain = &CHAIN.1;
        proptest::prop_assert!(chain.check_snapshot(&noise).is_err());
        let mut bytes = std::fs::read(vector("snapshot.bin")).expect("kept");
        let at = at.index(bytes.len());
        let end = bytes.len().min(at + noise.len());
        bytes.splice(at..end, noise.iter().copied());
        let mut file = chain.scratch().expect("a file");
        std::io::Write::write_all(&mut file, &bytes).expect("writes");
        if bytes != std::fs::read(vector("snapshot.bin")).expect("kept") {
            proptest::prop_assert!(chain.import(&file, bytes.len() as u64).is_err());
        }
    }
}

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/chain").join(name)
}

/// Goal: every later version opens what this one wrote: blocks, a snapshot, the ledger file itself. Method: files kept
/// in `vectors/chain`, written once when `TALLOW_BLESS` is set; all three must end in the same state.
#[test]
fn kept_files_open() {
    if std::env::var_os("TALLOW_BLESS").is_some() {
        bless();
    }
    let text = std::fs::read_to_string(vector("blocks.txt")).expect("kept");
    let mut lines =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| hex::decode(line).expect("hex"));
    let genesis: Genesis = decode(&lines.next().expect("genesis first")).expect("decodes");
    let (a, b, c) = (folder(), folder(), folder());
    let from_blocks = Chain::open(a.path(), &genesis, options(64)).expect("makes one");
    for bytes in lines {
        follower::apply(&from_blocks, &decode(&bytes).expect("decodes")).expect("follows");
    }
    let from_snapshot = Chain::open(b.path(), &genesis, options(64)).expect("makes one");
    let file = File::open(vector("snapshot.bin")).expect("kept");
    let len = file.metadata().expect("kept").len();
    from_snapshot.import(&file, len).expect("a good one");
    std::fs::copy(vector(FILE), c.path().join(FILE)).expect("kept");
    let from_file = Chain::reopen(c.path(), options(64)).expect("opens");
    assert!(from_blocks.status().height > Height::new(5));
    for chain in [&from_snapshot, &from_file] {
        assert_eq!(chain.status(), from_blocks.status());
        assert_eq!(contents(chain), contents(&from_blocks));
    }
}

fn bless() {
    let dir = folder();
    let mut runner = validator(dir.path(), Clock::Manual, 64);
    (0..3).for_each(|id| step(&mut runner, id));
    drive(&mut runner, at(0), Event::Tick(1, 1));
    let chain = runner.chain().clone();
    std::fs::create_dir_all(vector("")).expect("a folder");
    let mut text = "# genesis, then blocks from height 1, as encoded (consensus::chain)\n".to_owned();
    for bytes in chain.blocks(Height::ZERO).expect("reads") {
        text += &hex::encode(bytes);
        text.push('\n');
    }
    std::fs::write(vector("blocks.txt"), text).expect("writes");
    let piece = chain.snapshot_piece(Height::ZERO, 0).expect("makes one");
    std::fs::write(vector("snapshot.bin"), piece.bytes).expect("writes");
    drop((runner, chain));
    let mut db = Database::open(dir.path().join(FILE)).expect("opens");
    db.compact().expect("compacts");
    drop(db);
    std::fs::copy(dir.path().join(FILE), vector(FILE)).expect("writes");
}

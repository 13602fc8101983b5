use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use tallow_ledger::state::Records;
use tallow_types::block::Header;
use tallow_types::sign::Keypair;
use tallow_types::wire::ChainStatus;
use tallow_types::{Incarnation, Signature, encode};

use super::*;
use crate::Clock;
use crate::chain::Piece;
use crate::testing::*;
use crate::validator::{self, Event, Runner};

const NOW: DurationMs = DurationMs::ZERO;

/// A validator with `blocks` blocks of one transfer each.
fn grown(dir: &Path, keep: u64, blocks: u64) -> Runner {
    let mut runner = validator(dir, Clock::Manual, keep);
    grow(&mut runner, blocks, 0);
    runner
}

/// Adds blocks of one transfer each; `salt` makes them differ from those of another branch.
fn grow(runner: &mut Runner, blocks: u64, salt: u64) {
    drive(runner, at(0), Event::Wake);
    for n in 0..blocks {
        let id = salt << 32 | runner.chain().status().height.get();
        drive(runner, at(n), Event::Submit(1, Box::new(transfer(10, 11, 1, id))));
        assert_eq!(drive(runner, at(n + 10), Event::Wake).len(), 1);
    }
}

fn follower(dir: &Path, keep: u64) -> Follower {
    Follower::new(Chain::open(dir, &genesis(), options(keep)).expect("opens"))
}

async fn catch_up(follower: &Follower, source: &Chain) -> Progress {
    let mut all = Progress::default();
    while follower.chain().status() != source.status() {
        let step = follower.step(source, NOW).await.expect("an honest source");
        assert_ne!(step, Progress::default(), "it goes on or it is there");
        all.applied += step.applied;
        all.snapshot |= step.snapshot;
        all.stepped_back = all.stepped_back.or(step.stepped_back);
    }
    all
}

/// All records and the header: what two nodes must have in common.
fn contents(chain: &Chain) -> (Header, Records) {
    let view = chain.view().expect("reads");
    (view.header().clone(), chain.scan(&[], &[], usize::MAX).expect("reads"))
}

/// Answers from a script instead of a ledger.
#[derive(Default)]
struct Scripted {
    blocks: Mutex<Vec<Result<Vec<Vec<u8>>, Fault>>>,
    pieces: BTreeMap<u32, Piece>,
}

impl Scripted {
    fn blocks(blocks: Vec<Vec<u8>>) -> Self {
        Self { blocks: Mutex::new(vec![Ok(blocks)]), ..Self::default() }
    }
}

#[async_trait]
impl Source for Scripted {
    async fn status(&self) -> Result<ChainStatus, Fault> {
        Err(Fault::new(Code::Unreachable, "gone"))
    }

    async fn blocks(&self, _: Height, _: DurationMs) -> Result<Vec<Vec<u8>>, Fault> {
        let next = self.blocks.lock().expect("no test panics in it").pop();
        next.unwrap_or_else(|| Err(Fault::new(Code::NotFound, "pruned")))
    }

    async fn snapshot(&self, _: Height, piece: u32) -> Result<Piece, Fault> {
        self.pieces.get(&piece).cloned().ok_or_else(|| Fault::new(Code::NotFound, "no such piece"))
    }
}

/// Goal: a bare machine with a chain id and one peer gets genesis, blocks and state. Method: join, catch up, compare
/// everything; then ask for another network.
#[tokio::test]
async fn a_bare_machine_joins() {
    let (a, b, c) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runner = grown(a.path(), 1000, 20);
    let source: &Chain = runner.chain();
    let chain = join(b.path(), source.id(), source, options(8)).await.expect("joins");
    let follower = Follower::new(chain);
    let progress = catch_up(&follower, source).await;
    assert_eq!((progress.applied, progress.snapshot), (source.status().height.get(), false));
    assert_eq!(contents(follower.chain()), contents(source));
    assert_eq!(follower.step(source, NOW).await.expect("nothing to do"), Progress::default());
    drop(follower);
    let chain = join(b.path(), source.id(), source, options(8)).await.expect("opens what is there");
    assert_eq!(chain.status(), source.status());
    drop(chain);
    let other = ChainId::new([1; 32]);
    let error = join(c.path(), other, source, options(8)).await.expect_err("another network");
    assert!(error.blames_source());
    assert!(
        matches!(join(b.path(), other, source, options(8)).await, Err(FollowError::Chain(error)) if error.is_other_network())
    );
}

/// Goal: a follower hears of a block as soon as it is made, without asking again. Method: ask first, with a minute's
/// patience, then make the block.
#[tokio::test]
async fn waiting_ends_with_the_block() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut runner = grown(a.path(), 64, 1);
    let node = follower(b.path(), 64);
    catch_up(&node, runner.chain()).await;
    let source = runner.chain().clone();
    let asking = node.clone();
    let ask = tokio::spawn(async move { asking.step(&*source, DurationMs::new(60_000)).await });
    tokio::task::yield_now().await;
    assert!(!ask.is_finished());
    grow(&mut runner, 1, 0);
    assert!(ask.await.expect("no panic").expect("an honest source").applied > 0);
    catch_up(&node, runner.chain()).await;
}

/// Goal: who is too far behind for blocks gets a snapshot and goes on from there. Method: prune, join, compare; then
/// more blocks, and serve a third node from the second.
#[tokio::test]
async fn snapshots_bridge_pruned_blocks() {
    let (a, b, c) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut runner = grown(a.path(), 8, 60);
    let source = runner.chain().clone();
    assert!(matches!(source.blocks(Height::new(1)), Err(ChainError::Pruned { .. })));
    let second = Follower::new(join(b.path(), source.id(), &*source, options(8)).await.expect("joins"));
    let progress = catch_up(&second, &source).await;
    assert!(progress.snapshot);
    assert_eq!(contents(second.chain()), contents(&source));
    grow(&mut runner, 5, 0);
    assert!(!catch_up(&second, &source).await.snapshot, "blocks follow the snapshot");
    assert_eq!(contents(second.chain()), contents(&source));
    let third =
        Follower::new(join(c.path(), source.id(), &**second.chain(), options(8)).await.expect("joins"));
    assert!(catch_up(&third, second.chain()).await.snapshot);
    assert_eq!(contents(third.chain()), contents(&source));
    let files = std::fs::read_dir(c.path()).expect("reads").count();
    assert_eq!(files, 1, "nothing is left of the download");
}

/// Goal: a snapshot is taken whole and true, or not at all. Method: change one byte of each part of a real one, cut it,
/// lengthen it, name too many pieces.
#[tokio::test]
async fn forged_snapshots_are_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runner = grown(a.path(), 4, 20);
    let good = runner.chain().snapshot_piece(Height::ZERO, 0).expect("a small state");
    assert_eq!(good.pieces, 1);
    let follower = follower(b.path(), 4);
    let before = contents(follower.chain());
    let len = good.bytes.len();
    let forged = |change: &dyn Fn(&mut Piece)| {
        let mut piece = good.clone();
        change(&mut piece);
        Scripted { pieces: BTreeMap::from([(0, piece)]), ..Scripted::default() }
    };
    let mut sources = vec![
        forged(&|piece| piece.bytes.truncate(len - 1)),
        forged(&|piece| piece.bytes.push(0)),
        forged(&|piece| piece.bytes.truncate(3)),
        forged(&|piece| piece.pieces = 0),
        forged(&|piece| piece.pieces = tallow_types::limits::SNAPSHOT_PIECES_MAX + 1),
        forged(&|piece| piece.bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes())),
    ];
    sources.extend((0..40).map(|n| forged(&move |piece| piece.bytes[n * (len - 1) / 39] ^= 1)));
    for source in &sources {
        let error = follower.step(source, NOW).await.expect_err("a forgery");
        assert!(error.blames_source(), "{error}");
        assert_eq!(contents(follower.chain()), before);
    }
    follower.step(&forged(&|_| ()), NOW).await.expect("the real one");
    assert_eq!(contents(follower.chain()), contents(runner.chain()));
    let again = follower.step(&forged(&|_| ()), NOW).await.expect_err("it is not newer");
    assert!(again.blames_source());
}

/// Goal: no block is believed that the validator did not make of the block before. Method: change every part of a good
/// one, sign with a stranger's key, send garbage and other heights.
#[tokio::test]
async fn forged_blocks_are_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let runner = grown(a.path(), 64, 3);
    let follower = follower(b.path(), 64);
    let good = runner.chain().block(Height::new(1)).expect("reads").expect("kept");
    let before = contents(follower.chain());
    let forge = |key: &Keypair, change: &dyn Fn(&mut Block)| {
        let mut block = good.clone();
        change(&mut block);
        block.header.body = block.body.hash();
        block.signature = key.sign(&block.header.chain, &block.header);
        encode(&block)
    };
    let (stranger, own) = (key(99), key(1));
    let mut forged = vec![
        Vec::new(),
        vec![0; 100],
        encode(&runner.chain().block(Height::new(2)).expect("reads").expect("kept")),
        encode(&Block { signature: Signature::ZERO, ..good.clone() }),
        forge(&stranger, &|_| ()),
        forge(&stranger, &|block| block.header.proposer = key(99).public()),
        // The validator itself can't break the rules either.
        forge(&own, &|block| block.header.state = tallow_types::StateRoot::ZERO),
        forge(&own, &|block| block.header.vrf[0] ^= 1),
        forge(&own, &|block| block.header.time = genesis().time),
        forge(&own, &|block| block.header.protocol += 1),
        forge(&own, &|block| block.header.chain = ChainId::ZERO),
        forge(&own, &|block| block.header.next_validators = tallow_types::Digest::ZERO),
        forge(&own, &|block| {
            block.body.transactions =
                tallow_types::Bounded::new(vec![transfer(10, 11, 1 << 80, 7)]).expect("one");
        }),
    ];
    let mut cut = encode(&good);
    cut.pop();
    forged.push(cut);
    for (n, bytes) in forged.into_iter().enumerate() {
        let error = follower.step(&Scripted::blocks(vec![bytes]), NOW).await.expect_err("a forgery");
        assert!(error.blames_source() && !error.is_fork(), "{n}: {error}");
        assert_eq!(contents(follower.chain()), before);
    }
    catch_up(&follower, runner.chain()).await;
}

/// Goal: two signed blocks of one height and incarnation halt a follower for good. Method: two validators with one key,
/// as if somebody had copied it; then restart the follower.
#[tokio::test]
async fn a_fork_halts() {
    let (a, b, c) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = grown(a.path(), 64, 3);
    let mut two = validator(b.path(), Clock::Manual, 64);
    grow(&mut two, 6, 9);
    let node = follower(c.path(), 64);
    catch_up(&node, one.chain()).await;
    let before = contents(node.chain());
    let error = node.step(&**two.chain(), NOW).await.expect_err("another branch");
    assert!(error.is_fork() && !error.blames_source());
    assert!(node.step(&**one.chain(), NOW).await.expect_err("it stays halted").is_fork());
    assert_eq!(contents(node.chain()), before);
    drop(node);
    let node = follower(c.path(), 64);
    assert!(node.step(&**one.chain(), NOW).await.expect_err("it stays halted").is_fork());
    drop(node);
    let error = validator::adopt(c.path(), options(64)).expect_err("nothing may be built on it");
    assert!(matches!(error, validator::SeatError::Halted));
}

/// Goal: after the loss of its disk a validator goes on from a follower's copy, under the next incarnation, and all
/// followers come along: the one it was copied from, one behind it, and one that was ahead, which steps back. Method:
/// three followers at different heights; money and roots compared.
#[tokio::test]
async fn a_rebuilt_validator_is_followed() {
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut old = grown(dirs[0].path(), 64, 4);
    let (behind, copied, ahead) =
        (follower(dirs[1].path(), 64), follower(dirs[2].path(), 64), follower(dirs[3].path(), 64));
    catch_up(&behind, old.chain()).await;
    grow(&mut old, 4, 0);
    catch_up(&copied, old.chain()).await;
    let meeting = copied.chain().status().height;
    grow(&mut old, 4, 0);
    catch_up(&ahead, old.chain()).await;
    drop(old);
    drop(copied);

    let seat = validator::rebuild(dirs[2].path(), dirs[4].path(), options(64)).expect("rebuilds");
    assert_eq!(seat.incarnation(), Incarnation::new(1));
    let mut new = validator::Runner::new(seat, config(Clock::Manual)).expect("the same keys");
    drive(&mut new, at(0), Event::Wake);
    assert_eq!(new.chain().status().incarnation, Incarnation::new(1), "it shows itself at once");
    let copied = follower(dirs[2].path(), 64);

    assert!(new.chain().status().height < ahead.chain().status().height);
    let progress = catch_up(&ahead, new.chain()).await;
    assert_eq!(progress.stepped_back, Some(meeting));
    grow(&mut new, 10, 7);
    for node in [&behind, &copied, &ahead] {
        let progress = catch_up(node, new.chain()).await;
        assert_eq!(progress.stepped_back, None);
        assert_eq!(contents(node.chain()), contents(new.chain()));
    }
    let left = Follower::new(Chain::open(dirs[0].path(), &genesis(), options(64)).expect("opens"));
    let error = ahead.step(&**left.chain(), NOW).await;
    assert!(
        matches!(error, Ok(_) | Err(FollowError::Stale)),
        "the old branch is not followed back: {error:?}"
    );
    assert_eq!(contents(ahead.chain()), contents(new.chain()));
}

/// Goal: who is ahead of a rebuilt validator by more than it keeps takes a snapshot of the new branch. Method: keep few
/// blocks, let the branches part far back.
#[tokio::test]
async fn a_far_branch_takes_a_snapshot() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut old = grown(dirs[0].path(), 4, 3);
    let ahead = follower(dirs[1].path(), 4);
    catch_up(&ahead, old.chain()).await;
    drop(old);
    let seat = validator::rebuild(dirs[0].path(), dirs[2].path(), options(4)).expect("rebuilds");
    old = validator(dirs[0].path(), Clock::Manual, 4);
    grow(&mut old, 12, 0);
    catch_up(&ahead, old.chain()).await;
    let mut new = validator::Runner::new(seat, config(Clock::Manual)).expect("the same keys");
    grow(&mut new, 30, 1);
    assert!(catch_up(&ahead, new.chain()).await.snapshot);
    assert_eq!(contents(ahead.chain()), contents(new.chain()));
}

/// Goal: a follower whose power fails, in the middle of blocks, of a snapshot, or of stepping back, has one whole state
/// when it comes back, and gets level. Method: a disk that fails at random writes; a source that keeps few blocks and is
/// rebuilt half way.
#[tokio::test]
async fn crashes_leave_whole_states() {
    for seed in 0..3 {
        let mut random = Random(seed);
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let (mut source, disk) = (grown(dirs[0].path(), 8, 2), Disk::default());
        for round in 0..14 {
            if round == 7 {
                let seat = validator::rebuild(dirs[0].path(), dirs[1].path(), options(8));
                assert!(seat.is_err(), "the old one still runs");
                drop(source);
                let seat = validator::rebuild(dirs[0].path(), dirs[1].path(), options(8)).expect("rebuilds");
                // What the follower has seen beyond this point is taken back.
                let mut old = validator(dirs[0].path(), Clock::Manual, 8);
                grow(&mut old, random.below(5), 3);
                if let Ok(chain) = Chain::open_on(disk.medium(), dirs[2].path(), &genesis(), options(8)) {
                    catch_up(&Follower::new(chain), old.chain()).await;
                }
                source = validator::Runner::new(seat, config(Clock::Manual)).expect("the same keys");
            }
            let blocks = random.below(12);
            grow(&mut source, blocks, round);
            disk.fail_after(random.below(90));
            if let Ok(chain) = Chain::open_on(disk.medium(), dirs[2].path(), &genesis(), options(8)) {
                let node = Follower::new(chain);
                while let Ok(progress) = node.step(&**source.chain(), NOW).await {
                    if progress == Progress::default() {
                        break;
                    }
                }
            }
            disk.crash(|| u8::try_from(random.below(256)).expect("a byte"));
            let chain = Chain::open_on(disk.medium(), dirs[2].path(), &genesis(), options(8)).expect("opens");
            let (header, records) = contents(&chain);
            let (root, _) = tallow_ledger::tree::rebuild(header.height, records).expect("builds");
            assert_eq!(root, header.state, "seed {seed}, round {round}: a state of several blocks");
        }
        let chain = Chain::open_on(disk.medium(), dirs[2].path(), &genesis(), options(8)).expect("opens");
        let node = Follower::new(chain);
        catch_up(&node, source.chain()).await;
        assert_eq!(contents(node.chain()), contents(source.chain()), "seed {seed}");
    }
}

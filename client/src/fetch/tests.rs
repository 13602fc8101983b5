//! Who is asked, how many, and for how long, on a network in memory with paused time.

use async_trait::async_trait;
use tallow_net::twin::{Faults, Twin, TwinNode};
use tallow_net::{Peer, Reply, Service, Transport};
use tallow_seal::keys::Seed;
use tallow_types::PublicKey;
use tallow_types::fault::Fault;
use tallow_types::sign::Keypair;

use super::*;
use crate::progress::Silent;

const DATA: u8 = 4;
const SLOTS: u8 = 10;
const LEN: u32 = 256 << 10;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn key(slot: u8) -> PublicKey {
    Keypair::from_seed(&[100 + slot; 32]).public()
}

/// Answers every read with as many bytes as it asks for.
struct Holder;

#[async_trait]
impl Service for Holder {
    async fn serve(&self, _: PublicKey, request: Request, _: Payload) -> Reply {
        let Request::Read { length, .. } = request else { return Response::Stored.into() };
        Reply::with(Response::Read, vec![0; length as usize].into())
    }
}

/// Notes whom it asks.
struct Noting {
    line: TwinNode,
    asked: Mutex<Vec<PublicKey>>,
}

#[async_trait]
impl Transport for Noting {
    fn key(&self) -> PublicKey {
        self.line.key()
    }

    async fn call(&self, peer: &Peer, request: Request, payload: Payload) -> Result<Reply, Fault> {
        self.asked.lock().expect("no panic holds it").push(peer.key);
        self.line.call(peer, request, payload).await
    }
}

struct World {
    twin: Twin,
    line: Arc<Noting>,
    fetcher: Fetcher,
}

impl World {
    fn new() -> Self {
        let twin = Twin::new(1);
        let _holders: Vec<_> = (0..SLOTS).map(|slot| twin.join(key(slot), Some(Arc::new(Holder)))).collect();
        let node = twin.join(Keypair::from_seed(&[1; 32]).public(), None);
        let line = Arc::new(Noting { line: node, asked: Mutex::default() });
        let seat = |slot| Seat {
            slot: SlotIndex::new(slot),
            seeder: key(slot).seeder(),
            peer: Peer::new(key(slot), Vec::new()),
        };
        let fetcher = Fetcher {
            caller: Arc::new(Caller::new(line.clone(), Duration::from_secs(20))),
            contract: ContractId::new([1; 32]),
            profile: Profile::from_k_of_n(DATA, SLOTS).expect("a profile"),
            keys: Arc::new(Seed::new([3; 64].into()).contract(0, 0)),
            seats: (0..SLOTS).map(seat).collect(),
            hedge_after: ms(100),
            progress: Arc::new(Silent),
            bad: Mutex::default(),
        };
        let world = Self { twin, line, fetcher };
        (0..SLOTS).for_each(|slot| world.delay(slot, ms(10)));
        world
    }

    /// Half of it on the way there, half on the way back.
    fn delay(&self, slot: u8, delay: Duration) {
        let each = delay / 2;
        let faults = Faults { delay: each..each + Duration::from_nanos(1), ..Faults::default() };
        self.twin.set_faults(key(slot), faults);
    }

    /// Reads the same range of k slices: who answered, who was asked, and how long it took.
    async fn read(&self) -> (Vec<u8>, Vec<u8>, Duration) {
        self.line.asked.lock().expect("no panic holds it").clear();
        let began = Instant::now();
        let place = Place { stripe: StripeId::new([1; 16]), slice_len: LEN, roots: Vec::new() };
        let given = self.fetcher.columns(&place, (0, LEN), &BTreeSet::new(), |_, _| Ok(())).await;
        let mut from: Vec<u8> = given.expect("enough answer").iter().map(|(slot, _)| slot.get()).collect();
        from.sort_unstable();
        let asked = self.line.asked.lock().expect("no panic holds it");
        let slot_of = |asked: &PublicKey| (0..SLOTS).find(|slot| key(*slot) == *asked).expect("a seat");
        (from, asked.iter().map(slot_of).collect(), began.elapsed())
    }
}

/// Goal: one that dawdles costs little time and one request more, is not asked first again, and is tried again later.
/// Method: slot 1 stands still for a while.
#[tokio::test(start_paused = true)]
async fn dawdlers_are_worked_around() {
    let world = World::new();
    assert_eq!(world.read().await.1, [0, 1, 2, 3]);
    world.delay(1, Duration::from_secs(8));
    let (from, asked, took) = world.read().await;
    assert_eq!((from, asked), (vec![0, 2, 3, 4], vec![0, 1, 2, 3, 4]));
    assert!(took < ms(60), "{took:?}: twice what the others took, and a request");
    assert_eq!(world.read().await.1, [0, 2, 3, 4]);
    world.delay(1, ms(10));
    tokio::time::advance(Duration::from_secs(120)).await;
    assert_eq!(world.read().await.1, [0, 1, 2, 3]);
    assert!(world.fetcher.blames().is_empty(), "slow is not bad");
}

/// Goal: when all are slow, few more are asked than needed; the next read knows. Method: the line becomes a hundred times
/// slower.
#[tokio::test(start_paused = true)]
async fn slow_lines_are_not_flooded() {
    let world = World::new();
    world.read().await;
    (0..SLOTS).for_each(|slot| world.delay(slot, ms(1_000)));
    let (_, asked, _) = world.read().await;
    assert_eq!(asked.len(), 6, "half of k in vain at most");
    for _ in 0..5 {
        world.read().await;
    }
    assert_eq!(world.read().await.1.len(), usize::from(DATA));
}

/// Goal: one that fails is replaced at once, and named. Method: two are gone.
#[tokio::test(start_paused = true)]
async fn failures_are_replaced_at_once() {
    let world = World::new();
    world.read().await;
    world.twin.kill(key(0));
    world.twin.kill(key(2));
    let (from, asked, took) = world.read().await;
    assert_eq!((from, asked.len()), (vec![1, 3, 4, 5], 6));
    assert!(took < ms(25), "{took:?}");
    let named: Vec<u8> = world.fetcher.blames().iter().map(|blame| blame.slot).collect();
    assert_eq!(named, [0, 2]);
    assert_eq!(world.read().await.1, [1, 3, 4, 5]);
}

/// Goal: as many as can be spared may fall silent in the middle, all at once. Method: they do.
#[tokio::test(start_paused = true)]
async fn silence_of_many_is_survived() {
    let world = World::new();
    world.read().await;
    for slot in 0..SLOTS - DATA {
        world.twin.set_faults(key(slot), Faults { silent: true, ..Faults::default() });
    }
    let (from, _, took) = world.read().await;
    assert_eq!(from, [6, 7, 8, 9]);
    assert!(took < Duration::from_secs(12), "{took:?}");
    let (_, asked, took) = world.read().await;
    assert_eq!(asked[..4], [6, 7, 8, 9], "{asked:?}");
    assert!(took < ms(60), "{took:?}");
}

/// Goal: a short read asks those alone who have it; if one dawdles, k others are asked and win. Method: a range within two
/// tiles, then one of the two stands still.
#[tokio::test(start_paused = true)]
async fn short_reads_ask_few() {
    let world = World::new();
    let layout = Layout::from_slice_len(world.fetcher.profile, LEN).expect("a length");
    let place = Place { stripe: StripeId::new([1; 16]), slice_len: LEN, roots: Vec::new() };
    let range = ((64 << 10) - 50, 100);
    let asked = || std::mem::take(&mut *world.line.asked.lock().expect("no panic holds it")).len();
    let given = world.fetcher.range(&place, layout, range).await.expect("they answer");
    assert!(matches!(given, Given::Pieces(pieces) if pieces.len() == 2));
    assert_eq!(asked(), 2);
    world.delay(1, Duration::from_secs(8));
    let began = Instant::now();
    let given = world.fetcher.range(&place, layout, range).await.expect("enough answer");
    assert!(matches!(given, Given::Columns(columns) if columns.len() == usize::from(DATA)));
    assert!(began.elapsed() < ms(120), "{:?}", began.elapsed());
    assert!(asked() <= 2 + usize::from(DATA) + 1);
}

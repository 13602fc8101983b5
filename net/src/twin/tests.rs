use std::sync::atomic::{AtomicU32, Ordering};

use tallow_types::sign::Keypair;
use tallow_types::{ChainId, ContractId, SlotIndex, StripeId};
use tokio::sync::Notify;

use super::*;

fn key(seed: u8) -> PublicKey {
    Keypair::from_seed(&[seed; 32]).public()
}

fn read(length: u32) -> Request {
    Request::Read {
        contract: ContractId::ZERO,
        slot: SlotIndex::new(0),
        stripe: StripeId::ZERO,
        offset: 0,
        length,
    }
}

fn lane() -> Request {
    Request::Lane { contract: ContractId::ZERO, slot: SlotIndex::new(0) }
}

/// Answers reads with zeros, counts what it finished, and waits for `gate` where the request is a `Submit`.
#[derive(Default)]
struct Echo {
    begun: AtomicU32,
    done: AtomicU32,
    gate: Notify,
}

#[async_trait]
impl Service for Echo {
    async fn serve(&self, _: PublicKey, request: Request, payload: Bytes) -> Reply {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let reply = match request {
            Request::Read { length, .. } => {
                Reply::with(Response::Read, Bytes::from(vec![0; length as usize]))
            }
            Request::Submit | Request::Lane { .. } => {
                self.gate.notified().await;
                Fault::new(Code::Refused, "no").into()
            }
            Request::Store { .. } => Reply::with(Response::Stored, payload),
            Request::Prove => panic!("a bug"),
            _ => Response::Receipt(None).into(),
        };
        self.done.fetch_add(1, Ordering::SeqCst);
        reply
    }
}

fn pair(seed: u64) -> (Twin, TwinNode, Arc<Echo>, Peer) {
    let twin = Twin::new(seed);
    let echo = Arc::new(Echo::default());
    let _ = twin.join(key(2), Some(echo.clone()));
    (twin.clone(), twin.join(key(1), None), echo, Twin::peer(key(2)))
}

/// Goal: a plain call works, and each way to be no answer is a fault of its own. Method: one call for each.
#[tokio::test(start_paused = true)]
async fn answers_and_faults() {
    let (_twin, node, _, peer) = pair(1);
    let reply = node.call(&peer, read(10), Bytes::new()).await.expect("answer");
    assert_eq!(reply.payload.len(), 10);
    let other_kind = node.call(&peer, Request::Hello { chain: ChainId::ZERO }, Bytes::new()).await;
    assert_eq!(other_kind.expect_err("kind").code(), Code::Garbage);
    let panics = node.call(&peer, Request::Prove, Bytes::new()).await;
    assert_eq!(panics.expect_err("panic").code(), Code::Internal);
    let nobody = node.call(&Twin::peer(key(9)), read(1), Bytes::new()).await;
    assert_eq!(nobody.expect_err("nobody").code(), Code::Unreachable);
    let oneself = node.call(&Twin::peer(key(1)), read(1), Bytes::new()).await;
    assert_eq!(oneself.expect_err("oneself").code(), Code::Unsupported);
    let payload = node.call(&peer, read(1), Bytes::from_static(b"x")).await;
    assert_eq!(payload.expect_err("payload").code(), Code::Malformed);
}

/// Goal: a longer answer than its kind may have becomes the server's fault. Method: `Stored` with a payload.
#[tokio::test(start_paused = true)]
async fn answer_over_its_limit_is_internal() {
    let (_twin, node, _, peer) = pair(1);
    let store =
        Request::Store { contract: ContractId::ZERO, slot: SlotIndex::new(0), slices: Default::default() };
    let fault = node.call(&peer, store, Bytes::from_static(b"x")).await.expect_err("too long");
    assert_eq!(fault.code(), Code::Internal);
}

/// Goal: each injected fault shows as a caller would see it. Method: certainty for one fault at a time.
#[tokio::test(start_paused = true)]
async fn injected_faults() {
    let (twin, node, echo, peer) = pair(3);
    let set = |faults| twin.set_faults(key(2), faults);
    set(Faults { garbage: 1000, ..Faults::default() });
    let code = |result: Result<Reply, Fault>| result.expect_err("fault").code();
    assert_eq!(code(node.call(&peer, read(8), Bytes::new()).await), Code::Garbage);
    set(Faults { too_long: 1000, ..Faults::default() });
    assert_eq!(code(node.call(&peer, read(8), Bytes::new()).await), Code::Garbage);
    set(Faults { truncate: 1000, ..Faults::default() });
    assert!(node.call(&peer, read(8), Bytes::new()).await.expect("short").payload.len() < 8);
    set(Faults { corrupt: 1000, ..Faults::default() });
    assert_ne!(node.call(&peer, read(8), Bytes::new()).await.expect("wrong").payload, vec![0; 8]);
    let start = tokio::time::Instant::now();
    let before = echo.done.load(Ordering::SeqCst);
    set(Faults { silent: true, ..Faults::default() });
    assert_eq!(code(node.call(&peer, read(8), Bytes::new()).await), Code::Unreachable);
    set(Faults { drop_request: 1000, ..Faults::default() });
    assert_eq!(code(node.call(&peer, read(8), Bytes::new()).await), Code::Unreachable);
    assert_eq!(echo.done.load(Ordering::SeqCst), before, "the request was lost");
    set(Faults { drop_answer: 1000, ..Faults::default() });
    assert_eq!(code(node.call(&peer, read(8), Bytes::new()).await), Code::Unreachable);
    assert_eq!(echo.done.load(Ordering::SeqCst), before + 1, "only the answer was lost");
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

/// Goal: a cut is silence, in both directions, until it heals. Method: cut, call, heal, call.
#[tokio::test(start_paused = true)]
async fn partitions_heal() {
    let (twin, node, _, peer) = pair(4);
    twin.partition(&[key(2)], &[key(1)]);
    let start = tokio::time::Instant::now();
    assert!(node.call(&peer, read(1), Bytes::new()).await.is_err());
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    twin.heal();
    assert!(node.call(&peer, read(1), Bytes::new()).await.is_ok());
}

/// Goal: what writes runs to its end when the caller goes, what reads does not, and kill stops both. Method: drop
/// calls that wait at a gate, then open it.
#[tokio::test(start_paused = true)]
async fn dropped_calls_and_killed_peers() {
    let (twin, node, echo, peer) = pair(5);
    let short = Duration::from_millis(1);
    for request in [Request::Submit, lane()] {
        let dropped = tokio::time::timeout(short, node.call(&peer, request, Bytes::new())).await;
        assert!(dropped.is_err());
    }
    assert_eq!(echo.begun.load(Ordering::SeqCst), 2);
    echo.gate.notify_waiters();
    tokio::time::sleep(short).await;
    assert_eq!(echo.done.load(Ordering::SeqCst), 1, "the write ended, the read was dropped");

    let call = tokio::spawn({
        let (node, peer) = (node.clone(), peer.clone());
        async move { node.call(&peer, Request::Submit, Bytes::new()).await }
    });
    tokio::time::sleep(short).await;
    twin.kill(key(2));
    let fault = call.await.expect("no panic").expect_err("killed");
    assert_eq!(fault.code(), Code::Unreachable);
    echo.gate.notify_waiters();
    tokio::time::sleep(short).await;
    assert_eq!(echo.done.load(Ordering::SeqCst), 1, "kill stops what writes, too");
    let restarted = twin.join(key(2), Some(echo));
    assert!(node.call(&peer, read(1), Bytes::new()).await.is_ok());
    twin.kill(key(1));
    assert!(node.call(&peer, read(1), Bytes::new()).await.is_err(), "a dead caller calls nobody");
    drop(restarted);
}

/// Goal: one seed gives one run, another seed another. Method: a trace of outcomes and times under random faults.
#[test]
fn one_seed_replays() {
    fn trace(seed: u64) -> Vec<(u128, Option<Code>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let (twin, node, _, peer) = pair(seed);
            let delay = Duration::from_millis(1)..Duration::from_millis(80);
            let faults =
                Faults { delay, drop_request: 100, drop_answer: 100, garbage: 100, ..Faults::default() };
            twin.set_faults(key(2), faults);
            let start = tokio::time::Instant::now();
            let calls = (0..50).map(|_| async {
                let result = node.call(&peer, read(5), Bytes::new()).await;
                (start.elapsed().as_micros(), result.err().map(|fault| fault.code()))
            });
            futures::future::join_all(calls).await
        })
    }
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
    assert!(trace(7).iter().any(|(_, code)| *code == Some(Code::Garbage)));
}

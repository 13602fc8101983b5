//! Real nodes on 127.0.0.1.

use std::sync::atomic::{AtomicUsize, Ordering};

use tallow_types::fault::Code;
use tallow_types::limits::FRAME_PAYLOAD_MAX;
use tallow_types::sign::Keypair;
use tallow_types::wire::Response;
use tallow_types::{ChainId, ContractId, SlotIndex, StripeId};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::*;
use crate::config::{Discovery, Tuning, Way};
use crate::limit::Limit;
use crate::transport::Service;

mod finding;

const WAYS: [Way; 2] = [Way::Tcp, Way::Quic];

/// Keeps a count of what it did; `Read` gives bytes of the offset's value, `Store` answers, `Lane` waits at the gate.
#[derive(Default)]
struct Shelf {
    stored_bytes: AtomicUsize,
    submitted: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    gate: Notify,
}

#[async_trait]
impl Service for Shelf {
    async fn serve(&self, from: PublicKey, request: Request, payload: Bytes) -> Reply {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let reply = match request {
            Request::Read { offset, length, .. } => {
                let byte = u8::try_from(offset % 251).expect("below 251");
                Reply::with(Response::Read, Bytes::from(vec![byte; length as usize]))
            }
            Request::Store { .. } => {
                self.stored_bytes.fetch_add(payload.len(), Ordering::SeqCst);
                Response::Stored.into()
            }
            Request::Submit => {
                self.gate.notified().await;
                self.submitted.fetch_add(1, Ordering::SeqCst);
                Fault::new(Code::Refused, from.to_string()).into()
            }
            Request::Lane { .. } => {
                self.gate.notified().await;
                Fault::new(Code::NotFound, "no lane").into()
            }
            _ => Fault::new(Code::Unsupported, from.to_string()).into(),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        reply
    }
}

fn keypair(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

fn local(port: u16) -> Address {
    Address::new(format!("/ip4/127.0.0.1/tcp/{port}")).expect("short")
}

/// Any free port of this machine.
fn any(way: Way) -> Address {
    match way {
        Way::Tcp => local(0),
        Way::Quic => Address::new("/ip4/127.0.0.1/udp/0/quic-v1".to_owned()).expect("short"),
    }
}

/// Times short enough for tests, long enough for a busy machine.
fn quick() -> Tuning {
    Tuning {
        idle: Duration::from_secs(2),
        alive: Duration::from_millis(200),
        connect: Duration::from_secs(5),
        backoff_min: Duration::from_millis(5),
        ..Tuning::default()
    }
}

async fn server(seed: u8, tuning: Tuning) -> (Node, Arc<Shelf>) {
    server_over(Way::Tcp, seed, tuning).await
}

async fn server_over(way: Way, seed: u8, tuning: Tuning) -> (Node, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let config = Config::new(&keypair(seed)).listen(any(way)).service(shelf.clone()).tuning(tuning);
    (Node::start(config).await.expect("starts"), shelf)
}

async fn caller(seed: u8) -> Node {
    Node::start(Config::new(&keypair(seed)).tuning(quick())).await.expect("starts")
}

fn read(offset: u32, length: u32) -> Request {
    let (contract, slot, stripe) = (ContractId::ZERO, SlotIndex::new(0), StripeId::ZERO);
    Request::Read { contract, slot, stripe, offset, length }
}

fn store() -> Request {
    Request::Store { contract: ContractId::ZERO, slot: SlotIndex::new(0), slices: Default::default() }
}

fn lane() -> Request {
    Request::Lane { contract: ContractId::ZERO, slot: SlotIndex::new(0) }
}

/// Goal: nothing is lost in a burst, streams dropped by the library included, and answers go to their own calls.
/// Method: 10 servers, 200 calls at once from a node that has no connection yet, each answer with its own content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_loses_nothing() {
    for way in WAYS {
        a_burst_loses_nothing_over(way).await;
    }
}

async fn a_burst_loses_nothing_over(way: Way) {
    let mut servers = Vec::new();
    for seed in 10..20 {
        servers.push(server_over(way, seed, quick()).await);
    }
    let node = caller(1).await;
    let mut calls = JoinSet::new();
    for index in 0..200u32 {
        let peer = servers[index as usize % servers.len()].0.peer();
        let node = node.clone();
        calls.spawn(async move {
            let reply = node.call(&peer, read(index, 1000 + index), Bytes::new()).await?;
            let byte = u8::try_from(index % 251).expect("below 251");
            assert_eq!(reply.payload, vec![byte; 1000 + index as usize]);
            Ok::<_, Fault>(())
        });
    }
    while let Some(result) = calls.join_next().await {
        result.expect("no panic").expect("an answer");
    }
}

/// Goal: the largest payload passes in both directions, one byte more is refused before it is sent. Method: 4 MiB to
/// and fro, eight at once, more than the credit of a stream holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn big_payloads_both_ways() {
    for way in WAYS {
        big_payloads_both_ways_over(way).await;
    }
}

async fn big_payloads_both_ways_over(way: Way) {
    let (server, shelf) = server_over(way, 10, quick()).await;
    let node = caller(1).await;
    let peer = server.peer();
    let big = Bytes::from(vec![5; FRAME_PAYLOAD_MAX]);
    let length = u32::try_from(FRAME_PAYLOAD_MAX).expect("fits");
    let stores = (0..8).map(|_| node.call(&peer, store(), big.clone()));
    let reads = (0..8).map(|offset| node.call(&peer, read(offset, length), Bytes::new()));
    let (stored, read_back) =
        tokio::join!(futures::future::join_all(stores), futures::future::join_all(reads));
    assert!(stored.iter().all(Result::is_ok));
    for (offset, reply) in (0u8..).zip(read_back) {
        let payload = reply.expect("read").payload;
        assert!(payload.len() == FRAME_PAYLOAD_MAX && payload.iter().all(|&byte| byte == offset));
    }
    assert_eq!(shelf.stored_bytes.load(Ordering::SeqCst), 8 * FRAME_PAYLOAD_MAX);
    let over = Bytes::from(vec![0; FRAME_PAYLOAD_MAX + 1]);
    assert_eq!(node.call(&peer, store(), over).await.expect_err("over").code(), Code::Malformed);
    assert_eq!(
        node.call(&peer, read(0, length + 1), Bytes::new()).await.expect_err("over").code(),
        Code::Internal
    );
}

/// Goal: the service sees the key that the connection proves; a node doesn't call itself, nor a false name at a true
/// address. Method: a fault that carries the caller's key, then wrong keys.
#[tokio::test]
async fn identities_hold() {
    let (server, _) = server(10, quick()).await;
    let node = caller(1).await;
    let hello = || Request::Hello { chain: ChainId::ZERO };
    let fault = node.call(&server.peer(), hello(), Bytes::new()).await.expect_err("unsupported");
    assert_eq!(fault.text.as_str(), keypair(1).public().to_string());
    let oneself = server.call(&server.peer(), hello(), Bytes::new()).await.expect_err("oneself");
    assert_eq!(oneself.code(), Code::Unsupported);
    let impostor = Peer::new(keypair(99).public(), server.addresses());
    let fault = node.call(&impostor, hello(), Bytes::new()).await.expect_err("impostor");
    assert_eq!(fault.code(), Code::Unreachable);
    assert!(fault.text.as_str().contains("somebody else"), "{fault}");
    let nowhere = Peer::new(keypair(98).public(), Vec::new());
    assert_eq!(
        node.call(&nowhere, hello(), Bytes::new()).await.expect_err("nowhere").code(),
        Code::Unreachable
    );
    let back = server.call(&node.peer(), hello(), Bytes::new()).await.expect_err("it takes no calls");
    assert_eq!(back.code(), Code::Unreachable);
}

/// Goal: a port in use is an error that says so; a bad address too. Method: listen twice at one port.
#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let (first, _) = server(10, quick()).await;
    let (quic, _) = server_over(Way::Quic, 13, quick()).await;
    for address in first.addresses().into_iter().chain(quic.addresses()) {
        let error =
            Node::start(Config::new(&keypair(11)).listen(address.clone())).await.err().expect("in use");
        assert!(
            matches!(&error, StartError::PortInUse { address: text } if text == address.as_str()),
            "{error}"
        );
    }
    let address = first.addresses().pop().expect("one");
    let (no_port, no_ip, no_quic) = ("/ip4/127.0.0.1", "/dns/localhost/tcp/1", "/ip4/127.0.0.1/udp/1");
    for text in [no_port, "127.0.0.1:80", no_ip, no_quic, "/ip4/127.0.0.1/tcp/1/ws"] {
        let address = Address::new(text.to_owned()).expect("short");
        let error = Node::start(Config::new(&keypair(11)).listen(address)).await.err().expect("bad");
        assert!(matches!(error, StartError::BadAddress { .. }), "{text}: {error}");
    }
    first.shutdown().await;
    let again = Node::start(Config::new(&keypair(12)).listen(address.clone())).await.expect("free again");
    assert_eq!(again.addresses(), vec![address]);
}

/// Goal: a peer that restarts is reached again, and its absence is told at once. Method: shut a server down, call it,
/// start it again at the same port, call until it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_is_found_again() {
    for way in WAYS {
        a_restarted_peer_is_found_again_over(way).await;
    }
}

async fn a_restarted_peer_is_found_again_over(way: Way) {
    let (first, _) = server_over(way, 10, quick()).await;
    let node = caller(1).await;
    let peer = first.peer();
    node.call(&peer, read(0, 1), Bytes::new()).await.expect("up");
    first.shutdown().await;
    drop(first);
    let fault = node.call(&peer, read(0, 1), Bytes::new()).await.expect_err("down");
    assert_eq!(fault.code(), Code::Unreachable);
    let again = node.call(&peer, read(0, 1), Bytes::new()).await.expect_err("down");
    assert_eq!(again.code(), Code::Unreachable);
    let shelf = Arc::new(Shelf::default());
    let config = Config::new(&keypair(10)).listen(peer.addresses[0].clone()).service(shelf).tuning(quick());
    let _second = Node::start(config).await.expect("the port is free");
    let mut tries = 0;
    while let Err(fault) = node.call(&peer, read(0, 1), Bytes::new()).await {
        assert_eq!(fault.code(), Code::Unreachable);
        tries += 1;
        assert!(tries < 200, "{fault}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Goal: slow work is not silence, and small messages do not wait behind it or behind bulk. Method: a request that
/// is held longer than `idle`, and others meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_work_is_not_silence() {
    let tuning = Tuning { idle: Duration::from_millis(600), alive: Duration::from_millis(100), ..quick() };
    let (server, shelf) = server(10, tuning.clone()).await;
    let node = Node::start(Config::new(&keypair(1)).tuning(tuning)).await.expect("starts");
    let peer = server.peer();
    let waits = tokio::spawn({
        let (node, peer) = (node.clone(), peer.clone());
        async move { node.call(&peer, lane(), Bytes::new()).await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!waits.is_finished(), "still waiting after twice the time of silence");
    let other =
        node.call(&peer, Request::Receipt { key: tallow_types::IdempotencyKey::ZERO }, Bytes::new()).await;
    assert_eq!(other.expect_err("unsupported").code(), Code::Unsupported);
    shelf.gate.notify_one();
    assert_eq!(waits.await.expect("no panic").expect_err("no lane").code(), Code::NotFound);
}

/// Goal: an orderly end lets writes finish and drops reads. Method: hold one of each, shut down, open the gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_lets_writes_finish() {
    for way in WAYS {
        shutdown_lets_writes_finish_over(way).await;
    }
}

async fn shutdown_lets_writes_finish_over(way: Way) {
    let (server, shelf) = server_over(way, 10, quick()).await;
    let node = caller(1).await;
    let peer = server.peer();
    let call = |request| {
        let (node, peer) = (node.clone(), peer.clone());
        tokio::spawn(async move { node.call(&peer, request, Bytes::new()).await })
    };
    let (write, read) = (call(Request::Submit), call(lane()));
    while shelf.running.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let end = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    assert!(matches!(
        read.await.expect("no panic").expect_err("dropped").code(),
        Code::Busy | Code::Unreachable
    ));
    assert!(!end.is_finished());
    shelf.gate.notify_waiters();
    let fault = write.await.expect("no panic").expect_err("its own");
    assert_eq!(fault.code(), Code::Refused, "answered to the end: {fault}");
    end.await.expect("ends");
    assert_eq!(shelf.submitted.load(Ordering::SeqCst), 1);
    assert_eq!(
        server.call(&peer, read_after_end(), Bytes::new()).await.expect_err("oneself").code(),
        Code::Unsupported
    );
}

fn read_after_end() -> Request {
    read(0, 1)
}

/// Goal: no more requests of one peer, and in all, run at once than allowed, and all are answered. Method: small
/// bounds, many calls that yield.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_concurrency_is_bounded() {
    let tuning = Tuning { peer_serving_max: 3, serving_max: 4, ..quick() };
    let (server, shelf) = server(10, tuning).await;
    let peer = server.peer();
    let mut calls = JoinSet::new();
    for seed in 1..4 {
        let node = caller(seed).await;
        for _ in 0..40 {
            let (node, peer) = (node.clone(), peer.clone());
            calls.spawn(async move { node.call(&peer, lane(), Bytes::new()).await });
        }
    }
    let opener = tokio::spawn({
        let shelf = shelf.clone();
        async move {
            loop {
                shelf.gate.notify_waiters();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    while let Some(result) = calls.join_next().await {
        assert_eq!(result.expect("no panic").expect_err("no lane").code(), Code::NotFound);
    }
    opener.abort();
    assert_eq!(shelf.most_running.load(Ordering::SeqCst), 4);
}

/// Goal: no more connections than allowed, and a place is free again when one goes. Method: one caller above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded() {
    let (server, _) = server(10, Tuning { connections_max: 2, ..quick() }).await;
    let peer = server.peer();
    let (first, second, third) = (caller(1).await, caller(2).await, caller(3).await);
    first.call(&peer, read(0, 1), Bytes::new()).await.expect("the first");
    second.call(&peer, read(0, 1), Bytes::new()).await.expect("the second");
    let fault = third.call(&peer, read(0, 1), Bytes::new()).await.expect_err("one above");
    assert_eq!(fault.code(), Code::Unreachable);
    first.shutdown().await;
    let mut tries = 0;
    while let Err(fault) = third.call(&peer, read(0, 1), Bytes::new()).await {
        tries += 1;
        assert!(tries < 200, "{fault}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    second.call(&peer, read(0, 1), Bytes::new()).await.expect("it kept its place");
}

/// Goal: a limit holds payload back, both ways and at either end, but not what has none. Method: more than a limited node
/// may move in a second, which then can't be quicker; a question meanwhile, which is answered long before the bulk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_payload_back() {
    const RATE: u64 = 500_000;
    let limited = || Tuning { up: Limit::of(RATE), down: Limit::of(RATE), ..quick() };
    for (near, far) in [(limited(), quick()), (quick(), limited())] {
        let (server, _) = server(10, far).await;
        let node = Node::start(Config::new(&keypair(1)).tuning(near)).await.expect("starts");
        let peer = server.peer();
        let stores = (0..2).map(|_| node.call(&peer, store(), Bytes::from(vec![1; 150_000])));
        let reads = (0..2).map(|at| node.call(&peer, read(at, 150_000), Bytes::new()));
        let begun = std::time::Instant::now();
        assert!(futures::future::join_all(stores).await.iter().all(Result::is_ok));
        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
        let begun = std::time::Instant::now();
        assert!(futures::future::join_all(reads).await.iter().all(Result::is_ok));
        assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
        let big = Bytes::from(vec![2; FRAME_PAYLOAD_MAX]);
        let question = Request::Receipt { key: tallow_types::IdempotencyKey::ZERO };
        tokio::select! {
            biased;
            answer = node.call(&peer, question, Bytes::new()) => {
                assert_eq!(answer.expect_err("unsupported").code(), Code::Unsupported);
            }
            _ = node.call(&peer, store(), big) => panic!("eight seconds of bulk went first"),
        }
    }
}

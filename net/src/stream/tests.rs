//! Both ends of a stream against ends that misbehave, on pipes in memory and paused time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt};
use proptest::prelude::*;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{FRAME_HEADER_MAX, FRAME_PAYLOAD_MAX};
use tallow_types::sign::Keypair;
use tallow_types::unit::{DurationMs, Height};
use tallow_types::wire::{Request, Response};
use tallow_types::{ContractId, IdempotencyKey, PublicKey, SlotIndex, StripeId, decode, encode};
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::{Caller, Failure};
use super::server::Hub;
use super::*;
use crate::config::Tuning;
use crate::exchange::SMALL_HEADER_MAX;
use crate::frame::{FrameError, FrameReader, FrameWriter, Head, Kind, Pace, Pulse, Ready};
use crate::transport::{Reply, Service};

mod memory;

type Pipe = Compat<DuplexStream>;

/// One end of a stream in the hands of a test.
struct Raw {
    reader: FrameReader<ReadHalf<Pipe>>,
    writer: FrameWriter<WriteHalf<Pipe>>,
}

const FOREVER: Duration = Duration::from_secs(1_000_000);

fn forever() -> Pace {
    Pace::new(FOREVER, FOREVER, || 1)
}

impl Raw {
    fn new(pipe: Pipe) -> Self {
        let pace = forever();
        let (reader, writer) = pipe.split();
        let reader = FrameReader::new(reader, Pulse::new(), pace.clone());
        Self { reader, writer: FrameWriter::new(writer, Pulse::new(), pace) }
    }

    async fn next(&mut self) -> Result<(Head, Bytes, Bytes), FrameError> {
        let head = self.reader.head().await?;
        let header = self.reader.body(head.header_len).await?;
        Ok((head, header, self.reader.body(head.payload_len).await?))
    }

    /// The next frame that is not a sign of life.
    async fn next_message(&mut self) -> Result<(Head, Bytes, Bytes), FrameError> {
        loop {
            let frame = self.next().await?;
            if frame.0.kind != Kind::Alive {
                return Ok(frame);
            }
        }
    }

    async fn send(&mut self, kind: Kind, id: u64, header: &[u8], payload: &[u8]) -> Result<(), FrameError> {
        self.writer.frame(kind, id, header, payload).await?;
        self.writer.flush().await
    }

    async fn grant(&mut self, credit: u32, requests: u32) {
        let (head, _, _) = self.next().await.expect("open");
        assert_eq!(head.kind, Kind::Open);
        self.send(Kind::Ready, 0, &encode(&Ready { credit, requests }), &[]).await.expect("sent");
    }

    async fn open(&mut self) -> Ready {
        self.send(Kind::Open, 0, &[], &[]).await.expect("sent");
        decode(&self.next().await.expect("ready").1).expect("a grant")
    }

    async fn answer(&mut self, id: u64, response: &Response, payload: &[u8]) {
        self.send(Kind::Answer, id, &encode(response), payload).await.expect("sent");
    }
}

fn pipe() -> (Pipe, Pipe) {
    let (left, right) = tokio::io::duplex(64 << 10);
    (left.compat(), right.compat())
}

/// A caller whose server is the test.
async fn caller_of_raw(tuning: &Tuning, credit: u32, requests: u32) -> (Arc<Caller>, Raw) {
    let (left, right) = pipe();
    let mut raw = Raw::new(right);
    let (caller, ()) = tokio::join!(Caller::open(left, tuning), raw.grant(credit, requests));
    (Arc::new(caller.expect("opens")), raw)
}

fn read(length: u32) -> Request {
    let (contract, slot, stripe) = (ContractId::ZERO, SlotIndex::new(0), StripeId::ZERO);
    Request::Read { contract, slot, stripe, offset: 0, length }
}

fn store() -> Request {
    Request::Store { contract: ContractId::ZERO, slot: SlotIndex::new(0), slices: Default::default() }
}

fn receipt() -> Request {
    Request::Receipt { key: IdempotencyKey::ZERO }
}

fn lane() -> Request {
    Request::Lane { contract: ContractId::ZERO, slot: SlotIndex::new(0) }
}

async fn call(caller: &Caller, request: Request, payload: Bytes) -> Result<Reply, Failure> {
    caller.call(Rule::of(&request), Bytes::from(encode(&request)), payload).await
}

fn sent(result: Result<Reply, Failure>) -> Fault {
    match result.expect_err("a fault") {
        Failure::Sent(fault) => fault,
        Failure::Unsent => panic!("it was sent"),
    }
}

/// Goal: a silent server ends the call after `idle`, not before, and later calls are told that nothing was sent.
/// Method: a server that grants and says no more.
#[tokio::test(start_paused = true)]
async fn silence_ends_a_call() {
    let tuning = Tuning::default();
    let (caller, _raw) = caller_of_raw(&tuning, CREDIT_MIN, 8).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!caller.is_broken(), "silence with nothing outstanding is no fault");
    let start = Instant::now();
    let fault = sent(call(&caller, receipt(), Bytes::new()).await);
    assert_eq!(fault.code(), Code::Unreachable);
    assert!((tuning.idle..tuning.idle + Duration::from_millis(50)).contains(&start.elapsed()));
    assert!(matches!(call(&caller, receipt(), Bytes::new()).await, Err(Failure::Unsent)));
}

/// Goal: signs of life keep a call, for `patience` and what the request itself asks to wait. Method: a server that
/// only lives, with a request without and one with a wait.
#[tokio::test(start_paused = true)]
async fn life_is_no_answer() {
    for wait_s in [0, 60] {
        let tuning = Tuning::default();
        let (caller, mut raw) = caller_of_raw(&tuning, CREDIT_MIN, 8).await;
        let living = tokio::spawn(async move {
            while raw.send(Kind::Alive, 0, &[], &[]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let start = Instant::now();
        let request = Request::Status { above: Height::new(0), wait: DurationMs::new(wait_s * 1000) };
        let fault = sent(call(&caller, request, Bytes::new()).await);
        assert_eq!(fault.code(), Code::Unreachable);
        let expected = tuning.patience + Duration::from_secs(wait_s);
        assert!(
            (expected..expected + Duration::from_secs(2)).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );
        living.abort();
    }
}

/// Goal: each thing that is no answer is the server's fault, for every call on the stream, and ends it. Method: a
/// table of wrong frames, the sizes one above their limits.
#[tokio::test(start_paused = true)]
async fn wrong_answers_are_garbage() {
    let fault_text = encode(&Response::Failed(Fault::new(Code::Busy, "x")));
    let small = |length: usize| vec![0; length];
    let good = encode(&Response::Read);
    let wrong: Vec<(&str, Kind, u64, Vec<u8>, usize)> = vec![
        ("unknown id", Kind::Answer, 77, fault_text.clone(), 0),
        ("another kind", Kind::Answer, 1, encode(&Response::Stored), 0),
        ("not decodable", Kind::Answer, 1, small(9), 0),
        ("one trailing byte", Kind::Answer, 1, [&fault_text[..], &[0]].concat(), 0),
        ("header one above", Kind::Answer, 1, small(SMALL_HEADER_MAX + 1), 0),
        ("payload one above", Kind::Answer, 1, good, 11),
        ("payload with a fault, one above", Kind::Answer, 1, fault_text, 11),
        ("a caller's frame", Kind::Cancel, 1, small(0), 0),
        ("a second grant", Kind::Ready, 0, encode(&Ready { credit: CREDIT_MIN, requests: 1 }), 0),
    ];
    for (name, kind, id, header, payload) in wrong {
        let (caller, mut raw) = caller_of_raw(&Tuning::default(), 4 * CREDIT_MIN, 8).await;
        let server = async {
            for _ in 0..2 {
                raw.next().await.expect("a request");
            }
            raw.send(kind, id, &header, &vec![0; payload]).await.expect("sent");
        };
        let (first, second, ()) = tokio::join!(
            call(&caller, read(10), Bytes::new()),
            call(&caller, read(10), Bytes::new()),
            server
        );
        assert_eq!(sent(first).code(), Code::Garbage, "{name}");
        assert_eq!(sent(second).code(), Code::Garbage, "{name}");
        assert!(caller.is_broken(), "{name}");
    }
}

/// Goal: a server that grants too little is refused, one above is not. Method: grants around the least.
#[tokio::test(start_paused = true)]
async fn small_grants_are_refused() {
    for (credit, requests, good) in
        [(CREDIT_MIN, 1, true), (CREDIT_MIN - 1, 1, false), (CREDIT_MIN, 0, false)]
    {
        let (left, right) = pipe();
        let mut raw = Raw::new(right);
        let tuning = Tuning::default();
        let (caller, ()) = tokio::join!(Caller::open(left, &tuning), raw.grant(credit, requests));
        assert_eq!(caller.is_ok(), good, "{credit} {requests}");
    }
}

/// Goal: a caller keeps to credit and number of requests, and sends all in the end. Method: a server that answers
/// late and adds up what is outstanding, under a mix of sizes.
#[tokio::test(start_paused = true)]
async fn the_caller_keeps_to_its_credit() {
    let (caller, mut raw) = caller_of_raw(&Tuning::default(), CREDIT_MIN, 4).await;
    let server = tokio::spawn(async move {
        let mut outstanding = std::collections::VecDeque::new();
        let (mut used, mut most_used, mut most) = (0, 0, 0);
        for count in 0..60 {
            // Take what comes within a while, then answer one.
            while let Ok(frame) = tokio::time::timeout(Duration::from_millis(20), raw.next()).await {
                let (head, header, payload) = frame.expect("a frame");
                let request: Request = decode(&header).expect("a request");
                let units = units(&Rule::of(&request), header.len(), payload.len());
                used += units;
                outstanding.push_back((head.id, units, matches!(request, Request::Store { .. })));
                most_used = most_used.max(used);
                most = most.max(outstanding.len());
            }
            let (id, units, stored) = outstanding.pop_front().unwrap_or_else(|| panic!("request {count}"));
            used -= units;
            raw.answer(id, if stored { &Response::Stored } else { &Response::Read }, &[]).await;
        }
        (most_used, most)
    });
    let calls = (0..60usize).map(|index| {
        let big = Bytes::from(vec![0; (index % 5) << 20]);
        let caller = &caller;
        async move {
            match index % 3 {
                0 => call(caller, store(), big).await,
                1 => call(caller, read(4 << 20), Bytes::new()).await,
                _ => call(caller, read(1), Bytes::new()).await,
            }
        }
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let (most_used, most) = server.await.expect("no panic");
    assert!(most_used <= CREDIT_MIN && most_used > CREDIT_MIN / 2, "{most_used} of {CREDIT_MIN}");
    assert_eq!(most, 4);
}

/// Goal: a dropped call disturbs no other, in whatever state it was; its credit stays used until it is answered.
/// Method: drop calls before, while and after they are written.
#[tokio::test(start_paused = true)]
async fn dropped_calls_leave_the_stream_whole() {
    let (caller, mut raw) = caller_of_raw(&Tuning::default(), CREDIT_MIN, 8).await;
    let soon =
        |request, payload| tokio::time::timeout(Duration::from_millis(1), call(&caller, request, payload));
    // Half written: the pipe holds 64 KiB. The next two wait behind it, and are dropped unwritten.
    let big = Bytes::from(vec![9; 1 << 20]);
    let (first, second, third) = tokio::join!(
        soon(store(), big.clone()),
        soon(receipt(), Bytes::new()),
        soon(receipt(), Bytes::new())
    );
    assert!(first.is_err() && second.is_err() && third.is_err());
    let held = caller.credit_used();
    assert_eq!(held, units(&Rule::of(&store()), encode(&store()).len(), big.len()) as usize);
    let (head, _, payload) = raw.next().await.expect("the half-written request comes whole");
    assert_eq!(payload, big);
    assert_eq!(raw.next().await.expect("called back").0.kind, Kind::Cancel);
    let answered = async {
        let (next, _, _) = raw.next().await.expect("the dropped ones were never sent");
        raw.answer(head.id, &Response::Stored, &[]).await;
        raw.answer(next.id, &Response::Receipt(None), &[]).await;
    };
    let (reply, ()) = tokio::join!(call(&caller, receipt(), Bytes::new()), answered);
    assert_eq!(reply.expect("answered").response, Response::Receipt(None));
    assert_eq!(caller.credit_used(), 0);
}

/// Counts what it holds, answers at the gate or after a second.
#[derive(Default)]
struct Slow {
    held: AtomicUsize,
    most_held: AtomicUsize,
    begun: AtomicUsize,
    finished: AtomicUsize,
    gate: Notify,
}

#[async_trait]
impl Service for Slow {
    async fn serve(&self, _: PublicKey, request: Request, payload: Bytes) -> Reply {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let held = self.held.fetch_add(payload.len(), Ordering::SeqCst) + payload.len();
        self.most_held.fetch_max(held, Ordering::SeqCst);
        let reply = match request {
            Request::Lane { .. } => {
                self.gate.notified().await;
                Fault::new(Code::NotFound, "no lane").into()
            }
            Request::Store { .. } => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Response::Stored.into()
            }
            Request::Read { length, .. } => {
                Reply::with(Response::Read, Bytes::from(vec![0; length as usize]))
            }
            _ => Response::Receipt(None).into(),
        };
        self.held.fetch_sub(payload.len(), Ordering::SeqCst);
        self.finished.fetch_add(1, Ordering::SeqCst);
        reply
    }
}

struct Served {
    hub: Arc<Hub>,
    slow: Arc<Slow>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn serve(tuning: Tuning) -> Served {
    let slow = Arc::new(Slow::default());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let hub = Hub::new(slow.clone(), tuning, tasks.clone(), stop.clone());
    Served { hub, slow, tasks, stop }
}

impl Served {
    fn connect(&self, seed: u8) -> Pipe {
        let (left, right) = pipe();
        self.hub.accept(key(seed), right);
        left
    }

    async fn raw(&self) -> (Raw, Ready) {
        let mut raw = Raw::new(self.connect(1));
        let ready = raw.open().await;
        (raw, ready)
    }

    async fn tasks_end(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn key(seed: u8) -> PublicKey {
    Keypair::from_seed(&[seed; 32]).public()
}

/// Goal: a caller that takes more than it was granted is cut off; at the limit it is served. Method: raw requests up
/// to each limit, then one above.
#[tokio::test(start_paused = true)]
async fn violators_are_cut_off() {
    let tuning = Tuning { outstanding_max: 5, credit: 0, ..Tuning::default() };
    let lane = encode(&lane());
    let served = serve(tuning.clone());

    let (mut raw, ready) = served.raw().await;
    assert_eq!(ready, Ready { credit: CREDIT_MIN, requests: 5 });
    for id in 1..=5 {
        raw.send(Kind::Request, id, &lane, &[]).await.expect("granted");
    }
    assert_eq!(raw.next().await.expect("life").0.kind, Kind::Alive);
    raw.send(Kind::Request, 6, &lane, &[]).await.expect("written");
    assert!(matches!(raw.next_message().await, Err(FrameError::Ended)), "one request too many");

    let (mut raw, _) = served.raw().await;
    raw.send(Kind::Request, 1, &lane, &[]).await.expect("granted");
    raw.send(Kind::Request, 1, &lane, &[]).await.expect("written");
    assert!(matches!(raw.next_message().await, Err(FrameError::Ended)), "an id twice");

    let big = encode(&store());
    let each = units(&Rule::of(&store()), big.len(), 3 << 20);
    let (mut raw, _) = served.raw().await;
    let payload = vec![0; 3 << 20];
    for id in 1..=u64::from(CREDIT_MIN / each) {
        raw.send(Kind::Request, id, &big, &payload).await.expect("granted");
    }
    assert!(CREDIT_MIN / each < 5);
    let over = raw.send(Kind::Request, 99, &big, &payload).await;
    let ended = async { while raw.next().await.is_ok() {} };
    assert!(
        over.is_err() || tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok(),
        "too many bytes"
    );

    for kind in [Kind::Open, Kind::Ready, Kind::Answer, Kind::Alive] {
        let (mut raw, ready) = served.raw().await;
        let header = if kind == Kind::Ready { encode(&ready) } else { Vec::new() };
        raw.send(kind, 0, &header, &[]).await.expect("written");
        assert!(matches!(raw.next_message().await, Err(FrameError::Ended)), "{kind:?} from a caller");
    }
    served.slow.gate.notify_waiters();
}

/// Goal: a request that is none is answered as `Malformed` and costs nothing else. Method: bytes that don't decode,
/// payload where none may be (one byte), then a good request on the same stream.
#[tokio::test(start_paused = true)]
async fn malformed_requests_are_answered() {
    let served = serve(Tuning::default());
    let (mut raw, _) = served.raw().await;
    let bad: [(&[u8], usize); 4] =
        [(b"nonsense", 0), (b"", 0), (b"nonsense", 300_000), (&encode(&receipt()), 1)];
    for (id, (header, payload)) in (1..).zip(bad) {
        raw.send(Kind::Request, id, header, &vec![0; payload]).await.expect("sent");
        let (head, header, _) = raw.next_message().await.expect("an answer");
        let response: Response = decode(&header).expect("a response");
        assert_eq!(head.id, id);
        assert!(matches!(response, Response::Failed(fault) if fault.code() == Code::Malformed));
    }
    raw.send(Kind::Request, 9, &encode(&receipt()), &[]).await.expect("sent");
    let (_, header, _) = raw.next_message().await.expect("an answer");
    assert_eq!(decode::<Response>(&header), Ok(Response::Receipt(None)));
}

/// Goal: a slow service does not make memory grow: of one peer, and in all. Method: many callers push more than the
/// budgets; the service adds up what it holds.
#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let budget = 16usize << 20;
    let tuning = Tuning { memory: budget, peer_memory: 12 << 20, ..Tuning::default() };
    let served = serve(tuning.clone());
    let mut calls = Vec::new();
    for seed in 1..=4 {
        for _ in 0..2 {
            let caller = Arc::new(Caller::open(served.connect(seed), &tuning).await.expect("opens"));
            for _ in 0..6 {
                let caller = caller.clone();
                let payload = Bytes::from(vec![1; 2 << 20]);
                calls.push(async move { call(&caller, store(), payload).await });
            }
        }
    }
    assert!(join_all(calls).await.iter().all(Result::is_ok), "everything is served in the end");
    let most = served.slow.most_held.load(Ordering::SeqCst);
    assert!(most <= budget && most > budget / 2, "{most} of {budget}");
    served.slow.most_held.store(0, Ordering::SeqCst);

    let callers = [served.connect(9), served.connect(9)].map(|pipe| Caller::open(pipe, &tuning));
    let callers = join_all(callers).await;
    let calls = callers.iter().flat_map(|caller| {
        let caller = caller.as_ref().expect("opens");
        (0..8).map(move |_| call(caller, store(), Bytes::from(vec![1; 2 << 20])))
    });
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let most = served.slow.most_held.load(Ordering::SeqCst);
    assert!(most <= 12 << 20 && most > 6 << 20, "{most} of one peer");
}

/// Goal: a caller that takes no answers loses its stream, and the memory is free again. Method: ask for megabytes,
/// read nothing, then let another caller use the whole budget.
#[tokio::test(start_paused = true)]
async fn answers_not_taken_end_the_stream() {
    let tuning = Tuning { memory: 1, peer_memory: 1, ..Tuning::default() };
    let served = serve(tuning.clone());
    let (mut raw, _) = served.raw().await;
    raw.send(Kind::Request, 1, &encode(&read(4 << 20)), &[]).await.expect("sent");
    let start = Instant::now();
    let other = Caller::open(served.connect(2), &tuning).await.expect("opens");
    let payload = Bytes::from(vec![0; FRAME_PAYLOAD_MAX]);
    assert!(call(&other, store(), payload.clone()).await.is_ok(), "while the memory suffices for both");
    let more = (0..3).map(|_| call(&other, store(), payload.clone()));
    assert!(join_all(more).await.iter().all(Result::is_ok));
    tokio::time::sleep(2 * tuning.idle).await;
    while raw.next().await.is_ok() {}
    drop(other);
    served.tasks_end().await;
    assert!(start.elapsed() < 4 * tuning.idle);
}

/// Goal: a peer has no more streams than allowed, and gets a place back. Method: open one above, close one, open.
#[tokio::test(start_paused = true)]
async fn streams_of_a_peer_are_bounded() {
    let served = serve(Tuning { peer_streams_max: 2, ..Tuning::default() });
    let opens = async |seed| {
        let mut raw = Raw::new(served.connect(seed));
        let sent = raw.send(Kind::Open, 0, &[], &[]).await;
        (sent.is_ok() && raw.next().await.is_ok()).then_some(raw)
    };
    let (first, second) = (opens(1).await, opens(1).await);
    assert!(first.is_some() && second.is_some() && opens(1).await.is_none());
    assert!(opens(2).await.is_some(), "another peer has its own");
    drop(first);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(opens(1).await.is_some());
}

/// Goal: a caller that connects and says nothing, or stops within a frame, is dropped in time. Method: both.
#[tokio::test(start_paused = true)]
async fn callers_that_stall_are_dropped() {
    let tuning = Tuning::default();
    let served = serve(tuning.clone());
    let start = Instant::now();
    let mut mute = Raw::new(served.connect(1));
    assert!(matches!(mute.next().await, Err(FrameError::Ended)));
    assert_eq!(start.elapsed(), tuning.connect);

    let mut pipe = served.connect(1);
    let mut opening = Vec::new();
    let pace = forever();
    let mut writer = FrameWriter::new(&mut opening, Pulse::new(), pace);
    writer.bare(Kind::Open, 0, &[]).await.expect("written");
    writer.bare(Kind::Cancel, 0, &[]).await.expect("written");
    pipe.write_all(&opening[..opening.len() - 1]).await.expect("written");
    let start = Instant::now();
    let mut raw = Raw::new(pipe);
    assert_eq!(raw.next().await.expect("granted").0.kind, Kind::Ready);
    assert!(matches!(raw.next().await, Err(FrameError::Ended)));
    assert_eq!(start.elapsed(), tuning.idle);
}

/// Goal: called back, a read stops and a write does not; both are answered once. Method: cancel each at the gate.
#[tokio::test(start_paused = true)]
async fn cancelled_requests_are_answered_once() {
    let served = serve(Tuning::default());
    let (mut raw, _) = served.raw().await;
    raw.send(Kind::Request, 1, &encode(&lane()), &[]).await.expect("sent");
    raw.send(Kind::Request, 2, &encode(&store()), b"").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(1)).await;
    raw.send(Kind::Cancel, 1, &[], &[]).await.expect("sent");
    raw.send(Kind::Cancel, 2, &[], &[]).await.expect("sent");
    raw.send(Kind::Cancel, 3, &[], &[]).await.expect("a late one is nothing");
    let (head, header, _) = raw.next_message().await.expect("answer");
    assert!(matches!(decode(&header), Ok(Response::Failed(fault)) if fault.code() == Code::Busy));
    assert_eq!(head.id, 1);
    let (head, header, _) = raw.next_message().await.expect("answer");
    assert_eq!((head.id, decode(&header)), (2, Ok(Response::Stored)));
    assert_eq!(served.slow.finished.load(Ordering::SeqCst), 1);
    assert!(tokio::time::timeout(FOREVER, raw.next()).await.is_err(), "nothing more, no sign of life either");
    served.stop.cancel();
    served.tasks_end().await;
}

/// Goal: a stream that ends takes its waiting reads with it, so that nobody can fill a node with them. Method: wait at
/// the gate, drop the stream, and see the service's futures go.
#[tokio::test(start_paused = true)]
async fn reads_end_with_their_stream() {
    let served = serve(Tuning::default());
    let (mut raw, _) = served.raw().await;
    for id in 1..=20 {
        raw.send(Kind::Request, id, &encode(&lane()), &[]).await.expect("sent");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(served.slow.begun.load(Ordering::SeqCst), 20);
    drop(raw);
    served.tasks_end().await;
    assert_eq!(served.slow.finished.load(Ordering::SeqCst), 0);
}

/// Goal: the least credit really lets the largest request through. Method: the rule of every kind.
#[test]
fn any_request_fits_the_least_credit() {
    let largest = [store(), read(u32::MAX), receipt(), Request::Submit, Request::Prove].map(|request| {
        let rule = Rule::of(&request);
        units(&rule, FRAME_HEADER_MAX, rule.request_payload)
    });
    assert!(largest.iter().all(|&units| units <= CREDIT_MIN));
    assert_eq!(to_units(usize::MAX), u32::MAX);
    assert_eq!((to_units(0), to_units(1), to_units(1024), to_units(1025)), (0, 1, 1, 2));
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let builder = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    builder.expect("runtime").block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Goal: whatever bytes a caller sends, the server neither panics nor keeps the stream for ever. Method: random
    /// bytes, and valid requests with random damage, then silence.
    #[test]
    fn a_server_survives_any_bytes(
        garbage in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
    ) {
        run(async {
            let served = serve(Tuning::default());
            let mut bytes = Vec::new();
            let pace = forever();
            let mut writer = FrameWriter::new(&mut bytes, Pulse::new(), pace);
            writer.bare(Kind::Open, 0, &[]).await.expect("written");
            for id in 0..3 {
                writer.frame(Kind::Request, id, &encode(&receipt()), &[]).await.expect("written");
            }
            bytes.extend(garbage);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let mut pipe = served.connect(1);
            // An early end is what bad bytes deserve.
            let _ = pipe.write_all(&bytes).await;
            let _ = pipe.close().await;
            let mut answers = Vec::new();
            let _ = pipe.read_to_end(&mut answers).await;
            served.tasks_end().await;
            assert!(answers.len() < 1 << 20);
        });
    }
}

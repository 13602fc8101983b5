//! How fast slices go between two processes on this machine: `cargo run --release -p tallow-net --example throughput`.
//!
//! Starts itself once more as the server. Prints MiB/s for stores and reads of 64 KiB and 1 MiB, and small calls per
//! second; the machine's other work is part of the figure.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tallow_net::{Config, Node, Peer, Reply, Service, Transport, parse_bootstrap};
use tallow_types::contract::Address;
use tallow_types::sign::Keypair;
use tallow_types::wire::{Request, Response};
use tallow_types::{ContractId, IdempotencyKey, PublicKey, SlotIndex, StripeId};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Calls outstanding at once.
const PARALLEL: usize = 16;
/// How long each figure is measured.
const MEASURE: Duration = Duration::from_secs(2);

struct Sink {
    zeros: Bytes,
}

#[async_trait]
impl Service for Sink {
    async fn serve(&self, _: PublicKey, request: Request, _: Bytes) -> Reply {
        match request {
            Request::Store { .. } => Response::Stored.into(),
            Request::Read { length, .. } => {
                Reply::with(Response::Read, self.zeros.slice(..(length as usize).min(self.zeros.len())))
            }
            _ => Response::Receipt(None).into(),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve().await;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let peer = parse_bootstrap(&lines.next_line().await?.ok_or("the server did not start")?)?;
    let node = Node::start(Config::new(&Keypair::from_seed(&[1; 32]))).await?;
    for size in [64 << 10, 1 << 20] {
        let payload = Bytes::from(vec![7; size]);
        for kind in ["store", "read"] {
            let before = Cpu::now(child.id());
            let rate = match kind {
                "store" => measure(&node, &peer, || (store(), payload.clone())).await,
                _ => measure(&node, &peer, || (read(size), Bytes::new())).await,
            };
            let bytes = mebibytes(rate, size) * f64::from(1 << 20) * MEASURE.as_secs_f64();
            let cpu = before.until(&Cpu::now(child.id()), bytes);
            println!("{kind:5} {:5} KiB: {:7.0} MiB/s, {cpu}", size >> 10, mebibytes(rate, size));
        }
    }
    let small =
        measure(&node, &peer, || (Request::Receipt { key: IdempotencyKey::ZERO }, Bytes::new())).await;
    println!("small calls    : {small:7.0} per second");
    Ok(())
}

async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let service = Arc::new(Sink { zeros: Bytes::from(vec![0; 4 << 20]) });
    let listen = Address::new("/ip4/127.0.0.1/tcp/0".to_owned()).ok_or("too long")?;
    let node =
        Node::start(Config::new(&Keypair::from_seed(&[2; 32])).listen(listen).service(service)).await?;
    println!("{}", node.peer().bootstrap().first().ok_or("no address")?.as_str());
    // The end of standard input is the end of the parent.
    let mut rest = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tokio::io::stdin(), &mut rest).await?;
    Ok(())
}

/// Calls per second.
async fn measure(node: &Node, peer: &Peer, request: impl Fn() -> (Request, Bytes)) -> f64 {
    let start = Instant::now();
    let calls = stream::repeat_with(request)
        .take_while(|_| std::future::ready(start.elapsed() < MEASURE))
        .map(|(request, payload)| node.call(peer, request, payload))
        .buffer_unordered(PARALLEL)
        .filter(|result| std::future::ready(result.is_ok()))
        .count()
        .await;
    f64::from(u32::try_from(calls).unwrap_or(u32::MAX)) / start.elapsed().as_secs_f64()
}

/// Processor time that both ends have taken so far. Seconds; nothing where the system does not tell.
struct Cpu([f64; 2]);

impl Cpu {
    fn now(server: Option<u32>) -> Self {
        let of = |process: String| {
            // Linux counts them in hundredths, as fields 14 and 15 behind the name in brackets.
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
        };
        Self([of("self".to_owned()), of(server.unwrap_or(0).to_string())])
    }

    fn until(&self, end: &Self, bytes: f64) -> String {
        let each = |at: usize| (end.0[at] - self.0[at]) * 1e9 / bytes;
        format!("caller {:.2} ns/B, server {:.2} ns/B", each(0), each(1))
    }
}

fn mebibytes(calls: f64, size: usize) -> f64 {
    calls * f64::from(u32::try_from(size).unwrap_or(u32::MAX)) / f64::from(1 << 20)
}

fn store() -> Request {
    Request::Store { contract: ContractId::ZERO, slot: SlotIndex::new(0), slices: Default::default() }
}

fn read(size: usize) -> Request {
    let length = u32::try_from(size).unwrap_or(u32::MAX);
    let (contract, slot, stripe) = (ContractId::ZERO, SlotIndex::new(0), StripeId::ZERO);
    Request::Read { contract, slot, stripe, offset: 0, length }
}

//! The limit of the network layer: one client that streams slices to receivers which throw them away, and reads slices
//! from them which they have at hand. Same library, same sizes of requests and number of processes as a put or get; no
//! chunks, no code, no masks, no disk.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use tallow_net::{Config, Node, Peer, Reply, Service, Transport, parse_bootstrap};
use tallow_types::contract::Address;
use tallow_types::sign::Keypair;
use tallow_types::wire::{Request, Response};
use tallow_types::{ContractId, PublicKey, SlotIndex, StripeId};

use crate::files::{Used, cpu_of};
use crate::timing::noise;

/// Requests to one receiver under way at once.
const WIDTH: usize = 2;

/// Says `Stored` to everything, and answers reads with what it has in memory.
struct Discard {
    bytes: Bytes,
}

#[async_trait]
impl Service for Discard {
    async fn serve(&self, _: PublicKey, request: Request, _: Bytes) -> Reply {
        match request {
            Request::Read { length, .. } => {
                Reply::with(Response::Read, self.bytes.slice(..self.bytes.len().min(length as usize)))
            }
            _ => Response::Stored.into(),
        }
    }
}

/// What a receiver process does: prints its address, and ends with its input.
#[tokio::main]
pub async fn receive() -> Result<()> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("random bytes")?;
    let service = Arc::new(Discard { bytes: noise(4 << 20, 6).into() });
    let listen = Address::new("/ip4/127.0.0.1/tcp/0".to_owned()).context("an address")?;
    let config = Config::new(&Keypair::from_seed(&seed)).listen(listen).service(service);
    let node = Node::start(config).await?;
    let address = node.peer().bootstrap().first().cloned().context("it listens nowhere")?;
    println!("{}", address.as_str());
    std::io::stdout().flush()?;
    let parent_gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    parent_gone.await??;
    Ok(())
}

/// Receiver processes. They end when this value is dropped.
pub struct Receivers {
    children: Vec<Child>,
    peers: Vec<Peer>,
    node: Node,
    runtime: tokio::runtime::Runtime,
}

impl Receivers {
    /// Starts `count` of them and connects to each.
    pub fn start(count: usize) -> Result<Self> {
        let runtime = tokio::runtime::Runtime::new()?;
        let node = runtime.block_on(Node::start(Config::new(&Keypair::from_seed(&[7; 32]))))?;
        let mut receivers = Self { children: Vec::new(), peers: Vec::new(), node, runtime };
        for _ in 0..count {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(super::RECEIVER).stdin(Stdio::piped()).stdout(Stdio::piped());
            receivers.children.push(command.spawn()?);
        }
        for child in &mut receivers.children {
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
            receivers.peers.push(parse_bootstrap(line.trim())?);
        }
        // Connections are made before anything is measured.
        receivers.stream(count * WIDTH * 4, 1, store)?;
        Ok(receivers)
    }

    /// Sends `total` bytes, in slices of `slice`, to all alike: what the client used, and what all processes used.
    pub fn send(&self, total: usize, slice: usize) -> Result<(Used, f64)> {
        self.stream(total, slice, store)
    }

    /// Reads `total` bytes, in slices of `slice`, from all alike.
    pub fn fetch(&self, total: usize, slice: usize) -> Result<(Used, f64)> {
        self.stream(total, slice, read)
    }

    fn stream(
        &self,
        total: usize,
        slice: usize,
        ask: fn(&Bytes) -> (Request, Bytes, usize),
    ) -> Result<(Used, f64)> {
        let own = std::process::id();
        let theirs = || self.children.iter().map(|child| cpu_of(child.id())).sum::<f64>();
        let bytes = Bytes::from(noise(slice, 6));
        let each = total.div_ceil(self.peers.len() * slice);
        let (before, before_theirs, start) = (cpu_of(own), theirs(), Instant::now());
        self.runtime.block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for peer in &self.peers {
                for lane in 0..WIDTH {
                    let (node, peer, bytes) = (self.node.clone(), peer.clone(), bytes.clone());
                    let turns = each / WIDTH + usize::from(lane < each % WIDTH);
                    calls.spawn(async move {
                        for _ in 0..turns {
                            let (request, payload, answer) = ask(&bytes);
                            let reply = node.call(&peer, request, payload).await?;
                            ensure!(reply.payload.len() == answer, "a receiver answered too little");
                        }
                        Ok(())
                    });
                }
            }
            while let Some(ended) = calls.join_next().await {
                ended??;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        let time = start.elapsed();
        let used = Used { time, cpu: cpu_of(own) - before, peak_kib: 0 };
        Ok((used, used.cpu + theirs() - before_theirs))
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

fn store(bytes: &Bytes) -> (Request, Bytes, usize) {
    let request =
        Request::Store { contract: ContractId::ZERO, slot: SlotIndex::new(0), slices: Default::default() };
    (request, bytes.clone(), 0)
}

fn read(bytes: &Bytes) -> (Request, Bytes, usize) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (contract, slot, stripe) = (ContractId::ZERO, SlotIndex::new(0), StripeId::ZERO);
    (Request::Read { contract, slot, stripe, offset: 0, length }, Bytes::new(), bytes.len())
}

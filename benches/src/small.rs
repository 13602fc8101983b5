//! Small files: a folder of them, many puts at once that are acknowledged one by one, and all of it read back, at once and
//! one by one at random. Beside `restic` for a folder, a copy for reading, and files synced by as many threads for puts.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tallow_client::{
    Access, Client, ContractPlan, GetOptions, GetTarget, Identity, Options, PutError, Silent, Source, Tuning,
    WallClock,
};
use tallow_seal::phrase::Phrase;
use tallow_types::{ChainId, Profile};

use crate::files::{Used, cpu_of, many, timed};
use crate::local::Network;
use crate::peers::{copy, restic, text};
use crate::timing::noise;

const FILES: usize = 10_000;
const SIZE: usize = 4096;
const TOGETHER: usize = 64;
/// Random single gets by an open client, and by a process each.
const GETS: usize = 1_000;
const PROCESSES: usize = 40;

/// Prints the figures for both profiles.
pub fn run() -> Result<()> {
    for (data, slots) in [(10, 20), (4, 12)] {
        let folder = tempfile::tempdir()?;
        let (network, profile) = up(folder.path(), data, slots)?;
        let source = folder.path().join("many");
        many(&source, FILES)?;
        as_folder(&network, folder.path(), &source)?;
        one_by_one(&network, folder.path(), profile)?;
    }
    Ok(())
}

/// The puts and gets one by one alone, 10 of 20.
pub fn run_single() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (network, profile) = up(folder.path(), 10, 20)?;
    one_by_one(&network, folder.path(), profile)
}

fn up(folder: &Path, data: u8, slots: u8) -> Result<(Network, Profile)> {
    println!("{FILES} files of 4 KiB, {data} of {slots}, {slots} seeder processes on this machine");
    let network = Network::up(folder, &format!("{data}/{slots}"))?;
    Ok((network, Profile::from_k_of_n(data, slots).context("a profile")?))
}

fn line(what: &str, rate: f64, peer: Option<(&str, f64)>) {
    print!("  {what:<52} {rate:>8.0}/s");
    if let Some((name, of_peer)) = peer {
        print!("  {:.2}x {name} ({of_peer:.0}/s)", rate / of_peer);
    }
    println!();
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The files as one folder.
fn as_folder(network: &Network, folder: &Path, source: &Path) -> Result<()> {
    let back = folder.join("many.back");
    let put = timed(&mut network.command(&["put", text(source)?, "many"]))?.time;
    let get = timed(&mut network.command(&["get", "many", "-o", text(&back)?]))?.time;
    let same = Command::new("diff").arg("-rq").args([source, &back]).status()?;
    ensure!(same.success(), "the folder came back changed");
    let rate = |used: Used| per_second(FILES, used.time);
    let (backup, restore) = match restic(folder, source) {
        Ok((backup, restore)) => (Some(rate(backup)), Some(rate(restore))),
        Err(_) => (None, None),
    };
    line("put as one folder", per_second(FILES, put), backup.map(|rate| ("restic backup", rate)));
    line("get of the folder", per_second(FILES, get), restore.map(|rate| ("restic restore", rate)));
    let copied = rate(copy(source, &folder.join("many.copy"))?);
    line("get of the folder", per_second(FILES, get), Some(("cp -r, synced", copied)));
    std::fs::remove_dir_all(&back)?;
    Ok(())
}

/// Puts that are acknowledged one by one, and their gets.
#[tokio::main]
async fn one_by_one(network: &Network, folder: &Path, profile: Profile) -> Result<()> {
    let client = open(network, &folder.join("client"), profile).await?;
    client.put(Source::reader(Box::new(std::io::empty())), "single/first", Arc::new(Silent)).await?;
    let (start, cpu) = (Instant::now(), (cpu_of(std::process::id()), network.cpu()?));
    let mut callers = tokio::task::JoinSet::new();
    let (content, next) = (Arc::new(noise(FILES * SIZE, 5)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..TOGETHER {
        let (client, content, next) = (client.clone(), content.clone(), next.clone());
        callers.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(bytes) = content.chunks_exact(SIZE).nth(number) else {
                    return Ok::<_, PutError>(times);
                };
                let (begun, path) = (Instant::now(), format!("single/{number:05}"));
                let source = Source::reader(Box::new(std::io::Cursor::new(bytes.to_vec())));
                client.put(source, &path, Arc::new(Silent)).await?;
                times.push(begun.elapsed());
            }
        });
    }
    let mut times = Vec::with_capacity(FILES);
    while let Some(ended) = callers.join_next().await {
        times.extend(ended??);
    }
    let rate = per_second(FILES, start.elapsed());
    let (client_cpu, nodes_cpu) = (cpu_of(std::process::id()) - cpu.0, network.cpu()? - cpu.1);
    let synced = synced_files(&folder.join("synced"), &content)?;
    let what = format!("{TOGETHER} puts at once, each acknowledged alone");
    line(&what, rate, Some(("threads syncing a file each", synced)));
    spread("  one of those puts", times, None);
    let us = |seconds: f64| seconds / FILES as f64 * 1e6;
    println!(
        "    processor time of a put: {:.0} us here, {:.0} us in all nodes",
        us(client_cpu),
        us(nodes_cpu)
    );
    client.close().await?;

    let (back, start) = (folder.join("single.back"), Instant::now());
    let target = GetTarget::Path(back.clone());
    client.get("single", target, GetOptions::default(), Arc::new(Silent)).await?;
    let get = start.elapsed();
    let copied = copy(&back, &folder.join("single.copy"))?;
    line("get of those", per_second(FILES, get), Some(("cp -r, synced", per_second(FILES, copied.time))));
    single_gets(network, &client, &back).await
}

/// A client of the network's account in this process, with a folder of its own.
pub async fn open(network: &Network, dir: &Path, profile: Profile) -> Result<Client> {
    let wallet = network.json(&["wallet", "show", "--phrase"])?;
    let words = wallet["words"].as_array().context("wallet show has no words")?;
    let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
    let seed = Phrase::parse(&words.join(" "))?.seed();
    let string = wallet["network"].as_str().context("wallet show has no network")?;
    let string = string.trim_start_matches("tallow:");
    let (chain, addresses) = string.split_once('@').context("a network string")?;
    let identity = Identity::new(seed, u64::from_le_bytes(*b"benching"));
    let node = tallow_net::Node::start(tallow_net::Config::new(identity.device())).await?;
    let bootstrap = addresses.split(',').map(tallow_net::parse_bootstrap).collect::<Result<_, _>>()?;
    let options = Options {
        dir: Some(dir.to_owned()),
        access: Access::Write,
        chain: ChainId::from_hex(chain).context("a chain id")?,
        bootstrap,
        transport: Arc::new(node),
        identity,
        contract: ContractPlan::new(profile),
        clock: Arc::new(WallClock),
        tuning: Tuning::default(),
    };
    Ok(Client::open(options).await?)
}

/// Files a second that as many threads make, each synced by itself.
fn synced_files(folder: &Path, content: &[u8]) -> Result<f64> {
    std::fs::create_dir_all(folder)?;
    let next = AtomicUsize::new(0);
    let make = || -> std::io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(bytes) = content.chunks_exact(SIZE).nth(number) else { return Ok(()) };
            let mut file = File::create(folder.join(number.to_string()))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(make)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    let rate = per_second(FILES, start.elapsed());
    std::fs::remove_dir_all(folder)?;
    Ok(rate)
}

fn spread(what: &str, mut times: Vec<Duration>, peer: Option<(&str, Duration)>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    print!("  {what:<52} p50 {:>7.2} ms  p99 {:>7.2} ms", ms(at(50)), ms(at(99)));
    if let Some((name, time)) = peer {
        print!("  p50 {:.0}x {name} ({:.3} ms)", ms(at(50)) / ms(time), ms(time));
    }
    println!();
}

/// Files read one at a time, in no order: by an open client, and by a process each.
async fn single_gets(network: &Network, client: &Client, copy: &Path) -> Result<()> {
    let order = noise(8 * GETS, 6);
    let numbers: Vec<usize> = order
        .chunks_exact(8)
        .map(|bytes| bytes.iter().fold(0, |sum, byte| (sum * 256 + usize::from(*byte)) % FILES))
        .collect();
    let mut plain = Vec::with_capacity(GETS);
    for number in &numbers {
        let start = Instant::now();
        std::hint::black_box(std::fs::read(copy.join(format!("{number:05}")))?);
        plain.push(start.elapsed());
    }
    plain.sort_unstable();
    let read = plain[GETS / 2];
    let mut times = Vec::with_capacity(GETS);
    for number in &numbers {
        let (start, mut out) = (Instant::now(), Vec::with_capacity(SIZE));
        client.get_to(&format!("single/{number:05}"), None, &mut out, Arc::new(Silent)).await?;
        times.push(start.elapsed());
    }
    spread("single gets by an open client", times, Some(("reading a file", read)));
    let mut times = Vec::with_capacity(PROCESSES);
    for number in numbers.iter().take(PROCESSES) {
        let mut command = network.command(&["get", &format!("single/{number:05}"), "-o", "-"]);
        times.push(timed(&mut command)?.time);
    }
    let cat = timed(Command::new("cat").arg(copy.join("00000")))?.time;
    spread("single gets by a process each", times, Some(("cat", cat)));
    Ok(())
}

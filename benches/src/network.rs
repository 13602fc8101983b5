//! Puts and gets against twelve seeder processes on this machine, beside `cp` and `restic` to a local folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tallow_client::{Access, Client, ContractPlan, Identity, Options, Silent, Source, Tuning, WallClock};
use tallow_seal::phrase::Phrase;
use tallow_types::{ChainId, Profile};

use crate::files::{Used, large, many, timed};
use crate::timing::noise;

const LARGE: usize = 100 << 20;
const FILES: usize = 10_000;
const TOGETHER: usize = 64;

/// A development network that goes when this value does.
struct Network {
    tallow: PathBuf,
    home: PathBuf,
}

impl Network {
    fn up(folder: &Path) -> Result<Self> {
        let tallow = std::env::current_exe()?.with_file_name("tallow");
        ensure!(tallow.exists(), "{} is not built; use scripts/bench", tallow.display());
        let network = Self { tallow, home: folder.join("home") };
        timed(&mut network.command(&["dev", "up"]))?;
        let password = folder.join("wallet.password");
        std::fs::write(&password, "bench\n")?;
        timed(&mut network.command(&["wallet", "new"]))?;
        Ok(network)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.tallow);
        command.arg("--home").arg(&self.home).arg("--quiet").args(args);
        command
    }

    fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let output = self.command(args).arg("--json").stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "tallow {args:?} failed");
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.command(&["dev", "down"]).status();
    }
}

/// Prints a line for each put and get with its share of what `cp` and `restic` reach.
pub fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    large(&at("large"), LARGE)?;
    many(&at("many"), FILES)?;
    let network = Network::up(folder.path())?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a temporary folder has a plain name");

    println!("4 of 12, twelve seeder processes on this machine, durable on k + margin; put, then get");
    for (name, count) in [("large", 1), ("many", FILES)] {
        let (source, back, copy) =
            (text(&at(name))?, text(&at(&format!("{name}.back")))?, text(&at("copy"))?);
        let put = timed(&mut network.command(&["put", &source, name]))?;
        let get = timed(&mut network.command(&["get", name, "-o", &back]))?;
        let cp = timed(
            Command::new("sh").args(["-c", &format!("cp -r {source} {copy} && sync {copy} && rm -r {copy}")]),
        )?;
        let same = Command::new("diff").args(["-rq", &source, &back]).status()?;
        ensure!(same.success(), "{name} came back changed");
        let size = if count == 1 { LARGE } else { FILES * 4096 };
        show(&format!("{name}: put"), size, count, &put, &[("cp", &cp)]);
        show(&format!("{name}: get"), size, count, &get, &[("cp", &cp)]);
        if let Ok((backup, restore)) = restic(folder.path(), &source) {
            show(&format!("{name}: put"), size, count, &put, &[("restic backup", &backup)]);
            show(&format!("{name}: get"), size, count, &get, &[("restic restore", &restore)]);
        }
    }
    together(&network, folder.path())
}

fn show(what: &str, bytes: usize, count: usize, used: &Used, peers: &[(&str, &Used)]) {
    let seconds = used.time.as_secs_f64();
    let rate = bytes as f64 / seconds / 1e6;
    print!(
        "  {what:<14} {rate:>8.1} MB/s {:>8.0} files/s  peak {:>4} MiB",
        count as f64 / seconds,
        used.peak_kib >> 10
    );
    for (name, peer) in peers {
        print!("  {:.3}x {name}", peer.time.as_secs_f64() / seconds);
    }
    println!();
}

fn restic(folder: &Path, source: &str) -> Result<(Used, Used)> {
    let password = folder.join("restic.password");
    std::fs::write(&password, "bench")?;
    let repository = folder.join("restic");
    let _ = std::fs::remove_dir_all(&repository);
    let command = |args: &[&str]| -> Result<Used> {
        let mut command = Command::new("restic");
        command.arg("-q").arg("-r").arg(&repository).arg("--password-file").arg(&password);
        command.env("XDG_CACHE_HOME", folder.join("cache")).args(args);
        timed(&mut command)
    };
    command(&["init"])?;
    let backup = command(&["backup", source])?;
    let target = folder.join("restic.back");
    let restore = command(&["restore", "latest", "--target", target.to_str().context("a plain name")?])?;
    std::fs::remove_dir_all(&target)?;
    Ok((backup, restore))
}

/// Many callers in one process, each put acknowledged alone.
#[tokio::main]
async fn together(network: &Network, folder: &Path) -> Result<()> {
    let wallet = network.json(&["wallet", "show", "--phrase"])?;
    let field = |name: &str| {
        wallet[name].as_str().map(str::to_owned).with_context(|| format!("wallet show has no {name}"))
    };
    let words = wallet["words"].as_array().context("wallet show has no words")?;
    let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
    let seed = Phrase::parse(&words.join(" "))?.seed();
    let string = field("network")?;
    let (chain, addresses) =
        string.trim_start_matches("tallow:").split_once('@').context("a network string")?;
    let identity = Identity::new(seed, u64::from_le_bytes(*b"benching"));
    let node = tallow_net::Node::start(tallow_net::Config::new(identity.device())).await?;
    let bootstrap = addresses.split(',').map(tallow_net::parse_bootstrap).collect::<Result<_, _>>()?;
    let client = Client::open(Options {
        dir: Some(folder.join("client")),
        access: Access::Write,
        chain: ChainId::from_hex(chain).context("a chain id")?,
        bootstrap,
        transport: Arc::new(node),
        identity,
        contract: ContractPlan::new(Profile::from_k_of_n(4, 12).context("a profile")?),
        clock: Arc::new(WallClock),
        tuning: Tuning::default(),
    })
    .await?;
    client.put(Source::reader(Box::new(std::io::empty())), "together/first", Arc::new(Silent)).await?;

    let content = Arc::new(noise(FILES * 4096, 5));
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..TOGETHER {
        let (client, content, next) = (client.clone(), Arc::clone(&content), Arc::clone(&next));
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= FILES {
                    return Ok::<_, tallow_client::PutError>(());
                }
                let bytes = content[number * 4096..][..4096].to_vec();
                let source = Source::reader(Box::new(std::io::Cursor::new(bytes)));
                client.put(source, &format!("together/{number:05}"), Arc::new(Silent)).await?;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    let used = Used { time: start.elapsed(), peak_kib: 0 };
    println!("{TOGETHER} callers in one process, {FILES} puts of 4 KiB, each acknowledged alone");
    println!(
        "  {:.0} files/s",
        FILES as f64 / used.time.as_secs_f64().max(Duration::from_millis(1).as_secs_f64())
    );
    client.close().await?;
    Ok(())
}

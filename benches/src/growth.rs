//! How costs grow: put, get, one more commit, ledger, memory and disk at once, ten and a hundred times as much data in one
//! file, and as many blobs in one folder. Each amount on a network of its own, so that nothing warms up the next.
//!
//! Prints a table with the exponent `e` of each figure between the last two amounts: it grows like n^e there. Linear is
//! 1.0; n log n is below 1.2 at these sizes. Where PLOTS names a folder, the curves are drawn there.

mod plot;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::files::{many, timed};
use crate::local::Network;
use crate::timing::noise;

/// The amounts, as multiples of the first.
const SCALES: [usize; 3] = [1, 10, 100];
/// One file of this many bytes times the scale.
const DATA: usize = 8 << 20;
/// A folder of this many files of 4 KiB times the scale.
const BLOBS: usize = 500;

/// What is measured at one amount.
#[derive(Clone, Copy)]
struct Cost {
    put: Duration,
    get: Duration,
    /// One more blob of 4 KiB, beside what is stored.
    commit: Duration,
    /// `ledger.redb` of the validator. Bytes.
    ledger: u64,
    /// `client.redb`. Bytes.
    cache: u64,
    /// The most memory of a client in any of the three. Bytes.
    client: u64,
    /// The most memory of any seeder. Bytes.
    seeder: u64,
}

/// A figure of a cost: its name with the unit, and its value.
type Figure = (&'static str, fn(&Cost) -> f64);

const FIGURES: [Figure; 7] = [
    ("put, s", |cost| cost.put.as_secs_f64()),
    ("get, s", |cost| cost.get.as_secs_f64()),
    ("one more commit, s", |cost| cost.commit.as_secs_f64()),
    ("ledger, MB", |cost| cost.ledger as f64 / 1e6),
    ("client's cache, MB", |cost| cost.cache as f64 / 1e6),
    ("client's memory, MB", |cost| cost.client as f64 / 1e6),
    ("seeder's memory, MB", |cost| cost.seeder as f64 / 1e6),
];

/// Prints both tables, and draws them.
pub fn run() -> Result<()> {
    let plots = std::env::var_os("PLOTS").map(PathBuf::from);
    let plots = plots.as_deref();
    let data = |folder: &Path, scale: usize| -> Result<PathBuf> {
        let path = folder.join("data");
        std::fs::write(&path, noise(DATA * scale, 7))?;
        Ok(path)
    };
    let blobs = |folder: &Path, scale: usize| -> Result<PathBuf> {
        let path = folder.join("blobs");
        many(&path, BLOBS * scale)?;
        Ok(path)
    };
    series("data", "MiB in one file", DATA >> 20, data, plots)?;
    series("blobs", "files of 4 KiB", BLOBS, blobs, plots)
}

fn series(
    name: &str,
    unit: &str,
    first: usize,
    make: impl Fn(&Path, usize) -> Result<PathBuf>,
    plots: Option<&Path>,
) -> Result<()> {
    let mut costs = Vec::new();
    for scale in SCALES {
        let folder = tempfile::tempdir()?;
        let source = make(folder.path(), scale)?;
        costs.push((first * scale, measure(folder.path(), &source)?));
    }
    println!("growth with {name}, 4 of 12; n is {unit}");
    print!("  {:<22}", "n");
    costs.iter().for_each(|(amount, _)| print!(" {amount:>12}"));
    println!(" {:>9}", "n^e: e");
    for (what, figure) in FIGURES {
        print!("  {what:<22}");
        costs.iter().for_each(|(_, cost)| print!(" {:>12.3}", figure(cost)));
        println!(" {:>9.2}", exponent(&costs, figure));
    }
    if let Some(folder) = plots {
        let lines: Vec<plot::Line> = FIGURES
            .iter()
            .map(|(what, figure)| {
                (*what, costs.iter().map(|(amount, cost)| (*amount as f64, figure(cost))).collect())
            })
            .collect();
        plot::draw(&folder.join(format!("growth-{name}.svg")), unit, &lines)?;
    }
    Ok(())
}

/// How fast a figure grows between the last two amounts.
fn exponent(costs: &[(usize, Cost)], figure: fn(&Cost) -> f64) -> f64 {
    let [.., (less, before), (more, after)] = costs else { return f64::NAN };
    (figure(after) / figure(before)).ln() / (*more as f64 / *less as f64).ln()
}

fn measure(folder: &Path, source: &Path) -> Result<Cost> {
    let network = Network::up(folder, "4/12")?;
    let plain = |path: &Path| path.to_str().map(str::to_owned).context("a temporary folder has a plain name");
    let (small, back) = (folder.join("small"), folder.join("back"));
    std::fs::write(&small, noise(4096, 8))?;
    let put = timed(&mut network.command(&["put", &plain(source)?, "stored"]))?;
    let get = timed(&mut network.command(&["get", "stored", "-o", &plain(&back)?]))?;
    let commit = timed(&mut network.command(&["put", &plain(&small)?, "small"]))?;
    let peak = [put, get, commit].into_iter().map(|used| used.peak_kib).max().unwrap_or(0);
    Ok(Cost {
        put: put.time,
        get: get.time,
        commit: commit.time,
        ledger: network.validator_file("ledger/ledger.redb")?,
        cache: file_named(&folder.join("home"), "client.redb")?.context("the client keeps a cache")?,
        client: peak << 10,
        seeder: network.seeder_peak()?,
    })
}

/// The length of the first file of that name below a folder. Bytes.
fn file_named(folder: &Path, name: &str) -> Result<Option<u64>> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = file_named(&entry.path(), name)? {
                return Ok(Some(found));
            }
        } else if entry.file_name() == name {
            return Ok(Some(entry.metadata()?.len()));
        }
    }
    Ok(None)
}

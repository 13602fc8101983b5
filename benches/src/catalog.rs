//! Accounts with many blobs: put them as one folder, list one folder and all, ask for one, add one more, and bring all back
//! from the words alone. Each beside a peer on as many files, or the limit below it, in the same run.
//!
//! `BLOBS` names the numbers of blobs, by default 1000,10000,100000.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::files::{Used, timed};
use crate::local::Network;
use crate::peers::text;
use crate::timing::noise;

/// Bytes of a blob: just above what a catalog entry keeps itself, so that every blob has a chunk in a stripe.
const LEN: usize = 1100;
/// Blobs in one folder.
const TO_A_FOLDER: usize = 1000;

const ROWS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("rows");

/// Prints a block for each number of blobs.
pub fn run() -> Result<()> {
    let counts = std::env::var("BLOBS").unwrap_or_else(|_| "1000,10000,100000".into());
    println!("catalog, 4 of 12, blobs of {LEN} bytes, {TO_A_FOLDER} to a folder; n: blobs");
    for count in counts.split(',') {
        measure(count.trim().parse().with_context(|| format!("BLOBS has {count:?} in it"))?)?;
    }
    Ok(())
}

fn measure(count: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("many");
    make(&source, count)?;
    let small = folder.path().join("small");
    std::fs::write(&small, noise(4096, 9))?;
    let peers = peers(folder.path(), &source)?;
    let network = Network::up(folder.path(), "4/12")?;
    let put = timed(&mut network.command(&["put", text(&source)?, "many"]))?;
    let stored = written(&folder.path().join("home"))?;
    let folder_ls = timed(&mut network.command(&["ls", "many/00000"]))?;
    let all_ls = timed(&mut network.command(&["ls", "-r", "/", "--json"]))?;
    let stat = timed(&mut network.command(&["stat", "many/00000/0000000"]))?;
    let mut commit = Used::default();
    for number in 0..5 {
        let more = timed(&mut network.command(&["put", text(&small)?, &format!("more-{number}")]))?;
        if number == 0 || more.time < commit.time {
            commit = more;
        }
    }
    let (restore, restored) = restore(&network, folder.path())?;
    println!("n = {count}");
    let rate = count as f64 / put.time.as_secs_f64();
    let per = |peer: &Used, mine: &Used| peer.time.as_secs_f64() / mine.time.as_secs_f64();
    line(
        "put",
        &put,
        &format!("{rate:.0} blobs/s, cache {stored} MB, {:.3}x restic", per(&peers.backup, &put)),
    );
    line("ls of a folder", &folder_ls, &format!("{:.2}x restic ls of all", per(&peers.ls, &folder_ls)));
    let walk = per(&peers.walk, &all_ls);
    line(
        "ls of all",
        &all_ls,
        &format!(
            "{:.2}x restic ls, {walk:.2}x ls -R, {:.2}x a scan of as many rows",
            per(&peers.ls, &all_ls),
            per(&peers.scan, &all_ls)
        ),
    );
    line("stat of one", &stat, &format!("{:.2}x restic snapshots", per(&peers.snapshots, &stat)));
    line(
        "one more commit",
        &commit,
        &format!("{:.2}x restic backup of one file", per(&peers.one_more, &commit)),
    );
    line(
        "restore",
        &restore,
        &format!("cache {restored} MB, {:.2}x restic ls without cache", per(&peers.cold, &restore)),
    );
    Ok(())
}

fn line(what: &str, used: &Used, beside: &str) {
    let (time, peak) = (used.time.as_secs_f64(), used.peak_kib >> 10);
    println!("  {what:<18} {time:>9.3} s  {:>8.2} s cpu  peak {peak:>4} MiB  {beside}", used.cpu);
}

/// A tree of small files of noise.
fn make(root: &Path, count: usize) -> Result<()> {
    let bytes = noise(LEN + count, 6);
    for first in (0..count).step_by(TO_A_FOLDER) {
        let folder = root.join(format!("{:05}", first / TO_A_FOLDER));
        std::fs::create_dir_all(&folder)?;
        for number in first..count.min(first + TO_A_FOLDER) {
            std::fs::write(folder.join(format!("{number:07}")), &bytes[number..number + LEN])?;
        }
    }
    Ok(())
}

/// Brings the wallet back on a machine that knows nothing but the words.
fn restore(network: &Network, folder: &Path) -> Result<(Used, u64)> {
    let wallet = network.json(&["wallet", "show", "--phrase"])?;
    let words = wallet["words"].as_array().context("wallet show has no words")?;
    let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
    let file = folder.join("words");
    std::fs::write(&file, words.join(" "))?;
    let name = wallet["network"].as_str().context("wallet show has no network")?;
    let bare = folder.join("bare");
    let tallow = std::env::current_exe()?.with_file_name("tallow");
    let password = folder.join("wallet.password");
    let script = r#"exec "$0" --home "$1" --quiet --network "$2" wallet restore --password-file "$3" < "$4""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, text(&tallow)?, text(&bare)?, name, text(&password)?, text(&file)?]);
    let used = timed(&mut command)?;
    Ok((used, written(&bare)?))
}

/// Bytes of the client's files below a home, in MB.
fn written(home: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut folders = vec![home.join("clients")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes / 1_000_000)
}

/// What others take for the same.
struct Peers {
    backup: Used,
    ls: Used,
    cold: Used,
    snapshots: Used,
    one_more: Used,
    walk: Used,
    scan: Used,
}

fn peers(folder: &Path, source: &Path) -> Result<Peers> {
    let password = folder.join("restic.password");
    std::fs::write(&password, "bench")?;
    let (repository, cache, one) = (folder.join("restic"), folder.join("cache"), folder.join("one"));
    std::fs::write(&one, noise(4096, 9))?;
    let restic = |args: &[&str]| -> Result<Used> {
        let mut command = Command::new("restic");
        command.arg("-q").arg("-r").arg(&repository).arg("--password-file").arg(&password);
        timed(command.env("XDG_CACHE_HOME", &cache).args(args))
    };
    restic(&["init"])?;
    let backup = restic(&["backup", text(source)?])?;
    let ls = restic(&["ls", "latest"])?;
    std::fs::remove_dir_all(&cache)?;
    let cold = restic(&["ls", "latest"])?;
    let snapshots = restic(&["snapshots"])?;
    let one_more = restic(&["backup", text(&one)?])?;
    std::fs::remove_dir_all(&repository)?;
    let walk = timed(Command::new("ls").args(["-lR", text(source)?]))?;
    Ok(Peers { backup, ls, cold, snapshots, one_more, walk, scan: scan(folder, source)? })
}

/// Reading as many rows of about the size of an entry from a database of the same kind, by path.
fn scan(folder: &Path, source: &Path) -> Result<Used> {
    let file = folder.join("rows.redb");
    let database = Database::builder().set_cache_size(8 << 20).create(&file)?;
    let tx = database.begin_write()?;
    {
        let mut rows = tx.open_table(ROWS)?;
        let value = noise(80, 2);
        for folder in std::fs::read_dir(source)? {
            for path in std::fs::read_dir(folder?.path())? {
                let path = path?.path();
                let key = path.strip_prefix(source)?.to_str().context("a plain name")?.to_owned();
                rows.insert(key.as_str(), value.as_slice())?;
            }
        }
    }
    tx.commit()?;
    let start = std::time::Instant::now();
    let rows = database.begin_read()?.open_table(ROWS)?;
    let mut bytes = 0;
    for row in rows.iter()? {
        bytes += row?.1.value().len();
    }
    ensure!(bytes > 0, "no rows");
    Ok(Used { time: start.elapsed(), ..Used::default() })
}

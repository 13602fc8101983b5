//! What a command does about the line: ways, limits, seeders that are found by the table of nodes, slow lines.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Machine, Net, finish, noise, objects, send, wait_until};

/// Goal: a stored file comes back over QUIC and within limits, and limits that make no sense are refused. Method: put and
/// get with each flag.
#[test]
fn ways_and_limits() {
    let machine = Machine::new();
    let _net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    std::fs::write(machine.path("file"), noise(400_000, 1)).unwrap();
    machine.json(&["put", "file", "quick", "--quic"]);
    std::fs::write(machine.path("file"), noise(400_000, 3)).unwrap();
    let begun = Instant::now();
    machine.json(&["put", "file", "slow", "--limit-up", "4Mbit", "--limit-down", "8MB"]);
    // 5 of 2: two and a half times the file goes up.
    assert!(begun.elapsed().as_millis() >= 1_500, "{:?}", begun.elapsed());
    for (name, seed) in [("quick", 1), ("slow", 3)] {
        machine.json(&["get", name, "-o", name, "--quic", "--limit-down", "2MB/s"]);
        assert_eq!(std::fs::read(machine.path(name)).unwrap(), noise(400_000, seed));
    }
    let refused = machine.run(&["put", "file", "--limit-up", "10K"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("1Mbit"), "{refused:?}");
}

/// Goal: whoever has 24 words and one address finds the holders of his data though no ledger is made any more. Method:
/// store, kill the validator, ask one seeder from a machine that has nothing but the words.
#[test]
fn holders_are_found_without_a_ledger() {
    let machine = Machine::new();
    let net = Net::up(&machine);
    let words = machine.json(&["wallet", "new"])["words"].clone();
    std::fs::write(machine.path("file"), noise(100_000, 2)).unwrap();
    machine.json(&["put", "file"]);
    let nodes = net.status()["nodes"].as_array().unwrap().clone();
    let chain = net.string().split('@').next().unwrap().to_owned();
    let network = format!("{chain}@{}", nodes[3]["address"].as_str().unwrap());
    let words: Vec<&str> = words.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let elsewhere = Machine::new();
    let mut seen = Value::Null;
    let mut look = || {
        let question = ["--json", "--network", &network, "wallet", "holders", "--words"];
        let ran = elsewhere.feed(&question, words.join(" ").as_bytes());
        if ran.code == Some(0) {
            seen = objects(&ran.stdout).remove(0);
        }
        let holders = seen["holders"].as_array().cloned().unwrap_or_default();
        holders.len() == 5 && holders.iter().all(|holder| holder["failure"].is_null())
    };
    // Seeders say what they hold once an epoch.
    wait_until("all five holders are found and answer", &mut look);
    send(nodes[0]["pid"].as_u64().unwrap(), Signal::KILL);
    assert!(look(), "and without anybody who makes blocks");
    assert_eq!(seen["contract"].as_str().unwrap().len(), 64, "{seen}");
    let nobody = elsewhere.run(&["--network", &network, "wallet", "holders"]);
    assert_eq!(nobody.code, Some(2), "there is no wallet here: {nobody:?}");
}

/// A network namespace behind a slow line: 5 Mbit/s each way, 100 ms there and back, one packet of a hundred lost.
struct Slow {
    space: String,
    host: String,
    /// Holds the line until its standard input ends.
    holder: Child,
}

impl Slow {
    /// `None` where the system does not let us make one.
    fn line() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/slow-line");
        let mut command = Command::new(script);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut said = String::new();
        if let Ok(mut holder) = started {
            let read = BufReader::new(holder.stdout.as_mut().expect("a pipe")).read_line(&mut said);
            if let (Ok(1..), Some((space, host))) = (read, said.trim().split_once(' ')) {
                return Some(Self { space: space.to_owned(), host: host.to_owned(), holder });
            }
            drop(holder.stdin.take());
            said = format!("{:?}", holder.wait_with_output());
        }
        println!("skipped: no slow line can be made here: {said}");
        None
    }

    /// Runs the program behind the line. Seconds.
    fn run(&self, machine: &Machine, args: &[&str]) -> f64 {
        let inside = machine.command(args);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).arg(inside.get_program()).args(inside.get_args());
        command.current_dir(inside.get_current_dir().unwrap_or(Path::new("/")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        finish(command.spawn().expect("starts")).ok();
        begun.elapsed().as_secs_f64()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Goal: a slow line that loses packets is no failure: what is put is acknowledged, no seeder is dropped for being slow,
/// and it comes back, over either way. Method: the program in a network namespace, twelve seeders outside. How much of
/// the line was used is printed, for `scripts/slow-line`.
#[test]
fn a_slow_line_works() {
    let Some(line) = Slow::line() else { return };
    let machine = Machine::new();
    let _net = Net::up_with(&machine, &["--host", &line.host]);
    machine.json(&["wallet", "new"]);
    let mib = std::env::var("TALLOW_SLOW_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for (number, way) in (10..).zip([&["--limit-down", "100MB"][..], &["--quic"][..]]) {
        let bytes = noise(mib << 20, number);
        std::fs::write(machine.path("file"), &bytes).unwrap();
        let name = format!("file-{number}");
        let put = line.run(&machine, &[&["put", "file", &name], way].concat());
        let got = line.run(&machine, &[&["get", &name, "-o", &name], way].concat());
        assert!(std::fs::read(machine.path(&name)).unwrap() == bytes, "other bytes came back");
        // All twelve hold it: nobody was dropped for being slow.
        let report = machine.json(&["stat"]);
        assert_eq!(report["healthy"], 12, "{report}");
        let share = |bytes: f64, seconds: f64| 100.0 * bytes * 8.0 / 5e6 / seconds;
        let stored = f64::from(u32::try_from(mib << 20).unwrap());
        println!(
            "{} {mib} MiB: put {put:.1} s, {:.0} % of the line (3 times the bytes); get {got:.1} s, {:.0} %",
            way[0],
            share(3.0 * stored, put),
            share(stored, got)
        );
    }
}

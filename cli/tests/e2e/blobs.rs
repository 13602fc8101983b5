//! Stored data through the program: in, listed, out, changed, and every request that cannot be met.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Machine, Net, finish, noise, plant_tree, send, snapshot};

/// Goal: a folder comes back as it went in, in whole and in parts, also after the network was down. Method: put, list, get,
/// compare; down, up, again.
#[test]
fn what_is_stored_survives_down_and_up() {
    let machine = Machine::new();
    let net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    plant_tree(&machine.path("tree"));
    let put = machine.json(&["put", "tree"]);
    assert_eq!((&put["name"], &put["files"], &put["links"]), (&"tree".into(), &6.into(), &1.into()));
    assert!(put["signers"].as_u64().unwrap() >= 4, "{put}");
    assert_eq!(put["skipped"], Value::from(Vec::<Value>::new()));

    let listed = machine.jsons(&["ls", "-r"]);
    let paths: Vec<&str> = listed.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"tree/deep/er/large.bin") && paths.contains(&"tree/link"), "{paths:?}");
    let stat = machine.json(&["stat", "tree/deep/er/large.bin"]);
    assert_eq!((&stat["bytes"], &stat["kind"]), (&2_500_000.into(), &"file".into()));
    let contract = machine.json(&["stat"]);
    assert_eq!((&contract["profile"], &contract["held"]), (&"2/5".into(), &5.into()));
    assert!(contract["paid_until"].is_string(), "{contract}");

    machine.json(&["get", "tree", "-o", "back"]);
    assert_eq!(snapshot(&machine.path("back")), snapshot(&machine.path("tree")));
    net.down();
    machine.run(&["get", "tree", "-o", "again"]).fails(3, &["is down", "dev up"]);
    machine.run(&["dev", "up"]).ok();
    machine.json(&["get", "tree", "-o", "again"]);
    assert_eq!(snapshot(&machine.path("again")), snapshot(&machine.path("tree")));

    let large = noise(2_500_000, 2);
    let ranged =
        machine.run(&["get", "tree/deep/er/large.bin", "-o", "-", "--range", "1000000-2000001"]).ok();
    assert!(ranged.stdout == large[1_000_000..2_000_001]);
    machine.json(&["get", "tree/deep/er/large.bin", "-o", "end", "--range", "-7"]);
    assert_eq!(std::fs::read(machine.path("end")).unwrap(), large[2_499_993..]);

    let stored_again = machine.json(&["put", "tree"]);
    // All but the letter in the catalog.
    assert_eq!(stored_again["reused_bytes"].as_u64().unwrap() + 14, stored_again["bytes"], "{stored_again}");
    machine.json(&["rm", "tree/inline.txt"]);
    machine.run(&["stat", "tree/inline.txt"]).fails(1, &["no blob"]);
    machine.json(&["rm", "-r", "tree"]);
    assert_eq!(machine.jsons(&["ls", "-r"]), Vec::<Value>::new());
}

/// Goal: a stream of unknown length is stored, and an interrupted one leaves nothing visible and does not hinder the next.
/// Method: Ctrl-C in the middle of a stream, then the whole of it.
#[test]
fn streams_are_stored_and_interrupted() {
    let machine = Machine::new();
    let _net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    let bytes = noise(5_000_000, 7);
    let mut child = machine.command(&["put", "-", "stream"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: when it is written, the program is reading.
    stdin.write_all(&bytes[..2_000_000]).unwrap();
    send(u64::from(child.id()), Signal::INT);
    finish(child).fails(4, &["interrupted", "hint: "]);
    drop(stdin);
    machine.run(&["stat", "stream"]).fails(1, &[]);
    machine.feed(&["put", "-", "stream"], &bytes).ok();
    assert!(machine.run(&["get", "stream", "-o", "-"]).ok().stdout == bytes);
    machine.run(&["put", "-"]).fails(2, &["no name", "tallow put - NAME"]);
}

/// Goal: two commands that write wait for each other. Method: a stream that does not end holds the account; a second put
/// begins, the stream ends, both are stored.
#[test]
fn writers_wait_for_each_other() {
    let machine = Machine::new();
    let _net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    std::fs::write(machine.path("letter"), "dear").unwrap();
    let mut first = machine.command(&["put", "-", "stream"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = first.stdin.take().unwrap();
    stdin.write_all(&noise(500_000, 8)).unwrap();
    let mut second = machine.command(&["put", "letter"]).spawn().unwrap();
    let mut said = [0; 7];
    second.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"waiting");
    drop(stdin);
    finish(first).ok();
    finish(second).ok();
    assert_eq!(machine.jsons(&["ls"]).len(), 2);
}

/// Goal: what can't be stored is named, and the exit code says that it was not all. Method: a pipe in a folder.
#[test]
fn what_is_left_out_is_said() {
    let machine = Machine::new();
    let _net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    plant_tree(&machine.path("tree"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        machine.path("tree/a pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    machine.run(&["put", "tree"]).fails(1, &["1 entry", "a pipe", "all else is"]);
    std::fs::remove_file(machine.path("tree/a pipe")).unwrap();
    machine.json(&["get", "tree", "-o", "back"]);
    assert_eq!(snapshot(&machine.path("back")), snapshot(&machine.path("tree")));
}

/// Goal: what cannot be done is refused with what to do, and changes nothing. Method: one request for each.
#[test]
fn impossible_requests_are_refused() {
    let machine = Machine::new();
    let _net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    std::fs::write(machine.path("letter.txt"), "dear").unwrap();
    machine.json(&["put", "letter.txt", "letters/one.txt"]);
    machine.run(&["get", "letters/on.txt"]).fails(1, &["no blob", "letters/one.txt"]);
    machine.run(&["get", "nothing/like/it"]).fails(1, &["no blob", "hint: "]);
    machine.run(&["stat", "letters/two.txt"]).fails(1, &["no blob"]);
    machine.run(&["rm", "absent"]).fails(1, &["no blob"]);
    machine.run(&["rm", "letters"]).fails(1, &["-r"]);
    machine.run(&["get", "letters", "-o", "-"]).fails(1, &["letters"]);
    machine.run(&["get", "letters/one.txt", "-o", "-", "--range", "4-"]).ok();
    machine.run(&["get", "letters/one.txt", "-o", "-", "--range", "5-"]).fails(1, &["4 bytes"]);
    std::fs::write(machine.path("there"), "mine").unwrap();
    machine.run(&["get", "letters/one.txt", "-o", "there"]).fails(1, &["exists", "--force"]);
    machine
        .run(&["get", "letters/one.txt", "-o", "there", "--range", "0-2"])
        .fails(1, &["exists", "--force"]);
    assert_eq!(std::fs::read(machine.path("there")).unwrap(), b"mine");
    machine.run(&["get", "letters/one.txt", "-o", "there", "--force"]).ok();
    assert_eq!(std::fs::read(machine.path("there")).unwrap(), b"dear");
    machine.run(&["get", "letters/one.txt", "-o", "there/below"]).fails(1, &["there"]);
    machine.run(&["get", "/"]).fails(2, &["-o TARGET"]);
    machine.run(&["put", "absent"]).fails(1, &["absent"]);
    machine.run(&["put", "letter.txt", "../outside"]).fails(1, &["outside"]);
    machine.run(&["put", "letter.txt", "letters/one.txt/below"]).fails(1, &["letters/one.txt"]);
    machine.run(&["put", "/dev/null", "null"]).fails(1, &["/dev/null"]);
    assert_eq!(machine.jsons(&["ls", "-r"]).len(), 1);
}

/// Goal: money and repair through the program. Method: quote, refuel, lose a seeder and repair with the spare one.
#[test]
fn fuel_and_repair() {
    let machine = Machine::new();
    let net = Net::up_with(&machine, &["--seeders", "6", "--profile", "2/5"]);
    machine.json(&["wallet", "new"]);
    let quote = machine.json(&["quote", "10MB", "--for", "30d"]);
    assert!(quote["seeders"].as_u64().unwrap() >= 6, "{quote}");
    std::fs::write(machine.path("file"), noise(300_000, 4)).unwrap();
    machine.json(&["put", "file"]);
    let before = machine.json(&["stat"]);
    // The default fuel lasts 30 days.
    let paid: jiff::Timestamp = before["paid_until"].as_str().unwrap().parse().unwrap();
    let days = (paid - jiff::Timestamp::now()).total(jiff::Unit::Hour).unwrap() / 24.0;
    assert!(days >= 29.9, "paid for {days} days");
    let after = machine.json(&["refuel", "1.5"]);
    assert_eq!(after["added_units"], (3_u128 << 39).to_string().as_str());
    assert!(after["paid_until_epoch"].as_u64() > before["paid_until_epoch"].as_u64());
    machine.run(&["refuel", "999999999"]).fails(1, &["fuel", "hint: "]);
    machine.run(&["wallet", "send", &"ab".repeat(32), "999999999"]).fails(1, &["fuel", "hint: "]);
    machine.json(&["wallet", "send", &"ab".repeat(32), "2"]);
    assert_eq!(machine.json(&["repair"])["failed"], Value::from(Vec::<Value>::new()));

    let seeder = before["slots"][0]["seeder"].as_str().unwrap();
    let nodes = net.status()["nodes"].as_array().unwrap().clone();
    let id = |node: &Value| {
        let address = node["address"].as_str().unwrap();
        tallow_net::parse_bootstrap(address).unwrap().key.seeder().to_string()
    };
    let holder = nodes.iter().find(|node| id(node) == seeder).unwrap();
    send(holder["pid"].as_u64().unwrap(), Signal::KILL);
    let hurt = machine.json(&["stat"]);
    assert_eq!(hurt["healthy"], 4, "{hurt}");
    machine.json(&["get", "file", "-o", "back"]);
    assert_eq!(std::fs::read(machine.path("back")).unwrap(), noise(300_000, 4));
}

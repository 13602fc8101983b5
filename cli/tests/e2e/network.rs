//! Development networks: processes that live and die together, folders, ports, clocks.

use rustix::process::Signal;

use crate::harness::{Machine, Net, Told, finish, noise, runs, send, wait_until};

/// Goal: children end when their parent dies, however it dies. Method: kill -9 the supervisor and look for every process
/// until all are gone; then the folder can be brought up again.
#[test]
fn nodes_end_with_their_supervisor() {
    let machine = Machine::new();
    let net = Net::up(&machine);
    let pids = net.pids();
    assert_eq!(pids.len(), 7);
    assert!(pids.iter().all(|pid| runs(*pid, &net.dir)));
    send(pids[0], Signal::KILL);
    wait_until("all processes are gone", || pids.iter().all(|pid| !runs(*pid, &net.dir)));
    machine.run(&["ls"]).fails(3, &["is down", "hint: start it with: tallow dev up"]);
    let place = net.dir.to_str().unwrap();
    let again = machine.json(&["dev", "up", "--dir", place]);
    assert_eq!((&again["new"], &again["chain"]), (&false.into(), &net.up["chain"]));
    assert_eq!(again["network"], net.up["network"], "the addresses that people noted still hold");
}

/// Goal: `down` ends every process, a second `up` changes nothing, another plan is refused, and what is not there is said. Method: the
/// commands, in and out of order.
#[test]
fn up_and_down_in_and_out_of_order() {
    let machine = Machine::new();
    let place = machine.path("net").display().to_string();
    machine.run(&["dev", "status", "--dir", &place]).fails(1, &["there is no network", "tallow dev up"]);
    let net = Net::up_with(&machine, &["--seeders", "3"]);
    let pids = net.pids();
    let second = machine.json(&["dev", "up", "--dir", &place]);
    assert_eq!((&second["was_up"], &second["network"]), (&true.into(), &net.up["network"]));
    machine.run(&["dev", "up", "--dir", &place, "--seeders", "4"]).fails(1, &["made with 3 seeders"]);
    machine.run(&["dev", "up", "--dir", &place, "--rebuild-validator"]).fails(1, &["already up"]);
    assert_eq!(net.pids(), pids, "they changed nothing");
    net.down();
    assert!(pids.iter().all(|pid| !runs(*pid, &net.dir)), "down returns when all are gone");
    machine.run(&["dev", "up", "--dir", &place, "--seeders", "4"]).fails(1, &["made with 3 seeders"]);
    assert_eq!(machine.json(&["dev", "down", "--dir", &place])["was_up"], false);
    std::fs::write(machine.path("letter"), "dear").unwrap();
    let here = machine.path("").display().to_string();
    machine.run(&["dev", "up", "--dir", &here]).fails(1, &["holds other files"]);
}

/// Goal: a network goes on without a seeder's disk, and without its validator what is stored can be read. Method: delete a
/// seeder's folder while the network is down, start; kill the validator, read.
#[test]
fn lost_folders_and_a_lost_validator() {
    let machine = Machine::new();
    let net = Net::up(&machine);
    machine.json(&["wallet", "new"]);
    std::fs::write(machine.path("file"), noise(300_000, 4)).unwrap();
    machine.json(&["put", "file"]);
    net.down();
    std::fs::remove_dir_all(net.dir.join("seeder-03")).unwrap();
    let up = machine.json(&["dev", "up"]);
    assert_eq!(up["missing"], serde_json::json!([]), "the new seeder got money for its terms");
    assert_eq!(machine.json(&["stat"])["healthy"], 4);
    send(net.pids()[1], Signal::KILL);
    assert_eq!(machine.jsons(&["ls"]).len(), 1);
    machine.json(&["get", "file", "-o", "back"]);
    assert_eq!(std::fs::read(machine.path("back")).unwrap(), noise(300_000, 4));
}

/// Goal: a `dev up` that is stopped leaves no process, and the next one works. Method: Ctrl-C and kill -9 at once after
/// its supervisor is there.
#[test]
fn interrupted_starts_leave_nothing() {
    let machine = Machine::new();
    let dir = machine.path("net");
    let place = dir.display().to_string();
    let up = ["dev", "up", "--dir", &place, "--seeders", "2", "--profile", "1/2"];
    for (signal, code) in [(Signal::INT, Some(4)), (Signal::KILL, None)] {
        let child = machine.command(&up).spawn().unwrap();
        wait_until("a node is started", || dir.join("validator/log").exists());
        send(u64::from(child.id()), signal);
        assert_eq!(finish(child).code, code);
        wait_until("nothing runs", || {
            machine
                .run(&["--json", "dev", "down", "--dir", &place])
                .ok()
                .stdout
                .ends_with(b"\"was_up\":false}\n")
        });
        std::fs::remove_file(dir.join("validator/log")).unwrap();
    }
    machine.json(&up);
    machine.json(&["dev", "down", "--dir", &place]);
}

/// Goal: one home may have several networks, and goes back and forth between them. Method: two of them; each by its string
/// and by its folder.
#[test]
fn two_networks_in_one_home() {
    let machine = Machine::new();
    let small = ["--seeders", "2", "--profile", "1/2"];
    let first = Net::up_with(&machine, &small);
    let made = machine.json(&["wallet", "new"]);
    let other = machine.path("other").display().to_string();
    let second = machine.json(&[&["dev", "up", "--dir", &other][..], &small].concat());
    machine.run(&["wallet", "show"]).fails(2, &["there is no wallet"]);
    // Its password is found, though another network is the current one.
    let shown = machine.json(&["wallet", "show", "--network", &first.string()]);
    assert_eq!(shown["account"], made["account"]);
    machine.json(&["dev", "up", "--dir", first.dir.to_str().unwrap()]);
    assert_eq!(machine.json(&["wallet", "show"])["chain"], made["network"].as_str().unwrap()[7..71]);
    machine.json(&["dev", "down", "--dir", &other]);
    assert_ne!(second["chain"], first.up["chain"]);
}

/// Goal: epochs pass on request only where that was asked for, and not while the network is down. Method: tick, go down
/// and up, look.
#[test]
fn manual_clocks_tick() {
    let machine = Machine::new();
    let net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2", "--manual-clock"]);
    let before = net.status()["epoch"].as_u64().unwrap();
    assert_eq!(machine.json(&["dev", "tick", "3"])["epoch"].as_u64().unwrap(), before + 3);
    net.down();
    machine.run(&["dev", "up"]).ok();
    assert_eq!(net.status()["epoch"].as_u64().unwrap(), before + 3);
    let other = Machine::new();
    let _walls = Net::up_with(&other, &["--seeders", "2", "--profile", "1/2"]);
    other.run(&["dev", "tick", "1"]).fails(1, &["wall clock", "--manual-clock"]);
}

/// Goal: a port or a folder in use, and a network that is another, get a clear error. Method: a seeder in the way of one
/// that runs.
#[test]
fn seeders_say_what_is_in_the_way() {
    let machine = Machine::new();
    let net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2"]);
    let network = net.string();
    let address = network.split_once('@').unwrap().1.split("/p2p/").next().unwrap().to_owned();
    let own = machine.path("own").display().to_string();
    let run = ["seed", "run", "--network", &network, "--dir"];
    machine.run(&[&run[..], &[&own, "--listen", &address]].concat()).fails(1, &["in use", "--listen"]);
    let taken = net.dir.join("seeder-00").display().to_string();
    machine.run(&[&run[..], &[&taken]].concat()).fails(1, &["in use by another process", "--dir"]);
    machine.run(&[&run[..], &[&own, "--listen", "nonsense"]].concat()).fails(2, &["nonsense"]);
}

/// Goal: anybody with a disk and some money can store for others. Method: a seeder of its own joins, waits for money, gets
/// some, offers, and stops when it is told to.
#[test]
fn strangers_join_when_they_have_money() {
    let machine = Machine::new();
    let net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2"]);
    machine.json(&["wallet", "new"]);
    let own = machine.path("own").display().to_string();
    let network = net.string();
    let mut child =
        machine.command(&["--json", "seed", "run", "--dir", &own, "--network", &network]).spawn().unwrap();
    let told = Told::by(&mut child);
    let seed = told.next();
    assert_eq!((&seed["type"], &seed["free_units"]), (&"seed".into(), &serde_json::Value::Null));
    assert_eq!(machine.json(&["quote", "1MB"])["seeders"], 2);
    machine.json(&["wallet", "send", seed["account"].as_str().unwrap(), "10"]);
    assert_eq!(told.next()["type"], "seed-ready");
    assert_eq!(machine.json(&["quote", "1MB"])["seeders"], 3);
    send(u64::from(child.id()), Signal::INT);
    assert_eq!(finish(child).code, Some(0));
}

//! The demo: every step holds, and it leaves nothing behind, however it ends.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Machine, Told, finish, objects, plant_tree, runs, send, wait_until};

fn leftovers(machine: &Machine) -> usize {
    let entries = std::fs::read_dir(machine.path("")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("tallow-demo-")).count()
}

fn pids(step: &Value) -> Vec<u64> {
    step["facts"]["processes"].as_array().unwrap().iter().map(|pid| pid.as_u64().unwrap()).collect()
}

/// Goal: the demo shows what it says it shows, and cleans up. Method: run it on a small tree and read its steps.
#[test]
fn demo_holds_on_a_small_tree() {
    let machine = Machine::new();
    plant_tree(&machine.path("tree"));
    let ran = machine.run(&["--json", "demo", "tree"]).ok();
    let all = objects(&ran.stdout);
    let steps: Vec<&str> = all.iter().filter_map(|object| object["step"].as_str()).collect();
    let wanted =
        ["tree", "network", "wallet", "put", "holders", "search", "kill", "get", "one more", "clean-up"];
    assert_eq!(steps, wanted);
    assert!(all.iter().all(|object| object["ok"] == true));
    let step = |name: &str| all.iter().find(|object| object["step"] == name).unwrap()["facts"].clone();
    assert_eq!(step("holders").as_array().unwrap().len(), 12);
    assert!(step("search")["windows"].as_u64().unwrap() > 500_000, "{}", step("search"));
    assert!(step("search")["planted_found"].as_u64().unwrap() >= 2);
    assert_eq!(step("kill")["killed"].as_array().unwrap().len(), 8);
    assert_eq!(step("one more")["error"]["exit"], 3);
    let processes = pids(&all[1]);
    assert_eq!(processes.len(), 13);
    assert!(processes.iter().all(|pid| !runs(*pid, &machine.path(""))));
    assert_eq!(leftovers(&machine), 0);
}

/// Goal: nothing is left of a demo that dies without a chance to clean up. Method: kill -9 when its network is up, then
/// look for processes and files until they are gone. The same for Ctrl-C.
#[test]
fn demo_cleans_up_when_it_is_killed() {
    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(4))] {
        let machine = Machine::new();
        plant_tree(&machine.path("tree"));
        let mut child = machine.command(&["--json", "demo", "tree"]).spawn().unwrap();
        let told = Told::by(&mut child);
        let network = std::iter::repeat_with(|| told.next()).find(|object| object["step"] == "network");
        let processes = pids(&network.unwrap());
        assert_eq!(leftovers(&machine), 1);
        send(u64::from(child.id()), signal);
        assert_eq!(finish(child).code, code);
        wait_until("all processes are gone", || processes.iter().all(|pid| !runs(*pid, &machine.path(""))));
        wait_until("all files are gone", || leftovers(&machine) == 0);
    }
}

/// Goal: a demo without a tree says so before it starts anything. Method: a folder that is not there.
#[test]
fn demo_of_nothing_is_refused() {
    let machine = Machine::new();
    machine.run(&["demo", "absent"]).fails(1, &["absent"]);
    assert_eq!(leftovers(&machine), 0);
}

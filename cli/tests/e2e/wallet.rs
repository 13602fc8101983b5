//! Wallets: made, lost, restored on a bare machine, and the ways in which that goes wrong.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::{Machine, Net, noise, objects, plant_tree, snapshot};

fn words(made: &serde_json::Value) -> Vec<String> {
    made["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Goal: 24 words and one network string bring back everything: also when the validator's folder is lost and the network
/// goes on from a seeder's copy of the ledger. Method: a second machine with nothing but those, before and after.
#[test]
fn words_restore_everything_on_a_bare_machine() {
    let machine = Machine::new();
    let net = Net::up(&machine);
    let made = machine.json(&["wallet", "new"]);
    let phrase = format!("{}\n", words(&made).join(" "));
    plant_tree(&machine.path("tree"));
    machine.json(&["put", "tree"]);
    let before = machine.json(&["wallet", "show"]);

    let restore = |network: &str| {
        let bare = Machine::new();
        std::fs::write(bare.path("password"), "a password\n").unwrap();
        let password = bare.path("password").display().to_string();
        let args = ["--json", "--network", network, "--password-file", &password, "wallet", "restore"];
        let restored = objects(&bare.feed(&args, phrase.as_bytes()).ok().stdout).remove(0);
        assert_eq!(restored["account"], made["account"]);
        assert_eq!(restored["files"], 6);
        // The network that was named is the current one now.
        bare.json(&["--password-file", &password, "get", "tree", "-o", "back"]);
        assert_eq!(snapshot(&bare.path("back")), snapshot(&machine.path("tree")));
        restored
    };
    let restored = restore(&net.string());
    assert_eq!(restored["in_contracts_units"], before["in_contracts_units"]);

    net.down();
    std::fs::remove_dir_all(net.dir.join("validator")).unwrap();
    machine.run(&["dev", "up"]).fails(1, &["is lost", "--rebuild-validator"]);
    let up = machine.json(&["dev", "up", "--rebuild-validator"]);
    assert_eq!(up["chain"], net.up["chain"]);
    restore(up["network"].as_str().unwrap());
    // It takes new data too, and starts again in the usual way.
    std::fs::write(machine.path("more"), noise(10_000, 9)).unwrap();
    machine.json(&["put", "more"]);
    net.down();
    machine.run(&["dev", "up"]).ok();
    machine.json(&["get", "more", "-o", "more-back"]);
    assert_eq!(std::fs::read(machine.path("more-back")).unwrap(), noise(10_000, 9));
}

/// Goal: a wallet is private, opens with its own password only, and is never overwritten. Method: other passwords, other
/// bytes, a second `new`.
#[test]
fn wallets_are_locked() {
    let machine = Machine::new();
    let net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2"]);
    machine.run(&["ls"]).fails(2, &["there is no wallet", "tallow wallet new"]);
    std::fs::write(machine.path("right"), "right\n").unwrap();
    std::fs::write(machine.path("wrong"), "wrong\n").unwrap();
    std::fs::write(machine.path("empty"), "\n").unwrap();
    machine.run(&["wallet", "new", "--password-file", "empty"]).fails(1, &["empty"]);
    let made = machine.json(&["wallet", "new", "--password-file", "right"]);
    let file = made["file"].as_str().unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    let shown = machine.json(&["wallet", "show", "--password-file", "right"]);
    assert_eq!(shown["network"], net.up["network"]);
    assert_eq!(shown["free_units"], made["endowed_units"]);
    assert!(shown.get("words").is_none());
    let shown = machine.json(&["wallet", "show", "--phrase", "--password-file", "right"]);
    assert_eq!(words(&shown), words(&made));
    machine.feed(&["wallet", "show", "--password-file", "-"], b"right\n").ok();
    machine.run(&["wallet", "show", "--password-file", "wrong"]).fails(1, &["wrong password", "hint: "]);
    machine.run(&["wallet", "show", "--password-file", "absent"]).fails(2, &["absent"]);
    machine.run(&["wallet", "new"]).fails(1, &["already"]);

    // Damage is not called a wrong password.
    let mut bytes = std::fs::read(file).unwrap();
    bytes[90] ^= 1;
    std::fs::write(file, &bytes).unwrap();
    machine.run(&["wallet", "show", "--password-file", "right"]).fails(2, &["damaged", "wallet restore"]);
}

/// Goal: words that are no wallet's are refused with what is wrong, and leave no wallet behind. Method: too few, an unknown
/// word, two swapped, and good words that this network has never seen; then another network's id.
#[test]
fn wrong_words_leave_nothing() {
    let machine = Machine::new();
    let _net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2"]);
    let made = machine.json(&["wallet", "new"]);
    let file = std::path::PathBuf::from(made["file"].as_str().unwrap());
    std::fs::rename(&file, machine.path("aside")).unwrap();
    let mut words = words(&made);
    let restore =
        |words: &[String]| machine.feed(&["wallet", "restore"], format!("{}\n", words.join("\n")).as_bytes());
    restore(&words[..23]).fails(1, &["24 words", "23"]);
    let right = std::mem::replace(&mut words[4], "tallow".to_owned());
    restore(&words).fails(1, &["word 5"]);
    words[4] = if right == "zoo" { "abandon".to_owned() } else { "zoo".to_owned() };
    let ran = restore(&words);
    // One in 256 wrong words still has a right checksum; then it is a wallet that nobody has.
    if ran.code == Some(1) {
        ran.fails(1, &["don't belong together", "hint: it would fit if word"]);
    }
    let strange =
        ["abandon"; 23].map(str::to_owned).into_iter().chain(["art".to_owned()]).collect::<Vec<_>>();
    restore(&strange).fails(2, &["no account on network"]);
    assert!(!file.exists());
    words[4] = right;
    restore(&words).ok();
    assert!(file.exists());
}

/// Goal: a node of another network is refused, whatever the network string says. Method: one network's id with the other's
/// address.
#[test]
fn other_networks_are_refused() {
    let (machine, other) = (Machine::new(), Machine::new());
    let net = Net::up_with(&machine, &["--seeders", "2", "--profile", "1/2"]);
    let away = Net::up_with(&other, &["--seeders", "2", "--profile", "1/2"]);
    machine.json(&["wallet", "new"]);
    let (id, _) = net.string().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let mixed = format!("{id}@{}", away.string().split_once('@').unwrap().1);
    machine.run(&["wallet", "show", "--network", &mixed]).fails(2, &["network"]);
    machine.run(&["ls", "--network", &mixed]).fails(2, &["network"]);
    let ran = machine.run(&["ls", "--network", "tallow:nonsense"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(machine.jsons(&["ls"]).is_empty());
    machine.run(&["stat"]).fails(1, &["stored nothing", "put"]);
}

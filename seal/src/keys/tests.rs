use serde_json::Value;

use super::*;
use crate::phrase::Phrase;

fn seed(fill: u8) -> Seed {
    Seed::new(Zeroizing::new([fill; 64]))
}

/// Goal: a phrase gives the same keys forever. Method: every derived key against golden vectors made by other code.
#[test]
fn golden_vectors() {
    let vectors: Value =
        serde_json::from_slice(include_bytes!("../../../vectors/keys/keys.json")).expect("JSON");
    let phrases = vectors["phrases"].as_array().expect("a list");
    assert_eq!(phrases.len(), 3);
    for facts in phrases {
        let text = |facts: &Value, name: &str| facts[name].as_str().expect("a text").to_owned();
        let phrase = Phrase::parse(&text(facts, "phrase")).expect("a phrase");
        assert_eq!(hex::encode(*phrase.entropy()), text(facts, "entropy"));
        let seed = phrase.seed();
        assert_eq!(hex::encode(*seed.0), text(facts, "seed"));
        assert_eq!(seed.account().public().to_string(), text(facts, "account_public"));
        assert_eq!(seed.policy(), Policy::Key(seed.account().public()));
        for device in facts["devices"].as_array().expect("a list") {
            let number: u64 = text(device, "number").parse().expect("a number");
            assert_eq!(seed.device(number).public().to_string(), text(device, "public"));
        }
        assert_eq!(hex::encode(*seed.vrf()), text(facts, "vrf_seed"));
        let sharing = x25519_dalek::PublicKey::from(&seed.sharing());
        assert_eq!(hex::encode(sharing.as_bytes()), text(facts, "sharing_public"));
        for contract in facts["contracts"].as_array().expect("a list") {
            let number =
                |name: &str| u32::try_from(contract[name].as_u64().expect("a number")).expect("an index");
            let keys = seed.contract(number("index"), number("generation"));
            assert_eq!(hex::encode(*keys.catalog.content), text(contract, "content"));
            assert_eq!(hex::encode(*keys.catalog.ids), text(facts, "chunk_id_secret"));
            assert_eq!(hex::encode(keys.catalog.check().as_bytes()), text(contract, "content_check"));
            assert_eq!(hex::encode(keys.mask.expose()), text(contract, "mask_secret"));
            assert_eq!(hex::encode(*keys.repair.content), text(contract, "repair"));
            assert_eq!(hex::encode(*keys.repair.ids), text(contract, "repair_chunk_id_secret"));
            assert_eq!(hex::encode(keys.repair.check().as_bytes()), text(contract, "repair_check"));
        }
    }
}

/// Goal: no two purposes, contracts, generations or devices share a key. Method: derive many and compare all.
#[test]
fn keys_are_distinct() {
    let seed = seed(1);
    let mut all = vec![*seed.account().seed(), *seed.vrf(), seed.sharing().to_bytes()];
    all.extend([0, 1, 1 << 32, u64::MAX].map(|number| *seed.device(number).seed()));
    for (index, generation) in [(0, 0), (0, 1), (1, 0), (1, 1), (256, 0), (0, 256)] {
        let keys = seed.contract(index, generation);
        all.extend([*keys.catalog.content, *keys.catalog.nonces]);
        if generation == 0 {
            all.extend([*keys.mask.0, *keys.repair.content, *keys.repair.ids, *keys.repair.nonces]);
        }
    }
    all.push(*seed.contract(0, 0).catalog.ids);
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// Goal: a new generation changes what opens content, not what repairs it or names chunks. Method: compare the parts.
#[test]
fn generations_change_the_content_key_alone() {
    let seed = seed(2);
    let (old, new) = (seed.contract(5, 0), seed.contract(5, 1));
    assert_ne!(*old.catalog.content, *new.catalog.content);
    assert_ne!(old.catalog.check(), new.catalog.check());
    assert_eq!(*old.catalog.ids, *new.catalog.ids);
    assert_eq!(old.mask.expose(), new.mask.expose());
    assert_eq!(*old.repair.content, *new.repair.content);
}

/// Goal: the mask secret is all that a keeper needs. Method: rebuild the repair keys from its bytes.
#[test]
fn keeper_derives_the_repair_keys() {
    let keys = seed(3).contract(0, 0);
    let keeper = MaskSecret::new(Zeroizing::new(*keys.mask.expose())).repair_keys();
    assert_eq!(*keeper.content, *keys.repair.content);
    assert_eq!(*keeper.ids, *keys.repair.ids);
}

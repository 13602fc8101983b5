use proptest::prelude::*;

use super::*;

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).expect("hexadecimal of this length");
    out
}

/// Goal: the suite is vrf-r255 and nothing near it. Method: the test vector published with the suite.
#[test]
fn published_vector() {
    let secret =
        Secret::from_scalar(bytes("3431c2b03533e280b23232e280b34e2c3132c2b03238e280b23131e280b34500"))
            .expect("a scalar");
    let public = bytes("54136cd90d99fbd1d4e855d9556efea87ba0337f2a6ce22028d0f5726fcb854e");
    let input: [u8; 17] = bytes("633273702e6f72672f7672662d72323535");
    let proof: VrfProof = bytes(concat!(
        "0a97d961262fb549b4175c5117860f42ae44a123f93c476c439eddd1c0cff926",
        "5c805525233e2284dbed45e593b8eea31d5ca9734d72bcbba9738d5237f955f3",
        "b2422351149d1312503b6441a47c940c"
    ));
    let output: [u8; 64] = bytes(concat!(
        "dd653f0879b48c3ef69e13551239bec4cbcc1c18fe8894de2e9e1c790e182736",
        "03bf1c6c25d7a797aeff3c43fd32b974d3fcbd4bcce916007097922a3ea3a794"
    ));
    assert_eq!(R255::public(&secret), public);
    assert_eq!(R255::prove(&secret, &input), proof);
    assert_eq!(R255::verify(&public, &input, &proof), Some(output));
}

/// Goal: the chain's own bytes never change. Method: golden values of two links from a fixed seed.
#[test]
fn golden_chain() {
    let secret = R255::secret(&[7; 32]);
    let genesis = Digest::new([9; 32]);
    let share = prove(&secret, &genesis, Height::new(1));
    let first = advance(&genesis, Height::new(1), &R255::public(&secret), &share).expect("own share");
    let share = prove(&secret, &first, Height::new(2));
    let second = advance(&first, Height::new(2), &R255::public(&secret), &share).expect("own share");
    let golden = include_str!("../../../vectors/beacon/chain.txt");
    let expected: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!([first.to_string(), second.to_string()], expected[..]);
}

/// Goal: a share counts for one key, one beacon and one height. Method: change one thing at a time.
#[test]
fn share_is_bound_to_its_place() {
    let (secret, other) = (R255::secret(&[1; 32]), R255::secret(&[2; 32]));
    let (key, height, before) = (R255::public(&secret), Height::new(5), Digest::new([3; 32]));
    let share = prove(&secret, &before, height);
    assert!(advance(&before, height, &key, &share).is_ok());
    assert!(advance(&before, Height::new(6), &key, &share).is_err());
    assert!(advance(&Digest::new([4; 32]), height, &key, &share).is_err());
    assert!(advance(&before, height, &R255::public(&other), &share).is_err());
    assert!(advance(&before, height, &[0; 32], &share).is_err());
    assert!(advance(&before, height, &[0xff; 32], &share).is_err());
}

/// Goal: every seed is a key. Method: the seeds at the edges of the scalar range.
#[test]
fn every_seed_is_a_key() {
    for seed in [[0; 32], [0xff; 32], [0xf0; 32]] {
        let secret = R255::secret(&seed);
        let proof = R255::prove(&secret, b"x");
        assert!(R255::verify(&R255::public(&secret), b"x", &proof).is_some());
    }
    assert!(Secret::from_scalar([0; 32]).is_none());
    assert!(Secret::from_scalar([0xff; 32]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: no other bytes verify, and none panic. Method: flip one bit of a valid proof, or send garbage.
    #[test]
    fn damaged_proofs_are_refused(bit in 0usize..640, garbage in prop::array::uniform32(any::<u8>())) {
        let secret = R255::secret(&[1; 32]);
        let key = R255::public(&secret);
        let mut proof = R255::prove(&secret, b"input");
        proof[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(R255::verify(&key, b"input", &proof), None);
        proof[..32].copy_from_slice(&garbage);
        prop_assert_eq!(R255::verify(&key, b"input", &proof), None);
        prop_assert_eq!(R255::verify(&garbage, b"input", &proof), None);
    }
}

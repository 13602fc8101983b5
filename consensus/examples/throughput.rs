//! Measures an embedded validator on this machine's disk: time from asking to being in a durable block, one caller and
//! many. Run with `cargo run --release -p tallow-consensus --example throughput`.

use std::time::{Duration, Instant};

use tallow_consensus::{Clock, Options, validator};
use tallow_proofs::beacon::{R255, Vrf};
use tallow_types::params::{Genesis, Params, Validator};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::{Bounded, Fuel, Height, IdempotencyKey, TimeMs};

const CALLERS: u64 = 4_000;
const ALONE: u64 = 100;

fn transfer(genesis: &Genesis, key: &Keypair, id: u64) -> Transaction {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    let policy = Policy::Key(key.public());
    let to = Policy::Key(Keypair::from_seed(&[9; 32]).public()).account();
    let action = Action::Transfer { to, amount: Fuel::new(1) };
    let core = TxCore { policy, key: IdempotencyKey::new(bytes), expires: Height::new(10_000), action };
    core.sign(&genesis.chain(), &[key])
}

#[tokio::main]
async fn main() {
    let (key, vrf) = (Keypair::from_seed(&[1; 32]), R255::secret(&[1; 32]));
    let member = Validator { key: key.public(), vrf_key: R255::public(&vrf), weight: 1 };
    let owner = Keypair::from_seed(&[2; 32]);
    let account = Policy::Key(owner.public()).account();
    let genesis = Genesis {
        time: TimeMs::new(1),
        params: Params::dev(),
        validators: Bounded::new(vec![member]).expect("one"),
        endowments: Bounded::new(vec![(account, Fuel::new(1 << 80))]).expect("one"),
        salt: [0; 16],
    };
    let dir = tempfile::tempdir().expect("a folder");
    let seat = validator::open(dir.path(), &genesis, Options::default()).expect("opens");
    let config = validator::Config { signer: key, vrf, clock: Clock::Wall };
    let handle = validator::spawn(seat, config).expect("starts");

    let mut times: Vec<Duration> = Vec::new();
    for id in 0..ALONE {
        let tx = transfer(&genesis, &owner, id);
        let start = Instant::now();
        handle.submit(tx).await.expect("applied");
        times.push(start.elapsed());
    }
    times.sort();
    println!("one caller: median {:?}, slowest {:?}", times[times.len() / 2], times[times.len() - 1]);

    let txs: Vec<_> = (ALONE..ALONE + CALLERS).map(|id| transfer(&genesis, &owner, id)).collect();
    let (start, before) = (Instant::now(), handle.chain().status().height.get());
    let asks = txs.into_iter().map(|tx| {
        let handle = handle.clone();
        tokio::spawn(async move {
            while handle.submit(tx.clone()).await.is_err_and(|fault| fault.is_retryable()) {
                tokio::task::yield_now().await;
            }
        })
    });
    for ask in asks.collect::<Vec<_>>() {
        ask.await.expect("applied");
    }
    let (took, blocks) = (start.elapsed(), handle.chain().status().height.get() - before);
    println!(
        "{CALLERS} callers: {took:?} in {blocks} blocks, {:.0} a second",
        CALLERS as f64 / took.as_secs_f64()
    );
    handle.stop().await;
}

//! Contracts whose room is full.

use std::time::Duration;

use tallow_client::{Client, ContractPlan, Options, PutError, Tuning};
use tallow_types::Bytes;

use super::world::*;

/// Goal: a contract without room takes a removal, and then has room again. Method: blobs of every size until nothing fits; then
/// remove, and put once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_contracts_take_removals() {
    let world = World::new(6).await;
    let options = world.options(Some(world.path("device-1")), 1);
    let contract = ContractPlan { room: Some(Bytes::new(2 << 20)), ..options.contract };
    let tuning = Tuning { drop_grace: Duration::ZERO, ..options.tuning };
    let client = Client::open(Options { contract, tuning, ..options }).await.unwrap();
    let mut stored = 0;
    for len in [1_100_000, 100_000, 20_000] {
        loop {
            match write(&client, &stored.to_string(), noise(stored, len)).await {
                Ok(_) => stored += 1,
                Err(PutError::NoRoom { .. }) => break,
                Err(error) => panic!("{len}: {error}"),
            }
            assert!(stored < 200, "there is no end to it");
        }
    }
    assert!(stored > 4, "{stored}");
    for path in ["0", "1"] {
        client.rm(path, false).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    write(&client, "again", noise(999, 500_000)).await.unwrap();
    assert_eq!(read(&client, "again").await.unwrap(), noise(999, 500_000));
    client.close().await.unwrap();
}

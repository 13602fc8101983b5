//! Lanes of more leaves, and leases of more commits, than one message shows.

use tallow_client::{Client, Options, Tuning};
use tallow_types::DurationMs;
use tallow_types::limits::COMMIT_CHAIN_MAX;
use tallow_types::params::Params;

use super::world::*;

/// A client that shows a lane few leaves at a time.
async fn client(world: &World) -> Client {
    let options = world.options(Some(world.path("device-1")), 1);
    let tuning = Tuning { page_leaves: 5, ..options.tuning };
    Client::open(Options { tuning, ..options }).await.unwrap()
}

/// Goal: a new seeder takes a vacant slot, and one that lost its index comes back, however long the lane has become. Method:
/// more commits in one lease than a chain may have; two seeders more; one without its index; then only these are left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lanes_find_new_holders() {
    let mut world = World::with(4, Params { lease: DurationMs::new(30_000), ..Params::dev() }).await;
    let device = client(&world).await;
    let blobs = COMMIT_CHAIN_MAX as u64 + 6;
    for n in 0..blobs {
        write(&device, &n.to_string(), noise(n, 1_500)).await.unwrap();
    }
    world.add_seeder(4).await;
    world.add_seeder(5).await;
    let report = device.repair(silent()).await.unwrap();
    assert_eq!((&report.filled[..], &report.caught_up[..]), (&[4, 5][..], &[4, 5][..]), "{report:?}");
    let health = device.contract().await.unwrap();
    assert!(health.stripes >= blobs, "{health:?}");
    assert_eq!((health.held, health.healthy, health.width), (6, 6, 6));
    device.close().await.unwrap();
    drop(device);

    world.lose_index(0);
    let device = client(&world).await;
    let slot = world.slot_of(&device, 0).await;
    let report = device.repair(silent()).await.unwrap();
    assert_eq!(report.caught_up, [slot], "{report:?}");
    let health = device.contract().await.unwrap();
    assert_eq!((health.healthy, health.width), (6, 6));
    device.close().await.unwrap();

    for n in 1..5 {
        world.twin.kill(seeder_key(n));
    }
    let bare = world.bare(8).await;
    for n in [0, 1, blobs / 2, blobs - 1] {
        assert_eq!(read(&bare, &n.to_string()).await.unwrap(), noise(n, 1_500));
    }
}

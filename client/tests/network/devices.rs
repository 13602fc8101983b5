//! Two devices on one account.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tallow_client::Client;
use tallow_net::twin::Faults;

use super::world::*;

/// A path and what is there.
type Blob = (String, Vec<u8>);

/// Goal: two devices that write at the same time take turns, both get on, and everything acknowledged is there. Method: two
/// clients put in loops; read everything from a third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_take_turns() {
    let world = World::new(6).await;
    let clients = [world.client(1).await, world.client(2).await];
    write(&clients[0], "first", vec![1]).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let loops = clients.iter().cloned().enumerate().map(|(device, client)| {
        let stop = stop.clone();
        tokio::spawn(async move {
            let mut done = Vec::new();
            for n in 0..1_000u64 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (path, bytes) = (format!("{device}/{n}"), noise(n + 1_000 * device as u64, 3_000));
                write(&client, &path, bytes.clone()).await.unwrap();
                done.push((path, bytes));
            }
            client.close().await.unwrap();
            done
        })
    });
    let loops: Vec<_> = loops.collect();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for one in loops {
        let done = one.await.unwrap();
        assert!(done.len() >= 3, "one device got no turn: {}", done.len());
        all.extend(done);
    }
    let bare = world.bare(9).await;
    assert_eq!(bare.ls("", true).await.unwrap().len(), all.len() + 1);
    for (path, bytes) in all {
        assert_eq!(read(&bare, &path).await.unwrap(), bytes, "{path}");
    }
}

/// Goal: a device that dies while it writes blocks the other no longer than its lease, and nothing acknowledged is lost.
/// Method: kill one at several points of its work, the other goes on; read everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_device_is_followed() {
    let world = World::new(6).await;
    let survivor = world.client(2).await;
    write(&survivor, "first", vec![1]).await.unwrap();
    survivor.close().await.unwrap();
    let acknowledged: Arc<Mutex<Vec<Blob>>> = Arc::default();
    for (round, life_ms) in [30u64, 110, 190].into_iter().enumerate() {
        let (device, list) = (10 + round as u64, acknowledged.clone());
        let options = world.options(Some(world.path(&format!("device-{device}"))), device);
        // A runtime of its own, so that everything of the device stops at once.
        let doomed = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let client = Client::open(options).await.unwrap();
                let work = async {
                    for n in 0..1_000u64 {
                        let (path, bytes) = (format!("{device}/{n}"), noise(n + 1_000 * device, 20_000));
                        write(&client, &path, bytes.clone()).await.unwrap();
                        list.lock().unwrap().push((path, bytes));
                    }
                };
                // Its life begins with the first acknowledgement.
                write(&client, &format!("{device}/begin"), vec![1]).await.unwrap();
                let _cut = tokio::time::timeout(Duration::from_millis(life_ms), work).await;
                std::mem::forget(client);
            });
            runtime.shutdown_background();
        });
        doomed.join().unwrap();
        let began = Instant::now();
        let path = format!("survivor/{round}");
        write(&survivor, &path, noise(round as u64, 5_000)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "blocked for {:?}", began.elapsed());
        acknowledged.lock().unwrap().push((path, noise(round as u64, 5_000)));
        survivor.close().await.unwrap();
    }
    let all = acknowledged.lock().unwrap().clone();
    assert!(all.len() > 5, "the doomed ones got nothing done");
    for (path, bytes) in all {
        assert_eq!(read(&survivor, &path).await.unwrap(), bytes, "{path}");
    }
}

/// Waits in the middle of its bytes until it is told to go on.
struct Paused {
    bytes: std::io::Cursor<Vec<u8>>,
    at: u64,
    reached: std::sync::mpsc::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl std::io::Read for Paused {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.position() >= self.at {
            self.at = u64::MAX;
            self.reached.send(()).unwrap();
            self.go_on.recv().unwrap();
        }
        let take = buf.len().min(64 << 10);
        self.bytes.read(&mut buf[..take])
    }
}

/// Goal: a put whose lease is taken away in the middle gets it back and succeeds. Method: the account releases it behind
/// the device's back, and another device writes something, while the source pauses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_is_regained() {
    let world = World::new(6).await;
    let (client, other) = (world.client(1).await, world.client(2).await);
    write(&client, "first", vec![1]).await.unwrap();
    let bytes = noise(3, 5_000_000);
    let (reached, is_reached) = std::sync::mpsc::channel();
    let (go, go_on) = std::sync::mpsc::channel();
    let source = Paused { bytes: std::io::Cursor::new(bytes.clone()), at: 2_500_000, reached, go_on };
    let putting = client.clone();
    let put = tokio::spawn(async move {
        putting.put(tallow_client::Source::reader(Box::new(source)), "blob", silent()).await
    });
    tokio::task::spawn_blocking(move || is_reached.recv().unwrap()).await.unwrap();
    world.release_lease(tallow_client::Identity::new(seed(2), 1).device().public()).await;
    write(&other, "between", vec![2]).await.unwrap();
    other.close().await.unwrap();
    go.send(()).unwrap();
    let report = put.await.unwrap().unwrap();
    assert!(usize::from(report.signers) >= QUORUM, "{report:?}");
    assert_eq!(read(&world.bare(9).await, "blob").await.unwrap(), bytes);
    assert_eq!(client.ls("", true).await.unwrap().len(), 3);
    client.close().await.unwrap();
}

/// Tells when a put asks for its commit.
struct Teller(std::sync::mpsc::Sender<()>);

impl tallow_client::Progress for Teller {
    fn stage(&self, stage: tallow_client::Stage) {
        if stage == tallow_client::Stage::Committing {
            let _gone = self.0.send(());
        }
    }
}

/// Goal: a lease that goes while a put waits for its last stripes is had again by whoever waits. Method: half of the
/// seeders answer late, and the account releases the lease once the put asks for its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lost_before_the_commit_is_regained() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "first", vec![1]).await.unwrap();
    for n in 0..3 {
        let delay = Duration::from_millis(450)..Duration::from_millis(500);
        world.twin.set_faults(seeder_key(n), Faults { delay, ..Faults::default() });
    }
    let bytes = noise(3, 700_000);
    let (asks, has_asked) = std::sync::mpsc::channel();
    let (putting, content) = (client.clone(), std::io::Cursor::new(bytes.clone()));
    let put = tokio::spawn(async move {
        let source = tallow_client::Source::reader(Box::new(content));
        putting.put(source, "blob", Arc::new(Teller(asks))).await
    });
    tokio::task::spawn_blocking(move || has_asked.recv().unwrap()).await.unwrap();
    world.release_lease(tallow_client::Identity::new(seed(2), 1).device().public()).await;
    let report = tokio::time::timeout(Duration::from_secs(9), put).await.expect("in time").unwrap();
    assert!(usize::from(report.unwrap().signers) >= QUORUM);
    assert_eq!(read(&world.bare(9).await, "blob").await.unwrap(), bytes);
    client.close().await.unwrap();
}

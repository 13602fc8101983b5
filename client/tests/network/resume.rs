//! Interrupted puts go on where they stopped.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tallow_client::{Client, Progress, PutError, Source};

use super::world::*;

/// Gives its bytes up to a point, then waits to be cut off, and fails.
struct Stuck {
    cut: Arc<AtomicBool>,
    bytes: std::io::Cursor<Vec<u8>>,
    given: Arc<AtomicU64>,
    stop: u64,
}

impl Read for Stuck {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.position() >= self.stop {
            std::thread::yield_now();
            let is_cut = self.cut.load(Ordering::Relaxed);
            return Err(if is_cut {
                std::io::ErrorKind::BrokenPipe
            } else {
                std::io::ErrorKind::Interrupted
            }
            .into());
        }
        let take = buf.len().min(64 << 10);
        let read = self.bytes.read(&mut buf[..take])?;
        self.given.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Goal: a put that is cut off resumes: nothing is visible before, and nothing that was acknowledged is sent again.
/// Method: a stream that stops at a random point, the call dropped and its client with it; then the whole stream by a new
/// client of the same folder; count what seeders stored in all, against a put that nothing interrupts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_twice() {
    let undisturbed = {
        let world = World::new(6).await;
        let client = world.client(1).await;
        write(&client, "first", vec![1]).await.unwrap();
        let before = world.stored();
        write(&client, "blob", noise(5, 6_000_000)).await.unwrap();
        client.close().await.unwrap();
        world.stored() - before
    };
    for stop in [1_300_000u64, 4_700_000] {
        let world = World::new(6).await;
        let client = world.client(1).await;
        write(&client, "first", vec![1]).await.unwrap();
        let before = world.stored();
        let bytes = noise(5, 6_000_000);
        let given = Arc::new(AtomicU64::new(0));
        let cut_off = Arc::new(AtomicBool::new(false));
        let stuck = Stuck {
            cut: cut_off.clone(),
            bytes: std::io::Cursor::new(bytes.clone()),
            given: given.clone(),
            stop,
        };
        let put = client.put(Source::reader(Box::new(stuck)), "blob", silent());
        // Until the stream is stuck, and what was read of it is stored.
        let is_stuck = async {
            let mut seen = Vec::new();
            while given.load(Ordering::Relaxed) < stop || !seen.ends_with(&[world.stored(); 10]) {
                seen.push(world.stored());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = put => panic!("it must have been cut off: {ended:?}"),
            () = is_stuck => cut_off.store(true, Ordering::Relaxed),
        }
        assert!(world.stored() > before, "something was sent before the cut");
        assert_eq!(client.ls("", true).await.unwrap().len(), 1, "nothing is half visible");
        drop(client);
        let client = reopen(&world).await;
        let report = write(&client, "blob", bytes.clone()).await.unwrap();
        assert_eq!(report.signers, 6, "{report:?}");
        assert_eq!(read(&client, "blob").await.unwrap(), bytes);
        client.close().await.unwrap();
        // Records of one more commit, and nothing of the blob.
        let sent = world.stored() - before;
        assert!(
            sent <= undisturbed + 250_000,
            "stopped at {stop}: {sent} sent in all, {undisturbed} undisturbed"
        );
    }
}

/// The old client's tasks may hold the folder for a moment after the drop.
async fn reopen(world: &World) -> Client {
    for _ in 0..200 {
        let options = world.options(Some(world.path("device-1")), 1);
        match Client::open(options).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the folder stays locked");
}

/// Appends to a file whenever bytes of the put are read.
struct Meddler(std::path::PathBuf);

impl Progress for Meddler {
    fn plain(&self, _bytes: u64) {
        use std::io::Write as _;
        std::fs::File::options().append(true).open(&self.0).unwrap().write_all(b"x").unwrap();
    }
}

/// Goal: a file that changes while it is read is not stored as something that it never was. Method: a listener that writes to
/// one file of a tree, and to a file alone, whenever something is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_files_are_reported() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let root = world.path("tree");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("calm"), b"calm").unwrap();
    std::fs::write(root.join("busy"), noise(1, 3_000_000)).unwrap();
    let meddler: Arc<dyn Progress> = Arc::new(Meddler(root.join("busy")));
    let report = client.put(Source::path(&root), "tree", meddler.clone()).await.unwrap();
    assert_eq!(report.skipped.len(), 1, "{report:?}");
    assert!(report.skipped[0].reason.contains("changed while it was read"));
    let alone = client.put(Source::path(root.join("busy")), "busy", meddler).await;
    assert!(matches!(alone, Err(PutError::Changed { .. })), "{alone:?}");
    let listed: Vec<_> = client.ls("", true).await.unwrap().into_iter().map(|one| one.path).collect();
    assert_eq!(listed, ["tree", "tree/calm"]);
    client.close().await.unwrap();
}

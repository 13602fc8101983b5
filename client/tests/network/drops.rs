//! Stripes that nothing refers to any more are dropped, and none that a put under way will name.

use std::io::Read;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tallow_client::{Client, Source};

use super::world::*;

/// A stream that is fed piece by piece.
pub struct Fed {
    pieces: Receiver<Vec<u8>>,
    rest: std::io::Cursor<Vec<u8>>,
}

impl Fed {
    pub fn new() -> (Sender<Vec<u8>>, Self) {
        let (feed, pieces) = channel();
        (feed, Self { pieces, rest: std::io::Cursor::default() })
    }
}

impl Read for Fed {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(buf)?;
        if read > 0 {
            return Ok(read);
        }
        let Ok(piece) = self.pieces.recv() else { return Ok(0) };
        self.rest = std::io::Cursor::new(piece);
        self.rest.read(buf)
    }
}

/// A client that drops what is dead at once, and names settled stripes at once.
async fn hasty(world: &World, device: u64) -> Client {
    let mut options = world.options(Some(world.path(&format!("device-{device}"))), device);
    options.tuning.drop_grace = Duration::ZERO;
    options.tuning.checkpoint_stripes = 1;
    Client::open(options).await.unwrap()
}

/// Waits until commits name so many bytes over all slots.
async fn named(client: &Client, bytes: u64) {
    let waited = async {
        while client.contract().await.unwrap().stored.get() < bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waited).await.expect("checkpoints are made");
}

/// Goal: stripes of a long put are not dropped while it is under way, however many others commit meanwhile. Method: no
/// grace; half of a stream, small puts beside it, the other half; read from a bare machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_under_way_keep_their_stripes() {
    let world = World::new(6).await;
    let client = hasty(&world, 1).await;
    write(&client, "first", vec![1]).await.unwrap();
    let bytes = noise(1, 4_000_000);
    let (feed, fed) = Fed::new();
    let long = {
        let client = client.clone();
        tokio::spawn(async move { client.put(Source::reader(Box::new(fed)), "long", silent()).await })
    };
    feed.send(bytes[..2_500_000].to_vec()).unwrap();
    named(&client, 3_000_000).await;
    for n in 0..3 {
        write(&client, "small", vec![n]).await.unwrap();
    }
    feed.send(bytes[2_500_000..].to_vec()).unwrap();
    drop(feed);
    long.await.unwrap().unwrap();
    assert_eq!(read(&world.bare(9).await, "long").await.unwrap(), bytes);
    client.close().await.unwrap();
}

/// Goal: a put whose stripes another device dropped is never acknowledged, and works when it is made again. Method: as above,
/// with the small puts from a second device.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_notice_dropped_stripes() {
    let world = World::new(6).await;
    let (client, other) = (hasty(&world, 1).await, hasty(&world, 2).await);
    write(&client, "first", vec![1]).await.unwrap();
    let bytes = noise(1, 4_000_000);
    let (feed, fed) = Fed::new();
    let long = {
        let client = client.clone();
        tokio::spawn(async move { client.put(Source::reader(Box::new(fed)), "long", silent()).await })
    };
    feed.send(bytes[..2_500_000].to_vec()).unwrap();
    named(&client, 3_000_000).await;
    for n in 0..3 {
        write(&other, "small", vec![n]).await.unwrap();
    }
    other.close().await.unwrap();
    feed.send(bytes[2_500_000..].to_vec()).unwrap();
    drop(feed);
    if long.await.unwrap().is_err() {
        write(&client, "long", bytes.clone()).await.unwrap();
    }
    assert_eq!(read(&world.bare(9).await, "long").await.unwrap(), bytes);
    client.close().await.unwrap();
}

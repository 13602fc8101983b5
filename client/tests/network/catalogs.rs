//! Catalogs that have a history: snapshots, restores, folders of earlier versions.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tallow_client::{Client, GetOptions, GetTarget, Listed, Source};

use super::drops::Fed;
use super::world::*;

async fn all(client: &Client) -> Vec<Listed> {
    let listing = client.list("", true).await.unwrap();
    listing.collect::<Result<_, _>>().unwrap()
}

/// Writes a folder of files that live in the catalog, different in every round.
fn make(root: &std::path::Path, count: usize, round: u64) {
    for number in 0..count {
        let folder = root.join(format!("{:02}", number / 50));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = noise(round * 100_000 + number as u64, 700 + number % 200);
        std::fs::write(folder.join(format!("{number:04}")), bytes).unwrap();
    }
}

/// Goal: after snapshots, what a bare machine finds is what the writer knows, and what the writer's own folder says after a
/// restart; the log stays short. Method: a folder that is stored again and again with other content, so that its log is
/// several times its table; blobs removed in between; compare listings, contents, and the writer's next commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_restored() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let tree = world.path("tree");
    for round in 0..7 {
        make(&tree, 400, round);
        client.put(Source::path(&tree), "tree", silent()).await.unwrap();
        client.rm(&format!("tree/03/{:04}", 150 + round), false).await.unwrap();
        std::fs::remove_file(tree.join(format!("03/{:04}", 150 + round))).unwrap();
        write(&client, &format!("more/{round}"), noise(round, 5000)).await.unwrap();
    }
    let known = all(&client).await;
    client.close().await.unwrap();
    drop(client);
    let bare = world.bare(2).await;
    assert_eq!(all(&bare).await, known);
    let back = world.path("back");
    bare.get("tree", GetTarget::Path(back.clone()), GetOptions::default(), silent()).await.unwrap();
    for file in known.iter().filter(|file| file.path.starts_with("tree/") && file.path.len() > 8) {
        let relative = file.path.strip_prefix("tree/").unwrap();
        assert_eq!(std::fs::metadata(back.join(relative)).unwrap().len(), file.size, "{relative}");
    }
    let again = world.client(1).await;
    assert_eq!(all(&again).await, known);
    write(&again, "last", noise(99, 2000)).await.unwrap();
    assert_eq!(all(&bare).await, all(&again).await);
    assert_eq!(all(&bare).await.len(), known.len() + 1);
    assert_eq!(read(&bare, "more/3").await.unwrap(), noise(3, 5000));
    again.close().await.unwrap();
    let listing = again.list("tree/00", false).await.unwrap();
    drop(again);
    assert_eq!(listing.count(), 50);
}

/// Goal: a put is not in its own way when the client's folder knows less than the seeders: what it sent is in a commit, and
/// the journal says that it is on its way. Method: copy the folder's file while the stripes of a put wait for their commit;
/// let it end, put the copy back, and put the same again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_may_fall_behind() {
    let world = World::new(6).await;
    let dir = world.path("device-1");
    let mut options = world.options(Some(dir.clone()), 1);
    (options.tuning.checkpoint_stripes, options.tuning.checkpoint_after) =
        (1000, Some(Duration::from_secs(60)));
    let client = Client::open(options).await.unwrap();
    write(&client, "first", vec![1]).await.unwrap();
    let (bytes, before) = (noise(3, 3_000_000), world.stored());
    let (feed, fed) = Fed::new();
    let put = {
        let client = client.clone();
        tokio::spawn(async move { client.put(Source::reader(Box::new(fed)), "blob", silent()).await })
    };
    feed.send(bytes[..2_500_000].to_vec()).unwrap();
    let sent = async {
        while world.stored() < before + 3 * 1_500_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), sent).await.expect("stripes are sent as they fill");
    let behind = std::fs::read(dir.join("client.redb")).unwrap();
    feed.send(bytes[2_500_000..].to_vec()).unwrap();
    drop(feed);
    put.await.unwrap().unwrap();
    client.close().await.unwrap();
    drop(client);
    std::fs::write(dir.join("client.redb"), behind).unwrap();
    let client = world.client(1).await;
    assert_eq!(write(&client, "blob", bytes.clone()).await.unwrap().signers, 6);
    assert_eq!(read(&client, "blob").await.unwrap(), bytes);
    client.close().await.unwrap();
}

/// Goal: the client's folder is its owner's alone. Method: a folder made with other rights; look at them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_are_private() {
    let world = World::new(6).await;
    let dir = world.path("device-1");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::File::create(dir.join("client.redb")).unwrap();
    let client = world.client(1).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("client.redb"))), (0o700, 0o600));
    drop(client);
}

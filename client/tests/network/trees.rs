//! Trees go in and come back.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tallow_client::{
    Explain as _, GetError, GetOptions, GetTarget, Kind, ListedKind, PutError, SessionError, Source,
};

use super::world::*;

fn make_tree(root: &std::path::Path) {
    std::fs::create_dir_all(root.join("empty/inner")).unwrap();
    std::fs::create_dir_all(root.join("many")).unwrap();
    for (name, len) in [
        ("zero", 0),
        ("one", 1),
        ("inline", 1024),
        ("small", 1025),
        ("middle", 300_000),
        ("large", 3_000_000),
    ] {
        std::fs::write(root.join(name), noise(len as u64, len)).unwrap();
    }
    for n in 0..40 {
        std::fs::write(root.join(format!("many/{n}")), noise(n, 4096)).unwrap();
    }
    std::os::unix::fs::symlink("../nowhere", root.join("link")).unwrap();
    std::fs::set_permissions(root.join("small"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(root.join("empty/inner"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let file = std::fs::File::options().append(true).open(root.join("one")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH - Duration::from_millis(1_500)).unwrap();
}

/// Goal: a tree with everything odd in it comes back byte for byte, mode for mode, time for time, and a second put sends
/// nothing again. Method: put, get elsewhere, compare; list; put again and count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_come_back() {
    let world = World::new(6).await;
    let (from, to) = (world.path("from"), world.path("to"));
    make_tree(&from);
    let client = world.client(1).await;
    let report = client.put(Source::path(&from), "home/tree", silent()).await.unwrap();
    assert_eq!((report.files, report.folders, report.links), (46, 4, 1));
    assert!(report.skipped.is_empty() && report.lost.is_empty(), "{report:?}");
    assert_eq!((report.signers, report.slots), (6, 6));
    let got =
        client.get("home/tree", GetTarget::Path(to.clone()), GetOptions::default(), silent()).await.unwrap();
    assert_eq!((got.files, got.folders, got.links), (46, 4, 1));
    assert!(got.notes.is_empty() && got.bad.is_empty(), "{got:?}");
    assert_eq!(picture(&from), picture(&to));

    let again = client.get("home/tree", GetTarget::Path(to), GetOptions::default(), silent()).await;
    assert!(matches!(again, Err(GetError::Exists { .. })));
    let top = client.ls("", false).await.unwrap();
    assert_eq!(top.len(), 1);
    assert_eq!((top[0].path.as_str(), &top[0].kind), ("home", &ListedKind::Folder));
    assert_eq!(client.ls("home/tree", true).await.unwrap().len(), 51);
    let missing = client.stat("home/tree/larg").await;
    assert!(matches!(missing, Err(GetError::NotFound { near, .. }) if near == ["home/tree/large"]));

    let before = world.stored();
    let report = client.put(Source::path(&from), "copy", silent()).await.unwrap();
    assert!(report.bytes - report.reused < 60_000, "{report:?}");
    assert!(world.stored() - before < 400_000, "only records are sent");
    let stat = client.stat("home/tree/large").await.unwrap();
    assert_eq!((stat.files, stat.bytes), (1, 3_000_000));
    let contract = stat.contract;
    assert_eq!((contract.held, contract.healthy, contract.width, contract.can_lose), (6, 6, 6, 4));
    assert!(contract.paid_until.is_some() && contract.fuel.get() > 0);
    client.close().await.unwrap();
}

/// Goal: what a put holds more than once is stored once and counted, though its chunks are sealed side by side. Method: equal
/// large files and equal small ones in one tree; count what was reused, and read back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_within_a_put_are_stored_once() {
    let world = World::new(6).await;
    let (from, to) = (world.path("from"), world.path("to"));
    std::fs::create_dir(&from).unwrap();
    for n in 0..3 {
        std::fs::write(from.join(format!("large-{n}")), noise(1, 2_000_000)).unwrap();
    }
    for n in 0..30 {
        std::fs::write(from.join(format!("small-{n}")), noise(2, 5_000)).unwrap();
    }
    let client = world.client(1).await;
    let report = client.put(Source::path(&from), "copies", silent()).await.unwrap();
    assert_eq!(report.bytes, 3 * 2_000_000 + 30 * 5_000);
    assert_eq!(report.reused, 2 * 2_000_000 + 29 * 5_000);
    client.get("copies", GetTarget::Path(to.clone()), GetOptions::default(), silent()).await.unwrap();
    assert_eq!(picture(&from), picture(&to));
    client.close().await.unwrap();
}

/// Goal: ranges give their bytes and fetch no more than they touch. Method: ranges over a multi-stripe blob; count reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_served() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let bytes = noise(7, 2_000_000);
    write(&client, "blob", bytes.clone()).await.unwrap();
    write(&client, "inline", b"short".to_vec()).await.unwrap();
    for range in [0..1, 0..0, 999_999..1_300_001, 1_999_999..2_000_000, 5..2_000_000] {
        let mut out = Vec::new();
        client.get_to("blob", Some(range.clone()), &mut out, silent()).await.unwrap();
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert!(out == bytes[start..end], "{range:?}");
    }
    let mut out = Vec::new();
    client.get_to("inline", Some(1..3), &mut out, silent()).await.unwrap();
    assert_eq!(out, b"ho");
    let beyond = client.get_to("blob", Some(2_000_001..2_000_002), &mut out, silent()).await;
    assert!(matches!(beyond, Err(GetError::BadRange { size: 2_000_000, .. })));
    client.close().await.unwrap();
}

/// Goal: from the seed alone a bare machine finds everything, also with n - k seeders dead. Method: a new client without
/// a folder, before and after the kills; a seed that was never used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_needs_only_the_seed() {
    let world = World::new(6).await;
    let (from, to) = (world.path("from"), world.path("to"));
    make_tree(&from);
    let client = world.client(1).await;
    client.put(Source::path(&from), "tree", silent()).await.unwrap();
    write(&client, "second", noise(9, 700_000)).await.unwrap();
    client.close().await.unwrap();
    drop(client);
    for n in 0..4 {
        world.twin.kill(seeder_key(n));
    }
    let bare = world.bare(77).await;
    let found = bare.restore(silent()).await.unwrap();
    assert_eq!((found.files, found.contracts.len()), (47, 1));
    assert!(found.balance.free.get() > 0 && found.balance.in_contracts.get() > 0);
    bare.get("tree", GetTarget::Path(to.clone()), GetOptions::default(), silent()).await.unwrap();
    assert_eq!(picture(&from), picture(&to));

    let mut options = world.options(None, 5);
    options.identity = tallow_client::Identity::new(seed(9), 5);
    options.transport = std::sync::Arc::new(world.twin.join(options.identity.device().public(), None));
    let stranger = tallow_client::Client::open(options).await.unwrap();
    let nothing = stranger.restore(silent()).await.unwrap_err();
    assert!(matches!(nothing, SessionError::NoAccount(chain) if chain == world.chain.id()));
    assert_eq!(nothing.kind(), Kind::Config);
    assert!(matches!(stranger.ls("", false).await, Err(GetError::Session(SessionError::NoAccount(_)))));
}

/// Goal: many small puts at once share commits, and each is acknowledged for itself. Method: 64 at once, count commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_puts_share_commits() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "first", vec![1]).await.unwrap();
    let puts = (0..64u64).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { write(&client, &format!("many/{n}"), noise(n, 4096)).await })
    });
    for put in puts.collect::<Vec<_>>() {
        assert_eq!(put.await.unwrap().unwrap().signers, 6);
    }
    let commits = client.contract().await.unwrap().commit.unwrap().sequence.get();
    assert!(commits <= 20, "{commits} commits for 65 puts");
    for n in 0..64 {
        assert_eq!(read(&client, &format!("many/{n}")).await.unwrap(), noise(n, 4096));
    }
    client.close().await.unwrap();
}

/// Goal: bad sources and names are said by name, and nothing is stored. Method: each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_named() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let missing = client.put(Source::path(world.path("nothing")), "x", silent()).await;
    assert!(matches!(missing, Err(PutError::Source { .. })));
    let socket = world.path("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(
        client.put(Source::path(&socket), "x", silent()).await,
        Err(PutError::OddSource { .. })
    ));
    for bad in ["../x", "/x", "a//b", "a/./b", "a\0b"] {
        let refused = write(&client, bad, vec![1]).await;
        assert!(matches!(refused, Err(PutError::BadPath { .. })), "{bad}");
    }
    write(&client, "file", vec![1]).await.unwrap();
    assert!(matches!(write(&client, "file/below", vec![1]).await, Err(PutError::BadPath { .. })));
    assert_eq!(client.ls("", true).await.unwrap().len(), 1);
    let unwritable = GetTarget::Path("/proc/nowhere/x".into());
    let refused = client.get("file", unwritable, GetOptions::default(), silent()).await;
    assert!(matches!(refused, Err(GetError::Target { .. })), "{refused:?}");
    client.close().await.unwrap();
}

/// Goal: what is removed is gone at once, for all devices, and its space after the grace; what shares chunks stays. Method:
/// two copies, one removed, then the other; look at the lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_blobs_free_their_space() {
    let world = World::new(6).await;
    let mut options = world.options(Some(world.path("device")), 1);
    options.tuning.drop_grace = Duration::ZERO;
    let client = tallow_client::Client::open(options).await.unwrap();
    let bytes = noise(1, 2_000_000);
    write(&client, "a/one", bytes.clone()).await.unwrap();
    write(&client, "a/two", bytes.clone()).await.unwrap();
    assert!(matches!(client.rm("a", false).await, Err(GetError::NotAFile { .. })));
    let removed = client.rm("a/one", false).await.unwrap();
    assert_eq!((removed.entries, removed.bytes), (1, 2_000_000));
    write(&client, "b", vec![2]).await.unwrap();
    assert_eq!(read(&client, "a/two").await.unwrap(), bytes);
    assert!(client.contract().await.unwrap().stored.get() > 6_000_000);
    client.rm("a", true).await.unwrap();
    for n in 0..3 {
        write(&client, "b", vec![n]).await.unwrap();
    }
    let stored = client.contract().await.unwrap().stored.get();
    assert!(stored < 1_000_000, "{stored}");
    let bare = world.bare(3).await;
    assert_eq!(read(&bare, "b").await.unwrap(), [2]);
    assert!(matches!(read(&bare, "a/two").await, Err(GetError::NotFound { .. })));
    // The bare machine can write too, although lanes have holes by now.
    write(&bare, "c", noise(3, 10_000)).await.unwrap();
    assert_eq!(read(&client, "c").await.unwrap(), noise(3, 10_000));
    bare.close().await.unwrap();
}

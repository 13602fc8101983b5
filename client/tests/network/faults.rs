//! Seeders that fail, lie or die.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tallow_client::{Explain as _, GetError, Kind, PutError, SessionError};
use tallow_net::twin::Faults;

use super::world::*;

/// Goal: any k seeders are enough to read, one fewer gives a clear error. Method: kill n - k, read; kill one more, read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k_seeders_are_enough() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let bytes = noise(1, 1_500_000);
    write(&client, "blob", bytes.clone()).await.unwrap();
    client.close().await.unwrap();
    for n in [0, 2, 3, 5] {
        world.twin.kill(seeder_key(n));
    }
    assert_eq!(read(&client, "blob").await.unwrap(), bytes);
    world.twin.kill(seeder_key(4));
    let error = read(&client, "blob").await.unwrap_err();
    let GetError::Session(SessionError::Unreadable { what, have: 1, need: 2, failed }) = &error else {
        panic!("{error}");
    };
    assert_eq!((what.as_str(), failed.len(), error.kind()), ("blob", 5, Kind::Unavailable));
    assert!(error.to_string().starts_with("can't read blob: 1 of 2 needed slices reachable"), "{error}");
    let report = client.contract().await.unwrap();
    assert_eq!((report.held, report.healthy, report.can_lose), (6, 1, 0));
}

/// Goal: seeders that answer garbage, wrong bytes, too little, too much, or never, are survived, named and done without
/// while k good ones are left. Method: one fault at a time at n - k seeders, a bare machine reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_are_survived() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let bytes = noise(1, 1_200_000);
    write(&client, "blob", bytes.clone()).await.unwrap();
    client.close().await.unwrap();
    let always = 1_000;
    let faults = [
        ("garbage", Faults { garbage: always, ..Faults::default() }),
        ("corrupt", Faults { corrupt: always, ..Faults::default() }),
        ("truncated", Faults { truncate: always, ..Faults::default() }),
        ("too long", Faults { too_long: always, ..Faults::default() }),
        ("silent", Faults { silent: true, ..Faults::default() }),
    ];
    for (device, (name, fault)) in (100..).zip(faults) {
        for n in 0..4 {
            world.twin.set_faults(seeder_key(n), fault.clone());
        }
        let bare = world.bare(device).await;
        let mut out = Vec::new();
        let report = bare.get_to("blob", None, &mut out, silent()).await;
        let report = report.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(out == bytes, "{name}");
        assert!(!report.bad.is_empty(), "{name}: nobody was named");
        let faulty: Vec<String> = (0..4).map(|n| seeder_key(n).seeder().short()).collect();
        assert!(report.bad.iter().all(|blame| faulty.contains(&blame.seeder)), "{name}: {:?}", report.bad);
    }
}

/// Goal: seeders that keep their lanes to themselves can't pass noise for slices. Method: those with the first slots do
/// so, as many as may fail; a bare machine reads and writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_from_unknown_lanes_is_survived() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let bytes = noise(1, 1_200_000);
    write(&client, "blob", bytes.clone()).await.unwrap();
    client.close().await.unwrap();
    for n in 0..6 {
        if world.slot_of(&client, n).await < 2 {
            world.services[usize::from(n)].lies.store(true, Ordering::Relaxed);
        }
    }
    let bare = world.bare(7).await;
    assert!(read(&bare, "blob").await.unwrap() == bytes);
    write(&bare, "more", noise(2, 700_000)).await.unwrap();
    bare.close().await.unwrap();
    assert!(read(&world.bare(8).await, "more").await.unwrap() == noise(2, 700_000));
}

/// Goal: with k + margin seeders a put succeeds and says who is missing; with one fewer it fails, names them, and leaves
/// nothing visible; later it succeeds. Method: full disks, then dead seeders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_need_a_quorum() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "before", vec![1]).await.unwrap();
    for n in [1, 4] {
        world.services[n].refuses.store(true, Ordering::Relaxed);
    }
    let report = write(&client, "enough", noise(1, 900_000)).await.unwrap();
    assert_eq!((usize::from(report.signers), report.lost.len()), (QUORUM, 2), "{report:?}");
    world.services[5].refuses.store(true, Ordering::Relaxed);
    let error = write(&client, "too few", noise(2, 900_000)).await.unwrap_err();
    let PutError::TooFew { have: 3, need: 4, failed } = &error else { panic!("{error}") };
    let full: Vec<String> = [1, 4, 5].map(|n| seeder_key(n).seeder().short()).into();
    assert!(failed.len() == 3 && failed.iter().all(|blame| full.contains(&blame.seeder)), "{error}");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    let names =
        |listed: Vec<tallow_client::Listed>| listed.into_iter().map(|one| one.path).collect::<Vec<_>>();
    assert_eq!(names(client.ls("", true).await.unwrap()), ["before", "enough"]);
    assert_eq!(names(world.bare(9).await.ls("", true).await.unwrap()), ["before", "enough"]);
    for service in &world.services {
        service.refuses.store(false, Ordering::Relaxed);
    }
    client.close().await.unwrap();
    drop(client);
    let client = world.client(1).await;
    let repaired = client.repair(silent()).await.unwrap();
    let mut behind = [world.slot_of(&client, 1).await, world.slot_of(&client, 4).await];
    behind.sort_unstable();
    assert_eq!(repaired.caught_up, behind, "{repaired:?}");
    let report = write(&client, "too few", noise(2, 900_000)).await.unwrap();
    assert_eq!(report.signers, 6, "{report:?}");
    assert_eq!(read(&client, "too few").await.unwrap(), noise(2, 900_000));
    for n in 0..3 {
        world.twin.kill(seeder_key(n));
    }
    client.close().await.unwrap();
    let error = write(&client, "dead", vec![1]).await.unwrap_err();
    let PutError::Session(SessionError::ReadOnly { have: 3, need: 4, failed }) = &error else {
        panic!("{error}")
    };
    assert_eq!(failed.len(), 3);
    assert_eq!(read(&client, "enough").await.unwrap(), noise(1, 900_000));
}

/// Goal: a silent seeder costs a put its patience once, not its success. Method: one seeder falls silent in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_seeders_leave_the_stripe() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "before", vec![1]).await.unwrap();
    world.twin.set_faults(seeder_key(3), Faults { silent: true, ..Faults::default() });
    let report = tokio::time::timeout(Duration::from_secs(9), write(&client, "blob", noise(1, 4_000_000)));
    let report = report.await.expect("in time").unwrap();
    assert_eq!(report.signers, 5, "{report:?}");
    let lost: Vec<_> = report.lost.iter().map(|blame| blame.seeder.clone()).collect();
    assert_eq!(lost, [seeder_key(3).seeder().short()]);
    assert_eq!(read(&client, "blob").await.unwrap(), noise(1, 4_000_000));
    client.close().await.unwrap();
}

/// Goal: a contract that opened with k + margin seeders is filled and made whole when more come, and survives the loss of
/// the first ones. Method: four seeders, then six; repair; kill all but the new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacant_slots_are_filled() {
    let mut world = World::new(4).await;
    let client = world.client(1).await;
    let bytes = noise(1, 1_500_000);
    let report = write(&client, "blob", bytes.clone()).await.unwrap();
    assert_eq!((report.signers, report.slots), (4, 6));
    client.close().await.unwrap();
    let health = client.contract().await.unwrap();
    assert_eq!((health.held, health.width, health.can_lose), (4, 4, 2));
    drop(client);
    let nobody = world.client(2).await;
    let report = nobody.repair(silent()).await.unwrap();
    assert!(report.filled.is_empty() && report.failed.len() == 2, "{report:?}");
    nobody.close().await.unwrap();
    world.add_seeder(4).await;
    world.add_seeder(5).await;
    let report = nobody.repair(silent()).await.unwrap();
    assert_eq!((&report.filled[..], &report.caught_up[..]), (&[4, 5][..], &[4, 5][..]), "{report:?}");
    assert!(report.slices >= 6);
    let health = nobody.contract().await.unwrap();
    assert_eq!((health.held, health.healthy, health.width, health.can_lose), (6, 6, 6, 4));
    nobody.close().await.unwrap();
    for n in 0..4 {
        world.twin.kill(seeder_key(n));
    }
    assert_eq!(read(&world.bare(8).await, "blob").await.unwrap(), bytes);
}

/// Goal: a put by itself gives vacant slots to seeders that have come. Method: four seeders, two more, put again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_fill_vacant_slots() {
    let mut world = World::new(4).await;
    let client = world.client(1).await;
    write(&client, "one", noise(1, 700_000)).await.unwrap();
    world.add_seeder(4).await;
    world.add_seeder(5).await;
    let report = write(&client, "two", noise(2, 700_000)).await.unwrap();
    assert_eq!((report.signers, report.lost.len()), (6, 0), "{report:?}");
    let health = client.contract().await.unwrap();
    assert_eq!((health.held, health.width), (6, 6));
    client.close().await.unwrap();
}

/// Goal: once enough seeders are back, a put that failed works when it is made again by the same client. Method: full disks for
/// one put of a large blob, and for one of a small blob that shares its stripe with the records; then the same puts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_puts_leave_nothing_behind() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "before", vec![1]).await.unwrap();
    for len in [1_400_000, 20_000] {
        let bytes = noise(len, usize::try_from(len).unwrap());
        let refuse = |full: bool| {
            for n in [1, 4, 5] {
                world.services[n].refuses.store(full, Ordering::Relaxed);
            }
        };
        refuse(true);
        let error = write(&client, "blob", bytes.clone()).await.unwrap_err();
        assert!(matches!(error, PutError::TooFew { have: 3, need: 4, .. }), "{len}: {error}");
        refuse(false);
        let report = write(&client, "blob", bytes.clone()).await;
        let report = report.unwrap_or_else(|error| panic!("{len}: {error}"));
        assert_eq!(report.signers, 6, "{len}: {report:?}");
        assert_eq!(read(&client, "blob").await.unwrap(), bytes);
    }
    client.close().await.unwrap();
}

/// Goal: a seeder that missed a slice is in again at the next lease, so that hiccups of one after the other never add up.
/// Method: each in turn refuses one put; then all sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hiccups_do_not_add_up() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    write(&client, "before", vec![1]).await.unwrap();
    for n in 0..4u8 {
        let service = &world.services[usize::from(n)];
        service.refuses.store(true, Ordering::Relaxed);
        let report = write(&client, &format!("{n}"), noise(n.into(), 50_000)).await.unwrap();
        assert_eq!(report.signers, 5, "{report:?}");
        service.refuses.store(false, Ordering::Relaxed);
        client.close().await.unwrap();
    }
    let report = write(&client, "after", vec![1]).await.unwrap();
    assert_eq!((report.signers, report.lost.len()), (6, 0), "{report:?}");
    write(&client, "later", vec![1]).await.unwrap();
    let health = client.contract().await.unwrap();
    assert_eq!((health.healthy, health.width), (6, 6));
    client.close().await.unwrap();
}

/// Goal: what rots on a seeder's disk is seen by its owner before anybody reads it, and mended by a repair. Method: two
/// disks rot; scrub, look, repair, scrub again; then only those two are left to read from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_is_seen_and_mended() {
    let world = World::new(6).await;
    let client = world.client(1).await;
    let bytes = noise(1, 1_500_000);
    write(&client, "blob", bytes.clone()).await.unwrap();
    let whole = client.contract().await.unwrap();
    assert!(whole.slots.iter().all(|slot| (slot.missing, slot.damaged) == (0, 0)));
    let sick = [1, 4];
    let scrub = |n: u8| world.services[usize::from(n)].seeder.store().scrub().unwrap().damaged;
    for n in sick {
        assert_eq!(scrub(n), 0);
        world.rot(n);
        assert!(scrub(n) > 0);
    }
    let report = client.contract().await.unwrap();
    for slot in &report.slots {
        let is_sick = sick.iter().any(|n| slot.seeder == Some(seeder_key(*n).seeder()));
        assert_eq!(slot.damaged, if is_sick { whole.stripes } else { 0 }, "slot {}", slot.slot);
    }
    assert_eq!((report.healthy, whole.can_lose, report.can_lose), (6, 4, 2));
    let mended = client.repair(silent()).await.unwrap();
    assert_eq!((mended.slices, mended.failed.len()), (2 * whole.stripes, 0));
    let report = client.contract().await.unwrap();
    assert!(report.slots.iter().all(|slot| (slot.missing, slot.damaged) == (0, 0)));
    assert_eq!((report.can_lose, scrub(1), scrub(4)), (4, 0, 0));
    client.close().await.unwrap();
    for n in [0, 2, 3, 5] {
        world.twin.kill(seeder_key(n));
    }
    assert_eq!(read(&client, "blob").await.unwrap(), bytes);
}

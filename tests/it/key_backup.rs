//! The key backup: filled in the background, whoever dies, and read again whole, by room, or for the one event that waits.

mod given;

use std::sync::atomic::Ordering;

use mx_e2ee::{BackupHalt, Client, Event, Health, Options, Progress, ProgressStep, Trust, UndecryptableReason};
use mx_test_homeserver::{EvilPeer, Fault, Homeserver};
use ruma::{UserId, room_id};
use tokio::sync::watch;

use crate::{
    crash_history::Parked,
    disks::{Moment, Operation, Plan, Point, Trouble},
    history::held_clock,
    identity::{second, set_up},
    world::{Device, Pair, World, pair},
};

pub(crate) fn count(server: &Homeserver, user: &UserId) -> usize {
    server
        .backed_up(user)
        .values()
        .map(std::collections::BTreeMap::len)
        .sum()
}

pub(crate) fn puts(server: &World) -> usize {
    let log = server.log();
    log.iter()
        .filter(|exchange| exchange.method == "PUT" && exchange.path.contains("/room_keys/keys"))
        .count()
}

async fn status(client: &Client) -> mx_e2ee::BackupStatus {
    client.backup_status().await.unwrap()
}

/// A room with some keys in it.
pub(crate) async fn keys(client: &Client, other: &Device, number: usize) {
    for _ in 0..number {
        let room = client
            .create_room(None, &[other.client.user_id().to_owned()])
            .await
            .unwrap();
        room.send_text("x").await.unwrap();
    }
}

#[tokio::test]
async fn room_keys_are_put_into_the_backup_by_syncs_and_once() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    set_up(&alice.client).await;
    let user = alice.client.user_id();
    assert_eq!(count(&server, user), 0);
    room.send_text("ours").await.unwrap();
    bobs_room.send_text("his").await.unwrap();
    alice.client.sync().await.unwrap();
    assert_eq!(count(&server, user), 2);
    let now = status(&alice.client).await;
    assert!(now.enabled);
    assert_eq!((now.room_keys, now.backed_up), (2, 2));
    assert_eq!(now.on_server.unwrap().room_keys, 2);
    let before = puts(&server);
    room.send_text("ours again").await.unwrap();
    bobs_room.send_text("his again").await.unwrap();
    assert_eq!(alice.bodies().await, ["his", "his again"]);
    assert_eq!(puts(&server), before, "nothing is put twice");
    drop(bob);
}

#[tokio::test]
async fn more_keys_than_fit_into_a_batch_go_batch_by_batch() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    keys(&alice.client, &bob, 105).await;
    let mut progress = alice.client.orchestrator().progress();
    let step = |progress: &mut watch::Receiver<Option<Progress>>| {
        let now = progress.borrow_and_update().clone().unwrap();
        (now.step, now.done, now.total)
    };
    alice.client.enable_backup(false).await.unwrap();
    // One batch now, and the rest another time: as syncs do it.
    assert_eq!(alice.client.orchestrator().back_up(1).await.unwrap(), 100);
    assert_eq!(step(&mut progress), (ProgressStep::Backup, 100, 105));
    assert_eq!(alice.client.back_up().await.unwrap(), 5);
    assert_eq!(step(&mut progress), (ProgressStep::Backup, 105, 105));
    assert_eq!(puts(&server), 2);
    assert_eq!(count(&server, alice.client.user_id()), 105);
    assert_eq!(alice.client.back_up().await.unwrap(), 0);
    // What comes later is counted from its own beginning.
    keys(&alice.client, &bob, 3).await;
    alice.client.back_up().await.unwrap();
    // A sync of a send may have put some.
    let (_, done, total) = step(&mut progress);
    assert!((1..=3).contains(&done) && done == total, "{done} of {total}");
}

/// Killed before and after every request and every commit: what was not put goes with the next process.
#[tokio::test]
async fn a_backup_that_is_killed_goes_on() {
    let server = Homeserver::new();
    server.register("alice", "password");
    let parked = Parked::new("alice");
    let client = parked.login(&server, &Plan::default()).await.unwrap();
    let mut peer = EvilPeer::new(&server, "bob", "BDEV");
    peer.publish();
    for _ in 0..3 {
        let room = client.create_room(None, &[peer.user().to_owned()]).await.unwrap();
        peer.join(room.id());
        room.send_text("x").await.unwrap();
    }
    let user = client.user_id().to_owned();
    client.close().await.unwrap();
    let mut kills = 0;
    for moment in [Moment::Before, Moment::After] {
        for nth in 1.. {
            let (server, device, plan) = (World::quiet(server.fork()), parked.copy(), Plan::default());
            let client = device.open(&server, &plan).await.unwrap();
            plan.arm(Point {
                nth,
                moment,
                trouble: Trouble::Kill,
                ..Point::dry(|operation, _| matches!(operation, Operation::Request | Operation::Commit))
            });
            let work = async {
                client.enable_backup(false).await?;
                client.back_up().await
            };
            let done = plan.until_killed(Box::pin(work)).await;
            drop(client);
            let after = device.open(&server, &Plan::default()).await.unwrap();
            after.enable_backup(false).await.unwrap();
            after.back_up().await.unwrap();
            let now = status(&after).await;
            assert_eq!((now.room_keys, now.backed_up), (3, 3), "{:?}", plan.struck());
            assert_eq!(count(&server, &user), 3, "{:?}", plan.struck());
            assert_eq!(now.on_server.unwrap().version, "1", "one backup: {:?}", plan.struck());
            if done.is_some() {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 8, "{kills}");
}

#[tokio::test]
async fn a_new_device_restores_all_or_a_room() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    room.send_text("ours").await.unwrap();
    bobs_room.send_text("his").await.unwrap();
    keys(&alice.client, &bob, 2).await;
    alice.client.sync().await.unwrap();
    let other = second(&server, "alice").await;
    let no_key = other.client.restore_backup(None).await.unwrap_err();
    assert_eq!(
        no_key.code(),
        "backup_key_missing",
        "it may be ours, and who signed it is not known yet"
    );
    other.client.recover_identity(&key).await.unwrap();
    let of_room = other.client.restore_backup(Some(room.id())).await.unwrap();
    assert_eq!((of_room.total, of_room.imported), (2, 2));
    let all = other.client.restore_backup(None).await.unwrap();
    assert_eq!((all.total, all.imported, all.unusable), (4, 2, 0));
    let nowhere = room_id!("!nowhere:localhost");
    assert_eq!(other.client.restore_backup(Some(nowhere)).await.unwrap().total, 0);
    // They are there already: none of them is put again.
    let before = puts(&server);
    assert_eq!(other.client.back_up().await.unwrap(), 0);
    assert_eq!(puts(&server), before);
}

/// A device that uses the backup, and events whose keys were lost on their way to it: they are in the backup.
pub(crate) struct Lost {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) other: Device,
    _bob: Device,
}

pub(crate) async fn lost() -> Lost {
    let Pair {
        server,
        alice,
        bob,
        bobs_room,
        ..
    } = pair().await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    let other = second(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    bobs_room.send_text("one").await.unwrap();
    bobs_room.send_text("two").await.unwrap();
    server.lose_to_device(other.client.user_id(), other.client.device_id());
    Lost {
        server,
        alice,
        other,
        _bob: bob,
    }
}

#[tokio::test]
async fn the_key_of_an_event_that_waits_is_fetched() {
    let lost = lost().await;
    lost.alice.client.sync().await.unwrap();
    assert_eq!(count(&lost.server, lost.alice.client.user_id()), 1);
    lost.other.client.sync().await.unwrap();
    let messages = lost.other.messages().await;
    let bodies: Vec<_> = messages.iter().filter_map(|message| message.body()).collect();
    assert_eq!(bodies, ["one", "two"]);
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::Imported);
    assert_eq!(lost.other.client.waiting_counts().await.unwrap().waiting, 0);
}

#[tokio::test]
async fn a_key_that_is_not_in_the_backup_yet_is_asked_for_again_and_not_all_the_time() {
    let lost = lost().await;
    let asked = |server: &World| {
        let log = server.log();
        log.iter()
            .filter(|exchange| exchange.method == "GET" && exchange.path.contains("/room_keys/keys/"))
            .count()
    };
    for _ in 0..3 {
        lost.other.client.sync().await.unwrap();
    }
    assert_eq!(asked(&lost.server), 1);
    let waiting = lost.other.client.waiting(0, 10).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!(waiting[0].reason, UndecryptableReason::ExpectedFromBackup);
    lost.alice.client.sync().await.unwrap();
    let session = waiting[0].session_id.clone().unwrap();
    let device = lost.other.client.orchestrator();
    assert!(device.fetch_room_key(&waiting[0].room_id, &session).await.unwrap());
    assert_eq!(lost.other.bodies().await, ["one", "two"]);
}

/// A clock that was ahead when the backup was asked keeps nothing from being asked for again.
#[tokio::test]
async fn a_key_that_was_asked_for_in_the_future_is_asked_for_again() {
    let lost = lost().await;
    let (clock, options) = held_clock();
    let other = lost.other.kill_and_open_with(options).await;
    let years_ms = 10 * 365 * 24 * 3_600_000;
    clock.fetch_add(years_ms, Ordering::SeqCst);
    other.client.sync().await.unwrap();
    assert_eq!(other.client.waiting_counts().await.unwrap().waiting, 2);
    clock.fetch_sub(years_ms, Ordering::SeqCst);
    lost.alice.client.sync().await.unwrap();
    other.client.sync().await.unwrap();
    assert_eq!(other.bodies().await, ["one", "two"]);
}

#[tokio::test]
async fn a_backup_that_was_deleted_is_told_and_made_again() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    set_up(&alice.client).await;
    room.send_text("one").await.unwrap();
    alice.client.sync().await.unwrap();
    server.drop_backup(alice.client.user_id());
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    assert!(
        matches!(told.as_slice(), [Event::BackupStopped(event)] if event.because == BackupHalt::Deleted && event.version == "1"),
        "{told:?}"
    );
    let Health::Degraded { problems } = alice.client.health().await.unwrap() else {
        unreachable!()
    };
    assert_eq!(problems[0].code, "backup_changed");
    let before = puts(&server);
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    assert_eq!(puts(&server), before, "it has stopped");
    drop(room);
    let alice = alice.kill_and_open().await;
    assert!(!status(&alice.client).await.enabled, "also after a restart");
    assert_eq!(alice.client.enable_backup(false).await.unwrap(), "2");
    assert_eq!(alice.client.back_up().await.unwrap(), 3, "all of them");
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn a_backup_that_is_off_stays_off() {
    let Pair { server, alice, bob, .. } = pair().await;
    set_up(&alice.client).await;
    assert_eq!(alice.client.delete_backup().await.unwrap(), "1");
    assert_eq!(alice.client.delete_backup().await.unwrap_err().code(), "no_backup");
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    let alice = alice.kill_and_open_with(Options::default()).await;
    alice.client.sync().await.unwrap();
    assert_eq!(puts(&server), 0);
    assert!(!status(&alice.client).await.enabled);
    assert_eq!(
        alice.client.health().await.unwrap(),
        Health::Ok,
        "somebody here said so"
    );
}

#[tokio::test]
async fn a_homeserver_that_takes_no_keys_for_a_while_stops_nothing() {
    let Pair {
        server,
        alice,
        room,
        bob,
        ..
    } = pair().await;
    set_up(&alice.client).await;
    room.send_text("one").await.unwrap();
    for _ in 0..2 {
        server.fault(Fault::status("/room_keys/keys", 503, "{\"errcode\": \"M_UNKNOWN\"}"));
        alice.client.sync().await.unwrap();
    }
    assert_eq!(count(&server, alice.client.user_id()), 0);
    alice.client.sync().await.unwrap();
    assert_eq!(count(&server, alice.client.user_id()), 1);
    assert!(alice.events().await.is_empty());
    drop(bob);
}

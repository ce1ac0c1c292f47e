//! Dehydrated devices (MSC3814): a bot that was away for a month reads what came, whatever happens meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mx_e2ee::{DehydrationError, Room};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::{
    history::held_clock,
    identity::set_up,
    verification_cast::with_identity,
    world::{Device, World},
};

pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Alice, whose dehydrated device is made, and bob, who talks to her.
pub(crate) struct Cast {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) room: Room,
    pub(crate) key: String,
}

pub(crate) async fn cast() -> Cast {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let key = set_up(&alice.client).await.recovery_key.unwrap().to_string();
    alice.client.dehydrate(&key).await.unwrap();
    let bob = with_identity(Device::new(&server, "bob").await).await;
    let room = bob
        .client
        .create_room(None, &[alice.client.user_id().to_owned()])
        .await
        .unwrap();
    alice.client.sync().await.unwrap();
    alice.client.join(room.id().as_str()).await.unwrap();
    bob.client.sync().await.unwrap();
    Cast {
        server,
        alice,
        bob,
        room,
        key,
    }
}

/// The disk is lost, and the device is deleted by its owner.
pub(crate) fn lose(server: &World, alice: Device) {
    let (user, device) = (alice.client.user_id().to_owned(), alice.client.device_id().to_owned());
    drop(alice);
    server.delete_device(&user, &device);
}

fn pages(server: &World) -> usize {
    let log = server.log();
    log.iter()
        .filter(|request| request.path.ends_with("/events") && request.path.contains("dehydrated"))
        .count()
}

/// A month goes by: the room's key is another one every week.
pub(crate) async fn a_month(bob: Device, room: &OwnedRoomId) -> Device {
    let (clock, options) = held_clock();
    let bob = bob.kill_and_open_with(options).await;
    for week in 0..4 {
        bob.client.sync().await.unwrap();
        bob.client.room(room).send_text(format!("week {week}")).await.unwrap();
        clock.fetch_add(7 * DAY_MS + 1, Ordering::SeqCst);
    }
    bob
}

#[tokio::test]
async fn a_bot_that_was_away_for_a_month_reads_what_came() {
    let Cast {
        server,
        alice,
        bob,
        room,
        key,
    } = cast().await;
    let id = room.id().to_owned();
    drop(room);
    lose(&server, alice);
    let bob = a_month(bob, &id).await;
    let old = server.dehydrated_device(ruma::user_id!("@alice:localhost")).unwrap().0;

    let alice = Device::new(&server, "alice").await;
    // On a task, as an app may do it.
    let client = alice.client.clone();
    let recovered = tokio::spawn(async move { client.recover_identity(&key).await });
    let recovered = recovered.await.unwrap().unwrap();
    assert!(
        recovered.dehydration_error.is_none(),
        "{:?}",
        recovered.dehydration_error
    );
    let rehydrated = recovered.rehydrated.unwrap();
    assert_eq!(rehydrated.device_id.as_str(), old);
    assert_eq!(rehydrated.room_keys, 4);
    assert_eq!(alice.bodies().await, ["week 0", "week 1", "week 2", "week 3"]);
    // Another one takes its place, with the same key.
    let new = server.dehydrated_device(alice.client.user_id()).unwrap().0;
    assert_eq!(rehydrated.new_device_id.unwrap().as_str(), new);
    assert_ne!(new, old);
    let status = alice.client.dehydration_status().await.unwrap();
    assert!(status.enabled && status.supported && status.key_is_here);
    assert_eq!(status.device_id.unwrap().as_str(), new);
    drop(bob);
}

/// The process ends at each request in turn, before and after the homeserver has taken it.
#[tokio::test]
async fn a_kill_at_any_page_loses_no_key() {
    for after in [false, true] {
        for nth in 1..=3 {
            let Cast {
                server,
                alice,
                bob,
                room,
                key,
            } = cast().await;
            let (user, id) = (alice.client.user_id().to_owned(), room.id().to_owned());
            drop(room);
            lose(&server, alice);
            let bob = a_month(bob, &id).await;
            // Pages of their own.
            let device = server.dehydrated_device(&user).unwrap().0;
            let noise: Vec<Value> = (0..150)
                .map(|_| json!({"type": "m.noise", "sender": "@bob:localhost", "content": {}}))
                .collect();
            server.queue_to_device(&user, device.as_str().into(), noise);
            let path = "dehydrated_device/";
            let fault = if after {
                Fault::drop_after(path)
            } else {
                Fault::drop_before(path)
            };
            server.fault(fault.nth(nth).for_ever());
            let alice = Device::new(&server, "alice").await;
            let recovered = alice.client.recover_identity(&key).await.unwrap();
            assert!(recovered.dehydration_error.is_some(), "{after} {nth}");
            server.behave();
            let alice = alice.kill_and_open().await;
            alice.client.sync().await.unwrap();
            let mut read = alice.bodies().await;
            read.sort();
            assert_eq!(read, ["week 0", "week 1", "week 2", "week 3"], "{after} {nth}");
            let new = server.dehydrated_device(&user).unwrap().0;
            assert_ne!(new, device, "and there is a new one");
            drop(bob);
        }
    }
}

/// Another device in the place of one that is not all taken would be the end of what it has yet.
#[tokio::test]
async fn a_device_whose_opening_stopped_is_opened_before_it_is_replaced() {
    let Cast {
        server,
        alice,
        bob,
        room,
        key,
    } = cast().await;
    let (user, id) = (alice.client.user_id().to_owned(), room.id().to_owned());
    drop(room);
    lose(&server, alice);
    let bob = a_month(bob, &id).await;
    let old = server.dehydrated_device(&user).unwrap().0;
    server.fault(Fault::drop_before("dehydrated_device/").for_ever());
    let alice = Device::new(&server, "alice").await;
    let recovered = alice.client.recover_identity(&key).await.unwrap();
    assert!(recovered.dehydration_error.is_some());
    alice.client.dehydrate(&key).await.unwrap_err();
    assert_eq!(server.dehydrated_device(&user).unwrap().0, old, "it is still there");
    server.behave();
    let new = alice.client.dehydrate(&key).await.unwrap();
    assert_eq!(server.dehydrated_device(&user).unwrap().0, new.as_str());
    assert_ne!(new.as_str(), old);
    let mut read = alice.bodies().await;
    read.sort();
    assert_eq!(read, ["week 0", "week 1", "week 2", "week 3"]);
    drop(bob);
}

#[tokio::test]
async fn a_device_is_replaced_every_week_and_by_one_of_ours_only() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    let (clock, options) = held_clock();
    let alice = alice.kill_and_open_with(options).await;
    let first = server.dehydrated_device(&user).unwrap();
    alice.client.sync().await.unwrap();
    assert_eq!(server.dehydrated_device(&user).unwrap(), first);
    clock.fetch_add(7 * DAY_MS + 60_000, Ordering::SeqCst);
    server.fault(
        Fault::status("dehydrated_device", 500, "{}")
            .method(http::Method::PUT)
            .times(2),
    );
    alice.client.sync().await.unwrap();
    let puts = || {
        let log = server.log();
        log.iter()
            .filter(|request| request.method == "PUT" && request.path.ends_with("dehydrated_device"))
            .count()
    };
    let before = puts();
    alice.client.sync().await.unwrap();
    assert_eq!(puts(), before, "not at once");
    server.behave();
    clock.fetch_add(60 * 60 * 1000, Ordering::SeqCst);
    alice.client.sync().await.unwrap();
    let second = server.dehydrated_device(&user).unwrap();
    assert_ne!(second.0, first.0);
    // Another device of ours has made one: it is left alone for a week.
    let other = Device::new(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    let third = server.dehydrated_device(&user).unwrap();
    assert_ne!(third.0, second.0);
    clock.fetch_add(7 * DAY_MS + 60_000, Ordering::SeqCst);
    alice.client.sync().await.unwrap();
    assert_eq!(server.dehydrated_device(&user).unwrap(), third);
    clock.fetch_add(7 * DAY_MS + 60_000, Ordering::SeqCst);
    alice.client.sync().await.unwrap();
    assert_ne!(server.dehydrated_device(&user).unwrap(), third);
}

#[tokio::test]
async fn what_is_deleted_is_made_no_more() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    let (clock, options) = held_clock();
    let alice = alice.kill_and_open_with(options).await;
    alice.client.delete_dehydrated_device().await.unwrap();
    assert!(server.dehydrated_device(&user).is_none());
    clock.fetch_add(30 * DAY_MS, Ordering::SeqCst);
    alice.client.sync().await.unwrap();
    assert!(server.dehydrated_device(&user).is_none());
    let error = alice.client.rehydrate().await.unwrap_err();
    assert_eq!(error.code(), "no_dehydrated_device");
    let error = alice.client.delete_dehydrated_device().await.unwrap_err();
    assert_eq!(error.code(), "no_dehydrated_device");
    let status = alice.client.dehydration_status().await.unwrap();
    assert!(!status.enabled && !status.key_is_here);
    // Its key is in the secret storage still.
    alice.client.dehydrate(&key).await.unwrap();
    assert!(server.dehydrated_device(&user).is_some());
}

#[tokio::test]
async fn a_homeserver_without_them_is_named() {
    let server = World::new();
    server.offer_dehydration(false);
    let alice = Device::new(&server, "alice").await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    let error = alice.client.dehydrate(&key).await.unwrap_err();
    server.examine(&error);
    assert_eq!(error.code(), "dehydration_unsupported");
    let status = alice.client.identity_status().await.unwrap();
    assert!(!status.dehydrated_device.supported);
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    let other = Device::new(&server, "alice").await;
    let recovered = other.client.recover_identity(&key).await.unwrap();
    assert!(recovered.rehydrated.is_none() && recovered.dehydration_error.is_none());
}

/// What a homeserver can show instead.
#[tokio::test]
async fn garbage_is_not_opened_and_the_identity_is_recovered_all_the_same() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    let good = server.dehydrated_device(&user).unwrap();
    let other_kind = json!({"algorithm": "org.example.rot13", "device_pickle": "x"});
    let mut changed = good.1.clone();
    let pickle = changed["device_pickle"].as_str().unwrap();
    let flipped = if pickle.starts_with('A') { "B" } else { "A" };
    changed["device_pickle"] = format!("{flipped}{}", &pickle[1..]).into();
    for data in [json!({}), json!([]), json!("x"), other_kind, changed] {
        server.set_dehydrated_device(&user, good.0.as_str().into(), data.clone());
        let new = Device::new(&server, "alice").await;
        let recovered = new.client.recover_identity(&key).await.unwrap();
        assert!(recovered.standing.is_good());
        assert!(recovered.rehydrated.is_none(), "{data}");
        let error = recovered.dehydration_error.unwrap();
        server.examine(&error);
        assert_eq!(error.code(), "dehydrated_device_rejected", "{data}");
        new.client.sync().await.unwrap();
        assert_eq!(new.room_keys().await.len(), 0);
        assert_eq!(
            server.dehydrated_device(&user).unwrap().1,
            data,
            "it is not replaced by itself"
        );
    }
}

#[tokio::test]
async fn a_homeserver_that_goes_in_circles_is_left() {
    let Cast {
        server,
        alice,
        bob,
        room,
        key,
    } = cast().await;
    lose(&server, alice);
    room.send_text("once").await.unwrap();
    let event = json!({"type": "m.dummy", "sender": "@bob:localhost", "content": {}});
    let turn = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let asked = Arc::clone(&turn);
    server.rewrite("dehydrated_device/", move |_, mut response| {
        let turn = asked.fetch_add(1, Ordering::SeqCst);
        let body = json!({"events": [event], "next_batch": (turn % 3).to_string()});
        *response.body_mut() = body.to_string().into();
        response
    });
    let new = Device::new(&server, "alice").await;
    let recovered = tokio::time::timeout(Duration::from_secs(60), new.client.recover_identity(&key));
    let recovered = recovered.await.unwrap().unwrap();
    assert_eq!(recovered.rehydrated.unwrap().room_keys, 0);
    assert!(pages(&server) <= 6, "{}", pages(&server));
    drop(bob);
}

/// A key that is here is not replaced by one that opens less, and not by a stranger's.
#[tokio::test]
async fn what_the_device_was_given_takes_nothing_away() {
    let Cast {
        server,
        alice,
        bob,
        room,
        ..
    } = cast().await;
    let mut mallory = EvilPeer::new(&server, "mallory", "MDEV");
    mallory.publish();
    room.invite(mallory.user()).await.unwrap();
    mallory.join(room.id());
    bob.client.sync().await.unwrap();
    alice.client.sync().await.unwrap();
    room.send_text("one").await.unwrap();
    // Mallory's own session: the real device has it from the start, the dehydrated one from later on.
    let olm = mallory.olm_session_with(alice.client.user_id(), alice.client.device_id());
    let mut session = mallory.megolm_session(room.id());
    mallory.share_room_key(&olm, &session);
    let device = server.dehydrated_device(alice.client.user_id()).unwrap().0;
    let cold = mallory.olm_session_with(alice.client.user_id(), device.as_str().into());
    mallory.send_text(&mut session, "early");
    session.go_to(5);
    mallory.share_room_key(&cold, &session);
    alice.client.sync().await.unwrap();
    let reach = async || {
        let indices = alice.room_keys().await.into_iter();
        indices.map(|key| key.first_known_index()).collect::<Vec<_>>()
    };
    let before = reach().await;
    assert!(before.iter().all(|index| *index == 0), "{before:?}");
    let rehydrated = alice.client.rehydrate().await.unwrap();
    assert_eq!(rehydrated.room_keys, 0, "all is here already");
    assert_eq!(reach().await, before);
    assert_eq!(alice.bodies().await, ["one", "early"]);
}

#[tokio::test]
async fn without_its_key_nothing_is_opened() {
    let Cast { server, alice, .. } = cast().await;
    let new = Device::new(&server, "alice").await;
    let error = new.client.rehydrate().await.unwrap_err();
    assert_eq!(error.code(), DehydrationError::KeyMissing.code());
    let error = new.client.dehydrate("EsTc wrong").await.unwrap_err();
    assert_eq!(error.code(), "wrong_recovery_key");
    assert!(server.dehydrated_device(alice.client.user_id()).is_some());
}

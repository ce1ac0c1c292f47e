//! A dehydrated device in the place of another: what that one was sent is taken first, and where that cannot be, it is told.

use std::sync::atomic::Ordering;

use mx_e2ee::Event;
use mx_test_homeserver::{EvilPeer, Fault};
use serde_json::json;

use crate::{
    dehydrated::{Cast, DAY_MS, a_month, cast, lose},
    history::held_clock,
    world::{Device, World},
};

/// A new device that has the identity, and has opened nothing: the homeserver did not know such devices then.
async fn with_nothing_opened(server: &World, key: &str) -> Device {
    let new = Device::new(server, "alice").await;
    server.offer_dehydration(false);
    let recovered = new.client.recover_identity(key).await.unwrap();
    assert!(recovered.standing.is_good() && recovered.rehydrated.is_none());
    server.offer_dehydration(true);
    new
}

/// Alice's device is lost, and bob talks to nobody for a month. Then there is a device that opened nothing.
struct Month {
    server: World,
    alice: Device,
    key: String,
    old: String,
}

async fn lost_for_a_month() -> Month {
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
    drop(a_month(bob, &id).await);
    let alice = with_nothing_opened(&server, &key).await;
    let old = server.dehydrated_device(alice.client.user_id()).unwrap().0;
    Month {
        server,
        alice,
        key,
        old,
    }
}

async fn read(device: &Device) -> Vec<String> {
    let mut read = device.bodies().await;
    read.sort();
    read
}

const WEEKS: [&str; 4] = ["week 0", "week 1", "week 2", "week 3"];

#[tokio::test]
async fn a_device_that_nobody_has_opened_is_opened_before_another_takes_its_place() {
    let Month {
        server,
        alice,
        key,
        old,
    } = lost_for_a_month().await;
    let new = alice.client.dehydrate(&key).await.unwrap();
    assert_ne!(new.as_str(), old);
    assert_eq!(
        server.dehydrated_device(alice.client.user_id()).unwrap().0,
        new.as_str()
    );
    assert_eq!(read(&alice).await, WEEKS);
}

/// It ends where the device is asked for, and where the new one is put, before and after the homeserver has taken it.
#[tokio::test]
async fn a_kill_around_the_opening_loses_no_key() {
    for (method, after) in [
        (http::Method::GET, false),
        (http::Method::GET, true),
        (http::Method::PUT, false),
        (http::Method::PUT, true),
    ] {
        let Month {
            server,
            alice,
            key,
            old,
        } = lost_for_a_month().await;
        let path = "/dehydrated_device";
        let fault = if after {
            Fault::drop_after(path)
        } else {
            Fault::drop_before(path)
        };
        server.fault(fault.method(method.clone()).for_ever());
        alice.client.dehydrate(&key).await.unwrap_err();
        server.behave();
        let alice = alice.kill_and_open().await;
        alice.client.sync().await.unwrap();
        assert_eq!(read(&alice).await, WEEKS, "{method} {after}");
        let new = server.dehydrated_device(alice.client.user_id()).unwrap().0;
        assert_ne!(new, old, "{method} {after}");
    }
}

#[tokio::test]
async fn the_device_of_another_one_of_ours_is_opened_before_a_sync_replaces_it() {
    let Cast {
        server,
        alice,
        bob,
        room,
        key,
    } = cast().await;
    let (clock, options) = held_clock();
    let alice = alice.kill_and_open_with(options).await;
    let user = alice.client.user_id().to_owned();
    let other = Device::new(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    let theirs = server.dehydrated_device(&user).unwrap().0;
    let mut mallory = EvilPeer::new(&server, "mallory", "MDEV");
    mallory.publish();
    room.invite(mallory.user()).await.unwrap();
    mallory.join(room.id());
    bob.client.sync().await.unwrap();
    let cold = mallory.olm_session_with(&user, theirs.as_str().into());
    let mut session = mallory.megolm_session(room.id());
    mallory.share_room_key(&cold, &session);
    mallory.send_text(&mut session, "to the cold one");
    // It is seen after a week, and replaced after another.
    for week in 0..2 {
        assert_eq!(server.dehydrated_device(&user).unwrap().0, theirs, "{week}");
        assert!(alice.bodies().await.is_empty(), "{week}");
        clock.fetch_add(7 * DAY_MS + 60_000, Ordering::SeqCst);
        alice.client.sync().await.unwrap();
    }
    assert_ne!(server.dehydrated_device(&user).unwrap().0, theirs);
    assert_eq!(alice.bodies().await, ["to the cold one"]);
}

/// What the app was told of devices that were not opened: which, and why.
async fn not_opened(device: &Device) -> Vec<(Option<String>, String)> {
    let events = device.events().await;
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::DehydratedDeviceNotOpened(not) => Some((not.device_id.map(|device| device.to_string()), not.code)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn what_does_not_open_is_told_once_and_then_replaced_by_who_asks_for_a_new_one() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    lose(&server, alice);
    let (old, good) = server.dehydrated_device(&user).unwrap();
    let mut changed = good;
    changed["device_pickle"] = "AAAA".into();
    server.set_dehydrated_device(&user, old.as_str().into(), changed.clone());
    let alice = with_nothing_opened(&server, &key).await;
    // It is told before it is replaced: the new one does not get through, and the process ends.
    server.fault(
        Fault::drop_before("/dehydrated_device")
            .method(http::Method::PUT)
            .for_ever(),
    );
    alice.client.dehydrate(&key).await.unwrap_err();
    let alice = alice.kill_and_open().await;
    server.behave();
    assert_eq!(server.dehydrated_device(&user).unwrap(), (old.clone(), changed));
    let told = [(Some(old.clone()), "dehydrated_device_rejected".to_owned())];
    assert_eq!(not_opened(&alice).await, told);
    let new = alice.client.dehydrate(&key).await.unwrap();
    assert_eq!(server.dehydrated_device(&user).unwrap().0, new.as_str());
    assert_ne!(new.as_str(), old);
    alice.client.sync().await.unwrap();
    assert_eq!(not_opened(&alice).await, [], "once");
}

#[tokio::test]
async fn a_device_that_the_key_of_the_secret_storage_does_not_fit_is_told_and_replaced() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    lose(&server, alice);
    let old = server.dehydrated_device(&user).unwrap().0;
    // The secret storage has lost the key: another one is made.
    server.set_account_data(&user, "org.matrix.msc3814", json!({}));
    let alice = with_nothing_opened(&server, &key).await;
    let new = alice.client.dehydrate(&key).await.unwrap();
    assert_eq!(server.dehydrated_device(&user).unwrap().0, new.as_str());
    let told = [(Some(old), "dehydrated_device_rejected".to_owned())];
    assert_eq!(not_opened(&alice).await, told);
    // And who comes after that opens it.
    let next = Device::new(&server, "alice").await;
    let recovered = next.client.recover_identity(&key).await.unwrap();
    assert_eq!(recovered.rehydrated.unwrap().device_id, new);
    assert_eq!(not_opened(&next).await, []);
}

/// The key that is here counts where the secret storage has lost it: what waits opens with that one.
#[tokio::test]
async fn the_key_that_is_here_is_kept_again_where_the_secret_storage_lost_it() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    let other = Device::new(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    let theirs = server.dehydrated_device(&user).unwrap().0;
    server.set_account_data(&user, "org.matrix.msc3814", json!({}));
    let new = alice.client.dehydrate(&key).await.unwrap();
    assert_ne!(new.as_str(), theirs);
    assert_eq!(not_opened(&alice).await, []);
}

#[tokio::test]
async fn an_opening_that_always_fails_is_told_at_the_end_and_goes_on_when_it_is_asked_for() {
    let Month {
        server,
        alice,
        key,
        old,
    } = lost_for_a_month().await;
    let (clock, options) = held_clock();
    let alice = alice.kill_and_open_with(options).await;
    server.fault(Fault::status("dehydrated_device/", 400, "{}").for_ever());
    alice.client.dehydrate(&key).await.unwrap_err();
    let mut told = Vec::new();
    for _ in 0..12 {
        clock.fetch_add(DAY_MS, Ordering::SeqCst);
        told.extend(not_opened(&alice).await);
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0.as_ref(), Some(&old));
    assert_eq!(
        server.dehydrated_device(alice.client.user_id()).unwrap().0,
        old,
        "it is still there"
    );
    server.behave();
    alice.client.dehydrate(&key).await.unwrap();
    assert_eq!(read(&alice).await, WEEKS);
}

/// Another device may have changed the key: what this one makes in its place, nobody could open.
#[tokio::test]
async fn what_another_device_made_and_does_not_open_is_told_once_and_left() {
    let Cast { server, alice, key, .. } = cast().await;
    let (clock, options) = held_clock();
    let alice = alice.kill_and_open_with(options).await;
    let user = alice.client.user_id().to_owned();
    let (ours, _) = server.dehydrated_device(&user).unwrap();
    server.set_account_data(&user, "org.matrix.msc3814", json!({}));
    let other = Device::new(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    other.client.dehydrate(&key).await.unwrap();
    let theirs = server.dehydrated_device(&user).unwrap().0;
    assert_ne!(theirs, ours);
    let mut told = Vec::new();
    for _ in 0..4 {
        clock.fetch_add(7 * DAY_MS + 60_000, Ordering::SeqCst);
        told.extend(not_opened(&alice).await);
    }
    assert_eq!(told, [(Some(theirs.clone()), "dehydrated_device_rejected".to_owned())]);
    assert_eq!(server.dehydrated_device(&user).unwrap().0, theirs);
}

/// What is there to be opened is not known where the homeserver has none: nothing is told, and nothing is tried again.
#[tokio::test]
async fn where_there_is_none_nothing_is_left_to_be_opened() {
    let Cast { server, alice, key, .. } = cast().await;
    let user = alice.client.user_id().to_owned();
    alice.client.delete_dehydrated_device().await.unwrap();
    let new = Device::new(&server, "alice").await;
    let recovered = new.client.recover_identity(&key).await.unwrap();
    assert!(recovered.rehydrated.is_none() && recovered.dehydration_error.is_none());
    let asked = || {
        let log = server.log();
        log.iter()
            .filter(|request| request.path.ends_with("/dehydrated_device"))
            .count()
    };
    let before = asked();
    assert_eq!(not_opened(&new).await, []);
    assert_eq!(asked(), before);
    assert!(server.dehydrated_device(&user).is_none());
}

//! A store that was copied or set back: noticed before it can send with keys that were used since.

use std::{collections::BTreeSet, path::Path, time::Duration};

use mx_crypto_store::{Retention, Retired};
use mx_e2ee::{Client, Clock, Event, Options, RotationReason};
use mx_test_homeserver::{Fault, Homeserver};
use ruma::OwnedRoomId;
use serde_json::json;
use tempfile::TempDir;

use crate::world::{Device, World, key};

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A directory and all below it, to where there is none.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    copy(from, to);
}

fn builder(server: &Homeserver, directory: &Path) -> mx_e2ee::ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .directory(directory)
        .key(key())
}

/// Two stores of one device, in a room with bob.
struct Copied {
    server: World,
    bob: Device,
    id: OwnedRoomId,
    first: TempDir,
    second: TempDir,
}

/// `with_key`: a message was sent before the store was copied.
async fn copied(with_key: bool) -> Copied {
    let server = World::new();
    server.register("alice", "password");
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alice = builder(&server, first.path()).login("alice", "password").await.unwrap();
    let bob = Device::new(&server, "bob").await;
    let room = alice
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    let id = room.id().to_owned();
    bob.client.join(id.as_str()).await.unwrap();
    if with_key {
        room.send_text("one").await.unwrap();
    }
    alice.sync().await.unwrap();
    drop(room);
    alice.close().await.unwrap();
    copy(first.path(), second.path());
    Copied {
        server,
        bob,
        id,
        first,
        second,
    }
}

#[tokio::test]
async fn mg_32_an_event_of_ours_that_we_have_not_sent_stops_sends_until_it_is_acknowledged() {
    let Copied {
        server,
        bob,
        id,
        first,
        second,
    } = copied(true).await;

    let original = builder(&server, first.path()).open().await.unwrap();
    let receipt = original.room(&id).send_text("two").await.unwrap();
    original.close().await.unwrap();
    let before = server.timeline(&id).len();

    let copy = builder(&server, second.path()).open().await.unwrap();
    let error = copy.room(&id).send_text("three").await.unwrap_err();
    assert_eq!(error.code(), "store_set_back", "{error}");
    assert!(error.to_string().contains(receipt.event_id.as_str()), "{error}");
    assert_eq!(server.timeline(&id).len(), before, "nothing left the machine");
    let health = serde_json::to_value(copy.orchestrator().health().await.unwrap()).unwrap();
    assert_eq!(health["problems"][0]["code"], "store_set_back");

    // It is remembered, and receiving goes on.
    copy.close().await.unwrap();
    let copy = builder(&server, second.path()).open().await.unwrap();
    assert_eq!(
        copy.room(&id).send_text("three").await.unwrap_err().code(),
        "store_set_back"
    );
    bob.client.room(&id).send_text("from bob").await.unwrap();
    let events = copy.receive(Duration::ZERO).await.unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Message(message) if message.body() == Some("from bob")))
    );

    copy.orchestrator().acknowledge_rollback().await.unwrap();
    let after = copy.room(&id).send_text("three").await.unwrap();
    assert_ne!(
        after.session_id, receipt.session_id,
        "the key that was used is not used again"
    );
    assert_eq!(after.rotation, Some(RotationReason::StoreConflict));
    assert_eq!(bob.bodies().await, ["one", "two", "three"]);
}

/// The copy has no key of the room, so that nothing of the other one's can be opened: also that one was made elsewhere.
#[tokio::test]
async fn mg_32_an_event_of_ours_with_a_key_that_is_not_here_stops_sends_too() {
    let Copied {
        server,
        id,
        first,
        second,
        ..
    } = copied(false).await;

    let original = builder(&server, first.path()).open().await.unwrap();
    // By the homeserver's clock, some time after this device was made.
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    server.set_clock(now + 3_600_000);
    let receipt = original.room(&id).send_text("of the original").await.unwrap();
    original.close().await.unwrap();
    let before = server.timeline(&id).len();
    let copy = builder(&server, second.path()).open().await.unwrap();
    copy.receive(Duration::ZERO).await.unwrap();
    let error = copy.room(&id).send_text("of the copy").await.unwrap_err();
    assert_eq!(error.code(), "store_set_back", "{error}");
    assert!(error.to_string().contains(receipt.event_id.as_str()), "{error}");
    assert_eq!(server.timeline(&id).len(), before, "nothing left the machine");
    copy.close().await.unwrap();
    // What is from before the acknowledgement is no proof any more, although it is later than this device.
    let mut options = Options::default();
    options.clock = Clock::from_fn(move || now + 7_200_000);
    let copy = builder(&server, second.path()).options(options).open().await.unwrap();
    copy.orchestrator().acknowledge_rollback().await.unwrap();
    let again = server.timeline(&id).pop().unwrap()["content"].clone();
    server.inject(&id, copy.user_id(), "m.room.encrypted", again);
    copy.receive(Duration::ZERO).await.unwrap();
    copy.room(&id).send_text("of the copy").await.unwrap();
}

#[tokio::test]
async fn mg_32_an_event_behind_many_of_our_other_devices_is_found_or_another_key_is_used() {
    for (between, found) in [(150, true), (600, false)] {
        let server = World::new();
        server.register("alice", "password");
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let alice = builder(&server, first.path()).login("alice", "password").await.unwrap();
        let room = alice.create_room(None, &[]).await.unwrap();
        let id = room.id().to_owned();
        room.send_text("one").await.unwrap();
        alice.sync().await.unwrap();
        drop(room);
        let user = alice.user_id().to_owned();
        alice.close().await.unwrap();
        copy(first.path(), second.path());
        let original = builder(&server, first.path()).open().await.unwrap();
        let receipt = original.room(&id).send_text("two").await.unwrap();
        original.close().await.unwrap();
        for number in 0..between {
            let content =
                json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": format!("{number}")});
            server.inject(&id, &user, "m.room.encrypted", content);
        }
        let copy = builder(&server, second.path()).open().await.unwrap();
        let sent = copy.room(&id).send_text("three").await;
        if found {
            assert_eq!(sent.unwrap_err().code(), "store_set_back");
        } else {
            let sent = sent.unwrap();
            assert_ne!(sent.session_id, receipt.session_id, "no index is used twice");
            assert_eq!(sent.rotation, Some(RotationReason::EventsMissed));
        }
    }
}

#[tokio::test]
async fn mg_32_our_own_messages_that_are_refused_cost_a_new_key() {
    let crate::world::Pair {
        server, bob, bobs_room, ..
    } = crate::world::pair().await;
    bob.events().await;
    let first = bobs_room.send_text("one").await.unwrap();
    drop(bobs_room);
    let bob = bob.kill_and_open().await;
    let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no history for you"}"#;
    server.fault(Fault::status("/messages", 403, refusal));
    let second = bob.client.room(&first.room_id).send_text("two").await.unwrap();
    assert_ne!(second.session_id, first.session_id);
}

#[tokio::test]
async fn mg_32_an_echo_of_what_we_sent_is_no_rollback() {
    let crate::world::Pair { alice, bob, room, .. } = crate::world::pair().await;
    for text in ["one", "two"] {
        room.send_text(text).await.unwrap();
    }
    let id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    alice.events().await;
    alice.client.room(&id).send_text("three").await.unwrap();
    assert_eq!(bob.bodies().await, ["one", "two", "three"]);
    let health = serde_json::to_value(alice.client.orchestrator().health().await.unwrap()).unwrap();
    assert_eq!(health["health"], "ok");
}

/// Who lets go of room keys meets old messages of this device that it cannot open, as after weeks in which it only sent.
#[tokio::test]
async fn what_was_sent_before_keys_were_retired_proves_nothing() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let members = [bob.client.user_id().to_owned()];
    let room = alice.client.create_room(None, &members).await.unwrap();
    bob.client.join(room.id().as_str()).await.unwrap();
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    server.set_clock(now + 900_000);
    room.send_text("with a key that goes").await.unwrap();
    let old = server.timeline(room.id()).pop().unwrap();
    room.rotate_key().await.unwrap();
    room.send_text("with another").await.unwrap();
    let mut policy = Retention::default();
    policy.newest_in_room = Some(1);
    let store = alice.client.orchestrator().store();
    let retired = store.retire_room_keys(&policy, &BTreeSet::new()).await.unwrap();
    assert_eq!(retired.removed, 1);
    let noted: u64 = store.record(&Retired::noted()).await.unwrap().unwrap();
    assert!(noted >= now);
    // As if that had been an hour later.
    let unit = store.begin().await.unwrap();
    unit.put(&Retired::noted(), &(now + 3_600_000)).unwrap();
    unit.commit().await.unwrap();
    // It comes once more, under another id.
    server.inject(
        room.id(),
        alice.client.user_id(),
        "m.room.encrypted",
        old["content"].clone(),
    );
    alice.client.sync().await.unwrap();
    room.send_text("nothing is wrong").await.unwrap();
    // What is sent later than that, with a key that is not here, is proof.
    server.set_clock(now + 7_200_000);
    server.inject(
        room.id(),
        alice.client.user_id(),
        "m.room.encrypted",
        old["content"].clone(),
    );
    alice.client.sync().await.unwrap();
    assert_eq!(room.send_text("never").await.unwrap_err().code(), "store_set_back");
}

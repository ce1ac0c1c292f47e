//! A store that was copied or set back: noticed before it can send with keys that were used since.

use std::{path::Path, time::Duration};

use mx_e2ee::{Client, Event, RotationReason};
use mx_test_homeserver::{Fault, Homeserver};
use serde_json::json;

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

fn builder(server: &Homeserver, directory: &Path) -> mx_e2ee::ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .directory(directory)
        .key(key())
}

#[tokio::test]
async fn mg_32_an_event_of_ours_that_we_have_not_sent_stops_sends_until_it_is_acknowledged() {
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
    room.send_text("one").await.unwrap();
    alice.sync().await.unwrap();
    drop(room);
    alice.close().await.unwrap();
    copy(first.path(), second.path());

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

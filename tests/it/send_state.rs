//! What a room's state says of encryption: unknown is not plaintext, once encrypted stays encrypted, and only stricter
//! rules are followed. Rows SN-01 to SN-07, SN-43 and SN-44 of the catalogue.

use mx_e2ee::{EncryptionChange, Error, Event, RotationReason, SendOptions, SendReceipt, Warning, orchestrator};
use mx_test_homeserver::Fault;
use ruma::{
    RoomId, RoomVersionId,
    api::client::room::create_room,
    events::{InitialStateEvent, room::encryption::RoomEncryptionEventContent},
    room_id,
};
use serde_json::{Value, json};

use crate::{edits::edit_syncs, keys_cast::Cast};

const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// Bob changes the room's state.
pub(crate) fn set_state(cast: &Cast, event_type: &str, key: &str, content: &Value) {
    let path = format!("/rooms/{}/state/{event_type}/{key}", cast.room.id());
    cast.bob.ask("PUT", &path, content);
}

/// What was reported as tampered with, since the last time.
async fn tampered(cast: &Cast) -> Vec<EncryptionChange> {
    let events = cast.events().await.into_iter();
    events
        .filter_map(|event| match event {
            Event::EncryptionTampered(event) => {
                assert_eq!(event.room_id, cast.room.id());
                Some(event.change)
            }
            _ => None,
        })
        .collect()
}

fn warned(receipt: &SendReceipt) -> Vec<EncryptionChange> {
    let warnings = receipt.warnings.iter().cloned();
    warnings
        .filter_map(|warning| match warning {
            Warning::EncryptionStateTampered { change } => Some(change),
            _ => None,
        })
        .collect()
}

/// A room of alice and bob with this encryption, or none. Its state is not in her syncs, so that she has to ask.
async fn room_of(cast: &mut Cast, encryption: Option<Value>) {
    cast.room = cast
        .alice
        .create_plaintext_room(None, &[cast.bob.user().to_owned()])
        .await
        .unwrap();
    cast.bob.join(cast.room.id());
    if let Some(content) = encryption {
        set_state(cast, "m.room.encryption", "", &content);
    }
    let hidden = cast.room.id().to_owned();
    edit_syncs(&cast.server, move |body| {
        let rooms = body.pointer_mut("/rooms/join");
        if let Some(room) = rooms.and_then(|rooms| rooms.get_mut(hidden.as_str())) {
            for section in ["/state/events", "/timeline/events"] {
                if let Some(Value::Array(events)) = room.pointer_mut(section) {
                    events.retain(|event| event["type"] != "m.room.encryption");
                }
            }
        }
    });
}

#[tokio::test]
async fn sn_01_a_room_without_encryption_is_refused_and_never_sent_plaintext() {
    let mut cast = Cast::acquainted().await;
    room_of(&mut cast, None).await;
    let mark = cast.mark().await;
    assert_eq!(cast.refused().await.code(), "room_not_encrypted");
    assert_eq!(cast.requests(&mark, "PUT", "").len(), 0);
    // Only where the caller says so.
    let content = json!({"msgtype": "m.text", "body": "in the open"});
    cast.room
        .send_plaintext("m.room.message", content.clone())
        .await
        .unwrap();
    // And never again once it is encrypted.
    set_state(&cast, "m.room.encryption", "", &json!({"algorithm": MEGOLM}));
    let mark = cast.mark().await;
    let error = cast.room.send_plaintext("m.room.message", content).await.unwrap_err();
    assert_eq!(error.code(), "room_is_encrypted");
    assert_eq!(cast.requests(&mark, "PUT", "").len(), 0);
}

#[tokio::test]
async fn sn_02_a_state_that_cannot_be_had_is_not_a_room_without_encryption() {
    let mut cast = Cast::acquainted().await;
    room_of(&mut cast, Some(json!({"algorithm": MEGOLM}))).await;
    let path = "/state/m.room.encryption";
    for (fault, code) in [
        (
            Fault::status(path, 403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#),
            "not_in_room",
        ),
        (
            Fault::status(path, 500, r#"{"errcode":"M_UNKNOWN","error":"oh"}"#),
            "homeserver_failed",
        ),
        (Fault::status(path, 404, "<html>no such page</html>"), "not_in_room"),
        (Fault::drop_before(path), "interrupted"),
        (Fault::drop_after(path), "interrupted"),
        (Fault::truncate(path, 5), "malformed_sync"),
        (Fault::body(path, "<html>"), "malformed_sync"),
    ] {
        let what = format!("{fault:?}");
        cast.server.fault(fault);
        let error = cast.refused().await;
        assert_eq!(error.code(), code, "{what}");
        cast.server.fault(Fault::status(path, 500, "{}"));
        let plaintext = cast.room.send_plaintext("m.room.message", json!({"body": "x"})).await;
        assert_eq!(plaintext.unwrap_err().code(), "homeserver_failed", "{what}");
    }
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn sn_03_a_room_whose_encryption_is_taken_back_stays_encrypted_and_says_so() {
    let cast = Cast::acquainted().await;
    let first = cast.send("one").await;
    assert_eq!(warned(&first), []);
    // A sync shows it as empty.
    set_state(&cast, "m.room.encryption", "", &json!({}));
    cast.sync().await;
    let second = cast.send("two").await;
    assert_eq!(
        second.session_id, first.session_id,
        "the settings that were latched hold"
    );
    assert_eq!(warned(&second), [EncryptionChange::Denied]);
    assert_eq!(tampered(&cast).await, [EncryptionChange::Denied]);
    assert_eq!(warned(&cast.send("three").await), [EncryptionChange::Denied]);
    assert_eq!(tampered(&cast).await, [], "it is news once");
    let content = json!({"body": "never"});
    let plaintext = cast.room.send_plaintext("m.room.message", content).await;
    assert_eq!(plaintext.unwrap_err().code(), "room_is_encrypted");
    // It is shown as it was.
    set_state(&cast, "m.room.encryption", "", &json!({"algorithm": MEGOLM}));
    cast.sync().await;
    assert_eq!(warned(&cast.send("four").await), []);

    // After a restart the homeserver denies that there is such a state.
    let cast = cast.reopen().await;
    let denial = r#"{"errcode":"M_NOT_FOUND","error":"Event not found."}"#;
    cast.server
        .fault(Fault::status("/state/m.room.encryption", 404, denial));
    let fifth = cast.send("five").await;
    assert_eq!(
        (warned(&fifth), fifth.session_id),
        (vec![EncryptionChange::Denied], first.session_id)
    );
    assert_eq!(tampered(&cast).await, [EncryptionChange::Denied]);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["hello", "one", "two", "three", "four", "five"]);
    let cast = cast.reopen().await;
    assert_eq!(warned(&cast.send("six").await), [], "it was looked at again");
}

#[tokio::test]
async fn sn_04_another_algorithm_changes_nothing_and_a_first_unknown_one_is_refused() {
    let cast = Cast::acquainted().await;
    let first = cast.send("one").await;
    let evil = |algorithm: &str| EncryptionChange::Algorithm {
        algorithm: algorithm.to_owned(),
    };
    for (content, change) in [
        (json!({"algorithm": "org.evil.none"}), evil("org.evil.none")),
        (json!({"algorithm": "m.megolm.v2"}), evil("m.megolm.v2")),
        (json!({"rotation_period_msgs": 7}), EncryptionChange::Denied),
        (json!({"algorithm": ["m.megolm.v1.aes-sha2"]}), EncryptionChange::Denied),
    ] {
        set_state(&cast, "m.room.encryption", "", &content);
        cast.sync().await;
        let receipt = cast.send("still").await;
        assert_eq!(receipt.session_id, first.session_id, "{content}");
        assert_eq!(warned(&receipt), [change], "{content}");
    }
    let told = [evil("org.evil.none"), evil("m.megolm.v2"), EncryptionChange::Denied];
    assert_eq!(tampered(&cast).await, told);

    let mut cast = Cast::acquainted().await;
    for content in [
        json!({"algorithm": "org.evil.none"}),
        json!({"algorithm": 7}),
        json!({}),
    ] {
        room_of(&mut cast, Some(content.clone())).await;
        assert_eq!(cast.refused().await.code(), "unsupported_algorithm", "{content}");
        let plaintext = cast.room.send_plaintext("m.room.message", json!({"body": "x"})).await;
        assert_eq!(plaintext.unwrap_err().code(), "room_is_encrypted", "{content}");
    }
}

#[tokio::test]
async fn sn_05_a_rotation_that_is_relaxed_is_not_followed() {
    let mut cast = Cast::acquainted().await;
    room_of(&mut cast, Some(json!({"algorithm": MEGOLM, "rotation_period_msgs": 3}))).await;
    let first = cast.send("1").await;
    cast.server.behave();
    let relaxed =
        json!({"algorithm": MEGOLM, "rotation_period_msgs": 10_000, "rotation_period_ms": 31_536_000_000_u64});
    set_state(&cast, "m.room.encryption", "", &relaxed);
    cast.sync().await;
    let change = EncryptionChange::RotationRelaxed {
        messages: 10_000,
        period_ms: 31_536_000_000,
    };
    for text in ["2", "3"] {
        let receipt = cast.send(text).await;
        assert_eq!(receipt.session_id, first.session_id);
        assert_eq!(warned(&receipt), std::slice::from_ref(&change));
    }
    let fourth = cast.send("4").await;
    assert_eq!(fourth.rotation, Some(RotationReason::Messages));
    assert_eq!(tampered(&cast).await, [change]);
    // And for the keys after it.
    for text in ["5", "6"] {
        assert_eq!(cast.send(text).await.rotation, None);
    }
    assert_eq!(cast.send("7").await.rotation, Some(RotationReason::Messages));
    // A week is still the end of a key.
    cast.pass(7 * 24 * 3600);
    assert_eq!(cast.send("8").await.rotation, Some(RotationReason::Time));
}

#[tokio::test]
async fn sn_06_a_rotation_that_is_tightened_holds_from_the_next_message() {
    let cast = Cast::acquainted().await;
    let first = cast.send("second of this key").await;
    assert!(!first.new_session);
    let tightened = json!({"algorithm": MEGOLM, "rotation_period_msgs": 2, "rotation_period_ms": 7_200_000});
    set_state(&cast, "m.room.encryption", "", &tightened);
    cast.sync().await;
    let next = cast.send("first of the next").await;
    assert_eq!(next.rotation, Some(RotationReason::Messages));
    assert_ne!(next.session_id, first.session_id);
    assert_eq!(warned(&next), []);
    assert_eq!(cast.send("second of the next").await.rotation, None);
    assert_eq!(cast.send("third key").await.rotation, Some(RotationReason::Messages));
    cast.pass(7_199);
    assert_eq!(cast.send("still").await.rotation, None);
    let short = json!({"algorithm": MEGOLM, "rotation_period_msgs": 3, "rotation_period_ms": 7_200_000});
    set_state(&cast, "m.room.encryption", "", &short);
    cast.pass(1);
    assert_eq!(
        cast.send("time is over, and count too").await.rotation,
        Some(RotationReason::Messages)
    );
    cast.pass(7_200);
    assert_eq!(cast.send("time is over").await.rotation, Some(RotationReason::Time));
}

#[tokio::test]
async fn sn_07_odd_rotations_are_brought_into_their_range() {
    let mut cast = Cast::acquainted().await;
    for (odd, each_message) in [
        (json!(0), true),
        (json!(1), true),
        (json!(-5), true),
        (json!(1e30), false),
        (json!("100"), false),
        (json!(null), false),
        (json!({}), false),
    ] {
        cast.server.behave();
        let content = json!({"algorithm": MEGOLM, "rotation_period_msgs": odd, "rotation_period_ms": odd});
        room_of(&mut cast, Some(content)).await;
        let rotations = [cast.send("1").await.rotation, cast.send("2").await.rotation];
        let second = each_message.then_some(RotationReason::Messages);
        assert_eq!(rotations, [Some(RotationReason::FirstKey), second], "{odd}");
        // An hour is the least, whatever the room says.
        cast.pass(3_599);
        let third = cast.send("3").await;
        assert_eq!(third.rotation, second, "{odd}");
    }
}

#[tokio::test]
async fn sn_43_an_alias_is_resolved_nonsense_is_refused_and_ids_without_a_domain_are_rooms() {
    let mut cast = Cast::acquainted().await;
    let mark = cast.mark().await;
    for bad in [
        "",
        "!",
        "#",
        "@alice:localhost",
        "$event",
        "!room with spaces and no end",
        "#alias-without-server",
    ] {
        let found = cast.alice.resolve(bad).await;
        assert!(
            found.as_ref().is_err_and(|error| error.code() == "invalid_id") || bad.starts_with('!'),
            "{bad:?}: {found:?}"
        );
    }
    assert_eq!(cast.requests(&mark, "GET", "/directory/").len(), 0, "nothing was asked");
    let unnamed = cast.alice.resolve("room").await.unwrap_err();
    assert_eq!(unnamed.code(), "no_such_room", "{unnamed:?}");
    let missing = cast.alice.resolve("#nowhere:localhost").await.unwrap_err();
    assert_eq!(missing.code(), "not_found", "{missing:?}");

    // Room version 12: the id is a hash, and names no server.
    let id = room_id!("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM");
    assert_eq!(cast.alice.resolve(id.as_str()).await.unwrap(), id);
    let error = cast.alice.room(id).send_text("x").await.unwrap_err();
    assert_eq!(error.code(), "not_in_room", "there is no such room");
    let encrypted = InitialStateEvent::with_empty_state_key(RoomEncryptionEventContent::with_recommended_defaults());
    let mut request = create_room::v3::Request::new();
    request.room_version = Some(RoomVersionId::V12);
    request.room_alias_name = Some("plans".to_owned());
    request.invite = vec![cast.bob.user().to_owned()];
    request.initial_state = vec![encrypted.to_raw_any()];
    let made = cast.alice.homeserver().send(request).await.unwrap().room_id;
    assert!(!made.as_str().contains(':'), "{made}");
    cast.room = cast.alice.room(&cast.alice.resolve("#plans:localhost").await.unwrap());
    assert_eq!(cast.room.id(), made);
    cast.bob.join(&made);
    cast.sync().await;
    assert_eq!(cast.send("in a room without a domain").await.readable_by(), 1);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["in a room without a domain"]);
}

#[tokio::test]
async fn sn_44_a_room_that_was_replaced_is_refused_unless_it_is_meant() {
    let cast = Cast::acquainted().await;
    let replacement: &RoomId = room_id!("!next:localhost");
    set_state(
        &cast,
        "m.room.tombstone",
        "",
        &json!({"body": "gone", "replacement_room": replacement}),
    );
    cast.sync().await;
    match cast.refused().await {
        Error::Orchestrator(orchestrator::Error::RoomTombstoned { room, replacement: to }) => {
            assert_eq!((room.as_ref(), to.as_deref()), (cast.room.id(), Some(replacement)));
        }
        other => unreachable!("{other:?}"),
    }
    let options = SendOptions {
        into_tombstoned: true,
        ..SendOptions::default()
    };
    let content = json!({"msgtype": "m.text", "body": "the last word"});
    cast.room.send_with("m.room.message", content, options).await.unwrap();
    cast.sync().await;
    let cast = cast.reopen().await;
    assert_eq!(cast.refused().await.code(), "room_tombstoned", "it is remembered");
    // One that names no room is a tombstone too.
    set_state(&cast, "m.room.tombstone", "", &json!({"replacement_room": 7}));
    cast.sync().await;
    let error = cast.refused().await;
    assert!(matches!(
        error,
        Error::Orchestrator(orchestrator::Error::RoomTombstoned { replacement: None, .. })
    ));
}

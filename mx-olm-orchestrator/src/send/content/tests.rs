//! Tests of what may be sent, against what the engine really makes of it.

use matrix_sdk_crypto::{EncryptionSettings, OlmMachine};
use ruma::{device_id, room_id, user_id};
use serde_json::json;

use super::*;

const ROOM: &str = "!abcdefghijklmnopqr:localhost";

fn frame() -> Frame<'static> {
    Frame {
        room: room_id!("!abcdefghijklmnopqr:localhost"),
        user: user_id!("@alice:localhost"),
        device: device_id!("DEVICE"),
    }
}

fn code(content: &Value) -> &'static str {
    match check(frame(), "m.room.message", content) {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

#[test]
fn sn_35_numbers_and_shapes_that_canonical_json_forbids_are_refused_with_their_place() {
    for (content, path) in [
        (json!({"a": 1.5}), "/a"),
        (json!({"a": [0, 9_007_199_254_740_992_i64]}), "/a/1"),
        (json!({"a": {"b": -9_007_199_254_740_992_i64}}), "/a/b"),
        (json!({"a": {"b": u64::MAX}}), "/a/b"),
        (json!({"my Secret": {"m.x": 0.1}}), "/*/m.x"),
        (json!([]), ""),
        (json!("x"), ""),
        (json!(null), ""),
    ] {
        match check(frame(), "m.x", &content) {
            Err(Error::BadContent { path: found, .. }) => assert_eq!(found, path, "{content}"),
            other => panic!("{content}: {:?}", other.map(|_| ()).map_err(|error| error.code())),
        }
    }
    for text in [
        r#"{"a":1e2}"#,
        r#"{"a":1.0}"#,
        r#"{"a":-0.0}"#,
        r#"{"a":1E400}"#,
        r#"{"a":NaN}"#,
    ] {
        match serde_json::from_str::<Value>(text) {
            Ok(content) => assert_eq!(code(&content), "bad_content", "{text}"),
            Err(_) => assert!(text.contains("NaN") || text.contains("E400"), "{text} is no JSON"),
        }
    }
    assert_eq!(
        code(&json!({"a": [9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64, null, true, "1.5", {}]})),
        "ok"
    );
}

#[test]
fn what_is_too_deep_for_a_receiver_is_refused() {
    let nested = |levels: usize| {
        (1..levels).fold(json!({}), |inner, _| {
            Value::Object(std::iter::once(("a".to_owned(), inner)).collect())
        })
    };
    assert_eq!(code(&nested(MAX_DEPTH)), "ok");
    assert_eq!(code(&nested(MAX_DEPTH + 1)), "ok", "the last level holds nothing");
    assert_eq!(code(&nested(MAX_DEPTH + 2)), "bad_content");
    assert_eq!(code(&nested(1_000)), "bad_content");
}

/// A machine with a room key that reaches nobody, and takes no store.
async fn machine() -> OlmMachine {
    let machine = OlmMachine::new(frame().user, frame().device).await;
    let settings = EncryptionSettings {
        rotation_period_msgs: 10_000,
        ..EncryptionSettings::default()
    };
    machine
        .share_room_key(frame().room, std::iter::empty(), settings)
        .await
        .unwrap();
    machine
}

async fn encrypted(machine: &OlmMachine, event_type: &str, content: &Value) -> Value {
    let raw = Raw::from_json(serde_json::value::to_raw_value(content).unwrap());
    let encrypted = machine
        .encrypt_room_event_raw(frame().room, event_type, &raw)
        .await
        .unwrap();
    serde_json::from_str(encrypted.content.json().get()).unwrap()
}

#[tokio::test]
async fn sn_34_the_size_is_known_exactly_before_anything_is_encrypted() {
    let machine = machine().await;
    let mut index = 0;
    // Every length of a block of the cipher, and where the numbers of the encoding grow: 128 and 16,384 bytes, 128
    // messages.
    let lengths = (0..=40)
        .chain(70..=90)
        .chain((16_250..16_310).step_by(7))
        .chain([40_000, 45_000]);
    for length in lengths {
        for content in [
            json!({"body": "x".repeat(length)}),
            json!({"body": "\u{1f600}\"\\\n\u{1}".repeat(length / 8), "m.relates_to": {"rel_type": "m.thread", "event_id": "$\u{e9}"}}),
            json!({"m.relates_to": null, "z": length}),
        ] {
            let json = serde_json::value::to_raw_value(&content).unwrap();
            let event_type = if length % 2 == 0 {
                "m.room.message"
            } else {
                "org.example.\"quoted\""
            };
            let expected = frame().encrypted(event_type, &content, &json, index);
            let made = encrypted(&machine, event_type, &content).await;
            assert_eq!(made.to_string().len(), expected, "{length} bytes at index {index}");
            index += 1;
        }
    }
    assert!(index > 200, "the index took two bytes, too");
}

#[tokio::test]
async fn the_outside_names_relation_sender_key_and_device() {
    let machine = machine().await;
    let relation = json!({"rel_type": "m.annotation", "event_id": "$x", "key": "👍"});
    let made = encrypted(
        &machine,
        "m.reaction",
        &json!({"m.relates_to": relation, "body": "inside"}),
    )
    .await;
    assert_eq!(made["m.relates_to"], relation);
    assert_eq!(made["device_id"], "DEVICE");
    assert_eq!(made["sender_key"], machine.identity_keys().curve25519.to_base64());
    let mut fields: Vec<&String> = made.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "algorithm",
            "ciphertext",
            "device_id",
            "m.relates_to",
            "sender_key",
            "session_id"
        ]
    );
}

#[test]
fn lm_04_the_border_is_where_the_event_would_be_too_large() {
    let max = frame().room_for_content();
    let content = |length: usize| json!({"msgtype": "m.text", "body": "x".repeat(length)});
    let bytes = |length: usize| {
        let content = content(length);
        let json = serde_json::value::to_raw_value(&content).unwrap();
        frame().encrypted("m.room.message", &content, &json, MAX_INDEX)
    };
    let (mut fits, mut border) = (0, MAX_EVENT);
    while border - fits > 1 {
        let middle = fits.midpoint(border);
        if bytes(middle) > max {
            border = middle;
        } else {
            fits = middle;
        }
    }
    assert_eq!(code(&content(border - 1)), "ok");
    assert_eq!(code(&content(border)), "too_large");
    // It depends on the names that the homeserver adds.
    assert!(ROOM.len() + MAX_EVENT > max + ADDED);
    assert_eq!(code(&content(10 << 20)), "too_large");
}

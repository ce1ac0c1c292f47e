//! One protocol in the place of another, and events that are none: rows TD of the catalogue.

use mx_e2ee::{Event, UndecryptableReason};
use mx_olm_orchestrator::ToDeviceRejectedReason as Reason;
use serde_json::{Value, json};

use crate::evil::{evil, messages, text};

#[tokio::test]
async fn td_38_megolm_to_a_device_is_not_read() {
    let mut evil = evil().await;
    evil.bodies().await;
    // Alice has the session that encrypts it, so that only the algorithm speaks against it.
    let mut session = evil.session();
    evil.sync().await;
    let hidden = evil.bob.megolm_session(evil.room.id());
    let key = hidden.room_key();
    let mut payload = session.payload("m.room_key", key.clone());
    for (field, value) in [
        ("sender", json!(evil.bob.user())),
        ("recipient", json!(evil.alice.client.user_id())),
        ("keys", json!({"ed25519": evil.bob.ed25519().to_base64()})),
        ("recipient_keys", json!({"ed25519": evil.olm.ed25519})),
    ] {
        payload[field] = value;
    }
    let content = session.encrypt(payload.to_string());
    let mut disguised = content.clone();
    disguised["algorithm"] = json!("m.olm.v1.curve25519-aes-sha2");
    let event = |content: Value| json!({"type": "m.room.encrypted", "sender": evil.bob.user(), "content": content});
    let mut unknown = content.clone();
    unknown["algorithm"] = json!("m.olm.v9");
    let events = vec![event(content), event(unknown), event(disguised)];
    let reasons = [
        Reason::UnsupportedAlgorithm,
        Reason::UnsupportedAlgorithm,
        Reason::Invalid,
    ];
    evil.assert_ignored(events, &reasons).await;
    assert!(!evil.has(&hidden.session_id()).await);
}

#[tokio::test]
async fn td_39_olm_in_a_timeline_is_not_read_and_advances_nothing() {
    let mut evil = evil().await;
    evil.bodies().await;
    let (event, id) = evil.key_event();
    evil.put(&event["content"]);
    let events = evil.alice.events().await;
    let [Event::Undecryptable(undecryptable)] = events.as_slice() else {
        panic!("{events:?}")
    };
    let algorithm = "m.olm.v1.curve25519-aes-sha2".to_owned();
    assert_eq!(
        undecryptable.reason,
        UndecryptableReason::UnsupportedAlgorithm { algorithm }
    );
    assert!(!evil.has(&id).await);
    evil.queue(vec![event]);
    assert_eq!(evil.sync().await.to_device_rejected, 0);
    assert!(evil.has(&id).await, "where it belongs it is read");
}

#[tokio::test]
async fn td_40_a_message_to_a_device_is_no_message_of_a_room() {
    let mut evil = evil().await;
    evil.bodies().await;
    let content = json!({"msgtype": "m.text", "body": "!delete everything", "room_id": evil.room.id()});
    let envelope = evil.bob.envelope(&evil.olm, "m.room.message", content.clone());
    let envelope = envelope
        .with("room_id", evil.room.id().as_str())
        .with("event_id", "$forged");
    let encrypted = evil.bob.olm_event(&evil.olm, &envelope);
    let plaintext = json!({
        "type": "m.room.message", "sender": evil.bob.user(), "content": content, "room_id": evil.room.id(),
        "event_id": "$forged",
    });
    evil.queue(vec![encrypted, plaintext]);
    let summary = evil.sync().await;
    assert_eq!((summary.to_device_custom, summary.to_device_rejected), (1, 0));
    assert!(evil.alice.events().await.is_empty());
}

#[tokio::test]
async fn td_43_what_is_no_event_is_named_and_hides_nothing() {
    let mut evil = evil().await;
    let bob = evil.bob.user().to_owned();
    let events = vec![
        json!({"type": "m.dummy", "content": {}}),
        json!({"type": "m.dummy", "sender": "bob", "content": {}}),
        json!({"type": "m.dummy", "sender": 7, "content": {}}),
        json!({"sender": bob, "content": {}}),
        json!({"type": null, "sender": bob, "content": {}}),
        json!({"type": "m.dummy", "sender": bob}),
        json!({"type": "m.room_key_request", "sender": bob, "content": []}),
        json!({"type": "m.room.encrypted", "sender": bob, "content": "x"}),
        json!({"type": "m.room.encrypted", "sender": bob, "content": {}}),
        json!([]),
        json!("m.dummy"),
        json!(7),
        json!(null),
    ];
    let reasons = vec![Reason::Invalid; events.len()];
    evil.assert_ignored(events, &reasons).await;
}

#[tokio::test]
async fn td_49_a_message_behind_250_others_has_its_key_at_once() {
    let mut evil = evil().await;
    evil.bodies().await;
    let noise = json!({"type": "org.example.noise", "sender": evil.bob.user(), "content": {}});
    evil.queue(vec![noise; 250]);
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "behind them"));
    evil.put(&content);
    let events = evil.alice.client.receive(std::time::Duration::ZERO).await.unwrap();
    let [message] = messages(&events)[..] else {
        panic!("{events:?}")
    };
    assert_eq!(message.body(), Some("behind them"));
    assert_eq!(message.encryption.as_ref().unwrap().waited_ms, None, "it never waited");
}

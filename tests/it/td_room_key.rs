//! Room keys that nobody asked for, in the wrong place, in the wrong form: rows TD of the catalogue.

use mx_e2ee::{Event, RejectedReason, Trust};
use mx_olm_orchestrator::ToDeviceRejectedReason as Reason;
use mx_test_homeserver::EvilPeer;
use ruma::room_id;
use serde_json::{Value, json};

use crate::{
    evil::{Evil, evil, messages, text},
    td_ignored::stranger,
};

/// An event that is not encrypted.
fn plaintext(evil: &Evil, event_type: &str, content: &Value) -> Value {
    json!({"type": event_type, "sender": evil.bob.user(), "content": content})
}

/// An Olm message of bob's with this inside.
fn olm(evil: &mut Evil, event_type: &str, content: Value) -> Value {
    let envelope = evil.bob.envelope(&evil.olm, event_type, content);
    evil.bob.olm_event(&evil.olm, &envelope)
}

#[tokio::test]
async fn td_01_and_02_secrets_in_plaintext_are_ignored() {
    let mut evil = evil().await;
    let mut session = evil.bob.megolm_session(evil.room.id());
    let (curve, ed) = (evil.bob.curve25519().to_base64(), evil.bob.ed25519().to_base64());
    let forwarded = session.forwarded_room_key(0, &curve, &ed);
    let secret = json!({"request_id": "1", "secret": "c2VjcmV0"});
    let bundle = json!({"room_id": evil.room.id(), "file": {}});
    let events = vec![
        plaintext(&evil, "m.room_key", &session.room_key()),
        plaintext(&evil, "m.forwarded_room_key", &forwarded),
        plaintext(&evil, "m.secret.send", &secret),
        plaintext(&evil, "m.room_key_bundle", &bundle),
        plaintext(&evil, "io.element.msc4268.room_key_bundle", &bundle),
    ];
    evil.assert_ignored(events, &[Reason::Plaintext; 5]).await;
    assert!(!evil.has(&session.session_id()).await);
}

#[tokio::test]
async fn td_07_a_key_in_the_name_of_another_signing_key_is_ignored() {
    let mut evil = evil().await;
    let carol = stranger(&evil, "carol", "CDEV");
    let session = evil.bob.megolm_session(evil.room.id());
    let keys = json!({"ed25519": carol.ed25519().to_base64()});
    let envelope = evil.bob.envelope(&evil.olm, "m.room_key", session.room_key());
    let event = evil.bob.olm_event(&evil.olm, &envelope.with("keys", keys));
    evil.assert_ignored(vec![event], &[Reason::Undecryptable]).await;
    assert!(!evil.has(&session.session_id()).await);
}

#[tokio::test]
async fn td_07_of_a_device_that_was_not_known_it_opens_nothing_once_it_is() {
    let evil = evil().await;
    evil.bodies().await;
    let carol = stranger(&evil, "carol", "CDEV");
    let mut second = EvilPeer::new(&evil.server, "bob", "BDEV2");
    let olm = second.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
    let mut session = second.megolm_session(evil.room.id());
    let keys = json!({"ed25519": carol.ed25519().to_base64()});
    let envelope = second.envelope(&olm, "m.room_key", session.room_key());
    let event = second.olm_event(&olm, &envelope.with("keys", keys));
    evil.queue(vec![event]);
    second.publish();
    evil.alice.client.sync().await.unwrap();
    second.send_text(&mut session, "whose?");
    let events = evil.alice.events().await;
    let [Event::Rejected(rejected)] = &events[..] else {
        unreachable!("{events:?}")
    };
    assert_eq!(rejected.reason, RejectedReason::SenderUnattributed);
}

#[tokio::test]
async fn td_10_a_device_that_is_not_known_yet_is_trusted_when_it_is() {
    let evil = evil().await;
    evil.bodies().await;
    let mut second = EvilPeer::new(&evil.server, "bob", "BDEV2");
    let olm = second.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
    let mut session = second.megolm_session(evil.room.id());
    second.share_room_key(&olm, &session);
    second.send_text(&mut session, "early");
    let trust = |events: Vec<Event>| messages(&events)[0].encryption.as_ref().unwrap().trust;
    assert_eq!(trust(evil.alice.events().await), Trust::Unknown);
    second.publish();
    // The homeserver tells that bob's devices changed; alice asks for them.
    evil.alice.client.sync().await.unwrap();
    second.send_text(&mut session, "later");
    assert_eq!(trust(evil.alice.events().await), Trust::Unsigned);
}

#[tokio::test]
async fn td_12_a_room_key_is_taken_exactly_when_it_is_one() {
    let mut evil = evil().await;
    let wrong = [
        None,
        Some(json!(null)),
        Some(json!(7)),
        Some(json!("")),
        Some(json!("x")),
        Some(json!([])),
        Some(json!({})),
    ];
    let mut events = Vec::new();
    for field in ["algorithm", "room_id", "session_key", "session_id"] {
        for value in &wrong {
            let session = evil.bob.megolm_session(evil.room.id());
            let mut content = session.room_key();
            match value {
                Some(value) => content[field] = value.clone(),
                None => drop(content.as_object_mut().unwrap().remove(field)),
            }
            // A session id that is text and not the key's own is the next test's.
            if field != "session_id" || !value.as_ref().is_some_and(Value::is_string) {
                events.push(olm(&mut evil, "m.room_key", content));
            }
        }
    }
    for content in [json!(null), json!([]), json!("m.room_key"), json!({})] {
        events.push(olm(&mut evil, "m.room_key", content));
    }
    let mut old = evil.bob.megolm_session(evil.room.id());
    let exported = old.forwarded_room_key(0, "x", "x")["session_key"].clone();
    let mut content = old.room_key();
    content["session_key"] = exported;
    events.push(olm(&mut evil, "m.room_key", content));
    let session = evil.bob.megolm_session(evil.room.id());
    let key = session.room_key()["session_key"].as_str().unwrap().to_owned();
    for bit in [0, 9, 100, 8 * 140, 8 * 190] {
        let mut content = session.room_key();
        content["session_key"] = json!(mx_test_homeserver::peer::flip_bit(&key, bit));
        events.push(olm(&mut evil, "m.room_key", content));
    }
    let before = evil.state(&[]).await;
    let mut extra = session.room_key();
    extra["org.example.extra"] = json!({"deep": [1, 2, 3]});
    events.push(olm(&mut evil, "m.room_key", extra));
    evil.queue(events);
    evil.sync().await;
    let after = evil.state(&[]).await;
    let new: Vec<_> = after.room_keys.difference(&before.room_keys).collect();
    let [(room, id, first)] = new.as_slice() else {
        panic!("{new:?}")
    };
    assert_eq!(
        (room.as_str(), id, first),
        (evil.room.id().as_str(), &session.session_id(), &0)
    );
}

#[tokio::test]
async fn td_15_a_session_cannot_take_the_id_of_another() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut honest = evil.bob.megolm_session(evil.room.id());
    let session = evil.bob.megolm_session(evil.room.id());
    let event = olm(
        &mut evil,
        "m.room_key",
        session.room_key_for(session.room().as_str(), &honest.session_id()),
    );
    evil.queue(vec![event]);
    evil.sync().await;
    assert!(!evil.has(&honest.session_id()).await);
    // The one whose id it is still comes, and opens its event.
    let content = honest.encrypt(text(&honest, "the true one"));
    evil.put(&content);
    assert!(evil.bodies().await.is_empty());
    let mut at_start = honest;
    at_start.go_to(0);
    let event = olm(&mut evil, "m.room_key", at_start.room_key());
    evil.queue(vec![event]);
    assert_eq!(evil.bodies().await, ["the true one"]);
}

#[tokio::test]
async fn td_17_a_key_that_comes_again_for_another_room_takes_nothing_away() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "before"));
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["before"]);
    let before = evil.state(&[]).await.room_keys;
    let other = room_id!("!elsewhere:localhost").as_str();
    session.go_to(0);
    let event = olm(
        &mut evil,
        "m.room_key",
        session.room_key_for(other, &session.session_id()),
    );
    evil.queue(vec![event]);
    evil.sync().await;
    assert!(before.is_subset(&evil.state(&[]).await.room_keys));
    evil = evil.kill_alice().await;
    session.go_to(1);
    let content = session.encrypt(text(&session, "after"));
    evil.put(&content);
    assert_eq!(evil.bodies().await, ["after"]);
}

#[tokio::test]
async fn td_20_a_forwarded_key_that_nobody_asked_for_is_not_taken() {
    let mut evil = evil().await;
    let own = stranger(&evil, "alice", "ALICE2");
    let mut before = evil.state(&[]).await;
    for mut from in [evil.bob.clone(), own] {
        let mut session = from.megolm_session(evil.room.id());
        let (curve, ed) = (from.curve25519().to_base64(), from.ed25519().to_base64());
        let olm = from.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
        let forwarded = session.forwarded_room_key(0, &curve, &ed);
        let envelope = from.envelope(&olm, "m.forwarded_room_key", forwarded);
        let event = from.olm_event(&olm, &envelope);
        let (sibling, id) = evil.key_event();
        evil.queue(vec![event, sibling]);
        evil.sync().await;
        before.room_keys.insert((evil.room.id().to_string(), id, 0));
        assert_eq!(evil.state(&[]).await, before, "{from:?}");
        assert!(!evil.has(&session.session_id()).await);
    }
}

#[tokio::test]
async fn td_22_whoever_asks_for_a_key_gets_none() {
    let evil = evil().await;
    let own = stranger(&evil, "alice", "ALICE2");
    let carol = stranger(&evil, "carol", "CDEV");
    evil.room.send_text("worth asking for").await.unwrap();
    let sent = evil.server.timeline(evil.room.id()).pop().unwrap();
    let wanted = json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": evil.room.id(),
        "session_id": sent["content"]["session_id"],
        "sender_key": sent["content"]["sender_key"],
    });
    let before = evil.requests("/sendToDevice/");
    for from in [&evil.bob, &own, &carol] {
        let request = json!({
            "action": "request", "body": wanted, "request_id": from.device(), "requesting_device_id": from.device(),
        });
        evil.queue(vec![
            json!({"type": "m.room_key_request", "sender": from.user(), "content": request}),
        ]);
    }
    for _ in 0..3 {
        evil.sync().await;
    }
    assert_eq!(evil.requests("/sendToDevice/"), before);
}

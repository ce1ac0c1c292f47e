//! Olm sessions under attack: broken first messages, keys used twice, replays, disorder. Rows TD of the catalogue.

use mx_olm_orchestrator::ToDeviceRejectedReason as Reason;
use mx_test_homeserver::peer::{MessageParts, OlmBody, OlmSession, PreKeyParts, SMALL_ORDER_POINTS};
use serde_json::{Value, json};
use vodozemac::Curve25519PublicKey;

use crate::evil::{Evil, evil};

/// A one-time key of alice's, claimed by bob, to be used as often as he likes.
fn claimed(evil: &Evil) -> Curve25519PublicKey {
    let (user, device) = (evil.alice.client.user_id(), evil.alice.client.device_id());
    let (_, key) = evil.bob.claim(user, device).unwrap();
    Curve25519PublicKey::from_base64(key["key"].as_str().unwrap()).unwrap()
}

/// A session of bob's with alice on a key.
fn session_on(evil: &mut Evil, key: Curve25519PublicKey) -> OlmSession {
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    evil.bob.olm_session_on(&user, &device, key)
}

/// A room key of bob's on a session, and its id.
fn key_on(evil: &mut Evil, olm: &OlmSession) -> (Value, String) {
    let session = evil.bob.megolm_session(evil.room.id());
    let envelope = evil.bob.envelope(olm, "m.room_key", session.room_key());
    (evil.bob.olm_event(olm, &envelope), session.session_id())
}

/// The event with another Olm message inside.
fn with_body(evil: &Evil, event: &Value, body: &OlmBody) -> Value {
    let mut event = event.clone();
    body.put(&mut event["content"], &evil.olm.curve25519.to_base64());
    event
}

fn body(evil: &Evil, event: &Value) -> OlmBody {
    OlmBody::of(&event["content"], &evil.olm.curve25519.to_base64()).unwrap()
}

#[tokio::test]
async fn td_28_a_broken_first_message_leaves_its_one_time_key() {
    let mut evil = evil().await;
    let key = claimed(&evil);
    let olm = session_on(&mut evil, key);
    let (good, id) = key_on(&mut evil, &olm);
    let whole = body(&evil, &good);
    let mut events = Vec::new();
    for length in [0, 1, 40, whole.bytes.len() / 2, whole.bytes.len() - 1] {
        let cut = OlmBody {
            bytes: whole.bytes[..length].to_vec(),
            ..whole.clone()
        };
        events.push(with_body(&evil, &good, &cut));
    }
    for version in [0, 1, 2, 4, 255] {
        let mut other = whole.clone();
        other.bytes[0] = version;
        events.push(with_body(&evil, &good, &other));
    }
    let mut no_base64 = good.clone();
    no_base64["content"]["ciphertext"][evil.olm.curve25519.to_base64()]["body"] = json!("!!!");
    events.push(no_base64);
    let reasons = vec![Reason::Invalid; events.len()];
    evil.assert_ignored(events, &reasons).await;
    // Those that can be read and do not open.
    let mut wrong_mac = whole.clone();
    *wrong_mac.bytes.last_mut().unwrap() ^= 1;
    let wrong_mac = with_body(&evil, &good, &wrong_mac);
    let mut parts = PreKeyParts::parse(&whole.bytes).unwrap();
    parts.base_key[0] ^= 1;
    let bytes = parts.to_bytes();
    let other_base = with_body(&evil, &good, &OlmBody { bytes, ..whole });
    evil.assert_ignored(vec![wrong_mac, other_base], &[Reason::Undecryptable; 2])
        .await;
    assert!(!evil.has(&id).await);
    evil.queue(vec![good]);
    assert_eq!(evil.sync().await.to_device_rejected, 0);
    assert!(evil.has(&id).await, "the one-time key is there still");
}

#[tokio::test]
async fn td_30_points_of_small_order_make_no_session() {
    let mut evil = evil().await;
    let key = claimed(&evil);
    let olm = session_on(&mut evil, key);
    let (good, id) = key_on(&mut evil, &olm);
    let whole = body(&evil, &good);
    let parts = PreKeyParts::parse(&whole.bytes).unwrap();
    let message = MessageParts::parse(&parts.message).unwrap();
    let mut events = Vec::new();
    let mut senders = vec![evil.bob.curve25519().to_base64()];
    for point in SMALL_ORDER_POINTS {
        let point = point.to_vec();
        let base = PreKeyParts {
            base_key: point.clone(),
            ..parts.clone()
        };
        let identity = PreKeyParts {
            identity_key: point.clone(),
            ..parts.clone()
        };
        let ratchet = PreKeyParts {
            message: MessageParts {
                ratchet_key: point.clone(),
                ..message.clone()
            }
            .to_bytes(),
            ..parts.clone()
        };
        for (parts, sender) in [(base, None), (identity, Some(point)), (ratchet, None)] {
            let bytes = parts.to_bytes();
            let mut event = with_body(&evil, &good, &OlmBody { bytes, ..whole.clone() });
            if let Some(point) = sender {
                let point = vodozemac::base64_encode(point);
                event["content"]["sender_key"] = json!(point);
                senders.push(point);
            }
            events.push(event);
        }
    }
    let before = evil.state(&senders[1..]).await;
    evil.assert_ignored(events, &[Reason::Undecryptable; 21]).await;
    assert_eq!(evil.state(&senders[1..]).await.olm, before.olm);
    evil.queue(vec![good]);
    assert_eq!(evil.sync().await.to_device_rejected, 0);
    assert!(evil.has(&id).await, "the one-time key is there still");
}

#[tokio::test]
async fn td_31_a_one_time_key_is_used_once() {
    for killed in [false, true] {
        let mut evil = evil().await;
        let key = claimed(&evil);
        let (first, second) = (session_on(&mut evil, key), session_on(&mut evil, key));
        let (event, id) = key_on(&mut evil, &first);
        evil.queue(vec![event]);
        assert_eq!(evil.sync().await.to_device_rejected, 0);
        assert!(evil.has(&id).await);
        if killed {
            evil = evil.kill_alice().await;
        }
        let (event, id) = key_on(&mut evil, &second);
        evil.assert_ignored(vec![event], &[Reason::Undecryptable]).await;
        assert!(!evil.has(&id).await, "killed: {killed}");
    }
}

#[tokio::test]
async fn td_32_a_message_that_was_handled_is_a_replay() {
    let mut evil = evil().await;
    evil.alice.events().await;
    let (pre_key, _) = evil.key_event();
    assert_eq!(body(&evil, &pre_key).message_type, 0);
    evil.queue(vec![pre_key.clone()]);
    evil.sync().await;
    // Alice answers on it, so that bob's next one is a normal message.
    evil.room.send_text("an answer").await.unwrap();
    evil.bob.receive();
    let (normal, id) = evil.key_event();
    assert_eq!(body(&evil, &normal).message_type, 1);
    evil.queue(vec![normal.clone()]);
    assert_eq!(evil.sync().await.to_device_rejected, 0);
    assert!(evil.has(&id).await);
    let keys = [evil.bob.curve25519().to_base64()];
    let (before, claims) = (evil.state(&keys).await.olm, evil.requests("/keys/claim"));
    let twice = vec![pre_key.clone(), normal.clone(), normal.clone()];
    evil.assert_ignored(twice, &[Reason::Replay; 3]).await;
    evil = evil.kill_alice().await;
    evil.assert_ignored(vec![normal, pre_key], &[Reason::Replay; 2]).await;
    assert_eq!(evil.state(&keys).await.olm, before);
    assert_eq!(
        evil.requests("/keys/claim"),
        claims,
        "nothing is wrong with the session"
    );
}

#[tokio::test]
async fn td_32_the_same_message_twice_in_one_sync_is_taken_once() {
    let mut evil = evil().await;
    let (event, id) = evil.key_event();
    evil.queue(vec![event.clone(), event]);
    let summary = evil.sync().await;
    assert_eq!(
        summary.rejected.iter().map(|r| r.reason).collect::<Vec<_>>(),
        [Reason::Replay]
    );
    assert!(evil.has(&id).await);
}

#[tokio::test]
async fn td_35_messages_out_of_order_are_all_read() {
    for syncs in [1, 3] {
        let mut evil = evil().await;
        let (first, one) = evil.key_event();
        let (second, two) = evil.key_event();
        let (third, three) = evil.key_event();
        if syncs == 1 {
            evil.queue(vec![third, first, second]);
            assert_eq!(evil.sync().await.to_device_rejected, 0);
        } else {
            for event in [third, first, second] {
                evil.queue(vec![event]);
                assert_eq!(evil.sync().await.to_device_rejected, 0);
            }
        }
        for id in [one, two, three] {
            assert!(evil.has(&id).await, "{syncs} syncs");
        }
    }
}

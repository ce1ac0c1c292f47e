//! Two peers talk, and what they sign is checked by somebody else.

use ruma::{RoomId, canonical_json::to_canonical_value, device_id, room_id};
use serde_json::{Value, json};
use vodozemac::{Curve25519PublicKey, Ed25519PublicKey, Ed25519Signature, megolm::SessionKey};

use super::{
    EvilPeer, MegolmParts, MessageParts, OlmBody, PreKeyParts, SMALL_ORDER_POINTS, canonical_json, flip_bit, sign_with,
    verify,
};
use crate::{Fault, Homeserver};

fn room() -> &'static RoomId {
    room_id!("!room:localhost")
}

/// Two peers who have published their keys.
fn two() -> (Homeserver, EvilPeer, EvilPeer) {
    let server = Homeserver::new();
    let (mut alice, mut bob) = (
        EvilPeer::new(&server, "alice", "ALICE"),
        EvilPeer::new(&server, "bob", "BOB"),
    );
    alice.publish();
    bob.publish();
    (server, alice, bob)
}

/// Verify without a line of ours: ruma's canonical JSON, vodozemac's strict signatures.
fn verified_by_others(object: &Value, user: &str, key_id: &str, key: &Ed25519PublicKey) -> bool {
    let signature = object["signatures"][user][key_id].as_str().unwrap();
    let mut signed = object.clone();
    signed.as_object_mut().unwrap().remove("signatures");
    signed.as_object_mut().unwrap().remove("unsigned");
    let canonical = to_canonical_value(signed).unwrap().to_string();
    key.verify(canonical.as_bytes(), &Ed25519Signature::from_base64(signature).unwrap())
        .is_ok()
}

#[test]
fn canonical_json_is_rumas() {
    let value = json!({
        "z": {"ü": 1, "a": [], "\u{10ffff}": null, "\u{ffff}": true},
        "A": "quote \" slash \\ line \n tab \t bell \u{7} delete \u{7f} line separator \u{2028}",
        "numbers": [0, -1, 9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64],
        "": {},
    });
    assert_eq!(canonical_json(&value), to_canonical_value(&value).unwrap().to_string());
    assert_eq!(
        canonical_json(&json!({"f": 1.5})),
        r#"{"f":1.5}"#,
        "what has no form is signed too"
    );
}

#[test]
fn device_keys_and_one_time_keys_are_signed() {
    let (server, alice, mut bob) = two();
    assert_eq!(server.one_time_keys_left(bob.user(), bob.device()), 50);
    let keys = alice.device_keys_of(bob.user(), bob.device());
    let (user, id) = ("@bob:localhost", "ed25519:BOB");
    assert_eq!(keys["keys"][id], bob.ed25519().to_base64());
    assert!(verified_by_others(&keys, user, id, &bob.ed25519()));
    let (name, key) = alice.claim(bob.user(), bob.device()).unwrap();
    assert!(name.starts_with("signed_curve25519:"), "{name}");
    assert!(verified_by_others(&key, user, id, &bob.ed25519()));
    assert!(!verified_by_others(&key, user, id, &alice.ed25519()));
    server.exhaust_keys(bob.user(), bob.device());
    assert_eq!(alice.claim(bob.user(), bob.device()), None);
    let fallback = bob.fallback_key();
    bob.publish_keys(&json!({"fallback_keys": fallback}));
    let (_, key) = alice.claim(bob.user(), bob.device()).unwrap();
    assert_eq!(key["fallback"], true);
    assert!(verified_by_others(&key, user, id, &bob.ed25519()));
    drop(bob);
}

#[test]
fn a_signature_can_be_anybodys() {
    let (_, alice, bob) = two();
    let mut object = json!({"x": 1, "unsigned": {"not": "covered"}});
    alice.sign_as(&mut object, bob.user(), "ed25519:BOB");
    assert!(verify(&object, bob.user(), "ed25519:BOB", &alice.ed25519()));
    assert!(!verify(&object, bob.user(), "ed25519:BOB", &bob.ed25519()));
    object["unsigned"] = json!("changed");
    assert!(verify(&object, bob.user(), "ed25519:BOB", &alice.ed25519()));
    object["x"] = json!(2);
    assert!(!verify(&object, bob.user(), "ed25519:BOB", &alice.ed25519()));
    bob.sign(&mut object);
    assert_eq!(
        object["signatures"]["@bob:localhost"]["ed25519:BOB"]
            .as_str()
            .map(str::len),
        Some(86)
    );
}

#[test]
fn cross_signing_reaches_the_homeserver_and_signs_a_device() {
    let (_, alice, bob) = two();
    let identity = bob.new_cross_signing();
    bob.publish_cross_signing(&identity);
    bob.publish_signed_device(&identity, bob.device(), &bob.device_keys());
    let keys = alice.ask("POST", "/keys/query", &json!({"device_keys": {"@bob:localhost": []}}));
    let master = identity.master.public_key();
    let self_signing = identity.self_signing.public_key();
    let id = |key: &Ed25519PublicKey| format!("ed25519:{}", key.to_base64());
    let user = "@bob:localhost";
    let of = |field: &str| keys[field][user].clone();
    assert!(verified_by_others(
        &of("master_keys"),
        user,
        "ed25519:BOB",
        &bob.ed25519()
    ));
    assert!(verified_by_others(
        &of("self_signing_keys"),
        user,
        &id(&master),
        &master
    ));
    let device = &keys["device_keys"][user]["BOB"];
    assert!(verified_by_others(device, user, &id(&self_signing), &self_signing));
    assert!(verified_by_others(device, user, "ed25519:BOB", &bob.ed25519()));
    assert_eq!(of("user_signing_keys"), Value::Null, "only for bob himself");
    let own = bob.ask("POST", "/keys/query", &json!({"device_keys": {user: []}}))["user_signing_keys"][user].clone();
    assert!(verified_by_others(&own, user, &id(&master), &master));
    let mut other = json!({"user_id": "@alice:localhost"});
    identity.sign_user(&mut other);
    assert!(verify(
        &other,
        bob.user(),
        &id(&identity.user_signing.public_key()),
        &identity.user_signing.public_key()
    ));
    sign_with(&identity.master, &mut other, alice.user(), "ed25519:ALICE");
    assert!(verify(&other, alice.user(), "ed25519:ALICE", &master));
}

#[test]
fn two_peers_talk_both_ways_and_the_ratchet_turns() {
    let (_, mut alice, mut bob) = two();
    let session = alice.olm_session_with(bob.user(), bob.device());
    for turn in 0..3 {
        let envelope = alice.envelope(&session, "m.test", json!({"turn": turn}));
        alice.send_olm(&session, &envelope);
        let [received] = bob.receive().try_into().unwrap();
        let payload = received.payload.unwrap();
        assert_eq!(payload, envelope.to_value());
        assert_eq!(payload["recipient_keys"]["ed25519"], bob.ed25519().to_base64());
        let back = bob.newest_olm_session(alice.user(), alice.device()).unwrap();
        let envelope = bob.envelope(&back, "m.test", json!({"answer": turn}));
        bob.send_olm(&back, &envelope);
        let [received] = alice.receive().try_into().unwrap();
        let kind = &received.event["content"]["ciphertext"][alice.curve25519().to_base64()]["type"];
        assert_eq!(kind, 1, "an answer is a normal message");
        assert_eq!(received.payload.unwrap()["content"]["answer"], turn);
    }
    assert!(alice.receive().is_empty());
}

#[test]
fn every_field_of_a_payload_can_lie() {
    let (_, mut alice, bob) = two();
    let session = alice.olm_session_with(bob.user(), bob.device());
    let envelope = alice
        .envelope(&session, "m.test", json!({}))
        .with("sender", 7)
        .with("sender_device_keys", bob.device_keys())
        .without("recipient")
        .to_value();
    assert_eq!(envelope["sender"], 7);
    assert_eq!(envelope["sender_device_keys"]["device_id"], "BOB");
    assert!(envelope.get("recipient").is_none());
    assert_eq!(envelope["keys"]["ed25519"], alice.ed25519().to_base64());
}

#[test]
fn a_tampered_message_is_not_read_and_the_true_one_is() {
    let (_, mut alice, mut bob) = two();
    let session = alice.olm_session_with(bob.user(), bob.device());
    let content = alice.encrypt(&session, "{\"true\":1}");
    let to = bob.curve25519().to_base64();
    let body = OlmBody::of(&content, &to).unwrap();
    let parts = PreKeyParts::parse(&body.bytes).unwrap();
    let message = MessageParts::parse(&parts.message).unwrap();
    assert_eq!(parts.to_bytes(), body.bytes);
    assert_eq!(message.to_bytes(), parts.message);
    assert_eq!(
        (parts.identity_key.as_slice(), message.chain_index),
        (alice.curve25519().as_bytes().as_slice(), 0)
    );
    let put = |parts: PreKeyParts| {
        let mut content = content.clone();
        let bytes = parts.to_bytes();
        OlmBody { bytes, ..body.clone() }.put(&mut content, &to);
        content
    };
    let mut with_mac = message.clone();
    with_mac.mac[0] ^= 1;
    let changed = PreKeyParts {
        message: with_mac.to_bytes(),
        ..parts.clone()
    };
    assert_eq!(
        bob.decrypt(&put(changed)),
        None,
        "a wrong MAC: this build checks authenticity"
    );
    for point in SMALL_ORDER_POINTS {
        for key in 0..2 {
            let mut parts = parts.clone();
            if key == 0 {
                parts.base_key = point.to_vec();
            } else {
                parts.message = MessageParts {
                    ratchet_key: point.to_vec(),
                    ..message.clone()
                }
                .to_bytes();
            }
            assert_eq!(bob.decrypt(&put(parts)), None);
        }
    }
    assert_eq!(bob.decrypt(&content), Some(json!({"true": 1})));
    assert_eq!(bob.decrypt(&content), None, "a replay");
}

#[test]
fn no_exchange_with_a_point_of_small_order_contributes() {
    let (_, mut alice, bob) = two();
    let points: std::collections::BTreeSet<_> = SMALL_ORDER_POINTS.into_iter().collect();
    assert_eq!(points.len(), 7);
    let identity = bob.curve25519();
    for point in SMALL_ORDER_POINTS {
        let made = alice.account().create_outbound_session(
            vodozemac::olm::SessionConfig::version_1(),
            identity,
            Curve25519PublicKey::from_bytes(point),
        );
        assert!(made.is_err(), "{point:?}");
    }
}

#[test]
fn a_room_key_opens_what_follows_it_and_nothing_before() {
    let (_, mut alice, mut bob) = two();
    let encryption = json!({"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
    let made = alice.ask(
        "POST",
        "/createRoom",
        &json!({"invite": [bob.user()], "initial_state": [encryption]}),
    );
    let room = RoomId::parse(made["room_id"].as_str().unwrap()).unwrap();
    bob.join(&room);
    let olm = alice.olm_session_with(bob.user(), bob.device());
    let mut session = alice.megolm_session(&room);
    alice.send_text(&mut session, "before");
    alice.share_room_key(&olm, &session);
    let event = alice.send_text(&mut session, "after");
    assert_eq!(bob.reads_from(&session.session_id()), None);
    bob.receive();
    assert_eq!(bob.reads_from(&session.session_id()), Some(1));
    let read: Vec<Option<Value>> = alice
        .server
        .timeline(&room)
        .iter()
        .filter(|event| event["type"] == "m.room.encrypted")
        .map(|event| {
            bob.decrypt_event(event)
                .map(|read| read.payload["content"]["body"].clone())
        })
        .collect();
    assert_eq!(read, [None, Some(json!("after"))]);
    assert!(event.starts_with('$'));
}

#[test]
fn a_session_goes_to_any_index_and_back() {
    let (_, mut alice, mut bob) = two();
    let olm = alice.olm_session_with(bob.user(), bob.device());
    let mut session = alice.megolm_session(room());
    alice.share_room_key(&olm, &session);
    bob.receive();
    for index in [0, 1, 300, u32::MAX - 1, 70_000, 1] {
        session.go_to(index);
        assert_eq!(session.index(), index);
        let content = session.encrypt(session.payload("m.test", json!({"at": index})).to_string());
        let parts = MegolmParts::parse(content["ciphertext"].as_str().unwrap()).unwrap();
        assert_eq!(parts.index, u64::from(index));
        assert_eq!(parts.to_base64(), content["ciphertext"].as_str().unwrap());
        let read = bob.decrypt_event(&json!({"content": content})).unwrap();
        assert_eq!((read.index, &read.payload["content"]["at"]), (index, &json!(index)));
        let flipped = flip_bit(content["ciphertext"].as_str().unwrap(), 8 * 10);
        let mut forged = content.clone();
        forged["ciphertext"] = json!(flipped);
        assert_eq!(bob.decrypt_event(&json!({"content": forged})), None);
    }
    session.go_to(5);
    let key = session.room_key_for("!other:localhost", "another id");
    assert_eq!(
        (&key["room_id"], &key["session_id"]),
        (&json!("!other:localhost"), &json!("another id"))
    );
    assert!(SessionKey::from_base64(key["session_key"].as_str().unwrap()).is_ok());
}

#[test]
fn a_forwarded_key_opens_from_its_index_on() {
    let (_, mut alice, mut bob) = two();
    let olm = alice.olm_session_with(bob.user(), bob.device());
    let mut session = alice.megolm_session(room());
    let forwarded = session.forwarded_room_key(7, "somebody's key", "somebody's key");
    let envelope = alice.envelope(&olm, "m.forwarded_room_key", forwarded);
    alice.send_olm(&olm, &envelope);
    bob.receive();
    assert_eq!(bob.reads_from(&session.session_id()), Some(7));
    assert_eq!(
        session.withheld("m.blacklisted")["session_id"],
        json!(session.session_id())
    );
}

#[test]
fn a_clone_is_a_restored_backup() {
    let (_, mut alice, mut bob) = two();
    let session = alice.olm_session_with(bob.user(), bob.device());
    let mut restored = bob.clone();
    let content = alice.encrypt(&session, "{}");
    assert!(bob.decrypt(&content).is_some());
    assert!(restored.decrypt(&content).is_some(), "it has the one-time key still");
    assert_eq!(restored.curve25519(), bob.curve25519());
    let (mut one, mut other) = (alice.clone(), alice);
    let (first, second) = (one.encrypt(&session, "{\"n\":1}"), other.encrypt(&session, "{\"n\":2}"));
    assert_eq!(bob.decrypt(&first), Some(json!({"n": 1})));
    assert_eq!(bob.decrypt(&second), None, "the same key of the ratchet, used twice");
}

#[test]
fn its_requests_meet_faults_and_stand_in_the_log() {
    let (server, mut alice, bob) = two();
    server.fault(Fault::drop_before("/sendToDevice/"));
    let (status, _) = alice.request("PUT", "/sendToDevice/m.test/1", &json!({"messages": {}}));
    assert_eq!(status, 502);
    alice.send_to_device(bob.user(), bob.device(), "m.test", &json!({"n": 1}));
    let log = server.log();
    let last = log.last().unwrap();
    assert_eq!(
        (last.user.as_deref(), last.device.as_deref()),
        (Some("@alice:localhost"), Some("ALICE"))
    );
    assert_eq!(server.to_device_of(bob.user(), device_id!("BOB")).len(), 1);
    assert!(!format!("{alice:?}").contains("token"));
}

#[test]
fn a_user_has_several_devices() {
    let (server, mut alice, bob) = two();
    let second = EvilPeer::new(&server, "bob", "BOB2");
    assert_eq!(server.devices_of(bob.user()), ["BOB", "BOB2"]);
    assert_eq!(second.user(), bob.user());
    assert_eq!(
        alice.device_keys_of(second.user(), second.device()),
        Value::Null,
        "not published"
    );
    alice.send_to_device(bob.user(), "*".into(), "m.test", &json!({}));
    assert_eq!(server.to_device_of(bob.user(), second.device()).len(), 1);
}

//! Olm messages whose payload lies about who sent it, to whom, and with which keys: rows TD of the catalogue.

use mx_olm_orchestrator::ToDeviceRejectedReason as Reason;
use mx_test_homeserver::peer::{Envelope, OlmBody};
use serde_json::{Value, json};

use crate::{
    evil::{Evil, evil},
    td_ignored::stranger,
};

/// A room key in an envelope with one thing changed.
fn lying(evil: &mut Evil, change: impl FnOnce(Envelope) -> Envelope) -> Value {
    let session = evil.bob.megolm_session(evil.room.id());
    let envelope = evil.bob.envelope(&evil.olm, "m.room_key", session.room_key());
    evil.bob.olm_event(&evil.olm, &change(envelope))
}

#[tokio::test]
async fn td_03_sender_mismatch_is_ignored() {
    let mut evil = evil().await;
    let carol = stranger(&evil, "carol", "CDEV");
    let inside = lying(&mut evil, |envelope| envelope.with("sender", carol.user().as_str()));
    // Its mirror: the homeserver says that an honest message comes from somebody else.
    let mut outside = lying(&mut evil, |envelope| envelope);
    outside["sender"] = json!(carol.user());
    evil.assert_ignored(vec![inside, outside], &[Reason::Undecryptable; 2])
        .await;
}

#[tokio::test]
async fn td_04_recipient_mismatch_is_ignored() {
    let mut evil = evil().await;
    let other = lying(&mut evil, |envelope| envelope.with("recipient", "@carol:localhost"));
    let none = lying(&mut evil, |envelope| envelope.without("recipient"));
    evil.assert_ignored(vec![other, none], &[Reason::Undecryptable; 2])
        .await;
}

#[tokio::test]
async fn td_05_recipient_keys_mismatch_is_ignored() {
    let mut evil = evil().await;
    let bobs = json!({"ed25519": evil.bob.ed25519().to_base64()});
    let events = vec![
        lying(&mut evil, |envelope| envelope.with("recipient_keys", bobs)),
        lying(&mut evil, |envelope| envelope.with("recipient_keys", json!({}))),
        lying(&mut evil, |envelope| envelope.without("recipient_keys")),
    ];
    evil.assert_ignored(events, &[Reason::Undecryptable; 3]).await;
}

#[tokio::test]
async fn td_06_a_payload_that_misses_a_field_or_is_no_object_is_ignored() {
    let mut evil = evil().await;
    let mut events = Vec::new();
    for field in ["sender", "keys", "type", "content"] {
        events.push(lying(&mut evil, |envelope| envelope.without(field)));
    }
    for payload in ["", "[]", "7", "{", "{\"type\":7}", "\u{0}"] {
        let content = evil.bob.encrypt(&evil.olm, payload);
        events.push(json!({"type": "m.room.encrypted", "sender": evil.bob.user(), "content": content}));
    }
    let reasons = vec![Reason::Undecryptable; events.len()];
    evil.assert_ignored(events, &reasons).await;
}

#[tokio::test]
async fn td_08_device_keys_of_another_user_are_ignored() {
    let mut evil = evil().await;
    let carol = stranger(&evil, "carol", "CDEV");
    // Carol's own, honest ones; and bob's with her name in them, signed by bob in either name.
    let mut named = evil.bob.unsigned_device_keys();
    named["user_id"] = json!(carol.user());
    let mut by_bob = named.clone();
    evil.bob.sign(&mut by_bob);
    let mut in_her_name = named;
    evil.bob.sign_as(&mut in_her_name, carol.user(), "ed25519:BDEV");
    let mut events = Vec::new();
    for keys in [carol.device_keys(), by_bob, in_her_name] {
        events.push(lying(&mut evil, |envelope| envelope.with("sender_device_keys", keys)));
    }
    evil.assert_ignored(events, &[Reason::Undecryptable; 3]).await;
}

#[tokio::test]
async fn td_09_device_keys_that_do_not_fit_are_ignored() {
    let mut evil = evil().await;
    let second = stranger(&evil, "bob", "BDEV2");
    let honest = evil.bob.device_keys();
    let mut unsigned = evil.bob.unsigned_device_keys();
    let mut flipped = honest.clone();
    let signature = &mut flipped["signatures"]["@bob:localhost"]["ed25519:BDEV"];
    *signature = json!(mx_test_homeserver::peer::flip_bit(signature.as_str().unwrap(), 3));
    let mut other_curve = evil.bob.unsigned_device_keys();
    other_curve["keys"]["curve25519:BDEV"] = json!(second.curve25519().to_base64());
    evil.bob.sign(&mut other_curve);
    let mut other_ed = evil.bob.unsigned_device_keys();
    other_ed["keys"]["ed25519:BDEV"] = json!(second.ed25519().to_base64());
    second.sign_as(&mut other_ed, evil.bob.user(), "ed25519:BDEV");
    unsigned["signatures"] = json!({});
    let wrong = vec![unsigned, flipped, other_curve, other_ed, second.device_keys()];
    let mut events = Vec::new();
    for keys in wrong {
        events.push(lying(&mut evil, |envelope| envelope.with("sender_device_keys", keys)));
    }
    evil.assert_ignored(events, &[Reason::Undecryptable; 5]).await;
    // And those that fit are taken.
    let session = evil.bob.megolm_session(evil.room.id());
    let envelope = evil.bob.envelope(&evil.olm, "m.room_key", session.room_key());
    let event = evil
        .bob
        .olm_event(&evil.olm, &envelope.with("sender_device_keys", honest));
    evil.queue(vec![event]);
    assert_eq!(evil.sync().await.to_device_rejected, 0);
    assert!(evil.has(&session.session_id()).await);
}

#[tokio::test]
async fn td_11_a_message_under_another_devices_key_makes_no_session() {
    let mut evil = evil().await;
    let carol = stranger(&evil, "carol", "CDEV");
    evil.room.invite(carol.user()).await.unwrap();
    carol.join(evil.room.id());
    let hers = carol.curve25519().to_base64();
    let mut event = lying(&mut evil, |envelope| envelope.with("sender", carol.user().as_str()));
    event["content"]["sender_key"] = json!(hers);
    event["sender"] = json!(carol.user());
    evil.assert_ignored(vec![event], &[Reason::Undecryptable]).await;
    let bobs = evil.bob.session(&evil.olm).unwrap().session_id();
    let state = evil.state(std::slice::from_ref(&hers)).await;
    assert!(
        !state.olm[&hers].contains(&bobs),
        "one to repair things may be there, not bob's"
    );
}

#[tokio::test]
async fn td_24_a_message_for_another_device_breaks_no_session() {
    let mut evil = evil().await;
    let ours = evil.olm.curve25519.to_base64();
    let mut other = lying(&mut evil, |envelope| envelope);
    let body = OlmBody::of(&other["content"], &ours).unwrap();
    other["content"]["ciphertext"] = json!({});
    body.put(&mut other["content"], &evil.bob.curve25519().to_base64());
    let mut empty = lying(&mut evil, |envelope| envelope);
    empty["content"]["ciphertext"] = json!({});
    let claims = evil.requests("/keys/claim");
    evil.assert_ignored(vec![other, empty], &[Reason::NotForThisDevice; 2])
        .await;
    assert_eq!(
        evil.requests("/keys/claim"),
        claims,
        "it is no sign of a broken session"
    );
}

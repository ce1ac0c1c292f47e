//! Senders who give too much, or give what is not for us: bounded, named, and nobody else is hurt. Rows TD.

use std::time::Duration;

use matrix_sdk_crypto::store::CryptoStore;
use mx_test_homeserver::{EvilPeer, peer::OlmSession};
use serde_json::{Value, json};

use crate::{
    edits::edit_syncs,
    evil::{Evil, evil, text},
};

async fn codes(evil: &Evil) -> Vec<&'static str> {
    let summary = evil.alice.client.orchestrator().sync(Duration::ZERO).await.unwrap();
    assert_eq!(summary.to_device_rejected, summary.rejected.len());
    summary.rejected.iter().map(|rejected| rejected.reason.code()).collect()
}

fn give(evil: &mut Evil, event_type: &str, content: &Value) {
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    evil.bob.send_to_device(&user, &device, event_type, content);
}

#[tokio::test]
async fn td_02_secrets_in_plaintext_are_nothing() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut session = evil.bob.megolm_session(evil.room.id());
    let key = session.room_key();
    let forwarded = session.forwarded_room_key(0, &evil.bob.curve25519().to_base64(), &evil.bob.ed25519().to_base64());
    give(&mut evil, "m.room_key", &key);
    give(&mut evil, "m.forwarded_room_key", &forwarded);
    give(&mut evil, "m.secret.send", &json!({"request_id": "x", "secret": "s"}));
    assert_eq!(codes(&evil).await, ["plaintext"; 3]);
    let content = session.encrypt(text(&session, "x"));
    evil.put(&content);
    assert!(evil.bodies().await.is_empty(), "no key was taken");
}

#[tokio::test]
async fn td_16_a_key_for_another_room_opens_nothing_here_and_too_many_are_let_go() {
    let mut evil = evil().await;
    evil.bodies().await;
    // Within the limit: kept for the room that it names, and for no other.
    let elsewhere = ruma::room_id!("!elsewhere:localhost");
    let mut session = evil.bob.megolm_session(elsewhere);
    evil.bob.share_room_key(&evil.olm, &session);
    let content = session.encrypt(text(&session, "x"));
    evil.put(&content);
    assert!(evil.bodies().await.is_empty());
    assert_eq!(evil.alice.client.waiting_counts().await.unwrap().waiting, 1);
    // Beyond it.
    for _ in 0..1_010 {
        let session = evil.bob.megolm_session(elsewhere);
        evil.bob.share_room_key(&evil.olm, &session);
    }
    let mut rejected = Vec::new();
    for _ in 0..3 {
        rejected.extend(codes(&evil).await);
    }
    assert_eq!(rejected, ["too_many_room_keys"; 11]);
    let kept = evil
        .alice
        .client
        .orchestrator()
        .store()
        .get_inbound_group_sessions_by_room_id(elsewhere)
        .await
        .unwrap();
    assert_eq!(kept.len(), 1_000);
    // Somebody else is not touched.
    let mut carol = EvilPeer::new(&evil.server, "carol", "CDEV");
    carol.publish();
    evil.room.invite(carol.user()).await.unwrap();
    carol.join(evil.room.id());
    evil.bodies().await;
    let olm = carol.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
    let mut session = carol.megolm_session(evil.room.id());
    carol.share_room_key(&olm, &session);
    carol.send_text(&mut session, "from carol");
    assert_eq!(evil.bodies().await, ["from carol"]);
}

/// Mallory, who is in no room with alice, and his session with her.
fn stranger(evil: &Evil) -> (EvilPeer, OlmSession) {
    let mut mallory = EvilPeer::new(&evil.server, "mallory", "MDEV");
    mallory.publish();
    let olm = mallory.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
    (mallory, olm)
}

/// More keys than one user may give in a day, each under the name of `session`, of which word goes before them.
fn flood(evil: &Evil, giver: &mut EvilPeer, olm: &OlmSession, session: &str) {
    let (user, device) = (evil.alice.client.user_id(), evil.alice.client.device_id());
    for number in 0..1_010 {
        let given = giver.megolm_session(evil.room.id());
        if number % 50 == 0 && session != MADE_UP {
            let mut withheld = given.withheld("m.unverified");
            withheld["session_id"] = session.into();
            giver.send_to_device(user, device, "m.room_key.withheld", &withheld);
        }
        let key = given.room_key_for(evil.room.id().as_str(), session);
        let envelope = giver.envelope(olm, "m.room_key", key);
        giver.send_olm(olm, &envelope);
    }
}

const MADE_UP: &str = "made up";

#[tokio::test]
async fn td_16_a_key_that_a_stranger_names_stays() {
    let mut evil = evil().await;
    evil.bodies().await;
    let ours = evil.alice.room_keys().await[0].session_id().to_owned();
    // Bob has given his from the second message on; mallory has all of it.
    let whole = evil.bob.megolm_session(evil.room.id());
    let mut later = whole.clone();
    later.encrypt("x");
    evil.bob.share_room_key(&evil.olm, &later);
    evil.bodies().await;
    let (mut mallory, olm) = stranger(&evil);
    flood(&evil, &mut mallory, &olm, &ours);
    mallory.share_room_key(&olm, &whole);
    let mut rejected = Vec::new();
    for _ in 0..3 {
        rejected.extend(codes(&evil).await);
    }
    assert_eq!(rejected, ["too_many_room_keys"; 10], "bob's was here before");
    let kept = evil.alice.room_keys().await;
    for session in [&ours, &whole.session_id()] {
        assert!(kept.iter().any(|key| key.session_id() == session.as_str()), "{session}");
    }
    assert_eq!(kept.len(), 1_002);
    evil.room.send_text("on").await.unwrap();
    evil.alice.events().await;
    evil.room.send_text("and on").await.unwrap();
}

#[tokio::test]
async fn td_16_a_key_under_a_made_up_name_counts() {
    let evil = evil().await;
    evil.bodies().await;
    let (mut mallory, olm) = stranger(&evil);
    flood(&evil, &mut mallory, &olm, MADE_UP);
    let mut rejected = Vec::new();
    for _ in 0..3 {
        rejected.extend(codes(&evil).await);
    }
    assert_eq!(rejected, ["too_many_room_keys"; 10]);
    assert_eq!(evil.alice.room_keys().await.len(), 1_001);
}

/// Anybody may say it, and nothing of it is encrypted.
#[tokio::test]
async fn td_16_word_of_withheld_keys_has_an_end() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut word = evil.bob.megolm_session(evil.room.id()).withheld("m.unverified");
    word["reason"] = "x".repeat(5_000).into();
    give(&mut evil, "m.room_key.withheld", &word);
    assert_eq!(codes(&evil).await, ["too_large"]);
    for _ in 0..110 {
        let word = evil.bob.megolm_session(evil.room.id()).withheld("m.unverified");
        give(&mut evil, "m.room_key.withheld", &word);
    }
    let mut rejected = codes(&evil).await;
    rejected.extend(codes(&evil).await);
    assert_eq!(rejected, ["too_many_withheld"; 10]);
    // Somebody else is heard.
    let (mut mallory, _) = stranger(&evil);
    let session = mallory.megolm_session(evil.room.id());
    let (user, device) = (evil.alice.client.user_id(), evil.alice.client.device_id());
    mallory.send_to_device(user, device, "m.room_key.withheld", &session.withheld("m.unverified"));
    assert!(codes(&evil).await.is_empty());
    let store = evil.alice.client.orchestrator().store();
    let kept = store.get_withheld_sessions_by_room_id(evil.room.id()).await.unwrap();
    assert_eq!(kept.len(), 101);
}

#[tokio::test]
async fn td_24_and_25_only_our_entry_of_a_ciphertext_counts_wherever_it_stands() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut session = evil.bob.megolm_session(evil.room.id());
    let envelope = evil.bob.envelope(&evil.olm, "m.room_key", session.room_key());
    let mut content = evil.bob.encrypt(&evil.olm, envelope.to_value().to_string());
    let entries = content["ciphertext"].as_object_mut().unwrap();
    for other in ["+", "AAAA", "zzzz", "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw"] {
        entries.insert(other.to_owned(), json!({"type": 0, "body": "AwogAAAA"}));
    }
    give(&mut evil, "m.room.encrypted", &content);
    assert!(codes(&evil).await.is_empty());
    let event = session.encrypt(text(&session, "ours was among them"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["ours was among them"]);
    // Without ours: not for us, and no reason to open a session.
    let ours: Vec<String> = content["ciphertext"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| key.len() == 43 && !key.starts_with("hPQ"))
        .cloned()
        .collect();
    for key in ours {
        content["ciphertext"].as_object_mut().unwrap().remove(&key);
    }
    let claims = |evil: &Evil| {
        evil.server
            .log()
            .iter()
            .filter(|e| e.path.ends_with("/keys/claim"))
            .count()
    };
    let before = claims(&evil);
    give(&mut evil, "m.room.encrypted", &content);
    assert_eq!(codes(&evil).await, ["not_for_this_device"]);
    assert_eq!(claims(&evil), before);
}

#[tokio::test]
async fn td_26_a_ciphertext_with_ten_thousand_entries_is_read_within_the_limit() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut session = evil.bob.megolm_session(evil.room.id());
    let envelope = evil.bob.envelope(&evil.olm, "m.room_key", session.room_key());
    let mut content = evil.bob.encrypt(&evil.olm, envelope.to_value().to_string());
    let entries = content["ciphertext"].as_object_mut().unwrap();
    for number in 0..10_000 {
        entries.insert(format!("other-{number}"), json!({"type": 0, "body": "AwogAAAA"}));
    }
    give(&mut evil, "m.room.encrypted", &content);
    assert!(codes(&evil).await.is_empty());
    let event = session.encrypt(text(&session, "among ten thousand"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["among ten thousand"]);
}

#[tokio::test]
async fn td_38_megolm_to_a_device_is_no_key() {
    let mut evil = evil().await;
    let mut session = evil.session();
    evil.bodies().await;
    let stolen = evil.bob.megolm_session(evil.room.id());
    let payload = json!({"type": "m.room_key", "room_id": evil.room.id(), "content": stolen.room_key()});
    let content = session.encrypt(payload.to_string());
    give(&mut evil, "m.room.encrypted", &content);
    assert_eq!(codes(&evil).await, ["unsupported_algorithm"]);
    let mut stolen = stolen;
    let event = stolen.encrypt(text(&stolen, "x"));
    evil.put(&event);
    assert!(evil.bodies().await.is_empty());
}

#[tokio::test]
async fn td_43_what_is_no_event_is_named_and_hides_nothing() {
    let mut evil = evil().await;
    evil.bodies().await;
    let mut session = evil.session();
    let wrong = [
        json!(7),
        json!({}),
        json!({"type": "m.dummy", "content": {}}),
        json!({"type": "m.dummy", "sender": "not a user", "content": {}}),
        json!({"sender": "@bob:localhost", "content": {}}),
        json!({"type": "m.room.encrypted", "sender": "@bob:localhost", "content": 7}),
        json!({"type": "m.room.encrypted", "sender": "@bob:localhost", "content": {"algorithm": "m.olm.v1.curve25519-aes-sha2"}}),
    ];
    let count = wrong.len();
    edit_syncs(&evil.server, move |body| {
        if let Some(events) = body.pointer_mut("/to_device/events").and_then(Value::as_array_mut) {
            for event in &wrong {
                events.insert(0, event.clone());
            }
        }
    });
    assert_eq!(codes(&evil).await, vec!["invalid"; count]);
    evil.server.behave();
    let event = session.encrypt(text(&session, "good"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["good"]);
}

#[tokio::test]
async fn td_44_one_event_of_ten_mebibytes_is_left_out_and_its_siblings_are_not() {
    let mut evil = evil().await;
    evil.bodies().await;
    give(
        &mut evil,
        "m.room.encrypted",
        &json!({"padding": "x".repeat(10 * 1024 * 1024)}),
    );
    let mut session = evil.session();
    assert_eq!(codes(&evil).await, ["too_large"]);
    let event = session.encrypt(text(&session, "good"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["good"]);
}

#[tokio::test]
async fn td_45_a_flood_of_sessions_leaves_the_newest_and_all_others() {
    let mut evil = evil().await;
    evil.bodies().await;
    let (user, device) = (
        evil.alice.client.user_id().to_owned(),
        evil.alice.client.device_id().to_owned(),
    );
    for _ in 0..230 {
        evil.olm = evil.bob.olm_session_with(&user, &device);
        let envelope = evil.bob.envelope(&evil.olm, "m.dummy", json!({}));
        evil.bob.send_olm(&evil.olm, &envelope);
    }
    evil.bodies().await;
    let sessions = {
        let store = evil.alice.client.orchestrator().store();
        let key = evil.bob.curve25519().to_base64();
        store.get_sessions(&key).await.unwrap().unwrap()
    };
    assert!((4..=50).contains(&sessions.len()), "{}", sessions.len());
    // His latest session works, and so does what comes after a restart.
    let mut session = evil.session();
    let event = session.encrypt(text(&session, "on the latest"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["on the latest"]);
    let mut evil = evil.kill_alice().await;
    let mut session = evil.session();
    let event = session.encrypt(text(&session, "again"));
    evil.put(&event);
    assert_eq!(evil.bodies().await, ["again"]);
}

#[tokio::test]
async fn td_17_another_member_who_gives_the_same_key_in_one_sync_does_not_become_its_owner() {
    let mut evil = evil().await;
    let mut carol = EvilPeer::new(&evil.server, "carol", "CDEV");
    carol.publish();
    evil.room.invite(carol.user()).await.unwrap();
    carol.join(evil.room.id());
    evil.bodies().await;
    let mut session = evil.session();
    // Carol has the key as every member has, and gives it as if it were hers, in the same sync and behind bob's.
    let olm = carol.olm_session_with(evil.alice.client.user_id(), evil.alice.client.device_id());
    carol.share_room_key(&olm, &session);
    let event = session.encrypt(text(&session, "bob's"));
    evil.put(&event);
    let read = evil.alice.messages().await;
    assert_eq!(read.len(), 1);
    assert_eq!(
        (read[0].sender.as_ref(), read[0].body()),
        (evil.bob.user(), Some("bob's"))
    );
    assert_eq!(
        read[0].encryption.as_ref().unwrap().sender_device.as_deref(),
        Some(evil.bob.device())
    );
}

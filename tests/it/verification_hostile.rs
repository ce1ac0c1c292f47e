//! What a hostile peer, or a homeserver in between, sends into verifications: nothing of it is ever confirmed.

use std::time::Duration;

use mx_e2ee::{Event, RejectedReason, VerificationId, VerificationState, orchestrator::SyncSummary};
use mx_test_homeserver::EvilPeer;
use ruma::MilliSecondsSinceUnixEpoch;
use serde_json::{Value, json};

use crate::{
    verification_cast::{Two, code, has_signed, is_done, settle, state, two, with},
    world::Device,
};

/// Alice asks bob's device and bob accepts.
async fn ready(two: &Two) -> (VerificationId, VerificationId) {
    let (user, device) = (two.bob.client.user_id(), two.bob.client.device_id());
    let asked = two
        .alice
        .client
        .orchestrator()
        .verify_device(user, device)
        .await
        .unwrap();
    settle(&[&two.bob]).await;
    let answered = with(&two.bob, two.alice.client.user_id());
    two.bob
        .client
        .orchestrator()
        .accept_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    (asked, answered)
}

/// Give alice to-device events in bob's name, and let her sync once.
async fn give_alice(two: &Two, events: Vec<(&str, Value)>) -> SyncSummary {
    let sender = two.bob.client.user_id();
    let events = events
        .into_iter()
        .map(|(kind, content)| {
            let kind = format!("m.key.verification.{kind}");
            json!({"type": kind, "sender": sender, "content": content})
        })
        .collect();
    let alice = &two.alice.client;
    two.server.queue_to_device(alice.user_id(), alice.device_id(), events);
    alice.orchestrator().sync(Duration::ZERO).await.unwrap()
}

fn start(device: &Device, flow: &str) -> Value {
    json!({
        "from_device": device.client.device_id(),
        "transaction_id": flow,
        "method": "m.sas.v1",
        "key_agreement_protocols": ["curve25519-hkdf-sha256"],
        "hashes": ["sha256"],
        "message_authentication_codes": ["hkdf-hmac-sha256.v2"],
        "short_authentication_string": ["decimal", "emoji"],
    })
}

fn request(device: &Device, flow: &str) -> Value {
    json!({
        "from_device": device.client.device_id(),
        "transaction_id": flow,
        "methods": ["m.sas.v1"],
        "timestamp": MilliSecondsSinceUnixEpoch::now(),
    })
}

fn reasons(summary: &SyncSummary) -> Vec<&'static str> {
    summary.rejected.iter().map(|rejected| rejected.reason.code()).collect()
}

fn under_way(device: &Device) -> usize {
    device.client.verifications().len()
}

fn to_device_sent(two: &Two) -> usize {
    let sent = two.server.log();
    sent.iter().filter(|sent| sent.path.contains("/sendToDevice/")).count()
}

#[tokio::test]
async fn a_start_without_a_request_and_other_strays_are_left_out() {
    let two = two().await;
    let before = to_device_sent(&two);
    for kind in ["start", "ready", "accept", "key", "mac", "done", "cancel"] {
        let summary = give_alice(&two, vec![(kind, start(&two.bob, "stray"))]).await;
        assert_eq!(reasons(&summary), ["unknown_verification"], "{kind}");
    }
    assert_eq!(under_way(&two.alice), 0);
    two.settle().await;
    assert_eq!(to_device_sent(&two), before, "nobody is answered");
}

#[tokio::test]
async fn td_46_a_flood_of_requests_costs_little_and_ends() {
    let two = two().await;
    let before = to_device_sent(&two);
    let flood: Vec<_> = (0..90)
        .map(|n| ("request", request(&two.bob, &format!("flood{n}"))))
        .collect();
    let summary = give_alice(&two, flood).await;
    assert_eq!(summary.to_device_rejected, 87);
    assert!(
        reasons(&summary)
            .iter()
            .all(|reason| *reason == "too_many_verifications")
    );
    two.settle().await;
    assert!(under_way(&two.alice) <= 1);
    assert!(to_device_sent(&two) - before <= 8, "{}", to_device_sent(&two) - before);
    // Once they are over, the next one is as good as the first.
    for one in two.alice.client.verifications() {
        one.cancel().await.unwrap();
    }
    two.settle().await;
    let alice = &two.alice.client;
    let asking = two.bob.client.orchestrator();
    asking.verify_device(alice.user_id(), alice.device_id()).await.unwrap();
    two.alice.client.sync().await.unwrap();
    assert_eq!(under_way(&two.alice), 1);
}

#[tokio::test]
async fn what_is_too_large_or_names_nothing_is_left_out() {
    let two = two().await;
    let long = "x".repeat(256);
    let mut huge = request(&two.bob, "huge");
    huge["methods"] = Value::from(vec!["m.sas.v1"; 4000]);
    for (content, reason) in [
        (request(&two.bob, &long), "unknown_verification"),
        (request(&two.bob, ""), "unknown_verification"),
        (huge, "too_large"),
    ] {
        let summary = give_alice(&two, vec![("request", content)]).await;
        assert_eq!(reasons(&summary), [reason]);
    }
    let mut stale = request(&two.bob, "stale");
    stale["timestamp"] = json!(1_000_000);
    give_alice(&two, vec![("request", stale)]).await;
    let mut unknown = request(&two.bob, "unknown");
    unknown["from_device"] = json!("NOBODY");
    give_alice(&two, vec![("request", unknown)]).await;
    assert_eq!(under_way(&two.alice), 0);
}

#[tokio::test]
async fn a_device_that_was_not_asked_does_not_answer() {
    let two = two().await;
    let mut other = EvilPeer::new(&two.server, "bob", "OTHER");
    other.publish();
    two.settle().await;
    let bob = &two.bob.client;
    let asked = two.alice.client.orchestrator();
    let id = asked.verify_device(bob.user_id(), bob.device_id()).await.unwrap();
    let ready = json!({"from_device": "OTHER", "transaction_id": id.flow_id, "methods": ["m.sas.v1"]});
    give_alice(&two, vec![("ready", ready)]).await;
    assert_eq!(code(&two.alice, &id), "m.unexpected_message");
}

#[tokio::test]
async fn an_unknown_method_and_the_words_of_others_change_nothing() {
    let two = two().await;
    let (asked, answered) = ready(&two).await;
    let mut weird = start(&two.bob, &asked.flow_id);
    weird["method"] = json!("m.telepathy.v1");
    give_alice(&two, vec![("start", weird)]).await;
    assert!(matches!(state(&two.alice, &asked), VerificationState::Ready { .. }));
    // In the name of somebody else, who is in no verification with alice.
    let mut mallory = EvilPeer::new(&two.server, "mallory", "MDEV");
    mallory.publish();
    let alice = &two.alice.client;
    let cancel = json!({"transaction_id": asked.flow_id, "code": "m.user", "reason": ""});
    mallory.send_to_device(alice.user_id(), alice.device_id(), "m.key.verification.cancel", &cancel);
    let summary = alice.orchestrator().sync(Duration::ZERO).await.unwrap();
    assert_eq!(reasons(&summary), ["unknown_verification"]);
    two.bob.client.orchestrator().start_sas(&answered).await.unwrap();
    two.settle().await;
    assert!(matches!(state(&two.alice, &asked), VerificationState::Compare { .. }));
}

/// Change what both are told in events of this kind.
fn tamper(two: &Two, kind: &'static str, field: &'static str, change: fn(&mut Value)) {
    two.server.rewrite("/sync", move |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        let events = body.pointer_mut("/to_device/events").and_then(Value::as_array_mut);
        for event in events.into_iter().flatten() {
            if event["type"] == format!("m.key.verification.{kind}") {
                change(&mut event["content"][field]);
            }
        }
        response.map(|_| body.to_string().into())
    });
}

#[tokio::test]
async fn a_key_that_was_not_committed_to_ends_it() {
    let two = two().await;
    let (asked, answered) = ready(&two).await;
    tamper(&two, "key", "key", |key| {
        *key = json!("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08")
    });
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    // The engine's word for what the specification calls m.mismatched_commitment.
    assert_eq!(code(&two.alice, &asked), "m.key_mismatch");
    assert_eq!(code(&two.bob, &answered), "m.key_mismatch");
}

#[tokio::test]
async fn a_wrong_mac_ends_it_whoever_confirmed() {
    let two = two().await;
    let (asked, answered) = ready(&two).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    tamper(&two, "mac", "mac", |mac| {
        for mac in mac.as_object_mut().unwrap().values_mut() {
            *mac = json!("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08");
        }
    });
    two.alice
        .client
        .orchestrator()
        .confirm_verification(&asked)
        .await
        .unwrap();
    two.settle().await;
    let late = two.bob.client.orchestrator().confirm_verification(&answered).await;
    assert!(late.is_err(), "it has ended");
    two.settle().await;
    // The engine's word for what the specification calls m.key_mismatch.
    assert_eq!(code(&two.alice, &asked), "m.mismatched_sas");
    assert_eq!(code(&two.bob, &answered), "m.mismatched_sas");
    assert!(!has_signed(&two.bob, two.alice.client.user_id()).await);
}

#[tokio::test]
async fn a_homeserver_that_says_done_does_not_confirm() {
    let two = two().await;
    let (asked, _) = ready(&two).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    let done = json!({"transaction_id": asked.flow_id});
    give_alice(&two, vec![("done", done.clone())]).await;
    assert!(matches!(state(&two.alice, &asked), VerificationState::Compare { .. }));
    two.alice
        .client
        .orchestrator()
        .confirm_verification(&asked)
        .await
        .unwrap();
    give_alice(&two, vec![("done", done)]).await;
    assert!(!is_done(&two.alice, &asked), "there is no word of bob's");
    assert!(!has_signed(&two.alice, two.bob.client.user_id()).await);
}

#[tokio::test]
async fn what_begins_anew_under_the_eyes_of_who_compares_is_not_confirmed() {
    let two = two().await;
    let (asked, answered) = ready(&two).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    assert!(matches!(state(&two.bob, &answered), VerificationState::Compare { .. }));
    // A homeserver that has shown bob false keys begins once more, in alice's name, while people look.
    let again = start(&two.alice, &answered.flow_id);
    let event = json!({"type": "m.key.verification.start", "sender": two.alice.client.user_id(), "content": again});
    let bob = &two.bob.client;
    two.server.queue_to_device(bob.user_id(), bob.device_id(), vec![event]);
    bob.orchestrator().sync(Duration::ZERO).await.unwrap();
    let late = bob.orchestrator().confirm_verification(&answered).await;
    assert!(late.is_err(), "what was looked at is not what there is now");
    assert_eq!(code(&two.bob, &answered), "m.unexpected_message");
    two.settle().await;
    assert!(!is_done(&two.alice, &asked));
}

#[tokio::test]
async fn keys_that_change_meanwhile_end_it() {
    let two = two().await;
    let (asked, answered) = ready(&two).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    let evil = EvilPeer::new(&two.server, "bob", "EVIL");
    evil.publish_cross_signing(&evil.new_cross_signing());
    two.alice.client.sync().await.unwrap();
    two.alice.client.sync().await.unwrap();
    assert_eq!(code(&two.alice, &asked), "m.key_mismatch");
    two.settle().await;
    assert_eq!(code(&two.bob, &answered), "m.key_mismatch");
}

#[tokio::test]
async fn whom_we_have_blocked_is_not_answered() {
    let two = two().await;
    let (alice, bob) = (&two.alice.client, &two.bob.client);
    alice.block_device(bob.user_id(), bob.device_id()).await.unwrap();
    let asking = bob.orchestrator();
    asking.verify_device(alice.user_id(), alice.device_id()).await.unwrap();
    two.settle().await;
    assert_eq!(under_way(&two.alice), 0);
    assert!(two.alice.events().await.is_empty());
}

#[tokio::test]
async fn steps_in_a_room_that_cannot_be_any_are_told() {
    let two = two().await;
    let bob = two.bob.client.user_id().to_owned();
    let relation = json!({"rel_type": "m.reference", "event_id": "$request"});
    let mut steps = vec![
        (
            "m.key.verification.cancel",
            json!({"code": "m.user", "reason": "of nothing"}),
        ),
        (
            "m.key.verification.mac",
            json!({"m.relates_to": relation, "mac": 5, "keys": []}),
        ),
        (
            "m.key.verification.ready",
            json!({"m.relates_to": relation, "methods": "x".repeat(20_000)}),
        ),
    ];
    let request = json!({
        "msgtype": "m.key.verification.request", "body": "verify me", "to": two.alice.client.user_id(),
        "from_device": two.bob.client.device_id(), "methods": ["m.sas.v1"],
    });
    steps.extend(std::iter::repeat_n(("m.room.message", request), 4));
    let sent: Vec<String> = steps
        .into_iter()
        .map(|(event_type, content)| two.server.inject(&two.room, &bob, event_type, content))
        .collect();
    two.alice.client.sync().await.unwrap();
    let events = two.alice.events().await;
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Rejected(event) => Some((event.event_id.as_str(), &event.reason)),
            _ => None,
        })
        .collect();
    let wanted = [0, 1, 2, 6].map(|nth: usize| (sent[nth].as_str(), &RejectedReason::UnusableVerification));
    assert_eq!(told, wanted);
    assert!(
        !events.iter().any(|event| matches!(event, Event::Message(_))),
        "{events:?}"
    );
}

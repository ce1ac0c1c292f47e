//! Whom a message is for: strict by default, and the receipt says who can read it.

use mx_e2ee::{DeviceOutcome, Recipients, UnusableReason};
use mx_test_homeserver::{Fault, Homeserver};
use serde_json::{Value, json};

use crate::world::{Device, Pair, pair};

fn sent(server: &Homeserver, what: &str) -> usize {
    server
        .log()
        .iter()
        .filter(|exchange| exchange.method == "PUT" && exchange.path.contains(what))
        .count()
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

#[tokio::test]
async fn a_server_that_failed_refuses_the_send_by_name() {
    let Pair { server, bob, room, .. } = pair().await;
    // Once for the upkeep, once for the send itself: the failure lasts.
    let failure = r#"{"device_keys":{"@alice:localhost":{}},"failures":{"localhost":{"status":503}}}"#;
    server.fault(Fault::body("/keys/query", failure).times(100));
    let error = room.send_text("x").await.unwrap_err();
    assert_eq!(error.code(), "recipients_unknown");
    assert!(error.to_string().contains("@bob:localhost"), "{error}");
    assert_eq!(
        sent(&server, "/send/") + sent(&server, "/sendToDevice/"),
        0,
        "nothing left the machine"
    );
    server.behave();
    let receipt = room.send_text("now").await.unwrap();
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(bob.bodies().await, ["now"]);
}

#[tokio::test]
async fn a_user_who_is_left_out_of_the_answer_is_unknown() {
    let Pair { server, bob, room, .. } = pair().await;
    server.fault(Fault::body("/keys/query", r#"{"device_keys":{},"failures":{}}"#).times(100));
    assert_eq!(room.send_text("x").await.unwrap_err().code(), "recipients_unknown");
    let receipt = room
        .send_to("m.room.message", text("anyway"), Recipients::BestEffort)
        .await;
    // With nobody's devices known there is nobody to refuse: the receipt names who cannot read it.
    let receipt = receipt.unwrap();
    assert_eq!(receipt.users_unknown, [bob.client.user_id()]);
    assert_eq!(receipt.readable_by(), 0);
}

#[tokio::test]
async fn a_key_that_would_reach_nobody_is_refused_and_a_room_of_one_is_fine() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.exhaust_keys(bob.client.user_id(), bob.client.device_id());
    let error = room.send_text("x").await.unwrap_err();
    assert_eq!(error.code(), "no_usable_recipients");
    assert_eq!(
        sent(&server, "/send/") + sent(&server, "/sendToDevice/"),
        0,
        "nothing left the machine"
    );
    let alone = alice.client.create_room(None, &[]).await.unwrap();
    let receipt = alone.send_text("note to self").await.unwrap();
    assert!(receipt.devices.is_empty());
}

#[tokio::test]
async fn the_receipt_names_each_device() {
    let Pair { server, bob, room, .. } = pair().await;
    let empty = Device::new(&server, "bob").await;
    server.exhaust_keys(empty.client.user_id(), empty.client.device_id());
    let receipt = room.send_text("x").await.unwrap();
    let outcome = |device: &Device| {
        let found = receipt
            .devices
            .iter()
            .find(|receipt| receipt.device_id == device.client.device_id());
        found.map(|receipt| receipt.outcome.clone())
    };
    assert_eq!(outcome(&bob), Some(DeviceOutcome::Reached));
    assert_eq!(outcome(&empty), Some(DeviceOutcome::NoOneTimeKey));
    assert_eq!(receipt.devices.len(), 2);
}

#[tokio::test]
async fn a_forged_device_is_rejected_and_the_others_are_served() {
    let Pair { server, bob, room, .. } = pair().await;
    let forged = Device::new(&server, "bob").await;
    let device = forged.client.device_id().to_string();
    server.rewrite("/keys/query", move |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        let keys = &mut body["device_keys"]["@bob:localhost"][&device];
        if keys.is_object() {
            keys["keys"][format!("curve25519:{device}")] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into();
        }
        response.map(|_| body.to_string().into())
    });
    let receipt = room.send_text("x").await.unwrap();
    assert_eq!(receipt.readable_by(), 1);
    let rejected = receipt
        .devices
        .iter()
        .find(|receipt| receipt.device_id == forged.client.device_id())
        .unwrap();
    assert_eq!(
        rejected.outcome,
        DeviceOutcome::Rejected {
            reason: UnusableReason::BadSignature
        }
    );
    assert_eq!(bob.bodies().await, ["x"]);
}

#[tokio::test]
async fn content_that_no_homeserver_takes_is_refused_before_the_ratchet_moves() {
    let Pair { server, bob, room, .. } = pair().await;
    let receipt = room.send_text("one").await.unwrap();
    let before = sent(&server, "/send/");
    for (content, code) in [
        (json!({"a": 1.5}), "bad_content"),
        (json!("text"), "bad_content"),
        (json!({"a": 9_007_199_254_740_992_i64}), "bad_content"),
        (text(&"x".repeat(50_000)), "too_large"),
    ] {
        assert_eq!(room.send("m.room.message", content).await.unwrap_err().code(), code);
    }
    assert_eq!(sent(&server, "/send/"), before);
    let next = room.send_text("two").await.unwrap();
    assert_eq!(next.session_id, receipt.session_id);
    assert_eq!(bob.bodies().await, ["one", "two"]);
}

#[tokio::test]
async fn sends_of_many_tasks_keep_their_room_in_order() {
    let Pair { bob, room, .. } = pair().await;
    room.send_text("first").await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let room = room.clone();
            tokio::spawn(async move { room.send_text(format!("{number}")).await.unwrap().event_id })
        })
        .collect();
    let mut sent = Vec::new();
    for task in tasks {
        sent.push(task.await.unwrap());
    }
    let read = bob.messages().await;
    assert_eq!(read.len(), 21, "each arrives once");
    for event in sent {
        assert_eq!(read.iter().filter(|message| message.event_id == event).count(), 1);
    }
}

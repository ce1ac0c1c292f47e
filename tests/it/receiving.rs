//! What a hostile or careless homeserver gives us: nothing forged is believed, nothing bad hides the rest.

use mx_e2ee::{Event, RejectedReason, UndecryptableReason};
use serde_json::{Value, json};

use crate::world::{Device, Pair, both, pair};

#[tokio::test]
async fn a_message_before_its_key_is_delivered_when_the_key_comes() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    // The homeserver holds the key back.
    server.rewrite("/sync", |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        body.as_object_mut().unwrap().remove("to_device");
        response.map(|_| body.to_string().into())
    });
    let withheld = server.to_device_of(bob.client.user_id(), bob.client.device_id());
    assert!(withheld.is_empty());
    room.send_text("late").await.unwrap();
    let held_back = server.to_device_of(bob.client.user_id(), bob.client.device_id());
    assert_eq!(held_back.len(), 1);
    assert!(bob.events().await.is_empty(), "it waits, and is not reported yet");
    let bob = bob.kill_and_open().await;
    server.behave();
    server.queue_to_device(bob.client.user_id(), bob.client.device_id(), held_back);
    assert_eq!(bob.bodies().await, ["late"], "it waited on the disk");
    assert!(bob.events().await.is_empty());
}

#[tokio::test]
async fn the_same_ciphertext_in_another_event_is_a_replay() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
        ..
    } in both().await
    {
        drop(bobs_room);
        let receipt = room.send_text("pay 10").await.unwrap();
        assert_eq!(bob.bodies().await, ["pay 10"]);
        let event = server
            .timeline(room.id())
            .into_iter()
            .find(|event| event["event_id"] == receipt.event_id.as_str())
            .unwrap();
        let bob = bob.kill_and_open().await;
        server.inject(
            room.id(),
            alice.client.user_id(),
            "m.room.encrypted",
            event["content"].clone(),
        );
        let events = bob.events().await;
        let [Event::Rejected(rejected)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(
            rejected.reason,
            RejectedReason::Replay {
                first: receipt.event_id
            }
        );
    }
}

#[tokio::test]
async fn an_event_in_another_users_name_is_not_believed() {
    let Pair { server, bob, room, .. } = pair().await;
    let carol = Device::new(&server, "carol").await;
    room.invite(carol.client.user_id()).await.unwrap();
    carol.client.join(room.id().as_str()).await.unwrap();
    server.rewrite("/sync", |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        for event in body["rooms"]["join"]
            .as_object_mut()
            .into_iter()
            .flatten()
            .flat_map(|(_, room)| room["timeline"]["events"].as_array_mut().unwrap())
        {
            if event["type"] == "m.room.encrypted" {
                event["sender"] = "@carol:localhost".into();
            }
        }
        response.map(|_| body.to_string().into())
    });
    room.send_text("not carol's").await.unwrap();
    let events = bob.events().await;
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Message(message) if message.body() == Some("not carol's"))),
        "{events:?}"
    );
    assert!(!events.is_empty(), "it is not silent");
}

#[tokio::test]
async fn a_broken_event_hides_nothing_else() {
    for Pair {
        server,
        alice,
        bob,
        room,
        ..
    } in both().await
    {
        bob.events().await;
        for content in [
            json!({}),
            json!({"algorithm": "m.megolm.v1.aes-sha2"}),
            json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA", "session_id": 7}),
        ] {
            server.inject(room.id(), alice.client.user_id(), "m.room.encrypted", content);
        }
        room.send_text("after them").await.unwrap();
        let events = bob.events().await;
        let broken = events
            .iter()
            .filter(
                |event| matches!(event, Event::Undecryptable(event) if event.reason == UndecryptableReason::Malformed),
            )
            .count();
        assert_eq!(broken, 3, "{events:?}");
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::Message(message) if message.body() == Some("after them")))
        );
    }
}

#[tokio::test]
async fn plaintext_in_an_encrypted_room_is_marked() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    bob.events().await;
    server.inject(
        room.id(),
        alice.client.user_id(),
        "m.room.message",
        json!({"msgtype": "m.text", "body": "trust me"}),
    );
    let read = bob.messages().await;
    assert!(read[0].plaintext_in_encrypted_room);
    assert!(read[0].encryption.is_none());
}

#[tokio::test]
async fn more_to_device_events_than_a_page_all_arrive() {
    for Pair {
        server,
        alice,
        bob,
        room,
        ..
    } in both().await
    {
        bob.events().await;
        let noise: Vec<Value> = (0..250)
            .map(|number| json!({"type": "m.test", "sender": "@alice:localhost", "content": {"n": number}}))
            .collect();
        server.queue_to_device(bob.client.user_id(), bob.client.device_id(), noise);
        room.send_text("behind 250 others").await.unwrap();
        bob.client.sync().await.unwrap();
        assert_eq!(bob.bodies().await, ["behind 250 others"]);
        assert!(
            server
                .to_device_of(bob.client.user_id(), bob.client.device_id())
                .is_empty(),
            "one call took them all"
        );
        drop(alice);
    }
}

#[tokio::test]
async fn history_from_before_the_device_is_not_delivered() {
    let server = mx_test_homeserver::Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let room = alice.client.create_plaintext_room(None, &[]).await.unwrap();
    server.set_clock(1_000);
    server.inject(
        room.id(),
        ruma::user_id!("@bob:localhost"),
        "m.room.message",
        json!({"msgtype": "m.text", "body": "!delete everything"}),
    );
    let second = Device::new(&server, "alice").await;
    assert!(
        second.bodies().await.is_empty(),
        "a bot must not act on what was said before it came"
    );
}

#[tokio::test]
async fn more_messages_than_a_sync_holds_all_arrive_in_order() {
    for Pair { bob, room, .. } in both().await {
        bob.events().await;
        for number in 0..250 {
            room.send_text(format!("{number}")).await.unwrap();
        }
        let expected: Vec<String> = (0..250).map(|number| number.to_string()).collect();
        assert_eq!(
            bob.bodies().await,
            expected,
            "a timeline holds 100, the rest is asked for"
        );
    }
}

#[tokio::test]
async fn a_gap_that_stays_is_told() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    for number in 0..102 {
        room.send_text(format!("{number}")).await.unwrap();
    }
    let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no history for you"}"#;
    server.fault(mx_test_homeserver::Fault::status("/messages", 403, refusal));
    let events = bob.events().await;
    assert!(
        matches!(&events[0], Event::Gap(gap) if gap.room_id == room.id()),
        "{:?}",
        events[0]
    );
    assert_eq!(events.len(), 101, "the newest hundred are there");
}

//! Answers to `/sync` that are incomplete, broken or repeated: rows SY of the catalogue.

use std::time::Duration;

use futures_util::StreamExt;
use mx_e2ee::{Event, LostBecause};
use serde_json::{Value, json};

use crate::{
    edits::{edit_syncs, hold_keys_back},
    world::{Pair, both, pair},
};

pub(crate) fn bodies(events: &[Event]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Message(message) => message.body(),
            _ => None,
        })
        .collect()
}

pub(crate) fn requests(pair: &mx_test_homeserver::Homeserver, what: &str, user: &str) -> usize {
    pair.log()
        .iter()
        .filter(|exchange| exchange.path.ends_with(what) && exchange.user.as_deref() == Some(user))
        .count()
}

/// The tokens that a user's syncs came with.
fn tokens(server: &mx_test_homeserver::Homeserver, user: &str) -> Vec<String> {
    server
        .log()
        .iter()
        .filter(|exchange| exchange.path.ends_with("/sync") && exchange.user.as_deref() == Some(user))
        .flat_map(|exchange| exchange.query.clone())
        .filter(|(name, _)| name == "since")
        .map(|(_, token)| token)
        .collect()
}

#[tokio::test]
async fn sy_02_what_a_sync_brought_outlives_the_process_and_is_acknowledged_once() {
    for Pair {
        bob, room, bobs_room, ..
    } in both().await
    {
        drop(bobs_room);
        bob.events().await;
        room.send_text("one").await.unwrap();
        bob.client.sync().await.unwrap();
        let bob = bob.kill_and_open().await;
        let events = bob.client.receive(Duration::ZERO).await.unwrap();
        assert_eq!(bodies(&events), ["one"], "taken, and not yet delivered");
        let bob = bob.kill_and_open().await;
        assert_eq!(bob.bodies().await, ["one"], "delivered, and not yet acknowledged");
        let bob = bob.kill_and_open().await;
        assert!(bob.events().await.is_empty(), "acknowledged");
    }
}

#[tokio::test]
async fn sy_03_unreadable_to_device_events_fail_the_sync_and_lose_nothing() {
    for broken in [
        json!(7),
        json!({"events": {}}),
        json!({"events": "x"}),
        json!([{"type": "m.room_key"}]),
    ] {
        let Pair { server, bob, room, .. } = pair().await;
        bob.events().await;
        room.send_text("kept").await.unwrap();
        edit_syncs(&server, move |body| body["to_device"] = broken.clone());
        let before = tokens(&server, "@bob:localhost").len();
        for _ in 0..2 {
            let error = bob.client.receive(Duration::ZERO).await.unwrap_err();
            assert_eq!(error.code(), "malformed_sync");
        }
        let bob = bob.kill_and_open().await;
        server.behave();
        assert_eq!(bob.bodies().await, ["kept"]);
        let used = tokens(&server, "@bob:localhost").split_off(before);
        assert!(
            used.len() > 2 && used[..3].iter().all(|token| *token == used[0]),
            "{used:?}"
        );
    }
}

#[tokio::test]
async fn sy_03_unreadable_rooms_fail_the_sync_too() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("kept").await.unwrap();
    edit_syncs(&server, |body| body["rooms"] = json!({"join": 7}));
    assert_eq!(
        bob.client.receive(Duration::ZERO).await.unwrap_err().code(),
        "malformed_sync"
    );
    server.behave();
    assert_eq!(bob.bodies().await, ["kept"]);
}

#[tokio::test]
async fn sy_05_a_malformed_event_is_named_and_the_others_are_delivered() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("good").await.unwrap();
    let wrong = [
        json!(7),
        json!("text"),
        json!({}),
        json!({"type": 5, "event_id": "$bad", "sender": "@alice:localhost", "content": {}}),
        json!({"type": "m.room.message", "event_id": "$nobody", "content": {}}),
    ];
    let count = wrong.len();
    edit_syncs(&server, move |body| {
        let Some(rooms) = body.pointer_mut("/rooms/join").and_then(Value::as_object_mut) else {
            return;
        };
        for room in rooms.values_mut() {
            let events = room.pointer_mut("/timeline/events").and_then(Value::as_array_mut);
            if let Some(events) = events {
                for (place, event) in wrong.iter().enumerate() {
                    events.insert(place.min(events.len()), event.clone());
                }
            }
        }
    });
    let events = bob.events().await;
    assert_eq!(bodies(&events), ["good"]);
    let named: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Malformed(event) => Some(event.event_id.as_ref().map(ToString::to_string)),
            _ => None,
        })
        .collect();
    assert_eq!(named.len(), count, "{events:?}");
    assert!(named.contains(&Some("$bad".to_owned())));
}

#[tokio::test]
async fn sy_11_an_older_token_brings_nothing_twice() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    let old = tokens(&server, "@bob:localhost").pop().unwrap();
    room.send_text("one").await.unwrap();
    edit_syncs(&server, move |body| body["next_batch"] = old.clone().into());
    let mut read = Vec::new();
    for _ in 0..3 {
        read.extend(bob.client.receive(Duration::ZERO).await.unwrap());
    }
    server.behave();
    room.send_text("two").await.unwrap();
    read.extend(bob.events().await);
    assert_eq!(bodies(&read), ["one", "two"]);
    assert_eq!(read.len(), 2, "{read:?}");
}

#[tokio::test]
async fn sy_14_one_receives_at_a_time() {
    let Pair { bob, room, .. } = pair().await;
    bob.events().await;
    let mut stream = Box::pin(bob.client.events());
    room.send_text("for the stream").await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(bodies(&[first]), ["for the stream"]);
    assert_eq!(bob.client.receive(Duration::ZERO).await.unwrap_err().code(), "busy");
    let mut second = Box::pin(bob.client.events());
    assert_eq!(second.next().await.unwrap().unwrap_err().code(), "busy");
    drop((stream, second));
    assert_eq!(bob.bodies().await, ["for the stream"], "it was not acknowledged");
}

#[tokio::test]
async fn sy_16_unknown_sections_and_fields_are_nothing_to_us() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("good").await.unwrap();
    edit_syncs(&server, |body| {
        body["org.example.new"] = json!({"a": [1, 2, {"b": null}]});
        body["rooms"]["knock"] = json!({"!k:localhost": {"knock_state": {"events": [7]}}});
        body["rooms"]["org.example"] = json!([]);
        body["rooms"]["leave"] = json!({"!never:localhost": {}, "nonsense": 7});
    });
    let events = bob.events().await;
    assert_eq!(bodies(&events), ["good"]);
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn sy_19_a_key_in_the_same_sync_opens_its_event_at_once() {
    for Pair { server, bob, room, .. } in both().await {
        bob.events().await;
        room.send_text("together").await.unwrap();
        let syncs = requests(&server, "/sync", "@bob:localhost");
        assert_eq!(bodies(&bob.client.receive(Duration::ZERO).await.unwrap()), ["together"]);
        assert_eq!(requests(&server, "/sync", "@bob:localhost"), syncs + 1);
        assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 0);
    }
}

#[tokio::test]
async fn sy_20_an_event_that_was_being_handled_comes_again() {
    for Pair {
        bob, room, bobs_room, ..
    } in both().await
    {
        drop(bobs_room);
        bob.events().await;
        room.send_text("handled?").await.unwrap();
        let mut stream = Box::pin(bob.client.events());
        let handled = stream.next().await.unwrap().unwrap();
        assert_eq!(bodies(&[handled]), ["handled?"]);
        drop(stream);
        let bob = bob.kill_and_open().await;
        assert_eq!(bob.bodies().await, ["handled?"]);
    }
}

#[tokio::test]
async fn sy_21_an_acknowledged_event_that_is_given_again_is_not_delivered_again() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("once").await.unwrap();
    assert_eq!(bob.bodies().await, ["once"]);
    let bob = bob.kill_and_open().await;
    let again: Vec<Value> = server
        .timeline(room.id())
        .into_iter()
        .filter(|event| event["type"] == "m.room.encrypted")
        .collect();
    let id = room.id().to_owned();
    edit_syncs(&server, move |body| {
        body["rooms"]["join"][id.as_str()] = json!({"timeline": {"events": again, "limited": false}});
    });
    assert!(bob.events().await.is_empty());
}

#[tokio::test]
async fn sy_22_what_waits_in_a_room_that_is_left_is_given_up_and_told() {
    let Pair {
        server,
        bob,
        room,
        bobs_room,
        ..
    } = pair().await;
    bob.events().await;
    hold_keys_back(&server);
    let receipt = room.send_text("late").await.unwrap();
    assert!(bob.events().await.is_empty());
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 1);
    let key = server.to_device_of(bob.client.user_id(), bob.client.device_id());
    server.behave();
    bobs_room.leave().await.unwrap();
    let events = bob.events().await;
    let [Event::Lost(lost)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&lost.event_id, lost.because),
        (&receipt.event_id, LostBecause::LeftRoom)
    );
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 0);
    server.queue_to_device(bob.client.user_id(), bob.client.device_id(), key);
    assert!(bob.events().await.is_empty(), "the key is harmless");
}

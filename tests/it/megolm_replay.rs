//! Room events that come again, as they were or changed: rows MG of the catalogue about replays.

use mx_e2ee::{Event, RejectedReason};
use mx_test_homeserver::EvilPeer;
use serde_json::{Value, json};

use crate::evil::{evil, messages, rejected, text};

#[tokio::test]
async fn mg_02_the_same_event_twice_is_delivered_once_and_is_no_replay() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "once"));
    evil.put(&content);
    evil.server.rewrite("/sync", |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        for room in body
            .pointer_mut("/rooms/join")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            if let Some(events) = room.1.pointer_mut("/timeline/events").and_then(Value::as_array_mut) {
                let again = events.clone();
                events.extend(again);
            }
        }
        response.map(|_| body.to_string().into())
    });
    let events = evil.alice.events().await;
    let encrypted: Vec<_> = events
        .iter()
        .filter(|event| !matches!(event, Event::Message(m) if m.encryption.is_none()))
        .collect();
    assert_eq!(
        messages(&events).iter().filter(|m| m.body() == Some("once")).count(),
        1,
        "{encrypted:?}"
    );
    assert!(rejected(&events).is_empty(), "{events:?}");
}

#[tokio::test]
async fn mg_03_the_same_ciphertext_in_another_event_is_a_replay() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "pay 10"));
    let first = evil.put(&content);
    let second = evil.put(&content);
    let events = evil.alice.events().await;
    assert_eq!(messages(&events).len(), 1);
    let replays = rejected(&events);
    assert_eq!(replays.len(), 1);
    assert_eq!(replays[0].event_id, second);
    assert_eq!(
        replays[0].reason,
        RejectedReason::Replay {
            first: first.clone().try_into().unwrap()
        }
    );
    assert!(!format!("{events:?}").contains("pay 10"));
}

#[tokio::test]
async fn mg_03_a_copy_in_another_members_name_does_not_take_the_place_of_the_original() {
    let mut evil = evil().await;
    let mut carol = EvilPeer::new(&evil.server, "carol", "CDEV");
    carol.publish();
    evil.room.invite(carol.user()).await.unwrap();
    carol.join(evil.room.id());
    evil.bodies().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "pay 10"));
    let copies = |carol: &mut EvilPeer| carol.send_event(evil.room.id(), "m.room.encrypted", &content);
    let before = copies(&mut carol);
    let original = evil.bob.send_event(evil.room.id(), "m.room.encrypted", &content);
    let after = copies(&mut carol);
    let events = evil.alice.events().await;
    assert_eq!(messages(&events).len(), 1, "{events:?}");
    assert_eq!(messages(&events)[0].event_id, original);
    let owner = Some(evil.bob.user().to_owned());
    let rejections: Vec<_> = rejected(&events)
        .into_iter()
        .map(|rejected| (rejected.event_id.to_string(), rejected.reason.clone()))
        .collect();
    let first = original.try_into().unwrap();
    let expected = [
        (before, RejectedReason::SenderMismatch { owner }),
        (after, RejectedReason::Replay { first }),
    ];
    assert_eq!(rejections, expected);
}

#[tokio::test]
async fn mg_04_the_same_event_at_another_time_is_a_replay() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "pay 10"));
    let id = evil.put(&content);
    assert_eq!(evil.bodies().await, ["pay 10"]);
    let mut again = evil.server.timeline(evil.room.id()).pop().unwrap();
    again["origin_server_ts"] = 1_234.into();
    let room = evil.room.id().to_owned();
    evil.server.rewrite("/sync", move |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        body["rooms"]["join"][room.as_str()] = json!({"timeline": {"events": [again]}});
        response.map(|_| body.to_string().into())
    });
    let events = evil.alice.client.receive(std::time::Duration::ZERO).await.unwrap();
    let replays = rejected(&events);
    assert_eq!((events.len(), replays.len()), (1, 1), "{events:?}");
    assert_eq!(
        replays[0].reason,
        RejectedReason::Replay {
            first: id.try_into().unwrap()
        }
    );
}

#[tokio::test]
async fn mg_05_a_replay_after_a_crash_is_one() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let content = session.encrypt(text(&session, "pay 10"));
    evil.put(&content);
    // Killed before it was acknowledged, and after.
    evil.alice.client.sync().await.unwrap();
    evil = evil.kill_alice().await;
    assert_eq!(evil.bodies().await, ["pay 10"]);
    evil = evil.kill_alice().await;
    evil.put(&content);
    let events = evil.alice.events().await;
    assert_eq!((events.len(), rejected(&events).len()), (1, 1), "{events:?}");
}

#[tokio::test]
async fn mg_07_another_message_at_a_used_index_is_told_from_a_replay() {
    let mut evil = evil().await;
    let mut session = evil.session();
    let mut restored = session.clone();
    let content = session.encrypt(text(&session, "first"));
    let first = evil.put(&content);
    let content = restored.encrypt(text(&restored, "second, from a restored store"));
    evil.put(&content);
    let events = evil.alice.events().await;
    assert_eq!(messages(&events).len(), 1);
    let [reuse] = rejected(&events)[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        reuse.reason,
        RejectedReason::IndexReuse {
            first: first.try_into().unwrap()
        }
    );
}

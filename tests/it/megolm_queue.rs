//! Events and keys that come in the wrong order, late, or never: rows MG of the catalogue about the queue.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mx_e2ee::{Clock, Event, LostBecause, Options, UndecryptableReason};
use mx_test_homeserver::Homeserver;
use serde_json::{Value, json};

use crate::{
    edits::hold_keys_back,
    world::{Device, Pair, pair},
};

/// The keys that wait for bob on the homeserver, in the order in which they were sent.
fn keys(server: &Homeserver, bob: &Device) -> Vec<Value> {
    server.to_device_of(bob.client.user_id(), bob.client.device_id())
}

fn give(server: &Homeserver, bob: &Device, keys: Vec<Value>) {
    server.queue_to_device(bob.client.user_id(), bob.client.device_id(), keys);
}

fn clock() -> (Arc<AtomicU64>, Clock) {
    let now = Arc::new(AtomicU64::new(1_900_000_000_000));
    let read = Arc::clone(&now);
    (now, Clock::from_fn(move || read.load(Ordering::SeqCst)))
}

#[tokio::test]
async fn mg_18_an_event_before_its_key_is_delivered_once_with_its_own_id_and_time() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    hold_keys_back(&server);
    let receipt = room.send_text("early").await.unwrap();
    let held = keys(&server, &bob);
    assert!(bob.events().await.is_empty());
    let waiting = bob.client.waiting(0, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].event_id, receipt.event_id);
    assert_eq!(waiting[0].reason, UndecryptableReason::MissingRoomKey);
    server.behave();
    give(&server, &bob, held);
    let read = bob.messages().await;
    assert_eq!(read.len(), 1);
    let mut sent = server.timeline(room.id()).into_iter();
    let sent = sent
        .rfind(|event| event["event_id"] == receipt.event_id.as_str())
        .unwrap();
    assert_eq!(read[0].event_id, receipt.event_id);
    assert_eq!(sent["origin_server_ts"], read[0].origin_server_ts);
    assert!(read[0].encryption.as_ref().unwrap().waited_ms.is_some());
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 0);
    assert!(bob.events().await.is_empty());
}

#[tokio::test]
async fn mg_18_an_event_whose_key_takes_an_hour_is_reported_and_then_delivered() {
    let Pair { server, bob, room, .. } = pair().await;
    let (now, clock) = clock();
    let mut options = Options::default();
    options.clock = clock;
    let bob = bob.kill_and_open_with(options).await;
    bob.events().await;
    hold_keys_back(&server);
    let receipt = room.send_text("an hour").await.unwrap();
    let held = keys(&server, &bob);
    assert!(bob.events().await.is_empty(), "the deadline is a minute");
    now.fetch_add(61_000, Ordering::SeqCst);
    let events = bob.events().await;
    let [Event::Undecryptable(report)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(report.event_id, receipt.event_id);
    let counts = bob.client.waiting_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.reported), (1, 1));
    now.fetch_add(3_600_000, Ordering::SeqCst);
    assert!(bob.events().await.is_empty(), "reported once");
    server.behave();
    give(&server, &bob, held);
    let read = bob.messages().await;
    assert_eq!(read[0].encryption.as_ref().unwrap().waited_ms, Some(3_661_000));
    assert_eq!(read.len(), 1);
}

#[tokio::test]
async fn mg_19_what_waits_survives_the_process() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    hold_keys_back(&server);
    room.send_text("one").await.unwrap();
    room.send_text("two").await.unwrap();
    let held = keys(&server, &bob);
    assert!(bob.events().await.is_empty());
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 2);
    server.behave();
    give(&server, &bob, held);
    bob.client.sync().await.unwrap();
    let bob = bob.kill_and_open().await;
    let mut read = bob.bodies().await;
    read.sort();
    assert_eq!(read, ["one", "two"]);
    assert!(bob.events().await.is_empty());
}

#[tokio::test]
async fn mg_19_a_clock_that_was_years_ahead_hides_no_report() {
    let Pair { server, bob, room, .. } = pair().await;
    let (now, clock) = clock();
    let mut options = Options::default();
    options.clock = clock;
    let bob = bob.kill_and_open_with(options).await;
    bob.events().await;
    hold_keys_back(&server);
    let years_ms = 10 * 365 * 24 * 3_600_000;
    now.fetch_add(years_ms, Ordering::SeqCst);
    let ahead = room.send_text("while it was ahead").await.unwrap();
    assert!(bob.events().await.is_empty());
    now.fetch_sub(years_ms, Ordering::SeqCst);
    let later = room.send_text("when it was right").await.unwrap();
    let mut events = bob.events().await;
    now.fetch_add(61_000, Ordering::SeqCst);
    events.extend(bob.events().await);
    let reported: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Undecryptable(report) => Some(&report.event_id),
            _ => None,
        })
        .collect();
    assert_eq!(reported, [&ahead.event_id, &later.event_id]);
}

#[tokio::test]
async fn mg_20_the_oldest_goes_when_too_many_wait_and_it_is_told() {
    let Pair { server, bob, room, .. } = pair().await;
    let mut options = Options::default();
    options.most_waiting = 5;
    let bob = bob.kill_and_open_with(options).await;
    bob.events().await;
    hold_keys_back(&server);
    let mut sent = Vec::new();
    for number in 0..8 {
        sent.push(room.send_text(format!("{number}")).await.unwrap().event_id);
    }
    let held = keys(&server, &bob);
    let events = bob.events().await;
    let lost: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Lost(lost) => {
                assert_eq!(lost.because, LostBecause::TooMany);
                assert_eq!(lost.reason, UndecryptableReason::MissingRoomKey);
                lost.event_id.clone()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, sent[..3], "the oldest, in their order");
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 5);
    server.behave();
    give(&server, &bob, held);
    let mut read = bob.bodies().await;
    read.sort();
    assert_eq!(read, ["3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn mg_21_a_withheld_key_that_comes_after_all_opens_its_event() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    bob.events().await;
    hold_keys_back(&server);
    let receipt = room.send_text("withheld, then not").await.unwrap();
    let held = keys(&server, &bob);
    assert!(bob.events().await.is_empty());
    server.behave();
    let withheld = json!({"type": "m.room_key.withheld", "sender": alice.client.user_id(), "content": {
        "algorithm": "m.megolm.v1.aes-sha2", "code": "m.unverified", "reason": "Device not verified",
        "room_id": room.id(), "session_id": receipt.session_id,
        "sender_key": "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw"}});
    give(&server, &bob, vec![withheld]);
    assert!(bob.events().await.is_empty(), "anybody can say so: it is never the end");
    let waiting = bob.client.waiting(0, 1).await.unwrap();
    let withheld = "m.unverified".to_owned();
    assert_eq!(waiting[0].reason, UndecryptableReason::Withheld { withheld });
    let explanation = bob.client.explain(&waiting[0]).await.unwrap().to_string();
    assert!(explanation.contains("m.unverified"), "{explanation}");
    give(&server, &bob, held);
    assert_eq!(bob.bodies().await, ["withheld, then not"]);
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn mg_22_of_two_keys_of_one_session_in_one_sync_the_better_stays() {
    let Pair {
        server,
        bob,
        room,
        bobs_room,
        ..
    } = pair().await;
    bob.events().await;
    let first = room.send_text("zero").await.unwrap();
    bobs_room.send_text("opens a session the other way").await.unwrap();
    // Alice sees bob's new session with her next sync, and gives him her key again as it is now.
    tokio::time::advance(Duration::from_secs(5)).await;
    let second = room.send_text("one").await.unwrap();
    assert_eq!(first.session_id, second.session_id);
    // Both keys come together. The engine alone keeps the last of them, which opens "one" only.
    let held: Vec<_> = keys(&server, &bob)
        .into_iter()
        .filter(|event| event["type"] == "m.room.encrypted")
        .collect();
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(bob.bodies().await, ["zero", "one"]);
}

#[tokio::test]
async fn a_waiting_event_is_explained_in_words() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    hold_keys_back(&server);
    room.send_text("why not?").await.unwrap();
    bob.events().await;
    let waiting = bob.client.waiting(0, 1).await.unwrap();
    let explanation = bob.client.explain(&waiting[0]).await.unwrap();
    assert_eq!(explanation.findings[0], "this device does not have the room key");
    let text = explanation.to_string();
    assert!(text.contains("is known here"), "{text}");
    assert_eq!(explanation.advice, waiting[0].advice);

    // The same with a device that nobody knows, keys that had run out, and an event from before the device.
    server.exhaust_keys(bob.client.user_id(), bob.client.device_id());
    bob.client.sync().await.unwrap();
    let mut other = waiting[0].clone();
    other.claimed_device = Some("NOBODYS".into());
    let text = bob.client.explain(&other).await.unwrap().to_string();
    assert!(text.contains("NOBODYS") && text.contains("not among"), "{text}");
    assert!(text.contains("one-time keys had run out"), "{text}");
    other.origin_server_ts = 1;
    let text = bob.client.explain(&other).await.unwrap().to_string();
    assert!(text.contains("older than this device"), "{text}");
}

#[tokio::test]
async fn td_23_word_that_a_key_is_withheld_never_closes_what_the_key_opens() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    bob.events().await;
    let receipt = room.send_text("one").await.unwrap();
    assert_eq!(bob.bodies().await, ["one"]);
    let word = |session: &str| {
        json!({"type": "m.room_key.withheld", "sender": alice.client.user_id(), "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "code": "m.blacklisted", "room_id": room.id(),
            "session_id": session, "sender_key": "hPQNcabIABgGnx3/ACv/jmMmiQHoeFfuLB17tzWp6Hw"}})
    };
    // Of a key that we have, and of one that nobody has.
    give(&server, &bob, vec![word(&receipt.session_id), word("nobodys session")]);
    room.send_text("two").await.unwrap();
    assert_eq!(bob.bodies().await, ["two"]);
    assert_eq!(bob.client.waiting_counts().await.unwrap().waiting, 0);
}

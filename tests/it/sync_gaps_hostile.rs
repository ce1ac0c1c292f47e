//! A homeserver that answers what it wants when it is asked for what a sync left out: bounded, in order, once, and told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mx_e2ee::Event;
use mx_test_homeserver::{Fault, Homeserver};
use ruma::RoomId;
use serde_json::{Value, json};

use crate::{
    sync_answers::{bodies, requests},
    world::{Pair, both, pair},
};

fn plain(number: usize, text: &str) -> Value {
    json!({"type": "m.room.message", "event_id": format!("$made-{number}"), "sender": "@alice:localhost",
           "origin_server_ts": 1, "content": {"msgtype": "m.text", "body": text}})
}

/// From now on, the `n`-th page of a history is what `page` says.
fn pages(server: &Homeserver, page: impl Fn(usize, &str) -> Value + Send + Sync + 'static) {
    let asked = AtomicUsize::new(0);
    server.rewrite("/messages", move |request, response| {
        let query = request.uri().query().unwrap_or_default();
        let from = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("from="))
            .unwrap_or_default();
        let number = asked.fetch_add(1, Ordering::SeqCst);
        response.map(|_| page(number, from).to_string().into())
    });
}

/// More than a sync holds.
fn say_many(server: &Homeserver, room: &RoomId, count: usize) {
    for number in 0..count {
        let content = json!({"msgtype": "m.text", "body": format!("{number}")});
        server.inject(room, ruma::user_id!("@alice:localhost"), "m.room.message", content);
    }
}

fn gap(events: &[Event]) -> Option<usize> {
    events.iter().find_map(|event| match event {
        Event::Gap(gap) => Some(gap.recovered),
        _ => None,
    })
}

#[tokio::test]
async fn sy_01_a_history_without_an_end_is_asked_for_so_far_and_the_rest_is_a_gap() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 101);
    pages(
        &server,
        |number, _| json!({"start": "t", "end": format!("t-{number}"), "chunk": [plain(number, &format!("older {number}"))]}),
    );
    let before = requests(&server, "/messages", "@bob:localhost");
    let events = bob.events().await;
    assert_eq!(requests(&server, "/messages", "@bob:localhost"), before + 20);
    assert_eq!(gap(&events), Some(20), "what is not there is told");
    let read = bodies(&events);
    assert_eq!(read.len(), 120);
    assert_eq!(
        (read[0], read[19], read[20]),
        ("older 19", "older 0", "1"),
        "the oldest first"
    );
    server.behave();
    say_many(&server, room.id(), 1);
    assert_eq!(bob.bodies().await, ["0"], "and it goes on");
}

#[tokio::test]
async fn sy_01_a_place_that_was_asked_about_is_not_asked_about_again() {
    for back_to in [0, 1] {
        let Pair { server, bob, room, .. } = pair().await;
        bob.events().await;
        say_many(&server, room.id(), 101);
        pages(&server, move |number, from| {
            let end = if number < back_to {
                "t-elsewhere".to_owned()
            } else {
                from.to_owned()
            };
            json!({"start": from, "end": end, "chunk": [plain(number, "older")]})
        });
        let before = requests(&server, "/messages", "@bob:localhost");
        let events = bob.events().await;
        assert_eq!(requests(&server, "/messages", "@bob:localhost"), before + back_to + 1);
        assert_eq!(gap(&events), Some(back_to + 1));
    }
}

#[tokio::test]
async fn sy_01_events_of_another_room_and_events_that_come_twice_are_not_taken() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 101);
    pages(&server, |number, _| {
        let mut elsewhere = plain(7, "not here");
        elsewhere["room_id"] = "!other:localhost".into();
        let chunk = json!([
            plain(2, "second"),
            elsewhere,
            plain(2, "second again"),
            plain(1, "first")
        ]);
        match number {
            0 => json!({"start": "t", "end": "t-1", "chunk": chunk}),
            _ => json!({"start": "t", "chunk": [plain(1, "first again"), plain(0, "zeroth")]}),
        }
    });
    let events = bob.events().await;
    assert_eq!(gap(&events), None);
    let read = bodies(&events);
    assert_eq!(read.len(), 103);
    assert_eq!(read[..4], ["zeroth", "first", "second", "1"]);
}

#[tokio::test]
async fn sy_01_a_history_that_goes_on_behind_what_was_seen_ends_there() {
    let Pair { server, bob, room, .. } = pair().await;
    say_many(&server, room.id(), 3);
    assert_eq!(bob.bodies().await.len(), 3);
    say_many(&server, room.id(), 101);
    // Everything that ever was, whatever it was asked for.
    let mut all = server.timeline(room.id());
    all.reverse();
    let all = Arc::new(all);
    pages(
        &server,
        move |_, _| json!({"start": "t", "end": "t-more", "chunk": *all}),
    );
    let before = requests(&server, "/messages", "@bob:localhost");
    let events = bob.events().await;
    assert_eq!(requests(&server, "/messages", "@bob:localhost"), before + 1);
    assert_eq!(gap(&events), None, "it reaches what was seen");
    let expected: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&events), expected, "and nothing before it comes again");
}

#[tokio::test]
async fn sy_01_an_empty_page_is_not_the_last_one() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 101);
    pages(&server, |number, _| match number {
        0 => json!({"start": "t", "end": "t-1", "chunk": []}),
        1 => json!({"start": "t", "end": "t-2", "chunk": [plain(1, "older")]}),
        _ => json!({"start": "t", "chunk": []}),
    });
    let events = bob.events().await;
    assert_eq!(gap(&events), None);
    assert_eq!(bodies(&events)[..2], ["older", "1"]);
}

#[tokio::test]
async fn sy_01_an_event_that_stands_among_those_that_were_seen_is_found() {
    for Pair { server, bob, room, .. } in both().await {
        say_many(&server, room.id(), 60);
        assert_eq!(bob.bodies().await.len(), 60);
        server.forget_sliding_sync(bob.client.user_id(), bob.client.device_id());
        say_many(&server, room.id(), 110);
        let mut all = server.timeline(room.id());
        all.reverse();
        // It came late, and stands before ten that were seen.
        all.insert(120, plain(1, "late"));
        let all = Arc::new(all);
        pages(
            &server,
            move |_, _| json!({"start": "t", "end": "t-more", "chunk": *all}),
        );
        let events = bob.events().await;
        assert_eq!(gap(&events), None);
        let mut read = bodies(&events);
        assert_eq!(read.remove(0), "late");
        let expected: Vec<String> = (0..110).map(|number| number.to_string()).collect();
        assert_eq!(read, expected, "once, in order");
    }
}

#[tokio::test]
async fn sy_01_a_history_that_always_fails_becomes_a_gap_after_some_attempts() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 101);
    server.fault(Fault::status("/messages", 500, "{}").for_ever());
    let mut bob = bob;
    for attempt in 1..5 {
        let failed = bob.client.receive(std::time::Duration::ZERO).await;
        assert!(failed.is_err(), "{attempt}");
        // Also in another process.
        bob = bob.kill_and_open().await;
    }
    let events = bob.events().await;
    assert_eq!(gap(&events), Some(0));
    assert_eq!(bodies(&events).len(), 100);
    // What works begins to count anew.
    say_many(&server, room.id(), 101);
    assert!(bob.client.receive(std::time::Duration::ZERO).await.is_err());
    server.behave();
    let events = bob.events().await;
    assert_eq!((gap(&events), events.len()), (None, 101));
}

#[tokio::test]
async fn sy_01_many_rooms_share_what_is_asked_for() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let mut rooms = vec![room];
    for _ in 0..6 {
        let other = alice
            .client
            .create_room(None, &[bob.client.user_id().to_owned()])
            .await
            .unwrap();
        bob.client.join(other.id().as_str()).await.unwrap();
        rooms.push(other);
    }
    bob.events().await;
    for room in &rooms {
        say_many(&server, room.id(), 101);
    }
    pages(
        &server,
        |number, _| json!({"start": "t", "end": format!("t-{number}"), "chunk": [plain(number, "older")]}),
    );
    let before = requests(&server, "/messages", "@bob:localhost");
    let events = bob.events().await;
    assert_eq!(requests(&server, "/messages", "@bob:localhost"), before + 100);
    let gaps = events.iter().filter(|event| matches!(event, Event::Gap(_))).count();
    assert_eq!(gaps, rooms.len(), "what was not asked for is told");
}

#[tokio::test]
async fn sy_01_a_gap_that_is_broken_off_is_filled_by_the_next_process() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 350);
    server.fault(Fault::drop_after("/messages").nth(2));
    assert!(bob.client.receive(std::time::Duration::ZERO).await.is_err());
    assert!(
        bob.client.orchestrator().inbox(None, 10).await.unwrap().is_empty(),
        "nothing was taken"
    );
    let bob = bob.kill_and_open().await;
    let expected: Vec<String> = (0..350).map(|number| number.to_string()).collect();
    assert_eq!(bob.bodies().await, expected);
}

#[tokio::test]
async fn sy_01_another_name_of_ours_in_a_gap_is_no_joining() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    say_many(&server, room.id(), 50);
    let name = json!({"membership": "join", "displayname": "Robert"});
    let user = bob.client.user_id();
    server.set_state(room.id(), user, "m.room.member", user.as_str(), name);
    say_many(&server, room.id(), 120);
    assert_eq!(bob.bodies().await.len(), 170);
}

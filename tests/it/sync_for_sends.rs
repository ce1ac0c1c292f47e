//! A program that only sends asks for no messages, and whoever listens later gets all of them, once and in order.

use std::time::Duration;

use mx_e2ee::Event;
use mx_test_homeserver::Homeserver;
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    sync_answers::{bodies, requests},
    world::{Device, Pair, pair},
};

/// What a user's syncs were answered, from the `nth` request of all on.
fn syncs(server: &Homeserver, user: &UserId, nth: usize) -> Vec<Value> {
    server
        .log()
        .split_off(nth)
        .into_iter()
        .filter(|exchange| exchange.path.ends_with("/sync") && exchange.user.as_deref() == Some(user.as_str()))
        .map(|exchange| exchange.response_body)
        .collect()
}

fn messages_in(answers: &[Value]) -> usize {
    answers
        .iter()
        .filter_map(|answer| answer["rooms"]["join"].as_object())
        .flat_map(|rooms| rooms.values())
        .filter_map(|room| room["timeline"]["events"].as_array())
        .flatten()
        .filter(|event| event["type"] == "m.room.encrypted" || event["type"] == "m.room.message")
        .count()
}

#[tokio::test]
async fn sends_between_two_syncs_lose_no_message_and_no_order() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    bob.events().await;
    let mut bob = bob.kill_and_open().await;
    let before = server.log().len();
    for round in 0..3 {
        for number in 0..3 {
            room.send_text(format!("{round}.{number}")).await.unwrap();
        }
        let plain = json!({"msgtype": "m.text", "body": format!("{round}.plain")});
        server.inject(room.id(), alice.client.user_id(), "m.room.message", plain);
        // One process a send, as `mx send` is.
        bob.client
            .room(room.id())
            .send_text(format!("from bob {round}"))
            .await
            .unwrap();
        bob = bob.kill_and_open().await;
    }
    let lean = syncs(&server, bob.client.user_id(), before);
    assert!(lean.len() >= 3);
    assert_eq!(messages_in(&lean), 0, "a send is given no message");
    // Killed right after each send: that it was sent is told by the next process, too.
    let told = bob.client.orchestrator().inbox(None, 10).await.unwrap();
    assert!(told.iter().all(|told| matches!(told.event, Event::Sent(_))), "{told:?}");

    let summary = bob.client.orchestrator().sync(Duration::ZERO).await.unwrap();
    assert_eq!(
        summary.to_device_rejected, 0,
        "keys that were taken are known: {summary:?}"
    );
    let mut events = bob.events().await;
    events.retain(|event| !matches!(event, Event::Sent(_)));
    let expected: Vec<String> = (0..3)
        .flat_map(|round| ["0", "1", "2", "plain"].map(|name| format!("{round}.{name}")))
        .collect();
    assert_eq!(bodies(&events), expected);
    assert_eq!(events.len(), expected.len(), "and nothing else: {events:?}");
    assert!(bob.events().await.is_empty());
    let bob = bob.kill_and_open().await;
    room.send_text("after").await.unwrap();
    assert_eq!(bob.bodies().await, ["after"], "and from there it goes on");
}

#[tokio::test]
async fn a_send_sees_who_left_and_their_leaving_ends_the_key_once() {
    let Pair { server, bob, room, .. } = pair().await;
    let carol = Device::new(&server, "carol").await;
    room.invite(carol.client.user_id()).await.unwrap();
    let carols_room = carol.client.join(room.id().as_str()).await.unwrap();
    bob.events().await;
    let bobs_room = bob.client.room(room.id());
    let first = bobs_room.send_text("one").await.unwrap();
    drop(bobs_room);
    carols_room.leave().await.unwrap();
    let bob = bob.kill_and_open().await;
    let second = bob.client.room(room.id()).send_text("two").await.unwrap();
    assert_ne!(second.session_id, first.session_id, "she left");
    let bob = bob.kill_and_open().await;
    bob.events().await;
    let third = bob.client.room(room.id()).send_text("three").await.unwrap();
    assert_eq!(third.session_id, second.session_id, "that is known already");
    // Who leaves after the sends has not been seen leaving.
    room.invite(carol.client.user_id()).await.unwrap();
    let carols_room = carol.client.join(room.id().as_str()).await.unwrap();
    let bob = bob.kill_and_open().await;
    let fourth = bob.client.room(room.id()).send_text("four").await.unwrap();
    carols_room.leave().await.unwrap();
    let bob = bob.kill_and_open().await;
    bob.events().await;
    let fifth = bob.client.room(room.id()).send_text("five").await.unwrap();
    assert_ne!(fifth.session_id, fourth.session_id);
}

#[tokio::test]
async fn who_left_among_more_changes_than_a_sync_holds_is_found_by_a_send() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let carol = Device::new(&server, "carol").await;
    room.invite(carol.client.user_id()).await.unwrap();
    let carols_room = carol.client.join(room.id().as_str()).await.unwrap();
    bob.events().await;
    let first = bob.client.room(room.id()).send_text("one").await.unwrap();
    carols_room.leave().await.unwrap();
    room.invite(carol.client.user_id()).await.unwrap();
    carol.client.join(room.id().as_str()).await.unwrap();
    for number in 0..101 {
        let name = json!({"membership": "join", "displayname": format!("Alice {number}")});
        server.set_state(
            room.id(),
            alice.client.user_id(),
            "m.room.member",
            alice.client.user_id().as_str(),
            name,
        );
    }
    room.send_text("behind them").await.unwrap();
    let bob = bob.kill_and_open().await;
    let asked = requests(&server, "/messages", "@bob:localhost");
    let second = bob.client.room(room.id()).send_text("two").await.unwrap();
    assert_ne!(
        second.session_id, first.session_id,
        "she was away, and may not read what was said then"
    );
    assert!(
        requests(&server, "/messages", "@bob:localhost") > asked + 1,
        "the gap is filled"
    );
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.bodies().await, ["behind them"]);
}

#[tokio::test]
async fn an_invitation_that_a_send_passed_by_comes_once() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    bob.events().await;
    let bob = bob.kill_and_open().await;
    let other = alice
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    bob.client.room(room.id()).send_text("not about it").await.unwrap();
    let bob = bob.kill_and_open().await;
    let events = bob.events().await;
    assert!(
        matches!(events.as_slice(), [Event::Invite(invite)] if invite.room_id == other.id()),
        "{events:?}"
    );
    drop(server);
}

#[tokio::test]
async fn what_a_send_asks_for_is_a_fraction_of_a_sync() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    for number in 0..90 {
        room.send_text(format!("{number}")).await.unwrap();
    }
    let bob = bob.kill_and_open().await;
    let bytes = |answers: Vec<Value>| answers.iter().map(|answer| answer.to_string().len()).sum::<usize>();
    let before = server.log().len();
    bob.client.room(room.id()).send_text("a send").await.unwrap();
    let for_send = bytes(syncs(&server, bob.client.user_id(), before));
    let bob = bob.kill_and_open().await;
    let before = server.log().len();
    assert_eq!(bob.bodies().await.len(), 90);
    let for_listening = bytes(syncs(&server, bob.client.user_id(), before));
    assert!(for_send * 5 < for_listening, "{for_send} and {for_listening} bytes");
}

#[tokio::test]
async fn who_listens_is_not_asked_twice() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("for bob").await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    let before = server.log().len();
    bob.client.room(room.id()).send_text("from bob").await.unwrap();
    assert_eq!(messages_in(&syncs(&server, bob.client.user_id(), before)), 1);
    assert_eq!(bodies(&bob.client.receive(Duration::ZERO).await.unwrap()), ["for bob"]);
    // Who has not listened for long is one who sends.
    tokio::time::advance(Duration::from_secs(3600)).await;
    room.send_text("more").await.unwrap();
    let before = server.log().len();
    bob.client.room(room.id()).send_text("from bob").await.unwrap();
    assert_eq!(messages_in(&syncs(&server, bob.client.user_id(), before)), 0);
    assert_eq!(bob.bodies().await, ["more"]);
}

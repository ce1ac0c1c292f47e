//! From one kind of sync to the other and back: nothing is lost, nothing is told twice.

use std::time::Duration;

use mx_e2ee::{Options, Room, SyncSource};
use mx_test_homeserver::{Fault, Homeserver};
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    sync_answers::{bodies, requests},
    sync_sliding::slid,
    world::{Pair, options, pair, sliding_pair},
};

const SLIDING: &str = "org.matrix.simplified_msc3575/sync";

/// How devices behave that never slide.
fn staying() -> Options {
    let mut options = Options::default();
    options.sync_source = SyncSource::Sync;
    options
}

fn say(server: &Homeserver, room: &Room, from: &UserId, text: &str) {
    let content = json!({"msgtype": "m.text", "body": text});
    server.inject(room.id(), from, "m.room.message", content);
}

#[tokio::test]
async fn from_one_source_to_the_other_nothing_is_lost_or_told_twice() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    drop(bobs_room);
    server.offer_sliding_sync();
    let mut bob = bob.kill_and_open_with(staying()).await;
    let mut expected = Vec::new();
    let mut read = Vec::new();
    for round in 0..6 {
        // In the middle a send, which leaves messages where they are.
        bob.client.room(room.id()).send_text("from bob").await.unwrap();
        for number in 0..(if round == 4 { 130 } else { 3 }) {
            let text = format!("{round}.{number}");
            room.send_text(text.as_str()).await.unwrap();
            expected.push(text);
        }
        let plain = format!("{round}.plain");
        server.inject(
            room.id(),
            alice.client.user_id(),
            "m.room.message",
            json!({"body": plain}),
        );
        expected.push(plain);
        bob = bob
            .kill_and_open_with(if round % 2 == 0 { options(&server) } else { staying() })
            .await;
        let summary = bob.client.orchestrator().sync(Duration::ZERO).await.unwrap();
        assert_eq!(summary.to_device_rejected, 0, "{summary:?}");
        read.extend(bob.bodies().await);
    }
    assert_eq!(read, expected);
    let (sliding, v3) = slid(&server, "@bob:localhost");
    assert!(sliding > 3 && v3 > 3);
}

#[tokio::test]
async fn many_plaintexts_each_time_are_told_once_in_both_directions() {
    for begins_sliding in [false, true] {
        let Pair {
            server,
            alice,
            mut bob,
            room,
            ..
        } = if begins_sliding {
            sliding_pair().await
        } else {
            pair().await
        };
        server.offer_sliding_sync();
        let (mut expected, mut read, mut count) = (Vec::new(), Vec::new(), 0);
        for round in 0..8 {
            // One that nobody will ever read is told once, too.
            server.inject(
                room.id(),
                alice.client.user_id(),
                "m.room.encrypted",
                json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "session_id": "y"}),
            );
            for number in 0..(if round == 5 { 240 } else { 30 }) {
                let text = format!("{round}.{number}");
                say(&server, &room, alice.client.user_id(), &text);
                expected.push(text);
            }
            let slides = (round % 2 == 0) == begins_sliding;
            let how = if slides { options(&server) } else { staying() };
            bob = bob.kill_and_open_with(how).await;
            for _ in 0..2 {
                let events = bob.events().await;
                count += events.len();
                read.extend(bodies(&events).into_iter().map(str::to_owned));
            }
        }
        assert_eq!(read, expected, "{begins_sliding}");
        assert_eq!(count, expected.len() + 8, "and nothing else, {begins_sliding}");
    }
}

#[tokio::test]
async fn a_device_that_only_slid_is_not_told_history_by_the_other_sync() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = sliding_pair().await;
    for number in 0..200 {
        say(&server, &room, alice.client.user_id(), &format!("{number}"));
        if number % 40 == 0 {
            bob.events().await;
        }
    }
    bob.events().await;
    let bob = bob.kill_and_open_with(staying()).await;
    say(&server, &room, alice.client.user_id(), "new");
    let events = bob.events().await;
    assert_eq!(bodies(&events), ["new"]);
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn how_much_the_first_sync_shows_is_nothing_to_those_after_it() {
    let Pair {
        server,
        alice,
        mut bob,
        room,
        ..
    } = sliding_pair().await;
    bob.events().await;
    for timeline in [0, 3, 100] {
        let mut how = options(&server);
        how.first_timeline = timeline;
        bob = bob.kill_and_open_with(how).await;
        let expected: Vec<String> = (0..5).map(|number| format!("{timeline}.{number}")).collect();
        for text in &expected {
            say(&server, &room, alice.client.user_id(), text);
        }
        let events = bob.events().await;
        assert_eq!(bodies(&events), expected);
        assert_eq!(events.len(), expected.len(), "{events:?}");
    }
}

#[tokio::test]
async fn one_server_that_does_not_say_so_does_not_end_a_sliding_sync() {
    let Pair { server, bob, room, .. } = sliding_pair().await;
    bob.events().await;
    server.rewrite("/versions", |_, response| {
        let mut body: Value = serde_json::from_slice(response.body()).unwrap();
        body["unstable_features"] = json!({});
        response.map(|_| body.to_string().into())
    });
    room.send_text("one").await.unwrap();
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.bodies().await, ["one"]);
    assert_eq!(slid(&server, "@bob:localhost").1, 0, "it slides on");
    // And where there is no such thing any more, the other sync goes on from there.
    let gone = r#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#;
    server.fault(Fault::status(SLIDING, 404, gone).for_ever());
    room.send_text("two").await.unwrap();
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.bodies().await, ["two"]);
    assert!(requests(&server, "/v3/sync", "@bob:localhost") > 0);
}

//! Simplified sliding sync (MSC4186): the same events, once and in order, whatever the homeserver forgets.

use std::time::Duration;

use mx_e2ee::{Event, LostBecause, Options, SyncSource};
use mx_test_homeserver::{Fault, Homeserver};
use serde_json::{Value, json};

use crate::{
    edits::{edit_syncs, hold_keys_back},
    sync_answers::{bodies, requests},
    world::{Device, Pair, both, pair, sliding_pair},
};

const SLIDING: &str = "org.matrix.simplified_msc3575/sync";

pub(crate) fn slid(server: &Homeserver, user: &str) -> (usize, usize) {
    (requests(server, SLIDING, user), requests(server, "/v3/sync", user))
}

#[tokio::test]
async fn syncs_slide_where_that_is_wanted_and_offered() {
    let Pair { server, bob, room, .. } = sliding_pair().await;
    room.send_text("one").await.unwrap();
    assert_eq!(bob.bodies().await, ["one"]);
    let (sliding, v3) = slid(&server, "@bob:localhost");
    assert!(sliding > 0 && v3 == 0, "{sliding} {v3}");

    let Pair { server, bob, room, .. } = pair().await;
    let mut options = Options::default();
    options.sync_source = SyncSource::SlidingWhereOffered;
    let bob = bob.kill_and_open_with(options).await;
    room.send_text("one").await.unwrap();
    assert_eq!(
        bob.bodies().await,
        ["one"],
        "where it is not offered, syncs do not slide"
    );
    assert_eq!(slid(&server, "@bob:localhost").0, 0);
}

#[tokio::test]
async fn a_position_outlives_the_process_and_nothing_is_shown_twice() {
    let Pair { server, bob, room, .. } = sliding_pair().await;
    bob.events().await;
    room.send_text("one").await.unwrap();
    let before = server.log().len();
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.bodies().await, ["one"]);
    let last = server
        .log()
        .into_iter()
        .rfind(|exchange| exchange.path.ends_with(SLIDING))
        .unwrap();
    assert!(last.query.iter().any(|(name, _)| name == "pos"));
    assert!(last.request_body["extensions"]["to_device"]["since"].is_string());
    let initial = |exchange: &mx_test_homeserver::Exchange| {
        let rooms = exchange.response_body["rooms"].as_object().cloned().unwrap_or_default();
        rooms.values().any(|room| room["initial"] == true)
    };
    let whole = server
        .log()
        .iter()
        .skip(before)
        .filter(|exchange| exchange.user.as_deref() == Some("@bob:localhost") && initial(exchange))
        .count();
    assert_eq!(whole, 0, "the room is shown as a whole when it is new, and not again");
}

#[tokio::test]
async fn what_a_homeserver_forgot_is_shown_again_and_told_once() {
    for (missed, in_full) in [(5, true), (60, false)] {
        let Pair {
            server,
            alice,
            bob,
            room,
            bobs_room,
        } = sliding_pair().await;
        room.send_text("before").await.unwrap();
        server.inject(
            room.id(),
            alice.client.user_id(),
            "m.room.message",
            json!({"body": "plain"}),
        );
        assert_eq!(bob.bodies().await, ["before", "plain"]);
        bobs_room.send_text("to one device").await.unwrap();
        server.forget_sliding_sync(bob.client.user_id(), bob.client.device_id());
        let second = Device::new(&server, "alice").await;
        for number in 0..missed {
            room.send_text(format!("{number}")).await.unwrap();
        }
        let asked = requests(&server, "/messages", "@bob:localhost");
        let summary = bob.client.orchestrator().sync(Duration::ZERO).await.unwrap();
        assert_eq!(summary.to_device_rejected, 0, "{summary:?}");
        let expected: Vec<String> = (0..missed).map(|number| number.to_string()).collect();
        let events = bob.events().await;
        assert_eq!(bodies(&events), expected);
        assert_eq!(events.len(), expected.len(), "{events:?}");
        let asked = requests(&server, "/messages", "@bob:localhost") - asked;
        assert_eq!(asked == 0, in_full, "the rest is asked for, back to what was seen");
        let receipt = bobs_room.send_text("to two").await.unwrap();
        assert!(
            receipt
                .devices
                .iter()
                .any(|of| of.device_id == second.client.device_id()),
            "whose devices changed meanwhile is not known, so that everybody is asked"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again() {
    let Pair { server, bob, room, .. } = sliding_pair().await;
    bob.events().await;
    for lost in 0..3 {
        room.send_text(format!("{lost}")).await.unwrap();
        server.fault(Fault::drop_after(SLIDING));
        assert!(bob.client.receive(Duration::ZERO).await.is_err());
    }
    assert_eq!(bob.bodies().await, ["0", "1", "2"]);
}

#[tokio::test]
async fn who_left_and_came_back_while_the_homeserver_forgot_cannot_read_on() {
    let Pair {
        server,
        bob,
        room,
        bobs_room,
        alice,
    } = sliding_pair().await;
    let carol = Device::new(&server, "carol").await;
    room.invite(carol.client.user_id()).await.unwrap();
    let carols_room = carol.client.join(room.id().as_str()).await.unwrap();
    bob.events().await;
    let first = bobs_room.send_text("one").await.unwrap();
    for forgets in [false, true] {
        carols_room.leave().await.unwrap();
        room.invite(carol.client.user_id()).await.unwrap();
        carol.client.join(room.id().as_str()).await.unwrap();
        for number in 0..40 {
            room.send_text(format!("{number}")).await.unwrap();
        }
        if forgets {
            server.forget_sliding_sync(bob.client.user_id(), bob.client.device_id());
        }
        bob.events().await;
        let next = bobs_room.send_text("next").await.unwrap();
        assert_ne!(next.session_id, first.session_id, "{forgets}");
    }
    drop(alice);
}

#[tokio::test]
async fn invitations_come_once_and_leaving_is_seen() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } in both().await
    {
        bob.events().await;
        let other = alice
            .client
            .create_room(Some("other"), &[bob.client.user_id().to_owned()])
            .await
            .unwrap();
        let events = bob.events().await;
        assert!(
            matches!(events.as_slice(), [Event::Invite(invite)]
                if invite.room_id == other.id() && invite.inviter.as_deref() == Some(alice.client.user_id())
                    && invite.name.as_deref() == Some("other")),
            "{events:?}"
        );
        assert!(bob.events().await.is_empty());
        server.forget_sliding_sync(bob.client.user_id(), bob.client.device_id());
        assert!(
            bob.events().await.is_empty(),
            "it is told once, also where it is shown again"
        );
        bob.client.join(other.id().as_str()).await.unwrap();
        other.send_text("welcome").await.unwrap();
        assert_eq!(bob.bodies().await, ["welcome"]);

        hold_keys_back(&server);
        edit_syncs(&server, |body| {
            if let Some(extensions) = body["extensions"]["to_device"].as_object_mut() {
                extensions.insert("events".to_owned(), json!([]));
            }
        });
        room.send_text("never read").await.unwrap();
        assert!(bob.events().await.is_empty());
        bobs_room.leave().await.unwrap();
        let events = bob.events().await;
        assert!(
            matches!(events.as_slice(), [Event::Lost(lost)] if lost.because == LostBecause::LeftRoom),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn a_sliding_answer_that_cannot_be_read_loses_nothing() {
    let unreadable = |part: &'static str, value: Value| {
        move |body: &mut Value| {
            if let Some(found) = body.pointer_mut(part) {
                *found = value.clone();
            }
        }
    };
    for (part, code) in [
        ("/pos", "malformed_sync"),
        ("/rooms", "malformed_sync"),
        ("/extensions/to_device", "malformed_sync"),
        ("/extensions/to_device/next_batch", "malformed_sync"),
    ] {
        let Pair { server, bob, room, .. } = sliding_pair().await;
        bob.events().await;
        room.send_text("kept").await.unwrap();
        edit_syncs(&server, unreadable(part, json!(7)));
        assert_eq!(
            bob.client.receive(Duration::ZERO).await.unwrap_err().code(),
            code,
            "{part}"
        );
        let bob = bob.kill_and_open().await;
        server.behave();
        assert_eq!(bob.bodies().await, ["kept"], "{part}");
    }
    // One room, or who has other devices: the rest is taken, and what is missing is asked for.
    let Pair { server, bob, room, .. } = sliding_pair().await;
    bob.events().await;
    room.send_text("asked for").await.unwrap();
    edit_syncs(&server, |body| {
        for room in body["rooms"]
            .as_object_mut()
            .into_iter()
            .flat_map(|rooms| rooms.values_mut())
        {
            room["timeline"] = json!(7);
        }
    });
    assert_eq!(bob.bodies().await, ["asked for"]);
}

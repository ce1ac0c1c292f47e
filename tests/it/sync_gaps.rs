//! What a sync leaves out: asked for, reported, and never passed over. Rows SY of the catalogue about gaps.

use std::time::Duration;

use mx_e2ee::{DeviceOutcome, Event};
use mx_test_homeserver::Fault;
use serde_json::json;

use crate::{
    edits::edit_syncs,
    sync_answers::{bodies, requests},
    world::{Device, Pair, both, pair},
};

#[tokio::test]
async fn sy_01_a_gap_that_stays_is_reported_and_costs_a_new_key() {
    let Pair {
        server,
        bob,
        room,
        bobs_room,
        ..
    } = pair().await;
    let first = bobs_room.send_text("before").await.unwrap();
    bob.events().await;
    for number in 0..101 {
        room.send_text(format!("{number}")).await.unwrap();
    }
    let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no history for you"}"#;
    server.fault(Fault::status("/messages", 403, refusal));
    let asked = requests(&server, "/members", "@bob:localhost");
    let events = bob.events().await;
    assert!(matches!(&events[0], Event::Gap(gap) if gap.room_id == room.id()));
    assert_eq!(bodies(&events).len(), 100);
    let after = bobs_room.send_text("after").await.unwrap();
    assert!(
        after.new_session && after.session_id != first.session_id,
        "somebody may have left"
    );
    assert_eq!(requests(&server, "/members", "@bob:localhost"), asked + 1);
}

#[tokio::test]
async fn sy_01_a_gap_that_is_filled_costs_no_new_key_unless_somebody_left() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } in both().await
    {
        let carol = Device::new(&server, "carol").await;
        room.invite(carol.client.user_id()).await.unwrap();
        let carols_room = carol.client.join(room.id().as_str()).await.unwrap();
        // A room that is shown for the first time costs a key: what was before it is not known.
        bob.events().await;
        let first = bobs_room.send_text("before").await.unwrap();
        bob.events().await;
        for number in 0..101 {
            room.send_text(format!("{number}")).await.unwrap();
        }
        assert_eq!(bodies(&bob.events().await).len(), 101);
        let second = bobs_room.send_text("nobody left").await.unwrap();
        assert_eq!(second.session_id, first.session_id);

        // She leaves and comes back before bob looks.
        carols_room.leave().await.unwrap();
        room.invite(carol.client.user_id()).await.unwrap();
        carol.client.join(room.id().as_str()).await.unwrap();
        for number in 0..101 {
            room.send_text(format!("{number}")).await.unwrap();
        }
        bob.events().await;
        let third = bobs_room.send_text("somebody left").await.unwrap();
        assert_ne!(
            third.session_id, first.session_id,
            "what was said meanwhile is not hers to read"
        );
        drop(alice);
    }
}

#[tokio::test]
async fn sy_04_one_malformed_room_hides_neither_keys_nor_other_rooms() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let other = alice
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    bob.client.join(other.id().as_str()).await.unwrap();
    bob.events().await;
    room.send_text("in the broken room").await.unwrap();
    other.send_text("in the other").await.unwrap();
    let broken = room.id().to_owned();
    edit_syncs(&server, move |body| {
        let pointer = body
            .pointer_mut("/rooms/join")
            .and_then(|rooms| rooms.get_mut(broken.as_str()));
        if let Some(room) = pointer {
            *room = json!({"timeline": {"events": 7}, "state": "x"});
        }
    });
    let summary = bob.client.orchestrator().sync(Duration::ZERO).await.unwrap();
    assert!(summary.unreadable.iter().any(|part| part == room.id().as_str()));
    let events = bob.events().await;
    let mut read = bodies(&events);
    read.sort_unstable();
    assert_eq!(
        read,
        ["in the broken room", "in the other"],
        "its events are asked for, page by page"
    );
    // And when they are refused: said, not passed over.
    room.send_text("refused").await.unwrap();
    server.fault(Fault::status(
        "/messages",
        403,
        r#"{"errcode":"M_FORBIDDEN","error":"no"}"#,
    ));
    let events = bob.events().await;
    assert!(
        matches!(events.as_slice(), [Event::Gap(gap)] if gap.room_id == room.id()),
        "{events:?}"
    );
}

#[tokio::test]
async fn sy_09_unreadable_device_lists_are_asked_for_and_else_everybody_is() {
    for changes_fail in [false, true] {
        let Pair {
            server,
            bob,
            room,
            bobs_room,
            ..
        } = pair().await;
        bobs_room.send_text("to one device").await.unwrap();
        let second = Device::new(&server, "alice").await;
        edit_syncs(&server, |body| {
            if body.get("device_lists").is_some() {
                body["device_lists"] = json!([1, 2]);
            }
        });
        if changes_fail {
            server.fault(Fault::status("/keys/changes", 500, "{}").times(100));
        }
        bob.client.sync().await.unwrap();
        server.behave();
        assert!(requests(&server, "/keys/changes", "@bob:localhost") > 0);
        let receipt = bobs_room.send_text("to both").await.unwrap();
        let reached = |device: &Device| {
            receipt.devices.iter().any(|of| {
                of.device_id == device.client.device_id()
                    && matches!(of.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad)
            })
        };
        assert!(reached(&second), "the new device was found: {receipt:?}");
        drop(room);
    }
}

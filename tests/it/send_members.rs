//! Everybody who is in the room, and nobody else. Rows SN-14, SN-21 to SN-24 of the catalogue about members.

use std::collections::BTreeSet;

use mx_e2ee::{Error, RotationReason, Warning, orchestrator};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::{OwnedUserId, user_id};
use serde_json::{Value, json};

use crate::{
    edits::{edit_syncs, edit_timelines},
    keys_cast::Cast,
    send_rotation::{joined, outcome_of},
    send_state::set_state,
    sync_answers::requests,
};

const ALICE: &str = "@alice:localhost";

fn users(names: &[&str]) -> BTreeSet<OwnedUserId> {
    names.iter().map(|name| (*name).try_into().unwrap()).collect()
}

/// From now on, change the list of members in every answer to `/members`.
fn edit_members(cast: &Cast, edit: impl Fn(&mut Vec<Value>) + Send + Sync + 'static) {
    cast.rewrite("/members", move |body| {
        if let Some(Value::Array(chunk)) = body.get_mut("chunk") {
            edit(chunk);
        }
    });
}

#[tokio::test]
async fn sn_14_invited_people_have_the_key_where_history_is_theirs() {
    for (visibility, reads) in [
        ("shared", true),
        ("invited", true),
        ("world_readable", true),
        ("joined", false),
    ] {
        let cast = Cast::acquainted().await;
        let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
        carol.publish();
        cast.room.invite(carol.user()).await.unwrap();
        let content = json!({"history_visibility": visibility});
        set_state(&cast, "m.room.history_visibility", "", &content);
        cast.sync().await;
        let receipt = cast.send("while invited").await;
        assert_eq!(outcome_of(&receipt, "CDEV").is_some(), reads, "{visibility}");
        let changed = (visibility != "shared").then_some(RotationReason::VisibilityChanged);
        assert_eq!(receipt.rotation, changed, "{visibility}");
        assert_eq!(receipt.recipients_added.len(), usize::from(reads), "{visibility}");
        carol.join(cast.room.id());
        cast.sync().await;
        let receipt = cast.send("while joined").await;
        assert_eq!((receipt.rotation, receipt.readable_by()), (None, 2), "{visibility}");
        let read = cast.read_by(&mut carol);
        if reads {
            assert_eq!(read, ["while invited", "while joined"], "{visibility}");
        } else {
            assert_eq!(read, ["while joined"], "{visibility}");
        }
    }
}

#[tokio::test]
async fn sn_14_who_declines_an_invitation_reads_nothing_after() {
    let cast = Cast::acquainted().await;
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    cast.room.invite(carol.user()).await.unwrap();
    cast.sync().await;
    cast.send("while invited").await;
    carol.ask("POST", &format!("/rooms/{}/leave", cast.room.id()), &json!({}));
    cast.sync().await;
    let after = cast.send("after").await;
    assert_eq!(after.rotation, Some(RotationReason::MemberLeft));
    assert_eq!(cast.read_by(&mut carol), ["while invited"]);
}

#[tokio::test]
async fn sn_21_members_whom_no_sync_showed_are_recipients() {
    let cast = Cast::acquainted().await;
    let mut crowd = Vec::new();
    for number in 0..50 {
        let mut peer = EvilPeer::new(&cast.server, &format!("member{number:02}"), &format!("DEV{number:02}"));
        peer.publish();
        cast.room.invite(peer.user()).await.unwrap();
        peer.join(cast.room.id());
        crowd.push(peer);
    }
    // A sync that shows none of them: a short timeline, and members as far as they speak.
    edit_syncs(&cast.server, |body| {
        let rooms = body.pointer_mut("/rooms/join").and_then(Value::as_object_mut);
        for room in rooms.into_iter().flat_map(|rooms| rooms.values_mut()) {
            room["timeline"]["limited"] = true.into();
            for section in ["/state/events", "/timeline/events"] {
                if let Some(Value::Array(events)) = room.pointer_mut(section) {
                    events.retain(|event| event["type"] != "m.room.member");
                }
            }
        }
    });
    cast.rewrite("/messages", |body| body["chunk"] = json!([]));
    cast.sync().await;
    cast.server.behave();
    let asked = requests(&cast.server, "/members", ALICE);
    let receipt = cast.send("to all").await;
    assert_eq!(receipt.readable_by(), 51);
    assert_eq!(receipt.recipients_added.len(), 50);
    assert_eq!(
        requests(&cast.server, "/members", ALICE),
        asked + 1,
        "the list was asked for"
    );
    for peer in &mut crowd {
        assert_eq!(cast.read_by(peer), ["to all"], "{:?}", peer.user());
    }
    let receipt = cast.send("again").await;
    assert_eq!(receipt.readable_by(), 51);
    assert_eq!(requests(&cast.server, "/members", ALICE), asked + 1, "and is kept");
}

#[tokio::test]
async fn sn_22_a_list_of_members_that_may_leave_somebody_out_refuses_the_send() {
    let mut cast = Cast::acquainted().await;
    let chunk = |member: Value| json!({"chunk": [member]}).to_string();
    let member = |key: Value, content: Value| json!({"type": "m.room.member", "state_key": key, "content": content});
    let join = json!({"membership": "join"});
    for fault in [
        Fault::status("/members", 500, r#"{"errcode":"M_UNKNOWN","error":"oh"}"#),
        Fault::status("/members", 502, "<html>"),
        Fault::status("/members", 429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slowly"}"#),
        Fault::drop_before("/members"),
        Fault::drop_after("/members"),
        Fault::truncate("/members", 40),
        Fault::body("/members", "{}"),
        Fault::body("/members", r#"{"chunk":null}"#),
        Fault::body("/members", r#"{"chunk":{}}"#),
        Fault::body("/members", r#"{"chunk":[7]}"#),
        Fault::body("/members", &chunk(member(json!("@carol:localhost"), json!({})))),
        Fault::body(
            "/members",
            &chunk(member(json!("@carol:localhost"), json!({"membership": 7}))),
        ),
        Fault::body("/members", &chunk(member(json!(7), join.clone()))),
        Fault::body("/members", &chunk(member(json!("carol"), join.clone()))),
    ] {
        cast = cast.reopen().await;
        let what = format!("{fault:?}");
        cast.server.fault(fault);
        match cast.refused().await {
            Error::Orchestrator(orchestrator::Error::MembersIncomplete { room, .. }) => {
                assert_eq!(room, cast.room.id(), "{what}");
            }
            other => unreachable!("{what}: {other:?}"),
        }
        assert_eq!(cast.send("now").await.readable_by(), 1, "{what}");
        // That it was confirmed is noted with the next commit: a process that was killed before would put it again.
        cast.sync().await;
    }
    // Who may not see the list is not in the room.
    cast = cast.reopen().await;
    let refusal = r#"{"errcode":"M_FORBIDDEN","error":"no"}"#;
    cast.server.fault(Fault::status("/members", 403, refusal));
    assert_eq!(cast.refused().await.code(), "not_in_room");
    // Whom no id names and who has left is nobody.
    cast.server.behave();
    edit_members(&cast, move |chunk| {
        chunk.push(member(json!("nobody"), json!({"membership": "leave"})))
    });
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn sn_22_a_member_event_of_a_sync_that_cannot_be_read_hides_nobody() {
    let cast = Cast::acquainted().await;
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    edit_timelines(&cast.server, |event| {
        if event["state_key"] == "@carol:localhost" {
            event["content"] = json!({"membership": ["join"]});
        }
    });
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.sync().await;
    let asked = requests(&cast.server, "/members", ALICE);
    let receipt = cast.send("to both").await;
    assert_eq!(requests(&cast.server, "/members", ALICE), asked + 1);
    assert!(outcome_of(&receipt, "CDEV").is_some());
    assert_eq!(cast.read_by(&mut carol), ["to both"]);
}

#[tokio::test]
async fn sn_23_a_list_that_leaves_out_a_known_member_is_completed_and_reported() {
    let cast = Cast::acquainted().await;
    let mut carol = joined(&cast, "carol").await;
    let mut gone = joined(&cast, "gone").await;
    cast.send("to all three").await;
    gone.ask("POST", &format!("/rooms/{}/leave", cast.room.id()), &json!({}));
    cast.sync().await;
    // The process starts again, so that the list is asked for; it leaves out one who is there and one who left.
    let cast = cast.reopen().await;
    edit_members(&cast, |chunk| {
        chunk.retain(|event| event["state_key"] != "@carol:localhost" && event["state_key"] != "@gone:localhost");
    });
    let receipt = cast.send("to two").await;
    let missing = users(&["@carol:localhost"]);
    assert_eq!(receipt.warnings, [Warning::MembershipDisagrees { users: missing }]);
    assert_eq!(receipt.rotation, Some(RotationReason::MemberLeft));
    assert!(outcome_of(&receipt, "CAROLDEV").is_some() && outcome_of(&receipt, "GONEDEV").is_none());
    assert_eq!(cast.read_by(&mut carol), ["to all three", "to two"]);
    assert_eq!(cast.read_by(&mut gone), ["to all three"]);
    // An honest list ends it, and so does a sync that shows her leaving.
    carol.ask("POST", &format!("/rooms/{}/leave", cast.room.id()), &json!({}));
    cast.sync().await;
    let receipt = cast.send("to bob").await;
    assert_eq!((receipt.warnings.len(), receipt.readable_by()), (0, 1));
}

#[tokio::test]
async fn sn_23_whom_only_a_sync_showed_counts_too() {
    let cast = Cast::acquainted().await;
    edit_members(&cast, |chunk| {
        chunk.retain(|event| event["state_key"] != "@carol:localhost")
    });
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.sync().await;
    // A gap that shows nobody makes the list incomplete.
    edit_syncs(&cast.server, |body| {
        let rooms = body.pointer_mut("/rooms/join").and_then(Value::as_object_mut);
        for room in rooms.into_iter().flat_map(|rooms| rooms.values_mut()) {
            room["timeline"]["limited"] = true.into();
        }
    });
    let room = cast.room.id().to_owned();
    carol.send_event(&room, "org.example.note", &json!({}));
    cast.sync().await;
    let receipt = cast.send("to both").await;
    assert_eq!(outcome_of(&receipt, "CDEV"), Some(mx_e2ee::DeviceOutcome::Reached));
    assert_eq!(
        receipt.warnings,
        [Warning::MembershipDisagrees {
            users: users(&["@carol:localhost"])
        }]
    );
    assert_eq!(cast.read_by(&mut carol), ["to both"]);
}

#[tokio::test]
async fn sn_24_a_member_whom_the_server_added_is_reported_and_a_list_refuses_them() {
    let mut cast = Cast::acquainted().await;
    let mut evil = joined(&cast, "evil").await;
    // The client names whom it may write to.
    cast = cast
        .reopen_with(|options| options.allowed_recipients = Some(users(&["@bob:localhost"])))
        .await;
    match cast.refused().await {
        Error::Orchestrator(orchestrator::Error::RecipientNotAllowed { room, users: named }) => {
            assert_eq!(room, cast.room.id());
            assert_eq!(named, users(&["@evil:localhost"]));
        }
        other => unreachable!("{other:?}"),
    }
    // Or the room does, which lasts.
    cast = cast.reopen().await;
    let mut policy = cast.room.policy().await.unwrap();
    policy.allowed = Some(users(&["@bob:localhost"]));
    cast.room.set_policy(policy.clone()).await.unwrap();
    cast = cast.reopen().await;
    assert_eq!(cast.room.policy().await.unwrap(), policy);
    let error = cast.refused().await;
    assert_eq!(error.code(), "recipient_not_allowed");
    assert!(error.to_string().contains("@evil:localhost"), "{error}");
    // By default a stranger is reported.
    cast.room.set_policy(mx_e2ee::RoomPolicy::default()).await.unwrap();
    let receipt = cast.send("with a stranger").await;
    assert_eq!(receipt.recipients_added, [user_id!("@evil:localhost")]);
    assert!(cast.send("again").await.recipients_added.is_empty());
    // And once the list refuses, the room goes on without them.
    policy.allowed = Some(users(&["@bob:localhost"]));
    cast.room.set_policy(policy).await.unwrap();
    assert_eq!(cast.refused().await.code(), "recipient_not_allowed");
    evil.ask("POST", &format!("/rooms/{}/leave", cast.room.id()), &json!({}));
    cast.sync().await;
    let alone = cast.send("without").await;
    assert_eq!(
        (alone.rotation, alone.readable_by()),
        (Some(RotationReason::MemberLeft), 1)
    );
    assert_eq!(cast.read_by(&mut evil), ["with a stranger", "again"]);
}

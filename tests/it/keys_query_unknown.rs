//! Unknown is not empty (rows KQ-22 to KQ-31): a server that failed, a user left out, a question under way.

use std::collections::BTreeSet;

use mx_e2ee::{DeviceOutcome, Error, Event, ReaderTrust, Trust, orchestrator};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::owned_user_id;
use serde_json::{Value, json};

use crate::{
    keys_cast::{Cast, outcomes},
    keys_gate::Gate,
};

/// A send is refused because devices are unknown: whose, and which servers are to blame.
async fn unknown(cast: &Cast) -> (Vec<String>, Vec<String>) {
    match cast.refused().await {
        Error::Orchestrator(orchestrator::Error::RecipientsUnknown { users, servers, .. }) => (
            users.iter().map(ToString::to_string).collect(),
            servers.iter().map(ToString::to_string).collect(),
        ),
        other => unreachable!("{other:?}"),
    }
}

fn hide(body: &mut Value, user: &str, server: &str) {
    let Some(keys) = body["device_keys"].as_object_mut() else {
        return;
    };
    if keys.remove(user).is_some() {
        body["failures"] = json!({server: {"status": 503}});
    }
}

async fn far_away() -> Cast {
    let mut cast = Cast::fresh_with("@bob:hs2", |server| server.transport()).await;
    cast.bob.publish();
    cast.rewrite("/keys/query", |body| hide(body, "@bob:hs2", "hs2"));
    cast
}

#[tokio::test]
async fn kq_22_a_server_that_failed_refuses_the_send_by_name() {
    let cast = far_away().await;
    assert_eq!(
        unknown(&cast).await,
        (vec!["@bob:hs2".to_owned()], vec!["hs2".to_owned()])
    );
    assert!(cast.is_dirty(cast.bob.user()).await);
    let cast = cast.reopen().await;
    assert!(cast.is_dirty(cast.bob.user()).await, "it is on the disk");
    cast.server.behave();
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

/// No devices, and devices that are not known, are two things in a list of them, too.
#[tokio::test]
async fn kq_22_devices_that_are_not_known_are_not_listed_as_none() {
    let cast = far_away().await;
    let alice = &cast.alice;
    let bob = cast.bob.user();
    assert_eq!(alice.devices(bob).await.unwrap_err().code(), "devices_unknown");
    cast.server.behave();
    let listed = alice.devices(bob).await.unwrap();
    let device = &listed.devices[0];
    assert_eq!(device.device_id, cast.bob.device());
    assert_eq!(device.trust, ReaderTrust::Unsigned);
    assert!(
        device.ed25519.is_some() && device.shown && !device.own && device.unusable.is_none(),
        "{device:?}"
    );
    let ours = alice.devices(alice.user_id()).await.unwrap();
    assert!(
        ours.devices
            .iter()
            .any(|device| device.own && device.device_id == alice.device_id())
    );
}

#[tokio::test]
async fn kq_22_a_server_that_failed_and_shows_nothing_is_not_empty() {
    let mut cast = Cast::fresh_with("@bob:hs2", |server| server.transport()).await;
    cast.bob.publish();
    cast.rewrite("/keys/query", |body| {
        if body["device_keys"]["@bob:hs2"].is_object() {
            body["device_keys"]["@bob:hs2"] = json!({});
            body["failures"] = json!({"hs2": {}});
        }
    });
    assert_eq!(unknown(&cast).await.1, ["hs2"]);
    assert!(cast.is_dirty(cast.bob.user()).await);
}

#[tokio::test]
async fn kq_23_the_engines_backoff_is_no_evidence_and_ends_when_the_server_answers() {
    let cast = far_away().await;
    let first = unknown(&cast).await;
    let mark = cast.mark().await;
    assert_eq!(unknown(&cast).await, first, "the engine does not even ask any more");
    assert_eq!(cast.requests(&mark, "POST", "/keys/query").len(), 1, "we do");
    // The engine's backoff lasts; the server is back.
    cast.server.behave();
    let receipt = cast.send("now").await;
    assert_eq!(receipt.readable_by(), 1);
    assert!(!cast.is_dirty(cast.bob.user()).await);
}

#[tokio::test]
async fn kq_24_our_own_server_in_failures_is_a_failure_of_the_whole_answer() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    // Everybody is in the answer, and it is worth nothing.
    cast.rewrite("/keys/query", |body| {
        body["failures"] = json!({"localhost": {"status": 500}})
    });
    let found = unknown(&cast).await;
    assert_eq!(found, (vec!["@bob:localhost".to_owned()], vec!["localhost".to_owned()]));
    assert!(!cast.knows(cast.bob.user(), cast.bob.device()).await);
    cast.server.behave();
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn kq_25_who_is_left_out_of_the_answer_is_unknown() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    cast.rewrite("/keys/query", |body| {
        body["device_keys"].as_object_mut().unwrap().remove("@bob:localhost");
    });
    assert_eq!(unknown(&cast).await, (vec!["@bob:localhost".to_owned()], vec![]));
}

#[tokio::test]
async fn kq_26_who_has_no_device_is_named_and_the_others_are_served() {
    let cast = Cast::acquainted().await;
    let carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.sync().await;
    let receipt = cast.send("x").await;
    assert_eq!(*receipt.users_without_devices, [carol.user()]);
    assert_eq!(receipt.readable_by(), 1);
}

#[tokio::test]
async fn kq_26_when_nobody_else_has_a_device_the_send_is_refused() {
    let cast = Cast::fresh().await;
    // A second device of our own does not make it a conversation.
    EvilPeer::new(&cast.server, "alice", "ALICE2").publish();
    cast.sync().await;
    match cast.refused().await {
        Error::Orchestrator(orchestrator::Error::NoUsableRecipients {
            users_without_devices, ..
        }) => assert_eq!(users_without_devices, [cast.bob.user()]),
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn kq_27_who_was_not_asked_about_is_not_taken_from_an_answer() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish();
    let keys = carol.device_keys();
    cast.rewrite("/keys/query", move |body| {
        body["device_keys"]["@carol:localhost"] = json!({"CDEV": keys})
    });
    cast.sync().await;
    cast.send("x").await;
    assert!(!cast.knows(carol.user(), carol.device()).await);
    let tracked = {
        use matrix_sdk_crypto::store::CryptoStore;
        cast.device().store().load_tracked_users().await.unwrap()
    };
    assert!(tracked.iter().all(|tracked| tracked.user_id != carol.user()));
}

#[tokio::test]
async fn kq_27_our_own_device_with_other_keys_is_seen_in_any_answer() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let (ours, keys) = (cast.alice.device_id().to_string(), cast.bob.device_keys());
    cast.rewrite("/keys/query", move |body| {
        body["device_keys"]["@alice:localhost"] = json!({&ours: keys});
    });
    // The question of this send is about bob; what the answer shows ends it, too.
    let refused = cast.room.send_text("x").await.unwrap_err();
    assert_eq!(refused.code(), "device_keys_mismatch");
    assert!(
        cast.server
            .timeline(cast.room.id())
            .iter()
            .all(|event| event["type"] != "m.room.encrypted")
    );
    assert_eq!(cast.alice.sync().await.unwrap_err().code(), "device_keys_mismatch");
}

#[tokio::test]
async fn kq_28_a_change_while_the_question_is_under_way_is_asked_about_again() {
    let gate = Gate::new("/keys/query");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    cast.send("hello").await;
    // Another device, and the question about it fails at first.
    EvilPeer::new(&cast.server, "bob", "BDEV2").publish();
    cast.server.fault(Fault::status("/keys/query", 504, "{}"));
    cast.sync().await;
    assert!(cast.is_dirty(cast.bob.user()).await);
    gate.close();
    let mark = cast.mark().await;
    let alice = cast.alice.clone();
    let asking = tokio::spawn(async move { alice.publish_keys().await });
    gate.held(1).await;
    // The answer with two devices is on its way when a sync tells of a third.
    EvilPeer::new(&cast.server, "bob", "BDEV3").publish();
    let before = cast.next_batch().await;
    let alice = cast.alice.clone();
    let syncing = tokio::spawn(async move { alice.sync().await });
    while cast.next_batch().await == before {
        tokio::task::yield_now().await;
    }
    gate.open();
    asking.await.unwrap().unwrap();
    syncing.await.unwrap().unwrap();
    let questions = cast.requests(&mark, "POST", "/keys/query");
    let about_bob = questions
        .iter()
        .filter(|question| question.request_body["device_keys"]["@bob:localhost"].is_array());
    assert_eq!(about_bob.count(), 2);
    let receipt = cast.send("all three").await;
    let expected = [
        ("BDEV".to_owned(), DeviceOutcome::AlreadyHad),
        ("BDEV2".to_owned(), DeviceOutcome::Reached),
        ("BDEV3".to_owned(), DeviceOutcome::Reached),
    ];
    assert_eq!(outcomes(&receipt), expected);
}

#[tokio::test]
async fn kq_29_one_question_is_under_way_at_a_time() {
    let gate = Gate::new("/keys/query");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    let second = cast
        .alice
        .create_room(None, &[cast.bob.user().to_owned()])
        .await
        .unwrap();
    cast.bob.join(second.id());
    cast.sync().await;
    EvilPeer::new(&cast.server, "bob", "BDEV2").publish();
    gate.close();
    let mut tasks = Vec::new();
    for room in [cast.room.clone(), second] {
        tasks.push(tokio::spawn(async move {
            room.send_text("x").await.map(|receipt| receipt.readable_by())
        }));
    }
    for _ in 0..2 {
        let alice = cast.alice.clone();
        tasks.push(tokio::spawn(async move { alice.publish_keys().await.map(|()| 2) }));
    }
    gate.held(1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 2);
    }
    assert_eq!(gate.most_at_once(), 1);
}

#[tokio::test]
async fn kq_30_a_question_without_an_answer_is_asked_again_after_a_restart() {
    let gate = Gate::new("/keys/query");
    let mut cast = Cast::fresh_with("bob", |server| gate.around(server.transport())).await;
    cast.bob.publish();
    gate.close();
    let room = cast.room.clone();
    let asking = tokio::spawn(async move { room.send_text("never").await.map(|_| ()) });
    gate.held(1).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    let cast = cast.reopen().await;
    assert!(cast.is_dirty(cast.bob.user()).await);
    let mark = cast.mark().await;
    assert_eq!(cast.send("x").await.readable_by(), 1);
    assert!(!cast.requests(&mark, "POST", "/keys/query").is_empty());
}

#[tokio::test]
async fn kq_31_messages_are_read_while_questions_fail() {
    let cast = Cast::fresh().await;
    let mut bob = cast.bob.clone();
    bob.publish();
    let olm = bob.olm_session_with(cast.alice.user_id(), cast.alice.device_id());
    let mut session = bob.megolm_session(cast.room.id());
    bob.share_room_key(&olm, &session);
    bob.send_text(&mut session, "early");
    cast.server.fault(Fault::status("/keys/query", 504, "{}").times(1000));
    let trusts = |events: Vec<Event>| -> Vec<(String, Trust)> {
        let messages = events.into_iter().filter_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        });
        messages
            .map(|message| {
                let body = message.body().unwrap_or_default().to_owned();
                (body, message.encryption.unwrap().trust)
            })
            .collect()
    };
    assert_eq!(trusts(cast.events().await), [("early".to_owned(), Trust::Unknown)]);
    cast.server.behave();
    cast.sync().await;
    bob.send_text(&mut session, "late");
    assert_eq!(trusts(cast.events().await), [("late".to_owned(), Trust::Unsigned)]);
}

#[tokio::test]
async fn kq_36_more_users_than_a_question_takes_are_asked_about_in_parts() {
    let cast = Cast::fresh().await;
    let mut expected = BTreeSet::from([owned_user_id!("@alice:localhost"), cast.bob.user().to_owned()]);
    for number in 0..300 {
        let peer = EvilPeer::new(&cast.server, &format!("user{number}"), "DEV");
        cast.room.invite(peer.user()).await.unwrap();
        expected.insert(peer.user().to_owned());
    }
    let mut bob = cast.bob.clone();
    bob.publish();
    cast.sync().await;
    let receipt = cast.send("x").await;
    assert_eq!(receipt.users_without_devices.len(), 300);
    let mut asked = BTreeSet::new();
    for query in cast
        .server
        .log()
        .iter()
        .filter(|exchange| exchange.path.ends_with("/keys/query"))
    {
        let users = query.request_body["device_keys"].as_object().unwrap();
        assert!(users.len() <= 250);
        asked.extend(
            users
                .keys()
                .map(|user| ruma::OwnedUserId::try_from(user.as_str()).unwrap()),
        );
    }
    assert_eq!(asked, expected);
    for user in &expected {
        assert!(!cast.is_dirty(user).await, "{user}");
    }
}

//! The outbox: once, in order, and one room does not wait for another.

use std::{collections::BTreeSet, time::Duration};

use mx_e2ee::{Event, Room};
use mx_test_homeserver::{Exchange, Fault, Homeserver};
use ruma::RoomId;

use crate::world::{Device, Pair, pair};

const EVENT: &str = "/send/m.room.encrypted/";

/// Every attempt to put an event, as the homeserver saw it.
fn attempts(server: &Homeserver) -> Vec<Exchange> {
    let log = server.log();
    log.into_iter()
        .filter(|exchange| exchange.path.contains(EVENT))
        .collect()
}

fn events(server: &Homeserver, room: &RoomId) -> usize {
    let timeline = server.timeline(room);
    let encrypted = timeline.iter().filter(|event| event["type"] == "m.room.encrypted");
    encrypted.count()
}

/// Another room with the same two.
async fn another_room(alice: &Device, bob: &Device) -> Room {
    let room = alice
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    bob.client.join(room.id().as_str()).await.unwrap();
    alice.client.sync().await.unwrap();
    room
}

#[tokio::test]
async fn sn_31_an_event_whose_answer_is_lost_is_put_again_as_it_is_and_is_there_once() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.fault(Fault::drop_after(EVENT));
    let error = room.send_text("once").await.unwrap_err();
    assert_eq!(error.code(), "send_pending");
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 1);
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 0);
    let attempts = attempts(&server);
    assert_eq!(attempts.len(), 2);
    let (first, again) = (&attempts[0], &attempts[1]);
    assert_eq!((&first.path, &first.request_body), (&again.path, &again.request_body));
    assert_eq!(events(&server, room.id()), 1);
    assert_eq!(bob.bodies().await, ["once"]);
}

#[tokio::test]
async fn a_restart_and_a_sync_send_what_a_killed_process_left() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.fault(Fault::drop_before(EVENT));
    let error = room.send_text("late").await.unwrap_err();
    assert_eq!(error.code(), "send_pending");
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    alice.client.sync().await.unwrap();
    let [read] = &bob.messages().await[..] else {
        panic!("one")
    };
    assert_eq!(read.body(), Some("late"));
    let told = alice.events().await;
    let [Event::Sent(sent)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((&sent.room_id, &sent.event_id), (&room_id, &read.event_id));
    assert!(error.to_string().contains(sent.transaction_id.as_str()));
    assert_eq!(sent.readable_by, None, "another process knew");
    // What the homeserver has leaves the outbox with the next unit of work.
    alice.client.sync().await.unwrap();
    let before = attempts(&server).len();
    let alice = alice.kill_and_open().await;
    alice.client.sync().await.unwrap();
    assert_eq!(attempts(&server).len(), before, "it is sent, and forgotten");
}

#[tokio::test(start_paused = true)]
async fn rooms_do_not_wait_for_each_other() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let other = another_room(&alice, &bob).await;
    room.send_text("one").await.unwrap();
    let way = format!(
        "/rooms/{}{EVENT}",
        room.id().as_str().replace('!', "%21").replace(':', "%3A")
    );
    let way = if attempts(&server)[0].path.contains(&way) {
        way
    } else {
        format!("/rooms/{}{EVENT}", room.id())
    };
    server.fault(Fault::delay(&way, Duration::from_secs(40)));
    let slow = tokio::spawn({
        let room = room.clone();
        async move { room.send_text("slow").await }
    });
    let before = server.requests();
    while server.requests() == before {
        tokio::task::yield_now().await;
    }
    other.send_text("quick").await.unwrap();
    assert!(!slow.is_finished(), "the other room is still waiting");
    // A room with an event that is not confirmed stops itself only, too.
    slow.await.unwrap().unwrap();
    server.fault(Fault::drop_before(&way).times(2));
    assert_eq!(room.send_text("lost").await.unwrap_err().code(), "send_pending");
    other.send_text("still quick").await.unwrap();
    assert_eq!(room.send_text("no").await.unwrap_err().code(), "earlier_send_pending");
    room.send_text("last").await.unwrap();
    let read = bob.bodies().await;
    let of = |texts: &[&str]| -> Vec<String> {
        let mine = read.iter().filter(|text| texts.contains(&text.as_str()));
        mine.cloned().collect()
    };
    assert_eq!(
        of(&["one", "slow", "lost", "no", "last"]),
        ["one", "slow", "lost", "last"]
    );
    assert_eq!(of(&["quick", "still quick"]), ["quick", "still quick"]);
    assert_eq!(read.len(), 6);
}

#[tokio::test]
async fn what_waits_behind_an_unconfirmed_event_is_sent_away_at_once_and_nothing_of_it_is_kept() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_text("zero").await.unwrap();
    let before = attempts(&server).len();
    server.fault(Fault::drop_before(EVENT));
    let sends = (0..20).map(|number| {
        let room = room.clone();
        async move { room.send_text(format!("{number}")).await }
    });
    let ended = futures_util::future::join_all(sends).await;
    let codes: Vec<&str> = ended
        .iter()
        .map(|ended| ended.as_ref().map_or_else(mx_e2ee::Error::code, |_| "ok"))
        .collect();
    assert_eq!(codes[0], "send_pending");
    assert!(
        codes[1..].iter().all(|code| *code == "earlier_send_pending"),
        "{codes:?}"
    );
    assert_eq!(attempts(&server).len(), before + 1, "one attempt for all of them");
    drop((room, ended));
    let alice = alice.kill_and_open().await;
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 1);
    assert_eq!(bob.bodies().await, ["zero", "0"]);
}

#[tokio::test]
async fn an_event_that_is_refused_for_good_is_told_and_the_later_ones_go_on() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_text("one").await.unwrap();
    let refusal = || Fault::status(EVENT, 403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#);
    server.fault(refusal());
    assert_eq!(room.send_text("refused").await.unwrap_err().code(), "forbidden");
    room.send_text("two").await.unwrap();
    // Nobody waits for this one when it is refused.
    server.fault(Fault::drop_before(EVENT));
    let error = room.send_text("refused later").await.unwrap_err();
    assert_eq!(error.code(), "send_pending");
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    server.fault(refusal());
    alice.client.room(&room_id).send_text("three").await.unwrap();
    let told = alice.events().await;
    let [Event::SendRefused(refused)] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((refused.status, refused.errcode.as_deref()), (403, Some("M_FORBIDDEN")));
    assert_eq!(refused.room_id, room_id);
    assert!(error.to_string().contains(refused.transaction_id.as_str()));
    let alice = alice.kill_and_open().await;
    assert!(alice.events().await.is_empty());
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 0);
    assert_eq!(bob.bodies().await, ["one", "two", "three"]);
    let distinct: BTreeSet<String> = attempts(&server).into_iter().map(|attempt| attempt.path).collect();
    assert_eq!(distinct.len(), 5);
}

#[tokio::test]
async fn the_page_of_a_proxy_is_no_refusal() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.fault(Fault::status(EVENT, 403, "<html>blocked</html>"));
    assert_eq!(room.send_text("kept").await.unwrap_err().code(), "send_pending");
    assert_eq!(alice.client.orchestrator().flush_outbox().await.unwrap(), 1);
    assert_eq!(bob.bodies().await, ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn sn_37_what_was_never_on_the_wire_is_encrypted_again_for_those_who_are_there_now() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let carol = Device::new(&server, "carol").await;
    room.invite(carol.client.user_id()).await.unwrap();
    carol.client.join(room.id().as_str()).await.unwrap();
    alice.client.sync().await.unwrap();
    let first = room.send_text("all three").await.unwrap();
    // Three are encrypted together, and the first of them is long on its way.
    server.fault(Fault::delay(EVENT, Duration::from_secs(20)));
    let sends = ["one", "two", "three"].map(|text| {
        let room = room.clone();
        tokio::spawn(async move { room.send_text(text).await.unwrap() })
    });
    let before = server.requests();
    while server.requests() == before {
        tokio::task::yield_now().await;
    }
    carol.client.room(room.id()).leave().await.unwrap();
    alice.client.sync().await.unwrap();
    let mut receipts = Vec::new();
    for send in sends {
        receipts.push(send.await.unwrap());
    }
    assert_eq!(receipts[0].session_id, first.session_id, "it was on the wire");
    for receipt in &receipts[1..] {
        assert_ne!(receipt.session_id, first.session_id, "who left takes no key along");
        assert_eq!(receipt.readable_by(), 1);
    }
    assert_eq!(bob.bodies().await, ["all three", "one", "two", "three"]);
    assert_eq!(attempts(&server).len(), 4, "nothing else was put");
    drop(room);
    let alice = alice.kill_and_open().await;
    // What was confirmed a moment ago may be put once more; what was dropped is gone.
    alice.client.orchestrator().flush_outbox().await.unwrap();
    let distinct: BTreeSet<String> = attempts(&server).into_iter().map(|attempt| attempt.path).collect();
    assert_eq!(distinct.len(), 4, "nothing else is left");
}

#[tokio::test]
async fn relation_sender_key_and_device_are_on_the_outside_of_the_event() {
    let Pair {
        server, alice, room, ..
    } = pair().await;
    let relation = serde_json::json!({"rel_type": "m.thread", "event_id": "$root"});
    let content = serde_json::json!({"msgtype": "m.text", "body": "inside", "m.relates_to": relation});
    room.send("m.room.message", content).await.unwrap();
    let event = server.timeline(room.id()).pop().unwrap();
    let outside = &event["content"];
    assert_eq!(outside["m.relates_to"], relation);
    assert_eq!(outside["device_id"], alice.client.device_id().as_str());
    let keys = alice.client.key_status().await.unwrap();
    assert_eq!(outside["sender_key"].as_str(), Some(keys.curve25519.as_str()));
    assert!(outside.get("body").is_none());
}

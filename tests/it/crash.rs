//! Killed anywhere: nothing is lost, nothing happens twice, no index of a ratchet is used twice.

use std::{collections::BTreeSet, time::Duration};

use mx_crypto_store::backend::MemoryDisk;
use mx_test_homeserver::Fault;

use crate::world::{Pair, World, builder, pair};

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_sent_again_with_the_same_bytes() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    server.fault(Fault::drop_before("/send/m.room.encrypted/"));
    assert_eq!(room.send_text("once").await.unwrap_err().code(), "send_pending");
    // The one that waits goes first, and while it cannot, nothing else is taken.
    server.fault(Fault::drop_after("/send/m.room.encrypted/"));
    assert_eq!(
        room.send_text("not taken").await.unwrap_err().code(),
        "earlier_send_pending"
    );
    server.fault(Fault::drop_after("/send/m.room.encrypted/").nth(2));
    assert_eq!(room.send_text("twice put").await.unwrap_err().code(), "send_pending");
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    alice.client.room(&room_id).send_text("after").await.unwrap();
    assert_eq!(bob.bodies().await, ["once", "twice put", "after"]);
    let puts: Vec<_> = server
        .log()
        .into_iter()
        .filter(|exchange| exchange.path.contains("/send/m.room.encrypted/"))
        .collect();
    let distinct: BTreeSet<_> = puts
        .iter()
        .map(|put| (put.path.clone(), put.request_body.to_string()))
        .collect();
    let transactions: BTreeSet<_> = puts.iter().map(|put| put.path.clone()).collect();
    assert_eq!(distinct.len(), transactions.len(), "one transaction id, one ciphertext");
    assert_eq!(transactions.len(), 3);
    assert_eq!(
        server
            .timeline(&room_id)
            .iter()
            .filter(|event| event["type"] == "m.room.encrypted")
            .count(),
        3
    );
}

#[tokio::test]
async fn a_key_that_was_not_delivered_stops_its_event() {
    let Pair { server, bob, room, .. } = pair().await;
    server.fault(Fault::drop_before("/sendToDevice/"));
    assert_eq!(
        room.send_text("not yet").await.unwrap_err().code(),
        "key_share_incomplete"
    );
    assert!(
        !server
            .log()
            .iter()
            .any(|exchange| exchange.path.contains("/send/m.room.encrypted/"))
    );
    room.send_text("now").await.unwrap();
    assert_eq!(bob.bodies().await, ["now"]);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_and_what_was_does_not() {
    let Pair { bob, room, .. } = pair().await;
    room.send_text("one").await.unwrap();
    assert!(!bob.client.receive(Duration::ZERO).await.unwrap().is_empty());
    let bob = bob.kill_and_open().await;
    let bodies = bob.bodies().await;
    assert!(bodies.contains(&"one".to_owned()), "it was not acknowledged");
    let bob = bob.kill_and_open().await;
    assert!(bob.bodies().await.is_empty(), "it was acknowledged");
}

#[tokio::test]
async fn a_device_that_is_killed_after_every_message_misses_nothing() {
    let Pair { mut bob, room, .. } = pair().await;
    let mut read = Vec::new();
    for number in 0..5 {
        room.send_text(format!("{number}")).await.unwrap();
        bob.client.sync().await.unwrap();
        bob = bob.kill_and_open().await;
        read.extend(bob.bodies().await);
    }
    assert_eq!(read, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_send_whose_future_is_dropped_leaves_a_room_that_works() {
    let Pair { server, bob, room, .. } = pair().await;
    // Dropped after each number of turns: somewhere in every step of the send.
    for turns in [1_u32, 5, 20, 60, 150, 400] {
        let mut send = Box::pin(room.send_text(format!("dropped after {turns}")));
        for _ in 0..turns {
            if futures_util::poll!(&mut send).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(send);
    }
    room.send_text("last").await.unwrap();
    let read = bob.bodies().await;
    assert_eq!(read.last().map(String::as_str), Some("last"));
    let distinct: BTreeSet<&String> = read.iter().collect();
    assert_eq!(distinct.len(), read.len(), "nothing twice: {read:?}");
    let ciphertexts: Vec<String> = server
        .timeline(room.id())
        .iter()
        .filter_map(|event| Some(event["content"]["ciphertext"].as_str()?.to_owned()))
        .collect();
    let distinct: BTreeSet<&String> = ciphertexts.iter().collect();
    assert_eq!(distinct.len(), ciphertexts.len());
}

#[tokio::test]
async fn a_login_that_was_interrupted_before_its_keys_were_published_is_repeated() {
    let server = World::new();
    let user = server.register("alice", "password");
    let disk = MemoryDisk::new();
    server.fault(Fault::drop_before("/keys/upload"));
    let error = builder(&server, &disk).login("alice", "password").await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
    let client = builder(&server, &disk).login("alice", "password").await.unwrap();
    assert!(client.key_status().await.unwrap().published);
    assert_eq!(
        server.devices_of(&user),
        [client.device_id().as_str()],
        "the same device"
    );
}

/// Both speak before either has read: the first message makes each of them a session, and the next shares its key again,
/// from a later index on. Both keys come in one sync.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_shared_again_takes_nothing_away_from_the_first() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
        ..
    } = pair().await;
    room.send_text("one").await.unwrap();
    bobs_room.send_text("two").await.unwrap();
    alice.client.sync().await.unwrap();
    room.send_text("three").await.unwrap();
    let keys = server.to_device_of(bob.client.user_id(), bob.client.device_id());
    assert_eq!(keys.len(), 2, "the same key twice");
    assert_eq!(bob.bodies().await, ["one", "three"]);
}

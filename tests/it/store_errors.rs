//! A disk that fails at any operation while a sync is taken: the sync fails as a whole, and the next process has all of
//! it. Rows SY-07 and MG-34, as TD-42 in `td_store_error.rs`; the engine alone goes on (reference: engine, gap B4).

use std::time::Duration;

use mx_crypto_store::backend::BackendErrorKind;
use mx_e2ee::Event;
use mx_test_homeserver::{EvilPeer, Homeserver};
use ruma::OwnedRoomId;
use serde_json::json;

use crate::{
    crash_history::Parked,
    disks::{Moment, Operation, Plan, Point, Trouble},
    evil::{messages, text},
    world::World,
};

/// A device of ours on a disk, and a peer who has something for it.
struct Story {
    server: World,
    device: Parked,
    peer: EvilPeer,
    room: OwnedRoomId,
}

async fn story() -> Story {
    let server = World::new();
    let device = Parked::new("alice");
    server.register("alice", "password");
    let client = device.login(&server, &Plan::default()).await.unwrap();
    let mut peer = EvilPeer::new(&server, "bob", "BDEV");
    peer.publish();
    let room = client.create_room(None, &[peer.user().to_owned()]).await.unwrap();
    let id = room.id().to_owned();
    peer.join(&id);
    room.send_text("hello").await.unwrap();
    peer.receive();
    while !client.receive(Duration::ZERO).await.unwrap().is_empty() {}
    drop(room);
    client.close().await.unwrap();
    Story {
        server,
        device,
        peer,
        room: id,
    }
}

fn reads(operation: Operation, _: &str) -> bool {
    matches!(operation, Operation::Get | Operation::Scan)
}

async fn all(client: &mx_e2ee::Client) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            return read;
        }
        assert!(
            events.iter().all(|event| matches!(event, Event::Message(_))),
            "{events:?}"
        );
        let encrypted = messages(&events)
            .into_iter()
            .filter(|message| message.encryption.is_some());
        read.extend(encrypted.filter_map(|message| message.body().map(str::to_owned)));
    }
}

fn since(server: &Homeserver) -> Option<String> {
    let log = server.log();
    let last = log.iter().rev().find(|exchange| exchange.path.ends_with("/sync"))?;
    last.query
        .iter()
        .find(|(name, _)| name == "since")
        .map(|(_, token)| token.clone())
}

/// Let every read of a sync fail in turn. Returns how many there are.
async fn at_every_read(story: &Story, expected: &[String]) -> u64 {
    for nth in 1.. {
        let (server, device) = (story.server.fork(), story.device.copy());
        let plan = Plan::default();
        let client = device.open(&server, &plan).await.unwrap();
        plan.arm(Point {
            after: None,
            counts: reads,
            nth,
            moment: Moment::Before,
            trouble: Trouble::Fail(BackendErrorKind::Io),
        });
        let outcome = client.sync().await;
        let Some(place) = plan.struck() else {
            outcome.unwrap();
            plan.arm(Point::dry(reads));
            assert_eq!(all(&client).await, expected);
            return nth - 1;
        };
        let Err(error) = outcome else { unreachable!("{place}") };
        assert!(error.code().starts_with("store"), "{place}: {} {error}", error.code());
        // The first read is for the token: without it nothing is asked.
        let token = since(&server);
        drop(client);
        let client = device.open(&server, &Plan::default()).await.unwrap();
        assert_eq!(all(&client).await, expected, "{place}");
        let tokens: Vec<_> = server
            .log()
            .iter()
            .filter(|exchange| exchange.path.ends_with("/sync"))
            .flat_map(|exchange| exchange.query.clone())
            .filter(|(name, _)| name == "since")
            .map(|(_, token)| Some(token))
            .collect();
        // What was read before the commit failed is asked for again; what failed after it was taken.
        assert!(token.is_none() || tokens.contains(&token), "{place}");
    }
    unreachable!("a sync has an end")
}

#[tokio::test]
async fn mg_34_a_store_error_while_a_message_is_decrypted_gives_it_back() {
    let mut story = story().await;
    let (user, device) = story.device_ids();
    let olm = story.peer.olm_session_with(&user, &device);
    let mut session = story.peer.megolm_session(&story.room);
    story.peer.share_room_key(&olm, &session);
    let client = story.device.open(&story.server, &Plan::default()).await.unwrap();
    client.sync().await.unwrap();
    client.close().await.unwrap();
    let mut expected = Vec::new();
    for number in 0..3 {
        let content = session.encrypt(text(&session, &number.to_string()));
        story.peer.send_event(&story.room, "m.room.encrypted", &content);
        expected.push(number.to_string());
    }
    assert!(at_every_read(&story, &expected).await > 5);
}

#[tokio::test]
async fn sy_07_a_store_error_among_device_lists_forgets_no_change() {
    let story = story().await;
    // Another device of bob's, and nothing else.
    let mut second = EvilPeer::new(&story.server, "bob", "SECOND");
    second.publish();
    assert!(at_every_read(&story, &[]).await > 3);
    // Whatever failed, the change is not forgotten: the new device is given the key.
    for nth in 1..=12 {
        let (server, device) = (story.server.fork(), story.device.copy());
        let plan = Plan::default();
        let client = device.open(&server, &plan).await.unwrap();
        plan.arm(Point {
            after: None,
            counts: reads,
            nth,
            moment: Moment::Before,
            trouble: Trouble::Fail(BackendErrorKind::Io),
        });
        let _failed = client.sync().await;
        drop(client);
        let client = device.open(&server, &Plan::default()).await.unwrap();
        let receipt = client
            .room(&story.room)
            .send("m.room.message", json!({"body": "to both"}))
            .await
            .unwrap();
        let reached = receipt.devices.iter().any(|of| of.device_id == "SECOND");
        assert!(reached, "read {nth}: {receipt:?}");
    }
}

impl Story {
    fn device_ids(&self) -> (ruma::OwnedUserId, ruma::OwnedDeviceId) {
        let user = ruma::user_id!("@alice:localhost").to_owned();
        let device = self.server.devices_of(&user).pop().unwrap();
        (user, device.into())
    }
}

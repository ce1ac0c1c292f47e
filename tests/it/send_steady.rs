//! What a later message costs, and that nothing that matters is missed for it.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use matrix_sdk_crypto::vodozemac::megolm::MegolmMessage;
use mx_e2ee::{Client, DeviceOutcome, Room, SendReceipt};
use mx_test_homeserver::EvilPeer;
use ruma::{OwnedDeviceId, user_id};
use serde_json::{Value, json};

use crate::{
    crash_history::Parked,
    crowd::{crowd, room_with},
    disks::{Counts, Operation, Plan, Point},
    world::{World, seed::tell},
};

const COMMITS: Counts = |operation, _| operation == Operation::Commit;
const READS: Counts = |operation, _| matches!(operation, Operation::Get | Operation::Scan);

/// A device in a room of others, on a disk that counts.
struct Scene {
    world: World,
    plan: Plan,
    alice: Client,
    room: Room,
    peers: Vec<EvilPeer>,
}

impl Scene {
    /// So many users with so many devices each, who all have the room's key.
    async fn new(users: usize, devices: usize) -> Self {
        let world = World::new();
        let _user = world.register("alice", "password");
        let plan = Plan::default();
        let alice = Parked::new("alice").login(&world, &plan).await.unwrap();
        let peers = crowd(&world, users, devices);
        let room = room_with(&alice, &peers).await;
        let scene = Self {
            world,
            plan,
            alice,
            room,
            peers,
        };
        let receipt = scene.says().await;
        assert_eq!(receipt.readable_by(), users * devices);
        scene.says().await;
        scene
    }

    async fn says(&self) -> SendReceipt {
        self.world.say(&self.room, "something").await.unwrap()
    }

    /// How often something is done by the disk, and how many requests there are.
    async fn counted<T>(&self, counts: Counts, work: impl Future<Output = T>) -> (T, u64, u64) {
        self.plan.arm(Point::dry(counts));
        let requests = self.world.requests();
        let done = work.await;
        (done, self.plan.counted(), self.world.requests() - requests)
    }

    /// Nothing has changed: a message is one commit and one request.
    async fn is_steady(&self) -> bool {
        let (receipt, commits, requests) = self.counted(COMMITS, self.says()).await;
        assert!(!receipt.new_session);
        let readers = receipt
            .devices
            .iter()
            .filter(|device| matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad));
        assert!(
            readers
                .clone()
                .all(|device| device.outcome == DeviceOutcome::AlreadyHad)
        );
        (commits, requests) == (1, 1)
    }

    /// A state event of somebody who may do anything.
    async fn state(&self, path: &str, content: Value) {
        let path = format!("/rooms/{}/state/{path}", self.room.id());
        self.peers[0].ask("PUT", &path, &content);
        self.alice.sync().await.unwrap();
    }
}

#[test]
fn a_later_message_is_one_commit_and_one_request_in_a_room_of_any_size() {
    let reads = |users, devices| {
        tell("", async || {
            let scene = Scene::new(users, devices).await;
            let (_, commits, requests) = scene
                .counted(COMMITS, async {
                    for _ in 0..20 {
                        scene.says().await;
                    }
                })
                .await;
            assert_eq!((commits, requests), (20, 20));
            let log = scene.world.log();
            let last = log.iter().rev().take(20);
            assert!(
                last.clone()
                    .all(|exchange| exchange.path.contains("/send/m.room.encrypted/"))
            );
            scene.counted(READS, scene.says()).await.1
        })
    };
    let (few, many) = (reads(1, 2), reads(6, 40));
    assert_eq!(few, many, "what is read does not grow with the room");
}

#[test]
fn messages_and_their_acknowledgement_change_nothing_for_whom_we_write_to() {
    tell("", async || {
        let mut scene = Scene::new(2, 1).await;
        assert!(scene.is_steady().await);
        let (alice, device) = (scene.alice.user_id().to_owned(), scene.alice.device_id().to_owned());
        let olm = scene.peers[0].olm_session_with(&alice, &device);
        let mut session = scene.peers[0].megolm_session(scene.room.id());
        scene.peers[0].share_room_key(&olm, &session);
        for text in ["one", "two"] {
            scene.peers[0].send_text(&mut session, text);
            let events = scene.alice.receive(std::time::Duration::ZERO).await.unwrap();
            assert!(
                events.iter().any(|event| matches!(event, mx_e2ee::Event::Message(_))),
                "{events:?}"
            );
            let _more = scene.alice.receive(std::time::Duration::ZERO).await.unwrap();
            // The first message of a room may leave something behind.
            let _first = scene.is_steady().await;
            assert!(scene.is_steady().await, "{text}");
        }
        let path = format!(
            "/rooms/{}/state/m.room.member/{}",
            scene.room.id(),
            scene.peers[1].user()
        );
        let content = json!({"membership": "join", "displayname": "Somebody Else"});
        scene.peers[1].ask("PUT", &path, &content);
        scene.alice.sync().await.unwrap();
        assert!(scene.is_steady().await, "a name");
    });
}

#[test]
fn every_change_of_the_readers_is_seen_by_the_next_message() {
    tell("", async || {
        let scene = Scene::new(3, 1).await;
        assert!(scene.is_steady().await);
        // A device comes.
        let mut another = EvilPeer::new(&scene.world, "member0", "ANOTHER");
        another.publish();
        scene.alice.sync().await.unwrap();
        let receipt = scene.says().await;
        assert_eq!((receipt.readable_by(), receipt.new_session), (4, false));
        let reached = receipt
            .devices
            .iter()
            .filter(|device| device.outcome == DeviceOutcome::Reached);
        let reached: Vec<OwnedDeviceId> = reached.map(|device| device.device_id.clone()).collect();
        assert_eq!(reached, [another.device().to_owned()]);
        assert!(scene.is_steady().await);
        // It goes.
        scene.world.delete_device(another.user(), another.device());
        scene.alice.sync().await.unwrap();
        let receipt = scene.says().await;
        assert_eq!((receipt.readable_by(), receipt.new_session), (3, true));
        assert!(scene.is_steady().await);
        // Somebody comes, who is only invited.
        let mut carol = EvilPeer::new(&scene.world, "carol", "CAROL");
        carol.publish();
        scene.room.invite(carol.user()).await.unwrap();
        scene.alice.sync().await.unwrap();
        assert_eq!(scene.says().await.readable_by(), 4);
        assert!(scene.is_steady().await);
        // Who is invited may not read any more.
        scene
            .state("m.room.history_visibility/", json!({"history_visibility": "joined"}))
            .await;
        let receipt = scene.says().await;
        assert_eq!((receipt.readable_by(), receipt.new_session), (3, true));
        assert!(scene.is_steady().await);
        carol.join(scene.room.id());
        scene.alice.sync().await.unwrap();
        assert_eq!(scene.says().await.readable_by(), 4);
        assert!(scene.is_steady().await);
        // Somebody goes.
        let path = format!("/rooms/{}/leave", scene.room.id());
        carol.ask("POST", &path, &json!({}));
        scene.alice.sync().await.unwrap();
        let receipt = scene.says().await;
        assert_eq!((receipt.readable_by(), receipt.new_session), (3, true));
        assert!(scene.is_steady().await);
    });
}

#[test]
fn a_device_that_could_not_be_given_the_key_is_as_soon_as_it_can() {
    tell("", async || {
        let mut scene = Scene::new(2, 1).await;
        let mut silent = EvilPeer::new(&scene.world, "member0", "SILENT");
        let device_keys = silent.device_keys();
        silent.publish_keys(&json!({"device_keys": device_keys}));
        scene.alice.sync().await.unwrap();
        let without = |receipt: &SendReceipt| {
            let mut devices = receipt.devices.iter();
            devices.any(|device| device.outcome == DeviceOutcome::NoOneTimeKey)
        };
        assert!(without(&scene.says().await));
        scene.says().await;
        // It is not time to ask for its keys again.
        assert!(scene.is_steady().await);
        let (alice, device) = (scene.alice.user_id().to_owned(), scene.alice.device_id().to_owned());
        let olm = silent.olm_session_with(&alice, &device);
        let hello = silent.envelope(&olm, "m.dummy", json!({}));
        silent.send_olm(&olm, &hello);
        scene.alice.sync().await.unwrap();
        let receipt = scene.says().await;
        assert!(!without(&receipt));
        assert_eq!(receipt.readable_by(), 3);
        scene.peers.push(silent);
    });
}

#[test]
fn what_is_found_out_about_our_own_device_stops_the_next_message() {
    tell("", async || {
        let scene = Scene::new(1, 1).await;
        assert!(scene.is_steady().await);
        let device = scene.alice.device_id().to_string();
        scene.world.rewrite("/keys/query", move |_, response| {
            let mut body: Value = serde_json::from_slice(response.body()).unwrap();
            if let Some(ours) = body["device_keys"]["@alice:localhost"].as_object_mut() {
                ours.remove(&device);
            }
            response.map(|_| body.to_string().into())
        });
        // Our device list is asked for when it changes.
        let mut phone = EvilPeer::new(&scene.world, "alice", "PHONE");
        phone.publish();
        let synced = scene.alice.sync().await;
        let said = scene.room.send_text("no").await;
        assert_eq!(said.unwrap_err().code(), "device_deleted");
        drop(synced);
    });
}

#[test]
fn sn_11_fifty_at_once_at_the_border_of_a_rotation_are_fifty_at_different_places() {
    tell("", async || {
        let mut scene = Scene::new(1, 1).await;
        scene.room = room_with(&scene.alice, &scene.peers).await;
        let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 10});
        scene.state("m.room.encryption/", encryption).await;
        let (receipts, commits, _) = scene.counted(COMMITS, join_all((0..50).map(|_| scene.says()))).await;
        assert!(commits < 35, "{commits} commits for 50 messages with 5 or 6 keys");
        let events: BTreeSet<_> = receipts.iter().map(|receipt| receipt.event_id.clone()).collect();
        assert_eq!(events.len(), 50);
        let timeline = scene.world.timeline(scene.room.id());
        let sent: Vec<&Value> = timeline
            .iter()
            .filter(|event| events.iter().any(|id| event["event_id"] == id.as_str()))
            .collect();
        let places: BTreeSet<(String, u32)> = sent
            .iter()
            .map(|event| {
                let text = |field: &str| event["content"][field].as_str().unwrap().to_owned();
                let message = MegolmMessage::from_base64(&text("ciphertext")).unwrap();
                (text("session_id"), message.message_index())
            })
            .collect();
        assert_eq!(places.len(), 50);
        let sessions: BTreeSet<&String> = places.iter().map(|(session, _)| session).collect();
        assert!((5..=6).contains(&sessions.len()), "{} keys", sessions.len());
        scene.peers[0].receive();
        let read = sent
            .iter()
            .filter(|event| scene.peers[0].decrypt_event(event).is_some());
        assert_eq!(read.count(), 50);
    });
}

#[test]
fn what_waits_together_is_committed_together() {
    tell("", async || {
        let scene = Scene::new(1, 1).await;
        let (_, commits, requests) = scene.counted(COMMITS, join_all((0..60).map(|_| scene.says()))).await;
        assert_eq!(requests, 60);
        // The first goes alone, and everything that came meanwhile is the second.
        assert!(commits <= 3, "{commits} commits for 60 messages of one room");
        let mut rooms = vec![scene.room.clone()];
        for _ in 1..12 {
            let room = room_with(&scene.alice, &scene.peers).await;
            room.send_text("a key").await.unwrap();
            rooms.push(room);
        }
        // Each was disturbed by the one after it.
        join_all(rooms.iter().map(|room| room.send_text("again"))).await;
        let sends = rooms.iter().map(|room| room.send_text("all rooms at once"));
        let (sent, commits, requests) = scene.counted(COMMITS, join_all(sends)).await;
        assert!(sent.iter().all(Result::is_ok));
        assert_eq!(requests, 12);
        assert!(commits <= 6, "{commits} commits for a message in each of 12 rooms");
        let user = user_id!("@member0:localhost");
        assert_eq!(scene.peers[0].user(), user);
    });
}

/// Of many rooms that begin to send at once, one looks what is new, and each asks for what is its own.
#[tokio::test]
async fn rooms_that_begin_at_once_sync_once() {
    let pair = crate::world::pair().await;
    let mut rooms = Vec::new();
    for _ in 0..10 {
        let bob = [pair.bob.client.user_id().to_owned()];
        let room = pair.alice.client.create_room(None, &bob).await.unwrap();
        pair.bob.client.join(room.id().as_str()).await.unwrap();
        rooms.push(room.id().to_owned());
    }
    pair.alice.client.sync().await.unwrap();
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    let before = pair.server.log().len();
    let sends = rooms.iter().map(|room| {
        let room = alice.client.room(room);
        async move { room.send_text("one").await.unwrap() }
    });
    join_all(sends).await;
    let log = pair.server.log();
    let asked = |what: &str| {
        log[before..]
            .iter()
            .filter(|request| request.path.contains(what))
            .count()
    };
    assert_eq!(asked("/sync"), 1);
    assert_eq!(asked("/send/m.room.encrypted"), 10);
    assert_eq!(
        asked("/messages"),
        0,
        "and nothing was missed that somebody has to ask for"
    );
}

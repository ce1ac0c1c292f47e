//! The main job: a send is one call, a receive is one call, before and after a restart.

use std::time::Duration;

use futures_util::StreamExt;
use mx_e2ee::{Client, DeviceOutcome, Event, Trust};
use mx_test_homeserver::Homeserver;
use serde_json::json;

use crate::world::{Device, Pair, pair};

#[tokio::test]
async fn each_reads_the_other_before_and_after_a_restart() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let receipt = room.send_text("one").await.unwrap();
    assert!(receipt.new_session);
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(receipt.devices[0].outcome, DeviceOutcome::Reached);
    let read = bob.messages().await;
    assert_eq!(read[0].body(), Some("one"));
    assert_eq!(read[0].event_id, receipt.event_id);
    let encryption = read[0].encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_deref(), Some(alice.client.device_id()));
    assert_eq!(encryption.trust, Trust::Unsigned);
    bobs_room.send_text("two").await.unwrap();
    assert_eq!(alice.bodies().await, ["two"]);

    let (room_id, session) = (room.id().to_owned(), receipt.session_id);
    drop((room, bobs_room));
    let alice = alice.kill_and_open().await;
    let bob = bob.kill_and_open().await;
    let receipt = alice.client.room(&room_id).send_text("three").await.unwrap();
    assert!(!receipt.new_session, "a restart is no reason for a new key");
    assert_eq!(receipt.session_id, session);
    assert_eq!(receipt.devices[0].outcome, DeviceOutcome::AlreadyHad);
    bob.client.room(&room_id).send_text("four").await.unwrap();
    assert_eq!(bob.bodies().await, ["three"]);
    assert_eq!(alice.bodies().await, ["four"]);

    for event in server.timeline(&room_id) {
        let text = event.to_string();
        for word in ["one", "two", "three", "four"] {
            assert!(
                !text.contains(&format!("\"{word}\"")),
                "the homeserver holds plaintext: {text}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_send_is_one_request() {
    let Pair { server, room, .. } = pair().await;
    room.send_text("one").await.unwrap();
    let before = server.log().len();
    room.send_text("two").await.unwrap();
    let log = server.log();
    let paths: Vec<&str> = log[before..].iter().map(|exchange| exchange.path.as_str()).collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert!(paths[0].contains("/send/m.room.encrypted/"));
    // Later than that, it is looked at first who came, went, or has a new device.
    tokio::time::advance(Duration::from_secs(2)).await;
    let before = server.log().len();
    room.send_text("three").await.unwrap();
    let log = server.log();
    assert!(log[before].path.ends_with("/sync"), "{}", log[before].path);
}

#[tokio::test]
async fn any_event_type_goes_inside() {
    let Pair { alice, bob, room, .. } = pair().await;
    let content = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$x", "key": "👍"}});
    room.send("m.reaction", content.clone()).await.unwrap();
    let read = bob.messages().await;
    assert_eq!(read[0].event_type, "m.reaction");
    assert_eq!(read[0].content["m.relates_to"]["key"], content["m.relates_to"]["key"]);
    drop(alice);
}

#[tokio::test]
async fn a_stream_is_the_same_and_acknowledges_as_it_goes() {
    let Pair { bob, room, .. } = pair().await;
    room.send_text("one").await.unwrap();
    room.send_text("two").await.unwrap();
    {
        let mut events = std::pin::pin!(bob.client.events());
        let Some(Ok(Event::Message(first))) = events.next().await else {
            panic!("no message")
        };
        assert_eq!(first.body(), Some("one"));
        let Some(Ok(Event::Message(second))) = events.next().await else {
            panic!("no message")
        };
        assert_eq!(second.body(), Some("two"));
    }
    // The second was not acknowledged by asking for a third.
    let bob = bob.kill_and_open().await;
    assert_eq!(bob.bodies().await, ["two"]);
    let bob = bob.kill_and_open().await;
    assert!(bob.bodies().await.is_empty());
}

#[tokio::test]
async fn a_stream_wakes_up_for_news() {
    let Pair { bob, room, .. } = pair().await;
    bob.client.sync().await.unwrap();
    assert!(bob.events().await.is_empty());
    let listener = tokio::spawn(async move { bob.client.receive(Duration::from_secs(600)).await.unwrap() });
    tokio::task::yield_now().await;
    room.send_text("news").await.unwrap();
    let mut events = listener.await.unwrap();
    assert_eq!(events.len(), 1);
    let Some(Event::Message(message)) = events.pop() else {
        panic!("no message")
    };
    assert_eq!(message.body(), Some("news"));
}

#[tokio::test]
async fn an_invitation_is_told() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let room = alice.client.create_room(Some("plans"), &[]).await.unwrap();
    assert_eq!(room.name().await.unwrap().as_deref(), Some("plans"));
    room.invite(bob.client.user_id()).await.unwrap();
    let events = bob.events().await;
    let [Event::Invite(invite)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(invite.room_id, room.id());
    assert_eq!(invite.inviter.as_deref(), Some(alice.client.user_id()));
    assert_eq!(invite.name.as_deref(), Some("plans"));
    let members = room.members().await.unwrap();
    let standing: Vec<&str> = members.iter().map(|member| member.membership.as_str()).collect();
    assert_eq!(standing, ["join", "invite"]);
}

#[tokio::test]
async fn marking_a_room_as_encrypted_is_seen_by_both() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let room = alice
        .client
        .create_plaintext_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    let bobs_room = bob.client.join(room.id().as_str()).await.unwrap();
    assert!(!bobs_room.is_encrypted().await.unwrap());
    room.mark_encrypted().await.unwrap();
    room.mark_encrypted().await.unwrap();
    assert!(bobs_room.is_encrypted().await.unwrap());
    bobs_room.send_text("hidden").await.unwrap();
    assert_eq!(alice.bodies().await, ["hidden"]);
    let marks = server
        .timeline(room.id())
        .iter()
        .filter(|event| event["type"] == "m.room.encryption")
        .count();
    assert_eq!(marks, 1, "marking again changes nothing");
}

#[tokio::test]
async fn over_a_socket_and_sqlite() {
    let server = Homeserver::new();
    let listening = server.listen().await;
    let mut clients = Vec::new();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for (name, directory) in ["alice", "bob"].into_iter().zip(&directories) {
        let _user = server.register(name, "password");
        let builder = Client::builder()
            .homeserver(listening.uri())
            .directory(directory.path());
        clients.push(builder.login(name, "password").await.unwrap());
    }
    let room = clients[0]
        .create_room(None, &[clients[1].user_id().to_owned()])
        .await
        .unwrap();
    clients[1].join(room.id().as_str()).await.unwrap();
    room.send_text("over a socket").await.unwrap();
    let bob = clients.pop().unwrap();
    bob.close().await.unwrap();
    let bob = Client::builder().directory(directories[1].path()).open().await.unwrap();
    let events = bob.receive(Duration::from_secs(5)).await.unwrap();
    let Some(Event::Message(message)) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(message.body(), Some("over a socket"));
}

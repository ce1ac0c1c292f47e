//! Invitations that are accepted by themselves: rooms that hang are no reason to hear nothing.

use std::time::Duration;

use mx_e2ee::{Event, Invites};
use mx_test_homeserver::Fault;
use ruma::owned_user_id;

use crate::world::{Device, World, builder};

#[tokio::test(start_paused = true)]
async fn rooms_that_hang_hold_nothing_up_for_longer_than_one_pause() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let Device {
        client,
        disk,
        directory,
        ..
    } = Device::new(&server, "bob").await;
    client.close().await.unwrap();
    let bob = builder(&server, &disk)
        .directory(directory.path())
        .accept_invites(Invites::From([owned_user_id!("@alice:localhost")].into()))
        .open()
        .await
        .unwrap();
    bob.sync().await.unwrap();
    let mut rooms = Vec::new();
    for _ in 0..20 {
        let invited = [bob.user_id().to_owned()];
        rooms.push(alice.client.create_room(Some("alerts"), &invited).await.unwrap());
    }
    // All but the last: they are asked, and do not answer.
    for room in &rooms[..19] {
        let path = format!("/rooms/{}/join", room.id());
        server.fault(Fault::delay(&path, Duration::from_secs(100)).for_ever());
    }
    let before = tokio::time::Instant::now();
    let events = bob.receive(Duration::ZERO).await.unwrap();
    let took = before.elapsed();
    assert!(took <= Duration::from_secs(31), "{took:?} of paused time");
    assert_eq!(events.len(), 20, "each is told");

    // Given again, because nobody has acknowledged them: what answers now lets us in.
    drop(bob);
    server.behave();
    let bob = builder(&server, &disk)
        .directory(directory.path())
        .accept_invites(Invites::Everybody)
        .open()
        .await
        .unwrap();
    let events = bob.receive(Duration::ZERO).await.unwrap();
    let joined = |event: &&Event| matches!(event, Event::Invite(invite) if invite.joined);
    assert_eq!(events.iter().filter(joined).count(), 20);
    assert_eq!(bob.rooms().await.unwrap().len(), 20);
}

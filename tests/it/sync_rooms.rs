//! Rooms that come and go between two syncs, of either kind: what was said there is told, and nothing else.

use std::time::Duration;

use mx_e2ee::{Event, Room};
use mx_test_homeserver::Homeserver;
use serde_json::json;

use crate::{
    sync_answers::{bodies, requests},
    world::{Device, Pair, both, sliding_pair},
};

async fn kick(from: &Device, room: &Room, whom: &Device) {
    let request = ruma::api::client::membership::kick_user::v3::Request::new(
        room.id().to_owned(),
        whom.client.user_id().to_owned(),
    );
    from.client.homeserver().send(request).await.unwrap();
}

fn say(server: &Homeserver, room: &Room, from: &Device, text: &str) {
    let content = json!({"msgtype": "m.text", "body": text});
    server.inject(room.id(), from.client.user_id(), "m.room.message", content);
}

#[tokio::test]
async fn what_was_said_before_we_were_put_out_is_told() {
    for count in [3, 130] {
        for Pair {
            server,
            alice,
            bob,
            room,
            ..
        } in both().await
        {
            bob.events().await;
            let mut expected = Vec::new();
            for number in 0..count {
                let text = format!("{number}");
                if number % 2 == 0 {
                    room.send_text(text.as_str()).await.unwrap();
                } else {
                    say(&server, &room, &alice, &text);
                }
                expected.push(text);
            }
            kick(&alice, &room, &bob).await;
            room.send_text("not for bob").await.unwrap();
            say(&server, &room, &alice, "nor this");
            let events = bob.events().await;
            assert_eq!(bodies(&events), expected);
            assert_eq!(events.len(), expected.len(), "{events:?}");
            assert!(bob.events().await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_send_does_not_forget_what_was_said_before_we_were_put_out() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } in both().await
    {
        drop(bobs_room);
        let other = alice
            .client
            .create_room(None, &[bob.client.user_id().to_owned()])
            .await
            .unwrap();
        bob.client.join(other.id().as_str()).await.unwrap();
        say(&server, &room, &alice, "told before");
        bob.events().await;
        say(&server, &room, &alice, "passed by");
        kick(&alice, &room, &bob).await;
        let bob = bob.kill_and_open().await;
        bob.client.room(other.id()).send_text("a send").await.unwrap();
        let bob = bob.kill_and_open().await;
        let events = bob.events().await;
        assert_eq!(bodies(&events), ["passed by"]);
        assert_eq!(events.len(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn what_was_said_since_we_came_is_told_and_nothing_from_before() {
    for Pair { server, alice, bob, .. } in both().await {
        bob.events().await;
        let other = alice.client.create_room(None, &[]).await.unwrap();
        say(&server, &other, &alice, "before bob came");
        other.invite(bob.client.user_id()).await.unwrap();
        bob.client.join(other.id().as_str()).await.unwrap();
        let expected: Vec<String> = (0..230).map(|number| number.to_string()).collect();
        for text in &expected {
            say(&server, &other, &alice, text);
        }
        let before = requests(&server, "/messages", "@bob:localhost");
        let events = bob.events().await;
        assert_eq!(bodies(&events), expected);
        assert_eq!(events.len(), expected.len(), "no gap");
        assert!(requests(&server, "/messages", "@bob:localhost") > before);
    }
}

#[tokio::test]
async fn a_second_invitation_after_a_refusal_is_told() {
    for Pair { server, alice, bob, .. } in both().await {
        bob.events().await;
        let other = alice.client.create_room(None, &[]).await.unwrap();
        for forgets in [false, true, true] {
            other.invite(bob.client.user_id()).await.unwrap();
            let events = bob.events().await;
            assert!(
                matches!(events.as_slice(), [Event::Invite(invite)] if invite.room_id == other.id()),
                "{forgets} {events:?}"
            );
            bob.client.room(other.id()).leave().await.unwrap();
            if forgets {
                // What a connection does not show any more is over.
                server.forget_sliding_sync(bob.client.user_id(), bob.client.device_id());
            }
            assert!(bob.events().await.is_empty());
        }
    }
}

#[tokio::test]
async fn to_knock_is_no_invitation() {
    let Pair { server, alice, bob, .. } = sliding_pair().await;
    bob.events().await;
    let other = alice.client.create_room(None, &[]).await.unwrap();
    let user = bob.client.user_id();
    server.set_state(
        other.id(),
        user,
        "m.room.member",
        user.as_str(),
        json!({"membership": "knock"}),
    );
    assert!(bob.events().await.is_empty());
    other.invite(user).await.unwrap();
    let events = bob.events().await;
    assert!(matches!(events.as_slice(), [Event::Invite(_)]), "{events:?}");
    assert!(bob.client.receive(Duration::ZERO).await.unwrap().is_empty());
}

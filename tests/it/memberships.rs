//! Who comes and goes is told where it is wanted, whichever way syncs go.

use mx_e2ee::{Event, MembershipChanged, Options, Room};
use mx_test_homeserver::Homeserver;
use ruma::events::room::member::MembershipState::{self, Ban, Invite, Join, Leave};
use serde_json::json;

use crate::world::{self, Device, Pair, both};

fn wanting(server: &Homeserver) -> Options {
    let mut options = world::options(server);
    options.memberships = true;
    options
}

/// Something is done to somebody: `kick`, `ban`, `unban`, `invite`.
async fn moderate(by: &Device, room: &Room, how: &str, whom: &Device) {
    use ruma::api::client::membership::{ban_user, invite_user, kick_user, unban_user};
    let (homeserver, room, user) = (
        by.client.homeserver(),
        room.id().to_owned(),
        whom.client.user_id().to_owned(),
    );
    match how {
        "kick" => {
            homeserver.send(kick_user::v3::Request::new(room, user)).await.unwrap();
        }
        "ban" => {
            homeserver.send(ban_user::v3::Request::new(room, user)).await.unwrap();
        }
        "unban" => {
            homeserver.send(unban_user::v3::Request::new(room, user)).await.unwrap();
        }
        _ => {
            let recipient = invite_user::v3::InvitationRecipient::UserId(invite_user::v3::InviteUserId::new(user));
            let request = invite_user::v3::Request::new(room, recipient);
            homeserver.send(request).await.unwrap();
        }
    }
}

fn changes(events: &[Event]) -> Vec<&MembershipChanged> {
    let changes = events.iter().filter_map(|event| match event {
        Event::MembershipChanged(changed) => Some(changed),
        _ => None,
    });
    changes.collect()
}

fn deeds<'e>(changes: &[&'e MembershipChanged]) -> Vec<(&'e str, &'e str, &'e MembershipState)> {
    let deed = |changed: &&'e MembershipChanged| {
        (
            changed.sender.localpart(),
            changed.user_id.localpart(),
            &changed.membership,
        )
    };
    changes.iter().map(deed).collect()
}

#[tokio::test]
async fn who_comes_and_who_goes_is_told_once_and_a_new_name_is_not() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } in both().await
    {
        bob.events().await;
        drop(bobs_room);
        let bob = bob.kill_and_open_with(wanting(&server)).await;
        let carol = Device::new(&server, "carol").await;
        bob.events().await;

        moderate(&alice, &room, "invite", &carol).await;
        carol.client.join(room.id().as_str()).await.unwrap();
        room.send_text("welcome").await.unwrap();
        moderate(&alice, &room, "kick", &carol).await;
        moderate(&alice, &room, "ban", &carol).await;
        moderate(&alice, &room, "unban", &carol).await;
        let named = json!({"membership": "join", "displayname": "Al"});
        server.set_state(
            room.id(),
            alice.client.user_id(),
            "m.room.member",
            alice.client.user_id().as_str(),
            named,
        );
        room.send_text("bye").await.unwrap();

        let told = bob.events().await;
        let told_changes = changes(&told);
        assert_eq!(
            deeds(&told_changes),
            [
                ("alice", "carol", &Invite),
                ("carol", "carol", &Join),
                ("alice", "carol", &Leave),
                ("alice", "carol", &Ban),
                ("alice", "carol", &Leave),
            ]
        );
        let before: Vec<_> = told_changes.iter().map(|changed| changed.before.clone()).collect();
        assert_eq!(before, [None, Some(Invite), Some(Join), Some(Leave), Some(Ban)]);
        // In their order among the messages.
        let at = |wanted: fn(&Event) -> bool| told.iter().position(wanted).unwrap();
        let joined = at(|event| matches!(event, Event::MembershipChanged(changed) if changed.membership == Join));
        let welcome = at(|event| matches!(event, Event::Message(message) if message.body() == Some("welcome")));
        assert!(joined < welcome && told.len() == 7, "{told:?}");

        let bob = bob.kill_and_open_with(wanting(&server)).await;
        assert!(bob.events().await.is_empty(), "it was told");
    }
}

#[tokio::test]
async fn what_happens_to_ourselves_is_told_and_nothing_where_it_is_not_wanted() {
    for Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } in both().await
    {
        bob.events().await;
        alice.events().await;
        drop(bobs_room);
        let bob = bob.kill_and_open_with(wanting(&server)).await;
        moderate(&alice, &room, "kick", &bob).await;
        let told = bob.events().await;
        assert_eq!(deeds(&changes(&told)), [("alice", "bob", &Leave)]);
        assert!(changes(&alice.events().await).is_empty());
    }
}

#[tokio::test]
async fn a_membership_that_is_none_is_told_as_malformed() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = world::pair().await;
    bob.events().await;
    drop(bobs_room);
    let bob = bob.kill_and_open_with(wanting(&server)).await;
    for content in [json!({}), json!({"membership": 7}), json!([])] {
        server.set_state(
            room.id(),
            alice.client.user_id(),
            "m.room.member",
            "@carol:localhost",
            content,
        );
    }
    let told = bob.events().await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.iter()
            .all(|event| matches!(event, Event::Malformed(malformed) if malformed.event_id.is_some()))
    );
}

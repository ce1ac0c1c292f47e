//! Whose messages are given to the app is looked at when they are given: who took them may have accepted more.

use mx_e2ee::{Accept, Event, FindingCode, Options, RejectedReason, Trust, TrustManifest, UndecryptableReason};
use ruma::RoomId;
use serde_json::json;

use crate::{
    identity::set_up,
    world::{Device, Pair, World, pair},
};

fn accepting(accept: Accept) -> Options {
    let mut options = Options::default();
    options.accept = accept;
    options
}

fn say_in_plaintext(server: &World, room: &RoomId, bob: &Device) {
    let content = json!({"msgtype": "m.text", "body": "plain"});
    server.inject(room, bob.client.user_id(), "m.room.message", content);
}

async fn reasons(device: &Device) -> Vec<UndecryptableReason> {
    let waiting = device.client.waiting(0, 10).await.unwrap();
    waiting.into_iter().map(|event| event.reason).collect()
}

#[tokio::test]
async fn what_a_process_took_that_accepts_everybody_waits_for_one_that_does_not() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    bobs_room.send_text("one").await.unwrap();
    say_in_plaintext(&server, &room_id, &bob);
    alice.client.sync().await.unwrap();

    let alice = alice.kill_and_open_with(accepting(Accept::CrossSigned)).await;
    let events = alice.events().await;
    assert!(
        matches!(events.as_slice(), [Event::Rejected(event)] if event.reason == RejectedReason::Plaintext),
        "{events:?}"
    );
    let unsigned = UndecryptableReason::NotAccepted { trust: Trust::Unsigned };
    assert_eq!(reasons(&alice).await, std::slice::from_ref(&unsigned));

    // Once more the same way: what waits is taken up by a process that accepts everybody, and not given by the next.
    let alice = alice.kill_and_open().await;
    assert_eq!(alice.client.orchestrator().retry_waiting().await.unwrap(), 1);
    let alice = alice.kill_and_open_with(accepting(Accept::CrossSigned)).await;
    assert!(alice.events().await.is_empty());
    assert_eq!(reasons(&alice).await, [unsigned]);

    set_up(&bob.client).await;
    alice.client.sync().await.unwrap();
    let alice = alice.kill_and_open_with(accepting(Accept::CrossSigned)).await;
    let messages = alice.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body(), Some("one"));
    let encryption = messages[0].encryption.as_ref().unwrap();
    assert_eq!(encryption.trust, Trust::CrossSigned);
    assert!(encryption.waited_ms.is_some());
    assert!(alice.events().await.is_empty(), "once");
    assert!(reasons(&alice).await.is_empty());
}

#[tokio::test]
async fn who_was_signed_meanwhile_is_given_at_once() {
    let Pair {
        alice, bob, bobs_room, ..
    } = pair().await;
    bobs_room.send_text("one").await.unwrap();
    alice.client.sync().await.unwrap();
    set_up(&bob.client).await;
    alice.client.sync().await.unwrap();
    let alice = alice.kill_and_open_with(accepting(Accept::CrossSigned)).await;
    let messages = alice.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::CrossSigned);
}

#[tokio::test]
async fn what_was_taken_without_the_manifest_is_held_against_it() {
    let Pair {
        alice, bob, bobs_room, ..
    } = pair().await;
    set_up(&bob.client).await;
    alice.client.sync().await.unwrap();
    bobs_room.send_text("one").await.unwrap();
    alice.client.sync().await.unwrap();
    let fingerprint = alice.client.key_status().await.unwrap().ed25519;
    let other = json!({"devices": {"ANOTHER": fingerprint}});
    let manifest = json!({"version": 1, "users": {"@bob:localhost": other}});
    let mut options = accepting(Accept::CrossSigned);
    options.trust_manifest = Some(TrustManifest::parse(&manifest.to_string()).unwrap().into());
    let alice = alice.kill_and_open_with(options).await;
    assert!(alice.messages().await.is_empty());
    let not_listed = UndecryptableReason::NotAccepted {
        trust: Trust::NotListed,
    };
    assert_eq!(reasons(&alice).await, [not_listed]);
}

#[tokio::test]
async fn our_own_messages_are_given_as_before() {
    let Pair { alice, room, .. } = pair().await;
    let mut options = accepting(Accept::Everybody);
    options.deliver_own = true;
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open_with(options.clone()).await;
    alice.client.room(&room_id).send_text("mine").await.unwrap();
    alice.client.sync().await.unwrap();
    options.accept = Accept::Verified;
    let alice = alice.kill_and_open_with(options).await;
    assert_eq!(alice.bodies().await, ["mine"]);
}

#[tokio::test]
async fn a_retry_for_want_of_keys_leaves_who_is_not_accepted_alone() {
    let Pair { alice, bobs_room, .. } = pair().await;
    let alice = alice.kill_and_open_with(accepting(Accept::Verified)).await;
    bobs_room.send_text("one").await.unwrap();
    assert!(alice.messages().await.is_empty());

    // As `mx doctor --fix` and `mx undecryptable retry`, which accept everybody.
    let alice = alice.kill_and_open().await;
    let found = alice.client.doctor_with(mx_e2ee::Checkup::fixing()).await;
    assert!(!found.has(FindingCode::UndecryptableEvents), "{found:?}");
    assert_eq!(alice.client.retry_undecryptable().await.unwrap(), 0);
    assert!(alice.messages().await.is_empty());
    assert_eq!(reasons(&alice).await.len(), 1);
}

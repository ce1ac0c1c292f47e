//! Whose messages are believed, and what happens when an identity changes (rows KQ-40 and its neighbours).

use mx_e2ee::{Accept, Event, Message, Options, RejectedReason, Trust, UndecryptableReason};
use serde_json::json;

use crate::{
    identity::{reset, set_up},
    keys_cast::Cast,
    world::{Device, Pair, pair},
};

fn trust(message: &Message) -> Trust {
    message.encryption.as_ref().unwrap().trust
}

async fn master_key(of: &Device) -> String {
    of.client.identity_status().await.unwrap().master_key.unwrap()
}

/// Alice has verified bob, by the key that he told her.
async fn verified() -> Pair {
    let cast = pair().await;
    set_up(&cast.alice.client).await;
    set_up(&cast.bob.client).await;
    cast.alice.client.sync().await.unwrap();
    let (bob, key) = (cast.bob.client.user_id(), master_key(&cast.bob).await);
    let alice = &cast.alice.client;
    let wrong = alice
        .verify_user_by_key(bob, &master_key(&cast.alice).await)
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), "identity_key_differs");
    assert!(!alice.user_identity(bob).await.unwrap().unwrap().verified);
    alice.verify_user_by_key(bob, &key).await.unwrap();
    assert!(alice.user_identity(bob).await.unwrap().unwrap().verified);
    cast
}

#[tokio::test]
async fn a_user_is_verified_by_a_key_and_stays_so() {
    let Pair {
        alice, bob, bobs_room, ..
    } = verified().await;
    bobs_room.send_text("it is me").await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(trust(&messages[0]), Trust::Verified);
    let alice = alice.kill_and_open().await;
    assert!(
        alice
            .client
            .user_identity(bob.client.user_id())
            .await
            .unwrap()
            .unwrap()
            .verified
    );
}

#[tokio::test]
async fn kq_40_a_verified_users_new_identity_stops_sends_until_it_is_acknowledged() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = verified().await;
    room.send_text("before").await.unwrap();
    reset(&bob.client).await;
    let key = master_key(&bob).await;
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    let changes: Vec<_> = told
        .iter()
        .filter_map(|event| match event {
            Event::IdentityChanged(change) => Some(change),
            _ => None,
        })
        .collect();
    assert_eq!(changes.len(), 1, "{told:?}");
    assert!(changes[0].was_verified);
    assert_eq!(changes[0].master_key.as_ref(), Some(&key));
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "identity_changed");
    bobs_room.send_text("who am i").await.unwrap();
    assert_eq!(trust(&alice.messages().await[0]), Trust::IdentityChanged);
    let user = bob.client.user_id();
    let status = alice.client.user_identity(user).await.unwrap().unwrap();
    assert!(status.verification_lost && status.changed && !status.verified);
    // Only the key that is there can be acknowledged.
    let old = alice
        .client
        .acknowledge_identity_change(user, "AAAA")
        .await
        .unwrap_err();
    assert_eq!(old.code(), "identity_key_differs");
    assert_eq!(server.say(&room, "never").await.unwrap_err().code(), "identity_changed");
    alice
        .client
        .acknowledge_identity_change(user, &format!("{key}="))
        .await
        .unwrap();
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open().await;
    let room = alice.client.room(&room_id);
    room.send_text("after").await.unwrap();
    let status = alice.client.user_identity(user).await.unwrap().unwrap();
    assert!(!status.verification_lost && !status.changed && !status.verified);
    assert_eq!(bob.bodies().await, ["before", "after"]);
    bobs_room.send_text("as anybody").await.unwrap();
    assert_eq!(trust(&alice.messages().await[0]), Trust::CrossSigned);
}

#[tokio::test]
async fn a_change_of_a_user_who_was_never_verified_is_told_and_stops_nothing() {
    let Pair { alice, bob, room, .. } = pair().await;
    set_up(&bob.client).await;
    room.send_text("known").await.unwrap();
    assert!(
        !alice
            .events()
            .await
            .iter()
            .any(|event| matches!(event, Event::IdentityChanged(_)))
    );
    reset(&bob.client).await;
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::IdentityChanged(change) if !change.was_verified)),
        "{told:?}"
    );
    let user = bob.client.user_id();
    assert!(alice.client.user_identity(user).await.unwrap().unwrap().changed);
    room.send_text("goes on").await.unwrap();
    alice
        .client
        .acknowledge_identity_change(user, &master_key(&bob).await)
        .await
        .unwrap();
    assert!(!alice.client.user_identity(user).await.unwrap().unwrap().changed);
}

fn accepting(accept: Accept) -> Options {
    let mut options = Options::default();
    options.accept = accept;
    options
}

#[tokio::test]
async fn what_is_not_accepted_waits_until_its_sender_is_signed() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let alice = alice.kill_and_open_with(accepting(Accept::CrossSigned)).await;
    bobs_room.send_text("one").await.unwrap();
    assert!(alice.messages().await.is_empty());
    let waiting = alice.client.waiting(0, 10).await.unwrap();
    assert_eq!(
        waiting[0].reason,
        UndecryptableReason::NotAccepted { trust: Trust::Unsigned }
    );
    server.inject(
        &room_id,
        bob.client.user_id(),
        "m.room.message",
        json!({"msgtype": "m.text", "body": "plain"}),
    );
    let events = alice.events().await;
    assert!(
        matches!(events.as_slice(), [Event::Rejected(event)] if event.reason == RejectedReason::Plaintext),
        "{events:?}"
    );
    set_up(&bob.client).await;
    alice.client.sync().await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(
        (messages[0].body(), trust(&messages[0])),
        (Some("one"), Trust::CrossSigned)
    );
    assert!(alice.messages().await.is_empty(), "once");
}

#[tokio::test]
async fn a_fingerprint_is_enough_to_be_accepted_and_a_block_ends_it() {
    let Pair {
        alice, bob, bobs_room, ..
    } = pair().await;
    let alice = alice.kill_and_open_with(accepting(Accept::Verified)).await;
    bobs_room.send_text("one").await.unwrap();
    assert!(alice.messages().await.is_empty());
    let (user, device) = (bob.client.user_id(), bob.client.device_id());
    let fingerprint = bob.client.key_status().await.unwrap().ed25519;
    alice.client.trust_device(user, device, &fingerprint).await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(
        (messages[0].body(), trust(&messages[0])),
        (Some("one"), Trust::Verified)
    );
    alice.client.block_device(user, device).await.unwrap();
    bobs_room.send_text("two").await.unwrap();
    assert!(alice.messages().await.is_empty());
    let alice = alice.kill_and_open().await;
    alice.client.orchestrator().retry_waiting().await.unwrap();
    let messages = alice.messages().await;
    assert_eq!((messages[0].body(), trust(&messages[0])), (Some("two"), Trust::Blocked));
}

#[tokio::test]
async fn a_device_that_was_deleted_is_told_from_one_that_is_not_known() {
    let mut cast = Cast::acquainted().await;
    let mut session = cast.bob.megolm_session(cast.room.id());
    let olm = cast
        .bob
        .newest_olm_session(cast.alice.user_id(), cast.alice.device_id());
    cast.bob.share_room_key(&olm.unwrap(), &session);
    cast.bob.send_text(&mut session, "here");
    let late = session.encrypt(
        session
            .payload("m.room.message", json!({"msgtype": "m.text", "body": "late"}))
            .to_string(),
    );
    let events = cast.events().await;
    let [Event::Message(message)] = events.as_slice() else {
        unreachable!("{events:?}")
    };
    assert_eq!(trust(message), Trust::Unsigned);
    cast.server.delete_device(cast.bob.user(), cast.bob.device());
    cast.sync().await;
    cast.server
        .inject(cast.room.id(), cast.bob.user(), "m.room.encrypted", late);
    let events = cast.events().await;
    let [Event::Message(message)] = events.as_slice() else {
        unreachable!("{events:?}")
    };
    assert_eq!((message.body(), trust(message)), (Some("late"), Trust::Deleted));
}

//! Histories that are encrypted and not delivered yet: who may not have them any more is given nothing.

use mx_e2ee::Event;
use mx_test_homeserver::Fault;
use serde_json::json;

use crate::{
    history::{Past, past},
    identity::reset,
    manifest,
    world::{Device, World},
};

/// What is for bob is encrypted, and the homeserver did not take it.
async fn ready() -> Past {
    let past = past().await;
    let bob = past.bob.client.user_id();
    past.server.fault(Fault::drop_before("/sendToDevice/").for_ever());
    past.room.invite_with_history(bob).await.unwrap_err();
    assert_eq!(past.server.files().len(), 1, "it is ready");
    past.server.behave();
    past.bob.client.sync().await.unwrap();
    past.bob.client.join(past.room.id().as_str()).await.unwrap();
    past
}

/// Why the history was not given, after two syncs.
async fn told(alice: &Device) -> Vec<String> {
    let mut events = alice.events().await;
    events.extend(alice.events().await);
    let codes = events.into_iter().filter_map(|event| match event {
        Event::HistoryNotShared(not) => Some(not.code),
        _ => None,
    });
    codes.collect()
}

fn given(server: &World) -> usize {
    let log = server.log();
    log.iter()
        .filter(|request| request.path.contains("/sendToDevice/") && request.status == Some(200))
        .count()
}

#[tokio::test]
async fn what_was_ready_is_given() {
    let past = ready().await;
    assert!(told(&past.alice).await.is_empty());
    assert_eq!(given(&past.server), 1);
}

#[tokio::test]
async fn a_device_that_was_blocked_is_not_given_what_was_ready() {
    let past = ready().await;
    let bob = &past.bob.client;
    past.alice
        .client
        .block_device(bob.user_id(), bob.device_id())
        .await
        .unwrap();
    assert_eq!(told(&past.alice).await, ["history_no_devices"]);
    assert_eq!(given(&past.server), 0);
}

#[tokio::test]
async fn a_user_whose_identity_was_replaced_is_not_given_what_was_ready() {
    let past = ready().await;
    let bob = &past.bob.client;
    let key = bob.identity_status().await.unwrap().master_key.unwrap();
    past.alice.client.verify_user_by_key(bob.user_id(), &key).await.unwrap();
    reset(bob).await;
    assert_eq!(told(&past.alice).await, ["identity_changed"]);
    assert_eq!(given(&past.server), 0);
}

#[tokio::test]
async fn what_was_ready_is_not_given_to_who_differs_from_the_manifest() {
    let Past {
        server,
        alice,
        bob,
        room,
    } = ready().await;
    drop(room);
    let wrong = alice.client.key_status().await.unwrap().ed25519;
    let devices = json!({bob.client.device_id().as_str(): wrong});
    let manifest = json!({"version": 1, "users": {"@bob:localhost": {"devices": devices}}});
    let alice = alice.kill_and_open_with(manifest::with(&manifest)).await;
    assert_eq!(told(&alice).await, ["trust_manifest_drift"]);
    assert_eq!(given(&server), 0);
}

//! A login that has ended, for now or for good, or that is another device's. Rows NW-21, NW-22 and NW-28.

use std::time::Duration;

use mx_e2ee::{Client, Event};
use mx_test_homeserver::Fault;

use crate::{
    attachments::{code, requests},
    refresh::{expire, renewable},
    world::{builder, key, pair},
};

#[tokio::test]
async fn nw_21_a_soft_logout_keeps_the_store_and_the_same_device_logs_in_again() {
    let pair = renewable().await;
    let device = pair.alice.client.device_id().to_owned();
    expire(&pair.server, &pair.alice.client, true);
    pair.server
        .revoke_refresh_token(pair.alice.client.user_id(), &device, true);
    assert_eq!(code(pair.alice.client.sync().await), "soft_logged_out");
    assert_eq!(requests(&pair.server, "/refresh"), 1);
    assert_eq!(code(pair.alice.client.sync().await), "soft_logged_out");
    assert_eq!(
        requests(&pair.server, "/refresh"),
        1,
        "what was refused is not asked again"
    );
    let keys = pair.server.one_time_keys_left(pair.alice.client.user_id(), &device);
    pair.alice.client.close().await.unwrap();
    let again = builder(&pair.server, &pair.alice.disk)
        .directory(pair.alice.directory.path())
        .login("alice", "password")
        .await
        .unwrap();
    assert_eq!(again.device_id(), device);
    assert_eq!(pair.server.one_time_keys_left(again.user_id(), &device), keys);
    pair.bobs_room.send_text("still there").await.unwrap();
    let events = again.receive(Duration::ZERO).await.unwrap();
    assert!(matches!(&events[..], [Event::Message(message)] if message.body() == Some("still there")));
}

#[tokio::test]
async fn nw_28_a_token_of_another_device_is_refused_before_anything_is_uploaded() {
    let pair = pair().await;
    let (user, ours) = (
        pair.alice.client.user_id().to_owned(),
        pair.alice.client.device_id().to_owned(),
    );
    let bob = pair.bob.client.user_id().to_owned();
    pair.alice.client.close().await.unwrap();
    for token in [pair.server.token(&user, "OTHER"), pair.server.token(&bob, "OTHER")] {
        let elsewhere = tempfile::tempdir().unwrap();
        let before = requests(&pair.server, "/keys/");
        let login = builder(&pair.server, &pair.alice.disk)
            .directory(elsewhere.path())
            .login_with_token(&token)
            .await;
        assert_eq!(code(login), "store_of_another_device");
        assert_eq!(requests(&pair.server, "/keys/"), before);
        assert!(!elsewhere.path().join("session.json").exists());
    }
    // The store is what it was.
    let alice = builder(&pair.server, &pair.alice.disk)
        .directory(pair.alice.directory.path())
        .open()
        .await
        .unwrap();
    assert_eq!(alice.device_id(), ours);
    assert!(alice.key_status().await.unwrap().published);
}

#[tokio::test]
async fn nw_22_a_logout_ends_the_store_for_good_and_says_what_to_do() {
    let pair = renewable().await;
    let (user, device) = (
        pair.alice.client.user_id().to_owned(),
        pair.alice.client.device_id().to_owned(),
    );
    let world = &pair.server;
    pair.server.delete_device(&user, &device);
    assert_eq!(code(pair.alice.client.sync().await), "logged_out");
    pair.alice.client.close().await.unwrap();
    let builder = || builder(world, &pair.alice.disk).directory(pair.alice.directory.path());
    let requests_before = world.requests();
    for _ in 0..2 {
        let error = builder().open().await.unwrap_err();
        world.examine(&error);
        assert_eq!(error.code(), "device_deleted");
        assert!(
            error.to_string().contains("log out, and log in again for a new device"),
            "{error}"
        );
    }
    assert_eq!(world.requests(), requests_before, "nothing was sent");
    // A password does not bring it back, and makes no device of the same name.
    assert_eq!(code(builder().login("alice", "password").await), "device_deleted");
    assert_eq!(requests(world, "/login"), 2, "those of alice and bob");
    assert!(world.devices_of(&user).is_empty());
    // The way out that the error names.
    let directory = pair.alice.directory.path();
    let ended = Client::builder()
        .transport(world.transport())
        .key(key())
        .directory(directory)
        .logout()
        .await
        .unwrap();
    assert_eq!(ended.device_id, device);
    let anew = Client::builder()
        .homeserver("http://localhost")
        .transport(world.transport())
        .directory(directory)
        .login("alice", "password")
        .await
        .unwrap();
    assert_ne!(anew.device_id(), device);
}

#[tokio::test]
async fn nw_22_what_is_not_the_end_of_the_device_does_not_end_its_store() {
    let pair = renewable().await;
    let hard = r#"{"errcode":"M_UNKNOWN_TOKEN","error":""}"#;
    // A token that is renewed, and one for which the homeserver says that the device is there.
    expire(&pair.server, &pair.alice.client, false);
    pair.alice.client.sync().await.unwrap();
    pair.server.fault(Fault::status("/sync", 403, hard));
    assert_eq!(code(pair.alice.client.sync().await), "homeserver_refused");
    let device = pair.alice.client.device_id().to_owned();
    pair.server
        .revoke_refresh_token(pair.alice.client.user_id(), &device, true);
    expire(&pair.server, &pair.alice.client, false);
    assert_eq!(code(pair.alice.client.sync().await), "soft_logged_out");
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    assert_eq!(alice.client.device_id(), device);
}

/// What an account is told on a sync, how a program tells it apart, and whether it goes away by itself.
#[tokio::test]
async fn nw_29_what_is_wrong_with_an_account_is_told_apart_and_ends_no_device() {
    let pair = pair().await;
    for (status, errcode, expected, passes) in [
        (403, "M_USER_DEACTIVATED", "user_deactivated", false),
        (401, "M_USER_DEACTIVATED", "user_deactivated", false),
        (401, "M_USER_LOCKED", "user_locked", true),
        (403, "M_USER_SUSPENDED", "user_suspended", false),
        (403, "M_CONSENT_NOT_GIVEN", "consent_not_given", false),
        (429, "M_LIMIT_EXCEEDED", "rate_limited", true),
    ] {
        let body = format!(r#"{{"errcode":"{errcode}","error":"so it is","soft_logout":true}}"#);
        pair.server.fault(Fault::status("/sync", status, &body));
        let error = pair.alice.client.sync().await.unwrap_err();
        pair.server.examine(&error);
        assert_eq!((error.code(), error.is_transient()), (expected, passes), "{errcode}");
    }
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    alice.client.sync().await.unwrap();
}

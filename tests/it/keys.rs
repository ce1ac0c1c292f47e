//! Our keys on the homeserver: published, topped up, and never stuck.

use mx_crypto_store::backend::MemoryDisk;
use mx_test_homeserver::Homeserver;
use ruma::{device_id, user_id};

use crate::world::{Device, Pair, builder, pair};

#[tokio::test]
async fn a_login_publishes_device_keys_one_time_keys_and_a_fallback_key() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let status = alice.client.key_status().await.unwrap();
    assert!(status.published);
    assert_eq!(status.one_time_keys, 50);
    let uploads: Vec<_> = server
        .log()
        .into_iter()
        .filter(|exchange| exchange.path.ends_with("/keys/upload"))
        .collect();
    assert!(
        uploads
            .iter()
            .any(|upload| upload.request_body["device_keys"].is_object())
    );
    assert!(uploads.iter().any(|upload| {
        upload.request_body["fallback_keys"]
            .as_object()
            .is_some_and(|keys| keys.len() == 1)
    }));
}

#[tokio::test]
async fn one_time_keys_are_topped_up_from_the_servers_count() {
    let Pair { server, bob, room, .. } = pair().await;
    room.send_text("takes one").await.unwrap();
    assert_eq!(
        server.one_time_keys_left(bob.client.user_id(), bob.client.device_id()),
        49
    );
    bob.client.sync().await.unwrap();
    assert_eq!(
        server.one_time_keys_left(bob.client.user_id(), bob.client.device_id()),
        50
    );
}

#[tokio::test]
async fn a_count_that_is_left_out_means_none() {
    let Pair { server, bob, .. } = pair().await;
    server.exhaust_keys(bob.client.user_id(), bob.client.device_id());
    server.rewrite("/sync", |_, response| {
        let mut body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        body.as_object_mut().unwrap().remove("device_one_time_keys_count");
        response.map(|_| body.to_string().into())
    });
    bob.client.sync().await.unwrap();
    assert_eq!(
        server.one_time_keys_left(bob.client.user_id(), bob.client.device_id()),
        50
    );
}

#[tokio::test]
async fn a_device_id_whose_keys_are_others_is_refused() {
    let server = Homeserver::new();
    let alice = server.register("alice", "password");
    let first = MemoryDisk::new();
    let token = server.token(&alice, "DEVICE");
    let client = builder(&server, &first).login_with_token(&token).await.unwrap();
    assert_eq!(
        (client.user_id(), client.device_id()),
        (user_id!("@alice:localhost"), device_id!("DEVICE"))
    );
    client.close().await.unwrap();
    // The store is lost and the login is kept.
    let error = builder(&server, &MemoryDisk::new())
        .login_with_token(&token)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "device_keys_mismatch");
}

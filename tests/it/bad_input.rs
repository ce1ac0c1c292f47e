//! What goes wrong from outside: each a typed error that says what to do, and nothing is lost.

use std::sync::Arc;

use mx_crypto_store::{
    KeySource, Passphrase, StoreKey,
    backend::{Memory, MemoryDisk, Sqlite},
};
use mx_e2ee::{Client, Error};
use mx_test_homeserver::{Fault, Homeserver};

use crate::world::{Device, Pair, builder, key, pair};

fn code<T>(result: Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn a_wrong_password_costs_nothing() {
    let server = Homeserver::new();
    let _alice = server.register("alice", "password");
    let disk = MemoryDisk::new();
    for (user, password) in [("alice", "wrong"), ("nobody", "password"), ("alice", "")] {
        assert_eq!(
            code(builder(&server, &disk).login(user, password).await),
            "wrong_password"
        );
    }
    assert_eq!(code(builder(&server, &disk).login("alice", "password").await), "ok");
}

#[tokio::test]
async fn an_unknown_room_and_a_plaintext_room_are_refused() {
    let Pair { server, alice, .. } = pair().await;
    let before = server.log().iter().filter(|exchange| exchange.method == "PUT").count();
    let unknown = alice.client.room(ruma::room_id!("!unknown:localhost"));
    assert_eq!(code(unknown.send_text("x").await), "not_in_room");
    let plain = alice.client.create_plaintext_room(None, &[]).await.unwrap();
    assert_eq!(code(plain.send_text("x").await), "room_not_encrypted");
    for given in ["nonsense", "#no-server", ""] {
        assert_eq!(code(alice.client.join(given).await), "invalid_id");
    }
    assert_eq!(code(alice.client.join("#nowhere:localhost").await), "not_found");
    let after = server.log().iter().filter(|exchange| exchange.method == "PUT").count();
    assert_eq!(after, before, "nothing was sent");
}

#[tokio::test]
async fn plaintext_never_goes_into_an_encrypted_room() {
    let Pair { server, room, .. } = pair().await;
    let content = serde_json::json!({"msgtype": "m.text", "body": "oops"});
    assert_eq!(
        code(room.send_plaintext("m.room.message", content.clone()).await),
        "room_is_encrypted"
    );
    assert!(
        !server
            .timeline(room.id())
            .iter()
            .any(|event| event["type"] == "m.room.message")
    );
    // A homeserver that denies the encryption afterwards changes nothing.
    server.rewrite("/state/m.room.encryption", |_, _| {
        let mut denial = http::Response::new(r#"{"errcode":"M_NOT_FOUND","error":"x"}"#.into());
        *denial.status_mut() = http::StatusCode::NOT_FOUND;
        denial
    });
    assert_eq!(
        code(room.send_plaintext("m.room.message", content).await),
        "room_is_encrypted"
    );
    room.send_text("still encrypted").await.unwrap();
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let transport = mx_transport::ReqwestTransport::builder().build().unwrap();
    let login = Client::builder()
        .homeserver("http://127.0.0.1:9")
        .transport(Arc::new(transport))
        .directory(directory.path())
        .login("alice", "password")
        .await;
    assert!(login.as_ref().err().unwrap().is_transient());
    assert_eq!(code(login), "unreachable");
    assert_eq!(
        code(
            Client::builder()
                .homeserver("no sense")
                .in_memory()
                .login("a", "b")
                .await
        ),
        "invalid_homeserver"
    );
    assert_eq!(
        code(Client::builder().in_memory().login("a", "b").await),
        "configuration"
    );
}

#[tokio::test]
async fn a_wrong_key_a_lost_key_and_a_lock_are_told_apart() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let Device {
        client,
        disk,
        directory,
        ..
    } = alice;
    let open = |disk: &MemoryDisk, key: KeySource| {
        let backend = Memory::open(disk).map(|backend| Arc::new(backend) as Arc<_>);
        let builder = Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport());
        let directory = directory.path().to_owned();
        async move { builder.backend(backend?, key).directory(directory).open().await }
    };
    assert_eq!(code(open(&disk, key()).await), "store_in_use");
    client.close().await.unwrap();
    assert_eq!(
        code(open(&disk, KeySource::Bytes(StoreKey::from_bytes([8; 32]))).await),
        "store_wrong_key"
    );
    let missing = directory.path().join("pickle.key");
    assert_eq!(
        code(open(&disk, KeySource::File(missing.clone())).await),
        "store_key_missing"
    );
    assert!(!missing.exists(), "no key is made beside a store");
    assert_eq!(code(open(&disk, key()).await), "ok");
}

#[tokio::test]
async fn a_store_of_another_device_is_refused() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let (alices_disk, bobs_directory) = (alice.disk.clone(), bob.directory.path().to_owned());
    alice.client.close().await.unwrap();
    let mixed = builder(&server, &alices_disk).directory(&bobs_directory).open().await;
    assert_eq!(code(mixed), "store_of_another_device");
    let bobs = || server.devices_of(ruma::user_id!("@bob:localhost"));
    let before = bobs();
    let login = builder(&server, &alices_disk).login("bob", "password").await;
    assert_eq!(code(login), "store_of_another_device");
    assert_eq!(bobs(), before, "no device is left behind");
}

#[tokio::test]
async fn two_processes_do_not_share_a_directory() {
    let server = Homeserver::new();
    let _alice = server.register("alice", "password");
    let directory = tempfile::tempdir().unwrap();
    let builder = || {
        Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport())
            .directory(directory.path())
    };
    let client = builder().login("alice", "password").await.unwrap();
    assert_eq!(code(builder().open().await), "store_in_use");
    assert_eq!(code(builder().login("alice", "password").await), "already_logged_in");
    drop(Sqlite::open(directory.path().join("store")).await.unwrap_err());
    client.close().await.unwrap();
    assert_eq!(code(builder().open().await), "ok");
}

#[tokio::test]
async fn unreadable_answers_lose_nothing() {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    room.send_text("survives").await.unwrap();
    for body in ["", "<html>", "{}", "[]", "null", r#"{"next_batch":7}"#, "\u{0}\u{1}"] {
        server.fault(Fault::body("/sync", body));
        assert_eq!(code(bob.client.sync().await), "malformed_sync", "{body:?}");
    }
    for length in [0, 1, 20, 60] {
        server.fault(Fault::truncate("/sync", length));
        assert_eq!(code(bob.client.sync().await), "malformed_sync");
    }
    server.fault(Fault::status("/sync", 502, "<html>Bad Gateway</html>"));
    assert_eq!(code(bob.client.sync().await), "homeserver_failed");
    server.fault(Fault::drop_after("/sync"));
    assert_eq!(code(bob.client.sync().await), "interrupted");
    assert_eq!(bob.bodies().await, ["survives"]);
}

#[tokio::test]
async fn unreadable_answers_to_a_send_leave_the_ratchet_alone() {
    let Pair { server, bob, room, .. } = pair().await;
    for (path, body, expected) in [
        ("/members", "{}", "members_incomplete"),
        ("/keys/query", "<html>", "unreadable_answer"),
        ("/keys/query", r#"{"device_keys":7}"#, "unreadable_answer"),
        ("/keys/claim", "[]", "unreadable_answer"),
    ] {
        server.fault(Fault::body(path, body));
        assert_eq!(code(room.send_text("not sent").await), expected, "{path}");
    }
    server.fault(Fault::body("/state/m.room.history_visibility", "<html>"));
    room.send_text("one").await.unwrap();
    assert_eq!(bob.bodies().await, ["one"]);
}

#[tokio::test]
async fn an_expired_token_says_whether_the_device_is_still_there() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let (user, device) = (alice.client.user_id().to_owned(), alice.client.device_id().to_owned());
    server.expire_token(&user, &device, true);
    assert_eq!(code(alice.client.sync().await), "soft_logged_out");
    alice.client.close().await.unwrap();
    // The same device logs in again, with the same keys.
    let again = builder(&server, &alice.disk)
        .directory(alice.directory.path())
        .login("alice", "password")
        .await
        .unwrap();
    assert_eq!(again.device_id(), device);
    assert!(again.key_status().await.unwrap().published);
    server.delete_device(&user, &device);
    assert_eq!(code(again.sync().await), "logged_out");
    again.close().await.unwrap();
    let login = builder(&server, &alice.disk)
        .directory(alice.directory.path())
        .login("alice", "password")
        .await;
    assert_eq!(code(login), "device_deleted");
}

#[tokio::test]
async fn a_login_without_its_store_is_no_new_device() {
    let server = Homeserver::new();
    let alice = Device::new(&server, "alice").await;
    let (directory, device) = (alice.directory.path().to_owned(), alice.client.device_id().to_owned());
    alice.client.close().await.unwrap();
    let empty = MemoryDisk::new();
    assert_eq!(
        code(builder(&server, &empty).directory(&directory).open().await),
        "store_lost"
    );
    assert_eq!(
        code(
            builder(&server, &empty)
                .directory(&directory)
                .login("alice", "password")
                .await
        ),
        "already_logged_in"
    );
    // The way out that the errors name: log out, and log in as a new device.
    let ended = Client::builder()
        .transport(server.transport())
        .key(key())
        .directory(&directory)
        .logout()
        .await
        .unwrap();
    assert_eq!(ended.device_id, device);
    let again = builder(&server, &empty)
        .directory(&directory)
        .login("alice", "password")
        .await
        .unwrap();
    assert_ne!(again.device_id(), device);
}

#[tokio::test]
async fn after_a_logout_the_next_login_is_a_new_device() {
    let server = Homeserver::new();
    let _alice = server.register("alice", "password");
    let directory = tempfile::tempdir().unwrap();
    let builder = || {
        let builder = Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport());
        builder.directory(directory.path())
    };
    let first = builder().login("alice", "password").await.unwrap();
    let device = first.device_id().to_owned();
    first.logout().await.unwrap();
    assert_eq!(code(builder().open().await), "not_logged_in");
    let second = builder().login("alice", "password").await.unwrap();
    assert_ne!(second.device_id(), device);
    assert!(second.key_status().await.unwrap().published);
    let aside = directory.path().join("logged-out").join(format!("{device}.0"));
    assert!(
        aside.join("store").is_dir() && aside.join("pickle.key").is_file(),
        "nothing was destroyed"
    );
}

#[tokio::test]
async fn a_passphrase_opens_the_store_in_place_of_a_key_file() {
    let server = Homeserver::new();
    let _alice = server.register("alice", "password");
    let directory = tempfile::tempdir().unwrap();
    let builder = |passphrase: &str| {
        Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport())
            .directory(directory.path())
            .key(KeySource::Passphrase(Passphrase::new(passphrase)))
    };
    let alice = builder("correct horse").login("alice", "password").await.unwrap();
    let device = alice.device_id().to_owned();
    alice.close().await.unwrap();
    assert!(!directory.path().join("pickle.key").exists());
    assert_eq!(code(builder("wrong").open().await), "store_wrong_key");
    let with_a_file = Client::builder()
        .directory(directory.path())
        .transport(server.transport());
    assert_eq!(code(with_a_file.open().await), "store_wrong_key_kind");
    assert_eq!(builder("correct horse").open().await.unwrap().device_id(), device);
    std::fs::remove_dir_all(directory.path().join("store")).unwrap();
    assert_eq!(code(builder("correct horse").open().await), "store_lost");
    assert_eq!(
        code(builder("correct horse").open().await),
        "store_lost",
        "no store was begun"
    );
}

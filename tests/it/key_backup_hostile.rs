//! Backups that somebody else made, and keys that somebody else put into ours (row EX-07).

use matrix_sdk_crypto::{
    backups::MegolmV1BackupKey,
    olm::{ExportedRoomKey, InboundGroupSession},
    vodozemac::megolm::ExportedSessionKey,
};
use mx_e2ee::{BackupHalt, Event};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    identity::set_up,
    key_backup::{count, keys, lost, puts},
    world::{Pair, World, pair},
};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

/// Whoever runs the homeserver knows the backup's public key, and can put anything into it.
#[tokio::test]
async fn a_forged_key_in_the_backup_is_not_in_the_way_of_the_real_one() {
    let lost = lost().await;
    lost.alice.client.sync().await.unwrap();
    let user = lost.alice.client.user_id();
    let sessions = lost.alice.room_keys().await;
    let real = &sessions[0];
    let (room, session) = (real.room_id().to_owned(), real.session_id().to_owned());
    let genuine = lost.server.backed_up(user)[room.as_str()][&session].clone();
    let mut bytes = real.export().await.session_key.to_bytes();
    bytes[9] ^= 1;
    let export = real.export().await;
    let forged = ExportedRoomKey {
        session_key: ExportedSessionKey::from_bytes(&bytes).unwrap(),
        ..export
    };
    let forged = InboundGroupSession::try_from(&forged).unwrap();
    assert_eq!(forged.session_id(), session);
    let version: Value = {
        let latest = lost.alice.client.homeserver();
        let request = ruma::api::client::backup::get_latest_backup_info::v3::Request::new();
        serde_json::from_str(latest.send(request).await.unwrap().algorithm.json().get()).unwrap()
    };
    let public = MegolmV1BackupKey::from_base64(version["auth_data"]["public_key"].as_str().unwrap()).unwrap();
    let forged = serde_json::to_value(public.encrypt(forged).await.unwrap()).unwrap();
    lost.server.set_backed_up(user, &room, &session, forged);
    lost.other.client.sync().await.unwrap();
    assert!(lost.other.messages().await.is_empty());
    assert_eq!(
        lost.other.client.waiting_counts().await.unwrap().waiting,
        2,
        "they wait on"
    );
    lost.server.set_backed_up(user, &room, &session, genuine);
    assert!(
        lost.other
            .client
            .orchestrator()
            .fetch_room_key(&room, &session)
            .await
            .unwrap()
    );
    assert_eq!(lost.other.bodies().await, ["one", "two"]);
}

/// What an attacker would have as a backup: their own key, with signatures that prove nothing.
fn attackers(server: &World, user: &UserId) -> Vec<Value> {
    let peer = EvilPeer::new(server, "alice", "MALLORY");
    let mut peers = json!({"public_key": peer.curve25519().to_base64()});
    peer.sign(&mut peers);
    let stranger = EvilPeer::new(server, "mallory", "M2");
    let mut strangers = json!({"public_key": peer.curve25519().to_base64()});
    stranger.sign(&mut strangers);
    let garbage = json!({user.as_str(): {"ed25519:X": "AAAA"}});
    vec![
        json!({"public_key": peer.curve25519().to_base64()}),
        peers,
        strangers,
        json!({"public_key": peer.curve25519().to_base64(), "signatures": garbage}),
    ]
}

#[tokio::test]
async fn ex_07_a_backup_with_a_strangers_key_is_given_nothing() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    room.send_text("one").await.unwrap();
    let user = alice.client.user_id().to_owned();
    for auth_data in attackers(&server, &user) {
        server.new_backup(&user, ALGORITHM, auth_data);
        let error = alice.client.enable_backup(false).await.unwrap_err();
        server.examine(&error);
        assert_eq!(error.code(), "backup_untrusted");
        assert_eq!(
            alice.client.restore_backup(None).await.unwrap_err().code(),
            "backup_untrusted"
        );
        assert_eq!(alice.client.back_up().await.unwrap(), 0);
    }
    server.new_backup(&user, "org.example.rot13", json!({}));
    assert_eq!(
        alice.client.enable_backup(false).await.unwrap_err().code(),
        "backup_unsupported"
    );
    assert_eq!(puts(&server), 0);
    // An identity that is made meanwhile does not change that; a backup of our own does.
    assert_eq!(set_up(&alice.client).await.backup_version.as_deref(), Some("6"));
    alice.client.sync().await.unwrap();
    assert_eq!(count(&server, &user), 1);
    drop(bob);
}

#[tokio::test]
async fn ex_07_a_backup_that_takes_the_place_of_ours_is_given_nothing() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    set_up(&alice.client).await;
    room.send_text("one").await.unwrap();
    alice.client.sync().await.unwrap();
    let user = alice.client.user_id().to_owned();
    // With all that is public of ours, but for the key.
    let request = ruma::api::client::backup::get_latest_backup_info::v3::Request::new();
    let ours = alice.client.homeserver().send(request).await.unwrap().algorithm;
    let mut ours: Value = serde_json::from_str(ours.json().get()).unwrap();
    let theirs = EvilPeer::new(&server, "mallory", "M");
    ours["auth_data"]["public_key"] = theirs.curve25519().to_base64().into();
    server.new_backup(&user, ALGORITHM, ours["auth_data"].clone());
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    assert_eq!(count(&server, &user), 0, "nothing is in it");
    let told = alice.events().await;
    assert!(
        matches!(told.as_slice(), [Event::BackupStopped(event)] if event.because == BackupHalt::Replaced),
        "{told:?}"
    );
    assert_eq!(
        alice.client.enable_backup(false).await.unwrap_err().code(),
        "backup_untrusted"
    );
    assert_eq!(alice.client.enable_backup(true).await.unwrap(), "3");
    assert_eq!(alice.client.back_up().await.unwrap(), 2);
}

/// A device that uses its backup, with one key in it, and a proxy that answers for the homeserver.
async fn in_use() -> Pair {
    let pair = pair().await;
    set_up(&pair.alice.client).await;
    pair.room.send_text("one").await.unwrap();
    pair.alice.client.sync().await.unwrap();
    assert_eq!(count(&pair.server, pair.alice.client.user_id()), 1);
    pair
}

#[tokio::test]
async fn a_key_whose_backup_was_not_made_does_not_take_the_place_of_the_real_one() {
    let Pair { server, alice, bob, .. } = in_use().await;
    let refused = "{\"errcode\": \"M_UNKNOWN\", \"error\": \"not now\"}";
    server.fault(Fault::status("/room_keys/version", 404, "{\"errcode\": \"M_NOT_FOUND\"}").method(http::Method::GET));
    server.fault(Fault::status("/room_keys/version", 400, refused).method(http::Method::POST));
    alice.client.enable_backup(false).await.unwrap_err();
    server.behave();
    assert_eq!(alice.client.enable_backup(false).await.unwrap(), "1");
    assert_eq!(alice.client.restore_backup(None).await.unwrap().total, 1);
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    assert_eq!(count(&server, alice.client.user_id()), 2);
    assert_eq!(alice.client.restore_backup(None).await.unwrap().unusable, 0);
}

#[tokio::test]
async fn a_page_that_is_not_found_does_not_say_that_there_is_no_backup() {
    let Pair { server, alice, .. } = in_use().await;
    for page in ["<html>not found</html>", "{\"errcode\": \"M_UNRECOGNIZED\"}"] {
        server.fault(Fault::status("/room_keys/version", 404, page).method(http::Method::GET));
        alice.client.enable_backup(true).await.unwrap_err();
        server.behave();
    }
    let made = server.log();
    let made = made
        .iter()
        .filter(|exchange| exchange.method == "POST" && exchange.path.ends_with("/room_keys/version"));
    assert_eq!(made.count(), 1);
    assert_eq!(alice.client.enable_backup(false).await.unwrap(), "1");
}

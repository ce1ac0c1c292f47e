//! The key of the backup, given by another device of ours after a verification.

use matrix_sdk_crypto::store::types::BackupDecryptionKey;
use mx_e2ee::VerificationId;
use mx_test_homeserver::Fault;

use super::{count, keys};
use crate::{
    identity::{second, set_up},
    verification_cast::{is_done, settle, with},
    world::{Device, Pair, World, pair},
};

/// Compare, and say that it is the same: until both sides are done.
async fn compared(new: &Device, old: &Device) -> VerificationId {
    let asked = new.client.orchestrator().verify_own_devices().await.unwrap();
    settle(&[old]).await;
    let answered = with(old, new.client.user_id());
    let (asking, answering) = (new.client.orchestrator(), old.client.orchestrator());
    answering.accept_verification(&answered).await.unwrap();
    settle(&[new, old]).await;
    asking.start_sas(&asked).await.unwrap();
    settle(&[new, old]).await;
    answering.confirm_verification(&answered).await.unwrap();
    asking.confirm_verification(&asked).await.unwrap();
    settle(&[new, old, new, old]).await;
    assert!(is_done(new, &asked) && is_done(old, &answered));
    asked
}

/// An account whose old device has a backup with keys in it, and its new device.
struct Account {
    server: World,
    old: Device,
    new: Device,
    _bob: Device,
}

async fn account() -> Account {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    set_up(&alice.client).await;
    room.send_text("one").await.unwrap();
    keys(&alice.client, &bob, 1).await;
    alice.client.sync().await.unwrap();
    let new = second(&server, "alice").await;
    settle(&[&alice, &new]).await;
    Account {
        server,
        old: alice,
        new,
        _bob: bob,
    }
}

#[tokio::test]
async fn a_device_that_is_verified_is_given_the_backup_too() {
    let Account { server, old, new, .. } = account().await;
    assert!(!new.client.backup_status().await.unwrap().enabled);
    compared(&new, &old).await;
    let status = new.client.identity_status().await.unwrap();
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    assert!(status.backup.enabled);
    assert_eq!(status.backup.version.as_deref(), Some("1"));
    let restored = new.client.restore_backup(None).await.unwrap();
    assert_eq!((restored.total, restored.unusable), (2, 0));
    assert_eq!(count(&server, new.client.user_id()), 2);
    // It is looked at once, also after a restart.
    let new = new.kill_and_open().await;
    let asked = |server: &World| {
        let log = server.log();
        log.iter()
            .filter(|exchange| exchange.method == "GET" && exchange.path.ends_with("/room_keys/version"))
            .count()
    };
    let before = asked(&server);
    new.client.sync().await.unwrap();
    assert_eq!(asked(&server), before);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_given_waits_while_the_homeserver_does_not_answer() {
    let Account { server, old, new, .. } = account().await;
    server.fault(Fault::status("/room_keys/version", 502, "{}").for_ever());
    compared(&new, &old).await;
    let new = new.kill_and_open().await;
    server.behave();
    new.client.sync().await.unwrap();
    assert!(new.client.backup_status().await.unwrap().enabled);
}

#[tokio::test]
async fn a_key_of_another_backup_is_not_used() {
    let Account { server, old, new, .. } = account().await;
    // A homeserver shows one of its own, and the old device still holds the key of the one that it made.
    let other = BackupDecryptionKey::new().to_backup_info();
    let other = serde_json::to_value(&other).unwrap();
    let algorithm = other["algorithm"].as_str().unwrap();
    server.new_backup(old.client.user_id(), algorithm, other["auth_data"].clone());
    compared(&new, &old).await;
    let status = new.client.backup_status().await.unwrap();
    assert!(!status.enabled, "{status:?}");
    assert!(!status.on_server.unwrap().is_ours);
}

#[tokio::test]
async fn a_backup_that_is_off_here_stays_off() {
    let Account { old, new, .. } = account().await;
    new.client.delete_backup().await.unwrap();
    assert_eq!(old.client.enable_backup(true).await.unwrap(), "2");
    compared(&new, &old).await;
    assert!(
        !new.client.backup_status().await.unwrap().enabled,
        "somebody here said so"
    );
}

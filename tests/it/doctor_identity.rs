//! The checkup of an identity and a backup that lack something: each is found by its name, and what it advises mends it.

use mx_e2ee::{Checkup, Client, FindingCode, RecoveryKeeping, Severity};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::api::client::dehydrated_device::delete_dehydrated_device;
use serde_json::{Value, json};

use crate::{
    cli::Shell,
    doctor::{codes, finding, well},
    edits::edit_syncs,
    identity::{second, set_up},
    verification_cast::{is_done, settle, with},
    world::{Device, Pair, World},
};

/// It is the only finding, as bad as this, and with this advice. It needs a decision or a secret: nothing mends it by itself.
async fn is_found(client: &Client, code: FindingCode, severity: Severity, mend: &str) {
    let found = client.doctor().await;
    assert_eq!(codes(&found), [code.code()], "{found:#?}");
    let one = finding(&found, code);
    assert_eq!((one.severity, one.mend), (severity, mend));
    assert!(!one.fixable && one.details.is_empty(), "nothing is said twice: {one:?}");
    let fixed = client.doctor_with(Checkup::fixing()).await;
    assert_eq!(codes(&fixed), [code.code()], "{fixed:#?}");
}

async fn is_well(client: &Client) {
    let found = client.doctor().await;
    assert_eq!(codes(&found), [""; 0], "{found:#?}");
}

#[tokio::test]
async fn a_verified_device_without_the_private_keys_is_found_and_recovers_them() {
    let server = World::new();
    let old = Device::new(&server, "alice").await;
    let key = set_up(&old.client).await.recovery_key.unwrap();
    let new = second(&server, "alice").await;
    // The secrets are never asked for.
    edit_syncs(&server, |body| {
        let events = body.pointer_mut("/to_device/events").and_then(Value::as_array_mut);
        if let Some(events) = events {
            events.retain(|event| event["type"] != "m.secret.request");
        }
    });
    settle(&[&old, &new]).await;
    let asked = new.client.orchestrator().verify_own_devices().await.unwrap();
    settle(&[&old]).await;
    let answered = with(&old, new.client.user_id());
    old.client.orchestrator().accept_verification(&answered).await.unwrap();
    settle(&[&new, &old]).await;
    new.client.orchestrator().start_sas(&asked).await.unwrap();
    settle(&[&new, &old]).await;
    old.client.orchestrator().confirm_verification(&answered).await.unwrap();
    new.client.orchestrator().confirm_verification(&asked).await.unwrap();
    settle(&[&new, &old, &new, &old]).await;
    assert!(is_done(&new, &asked) && is_done(&old, &answered));

    let found = new.client.doctor().await;
    assert_eq!(
        codes(&found),
        ["backup_key_missing", "identity_incomplete"],
        "{found:#?}"
    );
    let incomplete = finding(&found, FindingCode::IdentityIncomplete);
    assert_eq!(
        (incomplete.severity, incomplete.mend, incomplete.fixable),
        (Severity::Note, "mx identity recover", false)
    );
    new.client.recover_identity(&key).await.unwrap();
    is_well(&new.client).await;
}

#[tokio::test]
async fn a_dehydrated_device_that_the_homeserver_lost_is_found_and_made_again() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    let first = alice.client.dehydrate(&key).await.unwrap();
    is_well(&alice.client).await;
    let lost = delete_dehydrated_device::unstable::Request::new();
    alice.client.homeserver().send(lost).await.unwrap();
    is_found(
        &alice.client,
        FindingCode::DehydratedDeviceMissing,
        Severity::Warning,
        "mx identity dehydrate",
    )
    .await;
    let again = alice.client.dehydrate(&key).await.unwrap();
    assert_ne!(again, first);
    is_well(&alice.client).await;
}

#[tokio::test]
async fn a_backup_that_is_ours_and_not_used_is_found_and_used() {
    let Pair {
        server, alice, room, ..
    } = well().await;
    // A homeserver that says once that it has lost the backup, which it has not.
    server.fault(Fault::status("/room_keys/keys", 404, r#"{"errcode": "M_NOT_FOUND"}"#));
    room.rotate_key().await.unwrap();
    room.send_text("not backed up").await.unwrap();
    alice.client.sync().await.unwrap();
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["backup_off", "backup_changed"], "{found:#?}");
    let off = finding(&found, FindingCode::BackupOff);
    assert_eq!(
        (off.severity, off.mend, off.fixable),
        (Severity::Warning, "mx backup enable", false)
    );
    assert_eq!(alice.client.enable_backup(false).await.unwrap(), "1");
    alice.client.back_up().await.unwrap();
    is_well(&alice.client).await;
}

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

/// Somebody else's backup takes the place of the account's.
fn false_backup(server: &mx_test_homeserver::Homeserver, user: &ruma::UserId) {
    let mallory = EvilPeer::new(server, "mallory", "M");
    let auth_data = json!({"public_key": mallory.curve25519().to_base64()});
    server.new_backup(user, ALGORITHM, auth_data);
}

#[tokio::test]
async fn a_backup_that_nobody_signed_is_found_and_replaced_and_the_new_key_is_kept() {
    let Pair { server, alice, .. } = well().await;
    false_backup(&server, alice.client.user_id());
    is_found(
        &alice.client,
        FindingCode::BackupUntrusted,
        Severity::Warning,
        "mx identity recover, or mx backup enable --replace",
    )
    .await;
    assert_eq!(alice.client.enable_backup(true).await.unwrap(), "3");
    alice.client.back_up().await.unwrap();
    is_found(
        &alice.client,
        FindingCode::BackupKeyNotKept,
        Severity::Warning,
        "mx identity new-recovery-key",
    )
    .await;
    let keeping = RecoveryKeeping::default();
    let key = alice.client.change_recovery_key(keeping).await.unwrap();
    is_well(&alice.client).await;
    // The backup opens with it.
    let other = second(&server, "alice").await;
    let recovered = other.client.recover_identity(&key).await.unwrap();
    assert_eq!(recovered.backup_version.as_deref(), Some("3"));
}

/// What `mx doctor` finds at alice's: code, severity and advice; and how it ends.
async fn diagnosed(shell: &Shell) -> (Vec<(String, String, String)>, Option<i32>) {
    let output = shell.run("alice", &["--json", "doctor"]).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found["findings"].as_array().unwrap().iter().map(|finding| {
        let text = |field: &str| finding[field].as_str().unwrap().to_owned();
        (text("code"), text("severity"), text("mend"))
    });
    (found.collect(), output.status.code())
}

/// The advice is a command, or two of which one does: the last one is done as it stands.
#[tokio::test(flavor = "multi_thread")]
async fn what_mx_doctor_advises_is_what_mends_it() {
    let shell = Shell::new().await;
    shell.pair().await;
    shell.ok("alice", &["identity", "setup"]).await;
    false_backup(&shell.server, ruma::user_id!("@alice:localhost"));
    for code in ["backup_untrusted", "backup_key_not_kept"] {
        let (found, ended) = diagnosed(&shell).await;
        let [(found, severity, mend)] = found.as_slice() else {
            unreachable!("{found:?}")
        };
        assert_eq!((found.as_str(), severity.as_str(), ended), (code, "warning", Some(12)));
        let (_, command) = mend.rsplit_once("mx ").unwrap();
        let command: Vec<&str> = command.split_whitespace().collect();
        shell.ok("alice", &command).await;
    }
    assert_eq!(diagnosed(&shell).await, (Vec::new(), Some(0)));
}

//! The checkup of a device: as others see it, its keys, its identity and backup, what it cannot read, who cannot read it.

use std::{collections::BTreeSet, path::Path};

use mx_e2ee::{Checkup, Client, FindingCode, Options, Recipients, RoomPolicy, Severity, TrustManifest};
use mx_test_homeserver::{Fault, Homeserver};
use serde_json::{Value, json};

use crate::{
    doctor::{codes, finding, well},
    edits::hold_keys_back,
    identity::{reset, second, set_up},
    world::{Device, Pair, World},
};

/// Change what the homeserver answers.
pub(crate) fn edit(server: &Homeserver, path: &str, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    server.rewrite(path, move |_, answer| {
        let (head, body) = answer.into_parts();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        change(&mut body);
        http::Response::from_parts(head, body.to_string().into())
    });
}

/// Change what it shows of one device.
pub(crate) fn edit_device(server: &Homeserver, of: &Client, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    let (user, device) = (of.user_id().to_string(), of.device_id().to_string());
    edit(server, "/keys/query", move |body| {
        let devices = body["device_keys"].get_mut(&user);
        if let Some(keys) = devices.and_then(|devices| devices.get_mut(&device)) {
            change(keys);
        }
    });
}

#[tokio::test]
async fn an_account_without_identity_and_backup_is_found() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["no_identity", "no_secret_storage", "no_backup"]);
    assert_eq!(found.worst(), Some(Severity::Warning));
    let identity = finding(&found, FindingCode::NoIdentity);
    assert_eq!((identity.mend, identity.fixable), ("mx identity setup", false));
    assert!(identity.details.is_empty(), "nothing is said twice: {identity:?}");
    // What needs a decision is not mended by itself.
    assert_eq!(codes(&alice.client.doctor_with(Checkup::fixing()).await), codes(&found));
}

#[tokio::test]
async fn an_identity_that_is_not_ours_yet_or_not_any_more_is_found() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    alice.client.sync().await.unwrap();
    let other = second(&server, "alice").await;
    assert_eq!(
        codes(&other.client.doctor().await),
        ["identity_unverified", "backup_key_missing"]
    );
    server.lose_signatures(alice.client.user_id(), alice.client.device_id());
    alice.client.sync().await.unwrap();
    assert!(alice.client.doctor().await.has(FindingCode::DeviceNotSigned));
    set_up(&alice.client).await;
    assert_eq!(codes(&alice.client.doctor().await), [""; 0]);
    reset(&other.client).await;
    alice.client.sync().await.unwrap();
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::IdentityReplaced), "{found:#?}");
}

#[tokio::test]
async fn secrets_that_are_missing_are_found() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    edit(&server, "/account_data/m.cross_signing.master", |body| {
        *body = json!({})
    });
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["secrets_missing"], "{found:#?}");
}

#[tokio::test]
async fn a_backup_that_is_off_behind_or_gone_is_found() {
    let Pair {
        server,
        alice,
        room,
        bob,
        bobs_room,
    } = well().await;
    room.rotate_key().await.unwrap();
    bobs_room.send_text("x").await.unwrap();
    server.fault(Fault::status("/room_keys/keys", 400, "{}").for_ever());
    room.send_text("y").await.unwrap();
    let _refused = alice.client.sync().await;
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["backup_behind"], "{found:#?}");
    let failed = alice.client.doctor_with(Checkup::fixing()).await;
    assert!(finding(&failed, FindingCode::BackupBehind).not_mended.is_some());
    server.behave();
    let fixed = alice.client.doctor_with(Checkup::fixing()).await;
    assert_eq!(codes(&fixed), [""; 0], "{fixed:#?}");
    assert_eq!(fixed.facts.backed_up, fixed.facts.room_keys);

    alice.client.delete_backup().await.unwrap();
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::NoBackup), "{found:#?}");
    drop((bob, bobs_room));
}

#[tokio::test]
async fn a_backup_that_another_device_deleted_is_found() {
    let Pair {
        server, alice, room, ..
    } = well().await;
    let key = {
        let mut keeping = mx_e2ee::RecoveryKeeping::default();
        keeping.passphrase = None;
        alice.client.change_recovery_key(keeping).await.unwrap()
    };
    let other = second(&server, "alice").await;
    other.client.recover_identity(&key).await.unwrap();
    other.client.delete_backup().await.unwrap();
    room.rotate_key().await.unwrap();
    room.send_text("z").await.unwrap();
    let _told = alice.client.sync().await;
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::BackupChanged), "{found:#?}");
}

#[tokio::test]
async fn what_waits_for_its_key_is_counted_by_why_and_tried_again() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = well().await;
    room.rotate_key().await.unwrap();
    hold_keys_back(&server);
    room.send_text("later").await.unwrap();
    assert_eq!(bob.bodies().await, [""; 0]);
    server.behave();
    let found = bob.client.doctor().await;
    assert_eq!(codes(&found), ["undecryptable_events"]);
    let waiting = finding(&found, FindingCode::UndecryptableEvents);
    assert!(
        waiting.details[0].starts_with("1 × expected_from_backup: "),
        "{waiting:?}"
    );
    assert_eq!(found.facts.undecryptable, Some(1));
    // Still no key: nothing is mended by trying again.
    let again = bob.client.doctor_with(Checkup::fixing()).await;
    assert_eq!(codes(&again), ["undecryptable_events"]);
    drop(alice);
}

#[tokio::test]
async fn a_room_that_would_refuse_a_message_is_found() {
    let Pair { alice, room, bob, .. } = well().await;
    let policy = RoomPolicy {
        recipients: None,
        allowed: Some(BTreeSet::new()),
    };
    room.set_policy(policy).await.unwrap();
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_refuses"]);
    let refuses = finding(&found, FindingCode::RoomRefuses);
    assert_eq!(refuses.subject.as_deref(), Some(room.id().as_str()));
    assert_eq!(refuses.cause.as_deref(), Some("recipient_not_allowed"));
    assert!(refuses.details[0].contains(bob.client.user_id().as_str()));
    assert_eq!(room.send_text("x").await.unwrap_err().code(), "recipient_not_allowed");
    let mut without_rooms = Checkup::default();
    without_rooms.rooms = false;
    assert_eq!(codes(&alice.client.doctor_with(without_rooms).await), [""; 0]);
}

#[tokio::test]
async fn who_cannot_read_the_next_message_is_found() {
    let Pair { server, alice, bob, .. } = well().await;
    let other = Device::new(&server, "bob").await;
    edit_device(&server, &other.client, |keys| keys["signatures"] = json!({}));
    alice.client.sync().await.unwrap();
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_readers_missing"], "{found:#?}");
    let missing = finding(&found, FindingCode::RoomReadersMissing);
    let expected = format!("@bob:localhost {}: its keys are not signed", other.client.device_id());
    assert_eq!(missing.details, [expected]);
    // Blocking it is a decision, and no finding.
    let Pair {
        alice,
        bob: blocked,
        server,
        ..
    } = well().await;
    alice
        .client
        .block_device(blocked.client.user_id(), blocked.client.device_id())
        .await
        .unwrap();
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_refuses"], "nobody else is there: {found:#?}");
    drop((bob, server));
}

#[tokio::test]
async fn a_room_that_is_shown_other_than_it_was_is_found() {
    let Pair {
        server, alice, room, ..
    } = well().await;
    server.set_state(room.id(), alice.client.user_id(), "m.room.encryption", "", json!({}));
    alice.client.sync().await.unwrap();
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_suspicious"], "{found:#?}");
    assert_eq!(
        finding(&found, FindingCode::RoomSuspicious).cause.as_deref(),
        Some("encryption_tampered")
    );
}

#[tokio::test]
async fn a_room_whose_members_are_not_known_is_found() {
    let Pair { server, alice, .. } = well().await;
    let alice = alice.kill_and_open().await;
    server.fault(Fault::status("/members", 400, "{}").for_ever());
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_unknown"], "{found:#?}");
    assert_eq!(
        finding(&found, FindingCode::RoomUnknown).cause.as_deref(),
        Some("members_incomplete")
    );
}

#[tokio::test]
async fn somebody_who_differs_from_the_manifest_is_found() {
    let Pair { alice, bob, .. } = well().await;
    let manifest = json!({"version": 1, "users": {"@bob:localhost": {"devices": {"OTHER": "A".repeat(43)}}}});
    let manifest = TrustManifest::parse(&manifest.to_string()).unwrap();
    let mut options = Options::default();
    options.trust_manifest = Some(manifest.into());
    let alice = alice.kill_and_open_with(options).await;
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["room_refuses", "trust_manifest_drift"], "{found:#?}");
    drop(bob);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            std::fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_store_that_was_set_back_is_found() {
    let server = World::new();
    server.register("alice", "password");
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of = |directory: &Path| {
        Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport())
            .directory(directory)
    };
    let alice = of(first.path()).login("alice", "password").await.unwrap();
    set_up(&alice).await;
    let bob = Device::new(&server, "bob").await;
    let room = alice
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    let id = room.id().to_owned();
    bob.client.join(id.as_str()).await.unwrap();
    room.send_text("one").await.unwrap();
    alice.sync().await.unwrap();
    drop(room);
    alice.close().await.unwrap();
    copy(first.path(), second.path());
    let original = of(first.path()).open().await.unwrap();
    original.room(&id).send_text("two").await.unwrap();
    original.close().await.unwrap();
    let copy = of(second.path()).open().await.unwrap();
    copy.sync().await.unwrap();
    let found = copy.doctor().await;
    assert_eq!(codes(&found), ["store_set_back", "room_refuses"], "{found:#?}");
    assert_eq!(
        finding(&found, FindingCode::RoomRefuses).cause.as_deref(),
        Some("store_set_back")
    );
    assert!(
        copy.room(&id)
            .send_to("m.room.message", json!({"body": "x"}), Recipients::BestEffort)
            .await
            .is_err()
    );
}

//! Our own identity: made in one call, recovered by its key, watched; and what a hostile homeserver makes of it.

use std::sync::{Arc, Mutex};

use mx_e2ee::{
    Client, Event, Health, IdentityStanding, RecoveryKeeping, SetUp, Trust,
    ruma::api::client::uiaa::{MatrixUserIdentifier, UserIdentifier},
    transport::Unattended,
};
use mx_test_homeserver::{Fault, Homeserver};

use crate::{
    crash_history::Parked,
    disks::{Moment, Operation, Plan, Point, Trouble},
    world::{Device, Pair, World, pair},
};

pub(crate) const SECRETS: [&str; 4] = [
    "m.cross_signing.master",
    "m.cross_signing.self_signing",
    "m.cross_signing.user_signing",
    "m.megolm_backup.v1",
];

fn answers(client: &Client) -> Unattended {
    let user = MatrixUserIdentifier::new(client.user_id().to_string());
    Unattended::new().password(UserIdentifier::Matrix(user), "password")
}

pub(crate) async fn set_up(client: &Client) -> SetUp {
    client
        .set_up_identity(&answers(client), RecoveryKeeping::default())
        .await
        .unwrap()
}

pub(crate) async fn reset(client: &Client) -> SetUp {
    let answers = answers(client);
    let done = client.reset_identity(&answers, RecoveryKeeping::default());
    done.await.unwrap()
}

/// How far the sender of a second message is known.
async fn trust_of_second(room: &mx_e2ee::Room, reader: &Device) -> Trust {
    for _ in 0..2 {
        room.send_text("x").await.unwrap();
        reader.client.sync().await.unwrap();
    }
    let messages = reader.messages().await;
    messages[1].encryption.as_ref().unwrap().trust
}

/// Another device of the same user, which is in all rooms.
pub(crate) async fn second(server: &World, name: &str) -> Device {
    let device = Device::new(server, name).await;
    device.client.sync().await.unwrap();
    device
}

fn codes(status: &mx_e2ee::IdentityStatus) -> Vec<&'static str> {
    status.problems.iter().map(|problem| problem.code).collect()
}

pub(crate) async fn standing(client: &Client) -> IdentityStanding {
    client.identity_status().await.unwrap().standing
}

#[tokio::test]
async fn one_call_makes_a_verified_device() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let before = alice.client.identity_status().await.unwrap();
    assert_eq!(codes(&before), ["no_identity", "no_secret_storage", "no_backup"]);
    let made = set_up(&alice.client).await;
    assert_eq!(
        (made.standing, made.backup_version.as_deref()),
        (IdentityStanding::Good, Some("1"))
    );
    let key = made.recovery_key.unwrap();
    server.guard_secret(&key);
    let status = alice.client.identity_status().await.unwrap();
    assert_eq!(codes(&status), [""; 0], "{status:?}");
    assert!(status.private_keys_missing.is_empty());
    assert_eq!(status.secret_storage.holds, SECRETS);
    // Others see it once they have asked about alice, which a first message makes them do.
    assert_eq!(trust_of_second(&room, &bob).await, Trust::CrossSigned);
    // The same again changes nothing and shows no key.
    let again = set_up(&alice.client).await;
    assert!(again.recovery_key.is_none());
    assert_eq!(
        alice.client.identity_status().await.unwrap().master_key,
        status.master_key
    );
}

#[tokio::test]
async fn a_second_device_recovers_and_is_believed() {
    let Pair { server, alice, bob, .. } = pair().await;
    let key = set_up(&alice.client).await.recovery_key.unwrap();
    let other = second(&server, "alice").await;
    let status = other.client.identity_status().await.unwrap();
    assert_eq!(status.standing, IdentityStanding::Unverified);
    assert_eq!(status.problems[0].command, "mx identity recover");
    // It cannot make one of its own by accident.
    let refused = other
        .client
        .set_up_identity(&answers(&other.client), RecoveryKeeping::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "identity_exists");
    for wrong in ["EsTX", "", &key.replace('E', "F"), "a passphrase that there never was"] {
        let error = other.client.recover_identity(wrong).await.unwrap_err();
        server.examine(&error);
        assert_eq!(error.code(), "wrong_recovery_key", "{wrong:?}");
    }
    assert_eq!(standing(&other.client).await, IdentityStanding::Unverified);
    let recovered = other.client.recover_identity(&format!(" {} \n", *key)).await.unwrap();
    assert_eq!(recovered.standing, IdentityStanding::Good);
    assert_eq!(recovered.backup_version.as_deref(), Some("1"));
    let status = other.client.identity_status().await.unwrap();
    assert_eq!(codes(&status), [""; 0], "{status:?}");
    assert_eq!(status.signed_devices.len(), 1);
    // Others see it.
    let room = other
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    bob.client.join(room.id().as_str()).await.unwrap();
    assert_eq!(trust_of_second(&room, &bob).await, Trust::CrossSigned);
}

#[tokio::test]
async fn a_recovery_key_goes_into_its_file_before_it_counts() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recovery");
    std::fs::write(&file, "something of mine").unwrap();
    let mut keeping = RecoveryKeeping::default();
    keeping.file = Some(file.clone());
    let refused = alice
        .client
        .set_up_identity(&answers(&alice.client), keeping)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "recovery_key_not_kept");
    assert!(
        server
            .account_data_of(alice.client.user_id(), "m.secret_storage.default_key")
            .is_none()
    );
    std::fs::remove_file(&file).unwrap();
    let mut keeping = RecoveryKeeping::default();
    keeping.file = Some(file.clone());
    let made = alice
        .client
        .set_up_identity(&answers(&alice.client), keeping)
        .await
        .unwrap();
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept.trim(), made.recovery_key.unwrap().as_str());
    let other = second(&server, "alice").await;
    other.client.recover_identity(&kept).await.unwrap();
}

#[tokio::test]
async fn a_new_recovery_key_ends_the_one_before() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let old = set_up(&alice.client).await.recovery_key.unwrap();
    let new = alice
        .client
        .change_recovery_key(RecoveryKeeping::default())
        .await
        .unwrap();
    let other = second(&server, "alice").await;
    assert_eq!(
        other.client.recover_identity(&old).await.unwrap_err().code(),
        "wrong_recovery_key"
    );
    let incomplete = other
        .client
        .change_recovery_key(RecoveryKeeping::default())
        .await
        .unwrap_err();
    assert_eq!(incomplete.code(), "identity_incomplete");
    other.client.recover_identity(&new).await.unwrap();
}

#[tokio::test]
async fn a_lost_signature_is_told_and_mended() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    assert!(alice.events().await.is_empty());
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    server.lose_signatures(alice.client.user_id(), alice.client.device_id());
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    let [Event::OwnIdentity(event)] = told.as_slice() else {
        unreachable!("{told:?}")
    };
    assert_eq!(event.standing, IdentityStanding::DeviceNotSigned);
    let Health::Degraded { problems } = alice.client.health().await.unwrap() else {
        unreachable!()
    };
    assert_eq!(problems[0].code, "device_not_signed");
    alice.client.sync().await.unwrap();
    assert!(alice.events().await.is_empty(), "told once");
    assert_eq!(set_up(&alice.client).await.standing, IdentityStanding::Good);
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn an_identity_that_was_reset_elsewhere_is_told_and_recovered() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    let other = second(&server, "alice").await;
    let new = reset(&other.client).await;
    assert_eq!(new.standing, IdentityStanding::Good);
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::OwnIdentity(event) if event.standing == IdentityStanding::Replaced)),
        "{told:?}"
    );
    let status = alice.client.identity_status().await.unwrap();
    assert_eq!(status.standing, IdentityStanding::Replaced);
    assert_eq!(status.private_keys_missing.len(), 3);
    let recovered = alice.client.recover_identity(&new.recovery_key.unwrap()).await.unwrap();
    assert_eq!(recovered.standing, IdentityStanding::Good);
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn the_homeserver_may_ask_who_is_there() {
    let server = World::new();
    server.ask_for(&[&["m.login.password"]]);
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    let refused = alice
        .client
        .reset_identity(&Unattended::new(), RecoveryKeeping::default())
        .await;
    let error = refused.unwrap_err();
    server.examine(&error);
    // What was there is still there, here too, and the new one was not taken.
    let status = alice.client.identity_status().await.unwrap();
    assert_eq!(codes(&status), [""; 0], "{status:?}");
    let other = second(&server, "alice").await;
    let error = other
        .client
        .set_up_identity(&Unattended::new(), RecoveryKeeping::default())
        .await;
    assert_eq!(error.unwrap_err().code(), "identity_exists");
    let new = alice
        .client
        .reset_identity(&answers(&alice.client), RecoveryKeeping::default())
        .await
        .unwrap();
    assert_eq!(new.standing, IdentityStanding::Good);
    assert!(new.recovery_key.is_some());
}

/// Killed before and after every request; the same call again ends in the same place.
#[tokio::test]
async fn a_set_up_that_is_killed_is_ended_by_the_next() {
    let server = Homeserver::new();
    server.register("alice", "password");
    let parked = Parked::new("alice");
    let client = parked.login(&server, &Plan::default()).await.unwrap();
    client.close().await.unwrap();
    let mut kills = 0;
    for moment in [Moment::Before, Moment::After] {
        for nth in 1.. {
            let (server, device, plan) = (World::quiet(server.fork()), parked.copy(), Plan::default());
            let client = device.open(&server, &plan).await.unwrap();
            plan.arm(Point {
                nth,
                moment,
                trouble: Trouble::Kill,
                ..Point::dry(|operation, _| operation == Operation::Request)
            });
            let shown = Arc::new(Mutex::new(None));
            let done = plan.until_killed(Box::pin(set_up(&client))).await;
            drop(client);
            let after = device.open(&server, &Plan::default()).await.unwrap();
            if let Some(done) = &done {
                *shown.lock().unwrap() = done.recovery_key.as_ref().map(|key| key.to_string());
            }
            let made = set_up(&after).await;
            assert_eq!(made.standing, IdentityStanding::Good, "{:?}", plan.struck());
            let key = made
                .recovery_key
                .map(|key| key.to_string())
                .or_else(|| shown.lock().unwrap().take());
            let key = match key {
                Some(key) => key,
                // It was killed between the last request and the answer to the caller.
                None => after
                    .change_recovery_key(RecoveryKeeping::default())
                    .await
                    .unwrap()
                    .to_string(),
            };
            let other = second(&server, "alice").await;
            let recovered = other.client.recover_identity(&key).await.unwrap();
            assert_eq!(recovered.standing, IdentityStanding::Good, "{:?}", plan.struck());
            assert!(recovered.backup_version.is_some(), "{:?}", plan.struck());
            if done.is_some() {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills > 20, "{kills}");
}

#[tokio::test]
async fn a_request_that_is_lost_is_made_again() {
    for path in [
        "/device_signing/upload",
        "/signatures/upload",
        "/account_data/",
        "/room_keys/version",
    ] {
        for fault in [Fault::drop_before(path), Fault::drop_after(path)] {
            let server = World::new();
            let alice = Device::new(&server, "alice").await;
            server.fault(fault);
            let first = alice
                .client
                .set_up_identity(&answers(&alice.client), RecoveryKeeping::default())
                .await;
            let made = set_up(&alice.client).await;
            assert_eq!(made.standing, IdentityStanding::Good, "{path} {first:?}");
            assert!(made.backup_version.is_some());
        }
    }
}

#[tokio::test]
async fn a_bundle_makes_a_verified_device() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    set_up(&alice.client).await;
    let mut options = mx_e2ee::Options::default();
    options.key_file_rounds = 3;
    let alice = alice.kill_and_open_with(options).await;
    let bundle = alice.client.export_secrets("horse").await.unwrap();
    assert_eq!(
        alice.client.export_secrets("").await.unwrap_err().code(),
        "key_file_no_passphrase"
    );
    let other = second(&server, "alice").await;
    for (file, passphrase, code) in [
        (bundle.as_str(), "cow", "wrong_recovery_key"),
        ("{}", "horse", "no_secrets_bundle"),
        (&bundle.replace("@alice:", "@bob:"), "horse", "no_secrets_bundle"),
    ] {
        let error = other.client.import_secrets(file, passphrase).await.unwrap_err();
        server.examine(&error);
        assert_eq!(error.code(), code);
    }
    let recovered = other.client.import_secrets(&bundle, "horse").await.unwrap();
    assert_eq!(
        (recovered.standing, recovered.backup_version.as_deref()),
        (IdentityStanding::Good, Some("1"))
    );
    // After a reset it is the bundle of nobody.
    reset(&alice.client).await;
    let third = second(&server, "alice").await;
    let error = third.client.import_secrets(&bundle, "horse").await.unwrap_err();
    assert_eq!(error.code(), "identity_mismatch");
    assert!(!standing(&third.client).await.is_good());
}

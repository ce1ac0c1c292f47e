//! Which devices are given the key: all of them, or those that are trusted. Rows SN-25, SN-27, SN-40, SN-46 and SN-47 of the
//! catalogue.

use std::collections::BTreeSet;

use mx_e2ee::{
    DeviceOutcome, DeviceTrust, Error, Event, Recipients, RoomPolicy, RotationReason, SendReceipt, Warning,
    orchestrator,
};
use mx_test_homeserver::{EvilPeer, Fault};
use ruma::OwnedUserId;
use serde_json::json;

use crate::{
    keys_cast::{Cast, outcomes},
    send_rotation::{joined, outcome_of},
};

fn unverified() -> DeviceOutcome {
    DeviceOutcome::Withheld {
        code: "m.unverified".to_owned(),
    }
}

async fn send_to(cast: &Cast, recipients: Recipients, text: &str) -> mx_e2ee::Result<SendReceipt> {
    let content = json!({"msgtype": "m.text", "body": text, "canary": cast.server.canary()});
    cast.room.send_to("m.room.message", content, recipients).await
}

async fn trust(cast: &Cast, peer: &EvilPeer) {
    let fingerprint = peer.ed25519().to_base64();
    cast.alice
        .trust_device(peer.user(), peer.device(), &fingerprint)
        .await
        .unwrap();
}

/// What the device was told about keys that it does not get.
fn codes(peer: &mut EvilPeer) -> Vec<String> {
    let received = peer.receive().into_iter().map(|received| received.event);
    received
        .filter(|event| event["type"] == "m.room_key.withheld")
        .map(|event| event["content"]["code"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn sn_25_a_device_that_the_server_added_is_reported_or_is_not_trusted() {
    let mut cast = Cast::acquainted().await;
    trust(&cast, &cast.bob).await;
    let mut evil = EvilPeer::new(&cast.server, "bob", "EVIL");
    evil.publish();
    cast.sync().await;
    let only = send_to(&cast, Recipients::OnlyTrusted, "to the trusted").await.unwrap();
    assert_eq!(outcome_of(&only, "EVIL"), Some(unverified()));
    assert_eq!(outcome_of(&only, "BDEV"), Some(DeviceOutcome::AlreadyHad));
    assert_eq!(only.rotation, None, "nobody has the key who must not");
    assert_eq!(
        json!(only.new_devices),
        json!([{"user_id": "@bob:localhost", "device_id": "EVIL"}])
    );
    assert_eq!(codes(&mut evil), ["m.unverified"]);
    assert_eq!(evil.reads_from(&only.session_id), None);
    // By default it is given the key, and reported.
    let all = cast.send("to all").await;
    assert_eq!(
        (all.rotation, outcome_of(&all, "EVIL")),
        (None, Some(DeviceOutcome::Reached))
    );
    // Stricter again: who has the key and may not have it costs a new one.
    let only = send_to(&cast, Recipients::OnlyTrusted, "to the trusted again")
        .await
        .unwrap();
    assert_eq!(
        (only.rotation, outcome_of(&only, "EVIL")),
        (Some(RotationReason::Policy), Some(unverified()))
    );
    assert_eq!(cast.read_by(&mut evil), ["to all"]);
    let mut bob = std::mem::replace(&mut cast.bob, evil);
    assert_eq!(
        cast.read_by(&mut bob),
        ["hello", "to the trusted", "to all", "to the trusted again"]
    );
}

#[tokio::test]
async fn sn_27_a_key_that_would_reach_nobody_is_refused() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish_keys(&json!({"device_keys": cast.bob.device_keys()}));
    cast.sync().await;
    let expected = [("BDEV".to_owned(), DeviceOutcome::NoOneTimeKey)];
    assert_eq!(cast.nobody_reached().await, expected);
    // Also with best effort: nobody is not somebody.
    let error = send_to(&cast, Recipients::BestEffort, "never").await.unwrap_err();
    assert_eq!(error.code(), "no_usable_recipients");
    // A room of one is fine.
    cast.room = cast.alice.create_room(None, &[]).await.unwrap();
    let note = cast.send("note to self").await;
    assert!(note.devices.is_empty() && note.users_without_devices.is_empty());
}

#[tokio::test]
async fn sn_40_our_other_device_is_a_recipient() {
    let cast = Cast::acquainted().await;
    let mut phone = EvilPeer::new(&cast.server, "alice", "PHONE");
    phone.publish();
    cast.sync().await;
    let receipt = cast.send("to bob and to myself").await;
    assert_eq!(outcome_of(&receipt, "PHONE"), Some(DeviceOutcome::Reached));
    assert_eq!(outcome_of(&receipt, "BDEV"), Some(DeviceOutcome::AlreadyHad));
    assert_eq!(outcomes(&receipt).len(), 2, "and this device is not its own reader");
    assert_eq!(cast.read_by(&mut phone), ["to bob and to myself"]);
    // It alone does not make a message to bob one that somebody reads.
    cast.alice
        .block_device(cast.bob.user(), cast.bob.device())
        .await
        .unwrap();
    assert_eq!(cast.refused().await.code(), "no_usable_recipients");
}

#[tokio::test]
async fn sn_46_users_without_an_identity_are_withheld_the_key_and_nothing_panics() {
    let cast = Cast::acquainted().await;
    let mut carol = joined(&cast, "carol").await;
    let mark = cast.mark().await;
    let error = send_to(&cast, Recipients::OnlyTrusted, "never").await.unwrap_err();
    cast.assert_refused(&mark).await;
    match error {
        Error::Orchestrator(orchestrator::Error::NoUsableRecipients { devices, .. }) => {
            let withheld: Vec<_> = devices.iter().map(|device| device.outcome.clone()).collect();
            assert_eq!(withheld, [unverified(), unverified()]);
        }
        other => unreachable!("{other:?}"),
    }
    trust(&cast, &cast.bob).await;
    let receipt = send_to(&cast, Recipients::OnlyTrusted, "to bob").await.unwrap();
    assert_eq!(
        (receipt.readable_by(), outcome_of(&receipt, "CAROLDEV")),
        (1, Some(unverified()))
    );
    assert_eq!(codes(&mut carol), ["m.unverified"]);
    assert!(cast.read_by(&mut carol).is_empty());
}

#[tokio::test]
async fn sn_47_who_changes_the_device_after_the_invitation_reads_from_there_on() {
    let cast = Cast::acquainted().await;
    let mut first = EvilPeer::new(&cast.server, "carol", "FIRST");
    first.publish();
    cast.room.invite(first.user()).await.unwrap();
    cast.sync().await;
    cast.send("while invited").await;
    let mut second = EvilPeer::new(&cast.server, "carol", "SECOND");
    second.publish();
    second.join(cast.room.id());
    cast.sync().await;
    let receipt = cast.send("on the new device").await;
    assert_eq!(outcome_of(&receipt, "SECOND"), Some(DeviceOutcome::Reached));
    assert_eq!(receipt.rotation, None);
    assert_eq!(cast.read_by(&mut first), ["while invited", "on the new device"]);
    // What was said before the device was there stays closed to it: nobody gives keys for the past.
    assert_eq!(cast.read_by(&mut second), ["on the new device"]);
    assert_eq!(second.reads_from(&receipt.session_id), Some(2));
}

#[tokio::test]
async fn the_call_goes_before_the_room_and_the_room_before_the_client() {
    let mut cast = Cast::acquainted().await;
    cast = cast
        .reopen_with(|options| options.recipients = Recipients::OnlyTrusted)
        .await;
    assert_eq!(cast.refused().await.code(), "no_usable_recipients", "the client's word");
    let policy = |recipients| RoomPolicy {
        recipients,
        allowed: None,
    };
    cast.room.set_policy(policy(Some(Recipients::Strict))).await.unwrap();
    assert_eq!(cast.send("the room's word").await.readable_by(), 1);
    let error = send_to(&cast, Recipients::OnlyTrusted, "never").await.unwrap_err();
    assert_eq!(error.code(), "no_usable_recipients", "the call's word");
    cast.room
        .set_policy(policy(Some(Recipients::OnlyTrusted)))
        .await
        .unwrap();
    cast = cast.reopen().await;
    assert_eq!(cast.refused().await.code(), "no_usable_recipients", "it lasts");
    cast.room.set_policy(policy(None)).await.unwrap();
    assert_eq!(cast.send("as everywhere").await.readable_by(), 1);
}

#[tokio::test]
async fn a_device_is_trusted_as_long_as_it_has_its_fingerprint() {
    let cast = Cast::acquainted().await;
    let (user, device) = (cast.bob.user().to_owned(), cast.bob.device().to_owned());
    let other = EvilPeer::new(&cast.server, "mallory", "M").ed25519().to_base64();
    let error = cast.alice.trust_device(&user, &device, &other).await.unwrap_err();
    assert_eq!(error.code(), "fingerprint_mismatch");
    assert!(cast.alice.device_trust(&user).await.unwrap().is_empty());
    let error = send_to(&cast, Recipients::OnlyTrusted, "never").await.unwrap_err();
    assert_eq!(error.code(), "no_usable_recipients");
    // In groups, as people read it out.
    let fingerprint = cast.bob.ed25519().to_base64();
    let groups: Vec<&str> = [fingerprint.get(..20), fingerprint.get(20..)]
        .into_iter()
        .flatten()
        .collect();
    cast.alice
        .trust_device(&user, &device, &groups.join(" "))
        .await
        .unwrap();
    // One that is not known yet is trusted when it comes with that key, and not with another.
    for (name, is_right) in [("RIGHT", true), ("WRONG", false)] {
        let mut later = EvilPeer::new(&cast.server, "bob", name);
        let key = if is_right {
            later.ed25519().to_base64()
        } else {
            other.clone()
        };
        cast.alice.trust_device(&user, later.device(), &key).await.unwrap();
        later.publish();
    }
    cast.sync().await;
    let cast = cast.reopen().await;
    let trust = cast.alice.device_trust(&user).await.unwrap();
    assert_eq!(trust.get(&device), Some(&DeviceTrust::Trusted { ed25519: fingerprint }));
    let receipt = send_to(&cast, Recipients::OnlyTrusted, "to two").await.unwrap();
    assert_eq!(outcome_of(&receipt, "BDEV"), Some(DeviceOutcome::AlreadyHad));
    assert_eq!(outcome_of(&receipt, "RIGHT"), Some(DeviceOutcome::Reached));
    assert_eq!(outcome_of(&receipt, "WRONG"), Some(unverified()));
}

/// Alice verifies bob by cross-signing, on another device of hers, whose secrets this one is given.
async fn verified(cast: Cast) -> (Cast, EvilPeer) {
    let mut phone = EvilPeer::new(&cast.server, "alice", "PHONE");
    phone.publish();
    let ours = phone.new_cross_signing();
    phone.publish_cross_signing(&ours);
    let theirs = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&theirs);
    cast.bob
        .publish_signed_device(&theirs, cast.bob.device(), &cast.bob.device_keys());
    let mut master = theirs.master_key();
    ours.sign_user(&mut master);
    let name = theirs.master.public_key().to_base64();
    phone.ask(
        "POST",
        "/keys/signatures/upload",
        &json!({cast.bob.user().as_str(): {name: master}}),
    );
    cast.sync().await;
    cast.send("identities are known").await;
    (cast.with_secrets(&ours).await, phone)
}

#[tokio::test]
async fn what_a_verified_user_signed_is_trusted_and_a_replaced_identity_is_refused_by_name() {
    let (mut cast, _phone) = verified(Cast::acquainted().await).await;
    let mut unsigned = EvilPeer::new(&cast.server, "bob", "UNSIGNED");
    unsigned.publish();
    cast.sync().await;
    let receipt = send_to(&cast, Recipients::OnlyTrusted, "to what he signed")
        .await
        .unwrap();
    assert_eq!(outcome_of(&receipt, "BDEV"), Some(DeviceOutcome::Reached));
    assert_eq!(outcome_of(&receipt, "UNSIGNED"), Some(unverified()));
    // Our own other device is not signed by us. It had the key, so that there is a new one.
    assert_eq!(outcome_of(&receipt, "PHONE"), Some(unverified()));
    assert_eq!(receipt.rotation, Some(RotationReason::Policy));

    let another = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&another);
    cast.sync().await;
    let bob: BTreeSet<OwnedUserId> = BTreeSet::from([cast.bob.user().to_owned()]);
    assert!(cast.events().await.iter().any(
        |event| matches!(event, Event::IdentityChanged(event) if event.was_verified && bob.contains(&event.user_id))
    ));
    for _ in 0..2 {
        match cast.refused().await {
            Error::Orchestrator(orchestrator::Error::IdentityChanged { users }) => assert_eq!(users, bob),
            other => unreachable!("{other:?}"),
        }
        cast = cast.reopen().await;
    }
    let mark = cast.mark().await;
    let error = send_to(&cast, Recipients::OnlyTrusted, "never").await.unwrap_err();
    assert_eq!(error.code(), "identity_changed");
    cast.assert_refused(&mark).await;
    let receipt = send_to(&cast, Recipients::BestEffort, "with a warning").await.unwrap();
    assert_eq!(receipt.warnings, [Warning::IdentityChanged { users: bob }]);
}

#[tokio::test]
async fn a_device_whose_server_is_down_is_unknown_and_not_without_keys() {
    let cast = Cast::acquainted().await;
    let mut second = EvilPeer::new(&cast.server, "bob", "BSECOND");
    second.publish();
    cast.sync().await;
    // The homeserver knows the device and cannot be had for a one-time key.
    let failure = r#"{"one_time_keys":{},"failures":{"localhost":{"status":503}}}"#;
    cast.server.fault(Fault::body("/keys/claim", failure).for_ever());
    assert_eq!(cast.refused().await.code(), "recipients_unknown");
    let receipt = send_to(&cast, Recipients::BestEffort, "to whom it may reach")
        .await
        .unwrap();
    assert_eq!(outcome_of(&receipt, "BSECOND"), Some(DeviceOutcome::Unknown));
    assert_eq!(outcome_of(&receipt, "BDEV"), Some(DeviceOutcome::AlreadyHad));
    assert_eq!(receipt.users_unknown, [cast.bob.user()]);
    assert!(receipt.users_without_devices.is_empty());
    cast.server.behave();
    cast.pass(60);
    assert_eq!(
        outcome_of(&cast.send("now").await, "BSECOND"),
        Some(DeviceOutcome::Reached)
    );
}

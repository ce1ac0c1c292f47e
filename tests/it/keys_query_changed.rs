//! Devices and identities that change (rows KQ-13 to KQ-43): what is known stays, and nothing changes in silence.

use mx_e2ee::{DeviceOutcome, Event, RotationReason, UnusableReason};
use mx_test_homeserver::EvilPeer;
use ruma::device_id;
use serde_json::{Value, json};

use crate::keys_cast::{Cast, outcomes, rejected};

/// Another store under the same device id: other keys, honestly signed.
fn reborn(cast: &Cast) -> EvilPeer {
    let mut other = EvilPeer::new(&cast.server, "bob", "BDEV");
    let keys = other.device_keys();
    let _secrets = other.one_time_keys(1);
    other.publish_keys(&json!({"device_keys": keys}));
    other
}

/// The Curve25519 keys that something was encrypted for since `mark`.
fn encrypted_for(cast: &Cast, mark: &crate::keys_cast::Mark) -> Vec<String> {
    let puts = cast.requests(mark, "PUT", "/sendToDevice/m.room.encrypted/");
    let contents = puts.iter().flat_map(|put| {
        let users = put.request_body["messages"].as_object().unwrap().values();
        users.flat_map(|devices| devices.as_object().unwrap().values().cloned().collect::<Vec<_>>())
    });
    contents
        .flat_map(|content| {
            content["ciphertext"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        })
        .collect()
}

#[tokio::test]
async fn kq_13_a_new_ed25519_key_is_refused_and_reported() {
    let cast = Cast::acquainted().await;
    let old = cast.bob.ed25519().to_base64();
    let other = reborn(&cast);
    let new = other.ed25519().to_base64();
    cast.sync().await;
    let mark = cast.mark().await;
    let receipt = cast.send("x").await;
    let reason = UnusableReason::KeyConflict { old, new };
    assert_eq!(outcomes(&receipt), [rejected("BDEV", reason.clone())]);
    assert_eq!(receipt.readable_by(), 0, "it is not counted as a reader");
    assert!(encrypted_for(&cast, &mark).is_empty());
    // A new key goes to the device that is known, and to no other.
    let second = cast
        .alice
        .create_room(None, &[cast.bob.user().to_owned()])
        .await
        .unwrap();
    second.send_text("y").await.unwrap();
    assert_eq!(encrypted_for(&cast, &mark), [cast.bob.curve25519().to_base64()]);
    assert_eq!(cast.sessions_with(&other.curve25519().to_base64()).await, 0);
    let told: Vec<Event> = cast.events().await;
    assert_eq!(told.len(), 1, "told once: {told:?}");
    let Event::DeviceRejected(event) = &told[0] else {
        unreachable!("{told:?}")
    };
    assert_eq!((&event.user_id, &event.reason), (&cast.bob.user().to_owned(), &reason));
}

#[tokio::test]
async fn kq_13_a_conflict_outlives_a_restart_and_ends_when_the_old_key_is_back() {
    let cast = Cast::acquainted().await;
    let honest = cast.bob.device_keys();
    let other = reborn(&cast);
    cast.sync().await;
    let cast = cast.reopen().await;
    cast.sync().await;
    let told = cast.send("x").await;
    assert!(matches!(
        &told.devices[0].outcome,
        DeviceOutcome::Rejected {
            reason: UnusableReason::KeyConflict { .. }
        }
    ));
    other.publish_keys(&json!({"device_keys": honest}));
    cast.sync().await;
    assert_eq!(
        outcomes(&cast.send("y").await),
        [("BDEV".to_owned(), DeviceOutcome::AlreadyHad)]
    );
}

#[tokio::test]
async fn kq_14_a_new_curve25519_key_is_given_a_new_room_key() {
    let cast = Cast::acquainted().await;
    let before = cast.room_key().await.unwrap();
    // Bob's signing key, and an Olm account that is new.
    let mut renewed = EvilPeer::new(&cast.server, "bob", "BDEV");
    let mut keys = cast.bob.unsigned_device_keys();
    keys["keys"]["curve25519:BDEV"] = renewed.curve25519().to_base64().into();
    cast.bob.sign(&mut keys);
    let mut fallback = renewed.fallback_key();
    for key in fallback.values_mut() {
        key["signatures"] = json!({});
        cast.bob.sign(key);
    }
    // What the old account published is gone.
    cast.server.exhaust_keys(cast.bob.user(), cast.bob.device());
    renewed.publish_keys(&json!({"device_keys": keys, "fallback_keys": fallback}));
    cast.sync().await;
    let receipt = cast.send("for the new one").await;
    assert_eq!(receipt.rotation, Some(RotationReason::DeviceKeysChanged));
    assert_ne!(receipt.session_id, before.0);
    assert_eq!(outcomes(&receipt), [("BDEV".to_owned(), DeviceOutcome::Reached)]);
    assert_eq!(cast.read_by(&mut renewed), ["for the new one"]);
    assert!(!cast.send("again").await.new_session, "once is enough");
}

#[tokio::test]
async fn kq_32_a_device_that_is_gone_reads_nothing_after() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut second = EvilPeer::new(&cast.server, "bob", "BDEV2");
    second.publish();
    cast.sync().await;
    assert_eq!(cast.send("both").await.readable_by(), 2);
    cast.server.delete_device(second.user(), second.device());
    cast.sync().await;
    let mark = cast.mark().await;
    let receipt = cast.send("one").await;
    assert!(receipt.new_session);
    assert_eq!(outcomes(&receipt), [("BDEV".to_owned(), DeviceOutcome::Reached)]);
    assert_eq!(encrypted_for(&cast, &mark), [cast.bob.curve25519().to_base64()]);
    assert!(!cast.knows(cast.bob.user(), device_id!("BDEV2")).await);
}

/// The homeserver shows `change` of alice's devices from now on, and alice asks about herself.
async fn show_own(cast: &Cast, change: impl Fn(&mut Value) + Send + Sync + 'static) {
    cast.rewrite("/keys/query", move |body| {
        let own = &mut body["device_keys"]["@alice:localhost"];
        if own.is_object() {
            change(own);
        }
    });
    EvilPeer::new(&cast.server, "alice", "ALICE2").publish();
    cast.sync().await;
}

#[tokio::test]
async fn kq_37_our_own_device_missing_ends_sends_and_uploads_until_it_is_back() {
    let cast = Cast::acquainted().await;
    let ours = cast.alice.device_id().to_string();
    show_own(&cast, move |own| {
        own.as_object_mut().unwrap().remove(&ours);
    })
    .await;
    let mark = cast.mark().await;
    // Keys are wanted, and not uploaded.
    cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
    assert_eq!(cast.alice.sync().await.unwrap_err().code(), "device_deleted");
    assert_eq!(cast.refused().await.code(), "device_deleted");
    assert_eq!(cast.alice.publish_keys().await.unwrap_err().code(), "device_deleted");
    assert_eq!(cast.requests(&mark, "POST", "/keys/upload").len(), 0);
    let health = json!(cast.alice.health().await.unwrap());
    assert_eq!(health["health"], "degraded");
    assert_eq!(health["problems"][0]["code"], "device_deleted");
    let cast = cast.reopen().await;
    assert_eq!(
        cast.alice.sync().await.unwrap_err().code(),
        "device_deleted",
        "it is on the disk"
    );
    // The homeserver was mistaken.
    cast.server.behave();
    cast.sync().await;
    assert_eq!(json!(cast.alice.health().await.unwrap()), json!({"health": "ok"}));
    assert_eq!(cast.send("back").await.devices.len(), 2);
}

#[tokio::test]
async fn kq_38_our_own_device_with_other_keys_is_the_end_of_it() {
    for key in ["curve25519", "ed25519"] {
        let cast = Cast::acquainted().await;
        let ours = cast.alice.device_id().to_string();
        let theirs = cast.bob.curve25519().to_base64();
        show_own(&cast, move |own| {
            own[&ours]["keys"][format!("{key}:{ours}")] = theirs.clone().into()
        })
        .await;
        let mark = cast.mark().await;
        cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
        assert_eq!(
            cast.alice.sync().await.unwrap_err().code(),
            "device_keys_mismatch",
            "{key}"
        );
        cast.server.behave();
        assert_eq!(cast.refused().await.code(), "device_keys_mismatch");
        let cast = cast.reopen().await;
        assert_eq!(
            cast.alice.publish_keys().await.unwrap_err().code(),
            "device_keys_mismatch"
        );
        assert_eq!(cast.requests(&mark, "POST", "/keys/upload").len(), 0);
    }
}

/// Whether alice's store holds a cross-signing identity of bob's.
async fn has_identity(cast: &Cast) -> bool {
    use matrix_sdk_crypto::store::CryptoStore;
    let identity = cast.device().store().get_user_identity(cast.bob.user()).await;
    identity.unwrap().is_some()
}

#[tokio::test]
async fn kq_39_an_identity_that_does_not_hold_together_is_none_and_the_device_is_served() {
    type Spoil = fn(&EvilPeer, &mut Value);
    let spoils: [(&str, Spoil); 4] = [
        ("unsigned", |_, body| body["self_signing_key"]["signatures"] = json!({})),
        ("of another master key", |bob, body| {
            let other = bob.new_cross_signing();
            body["master_key"] = other.master_key();
        }),
        ("of another user", |_, body| {
            body["master_key"]["user_id"] = json!("@carol:localhost")
        }),
        ("swapped usage", |_, body| {
            body["master_key"]["usage"] = json!(["self_signing"]);
            body["self_signing_key"]["usage"] = json!(["master"]);
        }),
    ];
    for (what, spoil) in spoils {
        let mut cast = Cast::fresh().await;
        cast.bob.publish();
        let identity = cast.bob.new_cross_signing();
        let mut body = json!({"master_key": identity.master_key(), "self_signing_key": identity.self_signing_key()});
        spoil(&cast.bob, &mut body);
        cast.bob.publish_cross_signing_keys(&body);
        assert_eq!(cast.send("x").await.readable_by(), 1, "{what}");
        assert!(!has_identity(&cast).await, "{what}");
        assert!(cast.events().await.is_empty());
    }
    // The good one is taken, so that the above proves something.
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let identity = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&identity);
    cast.send("x").await;
    assert!(has_identity(&cast).await);
}

#[tokio::test]
async fn kq_40_a_replaced_identity_is_reported() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let first = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&first);
    cast.send("x").await;
    assert!(cast.events().await.is_empty(), "a first identity is no change");
    let second = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&second);
    cast.sync().await;
    let told: Vec<Value> = cast.events().await.iter().map(|event| json!(event)).collect();
    assert_eq!(
        told,
        [json!({
            "kind": "identity_changed",
            "user_id": "@bob:localhost",
            "was_verified": false,
            "master_key": second.master.public_key().to_base64(),
        })]
    );
    assert!(cast.events().await.is_empty());
}

#[tokio::test]
async fn kq_10_a_copied_curve25519_key_of_another_user_attributes_nothing_to_the_copy() {
    let mut cast = Cast::acquainted().await;
    // Carol's device carries bob's key; she can sign that, and has not his secret.
    let carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    let mut copy = carol.unsigned_device_keys();
    copy["keys"]["curve25519:CDEV"] = cast.bob.curve25519().to_base64().into();
    carol.sign(&mut copy);
    carol.publish_keys(&json!({"device_keys": copy}));
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.sync().await;
    cast.send("both are known now").await;
    assert!(cast.knows(carol.user(), carol.device()).await);
    let olm = cast
        .bob
        .newest_olm_session(cast.alice.user_id(), cast.alice.device_id());
    let mut session = cast.bob.megolm_session(cast.room.id());
    cast.bob.share_room_key(&olm.unwrap(), &session);
    cast.bob.send_text(&mut session, "from bob");
    let events = cast.events().await;
    let [Event::Message(message)] = events.as_slice() else {
        unreachable!("{events:?}")
    };
    assert_eq!(message.sender, cast.bob.user());
    let encryption = message.encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_deref(), Some(cast.bob.device()));
    // The same event in carol's name is nobody's: her device is found by the key, and is not who signed.
    let stolen = cast.server.timeline(cast.room.id()).last().unwrap()["content"].clone();
    cast.server
        .inject(cast.room.id(), carol.user(), "m.room.encrypted", stolen);
    let events: Vec<Value> = cast.events().await.iter().map(|event| json!(event)).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["kind"], "rejected");
    assert_eq!(events[0]["reason"]["code"], "sender_unattributed");
}

#[tokio::test]
async fn kq_41_a_device_id_that_is_a_cross_signing_key_is_a_device_id() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let identity = cast.bob.new_cross_signing();
    cast.bob.publish_cross_signing(&identity);
    let master = identity.master.public_key().to_base64();
    let mut namesake = EvilPeer::new(&cast.server, "bob", &master);
    namesake.publish();
    cast.sync().await;
    let receipt = cast.send("x").await;
    let devices: Vec<&str> = receipt.devices.iter().map(|device| device.device_id.as_str()).collect();
    assert_eq!(receipt.readable_by(), 2);
    assert!(devices.contains(&"BDEV") && devices.contains(&master.as_str()));
    assert_eq!(cast.read_by(&mut namesake), ["x"]);
    // Looked up by the id, it is the device with the device's keys, and the identity is untouched.
    use matrix_sdk_crypto::store::CryptoStore;
    let found = cast
        .device()
        .store()
        .get_device(namesake.user(), namesake.device())
        .await;
    assert_eq!(found.unwrap().unwrap().ed25519_key(), Some(namesake.ed25519()));
    assert!(has_identity(&cast).await);
}

#[tokio::test]
async fn kq_42_a_device_that_comes_back_is_the_same_and_reads_from_then_on() {
    let mut cast = Cast::acquainted().await;
    let mut keeper = EvilPeer::new(&cast.server, "bob", "BDEV2");
    keeper.publish();
    cast.sync().await;
    let both = cast.send("both").await;
    let told = |body: &mut Value| body["device_lists"]["changed"] = json!(["@bob:localhost"]);
    cast.rewrite("/sync", told);
    cast.rewrite("/keys/query", |body| {
        if let Some(bob) = body["device_keys"]["@bob:localhost"].as_object_mut() {
            bob.remove("BDEV");
        }
    });
    cast.sync().await;
    let without = cast.send("without").await;
    assert!(without.new_session);
    assert!(!cast.knows(cast.bob.user(), cast.bob.device()).await);
    cast.server.behave();
    cast.rewrite("/sync", told);
    cast.sync().await;
    let with = cast.send("with").await;
    assert_eq!(with.session_id, without.session_id);
    assert_eq!(outcomes(&with)[0], ("BDEV".to_owned(), DeviceOutcome::Reached));
    cast.bob.receive();
    assert_eq!(
        cast.bob.reads_from(&with.session_id),
        Some(1),
        "not what was said meanwhile"
    );
    assert_eq!(cast.bob.reads_from(&both.session_id), Some(0), "what it had before");
}

//! Claimed keys that are not usable (rows KC-01 to KC-14): each device is named with its reason, and given nothing.

use mx_e2ee::{DeviceOutcome, UnusableReason};
use mx_test_homeserver::{
    EvilPeer,
    peer::{SMALL_ORDER_POINTS, flip_bit, sign_with},
};
use ruma::device_id;
use serde_json::{Value, json};
use vodozemac::{Curve25519PublicKey, Ed25519SecretKey};

use crate::keys_cast::{Cast, outcomes, rejected};

/// Bob's only device publishes these instead of one-time keys.
async fn with_one_time_keys(make: impl FnOnce(&mut EvilPeer) -> Value) -> Cast {
    let mut cast = Cast::fresh().await;
    let one_time_keys = make(&mut cast.bob);
    let device_keys = cast.bob.device_keys();
    let body = json!({"device_keys": device_keys, "one_time_keys": one_time_keys});
    cast.bob.publish_keys(&body);
    cast.sync().await;
    cast
}

/// What the homeserver gives for bob's device is changed on its way.
async fn with_claimed(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Cast {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    cast.sync().await;
    cast.rewrite("/keys/claim", move |body| {
        let claimed = &mut body["one_time_keys"]["@bob:localhost"]["BDEV"];
        if claimed.is_object() {
            change(claimed);
        }
    });
    cast
}

/// The send is refused with the reason, and there is no session.
async fn assert_unusable(cast: &Cast, reason: UnusableReason) {
    let outcome = match reason {
        UnusableReason::NoOneTimeKey => ("BDEV".to_owned(), DeviceOutcome::NoOneTimeKey),
        reason => rejected("BDEV", reason),
    };
    assert_eq!(cast.nobody_reached().await, [outcome]);
    assert_eq!(cast.sessions_with(&cast.bob.curve25519().to_base64()).await, 0);
}

/// The one key in what was claimed.
fn key(claimed: &mut Value) -> &mut Value {
    claimed.as_object_mut().unwrap().values_mut().next().unwrap()
}

#[tokio::test]
async fn kc_01_a_one_time_key_without_a_signature_is_unsigned() {
    let cast = with_claimed(|claimed| key(claimed)["signatures"] = json!({})).await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyUnsigned).await;
    let cast = with_claimed(|claimed| {
        key(claimed).as_object_mut().unwrap().remove("signatures");
    })
    .await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyUnsigned).await;
    // The reason outlives a restart, and is gone with a good key.
    let cast = cast.reopen().await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyUnsigned).await;
    cast.server.behave();
    cast.pass(3600);
    assert_eq!(cast.send("x").await.readable_by(), 1);
}

#[tokio::test]
async fn kc_02_a_one_time_key_signed_by_another_device_is_bad() {
    let cast = with_claimed(|claimed| {
        let user = ruma::user_id!("@bob:localhost");
        sign_with(&Ed25519SecretKey::new(), key(claimed), user, "ed25519:BDEV");
    })
    .await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyBadSignature).await;
}

#[tokio::test]
async fn kc_03_no_bit_of_a_one_time_key_can_be_flipped() {
    let cast = Cast::fresh().await;
    let bits = (0..256).map(|bit| ("/key", bit));
    let bits = bits.chain((0..512).map(|bit| ("signature", bit)));
    // One device for each bit.
    let mut devices = Vec::new();
    for (number, (what, bit)) in bits.enumerate() {
        let mut peer = EvilPeer::new(&cast.server, "bob", &format!("B{number:03}"));
        let mut one_time_keys = peer.one_time_keys(1);
        let key = one_time_keys.values_mut().next().unwrap();
        let pointer = match what {
            "signature" => format!("/signatures/@bob:localhost/{}", peer.signing_key_id()),
            key => key.to_owned(),
        };
        let field = key.pointer_mut(&pointer).unwrap();
        let flipped = flip_bit(field.as_str().unwrap(), bit);
        assert_ne!(field.as_str(), Some(flipped.as_str()));
        *field = flipped.into();
        peer.publish_keys(&json!({"device_keys": peer.device_keys(), "one_time_keys": one_time_keys}));
        devices.push(peer);
    }
    cast.sync().await;
    let mark = cast.mark().await;
    let expected: Vec<_> = devices
        .iter()
        .map(|peer| rejected(peer.device().as_str(), UnusableReason::OneTimeKeyBadSignature))
        .collect();
    assert_eq!(expected.len(), 768);
    assert_eq!(cast.nobody_reached().await, expected);
    // In chunks of 250.
    assert_eq!(cast.requests(&mark, "POST", "/keys/claim").len(), 4);
    for peer in &devices {
        assert_eq!(cast.sessions_with(&peer.curve25519().to_base64()).await, 0);
    }
}

#[tokio::test]
async fn kc_04_swapped_one_time_keys_are_both_bad() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    EvilPeer::new(&cast.server, "bob", "BDEV2").publish();
    cast.sync().await;
    cast.rewrite("/keys/claim", |body| {
        let bob = &mut body["one_time_keys"]["@bob:localhost"];
        *bob = json!({"BDEV": bob["BDEV2"], "BDEV2": bob["BDEV"]});
    });
    let both = ["BDEV", "BDEV2"].map(|device| rejected(device, UnusableReason::OneTimeKeyBadSignature));
    assert_eq!(cast.nobody_reached().await, both);
}

#[tokio::test]
async fn kc_05_a_plain_curve25519_key_is_unsigned() {
    let cast = with_claimed(|claimed| {
        let plain = key(claimed)["key"].clone();
        *claimed = json!({"curve25519:AAAAAQ": plain});
    })
    .await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyUnsigned).await;
}

#[tokio::test]
async fn kc_05_a_plain_key_beside_the_signed_one_does_no_harm() {
    let cast = with_claimed(|claimed| {
        let plain = key(claimed)["key"].clone();
        claimed["curve25519:AAAAAQ"] = plain;
    })
    .await;
    assert_eq!(cast.send("x").await.readable_by(), 1);
}

#[tokio::test]
async fn kc_06_a_fallback_key_makes_a_session_like_any_other() {
    use matrix_sdk_crypto::store::CryptoStore;
    let mut cast = Cast::fresh().await;
    let fallback = cast.bob.fallback_key();
    assert_eq!(fallback.values().next().unwrap()["fallback"], true);
    let device_keys = cast.bob.device_keys();
    let body = json!({"device_keys": device_keys, "fallback_keys": fallback});
    cast.bob.publish_keys(&body);
    cast.sync().await;
    assert_eq!(cast.send("by fallback").await.readable_by(), 1);
    let curve = cast.bob.curve25519().to_base64();
    let sessions = cast.device().store().get_sessions(&curve).await.unwrap().unwrap();
    let used_fallback: Vec<bool> = sessions
        .iter()
        .map(|session| session.created_using_fallback_key)
        .collect();
    assert_eq!(used_fallback, [true]);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["by fallback"]);
}

#[tokio::test]
async fn kc_07_the_fallback_flag_is_signed() {
    let cast = with_claimed(|claimed| key(claimed)["fallback"] = true.into()).await;
    assert_unusable(&cast, UnusableReason::OneTimeKeyBadSignature).await;

    let mut cast = Cast::fresh().await;
    let fallback = cast.bob.fallback_key();
    let device_keys = cast.bob.device_keys();
    let body = json!({"device_keys": device_keys, "fallback_keys": fallback});
    cast.bob.publish_keys(&body);
    cast.sync().await;
    cast.rewrite("/keys/claim", |body| {
        let claimed = &mut body["one_time_keys"]["@bob:localhost"]["BDEV"];
        if claimed.is_object() {
            key(claimed).as_object_mut().unwrap().remove("fallback");
        }
    });
    assert_unusable(&cast, UnusableReason::OneTimeKeyBadSignature).await;
}

#[tokio::test]
async fn kc_08_a_one_time_key_of_small_order_makes_no_session() {
    for point in SMALL_ORDER_POINTS {
        let cast = with_one_time_keys(|bob| {
            let key = bob.signed_key(&Curve25519PublicKey::from_bytes(point), false);
            json!({"signed_curve25519:AAAAAQ": key})
        })
        .await;
        assert_unusable(&cast, UnusableReason::NonContributoryKey).await;
    }
}

#[tokio::test]
async fn kc_09_a_device_without_one_time_keys_is_named_and_told() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut empty = EvilPeer::new(&cast.server, "bob", "BDEV2");
    empty.publish_keys(&json!({"device_keys": empty.device_keys()}));
    cast.sync().await;
    // A homeserver may leave the device out, or name it with nothing.
    cast.rewrite("/keys/claim", |body| {
        body["one_time_keys"]["@bob:localhost"]["BDEV2"] = json!({});
    });
    let receipt = cast.send("x").await;
    let expected = [
        ("BDEV".to_owned(), DeviceOutcome::Reached),
        ("BDEV2".to_owned(), DeviceOutcome::NoOneTimeKey),
    ];
    assert_eq!(outcomes(&receipt), expected);
    let told: Vec<Value> = empty.receive().into_iter().map(|received| received.event).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["type"], "m.room_key.withheld");
    assert_eq!(told[0]["content"]["code"], "m.no_olm");
    // It is told once, and named always: also for a key that is new.
    let receipt = cast.send("y").await;
    assert_eq!(outcomes(&receipt)[1].1, DeviceOutcome::NoOneTimeKey);
    cast.server.delete_device(cast.bob.user(), device_id!("BDEV"));
    EvilPeer::new(&cast.server, "bob", "BDEV3").publish();
    cast.sync().await;
    let receipt = cast.send("z").await;
    assert!(receipt.new_session);
    assert_eq!(outcomes(&receipt)[0], ("BDEV2".to_owned(), DeviceOutcome::NoOneTimeKey));
}

#[tokio::test]
async fn kc_10_when_no_device_has_a_one_time_key_the_send_is_refused() {
    let cast = with_one_time_keys(|_| json!({})).await;
    let second = EvilPeer::new(&cast.server, "bob", "BDEV2");
    second.publish_keys(&json!({"device_keys": second.device_keys()}));
    cast.sync().await;
    let nothing = |device: &str| (device.to_owned(), DeviceOutcome::NoOneTimeKey);
    assert_eq!(cast.nobody_reached().await, ["BDEV", "BDEV2"].map(nothing));
}

#[tokio::test]
async fn kc_12_a_device_that_has_one_time_keys_again_is_given_the_key_as_it_stands() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut late = EvilPeer::new(&cast.server, "bob", "BDEV2");
    late.publish_keys(&json!({"device_keys": late.device_keys()}));
    cast.sync().await;
    let first = cast.send("zero").await;
    let one_time_keys = late.one_time_keys(5);
    late.publish_keys(&json!({"one_time_keys": one_time_keys}));
    // Not asked again at once; after a while, it is.
    let mark = cast.mark().await;
    assert_eq!(cast.send("one").await.readable_by(), 1);
    assert_eq!(cast.requests(&mark, "POST", "/keys/claim").len(), 0);
    cast.pass(15);
    let third = cast.send("two").await;
    assert_eq!((third.new_session, third.readable_by()), (false, 2));
    late.receive();
    assert_eq!(late.reads_from(&first.session_id), Some(2));
}

#[tokio::test]
async fn kc_13_a_key_that_nobody_asked_for_is_ignored() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    let mut carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    carol.publish_keys(&json!({"device_keys": carol.device_keys()}));
    let other = cast.alice.create_room(None, &[carol.user().to_owned()]).await.unwrap();
    carol.join(other.id());
    cast.sync().await;
    // Carol's device is known, and she has no one-time key.
    other.send_text("x").await.unwrap_err();
    assert!(cast.knows(carol.user(), carol.device()).await);
    let unasked = carol.one_time_keys(1);
    cast.rewrite("/keys/claim", move |body| {
        body["one_time_keys"]["@carol:localhost"] = json!({"CDEV": unasked});
    });
    assert_eq!(cast.send("for bob").await.readable_by(), 1);
    assert_eq!(cast.sessions_with(&carol.curve25519().to_base64()).await, 0);
}

#[tokio::test]
async fn kc_14_one_key_for_two_devices_is_bad_for_the_second() {
    let mut cast = Cast::fresh().await;
    cast.bob.publish();
    EvilPeer::new(&cast.server, "bob", "BDEV2").publish();
    cast.sync().await;
    cast.rewrite("/keys/claim", |body| {
        let bob = &mut body["one_time_keys"]["@bob:localhost"];
        bob["BDEV2"] = bob["BDEV"].clone();
    });
    let receipt = cast.send("x").await;
    let expected = [
        ("BDEV".to_owned(), DeviceOutcome::Reached),
        rejected("BDEV2", UnusableReason::OneTimeKeyBadSignature),
    ];
    assert_eq!(outcomes(&receipt), expected);
}

#[tokio::test]
async fn kc_21_a_key_id_of_any_form_makes_a_session_or_none() {
    for id in [
        "signed_curve25519:ключ",
        "signed_curve25519:a:b:c",
        &format!("signed_curve25519:{}", "k".repeat(10_240)),
        "signed_curve25519:",
    ] {
        let mut cast = Cast::fresh().await;
        cast.bob.publish();
        cast.sync().await;
        let name = id.to_owned();
        cast.rewrite("/keys/claim", move |body| {
            let claimed = &mut body["one_time_keys"]["@bob:localhost"]["BDEV"];
            if claimed.is_object() {
                let signed = key(claimed).clone();
                *claimed = json!({&name: signed});
            }
        });
        let mark = cast.mark().await;
        match cast.room.send_text("x").await {
            Ok(receipt) => assert_eq!(receipt.readable_by(), 1, "{id}"),
            Err(error) => {
                assert_eq!(error.code(), "unreadable_answer", "{id}");
                cast.assert_refused(&mark).await;
            }
        }
    }
}

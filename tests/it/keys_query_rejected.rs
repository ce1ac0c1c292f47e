//! Devices whose published keys are not usable (rows KQ-01 to KQ-21): each is named with its reason, and given nothing.

use std::sync::{Arc, Mutex};

use mx_e2ee::UnusableReason;
use mx_test_homeserver::{
    EvilPeer,
    peer::{SMALL_ORDER_POINTS, flip_bit, sign_with},
};
use ruma::{device_id, user_id};
use serde_json::{Value, json};
use vodozemac::{Curve25519PublicKey, Ed25519SecretKey};

use crate::keys_cast::{Cast, outcomes, rejected};

/// Bob's only device publishes these keys, with one-time keys that are good.
async fn with_keys(make: impl FnOnce(&EvilPeer) -> Value) -> Cast {
    let mut cast = Cast::fresh().await;
    let one_time_keys = cast.bob.one_time_keys(5);
    let body = json!({"device_keys": make(&cast.bob), "one_time_keys": one_time_keys});
    cast.bob.publish_keys(&body);
    cast.sync().await;
    cast
}

/// The send is refused with the reason, the device is not in the store, and no one-time key of it was claimed.
async fn assert_rejected(cast: &Cast, reason: UnusableReason) {
    let mark = cast.mark().await;
    assert_eq!(cast.nobody_reached().await, [rejected("BDEV", reason)]);
    assert!(!cast.knows(cast.bob.user(), cast.bob.device()).await);
    assert_eq!(cast.requests(&mark, "POST", "/keys/claim").len(), 0);
}

/// Signed by bob after the change.
fn signed(bob: &EvilPeer, change: impl FnOnce(&mut Value)) -> Value {
    let mut keys = bob.unsigned_device_keys();
    change(&mut keys);
    bob.sign(&mut keys);
    keys
}

#[tokio::test]
async fn kq_01_a_device_that_signed_nothing_is_unsigned() {
    let cast = with_keys(|bob| {
        let mut keys = bob.unsigned_device_keys();
        keys["signatures"] = json!({});
        keys
    })
    .await;
    assert_rejected(&cast, UnusableReason::Unsigned).await;
    // It signs them after all.
    let keys = cast.bob.device_keys();
    cast.bob.publish_keys(&json!({"device_keys": keys}));
    cast.sync().await;
    assert_eq!(cast.send("now").await.readable_by(), 1);
}

#[tokio::test]
async fn kq_02_a_signature_of_another_key_is_bad() {
    let cast = with_keys(|bob| {
        let mut keys = bob.unsigned_device_keys();
        sign_with(&Ed25519SecretKey::new(), &mut keys, bob.user(), "ed25519:BDEV");
        keys
    })
    .await;
    assert_rejected(&cast, UnusableReason::BadSignature).await;
}

/// Serve one changed object after the other as bob's device, and let alice ask about it.
async fn assert_all_rejected(cast: &Cast, variants: Vec<Value>) {
    let served = Arc::new(Mutex::new(Value::Null));
    let serve = Arc::clone(&served);
    cast.rewrite("/keys/query", move |body| {
        let bob = &mut body["device_keys"]["@bob:localhost"];
        if bob.is_object() {
            *bob = json!({"BDEV": *serve.lock().unwrap()});
        }
    });
    cast.rewrite("/sync", |body| {
        body["device_lists"]["changed"] = json!(["@bob:localhost"])
    });
    for variant in variants {
        served.lock().unwrap().clone_from(&variant);
        cast.sync().await;
        assert!(!cast.is_dirty(cast.bob.user()).await, "the answer was not taken");
        assert!(!cast.knows(cast.bob.user(), cast.bob.device()).await, "{variant}");
    }
    assert!(cast.nobody_reached().await.iter().all(|(device, _)| device == "BDEV"));
}

#[tokio::test]
async fn kq_03_no_bit_of_keys_and_signature_can_be_flipped() {
    let cast = Cast::fresh().await;
    let good = cast.bob.device_keys();
    let mut variants = Vec::new();
    for pointer in [
        "/keys/curve25519:BDEV",
        "/keys/ed25519:BDEV",
        "/signatures/@bob:localhost/ed25519:BDEV",
    ] {
        let text = good.pointer(pointer).unwrap().as_str().unwrap();
        let bits = if pointer.starts_with("/keys") { 256 } else { 512 };
        for bit in 0..bits {
            let mut flipped = good.clone();
            *flipped.pointer_mut(pointer).unwrap() = flip_bit(text, bit).into();
            assert_ne!(flipped, good);
            variants.push(flipped);
        }
    }
    assert_all_rejected(&cast, variants).await;
}

#[tokio::test]
async fn kq_03_no_bit_of_ids_and_algorithms_can_be_flipped() {
    let cast = Cast::fresh().await;
    let good = cast.bob.device_keys();
    let mut variants = Vec::new();
    for pointer in ["/user_id", "/device_id", "/algorithms/0", "/algorithms/1"] {
        let text = good.pointer(pointer).unwrap().as_str().unwrap();
        // The highest bit of a letter makes it no UTF-8, which is no JSON.
        for bit in (0..text.len() * 8).filter(|bit| bit % 8 != 7) {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut flipped = good.clone();
            *flipped.pointer_mut(pointer).unwrap() = String::from_utf8(bytes).unwrap().into();
            variants.push(flipped);
        }
    }
    assert_eq!(variants.len(), 7 * (14 + 4 + 28 + 20));
    assert_all_rejected(&cast, variants).await;
}

#[tokio::test]
async fn kq_04_an_unsigned_field_outside_of_unsigned_spoils_the_signature() {
    let cast = with_keys(|bob| {
        let mut keys = bob.device_keys();
        keys["more"] = json!(1);
        keys
    })
    .await;
    assert_rejected(&cast, UnusableReason::BadSignature).await;
}

#[tokio::test]
async fn kq_05_what_is_signed_may_hold_more_and_what_is_unsigned_may_be_anything() {
    let mut cast = with_keys(|bob| {
        let mut keys = signed(bob, |keys| keys["org.example.more"] = json!({"a": [1, null]}));
        keys["unsigned"] = json!({"device_display_name": "\u{202e}boB", "age": 7});
        keys
    })
    .await;
    assert_eq!(cast.send("x").await.readable_by(), 1);
    let mut bob = cast.bob.clone();
    assert_eq!(cast.read_by(&mut bob), ["x"]);
    // The same again is the same device.
    cast.rewrite("/sync", |body| {
        body["device_lists"]["changed"] = json!(["@bob:localhost"])
    });
    cast.sync().await;
    cast.bob = bob;
    assert!(!cast.send("y").await.new_session);
}

#[tokio::test]
async fn kq_06_swapped_devices_are_both_rejected() {
    let mut cast = Cast::fresh().await;
    let mut second = EvilPeer::new(&cast.server, "bob", "BDEV2");
    cast.bob.publish();
    second.publish();
    cast.rewrite("/keys/query", |body| {
        let bob = &mut body["device_keys"]["@bob:localhost"];
        if bob.is_object() {
            *bob = json!({"BDEV": bob["BDEV2"], "BDEV2": bob["BDEV"]});
        }
    });
    cast.sync().await;
    let both = ["BDEV", "BDEV2"].map(|device| rejected(device, UnusableReason::IdMismatch));
    assert_eq!(cast.nobody_reached().await, both);
}

#[tokio::test]
async fn kq_07_a_device_under_another_user_is_rejected() {
    let mut cast = Cast::fresh().await;
    let carol = EvilPeer::new(&cast.server, "carol", "CDEV");
    cast.room.invite(carol.user()).await.unwrap();
    carol.join(cast.room.id());
    cast.bob.publish();
    cast.rewrite("/keys/query", |body| {
        let keys = &mut body["device_keys"];
        if keys["@carol:localhost"].is_object() {
            keys["@carol:localhost"] = json!({"BDEV": keys["@bob:localhost"]["BDEV"]});
        }
    });
    cast.sync().await;
    let receipt = cast.send("x").await;
    let wrong = receipt
        .devices
        .iter()
        .find(|device| device.user_id == carol.user())
        .unwrap();
    assert_eq!(
        crate::keys_cast::named(wrong),
        rejected("BDEV", UnusableReason::UserIdMismatch)
    );
    assert_eq!(receipt.readable_by(), 1, "bob himself has it");
    assert!(!cast.knows(carol.user(), device_id!("BDEV")).await);
}

#[tokio::test]
async fn kq_08_keys_that_name_another_device_are_missing() {
    let cast = with_keys(|bob| {
        signed(bob, |keys| {
            let (curve, ed) = (
                keys["keys"]["curve25519:BDEV"].clone(),
                keys["keys"]["ed25519:BDEV"].clone(),
            );
            keys["keys"] = json!({"curve25519:OTHER": curve, "ed25519:OTHER": ed});
        })
    })
    .await;
    assert_rejected(&cast, UnusableReason::MissingKey).await;
}

#[tokio::test]
async fn kq_09_two_devices_with_one_curve25519_key_are_not_told_apart_and_not_used() {
    let mut cast = Cast::fresh().await;
    let second = EvilPeer::new(&cast.server, "bob", "BDEV2");
    cast.bob.publish();
    let curve = cast.bob.curve25519().to_base64();
    let copy = signed(&second, |keys| keys["keys"]["curve25519:BDEV2"] = curve.clone().into());
    second.publish_keys(&json!({"device_keys": copy}));
    cast.sync().await;
    let both = ["BDEV", "BDEV2"].map(|device| rejected(device, UnusableReason::SharedKey));
    assert_eq!(cast.nobody_reached().await, both);
}

#[tokio::test]
async fn kq_09_who_had_the_key_first_keeps_it() {
    let cast = Cast::acquainted().await;
    let second = EvilPeer::new(&cast.server, "bob", "BDEV2");
    let curve = cast.bob.curve25519().to_base64();
    let copy = signed(&second, |keys| keys["keys"]["curve25519:BDEV2"] = curve.clone().into());
    second.publish_keys(&json!({"device_keys": copy}));
    cast.sync().await;
    let receipt = cast.send("x").await;
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(outcomes(&receipt)[1], rejected("BDEV2", UnusableReason::SharedKey));
    assert!(!cast.knows(cast.bob.user(), device_id!("BDEV2")).await);
}

#[tokio::test]
async fn kq_11_a_device_with_our_own_curve25519_key_is_never_a_recipient() {
    let cast = Cast::fresh().await;
    let ours = cast.alice.key_status().await.unwrap().curve25519;
    let mut bob = cast.bob.clone();
    let one_time_keys = bob.one_time_keys(5);
    let keys = signed(&bob, |keys| keys["keys"]["curve25519:BDEV"] = ours.clone().into());
    bob.publish_keys(&json!({"device_keys": keys, "one_time_keys": one_time_keys}));
    cast.sync().await;
    assert_rejected(&cast, UnusableReason::OwnKeyReflected).await;
    assert_eq!(cast.sessions_with(&ours).await, 0, "no session with ourselves");
    let told: Vec<Value> = cast.events().await.iter().map(|event| json!(event)).collect();
    assert_eq!(told.len(), 1, "told once: {told:?}");
    assert_eq!(told[0]["kind"], "device_rejected");
    assert_eq!(told[0]["reason"]["code"], "own_key_reflected");
}

#[tokio::test]
async fn kq_12_only_our_very_device_is_left_out_and_not_one_with_its_id() {
    let cast = Cast::fresh().await;
    let ours = cast.alice.device_id().as_str().to_owned();
    let mut namesake = EvilPeer::new(&cast.server, "bob", &ours);
    namesake.publish();
    cast.sync().await;
    let receipt = cast.send("for bob").await;
    assert_eq!(receipt.readable_by(), 1);
    assert_eq!(receipt.devices[0].user_id, user_id!("@bob:localhost"));
    assert_eq!(receipt.devices[0].device_id, ours);
    assert_eq!(cast.read_by(&mut namesake), ["for bob"]);
}

#[tokio::test]
async fn kq_15_without_one_of_its_keys_a_device_is_rejected_and_the_others_are_served() {
    for missing in ["ed25519:BDEV2", "curve25519:BDEV2"] {
        let mut cast = Cast::fresh().await;
        cast.bob.publish();
        let second = EvilPeer::new(&cast.server, "bob", "BDEV2");
        let keys = signed(&second, |keys| {
            keys["keys"].as_object_mut().unwrap().remove(missing);
        });
        second.publish_keys(&json!({"device_keys": keys}));
        cast.sync().await;
        let receipt = cast.send("x").await;
        assert_eq!(receipt.readable_by(), 1);
        assert_eq!(
            outcomes(&receipt)[1],
            rejected("BDEV2", UnusableReason::MissingKey),
            "{missing}"
        );
        assert!(!cast.knows(cast.bob.user(), device_id!("BDEV2")).await);
    }
}

#[tokio::test]
async fn kq_16_a_curve25519_key_of_another_form_is_malformed() {
    for (key, what) in [
        (json!(""), "0 bytes"),
        (json!("A".repeat(42)), "31 bytes"),
        (json!("A".repeat(44)), "33 bytes"),
        (json!("-_".repeat(21) + "A"), "url-safe"),
        (json!("!".repeat(43)), "no base64"),
        (json!(7), "an integer"),
    ] {
        let cast = Cast::fresh().await;
        let keys = signed(&cast.bob, |keys| keys["keys"]["curve25519:BDEV"] = key);
        cast.rewrite("/keys/query", move |body| {
            let bob = &mut body["device_keys"]["@bob:localhost"];
            if bob.is_object() {
                *bob = json!({"BDEV": keys});
            }
        });
        let found = cast.nobody_reached().await;
        assert_eq!(found, [rejected("BDEV", UnusableReason::MalformedKey)], "{what}");
    }
}

#[tokio::test]
async fn kq_16_padding_is_not_what_was_signed() {
    let cast = with_keys(|bob| {
        let padded = bob.curve25519().to_base64() + "=";
        signed(bob, |keys| keys["keys"]["curve25519:BDEV"] = padded.into())
    })
    .await;
    // The key is read with its padding, and checked and used without: the signature was over something else.
    assert_rejected(&cast, UnusableReason::BadSignature).await;
}

#[tokio::test]
async fn kq_17_algorithms_that_are_no_list_spoil_one_device_only() {
    for algorithms in [Value::Null, json!("m.olm.v1.curve25519-aes-sha2"), json!({})] {
        let mut cast = Cast::fresh().await;
        cast.bob.publish();
        let second = EvilPeer::new(&cast.server, "bob", "BDEV2");
        let keys = signed(&second, |keys| match algorithms {
            Value::Null => {
                keys.as_object_mut().unwrap().remove("algorithms");
            }
            other => keys["algorithms"] = other,
        });
        cast.rewrite("/keys/query", move |body| {
            let bob = &mut body["device_keys"]["@bob:localhost"];
            if bob.is_object() {
                bob["BDEV2"] = keys.clone();
            }
        });
        cast.sync().await;
        let receipt = cast.send("x").await;
        assert_eq!(receipt.readable_by(), 1);
        assert_eq!(outcomes(&receipt)[1], rejected("BDEV2", UnusableReason::Malformed));
    }
}

#[tokio::test]
async fn kq_18_an_identity_key_of_small_order_makes_no_session() {
    // All seven, the unreduced forms of 0 and 1 among them.
    for point in SMALL_ORDER_POINTS {
        let cast = with_keys(|bob| {
            let key = Curve25519PublicKey::from_bytes(point).to_base64();
            signed(bob, |keys| keys["keys"]["curve25519:BDEV"] = key.into())
        })
        .await;
        let found = cast.nobody_reached().await;
        assert_eq!(
            found,
            [rejected("BDEV", UnusableReason::NonContributoryKey)],
            "{point:?}"
        );
        let key = Curve25519PublicKey::from_bytes(point).to_base64();
        assert_eq!(cast.sessions_with(&key).await, 0);
    }
}

#[tokio::test]
async fn kq_20_a_device_without_olm_is_not_asked_for_keys() {
    for algorithms in [json!([]), json!(["m.megolm.v1.aes-sha2"]), json!(["org.example.new"])] {
        let cast = with_keys(|bob| signed(bob, |keys| keys["algorithms"] = algorithms)).await;
        assert_rejected(&cast, UnusableReason::NoOlmSupport).await;
    }
}

#[tokio::test]
async fn kq_21_a_device_without_megolm_is_not_given_a_megolm_key() {
    let only_olm = json!(["m.olm.v1.curve25519-aes-sha2"]);
    let cast = with_keys(|bob| signed(bob, |keys| keys["algorithms"] = only_olm)).await;
    assert_rejected(&cast, UnusableReason::NoMegolmSupport).await;
}

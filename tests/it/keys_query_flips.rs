//! Every single bit of a device's keys (row KQ-03): flipped, it is not the device any more.

use std::sync::{Arc, Mutex};

use mx_test_homeserver::peer::flip_bit;
use serde_json::{Value, json};

use crate::keys_cast::Cast;

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

//! The checkup of a device's keys: as others see them, how many are left, whose they are.

use mx_e2ee::{Checkup, FindingCode, Severity};
use mx_test_homeserver::Fault;
use serde_json::{Value, json};

use crate::{
    doctor::{codes, finding, well},
    doctor_inside::{edit, edit_device},
    world::{Device, Pair, World},
};

#[tokio::test]
async fn a_device_that_others_do_not_see_is_found() {
    let Pair { server, alice, .. } = well().await;
    let (user, device) = (alice.client.user_id().to_string(), alice.client.device_id().to_string());
    edit(&server, "/keys/query", move |body| {
        body["device_keys"][&user].as_object_mut().unwrap().remove(&device);
    });
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found)[0], "device_not_published", "{found:#?}");
    assert_eq!(found.worst(), Some(Severity::Error));
    let fixed = alice.client.doctor_with(Checkup::fixing()).await;
    let finding = finding(&fixed, FindingCode::DeviceNotPublished);
    assert!(
        !finding.mended && finding.not_mended.is_some(),
        "it was published before: {finding:?}"
    );
}

#[tokio::test]
async fn a_device_that_was_never_published_is_found_and_published() {
    let server = World::new();
    // The homeserver loses what was uploaded.
    server.fault(Fault::body(
        "/keys/upload",
        r#"{"one_time_key_counts": {"signed_curve25519": 50}}"#,
    ));
    let alice = Device::new(&server, "alice").await;
    let (user, device) = (alice.client.user_id().to_string(), alice.client.device_id().to_string());
    edit(&server, "/keys/query", move |body| {
        if let Some(devices) = body["device_keys"][&user].as_object_mut() {
            devices.remove(&device);
        }
    });
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::DeviceNotPublished), "{found:#?}");
    assert!(!found.has(FindingCode::DeviceDeleted), "{found:#?}");
}

#[tokio::test]
async fn other_keys_than_ours_are_found() {
    let Pair { server, alice, bob, .. } = well().await;
    let others = bob.client.key_status().await.unwrap();
    let name = format!("ed25519:{}", alice.client.device_id());
    let key = others.ed25519.clone();
    edit_device(&server, &alice.client, move |keys| {
        keys["keys"][&name] = key.clone().into()
    });
    let found = alice.client.doctor().await;
    let mismatch = finding(&found, FindingCode::DeviceKeysMismatch);
    assert!(mismatch.details[1].contains(&others.ed25519), "{mismatch:?}");
}

#[tokio::test]
async fn keys_without_signature_or_algorithm_are_found() {
    let Pair { server, alice, .. } = well().await;
    edit_device(&server, &alice.client, |keys| {
        keys["algorithms"] = json!(["m.olm.v1.curve25519-aes-sha2"]);
    });
    let found = alice.client.doctor().await;
    let algorithms = finding(&found, FindingCode::DeviceAlgorithms);
    assert_eq!(algorithms.details, ["not shown: m.megolm.v1.aes-sha2"]);
    // Whoever changes them breaks the signature.
    assert!(found.has(FindingCode::DeviceUnsigned), "{found:#?}");

    let Pair { server, alice, .. } = well().await;
    edit_device(&server, &alice.client, |keys| keys["signatures"] = json!({}));
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::DeviceUnsigned), "{found:#?}");
    assert!(!found.has(FindingCode::DeviceAlgorithms));
}

#[tokio::test]
async fn keys_that_ran_out_are_found_and_made_anew() {
    let Pair { server, alice, .. } = well().await;
    server.exhaust_keys(alice.client.user_id(), alice.client.device_id());
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["no_keys_to_claim"]);
    let fixed = alice.client.doctor_with(Checkup::fixing()).await;
    // A fallback key is renewed an hour after the one before, at the earliest.
    assert_eq!(codes(&fixed), ["no_fallback_key"], "{fixed:#?}");
    assert!(finding(&fixed, FindingCode::NoKeysToClaim).mended);
    assert_eq!(
        server.one_time_keys_left(alice.client.user_id(), alice.client.device_id()),
        50
    );
}

#[tokio::test]
async fn few_keys_foreign_keys_and_a_used_fallback_key_are_found() {
    let Pair { server, alice, .. } = well().await;
    for (count, fallback, expected) in [
        (9, true, "few_one_time_keys"),
        (0, true, "few_one_time_keys"),
        (50, false, "no_fallback_key"),
        (100, true, "foreign_one_time_keys"),
    ] {
        edit(&server, "/sync", move |body| {
            body["device_one_time_keys_count"] = json!({"signed_curve25519": count});
            let unused = if fallback {
                json!(["signed_curve25519"])
            } else {
                json!([])
            };
            body["device_unused_fallback_key_types"] = unused;
        });
        let found = alice.client.doctor().await;
        assert_eq!(codes(&found), [expected], "{count} {fallback}");
        server.behave();
    }
}

#[tokio::test]
async fn one_time_keys_that_collide_are_found() {
    let Pair { server, alice, .. } = well().await;
    server.exhaust_keys(alice.client.user_id(), alice.client.device_id());
    server.rewrite("/keys/upload", |request, answer| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let keys = body["one_time_keys"].as_object().filter(|keys| !keys.is_empty());
        let Some((id, key)) = keys.and_then(|keys| keys.iter().next()) else {
            return answer;
        };
        let mut old = key.clone();
        old["key"] = "x".repeat(43).into();
        let error = format!("One time key {id} already exists. Old key: {old}; new key: {key}");
        let body = json!({"errcode": "M_UNKNOWN", "error": error}).to_string();
        http::Response::builder().status(400).body(body.into()).unwrap()
    });
    let _refused = alice.client.sync().await;
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::OneTimeKeyConflict), "{found:#?}");
}

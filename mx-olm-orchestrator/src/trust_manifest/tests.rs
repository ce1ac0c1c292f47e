//! Each way in which what there is can differ from a manifest.

use ruma::{device_id, user_id};
use serde_json::{Value, json};

use super::*;

const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA";

fn manifest(bob: &Value) -> TrustManifest {
    TrustManifest::parse(&json!({"version": 1, "users": {"@bob:s": bob}}).to_string()).unwrap()
}

fn found(master_key: Option<&str>, devices: &[(&str, &str, bool)]) -> Found {
    Found {
        master_key: master_key.map(str::to_owned),
        devices: devices
            .iter()
            .map(|(id, key, signed)| ((*id).into(), ((*key).to_owned(), *signed)))
            .collect(),
    }
}

fn words(manifest: &TrustManifest, found: &Found) -> Vec<String> {
    let differences = manifest.differences(user_id!("@bob:s"), false, found);
    differences
        .iter()
        .map(|drift| json!(drift)["drift"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn devices_by_their_fingerprints() {
    let manifest = manifest(&json!({"devices": {"ONE": A}}));
    assert_eq!(words(&manifest, &found(None, &[("ONE", A, false)])), [""; 0]);
    assert_eq!(words(&manifest, &found(None, &[])), ["device_missing"]);
    assert_eq!(words(&manifest, &found(None, &[("ONE", B, true)])), ["fingerprint"]);
    assert_eq!(
        words(&manifest, &found(Some(A), &[("ONE", A, true), ("TWO", B, true)])),
        ["device_not_listed"],
        "an identity that is not listed vouches for nobody"
    );
}

#[test]
fn devices_by_the_identity_that_signed_them() {
    let manifest = manifest(&json!({"master_key": A}));
    assert_eq!(
        words(&manifest, &found(Some(A), &[("ONE", A, true), ("TWO", B, true)])),
        [""; 0]
    );
    assert_eq!(
        words(&manifest, &found(Some(A), &[("ONE", A, false)])),
        ["device_not_listed"]
    );
    assert_eq!(words(&manifest, &found(Some(A), &[])), [""; 0]);
    for key in [None, Some(B)] {
        assert_eq!(
            words(&manifest, &found(key, &[("ONE", A, true)])),
            ["master_key", "device_not_listed"]
        );
    }
}

#[test]
fn both_and_neither() {
    let manifest = manifest(&json!({"master_key": A, "devices": {"OLD": B}}));
    let both = found(Some(A), &[("OLD", B, false), ("NEW", A, true)]);
    assert_eq!(words(&manifest, &both), [""; 0]);
    let means = |device| manifest.means(user_id!("@bob:s"), device, &both);
    assert_eq!(means(device_id!("OLD")), Some(true));
    assert_eq!(means(device_id!("NEW")), Some(true));
    assert_eq!(means(device_id!("NONE")), None);
    let carol = user_id!("@carol:s");
    assert_eq!(manifest.means(carol, device_id!("OLD"), &both), None);
    assert_eq!(manifest.differences(carol, false, &found(None, &[])).len(), 1);
    assert!(
        manifest.differences(carol, true, &found(None, &[])).is_empty(),
        "our own user"
    );
    let open = TrustManifest {
        unlisted: Unlisted::Allow,
        ..manifest
    };
    assert!(open.differences(carol, false, &found(None, &[])).is_empty());
}

#[test]
fn what_is_no_manifest_is_refused() {
    for (text, part) in [
        ("", "EOF"),
        (r#"{"version": 2, "users": {}}"#, "its version is 2"),
        (r#"{"version": 1, "users": {"@b:s": {}}}"#, "without a key"),
        (
            r#"{"version": 1, "users": {"b": {"master_key": "x"}}}"#,
            "leading sigil",
        ),
        (r#"{"version": 1, "users": {}, "more": 1}"#, "unknown field"),
        (
            r#"{"version": 1, "users": {"@b:s": {"master_keys": "x"}}}"#,
            "unknown field",
        ),
        (
            r#"{"version": 1, "users": {"@b:s": {"master_key": "AAAA"}}}"#,
            "is no key",
        ),
        (
            r#"{"version": 1, "users": {"@b:s": {"devices": {"D": "!"}}}}"#,
            "is no key",
        ),
    ] {
        let error = TrustManifest::parse(text).unwrap_err();
        assert_eq!(error.code(), "trust_manifest_invalid");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

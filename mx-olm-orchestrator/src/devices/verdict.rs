//! Whether a device may be given room keys, judged from its published keys alone.
//!
//! # Why
//! The engine checks signatures and ids itself and says what it refused in a log only; it takes a device that lacks
//! Megolm or its Curve25519 key, and one that carries ours. Here each refusal gets a reason, by the same types and the
//! same check of the signature that the engine uses: there is one reading of the keys, never two.

use matrix_sdk_crypto::{
    SignatureError,
    types::{DeviceKeys, EventEncryptionAlgorithm},
    vodozemac::{Curve25519PublicKey, Ed25519PublicKey},
};
use ruma::{DeviceId, UserId, serde::Raw};
use serde_json::Value;

use crate::UnusableReason;

/// The identity keys of a device that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) ed25519: Ed25519PublicKey,
    pub(super) curve25519: Curve25519PublicKey,
}

/// Judge what the homeserver shows as the keys of `user`'s `device`.
pub(super) fn judge(
    user: &UserId,
    device: &DeviceId,
    raw: &Raw<ruma::encryption::DeviceKeys>,
) -> Result<Identity, UnusableReason> {
    let keys: DeviceKeys = raw
        .deserialize_as_unchecked()
        .map_err(|_| why_unreadable(raw.json().get()))?;
    if keys.user_id != user {
        return Err(UnusableReason::UserIdMismatch);
    }
    if keys.device_id != device {
        return Err(UnusableReason::IdMismatch);
    }
    let (Some(ed25519), Some(curve25519)) = (keys.ed25519_key(), keys.curve25519_key()) else {
        return Err(UnusableReason::MissingKey);
    };
    match keys.check_self_signature() {
        Ok(()) => {}
        Err(SignatureError::NoSignatureFound) => return Err(UnusableReason::Unsigned),
        Err(_) => return Err(UnusableReason::BadSignature),
    }
    if !keys
        .algorithms
        .contains(&EventEncryptionAlgorithm::OlmV1Curve25519AesSha2)
    {
        return Err(UnusableReason::NoOlmSupport);
    }
    if !keys.algorithms.contains(&EventEncryptionAlgorithm::MegolmV1AesSha2) {
        return Err(UnusableReason::NoMegolmSupport);
    }
    Ok(Identity { ed25519, curve25519 })
}

/// The engine's types do not read it: the first part that is wrong.
fn why_unreadable(json: &str) -> UnusableReason {
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(json) else {
        return UnusableReason::Malformed;
    };
    let keys = object.get("keys").and_then(Value::as_object);
    let malformed_key = keys.is_some_and(|keys| {
        keys.iter().any(|(id, key)| {
            let Some(key) = key.as_str() else { return true };
            match id.split(':').next() {
                Some("ed25519") => Ed25519PublicKey::from_base64(key).is_err(),
                Some("curve25519") => Curve25519PublicKey::from_base64(key).is_err(),
                _ => false,
            }
        })
    });
    if malformed_key {
        UnusableReason::MalformedKey
    } else if keys.is_some() && !object.contains_key("signatures") {
        UnusableReason::Unsigned
    } else {
        UnusableReason::Malformed
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::{OlmMachine, types::requests::AnyOutgoingRequest};
    use ruma::{device_id, user_id};
    use serde_json::{Value, json};

    use super::*;

    async fn keys() -> Value {
        let machine = OlmMachine::new(user_id!("@bob:s"), device_id!("BDEV")).await;
        let requests = machine.outgoing_requests().await.unwrap();
        let upload = requests.iter().find_map(|request| match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => upload.device_keys.clone(),
            _ => None,
        });
        upload.unwrap().deserialize_as_unchecked().unwrap()
    }

    fn verdict(keys: &Value) -> Result<Identity, UnusableReason> {
        let raw = Raw::from_json(serde_json::value::to_raw_value(keys).unwrap());
        judge(user_id!("@bob:s"), device_id!("BDEV"), &raw)
    }

    #[tokio::test]
    async fn each_fault_has_its_reason() {
        let good = keys().await;
        verdict(&good).unwrap();
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut keys = good.clone();
            change(&mut keys);
            verdict(&keys).unwrap_err().code()
        };
        assert_eq!(changed(&|keys| keys["signatures"] = json!({})), "unsigned");
        assert_eq!(
            changed(&|keys| {
                keys.as_object_mut().unwrap().remove("signatures");
            }),
            "unsigned"
        );
        assert_eq!(changed(&|keys| keys["more"] = json!(1)), "bad_signature");
        assert_eq!(
            changed(&|keys| keys["signatures"]["@bob:s"]["ed25519:BDEV"] = json!("x")),
            "bad_signature"
        );
        assert_eq!(changed(&|keys| keys["user_id"] = json!("@carol:s")), "user_id_mismatch");
        assert_eq!(changed(&|keys| keys["device_id"] = json!("OTHER")), "id_mismatch");
        for missing in ["ed25519:BDEV", "curve25519:BDEV"] {
            let without = |keys: &mut Value| {
                keys["keys"].as_object_mut().unwrap().remove(missing);
            };
            assert_eq!(changed(&without), "missing_key", "{missing}");
        }
        for key in [
            json!(""),
            json!("AAAA"),
            json!("_".repeat(43)),
            json!(7),
            json!("A".repeat(44)),
        ] {
            assert_eq!(
                changed(&|keys| keys["keys"]["curve25519:BDEV"] = key.clone()),
                "malformed_key",
                "{key}"
            );
        }
        assert_eq!(changed(&|keys| keys["algorithms"] = json!("m.olm")), "malformed");
        assert_eq!(changed(&|keys| *keys = json!([])), "malformed");
    }
}

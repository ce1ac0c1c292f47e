//! What the homeserver says about the key of a secret storage, looked at before any work is done.

use ruma::{
    KeyDerivationAlgorithm, UInt,
    events::{
        EventContentFromType,
        secret_storage::key::{SecretStorageEncryptionAlgorithm, SecretStorageKeyEventContent},
    },
};
use serde_json::Value;

use super::SecretStorageError;

/// Ten times what clients write: a few seconds.
const MAX_ROUNDS: u32 = 5_000_000;

pub(super) const ROUNDS_REFUSED: &str = "it wants a number of rounds of key derivation that nobody honest asks for";

/// Read the description of a key.
pub(crate) fn checked(content: Value, key_id: &str) -> Result<SecretStorageKeyEventContent, SecretStorageError> {
    let rejected = |reason| SecretStorageError::Rejected { reason };
    let malformed = |_| rejected("the description of its key is malformed");
    let content = serde_json::value::to_raw_value(&content).map_err(malformed)?;
    let event_type = format!("m.secret_storage.key.{key_id}");
    let mut content = SecretStorageKeyEventContent::from_parts(&event_type, &content).map_err(malformed)?;
    if let Some(passphrase) = &content.passphrase {
        if passphrase.iterations < UInt::from(1_u32) || passphrase.iterations > UInt::from(MAX_ROUNDS) {
            return Err(rejected(ROUNDS_REFUSED));
        }
        if passphrase.algorithm != KeyDerivationAlgorithm::Pbkfd2 || passphrase.bits != UInt::from(256_u32) {
            // Its recovery key opens it all the same.
            content.passphrase = None;
        }
    }
    Ok(content)
}

/// Whether a key can be told from a wrong one before a secret was opened.
pub(super) fn has_check_value(content: &SecretStorageKeyEventContent) -> bool {
    match &content.algorithm {
        SecretStorageEncryptionAlgorithm::V1AesHmacSha2(properties) => {
            properties.iv.is_some() && properties.mac.is_some()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(iterations: u64, bits: u64, algorithm: &str) -> Value {
        json!({
            "algorithm": "m.secret_storage.v1.aes-hmac-sha2",
            "passphrase": {"algorithm": algorithm, "salt": "x", "iterations": iterations, "bits": bits},
        })
    }

    #[test]
    fn hostile_descriptions_are_refused_before_any_work() {
        checked(described(500_000, 256, "m.pbkdf2"), "k").unwrap();
        for iterations in [0, 5_000_001, 4_294_967_295, 9_007_199_254_740_991] {
            checked(described(iterations, 256, "m.pbkdf2"), "k").unwrap_err();
        }
        for content in [json!({}), json!([]), json!({"algorithm": 7})] {
            checked(content, "k").unwrap_err();
        }
    }

    #[test]
    fn a_passphrase_that_cannot_be_used_is_left_out() {
        for content in [described(9, 512, "m.pbkdf2"), described(9, 256, "org.example.md5")] {
            let content = checked(content, "k").unwrap();
            assert!(content.passphrase.is_none());
            assert_eq!(content.key_id, "k");
            assert!(!has_check_value(&content));
        }
    }
}

//! Whether a claimed one-time key may open a session, judged as the engine will.

use matrix_sdk_crypto::{
    Device, SignatureError,
    types::{OneTimeKey, SignedKey},
};
use ruma::{OneTimeKeyAlgorithm, OwnedOneTimeKeyId, serde::Raw};
use std::collections::BTreeMap;

use crate::UnusableReason;

/// The keys that a homeserver gave for one device.
pub(super) type Claimed = BTreeMap<OwnedOneTimeKeyId, Raw<ruma::encryption::OneTimeKey>>;

/// Leave only what was asked for: one signed key. The engine takes the first of all.
pub(super) fn keep_one(claimed: &mut Claimed) {
    let wanted = claimed
        .keys()
        .find(|id| id.algorithm() == OneTimeKeyAlgorithm::SignedCurve25519)
        .cloned();
    if let Some(wanted) = wanted {
        claimed.retain(|id, _| *id == wanted);
    }
}

/// Judge what was claimed for `device`; [`keep_one`] was called before.
pub(super) fn judge(device: &Device, claimed: Option<&Claimed>) -> Result<(), UnusableReason> {
    let Some((id, raw)) = claimed.and_then(BTreeMap::first_key_value) else {
        return Err(UnusableReason::NoOneTimeKey);
    };
    if id.algorithm() != OneTimeKeyAlgorithm::SignedCurve25519 {
        return Err(UnusableReason::OneTimeKeyUnsigned);
    }
    let key: SignedKey = match OneTimeKey::deserialize(id.algorithm(), raw) {
        Ok(OneTimeKey::SignedKey(key)) => key,
        Err(_) => return Err(why_unreadable(raw)),
    };
    match device.as_device_keys().has_signed(&key) {
        Ok(()) => Ok(()),
        Err(SignatureError::NoSignatureFound) if key.signatures().is_empty() => Err(UnusableReason::OneTimeKeyUnsigned),
        // Another device's signature is none of this one's.
        Err(_) => Err(UnusableReason::OneTimeKeyBadSignature),
    }
}

fn why_unreadable(raw: &Raw<ruma::encryption::OneTimeKey>) -> UnusableReason {
    let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(raw.json().get()).ok();
    match object {
        Some(object) if !object.contains_key("signatures") => UnusableReason::OneTimeKeyUnsigned,
        _ => UnusableReason::OneTimeKeyMalformed,
    }
}

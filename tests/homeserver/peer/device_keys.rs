//! Device keys, one-time keys and fallback keys: honest, or with anything wrong in them.

use serde_json::{Map, Value, json};
use vodozemac::Curve25519PublicKey;

use super::EvilPeer;

/// The seven u-coordinates of Curve25519 whose points have a small order, those that are not reduced among them.
///
/// Whatever the other side's secret is, a Diffie-Hellman exchange with one of them gives zero.
///
/// ```
/// use mx_test_homeserver::peer::SMALL_ORDER_POINTS;
/// use vodozemac::Curve25519PublicKey;
///
/// // One-time keys with which everybody would know the secret of a session.
/// let keys: Vec<String> = SMALL_ORDER_POINTS.iter().map(|point| Curve25519PublicKey::from_bytes(*point).to_base64()).collect();
/// assert_eq!(keys.len(), 7);
/// ```
pub const SMALL_ORDER_POINTS: [[u8; 32]; 7] = [
    [0; 32],
    point(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    point(0xec, 0xff, 0x7f),
    point(0xed, 0xff, 0x7f),
    point(0xee, 0xff, 0x7f),
];

const fn point(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut point = [middle; 32];
    point[0] = first;
    point[31] = last;
    point
}

/// One-time keys, or a fallback key, in the form in which they are uploaded.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver, peer::OneTimeKeys};
/// use serde_json::json;
///
/// let server = Homeserver::new();
/// let mut eve = EvilPeer::new(&server, "eve", "EVE");
/// let keys: OneTimeKeys = eve.one_time_keys(2);
/// assert!(keys.keys().all(|id| id.starts_with("signed_curve25519:")));
/// assert_eq!(eve.publish_keys(&json!({"one_time_keys": keys}))["signed_curve25519"], 2);
/// ```
pub type OneTimeKeys = Map<String, Value>;

impl EvilPeer {
    /// The device keys, signed.
    #[must_use]
    pub fn device_keys(&self) -> Value {
        let mut keys = self.unsigned_device_keys();
        self.sign(&mut keys);
        keys
    }

    /// The device keys before they are signed: change what you like, and sign or do not.
    #[must_use]
    pub fn unsigned_device_keys(&self) -> Value {
        json!({
            "user_id": self.user,
            "device_id": self.device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{}", self.device): self.curve25519().to_base64(),
                self.signing_key_id(): self.ed25519().to_base64(),
            },
        })
    }

    /// A key that can be claimed, signed.
    #[must_use]
    pub fn signed_key(&self, key: &Curve25519PublicKey, fallback: bool) -> Value {
        let mut key = json!({"key": key.to_base64()});
        if fallback {
            key["fallback"] = true.into();
        }
        self.sign(&mut key);
        key
    }

    /// Make `count` one-time keys whose secrets this device keeps, signed.
    pub fn one_time_keys(&mut self, count: usize) -> OneTimeKeys {
        self.account.generate_one_time_keys(count);
        let keys = self.account.one_time_keys();
        self.account.mark_keys_as_published();
        let named = |(id, key): (vodozemac::KeyId, Curve25519PublicKey)| {
            let signed = self.signed_key(&key, false);
            (format!("signed_curve25519:{}", id.to_base64()), signed)
        };
        keys.into_iter().map(named).collect()
    }

    /// Make a fallback key, signed.
    pub fn fallback_key(&mut self) -> OneTimeKeys {
        self.account.generate_fallback_key();
        let keys = self.account.fallback_key();
        self.account.mark_keys_as_published();
        let named = |(id, key): (vodozemac::KeyId, Curve25519PublicKey)| {
            let signed = self.signed_key(&key, true);
            (format!("signed_curve25519:{}", id.to_base64()), signed)
        };
        keys.into_iter().map(named).collect()
    }

    /// Publish the device keys, 50 one-time keys and a fallback key: an honest device that just logged in.
    ///
    /// # Panics
    /// When the homeserver refuses them.
    #[track_caller]
    pub fn publish(&mut self) {
        let (one_time_keys, fallback_keys) = (self.one_time_keys(50), self.fallback_key());
        let device_keys = self.device_keys();
        self.publish_keys(
            &json!({"device_keys": device_keys, "one_time_keys": one_time_keys, "fallback_keys": fallback_keys}),
        );
    }

    /// Publish a body of `/keys/upload` as it is: the answer's counts.
    ///
    /// # Panics
    /// When the homeserver refuses it. To see a refusal, use [`EvilPeer::request`].
    #[track_caller]
    pub fn publish_keys(&self, body: &Value) -> Value {
        self.ask("POST", "/keys/upload", body)["one_time_key_counts"].clone()
    }
}

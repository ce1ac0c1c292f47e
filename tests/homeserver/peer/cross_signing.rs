//! Cross-signing keys of the peer's user, honest or not.

use std::fmt;

use ruma::{DeviceId, OwnedUserId};
use serde_json::{Value, json};
use vodozemac::Ed25519SecretKey;

use super::{EvilPeer, sign_with};

/// The three secrets of a user's cross-signing identity.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
///
/// let server = Homeserver::new();
/// let mut bob = EvilPeer::new(&server, "bob", "BOB");
/// bob.publish();
/// let identity = bob.new_cross_signing();
/// bob.publish_cross_signing(&identity);
/// let mut keys = bob.device_keys();
/// identity.sign_device(&mut keys);
/// bob.publish_signed_device(&identity, bob.device(), &keys);
/// ```
pub struct CrossSigning {
    user: OwnedUserId,
    /// Signs the other two.
    pub master: Ed25519SecretKey,
    /// Signs the user's own devices.
    pub self_signing: Ed25519SecretKey,
    /// Signs other users' master keys.
    pub user_signing: Ed25519SecretKey,
}

impl fmt::Debug for CrossSigning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossSigning")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The id under which a cross-signing key signs: its own public half.
fn key_id(key: &Ed25519SecretKey) -> String {
    format!("ed25519:{}", key.public_key().to_base64())
}

impl CrossSigning {
    fn key(&self, usage: &str, key: &Ed25519SecretKey) -> Value {
        json!({"user_id": self.user, "usage": [usage], "keys": {key_id(key): key.public_key().to_base64()}})
    }

    /// The master key, without a signature.
    #[must_use]
    pub fn master_key(&self) -> Value {
        self.key("master", &self.master)
    }

    /// The self-signing key, signed by the master key.
    #[must_use]
    pub fn self_signing_key(&self) -> Value {
        let mut key = self.key("self_signing", &self.self_signing);
        sign_with(&self.master, &mut key, &self.user, &key_id(&self.master));
        key
    }

    /// The user-signing key, signed by the master key.
    #[must_use]
    pub fn user_signing_key(&self) -> Value {
        let mut key = self.key("user_signing", &self.user_signing);
        sign_with(&self.master, &mut key, &self.user, &key_id(&self.master));
        key
    }

    /// Sign an object with the master key, as for the other two keys.
    pub fn sign_with_master(&self, key: &mut Value) {
        sign_with(&self.master, key, &self.user, &key_id(&self.master));
    }

    /// Sign an object with the self-signing key, as for a device's keys.
    pub fn sign_device(&self, device_keys: &mut Value) {
        sign_with(&self.self_signing, device_keys, &self.user, &key_id(&self.self_signing));
    }

    /// Sign an object with the user-signing key, as for another user's master key.
    pub fn sign_user(&self, master_key: &mut Value) {
        sign_with(&self.user_signing, master_key, &self.user, &key_id(&self.user_signing));
    }
}

impl EvilPeer {
    /// Make a new cross-signing identity of this user. Nothing of it is published.
    #[must_use]
    pub fn new_cross_signing(&self) -> CrossSigning {
        CrossSigning {
            user: self.user.clone(),
            master: Ed25519SecretKey::new(),
            self_signing: Ed25519SecretKey::new(),
            user_signing: Ed25519SecretKey::new(),
        }
    }

    /// Publish an identity as a user does it: the three keys, the master key signed by this device.
    ///
    /// # Panics
    /// When the homeserver refuses them.
    #[track_caller]
    pub fn publish_cross_signing(&self, identity: &CrossSigning) {
        let mut master = identity.master_key();
        self.sign(&mut master);
        self.publish_cross_signing_keys(&json!({
            "master_key": master,
            "self_signing_key": identity.self_signing_key(),
            "user_signing_key": identity.user_signing_key(),
        }));
    }

    /// Publish a body of `/keys/device_signing/upload` as it is.
    ///
    /// # Panics
    /// When the homeserver refuses it.
    #[track_caller]
    pub fn publish_cross_signing_keys(&self, body: &Value) {
        self.ask("POST", "/keys/device_signing/upload", body);
    }

    /// Publish the self-signing key's signature of a device of this user, with the device's keys as given.
    ///
    /// # Panics
    /// When the homeserver refuses it.
    #[track_caller]
    pub fn publish_signed_device(&self, identity: &CrossSigning, device: &DeviceId, device_keys: &Value) {
        let mut signed = device_keys.clone();
        identity.sign_device(&mut signed);
        let body = json!({self.user.as_str(): {device.as_str(): signed}});
        self.ask("POST", "/keys/signatures/upload", &body);
    }
}

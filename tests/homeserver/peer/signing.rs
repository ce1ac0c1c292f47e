//! Signing JSON as the specification says, with any key, in any name.

use ruma::UserId;
use serde_json::{Value, json};
use vodozemac::{Ed25519PublicKey, Ed25519SecretKey, Ed25519Signature};

use super::EvilPeer;

/// Canonical JSON (the specification's appendix): no space, the keys of objects in the order of their code points.
///
/// Numbers that have no canonical form, floats among them, are written as serde writes them: a peer signs them too.
///
/// ```
/// use mx_test_homeserver::peer::canonical_json;
///
/// assert_eq!(canonical_json(&serde_json::json!({"b": [1, "ü"], "a": {"d": null, "c": 2}})), r#"{"a":{"c":2,"d":null},"b":[1,"ü"]}"#);
/// ```
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields = fields
                .into_iter()
                .map(|(name, field)| format!("{}:{}", Value::from(name.as_str()), canonical_json(field)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// What of an object a signature covers: all but `signatures` and `unsigned`.
fn signed_part(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("signatures");
        fields.remove("unsigned");
    }
    canonical_json(&object)
}

fn put(object: &mut Value, user: &str, key_id: &str, signature: &Ed25519Signature) {
    if object.is_object() {
        object["signatures"][user][key_id] = json!(signature.to_base64());
    }
}

/// Sign an object with a key of yours, in whosever name: it need be neither the user's key nor have that id.
///
/// `key_id` has the form `ed25519:DEVICE`. Other signatures stay; what is no object stays as it is.
///
/// ```
/// use mx_test_homeserver::peer::{sign_with, verify};
/// use vodozemac::Ed25519SecretKey;
///
/// // In the name of somebody who has nothing to do with it.
/// let (key, bob) = (Ed25519SecretKey::new(), ruma::user_id!("@bob:localhost"));
/// let mut keys = serde_json::json!({"user_id": bob, "unsigned": {"device_display_name": "phone"}});
/// sign_with(&key, &mut keys, bob, "ed25519:BOB");
/// keys["unsigned"] = serde_json::json!({});
/// assert!(verify(&keys, bob, "ed25519:BOB", &key.public_key()), "what is unsigned is not covered");
/// ```
pub fn sign_with(key: &Ed25519SecretKey, object: &mut Value, user: &UserId, key_id: &str) {
    let signature = key.sign(signed_part(object).as_bytes());
    put(object, user.as_str(), key_id, &signature);
}

/// Whether an object has a signature in this name that `key` made.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver, peer};
///
/// let server = Homeserver::new();
/// let (eve, bob) = (EvilPeer::new(&server, "eve", "EVE"), EvilPeer::new(&server, "bob", "BOB"));
/// let keys = bob.device_keys();
/// assert!(peer::verify(&keys, bob.user(), "ed25519:BOB", &bob.ed25519()));
/// assert!(!peer::verify(&keys, bob.user(), "ed25519:BOB", &eve.ed25519()));
/// ```
#[must_use]
pub fn verify(object: &Value, user: &UserId, key_id: &str, key: &Ed25519PublicKey) -> bool {
    let signature = object["signatures"][user.as_str()][key_id].as_str();
    let signature = signature.and_then(|signature| Ed25519Signature::from_base64(signature).ok());
    signature.is_some_and(|signature| key.verify(signed_part(object).as_bytes(), &signature).is_ok())
}

impl EvilPeer {
    /// Sign an object as this device.
    pub fn sign(&self, object: &mut Value) {
        let (user, key_id) = (self.user.clone(), self.signing_key_id());
        self.sign_as(object, &user, &key_id);
    }

    /// Sign an object with this device's key, in whosever name.
    pub fn sign_as(&self, object: &mut Value, user: &UserId, key_id: &str) {
        let signature = self.account.sign(signed_part(object).as_bytes());
        put(object, user.as_str(), key_id, &signature);
    }

    /// As in `ed25519:DEVICE`.
    #[must_use]
    pub fn signing_key_id(&self) -> String {
        format!("ed25519:{}", self.device)
    }
}

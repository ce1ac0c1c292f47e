//! Olm: sessions with any device, and payloads whose every field may lie.

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::{Map, Value, json};
use vodozemac::{
    Curve25519PublicKey,
    olm::{Session, SessionConfig},
};

use super::{EvilPeer, sure};

/// A session that the peer keeps, and whose it is.
pub(crate) struct Known {
    pub(crate) session: Session,
    pub(crate) theirs: Curve25519PublicKey,
}

impl Clone for Known {
    fn clone(&self) -> Self {
        Self {
            session: Session::from_pickle(self.session.pickle()),
            theirs: self.theirs,
        }
    }
}

/// Names an Olm session of an [`EvilPeer`], and the device at its other end.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
///
/// let server = Homeserver::new();
/// let (mut eve, mut bob) = (EvilPeer::new(&server, "eve", "EVE"), EvilPeer::new(&server, "bob", "BOB"));
/// bob.publish();
/// let session = eve.olm_session_with(bob.user(), bob.device());
/// assert_eq!((session.device.as_str(), session.curve25519), ("BOB", bob.curve25519()));
/// // It is only a name: what it stands for is in the peer.
/// assert!(eve.session(&session).is_some() && bob.newest_olm_session(eve.user(), eve.device()).is_none());
/// ```
#[derive(Clone, Debug)]
pub struct OlmSession {
    index: usize,
    /// Whose device is at the other end.
    pub user: OwnedUserId,
    /// The device at the other end.
    pub device: OwnedDeviceId,
    /// The other end's identity key.
    pub curve25519: Curve25519PublicKey,
    /// The key with which the other end signs, as it stands in a payload.
    pub ed25519: String,
}

/// The payload of an Olm message: what the specification wants in it, changed as you like.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
/// use serde_json::json;
///
/// let server = Homeserver::new();
/// let (mut eve, mut alice) = (EvilPeer::new(&server, "eve", "EVE"), EvilPeer::new(&server, "alice", "PHONE"));
/// alice.publish();
/// let olm = eve.olm_session_with(alice.user(), alice.device());
/// // In the name of somebody else, to whom a client must not believe it.
/// let forged = eve.envelope(&olm, "m.dummy", json!({})).with("sender", "@bob:localhost").without("keys");
/// eve.send_olm(&olm, &forged);
/// assert_eq!(alice.receive().len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Envelope(Map<String, Value>);

impl Envelope {
    /// With this field, instead of what it was: `sender`, `recipient`, `recipient_keys`, `keys`, `sender_device_keys`,
    /// `type`, `content`, or one that nobody knows.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Without this field.
    #[must_use]
    pub fn without(mut self, field: &str) -> Self {
        self.0.remove(field);
        self
    }

    /// As JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

impl EvilPeer {
    /// Claim a one-time key of a device: its id with the key, as the homeserver gives it. `None`: there is none.
    ///
    /// # Panics
    /// When the homeserver refuses.
    #[track_caller]
    pub fn claim(&self, user: &UserId, device: &DeviceId) -> Option<(String, Value)> {
        let wanted = json!({"one_time_keys": {user.as_str(): {device.as_str(): "signed_curve25519"}}});
        let answer = self.ask("POST", "/keys/claim", &wanted);
        let keys = answer["one_time_keys"][user.as_str()][device.as_str()].as_object()?;
        keys.iter().next().map(|(id, key)| (id.clone(), key.clone()))
    }

    /// The keys of a device, as the homeserver gives them: `null` when it has none.
    ///
    /// # Panics
    /// When the homeserver refuses.
    #[track_caller]
    #[must_use]
    pub fn device_keys_of(&self, user: &UserId, device: &DeviceId) -> Value {
        let answer = self.ask("POST", "/keys/query", &json!({"device_keys": {user.as_str(): []}}));
        answer["device_keys"][user.as_str()][device.as_str()].clone()
    }

    /// Claim a one-time key of a device and make a session with it.
    ///
    /// # Panics
    /// When the device has published no keys, or none that makes a session.
    #[track_caller]
    pub fn olm_session_with(&mut self, user: &UserId, device: &DeviceId) -> OlmSession {
        let (_, key) = sure(self.claim(user, device).ok_or("has no key"), device.as_str());
        let key = sure(
            Curve25519PublicKey::from_base64(key["key"].as_str().unwrap_or_default()),
            "one-time key",
        );
        self.olm_session_on(user, device, key)
    }

    /// Make a session with a device, on a key of your choice: one that was used before, or that is not the device's.
    ///
    /// # Panics
    /// When the device has published no keys, or the key makes no session.
    #[track_caller]
    pub fn olm_session_on(
        &mut self,
        user: &UserId,
        device: &DeviceId,
        one_time_key: Curve25519PublicKey,
    ) -> OlmSession {
        let keys = self.device_keys_of(user, device)["keys"].clone();
        let key = |algorithm: &str| keys[format!("{algorithm}:{device}")].as_str().unwrap_or_default();
        let theirs = sure(Curve25519PublicKey::from_base64(key("curve25519")), "identity key");
        let session = self
            .account
            .create_outbound_session(SessionConfig::version_1(), theirs, one_time_key);
        self.sessions.push(Known {
            session: sure(session, "session"),
            theirs,
        });
        OlmSession {
            index: self.sessions.len() - 1,
            user: user.to_owned(),
            device: device.to_owned(),
            curve25519: theirs,
            ed25519: key("ed25519").to_owned(),
        }
    }

    /// The newest session that this peer has with a device, whoever began it: the way to answer. `None`: there is none.
    ///
    /// # Panics
    /// When the homeserver refuses.
    #[track_caller]
    #[must_use]
    pub fn newest_olm_session(&self, user: &UserId, device: &DeviceId) -> Option<OlmSession> {
        let keys = self.device_keys_of(user, device)["keys"].clone();
        let key = |algorithm: &str| keys[format!("{algorithm}:{device}")].as_str().unwrap_or_default();
        let theirs = Curve25519PublicKey::from_base64(key("curve25519")).ok()?;
        let index = self.sessions.iter().rposition(|known| known.theirs == theirs)?;
        Some(OlmSession {
            index,
            user: user.to_owned(),
            device: device.to_owned(),
            curve25519: theirs,
            ed25519: key("ed25519").to_owned(),
        })
    }

    /// The session itself, to do what is not foreseen here. `None`: it is another peer's.
    pub fn session(&mut self, session: &OlmSession) -> Option<&mut Session> {
        self.sessions.get_mut(session.index).map(|known| &mut known.session)
    }

    /// An honest payload for a session. `sender_device_keys` is not in it; [`Envelope::with`] puts it there.
    #[must_use]
    pub fn envelope(&self, session: &OlmSession, event_type: &str, content: Value) -> Envelope {
        Envelope(Map::from_iter([
            ("type".to_owned(), json!(event_type)),
            ("content".to_owned(), content),
            ("sender".to_owned(), json!(self.user)),
            ("recipient".to_owned(), json!(session.user)),
            ("recipient_keys".to_owned(), json!({"ed25519": session.ed25519})),
            ("keys".to_owned(), json!({"ed25519": self.ed25519().to_base64()})),
            // Not in the specification; clients have sent it from the beginning, and none needs it.
            ("sender_device".to_owned(), json!(self.device)),
        ]))
    }

    /// Encrypt any bytes: the content of an `m.room.encrypted` for the session's device.
    ///
    /// It is a pre-key message until the other end has answered.
    ///
    /// # Panics
    /// When the session is another peer's.
    #[track_caller]
    pub fn encrypt(&mut self, session: &OlmSession, plaintext: impl AsRef<[u8]>) -> Value {
        let known = sure(self.session(session).ok_or("not a session of this peer"), "encrypt");
        let message = sure(known.encrypt(plaintext), "encrypt");
        let (message_type, bytes) = message.to_parts();
        let mut content = json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": self.curve25519().to_base64(),
            "ciphertext": {},
        });
        let body = super::OlmBody {
            message_type: message_type as u64,
            bytes,
        };
        body.put(&mut content, &session.curve25519.to_base64());
        content
    }

    /// Encrypt a payload: the to-device event that its recipient would see, for
    /// [`Homeserver::queue_to_device`](crate::Homeserver::queue_to_device).
    ///
    /// # Panics
    /// When the session is another peer's.
    #[track_caller]
    pub fn olm_event(&mut self, session: &OlmSession, envelope: &Envelope) -> Value {
        let content = self.encrypt(session, envelope.to_value().to_string());
        json!({"type": "m.room.encrypted", "sender": self.user, "content": content})
    }

    /// Encrypt a payload, and send it through the homeserver to the session's device.
    ///
    /// # Panics
    /// When the session is another peer's, or the homeserver refuses.
    #[track_caller]
    pub fn send_olm(&mut self, session: &OlmSession, envelope: &Envelope) {
        let content = self.encrypt(session, envelope.to_value().to_string());
        self.send_to_device(&session.user, &session.device, "m.room.encrypted", &content);
    }
}

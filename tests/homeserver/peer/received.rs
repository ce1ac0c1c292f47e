//! What the peer is sent: to-device messages, room keys, and events of rooms that it can or cannot read.

use serde_json::{Value, json};
use vodozemac::{
    Curve25519PublicKey,
    megolm::{ExportedSessionKey, InboundGroupSession, MegolmMessage, SessionConfig as MegolmConfig, SessionKey},
    olm::{OlmMessage, SessionConfig},
};

use super::{EvilPeer, OlmBody, olm::Known};

/// A to-device message that arrived.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
/// use serde_json::json;
///
/// let server = Homeserver::new();
/// let (mut eve, mut bob) = (EvilPeer::new(&server, "eve", "EVE"), EvilPeer::new(&server, "bob", "BOB"));
/// bob.publish();
/// eve.send_to_device(bob.user(), bob.device(), "m.dummy", &json!({}));
/// let received = bob.receive();
/// assert_eq!(received[0].event["sender"], "@eve:localhost");
/// assert_eq!(received[0].payload, None, "it was not encrypted");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// As it came.
    pub event: Value,
    /// What was encrypted in it. `None`: it was not encrypted, or not readable.
    pub payload: Option<Value>,
}

/// An event of a room, read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecryptedEvent {
    /// What was encrypted.
    pub payload: Value,
    /// Its place in the Megolm session.
    pub index: u32,
}

impl EvilPeer {
    /// Take what is new for this device: to-device messages, all pages of them. Room keys among them are kept.
    ///
    /// # Panics
    /// When the homeserver refuses.
    #[track_caller]
    pub fn receive(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let since = self
                .since
                .as_ref()
                .map(|since| format!("&since={since}"))
                .unwrap_or_default();
            let answer = self.ask("GET", &format!("/sync?timeout=0{since}"), &json!({}));
            self.since = answer["next_batch"].as_str().map(str::to_owned);
            let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
            if events.is_empty() {
                return all;
            }
            for event in events {
                let payload = self.decrypt(&event["content"]);
                if let Some(payload) = &payload {
                    self.keep_room_key(payload);
                }
                all.push(Received { event, payload });
            }
        }
    }

    /// Decrypt the content of an `m.room.encrypted` of Olm, and read it as JSON. Nothing in it is checked.
    ///
    /// A pre-key message for a session that is not there makes it.
    pub fn decrypt(&mut self, content: &Value) -> Option<Value> {
        let body = OlmBody::of(content, &self.curve25519().to_base64())?;
        let theirs = Curve25519PublicKey::from_base64(content["sender_key"].as_str()?).ok()?;
        let message = OlmMessage::from_parts(usize::try_from(body.message_type).ok()?, &body.bytes).ok()?;
        let sessions = self.sessions.iter_mut().filter(|known| known.theirs == theirs);
        let mut plaintext = None;
        for known in sessions {
            let fits = match &message {
                OlmMessage::PreKey(message) => known.session.session_keys() == message.session_keys(),
                OlmMessage::Normal(_) => true,
            };
            if fits && let Ok(read) = known.session.decrypt(&message) {
                plaintext = Some(read);
                break;
            }
        }
        if plaintext.is_none()
            && let OlmMessage::PreKey(message) = &message
        {
            let config = SessionConfig::version_1();
            let made = self.account.create_inbound_session(config, theirs, message).ok()?;
            plaintext = Some(made.plaintext);
            self.sessions.push(Known {
                session: made.session,
                theirs,
            });
        }
        serde_json::from_slice(&plaintext?).ok()
    }

    fn keep_room_key(&mut self, payload: &Value) {
        let key = payload["content"]["session_key"].as_str().unwrap_or_default();
        let config = MegolmConfig::version_1();
        let session = match payload["type"].as_str() {
            Some("m.room_key") => SessionKey::from_base64(key)
                .ok()
                .map(|key| InboundGroupSession::new(&key, config)),
            Some("m.forwarded_room_key") => ExportedSessionKey::from_base64(key)
                .ok()
                .map(|key| InboundGroupSession::import(&key, config)),
            _ => None,
        };
        if let Some(session) = session {
            self.room_keys.insert(session.session_id(), session);
        }
    }

    /// From which index on this peer can read a Megolm session. `None`: not at all.
    #[must_use]
    pub fn reads_from(&self, session_id: &str) -> Option<u32> {
        self.room_keys
            .get(session_id)
            .map(InboundGroupSession::first_known_index)
    }

    /// Decrypt an `m.room.encrypted` event of Megolm with a room key that was received. `None`: it cannot be read.
    pub fn decrypt_event(&mut self, event: &Value) -> Option<DecryptedEvent> {
        let content = &event["content"];
        let session = self.room_keys.get_mut(content["session_id"].as_str()?)?;
        let message = MegolmMessage::from_base64(content["ciphertext"].as_str()?).ok()?;
        let read = session.decrypt(&message).ok()?;
        Some(DecryptedEvent {
            payload: serde_json::from_slice(&read.plaintext).ok()?,
            index: read.message_index,
        })
    }
}

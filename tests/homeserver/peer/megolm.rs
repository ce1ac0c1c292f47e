//! Megolm: sessions at any index, their keys for any room, and any payload.

use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};
use vodozemac::megolm::{GroupSession, GroupSessionPickle, InboundGroupSession, SessionConfig};

use super::{EvilPeer, sure};

const ALGORITHM: &str = "m.megolm.v1.aes-sha2";

/// An outbound Megolm session that goes to any index, also back.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
/// use ruma::room_id;
///
/// let eve = EvilPeer::new(&Homeserver::new(), "eve", "EVE");
/// let mut session = eve.megolm_session(room_id!("!room:localhost"));
/// let first = session.encrypt("first");
/// // As a store does that was set back: another message under the same index of the key.
/// session.go_to(0);
/// assert_ne!(session.encrypt("second"), first);
/// ```
pub struct MegolmSession {
    room: OwnedRoomId,
    group: GroupSession,
    /// The session as it was made: from here, every index can be reached.
    origin: InboundGroupSession,
    sender_key: String,
    device: String,
}

/// As a store is that was set back: both go on from here.
impl Clone for MegolmSession {
    fn clone(&self) -> Self {
        Self {
            room: self.room.clone(),
            group: GroupSession::from_pickle(self.group.pickle()),
            origin: InboundGroupSession::from_pickle(self.origin.pickle()),
            sender_key: self.sender_key.clone(),
            device: self.device.clone(),
        }
    }
}

impl std::fmt::Debug for MegolmSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MegolmSession")
            .field("room", &self.room)
            .field("session_id", &self.session_id())
            .field("index", &self.index())
            .finish_non_exhaustive()
    }
}

impl EvilPeer {
    /// Make an outbound session for a room, at index 0.
    #[must_use]
    pub fn megolm_session(&self, room: &RoomId) -> MegolmSession {
        let group = GroupSession::new(SessionConfig::version_1());
        MegolmSession {
            room: room.to_owned(),
            origin: InboundGroupSession::from(&group),
            group,
            sender_key: self.curve25519().to_base64(),
            device: self.device.to_string(),
        }
    }

    /// Give a session's key to the device of an Olm session, as an honest peer does.
    ///
    /// # Panics
    /// When the Olm session is another peer's, or the homeserver refuses.
    #[track_caller]
    pub fn share_room_key(&mut self, olm: &super::OlmSession, session: &MegolmSession) {
        let envelope = self.envelope(olm, "m.room_key", session.room_key());
        self.send_olm(olm, &envelope);
    }

    /// Encrypt and send a text message into the session's room, as an honest peer does: its event id.
    ///
    /// # Panics
    /// When the homeserver refuses.
    #[track_caller]
    pub fn send_text(&mut self, session: &mut MegolmSession, text: &str) -> String {
        let payload = session.payload("m.room.message", json!({"msgtype": "m.text", "body": text}));
        let content = session.encrypt(payload.to_string());
        let room = session.room.clone();
        self.send_event(&room, "m.room.encrypted", &content)
    }
}

impl MegolmSession {
    /// The id, which is the public half of the key that signs its messages.
    #[must_use]
    pub fn session_id(&self) -> String {
        self.group.session_id()
    }

    /// The room that it was made for.
    #[must_use]
    pub fn room(&self) -> &RoomId {
        &self.room
    }

    /// The index of the next message.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.group.message_index()
    }

    /// Go to an index, forwards or back: what is encrypted next has it. Back is what a restored backup does.
    ///
    /// # Panics
    /// When vodozemac's pickle is no longer what it was.
    #[track_caller]
    pub fn go_to(&mut self, index: u32) {
        let exported = sure(self.origin.export_at(index).ok_or("no such index"), "go to");
        // One byte of version and four of the index, then the ratchet, then the public key.
        let exported = exported.to_bytes();
        let ratchet = exported.get(5..133).unwrap_or_default();
        let mut pickle = sure(serde_json::to_value(self.group.pickle()), "pickle");
        pickle["ratchet"] = json!({"inner": ratchet, "counter": index});
        let pickle: GroupSessionPickle = sure(serde_json::from_value(pickle), "pickle");
        self.group = GroupSession::from_pickle(pickle);
    }

    /// An honest `m.room_key` from the current index on.
    #[must_use]
    pub fn room_key(&self) -> Value {
        self.room_key_for(self.room.as_str(), &self.session_id())
    }

    /// An `m.room_key` that names any room and any session id.
    #[must_use]
    pub fn room_key_for(&self, room: &str, session_id: &str) -> Value {
        json!({
            "algorithm": ALGORITHM,
            "room_id": room,
            "session_id": session_id,
            "session_key": self.group.session_key().to_base64(),
        })
    }

    /// An `m.forwarded_room_key` from index `index` on, which says that the session is `sender_key`'s.
    ///
    /// # Panics
    /// Never: a session reaches every index.
    #[must_use]
    #[track_caller]
    pub fn forwarded_room_key(&mut self, index: u32, sender_key: &str, sender_ed25519: &str) -> Value {
        let exported = sure(self.origin.export_at(index).ok_or("no such index"), "export");
        json!({
            "algorithm": ALGORITHM,
            "room_id": self.room,
            "session_id": self.session_id(),
            "session_key": exported.to_base64(),
            "sender_key": sender_key,
            "sender_claimed_ed25519_key": sender_ed25519,
            "forwarding_curve25519_key_chain": [],
        })
    }

    /// An `m.room_key.withheld` with a code as in `m.blacklisted`.
    #[must_use]
    pub fn withheld(&self, code: &str) -> Value {
        json!({
            "algorithm": ALGORITHM,
            "room_id": self.room,
            "session_id": self.session_id(),
            "sender_key": self.sender_key,
            "code": code,
            "reason": "a reason",
        })
    }

    /// An honest payload of an event of the session's room.
    #[must_use]
    pub fn payload(&self, event_type: &str, content: Value) -> Value {
        json!({"room_id": self.room, "type": event_type, "content": content})
    }

    /// Encrypt any bytes at the current index, and go to the next: the content of an `m.room.encrypted`.
    pub fn encrypt(&mut self, plaintext: impl AsRef<[u8]>) -> Value {
        json!({
            "algorithm": ALGORITHM,
            "ciphertext": self.group.encrypt(plaintext).to_base64(),
            "session_id": self.session_id(),
            "sender_key": self.sender_key,
            "device_id": self.device,
        })
    }
}

//! The evil peer: a device on bare vodozemac that can sign and encrypt anything, on the homeserver of the tests.
//!
//! An honest client refuses to make what an attacker sends. This one makes it: device keys with a wrong name, one-time
//! keys of small order, an Olm payload whose every field lies, a pre-key message with a bit flipped, a room key for
//! somebody else's room, any payload at any index of a Megolm session. What it does not forge it does as the
//! specification says, so that a test changes one thing and everything else is right.
//!
//! ```
//! use mx_test_homeserver::{EvilPeer, Homeserver};
//! use serde_json::json;
//!
//! let server = Homeserver::new();
//! let mut victim = EvilPeer::new(&server, "alice", "ALICE");
//! let mut mallory = EvilPeer::new(&server, "mallory", "MALLORY");
//! victim.publish();
//! mallory.publish();
//!
//! // A payload that says it comes from somebody else.
//! let session = mallory.olm_session_with(victim.user(), victim.device());
//! let envelope = mallory.envelope(&session, "m.dummy", json!({})).with("sender", "@bob:localhost");
//! mallory.send_olm(&session, &envelope);
//! let received = victim.receive();
//! assert_eq!(received[0].payload.as_ref().unwrap()["sender"], "@bob:localhost");
//! ```
//!
//! # Why
//! Everything goes through [`Homeserver::handle`], so that the log, the faults and the hooks see it like any client's
//! request; nothing waits, so that no test needs time for it. A mistake in a test panics where the test made it.
//!
//! # What is absent on purpose
//! A store, trust, and judgement: it takes what it is sent as it comes, and remembers it as long as it lives.

mod cross_signing;
mod device_keys;
mod megolm;
mod olm;
mod received;
mod signing;
mod wire;

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use vodozemac::{
    Curve25519PublicKey, Ed25519PublicKey,
    megolm::InboundGroupSession,
    olm::{Account, Session},
};

use crate::Homeserver;

pub use self::{
    cross_signing::CrossSigning,
    device_keys::{OneTimeKeys, SMALL_ORDER_POINTS},
    megolm::MegolmSession,
    olm::{Envelope, OlmSession},
    received::{DecryptedEvent, Received},
    signing::{canonical_json, sign_with, verify},
    wire::{MegolmParts, MessageParts, OlmBody, PreKeyParts, flip_bit},
};

/// A device of some user that can sign and encrypt anything.
///
/// A clone has the same identity, the same sessions and the same access token: it is what a restored backup of a store
/// is.
///
/// ```
/// use mx_test_homeserver::{EvilPeer, Homeserver};
/// use serde_json::json;
///
/// let server = Homeserver::new();
/// let (mut eve, mut bob) = (EvilPeer::new(&server, "eve", "EVE"), EvilPeer::new(&server, "bob", "BOB"));
/// bob.publish();
/// eve.publish();
/// // A key for a room that they are not in: what does a device do that is sent it?
/// let session = eve.olm_session_with(bob.user(), bob.device());
/// let lie = eve.envelope(&session, "m.room_key", json!({"room_id": "!elsewhere:localhost"}));
/// eve.send_olm(&session, &lie);
/// assert_eq!(bob.receive().len(), 1, "and this one takes everything");
/// ```
pub struct EvilPeer {
    server: Homeserver,
    user: OwnedUserId,
    device: OwnedDeviceId,
    token: String,
    account: Account,
    sessions: Vec<olm::Known>,
    /// By session id.
    room_keys: BTreeMap<String, InboundGroupSession>,
    since: Option<String>,
    transactions: u64,
}

impl fmt::Debug for EvilPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvilPeer")
            .field("user", &self.user)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Clone for EvilPeer {
    fn clone(&self) -> Self {
        let copy = |session: &InboundGroupSession| InboundGroupSession::from_pickle(session.pickle());
        Self {
            server: self.server.clone(),
            user: self.user.clone(),
            device: self.device.clone(),
            token: self.token.clone(),
            account: Account::from_pickle(self.account.pickle()),
            sessions: self.sessions.clone(),
            room_keys: self.room_keys.iter().map(|(id, key)| (id.clone(), copy(key))).collect(),
            since: self.since.clone(),
            transactions: self.transactions,
        }
    }
}

/// The value, or a panic at the line of the test that asked for what cannot be.
#[track_caller]
#[expect(
    clippy::panic,
    reason = "a mistake in a test, which has nothing better to do with it"
)]
pub(crate) fn sure<T, E: fmt::Debug>(result: Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

impl EvilPeer {
    /// Register the user where needed, and log this device in. Nothing of it is published.
    ///
    /// The user may be one that exists: a second device of somebody, also of the client under test. A device that
    /// exists loses its access token to this one. The oracle does not look at what it does.
    ///
    /// # Panics
    /// When `localpart` cannot be one.
    #[must_use]
    pub fn new(server: &Homeserver, localpart: &str, device: &str) -> Self {
        let user = server.register(localpart, "password");
        let token = server.token(&user, device);
        let device: OwnedDeviceId = device.into();
        server.exempt(&user, &device);
        Self {
            server: server.clone(),
            user,
            device,
            token,
            account: Account::new(),
            sessions: Vec::new(),
            room_keys: BTreeMap::new(),
            since: None,
            transactions: 0,
        }
    }

    /// What comes under the name of another device, which goes on meanwhile: keys of its own, and a login of its own.
    #[must_use]
    pub fn impostor(server: &Homeserver, localpart: &str, device: &str) -> Self {
        let login = format!("NOT-{device}");
        Self {
            device: device.into(),
            ..Self::new(server, localpart, &login)
        }
    }

    /// The access token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Up to where it has seen what the homeserver has for it.
    #[must_use]
    pub fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Its Olm sessions, oldest first, each with the key of the device at the other end.
    pub fn olm_sessions(&self) -> impl Iterator<Item = (&Session, Curve25519PublicKey)> {
        self.sessions.iter().map(|known| (&known.session, known.theirs))
    }

    /// The room keys that it was given, by session id.
    pub const fn room_keys(&self) -> &BTreeMap<String, InboundGroupSession> {
        &self.room_keys
    }

    /// Whose device this is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Its device id.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The key that makes its Olm sessions.
    #[must_use]
    pub fn curve25519(&self) -> Curve25519PublicKey {
        self.account.curve25519_key()
    }

    /// The key that signs.
    #[must_use]
    pub fn ed25519(&self) -> Ed25519PublicKey {
        self.account.ed25519_key()
    }

    /// What holds its keys, to do what is not foreseen here.
    pub fn account(&mut self) -> &mut Account {
        &mut self.account
    }

    /// Ask the homeserver as this device, with `path` below `/_matrix/client/v3`: the status, and the answer.
    ///
    /// The status is 502 when a fault drops the request or its answer.
    ///
    /// ```
    /// use mx_test_homeserver::{EvilPeer, Homeserver};
    /// use serde_json::json;
    ///
    /// let peer = EvilPeer::new(&Homeserver::new(), "eve", "EVE");
    /// let upload = |key| peer.request("POST", "/keys/upload", &json!({"one_time_keys": {"signed_curve25519:AAAA": key}}));
    /// assert_eq!(upload(json!({"key": "one"})).0, 200);
    /// // Another key under the name of one that is there.
    /// assert_eq!(upload(json!({"key": "another"})).0, 400);
    /// ```
    ///
    /// # Panics
    /// When `method` or `path` cannot be one.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://localhost/_matrix/client/v3{path}"))
            .header(http::header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Bytes::from(body.to_string()));
        let answer = self.server.handle(&sure(request, path));
        let body = serde_json::from_slice(answer.body()).unwrap_or_default();
        (answer.status().as_u16(), body)
    }

    /// Like [`EvilPeer::request`], for what has to succeed.
    ///
    /// # Panics
    /// When the status is not 200.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body);
        let answer = if status == 200 {
            Ok(answer)
        } else {
            Err((status, answer))
        };
        sure(answer, path)
    }

    /// A transaction id that this device did not use before.
    pub(crate) fn transaction(&mut self) -> String {
        self.transactions += 1;
        format!("evil-{}", self.transactions)
    }

    /// Send a to-device message to one device, through the homeserver, which puts our user id on it.
    ///
    /// One that names another sender goes in by [`Homeserver::queue_to_device`].
    ///
    /// # Panics
    /// When the homeserver refuses it.
    #[track_caller]
    pub fn send_to_device(&mut self, user: &UserId, device: &DeviceId, event_type: &str, content: &Value) {
        let path = format!("/sendToDevice/{event_type}/{}", self.transaction());
        self.ask(
            "PUT",
            &path,
            &json!({"messages": {user.as_str(): {device.as_str(): content}}}),
        );
    }

    /// Send an event into a room that this user is in: its event id.
    ///
    /// # Panics
    /// When the homeserver refuses it.
    #[track_caller]
    pub fn send_event(&mut self, room: &RoomId, event_type: &str, content: &Value) -> String {
        let path = format!("/rooms/{room}/send/{event_type}/{}", self.transaction());
        let answer = self.ask("PUT", &path, content);
        answer["event_id"].as_str().unwrap_or_default().to_owned()
    }

    /// Join a room to which this user is invited.
    ///
    /// # Panics
    /// When the homeserver refuses it.
    #[track_caller]
    pub fn join(&self, room: &RoomId) {
        self.ask("POST", &format!("/join/{room}"), &json!({}));
    }
}

#[cfg(test)]
mod tests;

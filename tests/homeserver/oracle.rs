//! The wire oracle: what no client may ever do, looked for in every request.
//!
//! It is always on. A test asks for [`Homeserver::violations`] at its end and fails when there are any. What it checks
//! are the invariants that can be seen from the homeserver's side; each is a variant of [`Invariant`]. It knows what
//! really left for a device (not what was meant to): an answer that a fault dropped, cut or rewrote counts as what it
//! became.
//!
//! A device that misbehaves on purpose is [exempt](Homeserver::exempt); a test that breaks one invariant on purpose
//! [excuses](Homeserver::excuse) that one.

mod identities;
mod ratchets;
mod recipients;
mod secrets;
mod transactions;
mod views;

use std::{collections::BTreeSet, fmt};

use ruma::{DeviceId, UserId};
use serde_json::Value;

use self::{
    identities::Identities, ratchets::Ratchets, recipients::Recipients, secrets::Secrets, transactions::Transactions,
    views::Views,
};
use crate::{
    Homeserver,
    faults::Outcome,
    lock,
    router::Parts,
    state::{Session, State},
};

/// What must be true of everything that goes over the wire.
///
/// ```
/// use mx_test_homeserver::{Homeserver, Invariant};
///
/// let server = Homeserver::new();
/// // A test that restores an old store on purpose, which uses indices twice; all else is still looked for.
/// server.excuse(Invariant::I1);
/// assert!(server.violations().is_empty());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Invariant {
    /// No index of a Megolm session is used for two ciphertexts.
    I1,
    /// No index of an Olm chain is used for two ciphertexts.
    I2,
    /// No plaintext that a test guards is in any request, and none goes into an encrypted room.
    I3,
    /// No access token and no guarded key is in any request's body or address.
    I4,
    /// One pair of identity keys for a device, over its whole life.
    I5,
    /// One content for the id of a one-time key or fallback key.
    I6,
    /// The same bytes under the same transaction id, and no event twice under two of them.
    I9,
    /// An event goes out only after its key was taken by the homeserver for everybody whom it was made for.
    I10,
    /// A sync goes on from a token that this device was really given.
    I11,
    /// No event for who has left, and no key for who is in no encrypted room with us.
    I14,
}

/// Something that no client may do was seen. It quotes no secret.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use mx_e2ee::{Client, Event};
/// use mx_test_homeserver::Homeserver;
///
/// let server = Homeserver::new();
/// # let log_in = async |name: &str| {
/// #     let user = server.register(name, "password");
/// #     let builder = Client::builder().homeserver("http://localhost").transport(server.transport()).in_memory();
/// #     builder.login(user.localpart(), "password").await
/// # };
/// let (alice, bob) = (log_in("alice").await?, log_in("bob").await?);
/// let room = alice.create_room(None, &[bob.user_id().to_owned()]).await?;
/// bob.join(room.id().as_str()).await?;
/// server.guard_plaintext("the eagle lands at noon");
/// room.send_text("the eagle lands at noon").await?;
/// let events = bob.receive(Duration::ZERO).await?;
/// assert!(events.iter().any(|event| matches!(event, Event::Message(message) if message.body().is_some())));
/// // Neither of the two did what no client may do.
/// assert_eq!(server.violations(), []);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// What was violated.
    pub invariant: Invariant,
    /// Which device sent the request; `nobody` without a valid token.
    pub device: String,
    /// What was seen, in words.
    pub words: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}: {}", self.invariant, self.device, self.words)
    }
}

/// A user and the id of a device.
pub(crate) type Owner = (String, String);

/// A request, as the ledgers look at it.
pub(crate) struct Call<'a> {
    owner: Owner,
    parts: &'a Parts,
    state: &'a State,
}

impl Call<'_> {
    /// The body, and the arguments of the path, of `PUT /rooms/{room}/send/{type}/{transaction}`.
    fn event_put(&self) -> Option<(&str, &str, &str)> {
        match (self.parts.method.as_str(), self.parts.endpoint().as_slice()) {
            ("PUT", ["rooms", room, "send", kind, transaction]) => Some((room, kind, transaction)),
            _ => None,
        }
    }

    /// The type and the transaction of `PUT /sendToDevice/{type}/{transaction}`.
    fn to_device_put(&self) -> Option<(&str, &str)> {
        match (self.parts.method.as_str(), self.parts.endpoint().as_slice()) {
            ("PUT", ["sendToDevice", kind, transaction]) => Some((kind, transaction)),
            _ => None,
        }
    }

    /// The contents of a to-device request that are encrypted with Olm, with whom they are for.
    fn olm_messages(&self) -> Vec<(Owner, &Value)> {
        if self.to_device_put().is_none_or(|(kind, _)| kind != "m.room.encrypted") {
            return Vec::new();
        }
        let users = self.parts.body["messages"].as_object().into_iter().flatten();
        users
            .flat_map(|(user, devices)| {
                let devices = devices.as_object().into_iter().flatten();
                devices.map(move |(device, content)| ((user.clone(), device.clone()), content))
            })
            .collect()
    }
}

/// What a ledger found.
type Found = Vec<(Invariant, String)>;

/// The ledgers, and what they found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    found: Vec<Violation>,
    exempt: BTreeSet<Owner>,
    excused: BTreeSet<Invariant>,
    secrets: Secrets,
    ratchets: Ratchets,
    identities: Identities,
    transactions: Transactions,
    views: Views,
    recipients: Recipients,
}

impl Oracle {
    /// Look at a request before it is processed.
    pub(crate) fn request(&mut self, state: &State, session: Option<&Session>, parts: &Parts) {
        let Some(session) = session else {
            let found = self.secrets.request(state, parts, &self.exempt);
            self.add("nobody", found);
            return;
        };
        let owner = (session.user.clone(), session.device.clone());
        if self.exempt.contains(&owner) {
            return;
        }
        let call = Call { owner, parts, state };
        let mut found = self.secrets.request(state, parts, &self.exempt);
        found.extend(secrets::plaintext(&call));
        found.extend(self.ratchets.request(&call));
        found.extend(self.identities.request(&call));
        found.extend(self.views.request(&call));
        let known = self.transactions.knows(&call);
        found.extend(self.transactions.request(&call));
        if !known {
            found.extend(self.recipients.request(&call, &self.views));
        }
        self.add(&format!("{} {}", session.user, session.device), found);
    }

    /// Look at what left for the sender of a request.
    pub(crate) fn answered(&mut self, state: &State, session: Option<&Session>, parts: &Parts, outcome: &Outcome) {
        let (Some(session), Outcome::Answer(response)) = (session, outcome) else {
            return;
        };
        let owner = (session.user.clone(), session.device.clone());
        if response.status().is_success() {
            let answer = serde_json::from_slice(response.body()).unwrap_or_default();
            let call = Call { owner, parts, state };
            self.views.answered(&call, &answer);
            self.recipients.answered(&call);
        }
        if matches!(parts.endpoint().as_slice(), ["logout"] | ["devices", _]) {
            self.forget_devices_not_in(state);
        }
    }

    /// The lives of devices that are deleted have ended: their ids may be taken by others.
    pub(crate) fn forget_devices_not_in(&mut self, state: &State) {
        let lives = |(user, device): &Owner| {
            let user = state.users.get(user);
            user.is_some_and(|user| user.devices.contains_key(device))
        };
        self.identities.retain(lives);
        self.transactions.retain(lives);
        self.views.retain(lives);
        self.recipients.retain(lives);
    }

    fn add(&mut self, device: &str, found: Found) {
        for (invariant, words) in found {
            if !self.excused.contains(&invariant) {
                self.found.push(Violation {
                    invariant,
                    device: device.to_owned(),
                    words,
                });
            }
        }
    }
}

impl Homeserver {
    /// What was seen on the wire so far that no client may do.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.0.oracle).found.clone()
    }

    /// This device misbehaves on purpose: nothing of it is looked at from now on.
    pub fn exempt(&self, user: &UserId, device: &DeviceId) {
        let owner = (user.to_string(), device.to_string());
        lock(&self.0.oracle).exempt.insert(owner);
    }

    /// This test breaks an invariant on purpose: it is not looked for from now on, and what was found is forgotten.
    pub fn excuse(&self, invariant: Invariant) {
        let mut oracle = lock(&self.0.oracle);
        oracle.excused.insert(invariant);
        oracle.found.retain(|violation| violation.invariant != invariant);
    }

    /// This text must never be seen in a request: a plaintext.
    pub fn guard_plaintext(&self, canary: &str) {
        lock(&self.0.oracle).secrets.guard(Invariant::I3, canary);
    }

    /// This text must never be seen in a request's body or address: a key, in the form in which it could be written.
    pub fn guard_secret(&self, secret: &str) {
        lock(&self.0.oracle).secrets.guard(Invariant::I4, secret);
    }

    /// The process of a device was ended, or its send was dropped, at a moment when an event may have been encrypted and
    /// not yet put: one event that it puts later was encrypted for the people of that moment.
    pub fn expect_late_event(&self, user: &UserId, device: &DeviceId) {
        let owner = (user.to_string(), device.to_string());
        lock(&self.0.oracle).recipients.expect_late_event(owner);
    }
}

#[cfg(test)]
mod tests;

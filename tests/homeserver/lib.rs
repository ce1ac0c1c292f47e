//! A Matrix homeserver in the test process, for integration tests of encrypted clients.
//!
//! One brain, two doors: [`Homeserver::transport`] is a `Transport` without a socket, on which a sync waits for news as
//! on a real server; [`Homeserver::listen`] puts the same brain on a socket of 127.0.0.1. It is stateful and behaves
//! like Synapse where an encrypted client notices: one-time keys are handed out in the order of their upload and the
//! fallback key after them, a changed one-time key is a 400, a sync brings at most 100 to-device events and forgets
//! them when its token comes back, transaction ids are honoured, empty sections of a sync are left out.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mx_test_homeserver::Homeserver;
//! use ruma::api::client::account::whoami;
//!
//! let server = Homeserver::new();
//! let alice = server.register("alice", "password");
//! let client = mx_transport::Homeserver::new("http://localhost", server.transport())?;
//! client.set_access_token(mx_transport::AccessToken::new(server.token(&alice, "DEVICE"))?);
//! assert_eq!(client.send(whoami::v3::Request::new()).await?.user_id, alice);
//! # Ok(()) }
//! ```
//!
//! Faults come by name ([`Homeserver::fault`]), answers can be rewritten by a hook ([`Homeserver::rewrite`]),
//! [`Homeserver::log`] shows what went over the wire, and an oracle looks at every request for what no client may ever do
//! ([`Homeserver::violations`]). [`EvilPeer`] is a device that signs and encrypts anything.
//!
//! Every request is read, and every answer checked, with ruma's types of the endpoint: what is no request is a 400, and
//! no answer leaves that a client could not read, unless a fault or a hook makes it so.
//!
//! # What is absent on purpose
//! Federation, permissions beyond membership, thumbnails, presence, typing, receipts, push.

mod account_data;
mod accounts;
mod appservice;
mod dehydrated;
mod doors;
mod exchange;
mod faults;
mod interactive;
mod keys;
mod log;
mod logins;
mod media;
mod oauth;
mod oracle;
pub mod peer;
mod redact;
mod reply;
mod room_keys;
mod rooms;
mod router;
mod sliding;
mod state;
mod sync;
mod tokens;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use mx_transport::Transport;
use ruma::{DeviceId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use self::{
    doors::socket::Listening,
    faults::Fault,
    log::Exchange,
    oracle::{Invariant, Violation},
    peer::EvilPeer,
};
use self::{
    faults::{Hook, Outcome, Plan},
    oracle::Oracle,
    router::Parts,
    state::State,
};

/// A homeserver. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug)]
pub struct Homeserver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    log: Mutex<Vec<Exchange>>,
    plan: Mutex<Plan>,
    hooks: Mutex<Vec<Hook>>,
    oracle: Mutex<Oracle>,
    news: Arc<Notify>,
}

impl Default for Homeserver {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Homeserver {
    /// A homeserver named `localhost`.
    #[must_use]
    pub fn new() -> Self {
        Self::named("localhost")
    }

    /// A homeserver of this server name.
    #[must_use]
    pub fn named(server_name: &str) -> Self {
        let state = State {
            server_name: server_name.to_owned(),
            ..State::default()
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            log: Mutex::default(),
            plan: Mutex::default(),
            hooks: Mutex::default(),
            oracle: Mutex::default(),
            news: Arc::default(),
        }))
    }

    /// Another homeserver that holds all that this one does, so that one history can have several ends: accounts,
    /// tokens, rooms, queues, and what the oracle knows. It has no planned fault, no hook, and an empty log.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(lock(&self.0.state).clone()),
            log: Mutex::default(),
            plan: Mutex::default(),
            hooks: Mutex::default(),
            oracle: Mutex::new(lock(&self.0.oracle).clone()),
            news: Arc::default(),
        }))
    }

    /// Make an account.
    ///
    /// # Panics
    /// When `localpart` cannot be one.
    #[expect(
        clippy::panic,
        reason = "a mistake in a test, which has nothing better to do with it"
    )]
    pub fn register(&self, localpart: &str, password: &str) -> OwnedUserId {
        let user = lock(&self.0.state).register_user(localpart, password);
        match OwnedUserId::try_from(user) {
            Ok(user) => user,
            Err(error) => panic!("{localpart:?} is no localpart: {error}"),
        }
    }

    /// Log a device in, without a request: its access token.
    #[must_use]
    pub fn token(&self, user: &UserId, device: &str) -> String {
        let mut state = lock(&self.0.state);
        let password = state
            .users
            .get(user.as_str())
            .map(|known| known.password.clone())
            .unwrap_or_default();
        let body = json!({"type": "m.login.password", "user": user, "password": password, "device_id": device});
        let answer = state.login_by_password(&body).unwrap_or_default();
        answer["access_token"].as_str().unwrap_or_default().to_owned()
    }

    /// The door without a socket.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(doors::InProcess(self.clone()))
    }

    /// The brain: answer a request at once.
    #[must_use]
    pub fn handle(&self, request: &http::Request<Bytes>) -> http::Response<Bytes> {
        match self.outcome(request).outcome {
            Outcome::Answer(response) => response,
            Outcome::Dropped => reply::raw(502, Bytes::new()),
        }
    }

    /// Let a fault happen.
    pub fn fault(&self, fault: Fault) {
        lock(&self.0.plan).add(fault);
    }

    /// From now on, rewrite every answer to a request whose path holds `path`.
    ///
    /// ```
    /// # let server = mx_test_homeserver::Homeserver::new();
    /// server.rewrite("/sync", |_, answer| answer.map(|_| "{}".into()));
    /// ```
    pub fn rewrite(
        &self,
        path: &str,
        rewrite: impl Fn(&http::Request<Bytes>, http::Response<Bytes>) -> http::Response<Bytes> + Send + Sync + 'static,
    ) {
        lock(&self.0.hooks).push(Hook {
            path: path.to_owned(),
            rewrite: Arc::new(rewrite),
        });
    }

    /// No more rewriting, and no more planned faults.
    pub fn behave(&self) {
        lock(&self.0.hooks).clear();
        lock(&self.0.plan).clear();
    }

    /// What went over the wire so far.
    #[must_use]
    pub fn log(&self) -> Vec<Exchange> {
        lock(&self.0.log).clone()
    }

    /// How many requests came so far, whatever became of them: the number of the last one, for [`Fault::request`].
    #[must_use]
    pub fn requests(&self) -> u64 {
        lock(&self.0.plan).requests()
    }

    /// A room's events, as the homeserver holds them.
    #[must_use]
    pub fn timeline(&self, room: &RoomId) -> Vec<Value> {
        let state = lock(&self.0.state);
        state
            .rooms
            .get(room.as_str())
            .map(|room| room.events.iter().map(|event| event.json.clone()).collect())
            .unwrap_or_default()
    }

    /// Put an event into a room, as if `sender` had sent it.
    pub fn inject(&self, room: &RoomId, sender: &UserId, event_type: &str, content: Value) -> String {
        let event = lock(&self.0.state).append(room.as_str(), sender.as_str(), event_type, None, content, None);
        self.0.news.notify_waiters();
        event
    }

    /// Put a state event into a room, as if `sender` had sent it.
    pub fn set_state(&self, room: &RoomId, sender: &UserId, event_type: &str, state_key: &str, content: Value) {
        let key = Some(state_key);
        lock(&self.0.state).append(room.as_str(), sender.as_str(), event_type, key, content, None);
        self.0.news.notify_waiters();
    }

    /// The devices of a user.
    #[must_use]
    pub fn devices_of(&self, user: &UserId) -> Vec<String> {
        let state = lock(&self.0.state);
        state
            .users
            .get(user.as_str())
            .map(|user| user.devices.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// How many one-time keys of a device are left.
    #[must_use]
    pub fn one_time_keys_left(&self, user: &UserId, device: &DeviceId) -> usize {
        let state = lock(&self.0.state);
        state
            .users
            .get(user.as_str())
            .and_then(|user| user.devices.get(device.as_str()))
            .map_or(0, |device| device.one_time_keys.len())
    }

    /// Take away all one-time keys of a device, and its fallback key.
    pub fn exhaust_keys(&self, user: &UserId, device: &DeviceId) {
        let mut state = lock(&self.0.state);
        if let Some(device) = state
            .users
            .get_mut(user.as_str())
            .and_then(|user| user.devices.get_mut(device.as_str()))
        {
            device.one_time_keys.clear();
            device.fallback_keys.clear();
        }
    }

    /// The to-device events that wait for a device, or were given and not confirmed by the next sync.
    #[must_use]
    pub fn to_device_of(&self, user: &UserId, device: &DeviceId) -> Vec<Value> {
        let state = lock(&self.0.state);
        let device = state
            .users
            .get(user.as_str())
            .and_then(|user| user.devices.get(device.as_str()));
        device
            .map(|device| device.to_device.iter().map(|(_, event)| event.clone()).collect())
            .unwrap_or_default()
    }

    /// Put to-device events into a device's queue, as they are.
    pub fn queue_to_device(&self, user: &UserId, device: &DeviceId, events: Vec<Value>) {
        let mut state = lock(&self.0.state);
        for event in events {
            let position = state.tick();
            if let Some(device) = state
                .users
                .get_mut(user.as_str())
                .and_then(|user| user.devices.get_mut(device.as_str()))
            {
                device.to_device.push((position, event));
            }
        }
        self.0.news.notify_waiters();
    }

    /// Delete a device, as its owner would.
    pub fn delete_device(&self, user: &UserId, device: &DeviceId) {
        let mut state = lock(&self.0.state);
        state.remove_device(user.as_str(), device.as_str());
        lock(&self.0.oracle).forget_devices_not_in(&state);
        drop(state);
        self.0.news.notify_waiters();
    }

    /// Hold the clock of the homeserver, in milliseconds since the Unix epoch.
    pub fn set_clock(&self, now_ms: u64) {
        lock(&self.0.state).now_ms = Some(now_ms);
    }

    /// Offer simplified sliding sync (MSC4186) from now on.
    pub fn offer_sliding_sync(&self) {
        lock(&self.0.state).slides = true;
    }

    /// Whether simplified sliding sync is offered.
    #[must_use]
    pub fn offers_sliding_sync(&self) -> bool {
        lock(&self.0.state).slides
    }

    /// Forget the sliding syncs of a device, as a homeserver may at any time: its next one is `M_UNKNOWN_POS`.
    pub fn forget_sliding_sync(&self, user: &UserId, device: &DeviceId) {
        let mut state = lock(&self.0.state);
        let user = state.users.get_mut(user.as_str());
        if let Some(device) = user.and_then(|user| user.devices.get_mut(device.as_str())) {
            device.connections.clear();
        }
        drop(state);
        self.0.news.notify_waiters();
    }

    fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.0.news)
    }

    /// How long a request wants to wait for news: zero for everything but a sync with a token.
    fn sync_wait(&self, request: &http::Request<Bytes>) -> Duration {
        let parts = Parts::of(request);
        let value = |name: &str| {
            parts
                .query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let goes_on = (parts.is_sync() && value("since").is_some()) || (parts.is_sliding() && value("pos").is_some());
        if !goes_on {
            return Duration::ZERO;
        }
        Duration::from_millis(value("timeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(0))
    }

    fn has_news(&self, request: &http::Request<Bytes>) -> bool {
        let parts = Parts::of(request);
        let mut state = lock(&self.0.state);
        let Ok(session) = state.session(&parts) else {
            return true;
        };
        let answer = if parts.is_sliding() {
            state.sliding(&session, &parts.query, &parts.body, true)
        } else {
            state.sync(&session, &parts.query)
        };
        answer.map_or(true, |(_, anything)| anything)
    }
}

#[cfg(test)]
mod tests;

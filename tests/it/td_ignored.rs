//! What must be true after a to-device event that is ignored: nothing changed, and the events around it were taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use matrix_sdk_crypto::store::CryptoStore as _;
use mx_olm_orchestrator::{SyncSummary, ToDeviceRejectedReason};
use mx_test_homeserver::EvilPeer;
use ruma::events::secret::request::SecretName;
use serde_json::{Value, json};

use crate::evil::Evil;

/// What a to-device event may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Room, session id, and the first index that can be read.
    pub(crate) room_keys: BTreeSet<(String, String, u32)>,
    /// The ids of the sessions with each key.
    pub(crate) olm: BTreeMap<String, BTreeSet<String>>,
    secrets: usize,
}

impl Evil {
    /// What is on alice's disk now, with the Olm sessions of these keys.
    pub(crate) async fn state(&self, keys: &[String]) -> State {
        let store = self.alice.client.orchestrator().store();
        let mut state = State::default();
        for key in self.alice.room_keys().await {
            let first = key.first_known_index();
            let name = (key.room_id().to_string(), key.session_id().to_owned(), first);
            state.room_keys.insert(name);
        }
        for key in keys {
            let sessions = store.get_sessions(key).await.unwrap().unwrap_or_default();
            let ids = sessions.iter().map(|session| session.session_id().to_owned());
            state.olm.insert(key.clone(), ids.collect());
        }
        for name in [
            SecretName::CrossSigningMasterKey,
            SecretName::CrossSigningSelfSigningKey,
            SecretName::CrossSigningUserSigningKey,
            SecretName::RecoveryKey,
        ] {
            state.secrets += store.get_secrets_from_inbox(&name).await.unwrap().len();
        }
        state
    }

    /// Put to-device events into alice's queue.
    pub(crate) fn queue(&self, events: Vec<Value>) {
        let (user, device) = (self.alice.client.user_id(), self.alice.client.device_id());
        self.server.queue_to_device(user, device, events);
    }

    /// One sync of alice's.
    pub(crate) async fn sync(&self) -> SyncSummary {
        self.alice.client.orchestrator().sync(Duration::ZERO).await.unwrap()
    }

    /// The event that gives alice a room key of bob's, and the id of its session.
    pub(crate) fn key_event(&mut self) -> (Value, String) {
        let session = self.bob.megolm_session(self.room.id());
        let envelope = self.bob.envelope(&self.olm, "m.room_key", session.room_key());
        (self.bob.olm_event(&self.olm, &envelope), session.session_id())
    }

    /// Whether alice has the key of a session of the room.
    pub(crate) async fn has(&self, session: &str) -> bool {
        let store = self.alice.client.orchestrator().store();
        let key = store.get_inbound_group_session(self.room.id(), session).await;
        key.unwrap().is_some()
    }

    /// Give alice events between two honest room keys, and see that they are rejected for these reasons and that all
    /// that is new are the two keys. No key of ours leaves for anybody.
    pub(crate) async fn assert_ignored(&mut self, events: Vec<Value>, reasons: &[ToDeviceRejectedReason]) {
        let before = self.state(&[]).await;
        let since = self.token().await;
        let (first, first_id) = self.key_event();
        let (last, last_id) = self.key_event();
        self.queue([vec![first], events, vec![last]].concat());
        let summary = self.sync().await;
        let found: Vec<_> = summary.rejected.iter().map(|rejected| rejected.reason).collect();
        assert_eq!(found, reasons, "{:?}", summary.rejected);
        assert_eq!(summary.to_device_rejected, reasons.len());
        let mut expected = before;
        for id in [first_id, last_id] {
            expected.room_keys.insert((self.room.id().to_string(), id, 0));
        }
        assert_eq!(self.state(&[]).await, expected);
        assert_ne!(self.token().await, since, "the sync goes on");
        self.sync().await;
        let (user, device) = (self.alice.client.user_id(), self.alice.client.device_id());
        assert_eq!(self.server.to_device_of(user, device), Vec::<Value>::new());
        self.assert_nothing_leaves();
    }

    /// The most that alice may have sent to bob's device is an `m.dummy` that repairs a session.
    pub(crate) fn assert_nothing_leaves(&mut self) {
        for received in self.bob.receive() {
            let payload = received.payload.unwrap();
            assert_eq!((&payload["type"], &payload["content"]), (&json!("m.dummy"), &json!({})));
        }
    }

    /// How many requests alice has sent whose path holds this.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let alice = self.alice.client.user_id().as_str();
        let log = self.server.log();
        let found = log.iter().filter(|exchange| exchange.path.contains(path));
        found.filter(|exchange| exchange.user.as_deref() == Some(alice)).count()
    }

    async fn token(&self) -> Option<String> {
        let store = self.alice.client.orchestrator().store();
        store.next_batch_token().await.unwrap()
    }
}

/// A device of somebody else's that is on the homeserver.
pub(crate) fn stranger(evil: &Evil, name: &str, device: &str) -> EvilPeer {
    let mut peer = EvilPeer::new(&evil.server, name, device);
    peer.publish();
    peer
}

//! The bare engine on the homeserver of the tests: driven as its documentation says, with no guard of ours around it.
//!
//! The tests in `engine_*` are a record. Each is named by a gap of the engine at 0.18 and asserts the defect, so that it
//! fails when a later engine mends it: then the guard that its first line names may go.

use std::{collections::BTreeMap, sync::Arc};

use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmError, OlmMachine, TrustRequirement,
    store::{IntoCryptoStore, types::RoomKeyInfo},
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, KeysQueryRequest, OutgoingRequest, ToDeviceRequest},
};
use mx_test_homeserver::{EvilPeer, Homeserver};
use mx_transport::AccessToken;
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, UInt, UserId,
    api::client::{
        keys::{claim_keys, get_keys, upload_keys},
        sync::sync_events::{self, DeviceLists},
        to_device::send_event_to_device,
    },
    serde::Raw,
};
use serde_json::{Value, json};

use crate::engine_disk::Disk;

pub(crate) use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;

/// What is new to the engine, and what it made of it.
pub(crate) struct News {
    pub(crate) events: Vec<ProcessedToDeviceEvent>,
    pub(crate) room_keys: Vec<RoomKeyInfo>,
}

impl News {
    /// How many could not be decrypted.
    pub(crate) fn undecryptable(&self) -> usize {
        let events = self.events.iter();
        events
            .filter(|event| matches!(event, ProcessedToDeviceEvent::UnableToDecrypt { .. }))
            .count()
    }
}

/// A device on the bare engine.
pub(crate) struct Bare {
    pub(crate) machine: OlmMachine,
    pub(crate) disk: Arc<Disk>,
    pub(crate) client: mx_transport::Homeserver,
    pub(crate) since: Option<String>,
    user: OwnedUserId,
}

fn device() -> &'static DeviceId {
    "BARE".into()
}

/// Everything from everybody, as a bot that reads all.
pub(crate) fn settings() -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    }
}

impl Bare {
    /// Log in as `@bare:…`, device `BARE`, and publish its keys.
    pub(crate) async fn new(server: &Homeserver) -> Self {
        let bare = Self::unpublished(server).await;
        bare.drain().await;
        bare
    }

    /// Log in, and publish nothing.
    pub(crate) async fn unpublished(server: &Homeserver) -> Self {
        let disk = Arc::new(Disk::default());
        Self::begun(server, Arc::clone(&disk), disk).await
    }

    /// Log in on a store of another kind, and publish its keys. The disk is none of its.
    pub(crate) async fn with_store(server: &Homeserver, store: impl IntoCryptoStore) -> Self {
        let bare = Self::begun(server, store, Arc::default()).await;
        bare.drain().await;
        bare
    }

    async fn begun(server: &Homeserver, store: impl IntoCryptoStore, disk: Arc<Disk>) -> Self {
        let user = server.register("bare", "password");
        let client = mx_transport::Homeserver::new("http://localhost", server.transport()).unwrap();
        client.set_access_token(AccessToken::new(server.token(&user, device().as_str())).unwrap());
        let machine = OlmMachine::with_store(&user, device(), store, None).await.unwrap();
        Self {
            machine,
            disk,
            client,
            since: None,
            user,
        }
    }

    /// The process ends here; another one opens what is on the disk, which works again.
    pub(crate) async fn restart(&mut self) {
        self.disk.mend();
        self.machine = OlmMachine::with_store(&self.user, device(), Arc::clone(&self.disk), None)
            .await
            .unwrap();
        self.since = self.machine.store().next_batch_token().await.unwrap();
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    pub(crate) fn device(&self) -> &DeviceId {
        device()
    }

    /// A `/sync` that waits for nothing, not given to the engine yet.
    pub(crate) async fn fetch(&self) -> sync_events::v3::Response {
        let mut request = sync_events::v3::Request::new();
        request.since.clone_from(&self.since);
        self.client.send(request).await.unwrap()
    }

    /// Give a `/sync` to the engine.
    pub(crate) async fn take(&self, response: &sync_events::v3::Response) -> Result<News, OlmError> {
        let changes = EncryptionSyncChanges {
            to_device_events: response.to_device.events.clone(),
            changed_devices: &response.device_lists,
            one_time_keys_counts: &response.device_one_time_keys_count,
            unused_fallback_keys: response.device_unused_fallback_key_types.as_deref(),
            next_batch_token: Some(response.next_batch.clone()),
        };
        let (events, room_keys) = self.machine.receive_sync_changes(changes, &settings()).await?;
        Ok(News { events, room_keys })
    }

    /// Sync once, and remember the token only when the engine took it.
    pub(crate) async fn sync(&mut self) -> Result<News, OlmError> {
        let response = self.fetch().await;
        let news = self.take(&response).await?;
        self.since = Some(response.next_batch);
        Ok(news)
    }

    /// Give the engine to-device events and nothing else.
    pub(crate) async fn give(&self, events: Vec<Value>) -> Result<News, OlmError> {
        let events = events.iter().map(|event| Raw::new(event).unwrap().cast_unchecked());
        let changes = EncryptionSyncChanges {
            to_device_events: events.collect(),
            changed_devices: &DeviceLists::default(),
            one_time_keys_counts: &BTreeMap::new(),
            unused_fallback_keys: None,
            next_batch_token: None,
        };
        let (events, room_keys) = self.machine.receive_sync_changes(changes, &settings()).await?;
        Ok(News { events, room_keys })
    }

    /// Give the engine a count of one-time keys, as a sync does.
    pub(crate) async fn count(&self, counts: &BTreeMap<OneTimeKeyAlgorithm, UInt>) {
        let changes = EncryptionSyncChanges {
            to_device_events: Vec::new(),
            changed_devices: &DeviceLists::default(),
            one_time_keys_counts: counts,
            unused_fallback_keys: None,
            next_batch_token: None,
        };
        self.machine.receive_sync_changes(changes, &settings()).await.unwrap();
    }

    /// Send what the engine wants to send, until it wants nothing more. An upload that is refused is not tried again.
    pub(crate) async fn drain(&self) {
        for _ in 0..10 {
            let requests = self.machine.outgoing_requests().await.unwrap();
            if requests.is_empty() {
                return;
            }
            for request in requests {
                self.send(&request).await;
            }
        }
        unreachable!("the engine never stops sending");
    }

    async fn send(&self, request: &OutgoingRequest) {
        let id = request.request_id();
        match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => {
                let answer = self.client.send(upload.clone()).await.unwrap();
                self.machine.mark_request_as_sent(id, &answer).await.unwrap();
            }
            AnyOutgoingRequest::KeysQuery(query) => {
                let answer = self.query(query).await;
                self.machine.mark_request_as_sent(id, &answer).await.unwrap();
            }
            AnyOutgoingRequest::ToDeviceRequest(message) => self.send_to_device(message).await,
            other => unreachable!("not expected here: {other:?}"),
        }
    }

    /// Put a query of the engine to the homeserver.
    pub(crate) async fn query(&self, query: &KeysQueryRequest) -> get_keys::v3::Response {
        let mut request = get_keys::v3::Request::new();
        request.device_keys.clone_from(&query.device_keys);
        self.client.send(request).await.unwrap()
    }

    /// Send a to-device message of the engine, and tell it.
    pub(crate) async fn send_to_device(&self, message: &ToDeviceRequest) {
        let request = send_event_to_device::v3::Request::new_raw(
            message.event_type.clone(),
            message.txn_id.clone(),
            message.messages.clone(),
        );
        let answer = self.client.send(request).await.unwrap();
        let answer = AnyIncomingResponse::ToDevice(&answer);
        self.machine
            .mark_request_as_sent(&message.txn_id, answer)
            .await
            .unwrap();
    }

    /// Know the devices of these users.
    pub(crate) async fn track(&self, users: &[&UserId]) {
        self.machine.update_tracked_users(users.iter().copied()).await.unwrap();
        self.drain().await;
    }

    /// Claim what the engine misses, once. Whether it missed anything.
    pub(crate) async fn claim(&self, users: &[&UserId]) -> bool {
        let missing = self.machine.get_missing_sessions(users.iter().copied()).await.unwrap();
        let Some((id, request)) = missing else { return false };
        let answer: claim_keys::v3::Response = self.client.send(request).await.unwrap();
        self.machine.mark_request_as_sent(&id, &answer).await.unwrap();
        true
    }

    /// Everything before an event of a room can be encrypted: how many to-device requests shared its key.
    pub(crate) async fn share(&self, room: &RoomId, users: &[&UserId]) -> usize {
        self.share_with(room, users, EncryptionSettings::default()).await
    }

    pub(crate) async fn share_with(&self, room: &RoomId, users: &[&UserId], settings: EncryptionSettings) -> usize {
        self.track(users).await;
        self.claim(users).await;
        let requests = self.machine.share_room_key(room, users.iter().copied(), settings);
        let requests = requests.await.unwrap();
        for request in &requests {
            self.send_to_device(request).await;
        }
        requests.len()
    }

    /// The requests that share the key of [`room`], without sending them.
    pub(crate) async fn share_only(&self, users: &[&UserId]) -> Result<Vec<Arc<ToDeviceRequest>>, OlmError> {
        let settings = EncryptionSettings::default();
        self.machine
            .share_room_key(&room(), users.iter().copied(), settings)
            .await
    }

    /// Encrypt a text, as it would be sent.
    pub(crate) async fn encrypt(&self, room: &RoomId, text: &str) -> Value {
        let content = Raw::new(&json!({"msgtype": "m.text", "body": text})).unwrap();
        let encrypted = self
            .machine
            .encrypt_room_event_raw(room, "m.room.message", &content.cast_unchecked())
            .await
            .unwrap();
        encrypted.content.deserialize_as_unchecked().unwrap()
    }

    /// Whether the key of a session of [`room`] is on the disk.
    pub(crate) async fn has_room_key(&self, session_id: &str) -> bool {
        let key = self
            .machine
            .store()
            .get_inbound_group_session(&room(), session_id)
            .await;
        key.unwrap().is_some()
    }

    /// The bodies of the engine's uploads that are waiting to be sent.
    pub(crate) async fn uploads(&self) -> Vec<(OwnedTransactionId, upload_keys::v3::Request)> {
        let requests = self.machine.outgoing_requests().await.unwrap();
        let upload = |request: &OutgoingRequest| match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => Some((request.request_id().to_owned(), upload.clone())),
            _ => None,
        };
        requests.iter().filter_map(upload).collect()
    }

    /// The engine's queries that are waiting to be sent.
    pub(crate) async fn queries(&self) -> Vec<(OwnedTransactionId, KeysQueryRequest)> {
        let requests = self.machine.outgoing_requests().await.unwrap();
        let query = |request: &OutgoingRequest| match request.request() {
            AnyOutgoingRequest::KeysQuery(query) => Some((request.request_id().to_owned(), query.clone())),
            _ => None,
        };
        requests.iter().filter_map(query).collect()
    }

    /// The panic that encrypting ends in, in its own words. `None`: it does not.
    pub(crate) async fn encrypting_panics(&self, room: &RoomId) -> Option<String> {
        let (machine, room) = (self.machine.clone(), room.to_owned());
        let encrypt = tokio::spawn(async move {
            let content = Raw::new(&json!({})).unwrap().cast_unchecked();
            machine
                .encrypt_room_event_raw(&room, "m.test", &content)
                .await
                .map(drop)
        });
        let panic = encrypt.await.err()?.into_panic();
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    }

    /// The text of an event, or the name of what is wrong.
    pub(crate) async fn read(&self, room: &RoomId, event: &Value) -> Result<String, String> {
        let event = Raw::new(event).unwrap().cast_unchecked();
        let read = self.machine.decrypt_room_event(&event, room, &settings()).await;
        let read = read.map_err(|error| format!("{error:?}"))?;
        let value: Value = read.event.deserialize_as_unchecked().unwrap();
        Ok(value["content"]["body"].as_str().unwrap_or_default().to_owned())
    }
}

/// A bare device, and a peer whose keys are published and known to it.
pub(crate) async fn bare_and_peer() -> (Homeserver, Bare, EvilPeer) {
    let server = Homeserver::new();
    let mut bare = Bare::new(&server).await;
    let mut peer = EvilPeer::new(&server, "peer", "PEER");
    peer.publish();
    bare.track(&[peer.user()]).await;
    bare.sync().await.unwrap();
    bare.disk.written();
    (server, bare, peer)
}

/// A room that nobody has to be in: the engine asks for none.
pub(crate) fn room() -> OwnedRoomId {
    RoomId::parse("!room:localhost").unwrap()
}

/// An event of a room with this content.
pub(crate) fn event(id: &str, sender: &UserId, content: &Value) -> Value {
    json!({
        "type": "m.room.encrypted", "event_id": id, "sender": sender, "origin_server_ts": 1_700_000_000_000_u64,
        "room_id": "!room:localhost", "content": content,
    })
}

//! The bare engine on matrix-sdk-sqlite, driven as its caller has to.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmMachine, TrustRequirement,
    types::requests::{AnyIncomingResponse, AnyOutgoingRequest, OutgoingRequest},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedUserId, RoomId,
    api::client::{
        keys::{claim_keys, get_keys, upload_keys},
        to_device::send_event_to_device,
    },
    events::AnyMessageLikeEventContent,
    serde::Raw,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::line::Line;
use crate::comparison::variant::{Home, Variant};

/// An engine and where its store lives.
pub(crate) struct Stack {
    pub(crate) machine: OlmMachine,
    pub(crate) line: Line,
    _home: Home,
}

impl Stack {
    /// A new device whose keys are published.
    pub(crate) async fn new(line: Line) -> anyhow::Result<Arc<Self>> {
        let home = Home::new()?;
        let store = Variant::MatrixSqliteKey.open(&home).await?;
        let stack = Self {
            machine: store.machine().await?,
            line,
            _home: home,
        };
        stack.drive().await?;
        stack.take(&[]).await?;
        stack.drive().await?;
        Ok(Arc::new(stack))
    }

    /// Send what the engine wants to have sent.
    async fn drive(&self) -> anyhow::Result<()> {
        for request in self.machine.outgoing_requests().await? {
            self.exchange(&request).await?;
        }
        Ok(())
    }

    async fn exchange(&self, request: &OutgoingRequest) -> anyhow::Result<()> {
        let id = request.request_id();
        match request.request() {
            AnyOutgoingRequest::KeysUpload(upload) => {
                let body = json!({
                    "device_keys": upload.device_keys,
                    "one_time_keys": upload.one_time_keys,
                    "fallback_keys": upload.fallback_keys,
                });
                let answer = self.line.answer("/keys/upload", &body);
                let answer = upload_keys::v3::Response::new(read(&answer["one_time_key_counts"])?);
                let answer = AnyIncomingResponse::KeysUpload(&answer);
                self.machine.mark_request_as_sent(id, answer).await?;
            }
            AnyOutgoingRequest::KeysQuery(query) => {
                let answer = self
                    .line
                    .answer("/keys/query", &json!({"device_keys": query.device_keys}));
                let mut response = get_keys::v3::Response::new();
                response.device_keys = read(&answer["device_keys"])?;
                let answer = AnyIncomingResponse::KeysQuery(&response);
                self.machine.mark_request_as_sent(id, answer).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Give everybody the room's key: query, claim, share, mark.
    pub(crate) async fn share(&self, room: &RoomId, users: &[OwnedUserId]) -> anyhow::Result<()> {
        let machine = &self.machine;
        machine.update_tracked_users(users.iter().map(AsRef::as_ref)).await?;
        self.drive().await?;
        if let Some((id, claim)) = machine.get_missing_sessions(users.iter().map(AsRef::as_ref)).await? {
            let body = json!({"one_time_keys": claim.one_time_keys});
            let answer = self.line.answer("/keys/claim", &body);
            let keys: BTreeMap<_, _> = read(&answer["one_time_keys"])?;
            let answer = claim_keys::v3::Response::new(keys);
            let answer = AnyIncomingResponse::KeysClaim(&answer);
            machine.mark_request_as_sent(&id, answer).await?;
        }
        let settings = EncryptionSettings {
            rotation_period_msgs: 10_000,
            ..EncryptionSettings::default()
        };
        let requests = machine
            .share_room_key(room, users.iter().map(AsRef::as_ref), settings)
            .await?;
        for request in requests {
            // As a transport would: the request is written down.
            let body = serde_json::to_string(&request.messages)?;
            anyhow::ensure!(!body.is_empty(), "there is something to send");
            let answer = send_event_to_device::v3::Response::new();
            let answer = AnyIncomingResponse::ToDevice(&answer);
            machine.mark_request_as_sent(&request.txn_id, answer).await?;
        }
        Ok(())
    }

    /// Give the engine a sync with these to-device events, each of which brings a room key.
    pub(crate) async fn take(&self, events: &[Value]) -> anyhow::Result<()> {
        let raw: Result<Vec<_>, _> = events
            .iter()
            .map(|event| Raw::new(event).map(Raw::cast_unchecked))
            .collect();
        let unused: &[OneTimeKeyAlgorithm] = if self.line.has_fallback_key() {
            &[OneTimeKeyAlgorithm::SignedCurve25519]
        } else {
            &[]
        };
        let changes = EncryptionSyncChanges {
            to_device_events: raw?,
            changed_devices: &Default::default(),
            one_time_keys_counts: &BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, 50_u32.into())]),
            unused_fallback_keys: Some(unused),
            next_batch_token: Some("s".to_owned()),
        };
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let (_, keys) = self.machine.receive_sync_changes(changes, &settings).await?;
        anyhow::ensure!(
            keys.len() == events.len(),
            "{} of {} keys came",
            keys.len(),
            events.len()
        );
        Ok(())
    }

    /// Encrypt a message of 100 bytes.
    pub(crate) async fn say(&self, room: &RoomId) -> anyhow::Result<()> {
        let content = json!({"msgtype": "m.text", "body": "x".repeat(100)});
        let content: Raw<AnyMessageLikeEventContent> = Raw::new(&content)?.cast_unchecked();
        let encrypted = self
            .machine
            .encrypt_room_event_raw(room, "m.room.message", &content)
            .await?;
        std::hint::black_box(encrypted);
        Ok(())
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    serde_json::from_value(value.clone()).context("the line answers as a homeserver")
}

//! A homeserver that answers at once, from what is at hand: only what a device asks for in these measurements.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use matrix_sdk_crypto::vodozemac::Curve25519PublicKey;
use mx_transport::{Transport, TransportError};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use super::crowd::{Crowd, Receiver};
use crate::comparison::variant::{device, user};

/// The line to a homeserver.
#[derive(Clone)]
pub(crate) struct Line(Arc<Inner>);

struct Inner {
    crowd: Arc<Crowd>,
    rooms: BTreeMap<OwnedRoomId, Vec<OwnedUserId>>,
    said: Mutex<Said>,
}

/// What the device said of itself, and what it will be told.
#[derive(Default)]
struct Said {
    device_keys: Option<Value>,
    fallback_key: Option<String>,
    syncs: VecDeque<Value>,
    number: u64,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// Rooms with their members, of whom the device that is measured is one.
    pub(crate) fn new(crowd: &Arc<Crowd>, rooms: BTreeMap<OwnedRoomId, Vec<OwnedUserId>>) -> Self {
        Self(Arc::new(Inner {
            crowd: Arc::clone(crowd),
            rooms,
            said: Mutex::default(),
        }))
    }

    /// What the next sync says, beside what each does.
    pub(crate) fn tell(&self, sync: Value) {
        self.said().syncs.push_back(sync);
    }

    /// The device, as its uploads show it.
    pub(crate) fn receiver(&self) -> anyhow::Result<Receiver> {
        let said = self.said();
        let keys = said.device_keys.as_ref().context("no device keys were uploaded")?;
        let key = |algorithm: &str| keys["keys"][format!("{algorithm}:{}", device())].as_str();
        Ok(Receiver {
            user: user().to_owned(),
            curve25519: Curve25519PublicKey::from_base64(key("curve25519").context("no Curve25519 key")?)?,
            ed25519: key("ed25519").context("no Ed25519 key")?.to_owned(),
            key: Curve25519PublicKey::from_base64(said.fallback_key.as_deref().context("no fallback key")?)?,
        })
    }

    /// Whether it has a fallback key there.
    pub(crate) fn has_fallback_key(&self) -> bool {
        self.said().fallback_key.is_some()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request.
    pub(crate) fn answer(&self, path: &str, body: &Value) -> Value {
        let part = |number: usize| path.split('/').nth_back(number).unwrap_or_default();
        match path {
            _ if path.ends_with("/versions") => json!({"versions": ["v1.1", "v1.11"]}),
            _ if path.ends_with("/keys/upload") => self.uploaded(body),
            _ if path.ends_with("/keys/query") => self.queried(body),
            _ if path.ends_with("/keys/claim") => self.claimed(body),
            _ if path.ends_with("/sync") => self.synced(),
            _ if path.ends_with("/members") => self.members(part(1)),
            _ if path.contains("/state/m.room.encryption") => {
                json!({"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_msgs": 10_000})
            }
            _ if path.contains("/state/m.room.history_visibility") => json!({"history_visibility": "shared"}),
            _ if path.contains("/send/") => {
                let mut said = self.said();
                said.number += 1;
                json!({"event_id": format!("$event{}", said.number)})
            }
            _ => json!({}),
        }
    }

    fn uploaded(&self, body: &Value) -> Value {
        let mut said = self.said();
        if body["device_keys"].is_object() {
            said.device_keys = Some(body["device_keys"].clone());
        }
        let fallback = body["fallback_keys"].as_object();
        if let Some(key) = fallback.and_then(|keys| keys.values().next()) {
            said.fallback_key = key["key"].as_str().map(str::to_owned);
        }
        json!({"one_time_key_counts": {"signed_curve25519": 50}})
    }

    fn queried(&self, body: &Value) -> Value {
        let own = self.said().device_keys.clone();
        let of = |name: &String| -> Value {
            if name == user().as_str() {
                return json!({device().as_str(): own});
            }
            let devices = self.0.crowd.of_user(name);
            devices
                .map(|peer| (peer.device.to_string(), peer.device_keys.clone()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let asked = body["device_keys"].as_object().into_iter().flatten();
        let answered: serde_json::Map<_, _> = asked.map(|(name, _)| (name.clone(), of(name))).collect();
        json!({"device_keys": answered})
    }

    fn claimed(&self, body: &Value) -> Value {
        let asked = body["one_time_keys"].as_object().into_iter().flatten();
        let mut answered = serde_json::Map::new();
        for (name, devices) in asked {
            let peers = self.0.crowd.of_user(name);
            let keys: serde_json::Map<_, _> = peers
                .filter(|peer| !devices[peer.device.as_str()].is_null())
                .map(|peer| {
                    let key = json!({"signed_curve25519:AAAAAQ": peer.one_time_key});
                    (peer.device.to_string(), key)
                })
                .collect();
            answered.insert(name.clone(), keys.into());
        }
        json!({"one_time_keys": answered})
    }

    fn synced(&self) -> Value {
        let mut said = self.said();
        said.number += 1;
        let mut sync = said.syncs.pop_front().unwrap_or_else(|| json!({}));
        sync["next_batch"] = json!(format!("s{}", said.number));
        sync["device_one_time_keys_count"] = json!({"signed_curve25519": 50});
        // A device makes its fallback key when it hears that there is none.
        let unused: &[&str] = if said.fallback_key.is_some() {
            &["signed_curve25519"]
        } else {
            &[]
        };
        sync["device_unused_fallback_key_types"] = json!(unused);
        sync
    }

    fn members(&self, room: &str) -> Value {
        let room = room.replace("%21", "!").replace("%3A", ":");
        let users = self
            .0
            .rooms
            .iter()
            .find(|(id, _)| id.as_str() == room)
            .map(|(_, users)| users);
        let own = user().to_owned();
        let member = |user: &OwnedUserId| {
            json!({
                "type": "m.room.member", "state_key": user, "sender": user, "content": {"membership": "join"},
                "event_id": format!("$join-{}", user.localpart()), "origin_server_ts": 1, "room_id": room,
            })
        };
        let chunk: Vec<Value> = users.into_iter().flatten().chain([&own]).map(member).collect();
        json!({"chunk": chunk})
    }
}

#[async_trait]
impl Transport for Line {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let body = serde_json::from_slice(request.body()).unwrap_or_default();
        let answer = self.answer(request.uri().path(), &body);
        Ok(http::Response::new(Bytes::from(answer.to_string())))
    }
}

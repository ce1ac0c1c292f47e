//! What is remembered of a room: that it is encrypted, how, and who may read its history.
//!
//! # Why
//! Encryption is latched: once seen, nothing that a homeserver says later makes the room plaintext again, changes its
//! algorithm or lets a key live longer. A stricter rotation is taken over.

use std::time::Duration;

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use mx_transport::{Call, RequestError};
use ruma::{
    RoomId,
    api::client::state::get_state_event_for_key,
    events::{StateEventType, room::history_visibility::HistoryVisibility},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Orchestrator, Result, machine::Ending};

/// The one algorithm that rooms are encrypted with.
pub(crate) const MEGOLM: &str = "m.megolm.v1.aes-sha2";

const ROOMS: Family = Family::guarded("rooms");

/// The specification's recommended rotation, in milliseconds: a week.
const DEFAULT_PERIOD_MS: u64 = 604_800_000;
/// The specification's recommended rotation, in messages.
const DEFAULT_MESSAGES: u64 = 100;

/// What is remembered of a room.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct RoomRecord {
    /// Set once the room was seen as encrypted, and never taken back.
    pub(crate) encryption: Option<RoomEncryption>,
    /// As the room's state says. `None`: not seen yet.
    pub(crate) history_visibility: Option<HistoryVisibility>,
    /// When we joined it first, in the homeserver's milliseconds since the Unix epoch.
    #[serde(default)]
    pub(crate) joined_ms: Option<u64>,
}

/// How a room is encrypted.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct RoomEncryption {
    pub(crate) algorithm: String,
    pub(crate) rotation_period_ms: u64,
    pub(crate) rotation_messages: u64,
}

impl RoomEncryption {
    /// Read the content of an `m.room.encryption` event. Without an algorithm it is still one: a room whose state
    /// cannot be understood is not plaintext.
    pub(crate) fn from_content(content: &serde_json::Value) -> Self {
        let number = |name: &str| {
            content
                .get(name)
                .and_then(serde_json::Value::as_u64)
                .filter(|value| *value > 0)
        };
        Self {
            algorithm: content
                .get("algorithm")
                .and_then(|name| name.as_str())
                .unwrap_or_default()
                .chars()
                .take(64)
                .collect(),
            rotation_period_ms: number("rotation_period_ms").unwrap_or(DEFAULT_PERIOD_MS),
            rotation_messages: number("rotation_period_msgs").unwrap_or(DEFAULT_MESSAGES),
        }
    }

    pub(crate) fn rotation_period(&self) -> Duration {
        Duration::from_millis(self.rotation_period_ms)
    }
}

impl RoomRecord {
    /// Take over what a room's state event says, as far as the latch allows.
    pub(crate) fn apply(&mut self, event_type: &str, content: &serde_json::Value) {
        match event_type {
            "m.room.encryption" => self.latch(RoomEncryption::from_content(content)),
            "m.room.history_visibility" => {
                if let Some(visibility) = content.get("history_visibility").and_then(|value| value.as_str()) {
                    self.history_visibility = Some(visibility.into());
                }
            }
            _ => {}
        }
    }

    fn latch(&mut self, seen: RoomEncryption) {
        let Some(held) = &mut self.encryption else {
            self.encryption = Some(seen);
            return;
        };
        if held.algorithm != MEGOLM && seen.algorithm == MEGOLM {
            // What we could not use before is replaced by what we can.
            *held = seen;
        } else if seen.algorithm != held.algorithm {
            tracing::warn!("a room's encryption algorithm was changed, which is ignored");
        } else {
            held.rotation_period_ms = held.rotation_period_ms.min(seen.rotation_period_ms);
            held.rotation_messages = held.rotation_messages.min(seen.rotation_messages);
        }
    }

    fn id(room: &RoomId) -> RecordId {
        RecordId::named(ROOMS, &[], room.as_str())
    }

    /// As a unit of work sees it.
    pub(crate) async fn load(unit: &Unit, room: &RoomId) -> Result<Self> {
        Ok(unit.get(&Self::id(room)).await?.unwrap_or_default())
    }

    /// As it is on the disk.
    pub(crate) async fn committed(store: &PickleStore, room: &RoomId) -> Result<Self> {
        Ok(store.record(&Self::id(room)).await?.unwrap_or_default())
    }

    pub(crate) fn save(&self, unit: &Unit, room: &RoomId) -> Result<()> {
        Ok(unit.put(&Self::id(room), self)?)
    }
}

impl Orchestrator {
    /// How the room is encrypted: as remembered, else as the homeserver says, which is remembered then.
    pub(crate) async fn room_encryption(&self, room: &RoomId) -> Result<RoomEncryption> {
        if let Some(encryption) = RoomRecord::committed(self.store(), room).await?.encryption {
            return Ok(encryption);
        }
        match self.state_content(room, StateEventType::RoomEncryption).await? {
            Some(content) => self
                .remember(room, "m.room.encryption", content)
                .await?
                .encryption
                .ok_or_else(|| Error::RoomNotEncrypted { room: room.to_owned() }),
            None => Err(Error::RoomNotEncrypted { room: room.to_owned() }),
        }
    }

    /// Whether events of the room are encrypted.
    ///
    /// # Errors
    /// [`Error::NotInRoom`]; of the request; of the store.
    pub async fn is_encrypted(&self, room: &RoomId) -> Result<bool> {
        match self.room_encryption(room).await {
            Ok(_) => Ok(true),
            Err(Error::RoomNotEncrypted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Who may read the room's history; `shared` where the room does not say, as the specification has it.
    pub(crate) async fn history_visibility(&self, room: &RoomId) -> Result<HistoryVisibility> {
        if let Some(visibility) = RoomRecord::committed(self.store(), room).await?.history_visibility {
            return Ok(visibility);
        }
        let content = self.state_content(room, StateEventType::RoomHistoryVisibility).await?;
        let content = content.unwrap_or_else(|| serde_json::json!({"history_visibility": "shared"}));
        let record = self.remember(room, "m.room.history_visibility", content).await?;
        Ok(record.history_visibility.unwrap_or(HistoryVisibility::Shared))
    }

    async fn remember(
        &self,
        room: &RoomId,
        event_type: &'static str,
        content: serde_json::Value,
    ) -> Result<RoomRecord> {
        let room = room.to_owned();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let mut record = RoomRecord::load(unit, &room).await?;
                    record.apply(event_type, &content);
                    record.save(unit, &room)?;
                    Ok(Ending::Commit(record))
                })
            })
            .await
    }

    async fn state_content(&self, room: &RoomId, kind: StateEventType) -> Result<Option<serde_json::Value>> {
        let request = get_state_event_for_key::v3::Request::new(room.to_owned(), kind, String::new());
        match self.homeserver().exchange(request, Call::repeatable()).await {
            Ok(answer) => serde_json::from_slice(answer.body())
                .map(Some)
                .map_err(|_| Error::MalformedSync {
                    reason: "a state event is not JSON".to_owned(),
                }),
            Err(RequestError::Api {
                status, ref errcode, ..
            }) if status.as_u16() == 404 && errcode.as_deref() == Some("M_NOT_FOUND") => Ok(None),
            Err(error) => Err(not_in_room(error, room)),
        }
    }
}

/// A homeserver answers 403 (and some 404) for rooms that we are not in, and for rooms that there are not.
pub(crate) fn not_in_room(error: RequestError, room: &RoomId) -> Error {
    match error {
        RequestError::Api { status, .. } if matches!(status.as_u16(), 403 | 404) => {
            Error::NotInRoom { room: room.to_owned() }
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encryption_stays_and_only_tightens() {
        let mut room = RoomRecord::default();
        room.apply(
            "m.room.encryption",
            &json!({"algorithm": MEGOLM, "rotation_period_msgs": 50}),
        );
        let first = room.encryption.clone().unwrap();
        assert_eq!(
            (first.rotation_messages, first.rotation_period_ms),
            (50, DEFAULT_PERIOD_MS)
        );
        for relaxed in [
            json!({}),
            json!({"algorithm": "m.plain"}),
            json!({"algorithm": MEGOLM, "rotation_period_msgs": 100_000}),
        ] {
            room.apply("m.room.encryption", &relaxed);
            assert_eq!(room.encryption.as_ref(), Some(&first), "{relaxed}");
        }
        room.apply(
            "m.room.encryption",
            &json!({"algorithm": MEGOLM, "rotation_period_msgs": 5, "rotation_period_ms": 1000}),
        );
        let tightened = room.encryption.unwrap();
        assert_eq!((tightened.rotation_messages, tightened.rotation_period_ms), (5, 1000));
    }

    #[test]
    fn an_unreadable_encryption_event_is_not_plaintext() {
        let mut room = RoomRecord::default();
        room.apply("m.room.encryption", &json!({"algorithm": 7}));
        assert_eq!(room.encryption.as_ref().unwrap().algorithm, "");
        room.apply("m.room.encryption", &json!({"algorithm": MEGOLM}));
        assert_eq!(room.encryption.unwrap().algorithm, MEGOLM);
    }

    #[test]
    fn zero_and_nonsense_rotation_fall_back() {
        let read = RoomEncryption::from_content(
            &json!({"algorithm": MEGOLM, "rotation_period_msgs": 0, "rotation_period_ms": "x"}),
        );
        assert_eq!(
            (read.rotation_messages, read.rotation_period_ms),
            (DEFAULT_MESSAGES, DEFAULT_PERIOD_MS)
        );
    }
}

//! What every room event has outside, read as far as it can be.

use ruma::{DeviceId, OwnedEventId, OwnedUserId, RoomId};
use serde::Deserialize;

use crate::verification::RoomEvent;

/// What every room event has.
#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    pub(super) event_id: OwnedEventId,
    pub(super) sender: OwnedUserId,
    /// A homeserver's word: where it is no time, it is zero.
    #[serde(default, deserialize_with = "time")]
    pub(super) origin_server_ts: u64,
    #[serde(default)]
    pub(super) state_key: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(super) content: serde_json::Value,
    #[serde(default)]
    pub(super) unsigned: Unsigned,
    /// Of a redaction in rooms up to version 10, where the content does not say it.
    #[serde(default)]
    pub(super) redacts: Option<serde_json::Value>,
}

#[derive(Default, Deserialize)]
pub(super) struct Unsigned {
    pub(super) transaction_id: Option<serde::de::IgnoredAny>,
    pub(super) redacted_because: Option<serde::de::IgnoredAny>,
}

impl Header {
    pub(super) fn as_room_event<'a>(&'a self, room: &'a RoomId, device: Option<&'a DeviceId>) -> RoomEvent<'a> {
        RoomEvent {
            room,
            event_id: &self.event_id,
            sender: &self.sender,
            origin_server_ts: self.origin_server_ts,
            event_type: &self.event_type,
            content: &self.content,
            device,
        }
    }
}

fn time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_u64().filter(|time| *time < 1 << 53).unwrap_or(0))
}

/// An event that is not one may still have an id.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) event_id: Option<OwnedEventId>,
}

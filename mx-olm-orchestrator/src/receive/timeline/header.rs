//! What is read of a room event before anything is done with it.

use ruma::{OwnedEventId, OwnedUserId};
use serde::Deserialize;

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

fn time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_u64().filter(|time| *time < 1 << 53).unwrap_or(0))
}

/// An event that is not one may still have an id.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) event_id: Option<OwnedEventId>,
}

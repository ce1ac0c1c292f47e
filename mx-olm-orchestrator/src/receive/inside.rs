//! What is inside of a decrypted room event, and what may not be.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::RejectedReason;

/// Types that are state of a room. State is never encrypted: as a message it means nothing, and an app that mistook it for
/// state would let a member change the room.
const STATE: [&str; 14] = [
    "m.room.aliases",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.create",
    "m.room.encryption",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
    "m.room.name",
    "m.room.power_levels",
    "m.room.server_acl",
    "m.room.tombstone",
    "m.room.topic",
];

/// A room event that was inside of an encrypted one.
#[derive(Debug, Deserialize)]
pub(super) struct Inside {
    #[serde(rename = "type")]
    pub(super) event_type: String,
    #[serde(default)]
    pub(super) content: Value,
    #[serde(default)]
    state_key: Option<serde::de::IgnoredAny>,
}

/// Why it is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no event.
    NoEvent,
    /// It is one that must not be believed.
    Rejected(RejectedReason),
}

/// Read what was inside. What the event relates to is what its outside says, since that is what homeservers and other
/// clients go by (client-server API, section "Encrypting events with relationships").
pub(super) fn read(raw: &RawValue, relation: Option<Value>) -> Result<Inside, Wrong> {
    let mut inside: Inside = serde_json::from_str(raw.get()).map_err(|_| Wrong::NoEvent)?;
    if inside.event_type == "m.room.encrypted" {
        return Err(Wrong::Rejected(RejectedReason::NestedEncryption));
    }
    if inside.state_key.is_some() || STATE.contains(&inside.event_type.as_str()) {
        return Err(Wrong::Rejected(RejectedReason::StateEvent));
    }
    let content = inside.content.as_object_mut().ok_or(Wrong::NoEvent)?;
    if let Some(relation) = relation {
        content.insert("m.relates_to".to_owned(), relation);
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn of(event: &Value, relation: Option<Value>) -> Result<Inside, Wrong> {
        read(&to_raw_value(event).unwrap(), relation)
    }

    #[test]
    fn a_message_is_taken_with_the_relation_of_its_outside() {
        let event = json!({"type": "m.room.message", "content": {"body": "b", "m.relates_to": {"event_id": "$inner"}}});
        let inside = of(&event, Some(json!({"event_id": "$outer"}))).unwrap();
        assert_eq!(
            inside.content,
            json!({"body": "b", "m.relates_to": {"event_id": "$outer"}})
        );
        assert_eq!(of(&event, None).unwrap().content["m.relates_to"]["event_id"], "$inner");
    }

    #[test]
    fn state_and_encryption_inside_are_rejected() {
        for event_type in STATE {
            let event = json!({"type": event_type, "content": {}});
            assert_eq!(
                of(&event, None).unwrap_err(),
                Wrong::Rejected(RejectedReason::StateEvent)
            );
        }
        let keyed = json!({"type": "org.example.custom", "state_key": "", "content": {}});
        assert_eq!(
            of(&keyed, None).unwrap_err(),
            Wrong::Rejected(RejectedReason::StateEvent)
        );
        let nested = json!({"type": "m.room.encrypted", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
        assert_eq!(
            of(&nested, None).unwrap_err(),
            Wrong::Rejected(RejectedReason::NestedEncryption)
        );
        for wrong in [
            json!([]),
            json!("x"),
            json!({"content": {}}),
            json!({"type": "m.x", "content": "text"}),
        ] {
            assert_eq!(of(&wrong, None).unwrap_err(), Wrong::NoEvent, "{wrong}");
        }
    }
}

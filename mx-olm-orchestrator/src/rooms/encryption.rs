//! How a room is encrypted, and the latch: what may change of it, and what is refused.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The one algorithm that rooms are encrypted with.
pub(crate) const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// The specification's recommended rotation, in milliseconds: a week.
const DEFAULT_PERIOD_MS: u64 = 604_800_000;
/// A key lives at least this long, in milliseconds: whoever may change a room's state must not make every message cost a
/// key for everybody. The engine has the same limit.
const LEAST_PERIOD_MS: u64 = 3_600_000;
/// The specification's recommended rotation, in messages.
const DEFAULT_MESSAGES: u64 = 100;
/// The most messages of one key, as the engine has it.
const MOST_MESSAGES: u64 = 10_000;
/// What a homeserver names as an algorithm is kept up to this many characters.
const MOST_CHARACTERS: usize = 64;

/// How a room is encrypted.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct RoomEncryption {
    pub(crate) algorithm: String,
    pub(crate) rotation_period_ms: u64,
    pub(crate) rotation_messages: u64,
}

impl RoomEncryption {
    /// Read the content of an `m.room.encryption` event. Without an algorithm it is still one: a room whose state
    /// cannot be understood is not plaintext. A number out of its range is brought into it; what is no number is the
    /// default.
    pub(crate) fn from_content(content: &serde_json::Value) -> Self {
        let algorithm = content.get("algorithm").and_then(|name| name.as_str());
        Self {
            algorithm: algorithm.unwrap_or_default().chars().take(MOST_CHARACTERS).collect(),
            rotation_period_ms: number(content, "rotation_period_ms")
                .unwrap_or(DEFAULT_PERIOD_MS)
                .max(LEAST_PERIOD_MS),
            rotation_messages: number(content, "rotation_period_msgs")
                .unwrap_or(DEFAULT_MESSAGES)
                .clamp(1, MOST_MESSAGES),
        }
    }

    /// How long a key may be used. Records of earlier versions hold any number.
    pub(crate) fn rotation_period(&self) -> Duration {
        Duration::from_millis(self.rotation_period_ms.max(LEAST_PERIOD_MS))
    }

    /// How many messages a key may encrypt.
    pub(crate) fn rotation_messages(&self) -> u64 {
        self.rotation_messages.clamp(1, MOST_MESSAGES)
    }
}

/// A number that may be negative, a fraction, or too large to hold: cut to what can be held.
fn number(content: &serde_json::Value, name: &str) -> Option<u64> {
    let value = content.get(name)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, which is what is wanted"
    )]
    value.as_u64().or_else(|| value.as_f64().map(|number| number as u64))
}

/// How a homeserver shows the encryption of a room other than it was, in a way that is not followed.
///
/// ```
/// use mx_olm_orchestrator::EncryptionChange;
///
/// fn line(change: &EncryptionChange) -> String {
///     match change {
///         EncryptionChange::Denied => "it says that the room is not encrypted".to_owned(),
///         EncryptionChange::Algorithm { algorithm } => format!("it wants {algorithm:?}"),
///         EncryptionChange::RotationRelaxed { messages, period_ms } => {
///             format!("it wants one key for {messages} messages, or {} days", period_ms / 86_400_000)
///         }
///         _ => "it has changed".to_owned(),
///     }
/// }
/// let relaxed = EncryptionChange::RotationRelaxed { messages: 10_000, period_ms: 30 * 86_400_000 };
/// assert_eq!(line(&relaxed), "it wants one key for 10000 messages, or 30 days");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EncryptionChange {
    /// As not encrypted: without the state event, or with one that names no algorithm.
    Denied,
    /// With another algorithm.
    Algorithm {
        /// The one that it names, at most 64 characters of it.
        algorithm: String,
    },
    /// With keys that live longer.
    RotationRelaxed {
        /// After how many messages it wants a new key.
        messages: u64,
        /// After how many milliseconds it wants a new key.
        period_ms: u64,
    },
}

impl EncryptionChange {
    /// The change in a sentence.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::Denied => "the homeserver shows the room as not encrypted",
            Self::Algorithm { .. } => "the homeserver shows the room with another encryption algorithm",
            Self::RotationRelaxed { .. } => "the homeserver lets the room's keys live longer",
        }
    }
}

/// Take over what was seen as far as it makes the room stricter. Returns what was refused.
pub(super) fn latch(held: &mut Option<RoomEncryption>, seen: RoomEncryption) -> Option<EncryptionChange> {
    let Some(held) = held else {
        *held = Some(seen);
        return None;
    };
    if held.algorithm != MEGOLM && seen.algorithm == MEGOLM {
        // What we could not use before is replaced by what we can.
        *held = seen;
        return None;
    }
    if seen.algorithm != held.algorithm {
        return Some(if seen.algorithm.is_empty() {
            EncryptionChange::Denied
        } else {
            EncryptionChange::Algorithm {
                algorithm: seen.algorithm,
            }
        });
    }
    let relaxed = seen.rotation_period_ms > held.rotation_period_ms || seen.rotation_messages > held.rotation_messages;
    let refused = relaxed.then_some(EncryptionChange::RotationRelaxed {
        messages: seen.rotation_messages,
        period_ms: seen.rotation_period_ms,
    });
    held.rotation_period_ms = held.rotation_period_ms.min(seen.rotation_period_ms);
    held.rotation_messages = held.rotation_messages.min(seen.rotation_messages);
    refused
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(content: &serde_json::Value) -> RoomEncryption {
        RoomEncryption::from_content(content)
    }

    #[test]
    fn encryption_stays_and_only_tightens() {
        let mut room = None;
        let first = seen(&json!({"algorithm": MEGOLM, "rotation_period_msgs": 50}));
        assert_eq!(
            (first.rotation_messages, first.rotation_period_ms),
            (50, DEFAULT_PERIOD_MS)
        );
        assert_eq!(latch(&mut room, first.clone()), None);
        let evil = EncryptionChange::Algorithm {
            algorithm: "m.plain".to_owned(),
        };
        let relaxed = |messages, period_ms| EncryptionChange::RotationRelaxed { messages, period_ms };
        for (content, refused) in [
            (json!({}), EncryptionChange::Denied),
            (json!({"algorithm": "m.plain"}), evil),
            (
                json!({"algorithm": MEGOLM, "rotation_period_msgs": 100_000}),
                relaxed(10_000, DEFAULT_PERIOD_MS),
            ),
            (json!({"algorithm": MEGOLM}), relaxed(100, DEFAULT_PERIOD_MS)),
            (
                json!({"algorithm": MEGOLM, "rotation_period_msgs": 50, "rotation_period_ms": 31_536_000_000_u64}),
                relaxed(50, 31_536_000_000),
            ),
        ] {
            assert_eq!(latch(&mut room, seen(&content)), Some(refused), "{content}");
            assert_eq!(room.as_ref(), Some(&first), "{content}");
        }
        let mixed = json!({"algorithm": MEGOLM, "rotation_period_msgs": 5, "rotation_period_ms": 704_800_000});
        assert_eq!(
            latch(&mut room, seen(&mixed)),
            Some(relaxed(5, 704_800_000)),
            "each number for itself"
        );
        let tighter = json!({"algorithm": MEGOLM, "rotation_period_msgs": 5, "rotation_period_ms": 1000});
        assert_eq!(latch(&mut room, seen(&tighter)), None);
        let tightened = room.unwrap();
        assert_eq!(
            (tightened.rotation_messages, tightened.rotation_period_ms),
            (5, LEAST_PERIOD_MS)
        );
    }

    #[test]
    fn an_unreadable_encryption_event_is_not_plaintext() {
        let mut room = None;
        assert_eq!(latch(&mut room, seen(&json!({"algorithm": 7}))), None);
        assert_eq!(room.as_ref().unwrap().algorithm, "");
        assert_eq!(latch(&mut room, seen(&json!({"algorithm": MEGOLM}))), None);
        assert_eq!(room.unwrap().algorithm, MEGOLM);
    }

    #[test]
    fn rotation_is_brought_into_its_range() {
        for (value, messages, period_ms) in [
            (json!(0), 1, LEAST_PERIOD_MS),
            (json!(1), 1, LEAST_PERIOD_MS),
            (json!(-5), 1, LEAST_PERIOD_MS),
            (json!(1.5), 1, LEAST_PERIOD_MS),
            (json!(1e30), MOST_MESSAGES, u64::MAX),
            (json!(u64::MAX), MOST_MESSAGES, u64::MAX),
            (json!(i64::MIN), 1, LEAST_PERIOD_MS),
            (json!("100"), DEFAULT_MESSAGES, DEFAULT_PERIOD_MS),
            (json!(null), DEFAULT_MESSAGES, DEFAULT_PERIOD_MS),
            (json!([7]), DEFAULT_MESSAGES, DEFAULT_PERIOD_MS),
        ] {
            let read = seen(&json!({"algorithm": MEGOLM, "rotation_period_msgs": value, "rotation_period_ms": value}));
            assert_eq!(
                (read.rotation_messages, read.rotation_period_ms),
                (messages, period_ms),
                "{value}"
            );
            // And no arithmetic with it panics.
            assert!(read.rotation_period() >= Duration::from_hours(1), "{value}");
        }
    }
}

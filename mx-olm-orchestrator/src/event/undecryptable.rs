//! Events that cannot be read: why not, what may help, and when they are given up.

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use super::Trust;

/// An event that could not be decrypted.
///
/// ```
/// use mx_olm_orchestrator::{Event, Undecryptable, UndecryptableReason};
///
/// fn line(event: &Undecryptable) -> String {
///     match &event.reason {
///         UndecryptableReason::Withheld { withheld } => format!("{} does not let us read this ({withheld})", event.sender),
///         // The message may follow, with the same event id.
///         reason if reason.may_still_come() => format!("not yet: {}", event.advice),
///         _ => format!("never: {}", event.advice),
///     }
/// }
/// # let _ = |event: &Event| if let Event::Undecryptable(event) = event { line(event) } else { String::new() };
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Undecryptable {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who sent it, as the homeserver says.
    pub sender: OwnedUserId,
    /// When the sender's homeserver took it, in milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// The Megolm session, where it names one.
    pub session_id: Option<String>,
    /// The device that the event names as its sender. Nothing proves it: the specification deprecates the field.
    #[serde(default)]
    pub claimed_device: Option<OwnedDeviceId>,
    /// When it came, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub received_ms: u64,
    /// Why.
    pub reason: UndecryptableReason,
    /// What may help.
    pub advice: String,
}

/// Why an event could not be decrypted.
///
/// ```
/// use mx_olm_orchestrator::UndecryptableReason;
///
/// let reason = UndecryptableReason::Withheld { withheld: "m.unverified".to_owned() };
/// assert_eq!(serde_json::to_value(&reason)?, serde_json::json!({"code": "withheld", "withheld": "m.unverified"}));
/// assert!(reason.may_still_come(), "once this device is verified, say");
/// assert!(!UndecryptableReason::BadCiphertext.may_still_come());
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "code", rename_all = "snake_case")]
#[non_exhaustive]
pub enum UndecryptableReason {
    /// The room key has not come.
    MissingRoomKey,
    /// The sender told us that it withholds the room key, with this code.
    Withheld {
        /// The code of `m.room_key.withheld`.
        withheld: String,
    },
    /// We hold the room key from a later message on.
    KeyStartsLater,
    /// The room key has not come, and the event is older than this device: nobody could have encrypted it for us. Only a
    /// backup or another device of ours has the key.
    BeforeThisDevice,
    /// The room key has not come, and the key backup may have it: it is asked for there.
    ExpectedFromBackup,
    /// It was decrypted, and its sender is not one whose messages are accepted.
    NotAccepted {
        /// How far the device is known.
        trust: Trust,
    },
    /// The event names an encryption algorithm that no room message may have.
    UnsupportedAlgorithm {
        /// The algorithm that it names, at most 64 characters of it.
        algorithm: String,
    },
    /// The event is not a well-formed encrypted event.
    Malformed,
    /// The ciphertext does not belong to the key.
    BadCiphertext,
    /// What was inside is not an event.
    BadPayload,
}

impl UndecryptableReason {
    /// A key that comes later may still open the event.
    #[must_use]
    pub fn may_still_come(&self) -> bool {
        matches!(
            self,
            Self::MissingRoomKey
                | Self::Withheld { .. }
                | Self::KeyStartsLater
                | Self::BeforeThisDevice
                | Self::ExpectedFromBackup
                | Self::NotAccepted { .. }
        )
    }

    /// What may help, in one sentence.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::MissingRoomKey => {
                "the sender's device did not know this device when it sent: it is delivered if the key comes, or ask for it again"
            }
            Self::Withheld { .. } => {
                "the sender's device refused to give the key to this device: verify the device, or ask the sender"
            }
            Self::KeyStartsLater => "the key was shared from a later message on, as for somebody who joined later",
            Self::BeforeThisDevice => {
                "it was sent before this device existed: restore the key backup, or import the keys of an older device"
            }
            Self::NotAccepted { .. } => {
                "its sender is not verified, and messages of others are not accepted: verify the sender"
            }
            Self::ExpectedFromBackup => {
                "the key backup is asked for the key: it is delivered when one of our devices has put it there"
            }
            Self::UnsupportedAlgorithm { .. } => {
                "the sender encrypts with an algorithm that this version does not know: the sender has to use m.megolm.v1.aes-sha2"
            }
            Self::Malformed | Self::BadCiphertext | Self::BadPayload => "nothing helps: the event itself is broken",
        }
    }
}

/// An event that waited for its key and is given up.
///
/// ```
/// use mx_olm_orchestrator::{Event, Lost, LostBecause};
///
/// fn line(event: &Event) -> Option<String> {
///     match event {
///         // Somebody has to ask the sender: its key opens nothing here any more.
///         Event::Lost(Lost { event_id, sender, because: LostBecause::TooMany, .. }) => Some(format!("{event_id} of {sender}")),
///         _ => None,
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Lost {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who sent it, as the homeserver says.
    pub sender: OwnedUserId,
    /// Why it could not be decrypted.
    pub reason: UndecryptableReason,
    /// Why it is not kept.
    pub because: LostBecause,
}

/// Why an event that waits for its key is given up.
///
/// ```
/// use mx_olm_orchestrator::LostBecause;
///
/// assert_eq!(serde_json::to_value(LostBecause::LeftRoom)?, "left_room");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LostBecause {
    /// More events wait than are kept: the oldest goes.
    TooMany,
    /// We are not in the room any more.
    LeftRoom,
}

//! Whom a message can be read by.

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId};
use serde::Serialize;

use crate::UnusableReason;

/// What became of a send.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SendReceipt {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event, as the homeserver has it.
    pub event_id: OwnedEventId,
    /// The transaction id, the same at every attempt.
    pub transaction_id: OwnedTransactionId,
    /// The Megolm session that encrypted it.
    pub session_id: String,
    /// The session was made for this message.
    pub new_session: bool,
    /// Every device of everybody who may read, except our own.
    pub devices: Vec<DeviceReceipt>,
    /// Who may read and has no device at all.
    pub users_without_devices: Vec<OwnedUserId>,
    /// Whose devices are unknown: only ever with best effort.
    pub users_unknown: Vec<OwnedUserId>,
}

impl SendReceipt {
    /// How many devices can read the message.
    #[must_use]
    pub fn readable_by(&self) -> usize {
        self.devices
            .iter()
            .filter(|device| matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad))
            .count()
    }
}

/// What became of the room key for one device.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct DeviceReceipt {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: DeviceOutcome,
}

/// What became of the room key for one device.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceOutcome {
    /// The key was sent to it for this message.
    Reached,
    /// It was given the key before.
    AlreadyHad,
    /// It has no one-time key left and no session with us: it cannot be given the key.
    NoOneTimeKey,
    /// The key was withheld on purpose.
    Withheld {
        /// The code of `m.room_key.withheld`.
        code: String,
    },
    /// What the homeserver shows for it is not usable. A device that was known before is still given room keys under the
    /// keys that it had then; it is not counted as a reader.
    Rejected {
        /// Why.
        reason: UnusableReason,
    },
    /// The engine neither gave it the key nor said why.
    Missed,
}

impl DeviceOutcome {
    /// The outcome in a few words.
    #[must_use]
    pub fn describe(&self) -> &str {
        match self {
            Self::Reached => "it was given the room key",
            Self::AlreadyHad => "it has the room key",
            Self::NoOneTimeKey => UnusableReason::NoOneTimeKey.describe(),
            Self::Withheld { code } => code,
            Self::Rejected { reason } => reason.describe(),
            Self::Missed => "it was left out by the engine",
        }
    }
}

//! Whom a message can be read by.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId};
use serde::Serialize;

use super::rotation::RotationReason;
use crate::{EncryptionChange, UnusableReason};

/// What became of a send.
///
/// ```no_run
/// # async fn example(receipt: mx_olm_orchestrator::SendReceipt) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::DeviceOutcome;
///
/// println!("{} devices can read {}", receipt.readable_by(), receipt.event_id);
/// for device in receipt.devices.iter().filter(|device| device.outcome == DeviceOutcome::NoOneTimeKey) {
///     println!("{} {} cannot: {}", device.user_id, device.device_id, device.outcome.describe());
/// }
/// for warning in &receipt.warnings {
///     println!("look at this: {}", warning.describe());
/// }
/// # Ok(()) }
/// ```
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
    /// No receipt before this one was of this session.
    pub new_session: bool,
    /// Why there is a new session. `None`: it is the one of the room's last receipt.
    pub rotation: Option<RotationReason>,
    /// Every device of everybody who may read, except our own.
    pub devices: Arc<[DeviceReceipt]>,
    /// Who may read and has no device at all.
    pub users_without_devices: Arc<[OwnedUserId]>,
    /// Whose devices are unknown: only ever with best effort.
    pub users_unknown: Vec<OwnedUserId>,
    /// Who may read, and could not at the room's last receipt. Empty for the first one of this device.
    pub recipients_added: Vec<OwnedUserId>,
    /// Devices that the others had not at the room's last receipt. Empty for the first one of this device.
    pub new_devices: Vec<Device>,
    /// What somebody should look at although the message was sent.
    pub warnings: Vec<Warning>,
}

/// A device of somebody.
///
/// ```no_run
/// # fn example(receipt: mx_olm_orchestrator::SendReceipt) {
/// // Who reads from this message on, and did not read before.
/// for device in &receipt.new_devices {
///     println!("{} has a new device {}", device.user_id, device.device_id);
/// }
/// # }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
}

/// Something about a room that somebody should look at.
///
/// ```
/// use mx_olm_orchestrator::Warning;
///
/// fn is_about_people(warning: &Warning) -> bool {
///     match warning {
///         Warning::MembershipDisagrees { users } | Warning::IdentityChanged { users } => !users.is_empty(),
///         _ => false,
///     }
/// }
/// let users = [ruma::owned_user_id!("@friend:example.org")].into();
/// assert!(is_about_people(&Warning::IdentityChanged { users }));
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "code", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// The homeserver shows the room's encryption other than it was, in a way that is not followed.
    EncryptionStateTampered {
        /// What it shows.
        #[serde(flatten)]
        change: EncryptionChange,
    },
    /// The homeserver's list of members leaves out people who joined and of whom it showed no leaving. They count as members.
    MembershipDisagrees {
        /// Who.
        users: BTreeSet<OwnedUserId>,
    },
    /// The identity of users whom we verified was replaced: only ever with best effort.
    IdentityChanged {
        /// Whose identity.
        users: BTreeSet<OwnedUserId>,
    },
}

impl Warning {
    /// The warning in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let listed = |users: &BTreeSet<OwnedUserId>| {
            let names: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
            names.join(", ")
        };
        match self {
            Self::EncryptionStateTampered { change } => format!("{}, which is not followed", change.describe()),
            Self::MembershipDisagrees { users } => format!(
                "the homeserver's list of members leaves out {}, of whom it showed no leaving: they count as members",
                listed(users)
            ),
            Self::IdentityChanged { users } => {
                format!(
                    "the verified identity of {} was replaced: verify them again",
                    listed(users)
                )
            }
        }
    }
}

impl SendReceipt {
    /// How many devices can read the message.
    #[must_use]
    pub fn readable_by(&self) -> usize {
        readable(&self.devices)
    }
}

/// How many of these devices can read a message.
pub(super) fn readable(devices: &[DeviceReceipt]) -> usize {
    devices
        .iter()
        .filter(|device| matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad))
        .count()
}

/// What became of the room key for one device.
///
/// ```no_run
/// # fn example(receipt: mx_olm_orchestrator::SendReceipt) {
/// use mx_olm_orchestrator::{DeviceOutcome, DeviceReceipt};
///
/// for DeviceReceipt { user_id, device_id, outcome } in receipt.devices.iter() {
///     if !matches!(outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad) {
///         println!("{user_id} cannot read this on {device_id}: {}", outcome.describe());
///     }
/// }
/// # }
/// ```
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
///
/// ```
/// use mx_olm_orchestrator::DeviceOutcome;
///
/// let withheld = DeviceOutcome::Withheld { code: "m.blacklisted".to_owned() };
/// assert_eq!(withheld.describe(), "it is blocked");
/// let json = serde_json::json!({"outcome": "withheld", "code": "m.blacklisted"});
/// assert_eq!(serde_json::to_value(&withheld)?, json);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceOutcome {
    /// The key was sent to it for this message, or for one just before it of which nobody has a receipt.
    Reached,
    /// It was given the key before.
    AlreadyHad,
    /// It has no one-time key left and no session with us: it cannot be given the key.
    NoOneTimeKey,
    /// There is no session with it, and its server cannot be asked for a one-time key: only ever with best effort.
    Unknown,
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
            Self::Unknown => "its server cannot be asked for a one-time key",
            Self::Withheld { code } => match code.as_str() {
                "m.blacklisted" => "it is blocked",
                "m.unverified" => "it is not trusted",
                code => code,
            },
            Self::Rejected { reason } => reason.describe(),
            Self::Missed => "it was left out by the engine",
        }
    }
}

#[cfg(test)]
mod tests;

//! An event that must not be believed, and why.

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// An event that must not be believed.
///
/// ```
/// use mx_olm_orchestrator::{Event, Rejected, RejectedReason};
///
/// // What was inside is not shown: nobody knows who wrote it.
/// fn alarm(event: &Event) -> Option<String> {
///     let Event::Rejected(Rejected { event_id, sender, reason, .. }) = event else { return None };
///     Some(match reason {
///         RejectedReason::Replay { first } => format!("{event_id} repeats {first}"),
///         RejectedReason::SenderMismatch { owner: Some(owner) } => format!("{event_id} is of {owner}, and not of {sender}"),
///         reason => format!("{event_id}: {reason:?}"),
///     })
/// }
/// # let _ = alarm;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Rejected {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who sent it, as the homeserver says.
    pub sender: OwnedUserId,
    /// Why.
    pub reason: RejectedReason,
}

/// Why an event must not be believed.
///
/// ```
/// use mx_olm_orchestrator::RejectedReason;
///
/// let reason = RejectedReason::Replay { first: ruma::owned_event_id!("$first") };
/// assert_eq!(serde_json::to_value(&reason)?, serde_json::json!({"code": "replay", "first": "$first"}));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "code", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RejectedReason {
    /// The same ciphertext index was already used by another event.
    Replay {
        /// The event that came first.
        first: OwnedEventId,
    },
    /// Another message of the same sender was already encrypted with this index of the key: the sender's store was set
    /// back or copied, or somebody forges. It cannot be told which of the two is genuine; the first was delivered.
    IndexReuse {
        /// The event that came first.
        first: OwnedEventId,
    },
    /// The owner of the key is not who the homeserver says.
    SenderMismatch {
        /// Whose key it is, where that is known.
        #[serde(default)]
        owner: Option<OwnedUserId>,
    },
    /// The key was given in the name of a device that is not its owner.
    SenderUnattributed,
    /// What was inside is state of a room, which is never encrypted: nobody may change a room in this way.
    StateEvent,
    /// What was inside is encrypted again.
    NestedEncryption,
    /// It came as plaintext into a room that is encrypted, and only messages of known devices are accepted.
    Plaintext,
    /// It is meant as a step of a verification with us and cannot be one: it has no form or names no verification, is not of
    /// the device that it names, or is one request too many.
    UnusableVerification,
}

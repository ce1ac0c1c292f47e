//! What an app receives.

mod history;
mod rejected;
mod rooms;
mod trust;
mod undecryptable;

use ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId};
use serde::{Deserialize, Serialize};

pub use self::{
    history::{HistoryNotShared, HistoryReceived, HistoryRefused, HistoryRefusedReason},
    rejected::{Rejected, RejectedReason},
    rooms::{MembershipChanged, Sent},
    trust::{BackupStopped, DehydratedDeviceNotOpened, IdentityChanged, OwnIdentity, TrustDrift},
    undecryptable::{Lost, LostBecause, Undecryptable, UndecryptableReason},
};
use crate::{EncryptionChange, UnusableReason, VerificationEnded, VerificationRequested};

/// Something that happened and that the app is told exactly in this form, also after a restart.
///
/// ```
/// use mx_olm_orchestrator::Event;
///
/// fn line(event: &Event) -> String {
///     match event {
///         Event::Message(message) => format!("{}: {}", message.sender, message.body().unwrap_or("…")),
///         Event::Undecryptable(event) => format!("cannot read {}: {}", event.event_id, event.advice),
///         other => format!("{other:?}"),
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A room event that is not state: a message, a reaction, a redaction, …
    Message(Message),
    /// Somebody invited us to a room.
    Invite(Invite),
    /// Somebody came to a room or went.
    MembershipChanged(MembershipChanged),
    /// An event that could not be decrypted before the deadline, or never can. It is delivered as a
    /// [`Message`](Self::Message) when its key comes after all.
    Undecryptable(Undecryptable),
    /// An event that was decrypted, or is plainly wrong, and must not be believed.
    Rejected(Rejected),
    /// Events of a room were missed for good: there were more than are asked for, or the homeserver does not give them.
    Gap(Gap),
    /// An event that waited for its key is not kept any longer. It may have been reported as
    /// [`Undecryptable`](Self::Undecryptable) before.
    Lost(Lost),
    /// Something in a room's timeline is no event.
    Malformed(Malformed),
    /// The homeserver shows a device in a way that only a lie or a lost store explains. It is not used.
    DeviceRejected(DeviceRejected),
    /// The cross-signing identity of a user was replaced.
    IdentityChanged(IdentityChanged),
    /// Our own identity, which was in order, is so no more: it was replaced, or this device lost its signature.
    OwnIdentity(OwnIdentity),
    /// The key backup was deleted or replaced, and room keys are not put into it any more.
    BackupStopped(BackupStopped),
    /// The account's dehydrated device does not open, or could not be opened in several attempts. It is not replaced before
    /// this is told, and then only where [`dehydrate`](crate::Orchestrator::dehydrate) is called.
    DehydratedDeviceNotOpened(DehydratedDeviceNotOpened),
    /// What there is differs from the trust manifest.
    TrustDrift(TrustDrift),
    /// The homeserver shows the encryption of a room other than it was, in a way that is not followed.
    EncryptionTampered(EncryptionTampered),
    /// An event that an earlier call, or an earlier process, left in the outbox is refused for good. It is dropped.
    SendRefused(SendRefused),
    /// An event that an earlier call, or an earlier process, left in the outbox has been sent.
    Sent(Sent),
    /// Who invited us gave us room keys of the time before.
    HistoryReceived(HistoryReceived),
    /// Who invited us offered room keys of the time before, and they were not taken.
    HistoryRefused(HistoryRefused),
    /// Room keys that were to be given to somebody whom we invited were not.
    HistoryNotShared(HistoryNotShared),
    /// Somebody asks to verify us, or another device of ours does.
    VerificationRequested(VerificationRequested),
    /// A verification has ended, well or not.
    VerificationEnded(VerificationEnded),
}

/// A room event that is not state.
///
/// ```
/// use mx_olm_orchestrator::Message;
///
/// // As it is kept until it is acknowledged.
/// let message: Message = serde_json::from_value(serde_json::json!({
///     "room_id": "!alerts:example.org", "event_id": "$1", "sender": "@boss:example.org", "origin_server_ts": 1_700_000_000_000_u64,
///     "event_type": "m.room.message", "content": {"msgtype": "m.text", "body": "restart db1"},
///     "encryption": null, "plaintext_in_encrypted_room": true,
/// }))?;
/// assert_eq!(message.body(), Some("restart db1"));
/// assert!(message.plaintext_in_encrypted_room, "anybody on the way could have written it: do nothing");
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize, PartialEq)]
pub struct Message {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who sent it, as the homeserver says; for an encrypted event it is what the key's owner says too.
    pub sender: OwnedUserId,
    /// When the sender's homeserver took it, in milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// The event's type, such as `m.room.message`.
    pub event_type: String,
    /// The event's content: the plaintext, where it was encrypted.
    pub content: serde_json::Value,
    /// How it was encrypted. `None`: it came as plaintext.
    pub encryption: Option<Encryption>,
    /// It came as plaintext into a room that is encrypted: anybody on the way could have written it.
    #[serde(default)]
    pub plaintext_in_encrypted_room: bool,
}

impl Message {
    /// The text of an `m.room.message` event.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        (self.event_type == "m.room.message")
            .then(|| self.content.get("body")?.as_str())
            .flatten()
    }
}

/// Contents stay out of logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("room_id", &self.room_id)
            .field("event_id", &self.event_id)
            .field("sender", &self.sender)
            .field("event_type", &self.event_type)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

/// How an event was encrypted.
///
/// ```
/// use mx_olm_orchestrator::{Message, Trust};
///
/// /// Whether to do what a message says.
/// fn may_command(message: &Message) -> bool {
///     message.encryption.as_ref().is_some_and(|how| how.trust == Trust::Verified)
/// }
///
/// /// A message that was late: what it says may be over.
/// fn was_late(message: &Message) -> bool {
///     message.encryption.as_ref().and_then(|how| how.waited_ms).is_some_and(|waited| waited > 60_000)
/// }
/// # let _ = (may_command, was_late);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Encryption {
    /// The device whose key encrypted it, where it is known.
    pub sender_device: Option<OwnedDeviceId>,
    /// The Megolm session.
    pub session_id: String,
    /// How far the sending device is known.
    pub trust: Trust,
    /// How long the event waited for its key, in milliseconds. `None`: it could be decrypted when it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
}

/// How far the device that sent an event is known.
///
/// ```
/// use mx_olm_orchestrator::Trust;
///
/// fn shown_beside_a_message(trust: Trust) -> &'static str {
///     match trust {
///         Trust::Verified => "",
///         Trust::CrossSigned | Trust::Unsigned => "(not verified)",
///         Trust::Imported => "(the key was imported: nobody can tell who wrote this)",
///         Trust::IdentityChanged | Trust::NotListed => "(this may be somebody else)",
///         _ => "(from a device that is gone, blocked or not known)",
///     }
/// }
/// assert_eq!(shown_beside_a_message(Trust::CrossSigned), "(not verified)");
/// ```
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trust {
    /// The device is verified: by an identity that we verified, or by its fingerprint.
    Verified,
    /// The sender's identity signed the device, and we have not verified that identity.
    CrossSigned,
    /// The device is the sender's, and no identity signed it.
    Unsigned,
    /// The device is not known.
    Unknown,
    /// The device was known, and its owner has deleted it since.
    Deleted,
    /// Our own user has blocked the device.
    Blocked,
    /// The trust manifest lists the sender, and not with this device.
    NotListed,
    /// The key did not come from the sender: it was imported, or came from a backup. Whoever gave it could have made it.
    Imported,
    /// The sender's verified identity was replaced.
    IdentityChanged,
}

/// An event of ours that the homeserver does not take, told when nobody waits for it any more.
///
/// ```
/// use mx_olm_orchestrator::{Error, Event};
///
/// // A send ended with an error that said: it is safe, and is sent later. Now it is told what became of it.
/// fn is_about(event: &Event, pending: &Error) -> bool {
///     match (event, pending) {
///         (Event::SendRefused(refused), Error::SendPending { transaction_id, .. }) => {
///             refused.transaction_id == *transaction_id
///         }
///         _ => false,
///     }
/// }
/// # let _ = is_about;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SendRefused {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The transaction id, as [`Error::SendPending`](crate::Error::SendPending) had it.
    pub transaction_id: OwnedTransactionId,
    /// The status of the homeserver's answer.
    pub status: u16,
    /// The Matrix error code, where there was one.
    pub errcode: Option<String>,
}

/// An invitation.
///
/// ```
/// use mx_olm_orchestrator::{Event, Invite};
/// use ruma::UserId;
///
/// /// Whether the app is to join: by who invited it, never by what the room is called.
/// fn is_wanted(event: &Event, boss: &UserId) -> bool {
///     matches!(event, Event::Invite(Invite { joined: false, inviter: Some(inviter), .. }) if inviter == boss)
/// }
/// # let _ = is_wanted;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Invite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited us, where the homeserver says so.
    pub inviter: Option<OwnedUserId>,
    /// The room's name, where the homeserver says so. Anybody can name a room anything.
    pub name: Option<String>,
    /// We joined, because who invited us may. Where this is false, it is for the app to join.
    #[serde(default)]
    pub joined: bool,
}

/// Events that were missed.
///
/// ```
/// use mx_olm_orchestrator::{Event, Gap};
///
/// /// Rooms of which an app that must see everything has to look at the history.
/// fn missed(events: &[Event]) -> Vec<String> {
///     let gaps = events.iter().filter_map(|event| match event {
///         Event::Gap(Gap { room_id, recovered }) => Some(format!("{room_id}, but for the newest and {recovered} before them")),
///         _ => None,
///     });
///     gaps.collect()
/// }
/// # let room_id = ruma::owned_room_id!("!r:example.org");
/// # assert_eq!(missed(&[Event::Gap(Gap { room_id, recovered: 2 })]).len(), 1);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Gap {
    /// The room.
    pub room_id: OwnedRoomId,
    /// How many events before the newest ones were asked for and given all the same.
    pub recovered: usize,
}

/// Something in a timeline that cannot be read as an event.
///
/// ```
/// use mx_olm_orchestrator::{Event, Malformed};
///
/// // Nothing is to be done about it; a server that sends many of them is broken.
/// let malformed = Malformed { room_id: ruma::owned_room_id!("!r:example.org"), event_id: None };
/// let json = serde_json::to_value(Event::Malformed(malformed))?;
/// assert_eq!(json, serde_json::json!({"kind": "malformed", "room_id": "!r:example.org", "event_id": null}));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Malformed {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its id, where it has one.
    pub event_id: Option<OwnedEventId>,
}

/// A device that the homeserver shows in a way that is not to be believed.
///
/// ```
/// use mx_olm_orchestrator::{DeviceRejected, Event, UnusableReason};
///
/// fn alarm(event: &Event) -> Option<String> {
///     let Event::DeviceRejected(DeviceRejected { user_id, device_id, reason }) = event else { return None };
///     Some(match reason {
///         UnusableReason::KeyConflict { old, new } => format!("{user_id} {device_id} was {old} and is shown as {new}"),
///         reason => format!("{user_id} {device_id}: {}", reason.describe()),
///     })
/// }
/// # let _ = alarm;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DeviceRejected {
    /// Whose device.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Why.
    pub reason: UnusableReason,
}

/// A room whose encryption the homeserver shows other than it was.
///
/// ```
/// use mx_olm_orchestrator::{EncryptionChange, EncryptionTampered, Event};
///
/// // Sends go on encrypted; an operator should hear of it.
/// let event = Event::EncryptionTampered(EncryptionTampered {
///     room_id: ruma::owned_room_id!("!r:example.org"),
///     change: EncryptionChange::Denied,
/// });
/// let json = serde_json::json!({"kind": "encryption_tampered", "room_id": "!r:example.org", "change": "denied"});
/// assert_eq!(serde_json::to_value(&event)?, json);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct EncryptionTampered {
    /// The room.
    pub room_id: OwnedRoomId,
    /// How it is shown now.
    #[serde(flatten)]
    pub change: EncryptionChange,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_reads_back() {
        let event = Event::Rejected(Rejected {
            room_id: "!r:s".try_into().unwrap(),
            event_id: "$e".try_into().unwrap(),
            sender: "@u:s".try_into().unwrap(),
            reason: RejectedReason::Replay {
                first: "$f".try_into().unwrap(),
            },
        });
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], "rejected");
        assert_eq!(json["reason"]["code"], "replay");
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
    }

    #[test]
    fn debug_shows_no_plaintext() {
        let message = Message {
            room_id: "!r:s".try_into().unwrap(),
            event_id: "$e".try_into().unwrap(),
            sender: "@u:s".try_into().unwrap(),
            origin_server_ts: 1,
            event_type: "m.room.message".to_owned(),
            content: serde_json::json!({"msgtype": "m.text", "body": "the eagle"}),
            encryption: None,
            plaintext_in_encrypted_room: false,
        };
        assert_eq!(message.body(), Some("the eagle"));
        assert!(!format!("{:?}", Event::Message(message)).contains("eagle"));
    }
}

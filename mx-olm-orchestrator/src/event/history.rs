//! What an app is told about history that was shared.

use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

/// Room keys of the time before we came, given by who invited us. What waited for them is delivered, marked as
/// [`Trust::Imported`](crate::Trust::Imported).
///
/// ```no_run
/// # fn example(event: &mx_olm_orchestrator::Event) {
/// use mx_olm_orchestrator::Event;
///
/// match event {
///     Event::HistoryReceived(history) => println!("{} gave {} room keys", history.from, history.room_keys),
///     Event::HistoryRefused(refused) => println!("not taken from {}: {}", refused.from, refused.reason.describe()),
///     Event::HistoryNotShared(not) => println!("{} got no room keys [{}]: {}", not.user_id, not.code, not.advice),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HistoryReceived {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who gave them: it is on their word that these keys belong to whom they name.
    pub from: OwnedUserId,
    /// Keys that are new here, or reach further back than what was here.
    pub room_keys: usize,
    /// Keys that cannot be used: unreadable, of another room, under another session's name, or not what opens the events
    /// that wait for them.
    pub unusable: usize,
    /// Keys that the giver has and does not share.
    pub withheld: usize,
}

/// A history that was offered by who invited us, and was not taken.
///
/// ```
/// use mx_olm_orchestrator::{Event, HistoryRefused, HistoryRefusedReason};
///
/// fn line(event: &Event) -> Option<String> {
///     match event {
///         Event::HistoryRefused(HistoryRefused { from, reason: HistoryRefusedReason::Untrusted, .. }) => {
///             Some(format!("{from} has to offer it from a device that their identity has signed"))
///         }
///         Event::HistoryRefused(refused) => Some(refused.reason.describe().to_owned()),
///         _ => None,
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HistoryRefused {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who offered it.
    pub from: OwnedUserId,
    /// Why.
    pub reason: HistoryRefusedReason,
}

/// Why a history was not taken.
///
/// ```
/// use mx_olm_orchestrator::HistoryRefusedReason;
///
/// assert_eq!(HistoryRefusedReason::TooLarge.code(), "too_large");
/// assert_eq!(HistoryRefusedReason::TooLarge.describe(), "it is larger than what is taken");
/// ```
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HistoryRefusedReason {
    /// The device that offered it is not signed by its owner's identity, is blocked, or that identity was replaced or is
    /// not as the trust manifest says.
    Untrusted,
    /// The homeserver did not give the bundle, as often as it was asked.
    Unavailable,
    /// What the homeserver gives is not what was offered.
    Corrupt,
    /// It is larger than what is taken.
    TooLarge,
    /// It is no bundle of room keys.
    Malformed,
}

impl HistoryRefusedReason {
    /// A stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Untrusted => "the device that offered it is not signed by its owner's identity",
            Self::Unavailable => "the homeserver does not give it",
            Self::Corrupt => "the homeserver gives something else than what was offered",
            Self::TooLarge => "it is larger than what is taken",
            Self::Malformed => "it is no bundle of room keys",
        }
    }
}

/// A history that was to be shared, and was not: told when nobody waits for it any more.
///
/// ```
/// use mx_olm_orchestrator::{Event, HistoryNotShared};
///
/// /// Whom to invite again, or to tell that they cannot read what was said before.
/// fn line(event: &Event) -> Option<String> {
///     let Event::HistoryNotShared(HistoryNotShared { user_id, advice, code, .. }) = event else { return None };
///     Some(format!("{user_id} has no history [{code}]: {advice}"))
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HistoryNotShared {
    /// The room.
    pub room_id: OwnedRoomId,
    /// With whom.
    pub user_id: OwnedUserId,
    /// The stable code of the last error.
    pub code: String,
    /// What it says.
    pub advice: String,
}

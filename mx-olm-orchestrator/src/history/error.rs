//! What can go wrong when history is shared.

use ruma::{OwnedRoomId, OwnedUserId};

/// The history of a room cannot be shared. Nobody was given a key.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Error, HistoryError};
///
/// match device.share_history(room, ruma::user_id!("@new:example.org")).await {
///     Err(Error::History(HistoryError::NoDevices { user })) => println!("{user} has to set up an identity first"),
///     Err(Error::History(error)) => println!("nothing was given [{}]: {error}", error.code()),
///     shared => println!("{} room keys", shared?.room_keys),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// No identity vouches for this device, so that nobody would take a history from it.
    #[error("nobody takes a history from a device that no identity has signed: set up or recover the identity first")]
    NotCrossSigned,
    /// Who comes later may not read what was said before.
    #[error("the history of {room} is not for who comes later, as the room's settings say: nothing is shared")]
    NotForNewcomers {
        /// The room.
        room: OwnedRoomId,
    },
    /// Nobody has invited the user.
    #[error("{user} is neither in {room} nor invited to it: invite the user first")]
    NotInvited {
        /// The room.
        room: OwnedRoomId,
        /// The user.
        user: OwnedUserId,
    },
    /// The user has no device that may be given keys.
    #[error(
        "{user} has no device that is signed by an identity of its owner and that a session could be opened with: \
         nothing is shared with devices that anybody could have added"
    )]
    NoDevices {
        /// The user.
        user: OwnedUserId,
    },
    /// The bundle is larger than anybody takes.
    #[error("the room has so many keys that their bundle is larger than {max} bytes, and nobody would take it")]
    TooLarge {
        /// How large it may be, in bytes.
        max: u64,
    },
}

impl HistoryError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotCrossSigned => "history_not_cross_signed",
            Self::NotForNewcomers { .. } => "history_not_for_newcomers",
            Self::NotInvited { .. } => "history_not_invited",
            Self::NoDevices { .. } => "history_no_devices",
            Self::TooLarge { .. } => "history_too_large",
        }
    }
}

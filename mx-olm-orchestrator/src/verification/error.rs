//! Why a step of a verification was not taken.

use ruma::{OwnedDeviceId, OwnedUserId};

use super::VerificationId;

/// Why a step of a verification was not taken. Nothing was changed.
///
/// ```
/// use mx_olm_orchestrator::{Error, VerificationError};
///
/// // As what follows from it.
/// fn then(error: &Error) -> &'static str {
///     match error {
///         Error::Verification(VerificationError::NoIdentity { .. }) => "verify one device by its id",
///         Error::Verification(VerificationError::Busy { .. }) => "wait for the end of the other one",
///         _ => "give up",
///     }
/// }
/// let busy = VerificationError::Busy { user: ruma::owned_user_id!("@friend:example.org") };
/// assert_eq!(busy.code(), "verification_busy");
/// assert_eq!(then(&busy.into()), "wait for the end of the other one");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationError {
    /// There is none of this name under way.
    #[error("verification {id} is not under way, or has ended: begin a new one")]
    Unknown {
        /// Which one.
        id: VerificationId,
    },

    /// It is not time for this step.
    #[error("verification {id} cannot do this now: {why}")]
    NotNow {
        /// Which one.
        id: VerificationId,
        /// What to do instead.
        why: &'static str,
    },

    /// The user has no device of this name that could be verified.
    #[error("device {device} of {user} is not known, or cannot be verified: check its id, and that it is still there")]
    NoDevice {
        /// Whose.
        user: OwnedUserId,
        /// Which.
        device: OwnedDeviceId,
    },

    /// The user has no cross-signing identity, so that only single devices can be verified.
    #[error("{user} has no cross-signing identity: verify one of the devices by its id")]
    NoIdentity {
        /// Who.
        user: OwnedUserId,
    },

    /// There is one with this user, and a second one would end both.
    #[error("a verification with {user} is under way: end it first, or wait for its end")]
    Busy {
        /// With whom.
        user: OwnedUserId,
    },

    /// There is no room in which only the two of us are, nor one device alone.
    #[error("it is not clear where to ask {user}: name a room that you share, or a device")]
    NoWay {
        /// Who.
        user: OwnedUserId,
    },

    /// The keys are not the expected ones. The verification was cancelled.
    #[error(
        "verification {id} was cancelled: the keys of the other side are not among those that were given, so do not trust \
         them before their owner has told you why"
    )]
    Unexpected {
        /// Which one.
        id: VerificationId,
    },

    /// What was scanned is not the code of the other side.
    #[error("the code does not belong to verification {id}: {why}")]
    WrongQr {
        /// Which one.
        id: VerificationId,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl VerificationError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "verification_unknown",
            Self::NotNow { .. } => "verification_not_now",
            Self::NoDevice { .. } => "verification_no_device",
            Self::NoIdentity { .. } => "verification_no_identity",
            Self::Busy { .. } => "verification_busy",
            Self::NoWay { .. } => "verification_no_way",
            Self::Unexpected { .. } => "verification_unexpected_keys",
            Self::WrongQr { .. } => "verification_wrong_qr",
        }
    }
}

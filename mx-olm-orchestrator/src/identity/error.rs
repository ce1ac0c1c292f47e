//! What can go wrong with our own identity.

use mx_transport::InteractiveError;

/// Our own identity cannot be made, recovered or used.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Error, IdentityError};
///
/// match device.create_identity(&mx_transport::Unattended::new()).await {
///     Err(Error::Identity(IdentityError::Exists)) => println!("recover it with its recovery key; a reset costs its trust"),
///     Err(Error::Identity(IdentityError::Authentication(error))) => println!("who is there? {error}"),
///     made => made?,
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another device has made one.
    #[error(
        "the account already has a cross-signing identity that this device does not hold: recover it with its recovery \
         key, or reset it, after which everybody has to verify this account again"
    )]
    Exists,
    /// There is none.
    #[error("the account has no cross-signing identity: set one up")]
    Absent,
    /// The private keys are not those of the public ones that the homeserver shows.
    #[error(
        "the private keys that were given are not those of the identity that the homeserver shows, and were not taken: \
         the identity was reset after they were kept, or somebody shows a false one"
    )]
    Mismatch,
    /// Private keys that are needed are not here.
    #[error("this device does not hold the private {}: recover the identity", .missing.join(" and "))]
    Incomplete {
        /// Which.
        missing: Vec<&'static str>,
    },
    /// The homeserver took no signature.
    #[error("the homeserver did not take the signature of this device: try again, and ask its administrator")]
    NotSigned,
    /// No identity of another user is known.
    #[error("no cross-signing identity of {user} is known here: there is nothing to acknowledge")]
    Unknown {
        /// Whose.
        user: ruma::OwnedUserId,
    },
    /// Another user has another identity than the one that was named.
    #[error(
        "{user} has the master key {found}, which is not the one that was named: look at it again before you go on"
    )]
    OtherKey {
        /// Whose.
        user: ruma::OwnedUserId,
        /// The public master key that the user has.
        found: String,
    },
    /// A file of secrets is none.
    #[error("this is not a bundle of secrets of {user}: nothing was taken from it")]
    NoBundle {
        /// Whose it has to be.
        user: ruma::OwnedUserId,
    },
    /// The homeserver wants to know who asks, and was not told.
    #[error(transparent)]
    Authentication(InteractiveError),
}

impl IdentityError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exists => "identity_exists",
            Self::Absent => "no_identity",
            Self::Mismatch => "identity_mismatch",
            Self::Incomplete { .. } => "identity_incomplete",
            Self::NotSigned => "device_not_signed",
            Self::Unknown { .. } => "identity_unknown",
            Self::OtherKey { .. } => "identity_key_differs",
            Self::NoBundle { .. } => "no_secrets_bundle",
            Self::Authentication(error) => error.code(),
        }
    }
}

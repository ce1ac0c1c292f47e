//! What can go wrong with a dehydrated device.

/// A dehydrated device cannot be made or opened.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{DehydrationError, Error};
///
/// match device.rehydrate().await {
///     Ok(had) => println!("{} room keys", had.room_keys),
///     Err(Error::Dehydration(DehydrationError::Absent | DehydrationError::Unsupported)) => {}
///     Err(Error::Dehydration(error)) => println!("it cannot be opened [{}]: {error}", error.code()),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DehydrationError {
    /// The homeserver has none.
    #[error("the account has no dehydrated device: make one")]
    Absent,
    /// The homeserver knows no such thing.
    #[error("the homeserver does not support dehydrated devices (MSC3814): ask its administrator to turn them on")]
    Unsupported,
    /// Its key is not here.
    #[error(
        "the key of dehydrated devices is not here: recover the identity, or make a dehydrated device with the recovery key"
    )]
    KeyMissing,
    /// The private key that signs devices is not here.
    #[error(
        "a dehydrated device has to be signed by the account's identity, whose self-signing key is not here: recover it"
    )]
    NotSigned,
    /// It does not open with the key that the secret storage has.
    #[error(
        "the dehydrated device of the homeserver does not open, and nothing was taken of it: {reason}; make a new one"
    )]
    Rejected {
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl DehydrationError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "no_dehydrated_device",
            Self::Unsupported => "dehydration_unsupported",
            Self::KeyMissing => "dehydration_key_missing",
            Self::NotSigned => "dehydration_not_signed",
            Self::Rejected { .. } => "dehydrated_device_rejected",
        }
    }
}

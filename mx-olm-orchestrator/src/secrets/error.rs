//! What can go wrong with secret storage.

/// The secret storage cannot be used. Nothing was changed.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Error, SecretStorageError};
///
/// match device.open_secret_storage("what somebody typed").await {
///     Err(Error::SecretStorage(SecretStorageError::WrongKey)) => println!("try again"),
///     opened => println!("{}", opened?.key_id()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretStorageError {
    /// The account has none.
    #[error("the account has no secret storage: set the identity up, or recover from another device")]
    Absent,
    /// What was given does not open it.
    #[error("this is not the recovery key or passphrase of the account's secret storage: check what you typed")]
    WrongKey,
    /// What the homeserver gives is not to be used.
    #[error("the secret storage is refused: {reason}; set a new one up from a device that has the secrets")]
    Rejected {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Secrets that are needed are not in it.
    #[error("the secret storage does not hold {}: recover from another device, or set the identity up again", .names.join(", "))]
    Missing {
        /// Which.
        names: Vec<String>,
    },
}

impl SecretStorageError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "no_secret_storage",
            Self::WrongKey => "wrong_recovery_key",
            Self::Rejected { .. } => "secret_storage_rejected",
            Self::Missing { .. } => "secrets_missing",
        }
    }
}

//! What can go wrong with the key backup.

/// The key backup cannot be used.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{BackupError, Error};
///
/// match device.enable_backup(false).await {
///     Ok(version) => println!("version {version}"),
///     Err(Error::Backup(BackupError::KeyMissing { .. })) => println!("recover the identity first"),
///     Err(Error::Backup(BackupError::Untrusted { version })) => println!("who made version {version}?"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// There is none.
    #[error("the account has no key backup: enable one")]
    Absent,
    /// Its key is not ours, and nobody whom we trust signed it.
    #[error(
        "version {version} of the key backup is signed by nobody whom this device trusts, and its key is not ours: nothing \
         is put into it; it was made by somebody else, or before the identity was reset: make a new one, which replaces it"
    )]
    Untrusted {
        /// The version.
        version: String,
    },
    /// It is ours, or may be, since this device is not part of the account's identity; and its private key is not here.
    #[error(
        "this device does not hold the key of version {version} of the key backup: recover the identity, or reset it where its \
         recovery key is lost"
    )]
    KeyMissing {
        /// The version.
        version: String,
    },
    /// It is of an algorithm that no engine here knows.
    #[error(
        "the key backup is of the algorithm {algorithm:?}, which is not known here: make a new one, which replaces it"
    )]
    Unsupported {
        /// The algorithm, at most 64 characters of it.
        algorithm: String,
    },
    /// It was deleted or replaced while it was used. Uploads have stopped.
    #[error("version {version} of the key backup was deleted or replaced by another device: enable the backup again")]
    Changed {
        /// The version that was used.
        version: String,
    },
}

impl BackupError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "no_backup",
            Self::Untrusted { .. } => "backup_untrusted",
            Self::KeyMissing { .. } => "backup_key_missing",
            Self::Unsupported { .. } => "backup_unsupported",
            Self::Changed { .. } => "backup_changed",
        }
    }
}

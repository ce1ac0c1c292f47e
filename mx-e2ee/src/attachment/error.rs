//! What can go wrong with a file, as what the caller does next.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file could not be sent or received.
///
/// ```
/// use mx_e2ee::{AttachmentError, Error};
///
/// fn answer(error: &Error) -> &'static str {
///     match error {
///         Error::Attachment(AttachmentError::NotEncrypted) => "I take no file that came without encryption",
///         Error::Attachment(AttachmentError::TooLarge { .. }) => "that is too large for me",
///         _ => "that did not work",
///     }
/// }
/// assert_eq!(answer(&AttachmentError::NotEncrypted.into()), "I take no file that came without encryption");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachmentError {
    /// The file that is to be sent cannot be read.
    #[error("{} cannot be read: check its path and its permissions", named(path.as_deref()))]
    Unreadable {
        /// The file. `None`: it came from a reader.
        path: Option<PathBuf>,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },

    /// There is no place for the encrypted file, or for the one that is received.
    #[error("no file can be written beside {directory:?}: check the disk's space and the permissions")]
    Disk {
        /// Where.
        directory: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },

    /// The file is larger than allowed: by the homeserver for one that is sent, by the caller for one that is received.
    #[error("the file is larger than {max} bytes, which is the most that is taken")]
    TooLarge {
        /// The most that is taken, in bytes.
        max: u64,
    },

    /// What the homeserver gave is not what was sent: it was changed, cut, or exchanged. Nothing of it was kept.
    #[error("the file is not the one that was sent, and nothing of it was kept: ask the sender to send it again")]
    Corrupt,

    /// The file was sent without encryption, which anybody on the way could have read and exchanged. It is not fetched;
    /// who wants it nevertheless has [`Homeserver::download`](crate::transport::Homeserver::download).
    #[error("the file was sent without encryption, and is not fetched: anybody on the way could have exchanged it")]
    NotEncrypted,

    /// The event does not describe its encrypted file in the way of the specification.
    #[error("the event does not say how to read its file: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },

    /// The file is encrypted in another way than version 2.
    #[error("the file is encrypted in the way {version:?}, which is not known here: is there a newer version of this?")]
    UnsupportedVersion {
        /// What the event names, at most 64 characters of it.
        version: String,
    },

    /// There is a file of this name, which is never replaced.
    #[error("{path:?} exists and is not replaced: choose another name")]
    Exists {
        /// The file.
        path: PathBuf,
    },

    /// A file cannot be put there.
    #[error("{path:?} is not the name of a file")]
    NoName {
        /// What was given.
        path: PathBuf,
    },
}

fn named(path: Option<&Path>) -> String {
    path.map_or_else(|| "what is to be sent".to_owned(), |path| format!("{path:?}"))
}

impl AttachmentError {
    /// A stable name of this error, for programs.
    ///
    /// ```
    /// use mx_e2ee::AttachmentError;
    ///
    /// let error = AttachmentError::Exists { path: "/var/lib/mybot/report.pdf".into() };
    /// assert_eq!(error.code(), "file_exists");
    /// ```
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "file_unreadable",
            Self::Disk { .. } => "file_not_writable",
            Self::TooLarge { .. } => "too_large",
            Self::Corrupt => "attachment_corrupt",
            Self::NotEncrypted => "attachment_not_encrypted",
            Self::Malformed { .. } => "attachment_malformed",
            Self::UnsupportedVersion { .. } => "attachment_version",
            Self::Exists { .. } => "file_exists",
            Self::NoName { .. } => "file_name",
        }
    }
}

//! What can go wrong with a storage engine, as what a caller may do about it.

use std::{error::Error as StdError, fmt};

/// What a caller may do about a storage engine's error.
///
/// ```
/// use mx_crypto_store::backend::{BackendError, BackendErrorKind as Kind};
///
/// // What an engine of yours makes of an error of the operating system: what its caller may do about it.
/// fn told(error: &std::io::Error) -> BackendError {
///     BackendError::new(match error.kind() {
///         std::io::ErrorKind::StorageFull => Kind::NoSpace,
///         std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::ReadOnly,
///         _ => Kind::Io,
///     })
/// }
/// assert_eq!(told(&std::io::ErrorKind::StorageFull.into()).kind(), Kind::NoSpace);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// Somebody else has it open: wait, or stop the other one.
    InUse,
    /// An expectation did not hold; nothing was written.
    Conflict,
    /// What is on the disk is damaged, or not a store: restore it from a copy.
    Corrupt,
    /// The disk is full: make room.
    NoSpace,
    /// It may not be written: check permissions and mounts.
    ReadOnly,
    /// It was closed.
    Closed,
    /// A row, a value or a batch is larger than the engine can hold.
    TooLarge,
    /// The operating system failed.
    Io,
}

/// A storage engine failed.
///
/// ```
/// use mx_crypto_store::backend::{BackendError, BackendErrorKind};
///
/// // What an engine of yours says of an error of its disk.
/// fn of(error: std::io::Error) -> BackendError {
///     match error.kind() {
///         std::io::ErrorKind::StorageFull => BackendError::with_source(BackendErrorKind::NoSpace, error),
///         _ => BackendError::with_source(BackendErrorKind::Io, error),
///     }
/// }
/// assert_eq!(of(std::io::ErrorKind::StorageFull.into()).kind(), BackendErrorKind::NoSpace);
/// ```
pub struct BackendError {
    kind: BackendErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl BackendError {
    /// An error without a cause.
    #[must_use]
    pub const fn new(kind: BackendErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error with its cause. The cause must quote no row.
    #[must_use]
    pub fn with_source(kind: BackendErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What a caller may do about it.
    #[must_use]
    pub const fn kind(&self) -> BackendErrorKind {
        self.kind
    }

    /// The kind of an error of the file system.
    #[cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]
    pub(crate) fn from_io(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => BackendErrorKind::NoSpace,
            Io::ReadOnlyFilesystem | Io::PermissionDenied => BackendErrorKind::ReadOnly,
            Io::WouldBlock => BackendErrorKind::InUse,
            Io::InvalidData | Io::UnexpectedEof => BackendErrorKind::Corrupt,
            _ => BackendErrorKind::Io,
        };
        Self::with_source(kind, error)
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BackendErrorKind::InUse => "the store is in use by another process or another handle: stop it first",
            BackendErrorKind::Conflict => "the store was changed by somebody else",
            BackendErrorKind::Corrupt => "the store is damaged, or is not a store",
            BackendErrorKind::NoSpace => "no space is left for the store",
            BackendErrorKind::ReadOnly => "the store may not be written: check permissions and mounts",
            BackendErrorKind::Closed => "the store is closed",
            BackendErrorKind::TooLarge => "a record is larger than the storage engine can hold",
            BackendErrorKind::Io => "the store cannot be read or written",
        })
    }
}

impl fmt::Debug for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for BackendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

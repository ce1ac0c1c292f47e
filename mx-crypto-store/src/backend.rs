//! The contract of a storage engine: ordered, atomic, durable rows of bytes. No I/O here.

use std::{error::Error as StdError, fmt};

use async_trait::async_trait;

mod memory;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use self::memory::{Memory, MemoryDisk};
#[cfg(feature = "sled")]
pub use self::sled::Sled;
#[cfg(feature = "sqlite")]
pub use self::sqlite::Sqlite;

/// Ordered, atomic, durable rows of bytes. Rows hold secrets, sealed by the layer above: never log them.
///
/// # Contract (each clause is a function in `conformance`, run on every engine)
/// - `get_returns_what_was_put`: the latest committed value, byte for byte, of any length; absent is `Ok(None)`.
/// - `scan_is_ordered`: rows under `prefix`, ascending bytes, strictly after `after`, at most `limit`.
/// - `commit_is_atomic`: all of the batch or none, to every reader and after a crash.
/// - `commit_applies_in_order`: the last write to a row in a batch wins.
/// - `commit_checks_expectations`: if one expected row differs, nothing is written: `Conflict`.
/// - `commit_is_durable`: `Ok` means the bytes are on disk, not scheduled: they are there when the store is opened
///   again, however the process ended.
/// - `open_is_exclusive`: a second open is `InUse` until the first is closed or dropped.
/// - `closed_is_closed`: after `close`, every call is `Closed`.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The value of a row.
    ///
    /// # Errors
    /// Of the engine. A row that cannot be read is an error, never `None`.
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// Rows under `prefix` with their values, in ascending order, strictly after `after`, at most `limit`.
    ///
    /// # Errors
    /// Of the engine.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError>;

    /// Write all of a batch, durably, or nothing.
    ///
    /// # Errors
    /// `Conflict` when an expectation does not hold: nothing was written. Any other error: it is not known whether
    /// the batch was written, and the caller must not write again before the store was opened anew.
    ///
    /// # Cancel safety
    /// A call that was dropped may have been carried out.
    async fn commit(&self, batch: Batch) -> Result<(), BackendError>;

    /// The size on disk, in bytes, where the engine knows it.
    ///
    /// # Errors
    /// Of the engine.
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError>;

    /// Finish what is under way and release the lock. Later calls are `Closed`; closing again is `Ok`.
    ///
    /// # Errors
    /// Of the engine.
    async fn close(&self) -> Result<(), BackendError>;
}

/// Writes that happen together, under expectations.
#[derive(Clone, Default)]
pub struct Batch {
    /// What must hold for anything to be written.
    pub expect: Vec<Expectation>,
    /// What is written, in this order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Set a row.
    #[must_use]
    pub fn put(mut self, row: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write {
            row: row.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Remove a row.
    #[must_use]
    pub fn delete(mut self, row: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write {
            row: row.into(),
            value: None,
        });
        self
    }

    /// Write only if a row has this value; `None`: only if it is absent.
    #[must_use]
    pub fn expect(mut self, row: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        self.expect.push(Expectation { row: row.into(), value });
        self
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("expect", &self.expect.len())
            .field("writes", &self.writes.len())
            .finish()
    }
}

/// One write.
#[derive(Clone)]
pub struct Write {
    /// The row.
    pub row: Vec<u8>,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// What a row must be.
#[derive(Clone)]
pub struct Expectation {
    /// The row.
    pub row: Vec<u8>,
    /// Its value; `None`: it is absent.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expectation")
            .field("bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// What a caller may do about a storage engine's error.
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
    /// The operating system failed.
    Io,
}

/// A storage engine failed.
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
    #[cfg(any(feature = "sled", feature = "sqlite"))]
    pub(crate) fn from_io(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => BackendErrorKind::NoSpace,
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

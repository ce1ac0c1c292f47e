//! What can go wrong with a store, as the caller's next step.

use std::path::PathBuf;

use crate::backend::{BackendError, BackendErrorKind};

/// Shorthand of this crate.
///
/// ```no_run
/// use mx_crypto_store::{PickleStore, RecordId};
///
/// async fn count_up(store: &PickleStore, id: &RecordId) -> mx_crypto_store::Result<u64> {
///     let unit = store.begin().await?;
///     let count = unit.get::<u64>(id).await?.unwrap_or_default() + 1;
///     unit.put(id, &count)?;
///     unit.commit().await?;
///     Ok(count)
/// }
/// ```
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What can go wrong with a store. Every variant has a stable [`code`](Self::code).
///
/// ```no_run
/// # use std::sync::Arc;
/// # use mx_crypto_store::{KeySource, SealedStore, StoreError, backend::Backend};
/// # async fn example(engine: Arc<dyn Backend>, key: KeySource) -> Result<(), StoreError> {
/// match SealedStore::open_existing(engine, key).await {
///     Ok(store) => store.shutdown().await?,
///     Err(StoreError::Empty) => println!("there is nothing yet"),
///     Err(StoreError::InUse) => println!("stop the other process first"),
///     Err(error) => println!("{error} [{}]", error.code()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else has the store open.
    #[error("the store is in use by another process: stop it first, one store has one user at a time")]
    InUse,

    /// The key does not belong to the store.
    #[error("this key does not open the store: use the key file or the passphrase that it was made with")]
    WrongKey,

    /// The store is opened by another kind of key.
    #[error("the store is opened by {}: give it that", if *.passphrase { "a passphrase, and a key was given" } else { "a key, and a passphrase was given" })]
    WrongKeyKind {
        /// The store is opened by a passphrase.
        passphrase: bool,
    },

    /// The key file belongs to another store, and is not replaced.
    #[error("the key file {path:?} does not open this store: choose another place for the new key")]
    KeyOfAnotherStore {
        /// The file.
        path: PathBuf,
    },

    /// There is no store where one has to be.
    #[error("there is no store here: check the path, or restore the store from a copy")]
    Empty,

    /// There is a store where a new one is to be made.
    #[error("there is a store here already: choose an empty place")]
    NotEmpty,

    /// The file of an export cannot be read or made.
    #[error("the exported file {path:?} cannot be read or made")]
    ExportFile {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },

    /// The key file exists, and its store does not. No new store is begun beside it.
    #[error(
        "the key file {key:?} exists and its store is gone: restore the store from a copy, or move the key away to start with a new device"
    )]
    StoreMissing {
        /// The key file.
        key: PathBuf,
    },

    /// The store exists, and its key file does not. No new key is made, since it could not open the store.
    #[error(
        "the store exists and its key file {path:?} does not: put the key back, or start with a new device and an empty store"
    )]
    KeyMissing {
        /// Where the key is looked for.
        path: PathBuf,
    },

    /// The key file is not 32 bytes long.
    #[error("the key file {path:?} has {len} bytes and must have 32: restore it from a copy")]
    KeyMalformed {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        len: u64,
    },

    /// Others may read the key file.
    #[error("others may read the key file {path:?} (mode {mode:o}): run chmod 600 on it, and consider the key as seen")]
    KeyPermissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },

    /// Others may write the directory of the key file, and put another key in its place.
    #[error("others may write the directory {path:?} of the key file (mode {mode:o}), or own it: run chmod go-w on it")]
    KeyDirectory {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },

    /// The key file cannot be read or made.
    #[error("the key file {path:?} cannot be read or made")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },

    /// A record is damaged, was moved, or was exchanged.
    #[error("the store is damaged ({what}): restore it from a copy, or start with a new device and an empty store")]
    Corrupt {
        /// What is damaged.
        what: &'static str,
    },

    /// A record is missing that was there, or is an older one than it was.
    #[error(
        "a part of the store was removed or set back to an older state ({what}): restore all of it from a copy, or start with a new device and an empty store"
    )]
    RolledBack {
        /// What is missing or older.
        what: &'static str,
    },

    /// A newer version of this software wrote the store.
    #[error("the store has schema {found} and this version knows {known} at most: use the newer version")]
    SchemaTooNew {
        /// The store's schema.
        found: u32,
        /// The newest that is known.
        known: u32,
    },

    /// The store holds another account than the one to be saved.
    #[error("the store belongs to {found}, not to {given}: every device needs a store of its own")]
    AnotherAccount {
        /// Whose store it is.
        found: String,
        /// Whose account was to be saved.
        given: String,
    },

    /// A write failed before, so that it is not known what is on the disk.
    #[error("an earlier write failed, so nothing more is written: close the store and open it again")]
    Poisoned,

    /// Something failed in the unit of work before, so that it may not be committed.
    #[error("something failed inside of this unit of work, so it cannot be committed: it is undone")]
    UnitFailed,

    /// The storage engine failed.
    #[error(transparent)]
    Backend(BackendError),

    /// A record cannot be written in the store's format. A bug of ours.
    #[error("a record cannot be encoded: {what}")]
    Encode {
        /// Which kind of record.
        what: &'static str,
    },
}

impl StoreError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse => "store_in_use",
            Self::WrongKey => "store_wrong_key",
            Self::WrongKeyKind { .. } => "store_wrong_key_kind",
            Self::KeyOfAnotherStore { .. } => "store_key_of_another",
            Self::Empty => "store_empty",
            Self::NotEmpty => "store_not_empty",
            Self::ExportFile { .. } => "store_export_file",
            Self::StoreMissing { .. } => "store_missing",
            Self::RolledBack { .. } => "store_rolled_back",
            Self::KeyMissing { .. } => "store_key_missing",
            Self::KeyMalformed { .. } => "store_key_malformed",
            Self::KeyPermissions { .. } => "store_key_permissions",
            Self::KeyDirectory { .. } => "store_key_directory",
            Self::KeyFile { .. } => "store_key_file",
            Self::Corrupt { .. } => "store_corrupt",
            Self::SchemaTooNew { .. } => "store_schema_too_new",
            Self::AnotherAccount { .. } => "store_of_another_device",
            Self::Poisoned => "store_poisoned",
            Self::UnitFailed => "store_unit_failed",
            Self::Backend(error) => match error.kind() {
                BackendErrorKind::NoSpace => "store_no_space",
                BackendErrorKind::ReadOnly => "store_read_only",
                BackendErrorKind::Closed => "store_closed",
                BackendErrorKind::Conflict => "store_conflict",
                BackendErrorKind::TooLarge => "store_too_large",
                _ => "store_io",
            },
            Self::Encode { .. } => "store_encode",
        }
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match error.kind() {
            BackendErrorKind::InUse => Self::InUse,
            BackendErrorKind::Corrupt => Self::Corrupt { what: "its files" },
            _ => Self::Backend(error),
        }
    }
}

#[cfg(feature = "engine")]
impl From<StoreError> for matrix_sdk_crypto::CryptoStoreError {
    fn from(error: StoreError) -> Self {
        Self::backend(error)
    }
}

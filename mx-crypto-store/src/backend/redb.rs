//! Rows in redb: an engine in Rust alone, for builds without a C compiler.
//!
//! # Why no quick repair
//! redb's quick repair opens at once after a crash (0.6 ms instead of 52 ms in our measurement), and pays for it at
//! every commit: two syncs instead of one, 517 µs instead of 361 µs. Crashes are rare and commits are not, and the
//! repair that is left reads a store of some megabytes once. It is also the one that looks at every checksum.
//!
//! # Why one phase
//! redb can commit in two phases against an attacker who chooses the bytes that are written so that a torn commit has a
//! valid checksum. Rows here are sealed under a key that such an attacker does not have.
//!
//! A commit is one `fdatasync`. After an error redb refuses everything, reads as well, until it is opened again.

use std::{
    fmt, fs,
    ops::Bound,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    Backend, BackendError, BackendErrorKind as Kind, Batch, Promises,
    home::{Home, length},
    worker::Worker,
};

const FILE: &str = "store.redb";
/// A database gets its name when it is one: what a crash left half made is never opened.
const UNFINISHED: &str = "store.redb.new";
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// redb's default is a GiB. Stores are some megabytes.
const CACHE_BYTES: usize = 16 << 20;

/// Rows in a redb database in a directory.
///
/// ```no_run
/// # async fn example() -> Result<(), mx_crypto_store::backend::BackendError> {
/// use mx_crypto_store::backend::{Backend, Batch, Redb};
///
/// let engine = Redb::open("/var/lib/mybot/store").await?;
/// engine.commit(Batch::new().put("a", "1")).await?; // on the disk now
/// assert_eq!(engine.get(b"a").await?.as_deref(), Some(&b"1"[..]));
/// engine.close().await?;
/// # Ok(()) }
/// ```
pub struct Redb {
    worker: Worker<Open>,
    path: PathBuf,
}

/// Dropped in this order: the lock is the last to go.
struct Open {
    database: Database,
    _home: Option<Home>,
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Redb {
    /// Open the database in the directory `path`, creating both (modes 0700 and 0600) where they are missing.
    ///
    /// # Errors
    /// `InUse` while another process or handle has it open; `Corrupt`, `ReadOnly`, `NoSpace`, `Io`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref().to_owned();
        let directory = path.clone();
        let worker = Worker::open(move || {
            let mut home = Home::open(&directory)?;
            home.refuse_if_lost(FILE)?;
            if length(&home.file(FILE))?.is_none() {
                create(&home)?;
            }
            let database = builder().open(home.file(FILE)).map_err(failed)?;
            check(&database)?;
            home.mark()?;
            Ok(Open {
                database,
                _home: Some(home),
            })
        })
        .await?;
        Ok(Self { worker, path })
    }

    /// Open the database in a storage of a test's own, which is not locked.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub async fn open_with_storage(storage: impl redb::StorageBackend) -> Result<Self, BackendError> {
        let worker = Worker::open(move || {
            let database = builder().create_with_backend(storage).map_err(failed)?;
            begin(&database)?;
            Ok(Open { database, _home: None })
        })
        .await?;
        let path = PathBuf::new();
        Ok(Self { worker, path })
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn create(home: &Home) -> Result<(), BackendError> {
    match fs::remove_file(home.file(UNFINISHED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(BackendError::from_io(error)),
        _ => drop(home.create_file(UNFINISHED)?),
    }
    let database = builder().create(home.file(UNFINISHED)).map_err(failed)?;
    begin(&database)?;
    database.close().map_err(failed)?;
    home.rename(UNFINISHED, FILE)
}

/// Make the table, unless it is there.
fn begin(database: &Database) -> Result<(), BackendError> {
    if check(database).is_ok() {
        return Ok(());
    }
    let transaction = database.begin_write().map_err(failed)?;
    transaction.open_table(ROWS).map(drop).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// A database without our table is somebody else's.
fn check(database: &Database) -> Result<(), BackendError> {
    let transaction = database.begin_read().map_err(failed)?;
    transaction.open_table(ROWS).map(drop).map_err(failed)
}

fn failed(error: impl Into<redb::Error>) -> BackendError {
    use redb::Error as Failure;
    let kind = match error.into() {
        Failure::Io(error) => return BackendError::from_io(error),
        Failure::DatabaseAlreadyOpen => Kind::InUse,
        Failure::ValueTooLarge(_) => Kind::TooLarge,
        Failure::DatabaseClosed => Kind::Closed,
        // Of these a text would name the place of the damage, or a table.
        Failure::Corrupted(_)
        | Failure::LockPoisoned(_)
        | Failure::UpgradeRequired(_)
        | Failure::TableTypeMismatch { .. }
        | Failure::TableIsMultimap(_)
        | Failure::TableDoesNotExist(_)
        | Failure::TypeDefinitionChanged { .. } => Kind::Corrupt,
        other => return BackendError::with_source(Kind::Io, other),
    };
    BackendError::new(kind)
}

#[async_trait]
impl Backend for Redb {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: true,
            survives_power_cut: true,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let row = row.to_vec();
        self.worker
            .read(move |open| {
                let transaction = open.database.begin_read().map_err(failed)?;
                let rows = transaction.open_table(ROWS).map_err(failed)?;
                let value = rows.get(row.as_slice()).map_err(failed)?;
                Ok(value.map(|value| value.value().to_vec()))
            })
            .await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        let prefix = prefix.to_vec();
        let after = after.filter(|after| *after >= prefix.as_slice()).map(<[u8]>::to_vec);
        self.worker
            .read(move |open| {
                let transaction = open.database.begin_read().map_err(failed)?;
                let rows = transaction.open_table(ROWS).map_err(failed)?;
                let start = after
                    .as_deref()
                    .map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
                let mut found = Vec::new();
                let range = rows.range::<&[u8]>((start, Bound::Unbounded)).map_err(failed)?;
                for entry in range.take(limit) {
                    let (row, value) = entry.map_err(failed)?;
                    if !row.value().starts_with(&prefix) {
                        break;
                    }
                    found.push((row.value().to_vec(), value.value().to_vec()));
                }
                Ok(found)
            })
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.worker
            .with(move |open| {
                let mut transaction = open.database.begin_write().map_err(failed)?;
                transaction
                    .set_durability(Durability::Immediate)
                    .map_err(|error| BackendError::with_source(Kind::Io, error))?;
                let mut rows = transaction.open_table(ROWS).map_err(failed)?;
                for expected in &batch.expect {
                    let found = rows.get(expected.row.as_slice()).map_err(failed)?;
                    if found.as_ref().map(redb::AccessGuard::value) != expected.value.as_deref() {
                        return Err(BackendError::new(Kind::Conflict));
                    }
                }
                for write in &batch.writes {
                    match &write.value {
                        Some(value) => rows.insert(write.row.as_slice(), value.as_slice()),
                        None => rows.remove(write.row.as_slice()),
                    }
                    .map_err(failed)?;
                }
                drop(rows);
                if batch.writes.is_empty() {
                    return transaction.abort().map_err(failed);
                }
                transaction.commit().map_err(failed)
            })
            .await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.worker
            .with(|open| open.database.compact().map(drop).map_err(failed))
            .await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        let file = self.path.join(FILE);
        self.worker.with(move |_| length(&file)).await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.worker
            .close(|Open { database, _home }| database.close().map_err(failed))
            .await
    }
}

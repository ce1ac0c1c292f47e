//! Rows in SQLite: the default. WAL, `synchronous=FULL`, locked exclusively for as long as it is open.
//!
//! # Why SQLite
//! Among engines that keep every acknowledged commit through a power cut it has the fastest honest commit, and a format
//! that every operator's tools open. One table is all that is used of it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::{Backend, BackendError, BackendErrorKind as Kind, Batch};

const FILE: &str = "store.sqlite3";

/// Rows in a SQLite database in a directory.
pub struct Sqlite {
    connection: Arc<Mutex<Option<Connection>>>,
    path: PathBuf,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Open the database in the directory `path`, creating both (modes 0700 and 0600) where they are missing.
    ///
    /// # Errors
    /// `InUse` while another process or handle has it open; `Corrupt`, `ReadOnly`, `NoSpace`, `Io`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let directory = path.as_ref().to_owned();
        let file = directory.join(FILE);
        let opened = file.clone();
        let connection = blocking(move || {
            create(&directory, &opened)?;
            connect(&opened).map_err(failed)
        })
        .await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(connection))),
            path: file,
        })
    }

    async fn with<T, F>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, BackendError> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(connection.as_mut().ok_or_else(|| BackendError::new(Kind::Closed))?)
        })
        .await
    }
}

/// SQLite works on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BackendError::with_source(Kind::Io, error))?
}

fn create(directory: &Path, file: &Path) -> Result<(), BackendError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        builder.mode(0o700);
        options.mode(0o600);
    }
    builder.create(directory).map_err(BackendError::from_io)?;
    options.open(file).map(drop).map_err(BackendError::from_io)
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // Before the first access: then WAL needs no shared memory, and the lock is kept until the connection ends.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.execute_batch(
        "BEGIN EXCLUSIVE;
         CREATE TABLE IF NOT EXISTS rows (row BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         COMMIT;",
    )?;
    Ok(connection)
}

fn failed(error: rusqlite::Error) -> BackendError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::InUse,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Corrupt,
        Some(ErrorCode::DiskFull) => Kind::NoSpace,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Kind::ReadOnly,
        _ => Kind::Io,
    };
    BackendError::with_source(kind, error)
}

fn value(connection: &Connection, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
    let mut statement = connection
        .prepare_cached("SELECT value FROM rows WHERE row = ?1")
        .map_err(failed)?;
    statement.query_row([row], |row| row.get(0)).optional().map_err(failed)
}

#[async_trait]
impl Backend for Sqlite {
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let row = row.to_vec();
        self.with(move |connection| value(connection, &row)).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        let prefix = prefix.to_vec();
        let after = after.filter(|after| *after >= prefix.as_slice()).map(<[u8]>::to_vec);
        self.with(move |connection| {
            let compare = if after.is_some() { ">" } else { ">=" };
            let sql = format!("SELECT row, value FROM rows WHERE row {compare} ?1 ORDER BY row LIMIT ?2");
            let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
            let start = after.as_ref().unwrap_or(&prefix);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut found = Vec::new();
            let mut rows = statement.query(params![start, limit]).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                let name: Vec<u8> = row.get(0).map_err(failed)?;
                if !name.starts_with(&prefix) {
                    break;
                }
                found.push((name, row.get(1).map_err(failed)?));
            }
            Ok(found)
        })
        .await
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.with(move |connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(failed)?;
            for expected in &batch.expect {
                if value(&transaction, &expected.row)? != expected.value {
                    return Err(BackendError::new(Kind::Conflict));
                }
            }
            for write in &batch.writes {
                match &write.value {
                    Some(value) => transaction
                        .prepare_cached(
                            "INSERT INTO rows (row, value) VALUES (?1, ?2) ON CONFLICT (row) DO UPDATE SET value = ?2",
                        )
                        .and_then(|mut statement| statement.execute(params![write.row, value])),
                    None => transaction
                        .prepare_cached("DELETE FROM rows WHERE row = ?1")
                        .and_then(|mut statement| statement.execute([&write.row])),
                }
                .map_err(failed)?;
            }
            transaction.commit().map_err(failed)
        })
        .await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.with(|connection| {
            let bytes: i64 = connection
                .query_row(
                    "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
                    [],
                    |row| row.get(0),
                )
                .map_err(failed)?;
            Ok(u64::try_from(bytes).ok())
        })
        .await
    }

    async fn close(&self) -> Result<(), BackendError> {
        let connection = Arc::clone(&self.connection);
        blocking(move || {
            let Some(connection) = connection.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(());
            };
            connection.close().map_err(|(_, error)| failed(error))
        })
        .await
    }
}

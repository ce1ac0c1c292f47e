//! Rows in SQLite: the default. WAL, `synchronous=FULL`, locked exclusively for as long as it is open.
//!
//! # Why SQLite
//! Among engines that keep every acknowledged commit through a power cut it has the fastest honest commit, and a format
//! that every operator's tools open. One table is all that is used of it.
//!
//! # What a commit costs
//! One sync, of the WAL. When the WAL has 1,000 pages (4 MB) the commit that brought it there also copies them into the
//! database, which is two more, and the commit after that begins the WAL anew, which is one more: three syncs in some
//! hundreds of commits. A longer WAL would make them rarer, and opening after a crash slower.
//!
//! # Why a table with row ids
//! Names of rows are hashes: in a table without row ids each new record lands in a page of its own, and one of more than
//! a quarter of a page takes further pages. With row ids the records are written one behind the other, and only their
//! names are spread: 1,000 new room keys were written in a third of the time.
//!
//! # Why no memory map
//! A read error under a map is a signal that ends the process, where a read that fails is an error. The page cache is
//! 16 MiB instead, is filled on demand, and is kept between reads, because nobody else can have written.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, ffi, params};

use super::{
    Backend, BackendError, BackendErrorKind as Kind, Batch, Promises,
    home::{Home, length, lost},
    worker::Worker,
};

const FILE: &str = "store.sqlite3";
const WAL: &str = "store.sqlite3-wal";

const GET: &str = "SELECT value FROM rows WHERE row = ?1";
const SCAN_FROM: &str = "SELECT row, value FROM rows WHERE row >= ?1 ORDER BY row LIMIT ?2";
const SCAN_AFTER: &str = "SELECT row, value FROM rows WHERE row > ?1 ORDER BY row LIMIT ?2";
const PUT: &str = "INSERT INTO rows (row, value) VALUES (?1, ?2) ON CONFLICT (row) DO UPDATE SET value = ?2";
const DELETE: &str = "DELETE FROM rows WHERE row = ?1";
/// All of the above, and SQLite's own `BEGIN` and `COMMIT` are not cached.
const STATEMENTS: usize = 8;

/// Rows in a SQLite database in a directory.
///
/// ```no_run
/// # async fn example() -> Result<(), mx_crypto_store::backend::BackendError> {
/// use mx_crypto_store::backend::{Backend, Batch, Sqlite};
///
/// let engine = Sqlite::open("/var/lib/mybot/store").await?;
/// engine.commit(Batch::new().put("a", "1")).await?; // on the disk now
/// assert_eq!(engine.get(b"a").await?.as_deref(), Some(&b"1"[..]));
/// engine.close().await?;
/// # Ok(()) }
/// ```
pub struct Sqlite {
    worker: Worker<Open>,
    path: PathBuf,
}

/// Dropped in this order: the lock is the last to go.
struct Open {
    connection: Connection,
    _home: Option<Home>,
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
        let path = path.as_ref().to_owned();
        let directory = path.clone();
        let worker = Worker::open(move || {
            let mut home = Home::open(&directory)?;
            home.refuse_if_lost(FILE)?;
            let file = home.file(FILE);
            // SQLite would remove the WAL of an empty database, with the commits in it.
            if length(&file)?.unwrap_or(0) == 0 && length(&home.file(WAL))?.unwrap_or(0) > 0 {
                return Err(lost());
            }
            // SQLite gives its mode to the WAL.
            drop(home.create_file(FILE)?);
            let connection = open(&|| connect(&file, OpenFlags::empty(), None), home.is_made())?;
            home.mark()?;
            Ok(Open {
                connection,
                _home: Some(home),
            })
        })
        .await?;
        Ok(Self { worker, path })
    }

    /// Open the database `store.sqlite3` in a virtual file system that a test has registered under this name.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "testing")]
    pub async fn open_with_vfs(vfs: &str) -> Result<Self, BackendError> {
        let vfs = vfs.to_owned();
        let worker = Worker::open(move || {
            let connect = || connect(Path::new(FILE), OpenFlags::SQLITE_OPEN_CREATE, Some(&vfs));
            let connection = open(&connect, false)?;
            Ok(Open {
                connection,
                _home: None,
            })
        })
        .await?;
        let path = PathBuf::new();
        Ok(Self { worker, path })
    }
}

fn connect(file: &Path, create: OpenFlags, vfs: Option<&str>) -> Result<Connection, BackendError> {
    // One caller at a time: SQLite needs no mutex of its own. A path is a path and no URI.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs),
        None => Connection::open_with_flags(file, flags),
    };
    let connection = connection.map_err(failed)?;
    configure(&connection).map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(Duration::ZERO)?;
    // Before the first access: then the WAL needs no shared memory, and the lock is kept until the connection ends.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| {
        let mode: String = row.get(0)?;
        if mode.eq_ignore_ascii_case("wal") {
            Ok(())
        } else {
            Err(rusqlite::Error::InvalidQuery)
        }
    })?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Apple's fsync is none without these; nobody else knows them.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    // What one huge batch made of the WAL is given back at the next chance.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    connection.pragma_update(None, "cache_size", -(16 << 10))?;
    // Nothing of a store is written beside it.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A damaged page is noticed before it is used.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// Open a database. One that was made is opened a second time, before there is anything to lose: SQLite says nothing
/// where it cannot remove the journal of its first page, and the next open would take back everything since.
fn open(connect: &dyn Fn() -> Result<Connection, BackendError>, made: bool) -> Result<Connection, BackendError> {
    let mut connection = connect()?;
    if begin(&mut connection, made)? {
        connection.close().map_err(|(_, error)| failed(error))?;
        connection = connect()?;
        begin(&mut connection, true).map_err(|error| BackendError::with_source(Kind::Io, error))?;
    }
    Ok(connection)
}

/// Take the lock, and make the table in a database that is empty and always was: `true`.
fn begin(connection: &mut Connection, made: bool) -> Result<bool, BackendError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Exclusive)
        .map_err(failed)?;
    let (ours, all): (u32, u32) = transaction
        .query_row(
            "SELECT count(*) FILTER (WHERE type = 'table' AND name = 'rows'), count(*) FROM sqlite_schema",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed)?;
    if ours == 0 {
        if made || all > 0 {
            let what = "the database has no table of ours";
            return Err(BackendError::with_source(Kind::Corrupt, what));
        }
        transaction
            .execute_batch("CREATE TABLE rows (row BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)")
            .map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(ours == 0)
}

fn failed(error: rusqlite::Error) -> BackendError {
    let kind = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Kind::InUse,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Kind::Corrupt,
            ErrorCode::SystemIoFailure if failure.extended_code == ffi::SQLITE_IOERR_CORRUPTFS => Kind::Corrupt,
            ErrorCode::DiskFull => Kind::NoSpace,
            ErrorCode::TooBig => Kind::TooLarge,
            // The database itself was opened before: what cannot be opened is a WAL, in a directory that is read-only.
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => Kind::ReadOnly,
            _ => Kind::Io,
        },
        // A row is bytes, or somebody else has written it.
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..) => Kind::Corrupt,
        _ => Kind::Io,
    };
    BackendError::with_source(kind, error)
}

fn value(connection: &Connection, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
    let mut statement = connection.prepare_cached(GET).map_err(failed)?;
    statement.query_row([row], |row| row.get(0)).optional().map_err(failed)
}

fn write(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), BackendError> {
    for expected in &batch.expect {
        if value(transaction, &expected.row)? != expected.value {
            return Err(BackendError::new(Kind::Conflict));
        }
    }
    let mut put = transaction.prepare_cached(PUT).map_err(failed)?;
    let mut delete = transaction.prepare_cached(DELETE).map_err(failed)?;
    for write in &batch.writes {
        match &write.value {
            Some(value) => put.execute(params![write.row, value]),
            None => delete.execute([&write.row]),
        }
        .map_err(failed)?;
    }
    Ok(())
}

#[async_trait]
impl Backend for Sqlite {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: true,
            survives_power_cut: true,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let row = row.to_vec();
        self.worker.read(move |open| value(&open.connection, &row)).await
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
                let sql = if after.is_some() { SCAN_AFTER } else { SCAN_FROM };
                let mut statement = open.connection.prepare_cached(sql).map_err(failed)?;
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
        self.worker
            .with(move |open| {
                let transaction = open
                    .connection
                    .transaction_with_behavior(TransactionBehavior::Immediate)
                    .map_err(failed)?;
                write(&transaction, &batch)?;
                transaction.commit().map_err(failed)
            })
            .await
    }

    /// `VACUUM`, and the WAL cut to nothing.
    async fn compact(&self) -> Result<(), BackendError> {
        self.worker
            .with(|open| {
                open.connection.execute_batch("VACUUM").map_err(failed)?;
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                open.connection.query_row(checkpoint, [], |_| Ok(())).map_err(failed)
            })
            .await
    }

    /// The database and its WAL.
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        let files = [self.path.join(FILE), self.path.join(WAL)];
        self.worker
            .with(move |_| {
                let [database, wal] = files;
                Ok(length(&database)?.map(|bytes| bytes + length(&wal).ok().flatten().unwrap_or(0)))
            })
            .await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.worker
            .close(|Open { connection, _home }| connection.close().map_err(|(_, error)| failed(error)))
            .await
    }
}

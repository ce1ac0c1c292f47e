//! SQLite files of others: a copy is opened, so that they stay as they are.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};
use tempfile::TempDir;

use super::{ImportError, file};
use crate::Result;

/// A database, with what is beside it, is no larger: some millions of room keys.
const MOST_BYTES: u64 = 4 << 30;
/// What is read of it for one purpose is no larger, since it is held in memory.
const MOST_READ_BYTES: usize = 256 << 20;
/// And has no more rows.
const MOST_ROWS: usize = 1_000_000;

/// A copy of somebody's database, gone with this.
pub(super) struct Copied {
    path: PathBuf,
    connection: Connection,
    /// For its owner only, and removed.
    _directory: TempDir,
}

impl Copied {
    /// Copy the file, with what is not in it yet.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let unreadable = |source| ImportError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // What is not in the file yet is beside the file itself, and not beside a link to it.
        let real = fs::canonicalize(path).map_err(unreadable)?;
        let directory = private_directory().map_err(unreadable)?;
        let copy = directory.path().join("copy");
        let before = state(&real).map_err(unreadable)?;
        let mut left = MOST_BYTES;
        for part in PARTS {
            match copy_privately(&with(&real, part), &with(&copy, part), left) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !part.is_empty() => {}
                copied => {
                    let copied = copied.map_err(unreadable)?;
                    left = left.checked_sub(copied).ok_or_else(|| file::too_large(path))?;
                }
            }
        }
        if state(&real).map_err(unreadable)? != before {
            return Err(ImportError::Foreign {
                path: path.to_owned(),
                what: "it changes: the client that it is of must be stopped first".to_owned(),
            }
            .into());
        }
        let connection =
            Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|_| no_database(path))?;
        let copied = Self {
            path: path.to_owned(),
            connection,
            _directory: directory,
        };
        copied.computes_nothing()?;
        let check = copied.rows("PRAGMA integrity_check", |row| row.get::<_, String>(0).map(Some))?;
        if check != ["ok"] {
            return Err(copied.foreign("the database is damaged").into());
        }
        Ok(copied)
    }

    /// What is read stands in the file: a view, a virtual table, or a column, index or check that is an expression could make
    /// any amount of it, and work without end.
    fn computes_nothing(&self) -> Result<()> {
        self.connection
            .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA ignore_check_constraints = ON")
            .map_err(|_| no_database(&self.path))?;
        for query in COMPUTED {
            if !self.rows(query, |row| row.get::<_, i64>(0).map(Some))?.is_empty() {
                return Err(self.foreign("it computes what it holds").into());
            }
        }
        Ok(())
    }

    /// Every row of a query, or nothing.
    pub(super) fn rows<T>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let rows = || -> rusqlite::Result<Option<Vec<Option<T>>>> {
            let mut statement = self.connection.prepare(query)?;
            let columns = statement.column_count();
            let mut found = statement.query([])?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some(row) = found.next()? {
                for column in 0..columns {
                    bytes += length(row.get_ref(column)?);
                }
                if rows.len() == MOST_ROWS || bytes > MOST_READ_BYTES {
                    return Ok(None);
                }
                rows.push(read(row)?);
            }
            Ok(Some(rows))
        };
        // What SQLite says could quote a row.
        let rows = rows().map_err(|_| no_database(&self.path))?;
        let rows = rows.ok_or_else(|| file::too_large(&self.path))?;
        let rows: Option<Vec<T>> = rows.into_iter().collect();
        Ok(rows.ok_or_else(|| self.foreign("a row cannot be read"))?)
    }

    pub(super) fn foreign(&self, what: &str) -> ImportError {
        ImportError::Foreign {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }
}

/// The file, and what SQLite keeps beside it: what is not in the file yet, and what is to be taken back out of it.
const PARTS: [&str; 3] = ["", "-wal", "-journal"];

/// One row or more for each way to hold what stands nowhere.
const COMPUTED: [&str; 3] = [
    "SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index') OR (type = 'table' AND rootpage = 0)",
    "SELECT 1 FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c WHERE t.type = 'table' AND c.hidden <> 0",
    "SELECT 1 FROM sqlite_master AS i, pragma_index_xinfo(i.name) AS c
        WHERE i.type = 'index' AND (c.cid = -2 OR i.sql LIKE '%WHERE%')",
];

/// How large each part is, and when it was written.
fn state(path: &Path) -> io::Result<Vec<Option<(u64, SystemTime)>>> {
    let parts = PARTS.iter().map(|part| match fs::metadata(with(path, part)) {
        Ok(metadata) => Ok(Some((metadata.len(), metadata.modified()?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    });
    parts.collect()
}

/// A directory of the system's temporary ones, for its owner only.
fn private_directory() -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("mx-import");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir()
}

/// As it is, for its owner only: the copy is not as open as what it is of. Says how many bytes it has, which are no more than
/// one above `most`.
fn copy_privately(from: &Path, to: &Path, most: u64) -> io::Result<u64> {
    let from = file::open(from)?;
    if from.metadata()?.len() > most {
        return Ok(most + 1);
    }
    let mut from = from.take(most + 1);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::copy(&mut from, &mut options.open(to)?)
}

fn no_database(path: &Path) -> ImportError {
    ImportError::Foreign {
        path: path.to_owned(),
        what: "it is not a database of that client".to_owned(),
    }
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

const fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.len(),
        _ => 8,
    }
}

/// The bytes of a column, whether it holds them as text or not.
pub(super) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => bytes.to_vec(),
        other => {
            return Err(rusqlite::Error::InvalidColumnType(
                column,
                String::new(),
                other.data_type(),
            ));
        }
    })
}

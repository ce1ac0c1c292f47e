//! SQLite files of others: a copy is opened, so that they stay as they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};
use tempfile::TempDir;

use super::ImportError;
use crate::Result;

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
        for part in PARTS {
            match copy_privately(&with(&real, part), &with(&copy, part)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !part.is_empty() => {}
                copied => copied.map_err(unreadable)?,
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
        let check = copied.rows("PRAGMA integrity_check", |row| row.get::<_, String>(0).map(Some))?;
        if check != ["ok"] {
            return Err(copied.foreign("the database is damaged").into());
        }
        Ok(copied)
    }

    /// Every row of a query, or nothing.
    pub(super) fn rows<T>(
        &self,
        query: &str,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let rows = || -> rusqlite::Result<Vec<Option<T>>> {
            let mut statement = self.connection.prepare(query)?;
            statement.query_map([], |row| read(row))?.collect()
        };
        // What SQLite says could quote a row.
        let rows: Option<Vec<T>> = rows().map_err(|_| no_database(&self.path))?.into_iter().collect();
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

/// As it is, for its owner only: the copy is not as open as what it is of.
fn copy_privately(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = fs::File::open(from)?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::copy(&mut from, &mut options.open(to)?).map(drop)
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

//! A storage engine in one file: all rows in memory, and a new file in place of the old one at each commit.
//!
//! Simple, durable, and as slow as the store is large. `own_engine` of `mx-crypto-store` is one that appends.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use mx_e2ee::store::backend::{Backend, BackendError, BackendErrorKind as Kind, Batch, Promises};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// All rows, and the file that they are in.
#[derive(Debug)]
pub(crate) struct Snapshot(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    rows: Rows,
    directory: PathBuf,
    /// A write failed: which of the two files the disk has is not known, so that nothing more is written.
    failed: bool,
    lock: File,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Closing it is not enough: a child that is being started has a copy until it becomes another program.
        let _closed_anyway = self.lock.unlock();
    }
}

impl Snapshot {
    pub(crate) fn open(directory: &Path) -> Result<Self, BackendError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = private(&directory.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BackendError::new(Kind::InUse),
            TryLockError::Error(error) => failed(error),
        })?;
        let rows = match fs::read(directory.join("rows")) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| BackendError::new(Kind::Corrupt))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Rows::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self(Mutex::new(Some(Open {
            rows,
            directory: directory.to_owned(),
            failed: false,
            lock,
        }))))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Open) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(open.as_mut().ok_or_else(|| BackendError::new(Kind::Closed))?)
    }
}

#[async_trait]
impl Backend for Snapshot {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: true,
            survives_power_cut: true,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.with(|open| Ok(open.rows.get(row).cloned()))
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.with(|open| {
            let rows = open.rows.range(prefix.to_vec()..);
            let rows = rows.take_while(|(row, _)| row.starts_with(prefix));
            let rows = rows.filter(|(row, _)| after.is_none_or(|after| row.as_slice() > after));
            Ok(rows
                .take(limit)
                .map(|(row, value)| (row.clone(), value.clone()))
                .collect())
        })
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.with(|open| {
            if batch
                .expect
                .iter()
                .any(|expected| open.rows.get(&expected.row) != expected.value.as_ref())
            {
                return Err(BackendError::new(Kind::Conflict));
            }
            if open.failed {
                return Err(BackendError::new(Kind::Io));
            }
            let mut rows = open.rows.clone();
            for write in batch.writes {
                match write.value {
                    Some(value) => rows.insert(write.row, value),
                    None => rows.remove(&write.row),
                };
            }
            let written = replace(&open.directory, &rows);
            open.failed = written.is_err();
            written.map_err(failed)?;
            open.rows = rows;
            Ok(())
        })
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.with(|_| Ok(()))
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.with(|open| match fs::metadata(open.directory.join("rows")) {
            Ok(file) => Ok(Some(file.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(0)),
            Err(error) => Err(failed(error)),
        })
    }

    async fn close(&self) -> Result<(), BackendError> {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

/// The new file is on the disk before it takes the name of the old one, and so is the name before this returns.
fn replace(directory: &Path, rows: &Rows) -> io::Result<()> {
    let new = directory.join("rows.new");
    let mut file = private(&new)?;
    file.set_len(0)?;
    file.write_all(&encode(rows))?;
    file.sync_all()?;
    fs::rename(&new, directory.join("rows"))?;
    File::open(directory)?.sync_all()
}

/// A file for its owner alone.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// How many rows; then row, value, row, value …, each after its length. The layer above seals what is in them.
fn encode(rows: &Rows) -> Vec<u8> {
    let mut file = (rows.len() as u64).to_le_bytes().to_vec();
    for bytes in rows.iter().flat_map(|(row, value)| [row, value]) {
        file.extend((bytes.len() as u64).to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn decode(file: &[u8]) -> Option<Rows> {
    let (count, mut file) = file.split_first_chunk::<8>()?;
    let mut next = || {
        let (length, rest) = file.split_first_chunk::<8>()?;
        let (bytes, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        file = rest;
        Some(bytes.to_vec())
    };
    let mut rows = Rows::new();
    for _ in 0..u64::from_le_bytes(*count) {
        rows.insert(next()?, next()?);
    }
    // More or fewer than were written are damage, never an end.
    file.is_empty().then_some(rows)
}

fn failed(error: io::Error) -> BackendError {
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::NoSpace,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Kind::ReadOnly,
        _ => Kind::Io,
    };
    BackendError::with_source(kind, error)
}

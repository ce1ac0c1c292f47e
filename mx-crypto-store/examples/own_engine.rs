//! A storage engine of one's own, whole: a log of checksummed batches that is replayed into memory at each open.
//!
//! `cargo run -p mx-crypto-store --example own_engine` runs the conformance suite on it; that a killed process loses
//! nothing is shown in `tests/conformance_own.rs`, in three lines. Its simplicity has its price: all rows are in memory,
//! and the log grows until it is compacted.
//!
//! # Why it keeps its promises
//! A batch is one record, `length ‖ checksum ‖ writes`, synced before the commit returns and before another is written:
//! only the last record can be torn. Records begin at multiples of 64, so that no sector's border is inside of a length:
//! it is whole or zero, which tells a torn tail (cut off) from damage before it (an error, never fewer rows).

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Error, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind as Kind, Batch, Expectation, Promises, Write};
use sha2::{Digest, Sha256};

/// The length of a record, and its checksum.
const HEAD: usize = 8 + 32;
const ALIGN: usize = 64;

/// Rows in a log in a directory.
#[derive(Debug)]
pub(crate) struct Log(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    log: File,
    directory: PathBuf,
    /// A write failed: what is on the disk is not known, so that nothing more is written.
    failed: bool,
    /// Held until this is dropped, and released by the kernel with the process.
    lock: File,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Closing it is not enough: a child that is being started has a copy until it becomes another program.
        let _closed_anyway = self.lock.unlock();
    }
}

impl Log {
    pub(crate) fn open(directory: &Path) -> Result<Self, BackendError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = private(&directory.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BackendError::new(Kind::InUse),
            TryLockError::Error(error) => failed(error),
        })?;
        let mut rows = BTreeMap::new();
        let log = replay(directory, &mut rows).map_err(failed)?;
        let directory = directory.to_owned();
        let open = Open {
            rows,
            log,
            directory,
            failed: false,
            lock,
        };
        Ok(Self(Mutex::new(Some(open))))
    }

    /// A commit waits for the disk inside of the future: an engine whose readers must not would use `spawn_blocking`.
    fn with<T>(&self, work: impl FnOnce(&mut Open) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(open.as_mut().ok_or_else(|| BackendError::new(Kind::Closed))?)
    }
}

#[async_trait::async_trait]
impl Backend for Log {
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
            for Expectation { row, value } in &batch.expect {
                if open.rows.get(row) != value.as_ref() {
                    return Err(BackendError::new(Kind::Conflict));
                }
            }
            if open.failed {
                return Err(BackendError::new(Kind::Io));
            }
            if batch.writes.is_empty() {
                return Ok(());
            }
            let record = record(batch.writes.iter().map(|write| (&write.row, write.value.as_ref())));
            let written = open.log.write_all(&record).and_then(|()| open.log.sync_data());
            open.failed = written.is_err();
            written.map_err(failed)?;
            apply(batch.writes, &mut open.rows);
            Ok(())
        })
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.with(|open| {
            let replaced = rewrite(&open.directory, &open.rows);
            open.failed |= replaced.is_err();
            open.log = replaced.map_err(failed)?;
            Ok(())
        })
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.with(|open| Ok(Some(open.log.metadata().map_err(failed)?.len())))
    }

    async fn close(&self) -> Result<(), BackendError> {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

fn failed(error: Error) -> BackendError {
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::NoSpace,
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Kind::ReadOnly,
        ErrorKind::InvalidData => Kind::Corrupt,
        _ => Kind::Io,
    };
    BackendError::with_source(kind, error)
}

/// A file for its owner alone, which is only ever written at its end.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600).open(path)
}

/// A log of one record with everything takes the name of the old one when it is on the disk.
fn rewrite(directory: &Path, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<File> {
    let new = directory.join("log.new");
    let mut log = private(&new)?;
    log.set_len(0)?;
    log.write_all(&record(rows.iter().map(|(row, value)| (row, Some(value)))))?;
    log.sync_all()?;
    fs::rename(&new, directory.join("log"))?;
    File::open(directory)?.sync_all()?;
    Ok(log)
}

/// Read the log, cut off what is torn, and sync all of it: from then on what was read is durable.
fn replay(directory: &Path, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<File> {
    let log = private(&directory.join("log"))?;
    let bytes = fs::read(directory.join("log"))?;
    let mut rest = bytes.as_slice();
    while let Some((head, body)) = rest.split_at_checked(HEAD) {
        let (length, checksum) = head.split_at(8);
        let length = usize::from_le_bytes(length.try_into().map_err(Error::other)?);
        let end = HEAD.saturating_add(length).next_multiple_of(ALIGN);
        let Some(payload) = body.get(..length).filter(|_| length > 0 && end <= rest.len()) else {
            break;
        };
        match *Sha256::digest(payload) == *checksum {
            true => apply(decode(payload).ok_or(ErrorKind::InvalidData)?, rows),
            false if end == rest.len() => break,
            false => return Err(ErrorKind::InvalidData.into()),
        }
        rest = &rest[end..];
    }
    log.set_len((bytes.len() - rest.len()) as u64)?;
    log.sync_all()?;
    File::open(directory)?.sync_all()?;
    Ok(log)
}

fn apply(writes: Vec<Write>, rows: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for Write { row, value } in writes {
        match value {
            Some(value) => rows.insert(row, value),
            None => rows.remove(&row),
        };
    }
}

fn record<'a>(writes: impl Iterator<Item = (&'a Vec<u8>, Option<&'a Vec<u8>>)>) -> Vec<u8> {
    let mut payload = Vec::new();
    for bytes in writes.flat_map(|(row, value)| [Some(row), value]) {
        payload.push(u8::from(bytes.is_some()));
        payload.extend((bytes.map_or(0, Vec::len) as u64).to_le_bytes());
        payload.extend(bytes.into_iter().flatten());
    }
    let mut record = (payload.len() as u64).to_le_bytes().to_vec();
    record.extend(Sha256::digest(&payload));
    record.append(&mut payload);
    record.resize(record.len().next_multiple_of(ALIGN), 0);
    record
}

fn decode(mut payload: &[u8]) -> Option<Vec<Write>> {
    let mut next = || {
        let (head, body) = payload.split_at_checked(9)?;
        let (bytes, rest) = body.split_at_checked(u64::from_le_bytes(head[1..].try_into().ok()?) as usize)?;
        payload = rest;
        Some((head[0] == 1).then(|| bytes.to_vec()))
    };
    let mut writes = Vec::new();
    while let Some(row) = next() {
        let (row, value) = (row?, next()?);
        writes.push(Write { row, value });
    }
    Some(writes)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = std::env::temp_dir().join(format!("own-engine-{}", std::process::id()));
    let open = || async { Log::open(&directory).map(|log| Box::new(log) as Box<dyn Backend>) };
    mx_crypto_store::conformance::all(&open).await;
    drop(fs::remove_dir_all(&directory));
}

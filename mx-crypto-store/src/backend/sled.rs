//! Rows in sled. **It does not survive a power cut on Linux; a killed process it survives.**
//!
//! sled 0.34 syncs with `sync_file_range`, which is no barrier against a power cut: in our measurement it lost more than
//! a third of the commits that it had acknowledged, and 9 of 20 stores did not open again. A killed process loses
//! nothing: every commit is flushed before it returns. Use SQLite unless you know why not.
//!
//! sled panics where it finds damage, on its own threads as well. Here a panic becomes `Corrupt`, and the handle is not
//! used again. A program that is built with `panic = "abort"` has no such second chance.

use std::{
    fmt, fs,
    ops::Bound,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{
    Backend, BackendError, BackendErrorKind as Kind, Batch, Promises,
    home::{Home, length},
    worker::Worker,
};

/// sled's main file.
const FILE: &str = "db";
/// Its settings, written before the main file is made.
const SETTINGS: &str = "conf";
/// How the name of a snapshot ends that is being written.
const UNFINISHED: &str = "generating";
/// How long its threads may take to let go of it, and how often we look.
const LINGERS: Duration = Duration::from_millis(900);
const PAUSE: Duration = Duration::from_millis(2);

/// Rows in a sled database in a directory.
///
/// ```no_run
/// # async fn example() -> Result<(), mx_crypto_store::backend::BackendError> {
/// use mx_crypto_store::backend::{Backend, Batch, Sled};
///
/// let engine = Sled::open("/var/lib/mybot/store").await?;
/// engine.commit(Batch::new().put("a", "1")).await?; // on the disk now
/// assert_eq!(engine.get(b"a").await?.as_deref(), Some(&b"1"[..]));
/// engine.close().await?;
/// # Ok(()) }
/// ```
pub struct Sled {
    worker: Worker<Open>,
    path: PathBuf,
}

/// Dropped in this order: the lock is the last to go.
struct Open {
    database: sled::Db,
    _home: Home,
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sled").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sled {
    /// Open the database in the directory `path`, creating it (mode 0700) where it is missing.
    ///
    /// # Errors
    /// `InUse` while another process or handle has it open; `Corrupt`, `ReadOnly`, `NoSpace`, `Io`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref().to_owned();
        let directory = path.clone();
        let worker = Worker::open(move || {
            let mut home = Home::open(&directory)?;
            home.refuse_if_lost(FILE)?;
            remove_unfinished(&home, &directory)?;
            let database = open(&sled::Config::new().path(&directory).flush_every_ms(None))?;
            begin(&database, home.is_made())?;
            home.mark()?;
            Ok(Open { database, _home: home })
        })
        .await?;
        Ok(Self { worker, path })
    }
}

/// Remove what a process that was killed has left half written, which sled would find damaged: a snapshot without its
/// final name (it takes it for the newest one), and the settings of a database that was not begun.
fn remove_unfinished(home: &Home, directory: &Path) -> Result<(), BackendError> {
    let begun = home.is_made() || length(&home.file(FILE))?.is_some_and(|bytes| bytes > 0);
    for entry in fs::read_dir(directory).map_err(BackendError::from_io)? {
        let file = entry.map_err(BackendError::from_io)?.path();
        let snapshot = file.extension().is_some_and(|extension| extension == UNFINISHED);
        if snapshot || (!begun && file.file_name().is_some_and(|name| name == SETTINGS)) {
            fs::remove_file(file).map_err(BackendError::from_io)?;
        }
    }
    Ok(())
}

/// The threads of a sled that was dropped let go of its files a moment later. We have our own lock: nobody else who
/// knows it has the store open.
fn open(config: &sled::Config) -> Result<sled::Db, BackendError> {
    let started = Instant::now();
    loop {
        match config.open().map_err(failed) {
            Err(error) if error.kind() == Kind::InUse && started.elapsed() < LINGERS => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// sled takes files that it cannot read for a store that was never written: a row of our own tells them apart.
fn begin(database: &sled::Db, made: bool) -> Result<(), BackendError> {
    let ours = database.open_tree("store").map_err(failed)?;
    if ours.contains_key("made").map_err(failed)? {
        return Ok(());
    }
    if made {
        let what = "the database is empty, and was not when it was closed";
        return Err(BackendError::with_source(Kind::Corrupt, what));
    }
    ours.insert("made", b"").map_err(failed)?;
    database.flush().map(drop).map_err(failed)
}

fn failed(error: sled::Error) -> BackendError {
    match error {
        // sled reports its own lock as this.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            BackendError::with_source(Kind::InUse, error)
        }
        sled::Error::Io(error) => BackendError::from_io(error),
        // Of these a text could quote what was read.
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::CollectionNotFound(_) => {
            BackendError::new(Kind::Corrupt)
        }
        other => BackendError::with_source(Kind::Io, other),
    }
}

#[async_trait]
impl Backend for Sled {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: true,
            survives_power_cut: false,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let row = row.to_vec();
        self.worker
            .read(move |open| {
                let value = open.database.get(row).map_err(failed)?;
                Ok(value.map(|value| value.to_vec()))
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
                let start = after.map_or_else(|| Bound::Included(prefix.clone()), Bound::Excluded);
                let mut found = Vec::new();
                for entry in open.database.range((start, Bound::Unbounded)).take(limit) {
                    let (row, value) = entry.map_err(failed)?;
                    if !row.starts_with(&prefix) {
                        break;
                    }
                    found.push((row.to_vec(), value.to_vec()));
                }
                Ok(found)
            })
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.worker
            .with(move |open| {
                // One caller at a time: expectations and their writes are one step.
                for expected in &batch.expect {
                    if open.database.get(&expected.row).map_err(failed)?.as_deref() != expected.value.as_deref() {
                        return Err(BackendError::new(Kind::Conflict));
                    }
                }
                if batch.writes.is_empty() {
                    return Ok(());
                }
                let mut writes = sled::Batch::default();
                for write in batch.writes {
                    match write.value {
                        Some(value) => writes.insert(write.row, value),
                        None => writes.remove(write.row),
                    }
                }
                open.database.apply_batch(writes).map_err(failed)?;
                open.database.flush().map(drop).map_err(failed)
            })
            .await
    }

    /// Nothing to do: sled has no call for it, and reuses the segments of its file by itself.
    async fn compact(&self) -> Result<(), BackendError> {
        self.worker.with(|_| Ok(())).await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.worker
            .with(|open| open.database.size_on_disk().map(Some).map_err(failed))
            .await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.worker
            .close(|open| open.database.flush().map(drop).map_err(failed))
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::{Kind, failed};

    #[test]
    fn errors_of_the_disk_keep_their_kind() {
        for (kind, expected) in [
            (ErrorKind::StorageFull, Kind::NoSpace),
            (ErrorKind::QuotaExceeded, Kind::NoSpace),
            (ErrorKind::ReadOnlyFilesystem, Kind::ReadOnly),
            (ErrorKind::PermissionDenied, Kind::ReadOnly),
            (ErrorKind::Other, Kind::Io),
        ] {
            assert_eq!(failed(sled::Error::Io(kind.into())).kind(), expected);
            // As sled copies an error of its own threads.
            let copy = Error::new(kind, format!("{:?}", Error::from(kind)));
            assert_eq!(failed(sled::Error::Io(copy)).kind(), expected);
        }
        let full = Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert_eq!(failed(sled::Error::Io(full)).kind(), Kind::NoSpace);
        let damaged = sled::Error::Corruption { at: None, bt: () };
        assert_eq!(failed(damaged).kind(), Kind::Corrupt);
    }
}

//! Rows in sled. **It does not survive a power cut on Linux.**
//!
//! sled 0.34 syncs with `sync_file_range`, which is no barrier against a power cut: in our measurement it lost more than
//! a third of the commits that it had acknowledged, and 9 of 20 stores did not open again. A killed process loses
//! nothing: every commit is flushed. Use SQLite unless you know why not. A panic inside of sled becomes `Corrupt`.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{Backend, BackendError, BackendErrorKind as Kind, Batch};

/// Rows in a sled database in a directory.
pub struct Sled {
    database: Arc<Mutex<Option<sled::Db>>>,
    path: PathBuf,
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
        let opened = path.clone();
        let database = blocking(move || {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&opened).map_err(BackendError::from_io)?;
            sled::Config::new()
                .path(&opened)
                .flush_every_ms(None)
                .open()
                .map_err(|error| match error {
                    // sled reports the lock of another opener as this.
                    sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
                        BackendError::with_source(Kind::InUse, io)
                    }
                    other => failed(other),
                })
        })
        .await?;
        Ok(Self {
            database: Arc::new(Mutex::new(Some(database))),
            path,
        })
    }

    async fn with<T, F>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(&sled::Db) -> Result<T, BackendError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        blocking(move || {
            // One caller at a time: expectations and their writes are one step.
            let database = database.lock().unwrap_or_else(PoisonError::into_inner);
            work(database.as_ref().ok_or_else(|| BackendError::new(Kind::Closed))?)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BackendError::with_source(Kind::Corrupt, error))?
}

fn failed(error: sled::Error) -> BackendError {
    match error {
        sled::Error::Io(io) => BackendError::from_io(io),
        sled::Error::Corruption { .. } => BackendError::with_source(Kind::Corrupt, error),
        other => BackendError::with_source(Kind::Io, other),
    }
}

#[async_trait]
impl Backend for Sled {
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let row = row.to_vec();
        self.with(move |database| Ok(database.get(row).map_err(failed)?.map(|value| value.to_vec())))
            .await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        use std::ops::Bound;
        let prefix = prefix.to_vec();
        let after = after.filter(|after| *after >= prefix.as_slice()).map(<[u8]>::to_vec);
        self.with(move |database| {
            let start = after.map_or_else(|| Bound::Included(prefix.clone()), Bound::Excluded);
            let mut found = Vec::new();
            for entry in database.range((start, Bound::<Vec<u8>>::Unbounded)).take(limit) {
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
        self.with(move |database| {
            for expected in &batch.expect {
                if database.get(&expected.row).map_err(failed)?.as_deref() != expected.value.as_deref() {
                    return Err(BackendError::new(Kind::Conflict));
                }
            }
            let mut writes = sled::Batch::default();
            for write in batch.writes {
                match write.value {
                    Some(value) => writes.insert(write.row, value),
                    None => writes.remove(write.row),
                }
            }
            database.apply_batch(writes).map_err(failed)?;
            database.flush().map(drop).map_err(failed)
        })
        .await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.with(|database| database.size_on_disk().map(Some).map_err(failed))
            .await
    }

    async fn close(&self) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        blocking(move || {
            let Some(database) = database.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return Ok(());
            };
            database.flush().map(drop).map_err(failed)
        })
        .await
    }
}

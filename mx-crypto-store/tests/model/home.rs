//! Where an engine keeps its rows, and what a killed process leaves of it. Another engine is one `impl` more.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use mx_crypto_store::backend::{
    Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Redb, Sled, Sqlite,
};

/// An engine's disk.
#[async_trait]
pub(crate) trait Home: fmt::Debug + Send + Sync + Sized + 'static {
    /// Everything is read after so many steps: on a disk that takes its time. What opens a store, ends a unit or meets
    /// a fault is followed by all reads on every engine.
    const READ_EVERY: usize = 3;

    /// An image is of one moment, even while something is written.
    const ONE_MOMENT: bool = false;

    /// Nothing is on it.
    fn empty() -> Self;

    async fn open(&self) -> Result<Arc<dyn Backend>, BackendError>;

    /// What is there when the process is killed now, while `open` has it open.
    async fn image(&self, open: &dyn Backend) -> Self;
}

#[async_trait]
impl Home for MemoryDisk {
    const READ_EVERY: usize = 1;
    const ONE_MOMENT: bool = true;

    fn empty() -> Self {
        Self::new()
    }

    async fn open(&self) -> Result<Arc<dyn Backend>, BackendError> {
        Ok(Arc::new(Memory::open(self)?))
    }

    /// It has no page cache: what was committed is durable, and what was not is nowhere.
    async fn image(&self, open: &dyn Backend) -> Self {
        let image = Self::new();
        let mut batch = Batch::new();
        for (row, value) in rows(open).await {
            batch = batch.put(row, value);
        }
        Memory::open(&image).unwrap().commit(batch).await.unwrap();
        image
    }
}

/// Rows and their values.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All rows.
pub(crate) async fn rows(backend: &dyn Backend) -> Rows {
    backend.scan(&[], None, usize::MAX).await.unwrap()
}

/// A directory of its own, in memory where the system has such a place: a killed process loses nothing there either,
/// and the model is not about the speed of a disk.
#[derive(Debug)]
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        let shared_memory = Path::new("/dev/shm");
        let directory = tempfile::tempdir_in(shared_memory).or_else(|_| tempfile::tempdir());
        Self(directory.unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// The page cache outlives a process, so that what a killed one leaves is what a reader of its files sees.
    fn copy(&self) -> Self {
        let copy = Self::new();
        if self.store().exists() {
            copy_directory(&self.store(), &copy.store());
        }
        copy
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[derive(Debug)]
pub(crate) struct SqliteHome(Directory);

#[async_trait]
impl Home for SqliteHome {
    fn empty() -> Self {
        Self(Directory::new())
    }

    async fn open(&self) -> Result<Arc<dyn Backend>, BackendError> {
        Ok(Arc::new(Sqlite::open(self.0.store()).await?))
    }

    async fn image(&self, _open: &dyn Backend) -> Self {
        Self(self.0.copy())
    }
}

#[derive(Debug)]
pub(crate) struct RedbHome(Directory);

#[async_trait]
impl Home for RedbHome {
    fn empty() -> Self {
        Self(Directory::new())
    }

    async fn open(&self) -> Result<Arc<dyn Backend>, BackendError> {
        Ok(Arc::new(Redb::open(self.0.store()).await?))
    }

    async fn image(&self, _open: &dyn Backend) -> Self {
        Self(self.0.copy())
    }
}

#[derive(Debug)]
pub(crate) struct SledHome(Directory);

#[async_trait]
impl Home for SledHome {
    fn empty() -> Self {
        Self(Directory::new())
    }

    async fn open(&self) -> Result<Arc<dyn Backend>, BackendError> {
        // sled's own threads hold the file's lock a moment longer than its last handle.
        for _ in 0..200 {
            match Sled::open(self.0.store()).await {
                Err(error) if error.kind() == BackendErrorKind::InUse => std::thread::sleep(Duration::from_millis(1)),
                opened => return Ok(Arc::new(opened?)),
            }
        }
        Err(BackendError::new(BackendErrorKind::InUse))
    }

    async fn image(&self, _open: &dyn Backend) -> Self {
        Self(self.0.copy())
    }
}

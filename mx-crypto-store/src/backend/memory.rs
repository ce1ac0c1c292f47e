//! Rows in memory: for tests and for devices that are thrown away.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;

use super::{Backend, BackendError, BackendErrorKind as Kind, Batch, Promises};

/// What stays when a [`Memory`] is closed, as a disk would: open it again and go on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mx_crypto_store::backend::{Backend, Batch, Memory, MemoryDisk};
///
/// let disk = MemoryDisk::new();
/// let first = Memory::open(&disk)?;
/// first.commit(Batch::new().put("row", "value")).await?;
/// assert!(Memory::open(&disk).is_err(), "one at a time");
/// first.close().await?;
/// assert_eq!(Memory::open(&disk)?.get(b"row").await?.as_deref(), Some(&b"value"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Disk>);

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Disk {
    rows: Mutex<Rows>,
    in_use: AtomicBool,
}

impl MemoryDisk {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").finish_non_exhaustive()
    }
}

/// Rows in memory. They are gone with the process: no durability is promised beyond it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
///
/// // A device for one test: its key is nowhere else.
/// let key = KeySource::Bytes(StoreKey::generate()?);
/// let store = PickleStore::open(Arc::new(Memory::new()), key).await?;
/// assert_eq!(store.device().await?, None, "nobody's yet");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Memory {
    disk: MemoryDisk,
    closed: AtomicBool,
}

impl Memory {
    /// On a disk of its own.
    #[must_use]
    pub fn new() -> Self {
        let disk = MemoryDisk::new();
        disk.0.in_use.store(true, Ordering::SeqCst);
        Self {
            disk,
            closed: AtomicBool::new(false),
        }
    }

    /// On a disk that may have rows already.
    ///
    /// # Errors
    /// `InUse` while another handle has it open.
    pub fn open(disk: &MemoryDisk) -> Result<Self, BackendError> {
        if disk.0.in_use.swap(true, Ordering::SeqCst) {
            return Err(BackendError::new(Kind::InUse));
        }
        Ok(Self {
            disk: disk.clone(),
            closed: AtomicBool::new(false),
        })
    }

    fn rows(&self) -> Result<MutexGuard<'_, Rows>, BackendError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(BackendError::new(Kind::Closed));
        }
        Ok(self.disk.0.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn release(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.disk.0.in_use.store(false, Ordering::SeqCst);
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.release();
    }
}

#[async_trait]
impl Backend for Memory {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: false,
            survives_power_cut: false,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.rows()?.get(row).cloned())
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(self
            .rows()?
            .range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(row, _)| row.starts_with(prefix))
            .take(limit)
            .map(|(row, value)| (row.clone(), value.clone()))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        let mut rows = self.rows()?;
        if batch
            .expect
            .iter()
            .any(|expected| rows.get(&expected.row) != expected.value.as_ref())
        {
            return Err(BackendError::new(Kind::Conflict));
        }
        for write in batch.writes {
            match write.value {
                Some(value) => rows.insert(write.row, value),
                None => rows.remove(&write.row),
            };
        }
        Ok(())
    }

    /// Nothing to do: what is removed is gone.
    async fn compact(&self) -> Result<(), BackendError> {
        self.rows().map(drop)
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        let bytes: usize = self.rows()?.iter().map(|(row, value)| row.len() + value.len()).sum();
        Ok(u64::try_from(bytes).ok())
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.release();
        Ok(())
    }
}

//! A sealed store over any engine: rows are sealed on their way down, and read through the open unit of work.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::{
    KeySource, Record, RecordId, Result, StoreError, Unit,
    backend::{Backend, BackendError, Batch},
    layout::{HEADER_ROW, Row},
    record::{Cursor, Family, decode},
    seal::Sealer,
};

/// How many rows are asked of an engine at once.
const PAGE: usize = 256;

pub(crate) type Plain = Zeroizing<Vec<u8>>;

/// What an open unit of work has written: the newest value of each row, `None` where it was removed.
pub(crate) type Overlay = BTreeMap<Row, Option<Plain>>;

/// A sealed store without any engine of Matrix: records, units of work, any [`Backend`]. Cheap to clone; all clones
/// are the same store.
#[derive(Clone, Debug)]
pub struct SealedStore {
    pub(crate) core: Arc<Core>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) sealer: Sealer,
    /// Held by the one unit that is open.
    pub(crate) turn: Arc<Mutex<()>>,
    open: StdMutex<Option<OpenUnit>>,
    poisoned: AtomicBool,
    /// Counts units that were undone: what was decoded from their overlay is not to be trusted afterwards.
    undone: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct OpenUnit {
    pub(crate) overlay: Overlay,
    /// Something failed inside: it may not be committed.
    pub(crate) failed: bool,
}

/// Whose eyes a read has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Through the open unit, if there is one.
    Unit,
    /// What is on the disk.
    Committed,
}

impl SealedStore {
    /// Open the store in `backend`, or begin one if it is empty.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::KeyMissing`] and the other errors of keys; [`StoreError::Corrupt`];
    /// [`StoreError::SchemaTooNew`]; of the engine.
    pub async fn open(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        let sealer = match backend.get(HEADER_ROW).await? {
            Some(header) => Sealer::open(&key.existing()?, HEADER_ROW, &header)?,
            None if backend.scan(&[], None, 1).await?.is_empty() => {
                let key = key.existing_or_new()?;
                let (sealer, header) = Sealer::create(&key, HEADER_ROW)?;
                backend
                    .commit(Batch::new().expect(HEADER_ROW, None).put(HEADER_ROW, header))
                    .await?;
                sealer
            }
            None => {
                return Err(StoreError::Corrupt {
                    what: "its header, which is missing",
                });
            }
        };
        Ok(Self {
            core: Arc::new(Core {
                backend,
                sealer,
                turn: Arc::default(),
                open: StdMutex::default(),
                poisoned: AtomicBool::new(false),
                undone: std::sync::atomic::AtomicU64::new(0),
            }),
        })
    }

    /// Begin a unit of work, after the one that is open has ended.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after a failed write.
    ///
    /// # Cancel safety
    /// Safe: nothing has begun when the future is dropped.
    pub async fn begin(&self) -> Result<Unit> {
        let turn = Arc::clone(&self.core.turn).lock_owned().await;
        self.core.check_writable()?;
        *self.core.open_unit() = Some(OpenUnit::default());
        Ok(Unit::new(Arc::clone(&self.core), turn))
    }

    /// A record as it is on the disk: an open unit of work is not looked at.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn record<T: serde::de::DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>> {
        let row = id.row(&self.core.sealer);
        self.core
            .read(&row, View::Committed)
            .await?
            .map(|value| decode(&value))
            .transpose()
    }

    /// Records of a group as they are on the disk: by position, or in no particular order by name; strictly after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn scan(
        &self,
        family: Family,
        group: &[&str],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let prefix = family.prefix(&self.core.sealer, group);
        self.core.records(&prefix, after, limit, View::Committed).await
    }

    /// A write failed: the store may be read and closed, and nothing else.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.core.poisoned.load(Ordering::SeqCst)
    }

    /// Finish what is under way and release the engine's lock.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn shutdown(&self) -> Result<()> {
        let _last = self.core.turn.lock().await;
        Ok(self.core.backend.close().await?)
    }
}

impl Core {
    pub(crate) fn open_unit(&self) -> MutexGuard<'_, Option<OpenUnit>> {
        // The lock is held for assignments only, which cannot panic half way.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::SeqCst) {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }

    pub(crate) fn poison(&self) {
        if !self.poisoned.swap(true, Ordering::SeqCst) {
            tracing::warn!("a write to the store failed: nothing more is written until it is opened again");
        }
    }

    /// How many units were undone so far.
    #[cfg(feature = "engine")]
    pub(crate) fn undone(&self) -> u64 {
        self.undone.load(Ordering::SeqCst)
    }

    /// The open unit is over and nothing of it stays.
    pub(crate) fn undo(&self) {
        self.open_unit().take();
        self.undone.fetch_add(1, Ordering::SeqCst);
    }

    /// A failure inside of a unit must never end in a commit, even where the engine swallows it.
    pub(crate) fn taint<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err()
            && let Some(unit) = self.open_unit().as_mut()
        {
            unit.failed = true;
        }
        result
    }

    /// The plaintext of a row.
    pub(crate) async fn read(&self, row: &[u8], view: View) -> Result<Option<Plain>> {
        if view == View::Unit
            && let Some(value) = self
                .open_unit()
                .as_ref()
                .and_then(|unit| unit.overlay.get(row).cloned())
        {
            return Ok(value);
        }
        let read = match self.backend.get(row).await.map_err(StoreError::from) {
            Ok(Some(sealed)) => self.sealer.open_record(row, &sealed).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        if view == View::Unit { self.taint(read) } else { read }
    }

    /// Rows under a prefix, in order, strictly after `after`, at most `limit`.
    pub(crate) async fn rows(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        view: View,
    ) -> Result<Vec<(Row, Plain)>> {
        let read = self.merged(prefix, after, limit, view).await;
        if view == View::Unit { self.taint(read) } else { read }
    }

    async fn merged(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize, view: View) -> Result<Vec<(Row, Plain)>> {
        let mut overlay: Overlay = match (view, self.open_unit().as_ref()) {
            (View::Unit, Some(unit)) => unit
                .overlay
                .range(prefix.to_vec()..)
                .take_while(|(row, _)| row.starts_with(prefix))
                .filter(|(row, _)| after.is_none_or(|after| row.as_slice() > after))
                .map(|(row, value)| (row.clone(), value.clone()))
                .collect(),
            _ => Overlay::new(),
        };
        let mut found: Vec<(Row, Plain)> = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while found.len() < limit {
            let page = self.backend.scan(prefix, after.as_deref(), PAGE).await?;
            let last_page = page.len() < PAGE;
            for (row, sealed) in page {
                after = Some(row.clone());
                // What the unit put before this row comes first.
                let behind = overlay.split_off(&row);
                found.extend(
                    std::mem::replace(&mut overlay, behind)
                        .into_iter()
                        .filter_map(|(row, value)| Some((row, value?))),
                );
                match overlay.remove(&row) {
                    Some(Some(value)) => found.push((row, value)),
                    Some(None) => {}
                    None => {
                        let value = self.sealer.open_record(&row, &sealed)?;
                        found.push((row, value));
                    }
                }
                if found.len() >= limit {
                    break;
                }
            }
            if last_page {
                break;
            }
        }
        if found.len() < limit {
            found.extend(overlay.into_iter().filter_map(|(row, value)| Some((row, value?))));
        }
        found.truncate(limit);
        Ok(found)
    }

    pub(crate) async fn records(
        &self,
        prefix: &[u8],
        after: Option<&Cursor>,
        limit: usize,
        view: View,
    ) -> Result<Vec<Record>> {
        let rows = self
            .rows(prefix, after.map(|cursor| cursor.0.as_slice()), limit, view)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(row, value)| Record {
                cursor: Cursor(row),
                value,
            })
            .collect())
    }

    /// Write rows into the open unit; `false` when there is none.
    pub(crate) fn write_into_unit(&self, rows: &mut Vec<(Row, Option<Plain>)>) -> bool {
        match self.open_unit().as_mut() {
            Some(unit) => {
                unit.overlay.extend(rows.drain(..));
                true
            }
            None => false,
        }
    }

    /// Seal an overlay and write it, durably.
    pub(crate) async fn write(&self, overlay: &Overlay) -> Result<()> {
        let mut batch = Batch::new();
        for (row, value) in overlay {
            batch = match value {
                Some(value) => batch.put(row.clone(), self.sealer.seal(row, value)?),
                None => batch.delete(row.clone()),
            };
        }
        if batch.writes.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        self.backend.commit(batch).await.map_err(|error: BackendError| {
            self.poison();
            error.into()
        })
    }
}

//! What is under a store: rows are read through the open unit of work and through those that are on their way to the
//! disk, opened, and held against the manifest.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, Notify, RwLock, RwLockReadGuard};
use zeroize::Zeroizing;

use crate::{
    Record, Result, StoreError,
    backend::Backend,
    commit::Queue,
    layout::{Row, Table},
    manifest::{Manifest, Missing, leaf_of},
    record::Cursor,
    revision::Moves,
    seal::{Opened, Sealer},
};

/// How many rows are asked of an engine at once.
pub(crate) const PAGE: usize = 256;

pub(crate) type Plain = Arc<Zeroizing<Vec<u8>>>;

/// What a unit of work has written: the newest value of each row, `None` where it was removed.
pub(crate) type Overlay = BTreeMap<Row, Option<Plain>>;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) sealer: Sealer,
    /// Held by the one unit that is open.
    pub(crate) turn: Arc<Mutex<()>>,
    layers: StdMutex<Layers>,
    poisoned: AtomicBool,
    /// Counts units that were undone: what was decoded from their overlay is not to be trusted afterwards.
    undone: AtomicU64,
    /// What was written that others may have to look at again.
    pub(crate) moves: Moves,
    /// Written while a commit is under way: what is read meanwhile may be half before it and half after it.
    pub(crate) quiet: RwLock<()>,
    manifest: StdMutex<Manifest>,
    /// Told when nothing is on its way to the disk any more.
    pub(crate) idle: Notify,
}

/// What is not on the disk yet, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) queue: Queue,
    pub(crate) open: Option<OpenUnit>,
}

#[derive(Debug, Default)]
pub(crate) struct OpenUnit {
    pub(crate) overlay: Overlay,
    /// Something failed inside: it may not be committed.
    pub(crate) failed: bool,
    /// It is one save's own, which no other may join: it would not be durable when it returns.
    #[cfg_attr(
        not(feature = "engine"),
        expect(dead_code, reason = "only the engine has saves of its own")
    )]
    pub(crate) alone: bool,
}

/// Whose eyes a read has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Through the open unit, if there is one, and those that are on their way to the disk.
    Unit,
    /// Through those that are on their way to the disk: as the open unit found it.
    #[cfg(feature = "engine")]
    Beneath,
    /// What is on the disk.
    Committed,
}

/// The proof that no commit is under way.
type Quiet<'a> = RwLockReadGuard<'a, ()>;

impl Layers {
    /// What is to become of a row that is not on the disk yet.
    fn get(&self, row: &[u8], view: View) -> Option<Option<Plain>> {
        let open = self.open.as_ref().filter(|_| view == View::Unit);
        let open = open.and_then(|unit| unit.overlay.get(row));
        open.or_else(|| self.queue.overlays().rev().find_map(|overlay| overlay.get(row)))
            .cloned()
    }

    /// What is to become of the rows under `prefix`, strictly after `after`.
    fn range(&self, prefix: &[u8], after: Option<&[u8]>, view: View) -> Overlay {
        let mut merged = Overlay::new();
        let open = self.open.as_ref().filter(|_| view == View::Unit);
        for overlay in self.queue.overlays().chain(open.map(|unit| &unit.overlay)) {
            let rows = overlay
                .range(prefix.to_vec()..)
                .take_while(|(row, _)| row.starts_with(prefix))
                .filter(|(row, _)| after.is_none_or(|after| row.as_slice() > after));
            merged.extend(rows.map(|(row, value)| (row.clone(), value.clone())));
        }
        merged
    }
}

impl Core {
    pub(crate) fn new(backend: Arc<dyn Backend>, sealer: Sealer, manifest: Manifest) -> Self {
        Self {
            backend,
            sealer,
            turn: Arc::default(),
            layers: StdMutex::default(),
            poisoned: AtomicBool::new(false),
            undone: AtomicU64::new(0),
            moves: Moves::default(),
            quiet: RwLock::default(),
            manifest: StdMutex::new(manifest),
            idle: Notify::new(),
        }
    }

    pub(crate) fn layers(&self) -> MutexGuard<'_, Layers> {
        // The lock is held for assignments only, which cannot panic half way.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.is_poisoned() {
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

    pub(crate) fn count_undone(&self) {
        self.undone.fetch_add(1, Ordering::SeqCst);
    }

    /// The open unit is over and nothing of it stays.
    pub(crate) fn undo(&self) {
        self.layers().open.take();
        self.count_undone();
    }

    /// A failure inside of a unit must never end in a commit, even where the engine swallows it.
    pub(crate) fn taint<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err()
            && let Some(unit) = self.layers().open.as_mut()
        {
            unit.failed = true;
        }
        result
    }

    /// Whether there is a unit that a save joins.
    #[cfg(feature = "engine")]
    pub(crate) fn is_unit_open(&self) -> bool {
        self.layers().open.as_ref().is_some_and(|unit| !unit.alone)
    }

    /// Write rows into the open unit, if there is one that may be joined.
    #[cfg(feature = "engine")]
    pub(crate) fn join_unit(&self, rows: &mut Vec<(Row, Option<Plain>)>) -> bool {
        self.moves.engine(rows);
        match self.layers().open.as_mut() {
            Some(unit) if !unit.alone => {
                unit.overlay.extend(rows.drain(..));
                true
            }
            _ => false,
        }
    }

    /// Write rows into the open unit; `false` when there is none.
    pub(crate) fn write_into_unit(&self, rows: &mut Vec<(Row, Option<Plain>)>) -> bool {
        self.moves.engine(rows);
        match self.layers().open.as_mut() {
            Some(unit) => {
                unit.overlay.extend(rows.drain(..));
                true
            }
            None => false,
        }
    }

    /// The plaintext of a row.
    pub(crate) async fn read(&self, row: &[u8], view: View) -> Result<Option<Plain>> {
        if view == View::Committed {
            return self.read_disk(row).await;
        }
        let ahead = self.layers().get(row, view);
        match ahead {
            Some(value) => Ok(value),
            None => self.taint(self.read_disk(row).await),
        }
    }

    async fn read_disk(&self, row: &[u8]) -> Result<Option<Plain>> {
        match self.read_once(row, None).await {
            // Perhaps a commit came between the row and the manifest: once more, without one.
            Err(StoreError::RolledBack { .. }) => {
                let quiet = self.quiet.read().await;
                self.read_once(row, Some(&quiet)).await
            }
            other => other,
        }
    }

    async fn read_once(&self, row: &[u8], quiet: Option<&Quiet<'_>>) -> Result<Option<Plain>> {
        let opened = match self.backend.get(row).await? {
            Some(sealed) => Some(self.sealer.open_record(row, &sealed)?),
            None => None,
        };
        if let Some(leaf) = leaf_of(row) {
            let newest = self.ask(quiet, |manifest| manifest.version(leaf, row)).await?;
            if newest != opened.as_ref().map(|opened| opened.version) {
                return Err(rolled_back(row));
            }
        }
        Ok(opened.map(|opened| Arc::new(opened.value)))
    }

    /// Ask the manifest, loading what it needs.
    async fn ask<T: Send>(
        &self,
        quiet: Option<&Quiet<'_>>,
        question: impl Fn(&Manifest) -> std::result::Result<T, Missing> + Send,
    ) -> Result<T> {
        let answer = question(&self.manifest());
        let mut missing = match answer {
            Ok(answer) => return Ok(answer),
            Err(missing) => missing,
        };
        let _quiet = match quiet {
            Some(_) => None,
            None => Some(self.quiet.read().await),
        };
        loop {
            self.load(missing).await?;
            let answer = question(&self.manifest());
            match answer {
                Ok(answer) => return Ok(answer),
                Err(next) => missing = next,
            }
        }
    }

    /// Load a node of the manifest. No commit is under way.
    pub(crate) async fn load(&self, node: Missing) -> Result<()> {
        let opened = self.node(node).await?;
        let read = opened.as_ref().map(|opened| (opened.version, opened.value.as_slice()));
        self.manifest().load(node, read)
    }

    /// Load a node into another picture of the manifest.
    pub(crate) async fn load_into(&self, node: Missing, manifest: &mut Manifest) -> Result<()> {
        let opened = self.node(node).await?;
        manifest.load(
            node,
            opened.as_ref().map(|opened| (opened.version, opened.value.as_slice())),
        )
    }

    async fn node(&self, node: Missing) -> Result<Option<Opened>> {
        let row = node.row();
        let opened = match self.backend.get(&row).await? {
            Some(sealed) => Some(self.sealer.open_record(&row, &sealed)?),
            None => None,
        };
        Ok(opened)
    }

    /// Rows under a prefix, in order, strictly after `after`, at most `limit`.
    pub(crate) async fn rows(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        view: View,
    ) -> Result<Vec<(Row, Plain)>> {
        let ahead = if view == View::Committed {
            Overlay::new()
        } else {
            self.layers().range(prefix, after, view)
        };
        let read = match self.merged(prefix, after, limit, ahead.clone(), None).await {
            Err(StoreError::RolledBack { .. }) => {
                let quiet = self.quiet.read().await;
                self.merged(prefix, after, limit, ahead, Some(&quiet)).await
            }
            other => other,
        };
        if view == View::Committed {
            read
        } else {
            self.taint(read)
        }
    }

    async fn merged(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        mut ahead: Overlay,
        quiet: Option<&Quiet<'_>>,
    ) -> Result<Vec<(Row, Plain)>> {
        let mut expected = self.ask(quiet, |manifest| manifest.under(prefix, after)).await?;
        let guarded = leaf_of(prefix).is_some();
        let mut found: Vec<(Row, Plain)> = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while found.len() < limit {
            let page = self.backend.scan(prefix, after.as_deref(), PAGE).await?;
            let last_page = page.len() < PAGE;
            for (row, sealed) in page {
                after = Some(row.clone());
                let opened = self.sealer.open_record(&row, &sealed)?;
                if guarded && expected.pop_first() != Some((row.clone(), opened.version)) {
                    return Err(rolled_back(&row));
                }
                // What is ahead of the disk before this row comes first.
                let behind = ahead.split_off(&row);
                let before = std::mem::replace(&mut ahead, behind);
                found.extend(before.into_iter().filter_map(|(row, value)| Some((row, value?))));
                match ahead.remove(&row) {
                    Some(Some(value)) => found.push((row, value)),
                    Some(None) => {}
                    None => found.push((row, Arc::new(opened.value))),
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
            if let Some((row, _)) = expected.pop_first() {
                return Err(rolled_back(&row));
            }
            found.extend(ahead.into_iter().filter_map(|(row, value)| Some((row, value?))));
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
        passing: bool,
    ) -> Result<Vec<Record>> {
        let rows = self
            .rows(prefix, after.map(|cursor| cursor.row.as_slice()), limit, view)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(row, value)| Record {
                cursor: Cursor { row, passing },
                value,
            })
            .collect())
    }
}

fn rolled_back(row: &[u8]) -> StoreError {
    StoreError::RolledBack {
        what: Table::of(row).map_or("the list of what it holds", Table::name),
    }
}

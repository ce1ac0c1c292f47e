//! Commits: units that ended queue up, and all that wait when the disk is free go to it together, in order.
//!
//! # Why
//! A flush of the disk costs the same for one unit and for many. The next unit begins while the one before is being
//! written, on top of what it wrote; as each is answered only when it is on the disk, and units reach it in order,
//! nobody learns of anything that a crash could take back. When a write fails, it takes with it whatever was built on
//! top of it, and the store is poisoned.

use std::{
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Waker},
};

use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    Result, StoreError,
    backend::{BackendError, Batch},
    layers::{Core, Overlay},
    manifest::{Change, Manifest, Missing, ROOT_ROW, Root, leaf_of},
    seal::{Sealer, Unsealed},
};

/// Units that ended and are not on the disk yet, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// What is being written.
    writing: Option<Arc<Overlay>>,
    waiting: VecDeque<Waiting>,
    /// A task is writing, or about to.
    active: bool,
}

#[derive(Debug)]
struct Waiting {
    overlay: Arc<Overlay>,
    done: oneshot::Sender<Result<()>>,
}

impl Queue {
    /// What is not on the disk yet, the newest last.
    pub(crate) fn overlays(&self) -> impl DoubleEndedIterator<Item = &Overlay> {
        let waiting = self.waiting.iter().map(|waiting| &waiting.overlay);
        self.writing.iter().chain(waiting).map(AsRef::as_ref)
    }
}

/// A unit of work that ended, on its way to the disk. It gets there whether this is waited for or not.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// let (one, two) = (store.begin().await?, RecordId::named(Family::new("seen"), &[], "1"));
/// one.put(&two, &1)?;
/// let on_its_way = one.submit()?;
/// // The next unit begins on top of it, while the disk is busy.
/// let next = store.begin().await?;
/// assert_eq!(next.get::<u32>(&two).await?, Some(1));
/// next.commit().await?;
/// on_its_way.durable().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a unit is durable when `durable` says so"]
pub struct Submitted(oneshot::Receiver<Result<()>>);

impl Submitted {
    /// Wait until the unit, and everything before it, is on the disk.
    ///
    /// # Errors
    /// Of the engine: it is not known what was written, and the store is poisoned. [`StoreError::Poisoned`] when it was
    /// together with a unit, or behind one, that failed so.
    ///
    /// # Cancel safety
    /// Safe: the write goes on.
    pub async fn durable(self) -> Result<()> {
        self.0.await.unwrap_or(Err(StoreError::Poisoned))
    }
}

impl Core {
    /// The open unit ends: it is on its way to the disk, and the next may begin.
    pub(crate) fn submit(self: &Arc<Self>) -> Result<Submitted> {
        let (submitted, writer) = self.enqueue()?;
        if let Some((runtime, writer)) = writer {
            // A runtime that is shut down drops the writer here.
            runtime.spawn(write_queue(writer));
        }
        Ok(submitted)
    }

    /// As [`submit`](Self::submit), for one who waits at once: the write begins on this thread, because the way to
    /// another one takes longer than sealing a few records.
    pub(crate) fn submit_and_begin(self: &Arc<Self>) -> Result<Submitted> {
        let (submitted, writer) = self.enqueue()?;
        if let Some((runtime, writer)) = writer {
            let mut queue = Box::pin(write_queue(writer));
            // Only its beginning: the runtime drives it from here on, so that it waits for nobody who waits for it.
            let nobody = &mut Context::from_waker(Waker::noop());
            let begun = catch_unwind(AssertUnwindSafe(|| queue.as_mut().poll(nobody)));
            // An engine that panics ends the writer, here as in its task.
            if begun.is_ok_and(|begun| begun.is_pending()) {
                runtime.spawn(queue);
            }
        }
        Ok(submitted)
    }

    /// The open unit ends and waits to be written: by what comes with it, or by what is writing.
    fn enqueue(self: &Arc<Self>) -> Result<(Submitted, Option<(Handle, Writer)>)> {
        // The layer above needs a runtime anyway: the engines work on its blocking threads.
        let runtime = Handle::try_current().map_err(|error| {
            StoreError::Backend(BackendError::with_source(crate::backend::BackendErrorKind::Io, error))
        })?;
        self.check_writable()?;
        let (done, durable) = oneshot::channel();
        let mut layers = self.layers();
        let Some(unit) = layers.open.take_if(|unit| !unit.failed) else {
            return Err(StoreError::UnitFailed);
        };
        if unit.overlay.is_empty() && !layers.queue.active {
            let _answered = done.send(Ok(()));
            return Ok((Submitted(durable), None));
        }
        layers.queue.waiting.push_back(Waiting {
            overlay: Arc::new(unit.overlay),
            done,
        });
        let idle = !std::mem::replace(&mut layers.queue.active, true);
        drop(layers);
        let writer = idle.then(|| Writer {
            core: Arc::clone(self),
            by_itself: false,
        });
        Ok((Submitted(durable), writer.map(|writer| (runtime, writer))))
    }

    /// Wait until nothing is on its way to the disk.
    pub(crate) async fn until_idle(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if !self.layers().queue.active {
                return;
            }
            idle.await;
        }
    }

    /// Seal an overlay and write it, durably, in one commit.
    async fn write(&self, overlay: &Overlay) -> Result<()> {
        self.check_writable()?;
        if overlay.is_empty() {
            return Ok(());
        }
        let _loud = self.quiet.write().await;
        let change = self.change(overlay).await?;
        let batch = sealed_batch(&self.sealer, overlay, change.as_ref())?;
        if let Err(error) = self.backend.commit(batch).await {
            self.forget_manifest().await;
            return Err(error.into());
        }
        if let Some(change) = change {
            self.manifest().apply(change);
        }
        Ok(())
    }

    /// What becomes of the manifest. No other commit is under way.
    async fn change(&self, overlay: &Overlay) -> Result<Option<Change>> {
        loop {
            let change = change_of(&self.manifest(), overlay);
            match change {
                Ok(change) => return Ok(change),
                Err(missing) => self.load(missing).await?,
            }
        }
    }

    /// It is not known what a failed commit wrote. What is read from now on is held against what the disk says.
    async fn forget_manifest(&self) {
        let root = match self.backend.get(ROOT_ROW).await {
            Ok(Some(sealed)) => self
                .sealer
                .open_record(ROOT_ROW, &sealed)
                .and_then(|opened| Root::decode(&opened.value)),
            _ => return,
        };
        if let Ok(root) = root {
            *self.manifest() = Manifest::new(root);
        }
    }
}

/// What an overlay changes in the manifest.
pub(crate) fn change_of(manifest: &Manifest, overlay: &Overlay) -> std::result::Result<Option<Change>, Missing> {
    let guarded = overlay
        .iter()
        .filter_map(|(row, value)| Some((leaf_of(row)?, row.as_slice(), value.is_some())));
    manifest.change(guarded)
}

/// An overlay and what it changes in the manifest, sealed.
pub(crate) fn sealed_batch(sealer: &Sealer, overlay: &Overlay, change: Option<&Change>) -> Result<Batch> {
    let newest = change.map_or(0, |change| change.root.counter);
    let nodes = change.map_or_else(Vec::new, Change::rows);
    let records = overlay.iter().map(|(row, value)| {
        let version = if leaf_of(row).is_some() { newest } else { 0 };
        (row, version, value.as_ref().map(|value| value.as_slice()))
    });
    let nodes = nodes.iter().map(|(row, value)| (row, newest, value.as_deref()));
    let (mut puts, mut gone) = (Vec::with_capacity(overlay.len()), Vec::new());
    for (row, version, value) in records.chain(nodes) {
        match value {
            Some(value) => puts.push(Unsealed { row, version, value }),
            None => gone.push(row),
        }
    }
    // A row is among them once, so that their order is of no matter.
    let sealed = sealer.seal_all(&puts)?;
    let batch = Batch::new();
    let batch = puts
        .iter()
        .zip(sealed)
        .fold(batch, |batch, (record, sealed)| batch.put(record.row, sealed));
    Ok(gone.into_iter().fold(batch, |batch, row| batch.delete(row.as_slice())))
}

/// Write what waits until nothing does.
async fn write_queue(mut writer: Writer) {
    let core = Arc::clone(&writer.core);
    loop {
        let (overlay, units) = {
            let mut layers = core.layers();
            let queue = &mut layers.queue;
            if queue.waiting.is_empty() {
                queue.active = false;
                writer.by_itself = true;
                return;
            }
            let units = std::mem::take(&mut queue.waiting);
            let overlay = merge(&units);
            queue.writing = Some(Arc::clone(&overlay));
            (overlay, units)
        };
        let written = Box::pin(core.write(&overlay)).await;
        if written.is_err() {
            core.poison();
        }
        let late = {
            let mut layers = core.layers();
            layers.queue.writing = None;
            if written.is_err() {
                if let Some(unit) = layers.open.as_mut() {
                    unit.failed = true;
                }
                std::mem::take(&mut layers.queue.waiting)
            } else {
                VecDeque::new()
            }
        };
        if written.is_err() {
            core.count_undone();
        }
        answer(units, written);
        for unit in late {
            let _gone = unit.done.send(Err(StoreError::Poisoned));
        }
    }
}

/// What several units write, in their order.
fn merge(units: &VecDeque<Waiting>) -> Arc<Overlay> {
    match units.front() {
        Some(only) if units.len() == 1 => Arc::clone(&only.overlay),
        _ => {
            let rows = units.iter().flat_map(|unit| unit.overlay.iter());
            Arc::new(rows.map(|(row, value)| (row.clone(), value.clone())).collect())
        }
    }
}

/// Each unit learns how the write ended; the error itself goes to the first.
fn answer(units: VecDeque<Waiting>, written: Result<()>) {
    let mut error = written.err();
    let failed = error.is_some();
    for unit in units {
        let result = match error.take() {
            Some(error) => Err(error),
            None if failed => Err(StoreError::Poisoned),
            None => Ok(()),
        };
        // Whoever does not wait any more does not want to know.
        let _gone = unit.done.send(result);
    }
}

/// The task that writes. However it ends, also before it began, nobody waits for it for ever: when it did not end by
/// itself, it is not known what was written.
struct Writer {
    core: Arc<Core>,
    by_itself: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.by_itself {
            self.core.poison();
            {
                let mut layers = self.core.layers();
                layers.queue = Queue::default();
                if let Some(unit) = layers.open.as_mut() {
                    unit.failed = true;
                }
            }
            self.core.count_undone();
        }
        self.core.idle.notify_waiters();
    }
}

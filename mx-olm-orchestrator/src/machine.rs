//! The one place that opens, lends and rebuilds the engine's `OlmMachine`.
//!
//! # Why
//! The machine keeps state in memory that is ahead of the disk while it works. It is therefore lent to one unit of
//! work at a time, and thrown away whenever that unit does not commit: the next one builds it again from the store,
//! so that memory is never ahead of what a crash would leave. The work runs on a task of its own: a caller who drops
//! the future of a send does not stop a unit in the middle.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{PickleStore, Unit};
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{Error, Result, send::outbox};

/// How long what the homeserver has may stay in the outbox, when no unit of work comes by.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(1);

/// A future of a unit's work.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// How a unit of work that met no error ends.
pub(crate) enum Ending<T> {
    /// Everything is committed.
    Commit(T),
    /// Everything is committed, and the machine is built again: its memory is not what the store has.
    CommitAndRebuild(T),
    /// Everything is undone, on purpose.
    Undo(T),
}

/// The machine of one device, or the place where it will be built.
#[derive(Debug)]
pub(crate) struct MachineSlot {
    store: PickleStore,
    user: OwnedUserId,
    device: OwnedDeviceId,
    slot: Mutex<Option<OlmMachine>>,
    confirmed: StdMutex<Confirmed>,
}

/// Parcels that the homeserver has: the next unit that commits takes them out of the outbox.
#[derive(Debug, Default)]
struct Confirmed {
    positions: Vec<u64>,
    /// Does it where no unit comes by.
    last_resort: Option<JoinHandle<()>>,
}

impl MachineSlot {
    /// Open or mint the device: one unit of work, so that a crash leaves an account with its device or neither.
    pub(crate) async fn open(store: PickleStore, user: OwnedUserId, device: OwnedDeviceId) -> Result<Arc<Self>> {
        if let Some(found) = store.device().await?
            && found != (user.clone(), device.clone())
        {
            return Err(Error::StoreOfAnotherDevice {
                expected: (user, device),
                found,
            });
        }
        let slot = Arc::new(Self {
            store,
            user,
            device,
            slot: Mutex::new(None),
            confirmed: StdMutex::default(),
        });
        slot.unit(|_, _| Box::pin(async { Ok(Ending::Commit(())) })).await?;
        Ok(slot)
    }

    /// Run `work` in a unit of work: all of its writes and the engine's are durable when this returns `Ok`, unless
    /// it asked for [`Ending::Undo`].
    ///
    /// # Errors
    /// Of the work, of the store; [`Error::EngineStopped`] when the engine panicked. Nothing is changed then.
    ///
    /// # Cancel safety
    /// The unit runs to its end even when this future is dropped.
    pub(crate) async fn unit<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a OlmMachine, &'a Unit) -> Work<'a, Ending<T>> + Send + 'static,
    {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut slot = this.slot.lock().await;
            let unit = this.store.begin().await?;
            let ended = AssertUnwindSafe(async {
                let machine = match slot.take() {
                    Some(machine) => machine,
                    None => {
                        Box::pin(OlmMachine::with_store(
                            &this.user,
                            &this.device,
                            this.store.clone(),
                            None,
                        ))
                        .await?
                    }
                };
                let ending = work(&machine, &unit).await?;
                Ok::<_, Error>((machine, ending))
            })
            .catch_unwind()
            .await;
            match ended {
                Ok(Ok((machine, ending))) => {
                    let (kept, value) = match ending {
                        Ending::Commit(value) => (Some(machine), value),
                        Ending::CommitAndRebuild(value) => (None, value),
                        Ending::Undo(value) => {
                            unit.abort().await?;
                            return Ok(value);
                        }
                    };
                    this.forget_confirmed(&unit)?;
                    let submitted = unit.submit()?;
                    // The next unit goes on with this machine while the disk works: they reach it in order, and when
                    // one fails nothing that was built on it is committed.
                    *slot = kept;
                    drop(slot);
                    let durable = submitted.durable().await;
                    if durable.is_err() {
                        this.slot.lock().await.take();
                    }
                    durable?;
                    Ok(value)
                }
                Ok(Err(error)) => {
                    unit.abort().await?;
                    Err(error)
                }
                Err(_panic) => {
                    tracing::error!("the engine panicked in a unit of work, which is undone");
                    unit.abort().await?;
                    Err(Error::EngineStopped)
                }
            }
        });
        task.await.map_err(|_| Error::EngineStopped)?
    }

    /// A parcel is not needed any more: it leaves the outbox with the next unit of work, or a moment later.
    pub(crate) fn forget_soon(self: &Arc<Self>, position: u64) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.positions.push(position);
        if confirmed.last_resort.as_ref().is_none_or(JoinHandle::is_finished) {
            let this = Arc::downgrade(self);
            confirmed.last_resort = Some(tokio::spawn(async move {
                tokio::time::sleep(FORGOTTEN_WITHIN).await;
                if let Some(this) = this.upgrade()
                    && let Err(error) = this.settle().await
                {
                    // It is put once more by the next process, and the homeserver takes it once.
                    tracing::warn!(code = error.code(), "the outbox could not be tidied");
                }
            }));
        }
    }

    /// Take out of the outbox what the homeserver has.
    async fn settle(self: &Arc<Self>) -> Result<()> {
        let is_settled = {
            let confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            confirmed.positions.is_empty()
        };
        if is_settled {
            return Ok(());
        }
        self.unit(|_, _| Box::pin(async { Ok(Ending::Commit(())) })).await
    }

    fn forget_confirmed(&self, unit: &Unit) -> Result<()> {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        for position in confirmed.positions.drain(..) {
            outbox::forget(unit, position)?;
        }
        Ok(())
    }

    /// Finish what is left to do, and drop the machine, so that the store can be closed.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        let settled = if self.store.is_poisoned() {
            Ok(())
        } else {
            self.settle().await
        };
        let last_resort = self.last_resort();
        if let Some(task) = last_resort {
            task.abort();
        }
        self.slot.lock().await.take();
        settled
    }

    fn last_resort(&self) -> Option<JoinHandle<()>> {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.last_resort.take()
    }
}

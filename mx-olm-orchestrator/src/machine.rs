//! The one place that opens, lends and rebuilds the engine's `OlmMachine`.
//!
//! # Why
//! The machine keeps state in memory that is ahead of the disk while it works. It is therefore lent to one unit of
//! work at a time, and thrown away whenever that unit does not commit: the next one builds it again from the store,
//! so that memory is never ahead of what a crash would leave. The work runs on a task of its own: a caller who drops
//! the future of a send does not stop a unit in the middle.

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc};

use futures_util::FutureExt;
use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{PickleStore, Unit};
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::sync::Mutex;

use crate::{Error, Result};

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

    /// Drop the machine, so that the store can be closed.
    pub(crate) async fn close(&self) {
        self.slot.lock().await.take();
    }
}

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
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{PickleStore, Submitted, Unit};
use ruma::{OwnedDeviceId, OwnedUserId};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
};

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
    slot: Arc<Mutex<Option<OlmMachine>>>,
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
            slot: Arc::default(),
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
    /// # Ordering
    /// Units begin in the order of the calls, as they were first polled.
    ///
    /// # Cancel safety
    /// The unit runs to its end even when this future is dropped.
    pub(crate) async fn unit<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a OlmMachine, &'a Unit) -> Work<'a, Ending<T>> + Send + 'static,
    {
        // It is in line here and not when its task begins: tasks begin in any order, and who comes after a call that was
        // dropped relies on what that one began having ended.
        let turn = self.stand_in_line();
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut slot = turn.await;
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
                    let submitted = this.submit(unit)?;
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

    /// The machine, for whoever is next in line.
    fn stand_in_line(&self) -> impl Future<Output = OwnedMutexGuard<Option<OlmMachine>>> + Send + use<> {
        // The lock is fair from the first time that it is asked.
        let mut turn = Box::pin(Arc::clone(&self.slot).lock_owned());
        let taken = (&mut turn).now_or_never();
        async move {
            match taken {
                Some(slot) => slot,
                None => turn.await,
            }
        }
    }

    /// A parcel is not needed any more: it leaves the outbox with the next unit of work, or a moment later.
    pub(crate) fn forget_soon(self: &Arc<Self>, position: u64) {
        let mut confirmed = self.confirmed();
        confirmed.positions.push(position);
        if confirmed.last_resort.is_none() {
            confirmed.last_resort = Some(tokio::spawn(Self::settle_later(Arc::downgrade(self))));
        }
    }

    /// Settle what no unit has settled, until there is nothing.
    async fn settle_later(slot: Weak<Self>) {
        loop {
            tokio::time::sleep(FORGOTTEN_WITHIN).await;
            let Some(this) = slot.upgrade() else { return };
            let settled = this.settle().await;
            if let Err(error) = &settled {
                // It is put once more by the next process, and the homeserver takes it once.
                tracing::warn!(code = error.code(), "the outbox could not be tidied");
            }
            let mut confirmed = this.confirmed();
            if settled.is_err() || confirmed.positions.is_empty() {
                // Under the lock: what is confirmed after this finds nobody, and calls another.
                confirmed.last_resort = None;
                return;
            }
        }
    }

    fn confirmed(&self) -> MutexGuard<'_, Confirmed> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take out of the outbox what the homeserver has.
    async fn settle(self: &Arc<Self>) -> Result<()> {
        let is_settled = self.confirmed().positions.is_empty();
        if is_settled {
            return Ok(());
        }
        self.unit(|_, _| Box::pin(async { Ok(Ending::Commit(())) })).await
    }

    /// The unit goes to the disk, and takes along what is not needed any more.
    fn submit(&self, unit: Unit) -> Result<Submitted> {
        let positions = std::mem::take(&mut self.confirmed().positions);
        let forgotten = positions
            .iter()
            .try_for_each(|position| outbox::forget(&unit, *position));
        let submitted = forgotten.and_then(|()| Ok(unit.submit()?));
        if submitted.is_err() {
            self.confirmed().positions.extend(positions);
        }
        submitted
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
        self.confirmed().last_resort.take()
    }
}

#[cfg(test)]
mod tests {
    use mx_crypto_store::{KeySource, StoreKey, backend::Memory};
    use ruma::{device_id, user_id};

    use super::*;

    #[tokio::test]
    async fn units_have_their_turns_in_the_order_of_the_calls() {
        let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
        let store = PickleStore::open(Arc::new(Memory::new()), key).await.unwrap();
        let slot = MachineSlot::open(store, user_id!("@a:b").to_owned(), device_id!("D").to_owned())
            .await
            .unwrap();
        let held = slot.stand_in_line().await;
        let first = slot.stand_in_line();
        let second = slot.stand_in_line();
        drop(held);
        tokio::task::yield_now().await;
        assert!(
            Box::pin(second).now_or_never().is_none(),
            "the first has not had its turn"
        );
        assert!(Box::pin(first).now_or_never().is_some());
    }
}

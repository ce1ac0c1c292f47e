//! The handle of an embedded engine: used by one caller at a time, on threads that may wait for the disk, and not a
//! second time after a panic inside of it.
//!
//! # Why a fair lock, taken before the thread
//! A caller who is dropped while his work runs does not stop it. Taken on the thread, the lock could go to a later caller
//! first, and the older batch would overwrite the newer one. Callers have their turns in the order in which they came;
//! who is dropped before his turn has done nothing.
//!
//! # Why a read stays on its thread
//! A row in the page cache is read in a few microseconds, and the way to another thread and back takes four times that.
//! A row that has to come from the disk keeps its caller's thread for as long as that takes; writes, which wait for the
//! disk by design, never do.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{BackendError, BackendErrorKind as Kind};

/// An engine's handle behind a lock. Dropped, it closes the engine when what is under way has ended.
pub(super) struct Worker<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    handle: Option<T>,
    /// It panicked, so that its memory is not to be trusted.
    broken: bool,
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        discard(self.handle.take());
    }
}

impl<T> Slot<T> {
    fn use_for<R>(&mut self, work: impl FnOnce(&mut T) -> Result<R, BackendError>) -> Result<R, BackendError> {
        let Some(handle) = self.handle.as_mut() else {
            return Err(if self.broken {
                panicked()
            } else {
                BackendError::new(Kind::Closed)
            });
        };
        match catch_unwind(AssertUnwindSafe(|| work(handle))) {
            Ok(result) => result,
            Err(_) => {
                self.broken = true;
                discard(self.handle.take());
                Err(panicked())
            }
        }
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Open an engine.
    pub(super) async fn open(
        work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
    ) -> Result<Self, BackendError> {
        let handle = blocking(move || guarded(work)).await?;
        Ok(Self(Arc::new(Mutex::new(Slot {
            handle: Some(handle),
            broken: false,
        }))))
    }

    /// Use it, after everybody who came before.
    pub(super) async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R, BackendError> + Send + 'static,
    ) -> Result<R, BackendError> {
        let mut slot = Arc::clone(&self.0).lock_owned().await;
        blocking(move || slot.use_for(work)).await
    }

    /// Use it for a read: on the caller's own thread where nobody else uses it, after everybody who came before where
    /// somebody does.
    pub(super) async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R, BackendError> + Send + 'static,
    ) -> Result<R, BackendError> {
        if let Ok(mut slot) = self.0.try_lock() {
            return slot.use_for(work);
        }
        self.with(work).await
    }

    /// Close it in the engine's way. Closing what is closed is `Ok`.
    pub(super) async fn close(
        &self,
        finish: impl FnOnce(T) -> Result<(), BackendError> + Send + 'static,
    ) -> Result<(), BackendError> {
        let mut slot = Arc::clone(&self.0).lock_owned().await;
        blocking(move || {
            slot.broken = false;
            slot.handle
                .take()
                .map_or(Ok(()), |handle| guarded(move || finish(handle)))
        })
        .await
    }
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

/// Some engines panic while they open or close what is damaged. The message is for standard error, where the panic
/// hook has put it; it may quote a row, so that it goes no further.
fn guarded<R>(work: impl FnOnce() -> Result<R, BackendError>) -> Result<R, BackendError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

fn discard<T>(handle: Option<T>) {
    if catch_unwind(AssertUnwindSafe(move || drop(handle))).is_err() {
        tracing::warn!("the storage engine panicked while it was closed");
    }
}

fn panicked() -> BackendError {
    BackendError::with_source(
        Kind::Corrupt,
        "the storage engine panicked, which it does when its files are damaged",
    )
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, BackendError> + Send + 'static,
) -> Result<R, BackendError> {
    // Nothing in `work` panics past its guard: this fails when the runtime is shut down.
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| BackendError::with_source(Kind::Io, error))?
}

//! A backend whose n-th operation fails, never returns, or is the process's last.

use std::{
    mem::take,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind, Batch, Promises};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::home::Home;

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Fails,
    /// Whoever waits for it gives up.
    Hangs,
    /// The process is killed.
    Kills,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Of which operation, counted from now: reads and writes.
    pub(crate) at: usize,
    pub(crate) how: How,
    /// A write took effect before.
    pub(crate) after: bool,
}

/// A fault that came.
#[derive(Debug)]
pub(crate) struct Fired<H> {
    pub(crate) fault: Fault,
    pub(crate) write: bool,
    /// It was the store's own task, which writes whether it is waited for or not, and poisons the store when it cannot.
    pub(crate) by_writer: bool,
    /// What the killed process left.
    pub(crate) left: Option<H>,
}

/// What is to happen to a backend, and what happened.
#[derive(Debug)]
pub(crate) struct Plan<H> {
    state: Mutex<State<H>>,
    pub(crate) hung: Notify,
    /// Who hangs may end with an error.
    pub(crate) released: Notify,
}

#[derive(Debug)]
struct State<H> {
    armed: Option<Fault>,
    fired: Option<Fired<H>>,
    commits: usize,
    /// Images from before and after each commit.
    images: Option<Vec<H>>,
}

impl<H> Plan<H> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            armed: None,
            fired: None,
            commits: 0,
            images: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            hung: Notify::new(),
            released: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn arm(&self, fault: Option<Fault>) {
        self.state().armed = fault;
    }

    /// No fault comes any more. What came?
    pub(crate) fn disarm(&self) -> Option<Fired<H>> {
        let mut state = self.state();
        state.armed = None;
        state.fired.take()
    }

    /// How many writes the backend was asked for.
    pub(crate) fn commits(&self) -> usize {
        self.state().commits
    }

    /// Take images from now on.
    pub(crate) fn watch(&self) {
        self.state().images = Some(Vec::new());
    }

    /// The images since the last call.
    pub(crate) fn images(&self) -> Vec<H> {
        self.state().images.as_mut().map(take).unwrap_or_default()
    }

    /// Whether this operation has the fault.
    fn next(&self, write: bool) -> Option<Fault> {
        let mut state = self.state();
        state.commits += usize::from(write);
        let fault = state.armed.as_mut()?;
        if fault.at > 0 {
            fault.at -= 1;
            return None;
        }
        state.armed.take()
    }
}

/// The backend.
#[derive(Debug)]
pub(crate) struct Faulty<H> {
    pub(crate) inner: Arc<dyn Backend>,
    pub(crate) home: Arc<H>,
    pub(crate) plan: Arc<Plan<H>>,
}

impl<H: Home> Faulty<H> {
    async fn fire<T>(&self, fault: Fault, write: bool) -> Result<T, BackendError> {
        let left = match fault.how {
            How::Kills => Some(self.home.image(&*self.inner).await),
            How::Fails | How::Hangs => None,
        };
        // The store begins to write on the caller's thread, outside of any task: what has to wait goes on in its own.
        tokio::task::yield_now().await;
        let by_writer = tokio::task::try_id().is_some();
        self.plan.state().fired = Some(Fired {
            fault,
            write,
            by_writer,
            left,
        });
        if fault.how == How::Hangs {
            self.plan.hung.notify_one();
            self.plan.released.notified().await;
        }
        Err(BackendError::new(BackendErrorKind::Io))
    }

    async fn picture(&self) {
        if self.plan.state().images.is_some() {
            let image = self.home.image(&*self.inner).await;
            self.plan.state().images.get_or_insert_default().push(image);
        }
    }
}

#[async_trait]
impl<H: Home> Backend for Faulty<H> {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        match self.plan.next(false) {
            Some(fault) => self.fire(fault, false).await,
            None => self.inner.get(row).await,
        }
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        match self.plan.next(false) {
            Some(fault) => self.fire(fault, false).await,
            None => self.inner.scan(prefix, after, limit).await,
        }
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        let Some(fault) = self.plan.next(true) else {
            self.picture().await;
            let done = self.inner.commit(batch).await;
            self.picture().await;
            return done;
        };
        if fault.after {
            self.inner.commit(batch).await?;
        }
        self.fire(fault, true).await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.inner.compact().await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.inner.size_bytes().await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.inner.close().await
    }
}

/// Any of them. Most operations read little, so that faults are early ones.
pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    let how = prop_oneof![2 => Just(How::Fails), 1 => Just(How::Hangs), 2 => Just(How::Kills)];
    let at = prop_oneof![4 => 0..3_usize, 1 => 3..12_usize];
    (at, how, any::<bool>()).prop_map(|(at, how, after)| Fault { at, how, after })
}

//! An engine's panics, caught: they become errors where they happen, and the engine is not asked again.
//!
//! # Why
//! The engines of this crate catch their own panics; one from elsewhere may not. A panic would go through whoever reads,
//! as the orchestrator between two units of work, and nobody knows in what state it left the engine.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use async_trait::async_trait;

use super::{Backend, BackendError, BackendErrorKind as Kind, Batch, Promises};

/// An engine that does not panic.
#[derive(Debug)]
pub(crate) struct Caught {
    engine: Arc<dyn Backend>,
    panicked: AtomicBool,
}

impl Caught {
    pub(crate) fn over(engine: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self {
            engine,
            panicked: AtomicBool::new(false),
        })
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, BackendError>> + Send) -> Result<T, BackendError> {
        if self.panicked.load(Ordering::SeqCst) {
            return Err(panicked());
        }
        self.caught(call).await
    }

    async fn caught<T>(&self, call: impl Future<Output = Result<T, BackendError>> + Send) -> Result<T, BackendError> {
        let mut call = pin!(call);
        poll_fn(
            |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
                Ok(polled) => polled,
                Err(_) => {
                    self.panicked.store(true, Ordering::SeqCst);
                    tracing::error!("the storage engine panicked, and is not asked again");
                    Poll::Ready(Err(panicked()))
                }
            },
        )
        .await
    }
}

fn panicked() -> BackendError {
    BackendError::with_source(Kind::Io, "the storage engine panicked: open the store again")
}

#[async_trait]
impl Backend for Caught {
    fn promises(&self) -> Promises {
        self.engine.promises()
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.call(self.engine.get(row)).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.call(self.engine.scan(prefix, after, limit)).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.call(self.engine.commit(batch)).await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.call(self.engine.compact()).await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.call(self.engine.size_bytes()).await
    }

    /// Also after a panic: the lock is to be released.
    async fn close(&self) -> Result<(), BackendError> {
        self.caught(self.engine.close()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Memory, MemoryDisk};

    /// It panics at every read of this row.
    #[derive(Debug)]
    struct Panics(Memory);

    #[async_trait]
    impl Backend for Panics {
        fn promises(&self) -> Promises {
            self.0.promises()
        }

        async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
            if row == b"bad" {
                std::panic::resume_unwind(Box::new("stop"));
            }
            self.0.get(row).await
        }

        async fn scan(
            &self,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
            self.0.scan(prefix, after, limit).await
        }

        async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
            self.0.commit(batch).await
        }

        async fn compact(&self) -> Result<(), BackendError> {
            self.0.compact().await
        }

        async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
            self.0.size_bytes().await
        }

        async fn close(&self) -> Result<(), BackendError> {
            self.0.close().await
        }
    }

    #[tokio::test]
    async fn an_engine_that_panicked_is_closed_and_not_asked_again() {
        let disk = MemoryDisk::new();
        let engine = Caught::over(Arc::new(Panics(Memory::open(&disk).unwrap())));
        engine.commit(Batch::new().put("good", "1")).await.unwrap();
        assert!(engine.get(b"good").await.unwrap().is_some());
        assert_eq!(engine.get(b"bad").await.unwrap_err().kind(), Kind::Io);
        assert_eq!(engine.get(b"good").await.unwrap_err().kind(), Kind::Io);
        assert_eq!(engine.commit(Batch::new()).await.unwrap_err().kind(), Kind::Io);
        engine.close().await.unwrap();
        assert!(Memory::open(&disk).is_ok(), "the lock is free");
    }
}

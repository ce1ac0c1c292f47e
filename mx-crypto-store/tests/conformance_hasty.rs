//! A kill finds engines that acknowledge too early, or write a batch in two.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{panic::catch_unwind, path::PathBuf};

use async_trait::async_trait;
use mx_crypto_store::{
    backend::{Backend, BackendError, Batch, Promises, Write},
    conformance,
};

#[path = "../examples/own_engine.rs"]
#[expect(dead_code, reason = "an example has a main")]
mod own_engine;

fn only(writes: Vec<Write>) -> Batch {
    Batch {
        expect: Vec::new(),
        writes,
    }
}

/// An engine on files that says `Ok` before it writes, or writes a batch in two.
#[derive(Debug)]
struct Hasty {
    inner: own_engine::Log,
    waiting: tokio::sync::Mutex<Vec<Write>>,
    in_two: bool,
}

#[async_trait]
impl Backend for Hasty {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.inner.get(row).await
    }
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.inner.scan(prefix, after, limit).await
    }
    async fn commit(&self, mut batch: Batch) -> Result<(), BackendError> {
        let mut waiting = self.waiting.lock().await;
        if self.in_two {
            let rest = batch.writes.split_off(batch.writes.len() / 2);
            self.inner.commit(batch).await?;
            return self.inner.commit(only(rest)).await;
        }
        waiting.extend(batch.writes);
        if waiting.len() < 40 {
            return Ok(());
        }
        self.inner.commit(only(std::mem::take(&mut *waiting))).await
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

/// What the kills say of it.
fn killed(test: &'static str, in_two: bool) -> String {
    let survives = move || {
        conformance::killed::survives(test, 300, |directory: PathBuf| async move {
            let inner = own_engine::Log::open(&directory)?;
            let waiting = tokio::sync::Mutex::default();
            Ok(Box::new(Hasty { inner, waiting, in_two }) as Box<dyn Backend>)
        })
    };
    let found = *catch_unwind(survives).unwrap_err().downcast::<String>().unwrap();
    // A store that was found broken stays, to be looked at: this one was broken on purpose.
    let directory = found
        .split("the store is \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    std::fs::remove_dir_all(directory.unwrap()).unwrap();
    found
}

#[test]
fn a_kill_finds_what_was_acknowledged_and_not_written() {
    let found = killed("a_kill_finds_what_was_acknowledged_and_not_written", false);
    assert!(found.starts_with("clause survives_kill is broken: commit "), "{found}");
}

#[test]
fn a_kill_finds_what_was_written_by_half() {
    let found = killed("a_kill_finds_what_was_written_by_half", true);
    // Rows of the newest commit are missing, or rows of one that is not there are.
    let halves = ["of commit ", "after commit "].map(|half| format!("clause survives_kill is broken: {half}"));
    assert!(halves.iter().any(|half| found.starts_with(half)), "{found}");
}

//! The suite finds engines that are broken on purpose, each by the name of the clause that it breaks.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    panic::catch_unwind,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use mx_crypto_store::{
    backend::{Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Promises, Write},
    conformance,
};
use tokio::{sync::RwLock, task::yield_now};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    EmptyIsAbsent,
    CutsLargeValues,
    ScansBackwards,
    ScansFromAfter,
    ForgetsLimit,
    ForgetsPrefix,
    LosesManyRows,
    WritesRowByRow,
    WritesBackwards,
    IgnoresExpectations,
    ExpectsOnlyTheFirst,
    WritesBeforeConflict,
    ChecksThenWrites,
    DropsHalf,
    DropsLate,
    LosesTheLastCommit,
    OpensTwice,
    ThrowsOutTheFirst,
    IgnoresClosed,
    CompactLosesARow,
    SizeIsZero,
}

/// What outlives a handle.
#[derive(Debug, Default)]
struct World {
    disk: MemoryDisk,
    open: Mutex<Option<Arc<Memory>>>,
    /// What undoes the last commit.
    undo: Mutex<Option<Batch>>,
}

#[derive(Debug)]
struct Mutant {
    inner: Arc<Memory>,
    fault: Fault,
    world: Arc<World>,
    /// Held by a commit, so that what is half done is not seen but by those who look after it was dropped.
    turn: RwLock<()>,
}

async fn open(fault: Fault, world: &Arc<World>) -> Result<Mutant, BackendError> {
    let opened = Memory::open(&world.disk).map(Arc::new);
    let before = world.open.lock().unwrap().clone();
    let inner = match (opened, before) {
        (Err(_), Some(first)) if fault == Fault::OpensTwice => first,
        (Err(_), Some(first)) if fault == Fault::ThrowsOutTheFirst => {
            first.close().await?;
            return Err(BackendError::new(BackendErrorKind::InUse));
        }
        (opened, _) => opened?,
    };
    let undo = world.undo.lock().unwrap().take();
    if let Some(undo) = undo.filter(|_| fault == Fault::LosesTheLastCommit) {
        inner.commit(undo).await?;
    }
    if matches!(fault, Fault::OpensTwice | Fault::ThrowsOutTheFirst) {
        *world.open.lock().unwrap() = Some(Arc::clone(&inner));
    }
    let (world, turn) = (Arc::clone(world), RwLock::default());
    Ok(Mutant {
        inner,
        fault,
        world,
        turn,
    })
}

impl Drop for Mutant {
    fn drop(&mut self) {
        self.world.open.lock().unwrap().take();
    }
}

fn only(writes: Vec<Write>) -> Batch {
    Batch {
        expect: Vec::new(),
        writes,
    }
}

/// What takes back a batch.
async fn undo(inner: &Memory, batch: &Batch) -> Result<Batch, BackendError> {
    let mut before = BTreeMap::new();
    for write in &batch.writes {
        before.insert(write.row.clone(), inner.get(&write.row).await?);
    }
    let before = before.into_iter();
    Ok(only(before.map(|(row, value)| Write { row, value }).collect()))
}

/// A commit that nobody can drop, and that takes the longer the larger it is.
async fn late(inner: Arc<Memory>, batch: Batch) -> Result<(), BackendError> {
    let commit = tokio::spawn(async move {
        for _ in 0..batch.writes.len() / 4 {
            yield_now().await;
        }
        inner.commit(batch).await
    });
    commit.await.unwrap()
}

#[async_trait]
impl Backend for Mutant {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let _turn = self.turn.read().await;
        let value = self.inner.get(row).await;
        match self.fault {
            Fault::IgnoresClosed => Ok(value.unwrap_or(None)),
            Fault::EmptyIsAbsent => Ok(value?.filter(|value| !value.is_empty())),
            Fault::CutsLargeValues => Ok(value?.map(|mut value| {
                value.truncate(1 << 20);
                value
            })),
            _ => value,
        }
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        let _turn = self.turn.read().await;
        let limit = if self.fault == Fault::ForgetsLimit {
            usize::MAX
        } else {
            limit
        };
        let within = if self.fault == Fault::ForgetsPrefix && after.is_some() {
            b""
        } else {
            prefix
        };
        let mut rows = self.inner.scan(within, after, limit).await?;
        match self.fault {
            Fault::ScansBackwards => rows.reverse(),
            Fault::ScansFromAfter => {
                if let Some(after) = after.filter(|after| after.starts_with(prefix))
                    && let Some(value) = self.inner.get(after).await?
                {
                    rows.insert(0, (after.to_vec(), value));
                    rows.truncate(limit);
                }
            }
            Fault::LosesManyRows if rows.len() > 900 => drop(rows.remove(450)),
            _ => {}
        }
        Ok(rows)
    }

    async fn commit(&self, mut batch: Batch) -> Result<(), BackendError> {
        if self.fault == Fault::LosesTheLastCommit {
            *self.world.undo.lock().unwrap() = Some(undo(&self.inner, &batch).await?);
        }
        match self.fault {
            Fault::WritesBackwards => batch.writes.reverse(),
            Fault::IgnoresExpectations => batch.expect.clear(),
            Fault::ExpectsOnlyTheFirst => batch.expect.truncate(1),
            Fault::WritesRowByRow => {
                self.inner
                    .commit(Batch {
                        expect: batch.expect,
                        ..Batch::new()
                    })
                    .await?;
                for write in batch.writes {
                    self.inner.commit(only(vec![write])).await?;
                    yield_now().await;
                }
                return Ok(());
            }
            Fault::WritesBeforeConflict => {
                let half = batch.writes.len() / 2;
                let result = self.inner.commit(batch.clone()).await;
                if result.is_err() {
                    self.inner.commit(only(batch.writes[..half].to_vec())).await?;
                }
                return result;
            }
            Fault::ChecksThenWrites => {
                self.inner
                    .commit(Batch {
                        expect: batch.expect,
                        ..Batch::new()
                    })
                    .await?;
                yield_now().await;
                return self.inner.commit(only(batch.writes)).await;
            }
            Fault::DropsLate => return late(Arc::clone(&self.inner), batch).await,
            Fault::DropsHalf => {
                let _turn = self.turn.write().await;
                self.inner
                    .commit(Batch {
                        expect: batch.expect,
                        ..Batch::new()
                    })
                    .await?;
                let rest = batch.writes.split_off(batch.writes.len() / 2);
                self.inner.commit(only(batch.writes)).await?;
                yield_now().await;
                return self.inner.commit(only(rest)).await;
            }
            _ => {}
        }
        self.inner.commit(batch).await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        let rows = self.inner.scan(b"compact/", None, 1).await?;
        match rows
            .into_iter()
            .next()
            .filter(|_| self.fault == Fault::CompactLosesARow)
        {
            Some((row, _)) => self.inner.commit(Batch::new().delete(row)).await,
            None => Ok(()),
        }
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        let size = self.inner.size_bytes().await?;
        Ok(if self.fault == Fault::SizeIsZero { Some(0) } else { size })
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.inner.close().await
    }
}

/// What the suite says of it: nothing, or the message of its panic.
fn verdict(fault: Fault) -> Option<String> {
    let suite = move || {
        let world = Arc::new(World::default());
        let open = || async { boxed(open(fault, &world).await) };
        runtime().block_on(conformance::all(&open));
    };
    Some(*catch_unwind(suite).err()?.downcast::<String>().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn boxed(opened: Result<Mutant, BackendError>) -> conformance::Opened {
    opened.map(|mutant| Box::new(mutant) as _)
}

#[test]
fn each_is_found_by_the_clause_that_it_breaks() {
    assert_eq!(verdict(Fault::None), None);
    for (fault, clause) in [
        (Fault::EmptyIsAbsent, "get_returns_what_was_put"),
        (Fault::CutsLargeValues, "get_returns_large_values"),
        (Fault::ScansBackwards, "scan_is_ordered"),
        (Fault::ScansFromAfter, "scan_is_ordered"),
        (Fault::ForgetsLimit, "scan_is_ordered"),
        (Fault::ForgetsPrefix, "scan_is_ordered"),
        (Fault::LosesManyRows, "scan_pages_many_rows"),
        (Fault::WritesRowByRow, "commit_is_atomic"),
        (Fault::WritesBackwards, "commit_applies_in_order"),
        (Fault::IgnoresExpectations, "commit_checks_expectations"),
        (Fault::ExpectsOnlyTheFirst, "commit_checks_expectations"),
        (Fault::WritesBeforeConflict, "commit_checks_expectations"),
        (Fault::ChecksThenWrites, "commit_lets_one_of_many_win"),
        (Fault::DropsLate, "dropped_commit_is_all_or_nothing"),
        (Fault::DropsHalf, "dropped_commit_is_all_or_nothing"),
        (Fault::LosesTheLastCommit, "commit_is_durable"),
        (Fault::OpensTwice, "open_is_exclusive"),
        (Fault::ThrowsOutTheFirst, "open_is_exclusive"),
        (Fault::IgnoresClosed, "closed_is_closed"),
        (Fault::CompactLosesARow, "compact_changes_nothing"),
        (Fault::SizeIsZero, "size_is_told"),
    ] {
        let found = verdict(fault).unwrap_or_default();
        assert!(
            found.starts_with(&format!("clause {clause} is broken")),
            "{fault:?} is to break {clause}; the suite says: {found:?}"
        );
    }
}

#[test]
fn the_report_and_the_contract_name_the_same_clauses() {
    let contract = include_str!("../src/backend.rs");
    let names: Vec<&str> = contract
        .lines()
        .filter_map(|line| line.strip_prefix("/// - `")?.split('`').next())
        .collect();
    let world = Arc::new(World::default());
    let open = || async { boxed(open(Fault::None, &world).await) };
    let report = runtime().block_on(conformance::all(&open));
    let skipped = report.skipped().iter().map(|skipped| skipped.clause);
    assert_eq!(
        report.passed().iter().copied().chain(skipped).collect::<Vec<_>>(),
        names
    );
}

//! Disks and lines for tests of crashes: every operation is counted, and at one of them something happens.
//!
//! # Why the grid of operations is enough
//! Between two operations of the disk or the network nothing changes that outlives the process, and nothing becomes
//! visible to anybody. A kill at any instruction is therefore the same as a kill before or after one of these
//! operations: a [`Plan`] names it by its kind and its number, and [`Trouble::Kill`] lets it never end. From then on
//! every other operation of that process hangs too, so that what is still running of it can change nothing; the test
//! drops what it holds of the process, and opens the disk anew.
//!
//! # The disk
//! A [`Disk`] has a durable image, and behind it what was written and not synced. An honest disk syncs every commit; from
//! [`Trouble::Lie`] on it only says so. [`Disk::crash`] throws away what a power cut would: all that is not synced but
//! for some first commits of it ([`Loss::Prefix`]), or but for any of its single writes ([`Loss::Torn`]). A disk can be
//! [copied](Disk::copy), so that one history has many ends.

mod plan;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind as Kind, Batch, Promises, Write};
use mx_transport::{Transport, TransportError};

use self::plan::Turn;
pub(crate) use self::plan::{Counts, Moment, Operation, Plan, Point, Trouble};
use crate::world::{leaks, seed::Seed};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Some of the first commits, whole.
    Prefix,
    /// Any of the single writes: what no engine promises, and a store must notice.
    Torn,
}

#[derive(Clone, Debug, Default)]
struct Images {
    durable: Rows,
    /// Written, said to be durable, and not.
    unsynced: Vec<Batch>,
    /// It only says that it syncs.
    lies: bool,
    /// Which process has it open; what an earlier one still wants is not done.
    process: u64,
}

/// A disk. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Images>>);

impl Disk {
    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(lock(&self.0).clone())))
    }

    /// Open it, as a process that begins. Whoever had it open is dead.
    pub(crate) fn open(&self, plan: &Plan) -> Arc<dyn Backend> {
        let mut images = lock(&self.0);
        images.process += 1;
        Arc::new(Handle {
            disk: self.clone(),
            process: images.process,
            plan: plan.clone(),
        })
    }

    /// The power is cut, and comes back: what was not synced is gone, but for what `seed` leaves.
    pub(crate) fn crash(&self, seed: &mut Seed, loss: Loss) {
        let mut images = lock(&self.0);
        images.lies = false;
        let unsynced = std::mem::take(&mut images.unsynced);
        match loss {
            Loss::Prefix => {
                let kept = seed.below(unsynced.len() as u64 + 1);
                for batch in unsynced.into_iter().take(usize::try_from(kept).unwrap()) {
                    apply(&mut images.durable, batch.writes);
                }
            }
            Loss::Torn => {
                let mut writes: Vec<Write> = unsynced.into_iter().flat_map(|batch| batch.writes).collect();
                writes.retain(|_| seed.chance(50));
                apply(&mut images.durable, writes);
            }
        }
    }

    /// What a process would find.
    pub(crate) fn content(&self) -> Rows {
        lock(&self.0).seen()
    }

    /// How many commits are not synced.
    pub(crate) fn unsynced(&self) -> usize {
        lock(&self.0).unsynced.len()
    }
}

impl Images {
    /// What the process sees: also what is not synced.
    fn seen(&self) -> Rows {
        let mut rows = self.durable.clone();
        for batch in &self.unsynced {
            apply(&mut rows, batch.writes.clone());
        }
        rows
    }

    fn commit(&mut self, batch: Batch) -> Result<(), BackendError> {
        if !batch.expect.is_empty() {
            let rows = self.seen();
            let differs = |row: &Vec<u8>, value: &Option<Vec<u8>>| rows.get(row) != value.as_ref();
            if batch
                .expect
                .iter()
                .any(|expected| differs(&expected.row, &expected.value))
            {
                return Err(BackendError::new(Kind::Conflict));
            }
        }
        if self.lies {
            self.unsynced.push(batch);
        } else {
            apply(&mut self.durable, batch.writes);
        }
        Ok(())
    }
}

fn apply(rows: &mut Rows, writes: Vec<Write>) {
    for write in writes {
        match write.value {
            Some(value) => rows.insert(write.row, value),
            None => rows.remove(&write.row),
        };
    }
}

impl Plan {
    /// The disk's side of a turn. `Ok`: the operation goes on, or has ended well.
    async fn disk_turn(&self, operation: Operation, moment: Moment, disk: &Disk) -> Result<(), BackendError> {
        self.pause(operation).await;
        match self.turn(operation, "", moment) {
            Turn::GoesOn => Ok(()),
            Turn::Stops(Trouble::Fail(kind)) => Err(BackendError::new(kind)),
            Turn::Stops(Trouble::Panic) => std::panic::resume_unwind(Box::new("the engine stops")),
            Turn::Stops(Trouble::Lie) => {
                lock(&disk.0).lies = true;
                Ok(())
            }
            Turn::Stops(Trouble::Wait) => {
                self.waits().await;
                Ok(())
            }
            Turn::Stops(Trouble::Kill | Trouble::Hang) => std::future::pending().await,
        }
    }
}

/// A disk, opened by one process.
#[derive(Debug)]
struct Handle {
    disk: Disk,
    process: u64,
    plan: Plan,
}

impl Handle {
    async fn images(&self) -> MutexGuard<'_, Images> {
        if lock(&self.disk.0).process != self.process {
            // A task that outlived its process.
            std::future::pending::<()>().await;
        }
        lock(&self.disk.0)
    }
}

#[async_trait]
impl Backend for Handle {
    fn promises(&self) -> Promises {
        Promises {
            survives_kill: true,
            survives_power_cut: true,
        }
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.plan.disk_turn(Operation::Get, Moment::Before, &self.disk).await?;
        let value = self.value(row).await;
        self.plan.disk_turn(Operation::Get, Moment::After, &self.disk).await?;
        Ok(value)
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.plan.disk_turn(Operation::Scan, Moment::Before, &self.disk).await?;
        let rows = self.rows(prefix, after, limit).await;
        self.plan.disk_turn(Operation::Scan, Moment::After, &self.disk).await?;
        Ok(rows)
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.plan
            .disk_turn(Operation::Commit, Moment::Before, &self.disk)
            .await?;
        self.write(batch).await?;
        self.plan.disk_turn(Operation::Commit, Moment::After, &self.disk).await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        Ok(())
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        Ok(None)
    }

    async fn close(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

impl Handle {
    async fn value(&self, row: &[u8]) -> Option<Vec<u8>> {
        let images = self.images().await;
        let unsynced = images.unsynced.iter().rev().flat_map(|batch| batch.writes.iter().rev());
        let mut written = unsynced.filter(|write| write.row == row);
        match written.next() {
            Some(write) => write.value.clone(),
            None => images.durable.get(row).cloned(),
        }
    }

    async fn rows(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let images = self.images().await;
        let seen;
        let rows = if images.unsynced.is_empty() {
            &images.durable
        } else {
            seen = images.seen();
            &seen
        };
        rows.range::<[u8], _>((start, Bound::Unbounded))
            .take_while(|(row, _)| row.starts_with(prefix))
            .take(limit)
            .map(|(row, value)| (row.clone(), value.clone()))
            .collect()
    }

    async fn write(&self, batch: Batch) -> Result<(), BackendError> {
        leaks::look_at_rows(&batch);
        self.images().await.commit(batch)
    }
}

/// The line of one process to its homeserver.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) plan: Plan,
}

impl Line {
    async fn turn(&self, path: &str, moment: Moment) {
        self.plan.pause(Operation::Request).await;
        match self.plan.turn(Operation::Request, path, moment) {
            Turn::Stops(Trouble::Wait) => self.plan.waits().await,
            Turn::Stops(Trouble::Kill | Trouble::Hang) => std::future::pending().await,
            Turn::Stops(Trouble::Panic) => std::panic::resume_unwind(Box::new("the transport stops")),
            _ => {}
        }
    }
}

#[async_trait]
impl Transport for Line {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let path = request.uri().path().to_owned();
        self.turn(&path, Moment::Before).await;
        let answer = self.inner.send(request).await;
        self.turn(&path, Moment::After).await;
        answer
    }
}

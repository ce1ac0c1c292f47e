//! Units that end while the disk is busy: together to the disk, in order, and together lost when it fails.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use mx_crypto_store::{
    Family, KeySource, RecordId, SealedStore, StoreError, StoreKey, Submitted,
    backend::{Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Promises},
};
use tokio::sync::Semaphore;

/// A disk on which each commit waits to be let through.
#[derive(Debug)]
struct Gate {
    inner: Memory,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    let_through: Semaphore,
    commits: AtomicUsize,
    fails: AtomicBool,
}

#[async_trait]
impl Backend for Gate {
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
    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.state.let_through.acquire().await.unwrap().forget();
        self.state.commits.fetch_add(1, Ordering::SeqCst);
        if self.state.fails.load(Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::NoSpace));
        }
        self.inner.commit(batch).await
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

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

/// A store whose commits wait from now on.
async fn gated(disk: &MemoryDisk) -> (SealedStore, Arc<State>) {
    let state = Arc::new(State {
        let_through: Semaphore::new(1),
        commits: AtomicUsize::new(0),
        fails: AtomicBool::new(false),
    });
    let gate = Gate {
        inner: Memory::open(disk).unwrap(),
        state: Arc::clone(&state),
    };
    let store = SealedStore::open(Arc::new(gate), key()).await.unwrap();
    assert_eq!(state.commits.swap(0, Ordering::SeqCst), 1, "the store was begun");
    (store, state)
}

fn counter() -> RecordId {
    RecordId::named(Family::guarded("test"), &[], "counter")
}

/// A unit that adds one to what it sees.
async fn increment(store: &SealedStore) -> Submitted {
    let unit = store.begin().await.unwrap();
    let before: u32 = unit.get(&counter()).await.unwrap().unwrap_or(0);
    unit.put(&counter(), &(before + 1)).unwrap();
    unit.submit().unwrap()
}

/// Let the task that writes come to the gate.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn units_that_wait_share_a_commit_and_build_on_each_other() {
    let disk = MemoryDisk::new();
    let (store, state) = gated(&disk).await;
    let first = increment(&store).await;
    settle().await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(increment(&store).await);
    }
    assert_eq!(
        store.record::<u32>(&counter()).await.unwrap(),
        None,
        "nothing is seen before it is durable"
    );
    state.let_through.add_permits(1);
    first.durable().await.unwrap();
    assert_eq!(store.record::<u32>(&counter()).await.unwrap(), Some(1));
    state.let_through.add_permits(1);
    for unit in others {
        unit.durable().await.unwrap();
    }
    assert_eq!(store.record::<u32>(&counter()).await.unwrap(), Some(21));
    assert_eq!(state.commits.load(Ordering::SeqCst), 2, "20 units, one commit");
    assert!(store.verify().await.unwrap().is_whole());
}

#[tokio::test]
async fn a_failed_commit_takes_what_was_built_on_it() {
    let disk = MemoryDisk::new();
    let (store, state) = gated(&disk).await;
    state.let_through.add_permits(1);
    increment(&store).await.durable().await.unwrap();
    let failing = increment(&store).await;
    settle().await;
    let waiting = [increment(&store).await, increment(&store).await];
    let open = store.begin().await.unwrap();
    assert_eq!(open.get::<u32>(&counter()).await.unwrap(), Some(4));
    open.put(&counter(), &5).unwrap();
    state.fails.store(true, Ordering::SeqCst);
    state.let_through.add_permits(10);
    assert_eq!(failing.durable().await.unwrap_err().code(), "store_no_space");
    for unit in waiting {
        assert!(matches!(unit.durable().await, Err(StoreError::Poisoned)));
    }
    assert!(matches!(open.submit(), Err(StoreError::Poisoned)));
    assert!(matches!(store.begin().await, Err(StoreError::Poisoned)));
    assert_eq!(
        store.record::<u32>(&counter()).await.unwrap(),
        Some(1),
        "reading goes on"
    );
    assert_eq!(state.commits.load(Ordering::SeqCst), 2, "nothing was tried again");
    store.shutdown().await.unwrap();
    drop(store);
    let again = SealedStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    assert_eq!(again.record::<u32>(&counter()).await.unwrap(), Some(1));
}

#[tokio::test]
async fn who_stops_waiting_stops_nothing() {
    let disk = MemoryDisk::new();
    let (store, state) = gated(&disk).await;
    drop(increment(&store).await);
    let unit = store.begin().await.unwrap();
    unit.put(&counter(), &42).unwrap();
    let commit = tokio::time::timeout(std::time::Duration::ZERO, unit.commit());
    assert!(commit.await.is_err(), "dropped half way");
    state.let_through.add_permits(2);
    store.shutdown().await.unwrap();
    drop(store);
    let again = SealedStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    assert_eq!(again.record::<u32>(&counter()).await.unwrap(), Some(42));
}

#[tokio::test]
async fn an_empty_unit_waits_for_what_it_has_seen() {
    let disk = MemoryDisk::new();
    let (store, state) = gated(&disk).await;
    let empty = store.begin().await.unwrap();
    empty.commit().await.unwrap();
    let _first = increment(&store).await;
    let reader = store.begin().await.unwrap();
    assert_eq!(reader.get::<u32>(&counter()).await.unwrap(), Some(1));
    let reader = reader.submit().unwrap();
    let mut reader = tokio::spawn(reader.durable());
    settle().await;
    assert!(!reader.is_finished(), "what it saw is not durable yet");
    state.let_through.add_permits(2);
    (&mut reader).await.unwrap().unwrap();
    assert_eq!(store.record::<u32>(&counter()).await.unwrap(), Some(1));
}

/// Readers beside a writer never see a guarded record that does not fit its manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_a_writer_meet_no_half_of_a_commit() {
    let store = SealedStore::open(Arc::new(Memory::new()), key()).await.unwrap();
    let names: Vec<RecordId> = (0..8)
        .map(|name| RecordId::named(Family::guarded("test"), &[], &name.to_string()))
        .collect();
    let written = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, names, written) = (store.clone(), names.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                while !written.load(Ordering::SeqCst) {
                    // Rows in memory never wait, and who never waits keeps its thread to itself.
                    tokio::task::yield_now().await;
                    for name in &names {
                        store.record::<u32>(name).await.unwrap();
                    }
                    let all = store.scan(Family::guarded("test"), &[], None, 100).await.unwrap();
                    let values: Vec<u32> = all.iter().map(|record| record.decode().unwrap()).collect();
                    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{values:?}");
                }
            })
        })
        .collect();
    for round in 0..500_u32 {
        let unit = store.begin().await.unwrap();
        for name in &names {
            unit.put(name, &round).unwrap();
        }
        unit.commit().await.unwrap();
    }
    written.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}

//! Units of work, keys and sealing, seen from outside.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use matrix_sdk_crypto::{OlmMachine, store::CryptoStore};
use mx_crypto_store::{
    Family, KeySource, PickleStore, RecordId, SealedStore, StoreError, StoreKey,
    backend::{Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Promises, Sqlite},
};
use proptest::prelude::*;
use ruma::{device_id, user_id};

const FAMILY: Family = Family::new("test");

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

async fn store() -> PickleStore {
    PickleStore::open(Arc::new(Memory::new()), key()).await.unwrap()
}

fn id(name: &str) -> RecordId {
    RecordId::named(FAMILY, &["group"], name)
}

#[tokio::test]
async fn nothing_is_seen_outside_before_the_commit() {
    let store = store().await;
    let unit = store.begin().await.unwrap();
    unit.put(&id("a"), "value").unwrap();
    store.set_custom_value("custom", vec![1]).await.unwrap();
    assert_eq!(unit.get::<String>(&id("a")).await.unwrap().as_deref(), Some("value"));
    assert_eq!(store.record::<String>(&id("a")).await.unwrap(), None);
    assert_eq!(
        store.get_custom_value("custom").await.unwrap(),
        Some(vec![1]),
        "the engine reads its own writes"
    );
    unit.commit().await.unwrap();
    assert_eq!(
        store.record::<String>(&id("a")).await.unwrap().as_deref(),
        Some("value")
    );
}

#[tokio::test]
async fn an_abort_and_a_drop_leave_no_trace() {
    let store = store().await;
    for drop_it in [false, true] {
        let unit = store.begin().await.unwrap();
        unit.put(&id("a"), &1).unwrap();
        store.set_custom_value("custom", vec![1]).await.unwrap();
        OlmMachine::with_store(user_id!("@a:b"), device_id!("D"), store.clone(), None)
            .await
            .unwrap();
        if drop_it {
            drop(unit)
        } else {
            unit.abort().await.unwrap()
        }
        assert_eq!(store.record::<u8>(&id("a")).await.unwrap(), None);
        assert_eq!(store.get_custom_value("custom").await.unwrap(), None);
        assert!(store.load_account().await.unwrap().is_none());
        assert!(store.device().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn positions_are_never_given_twice() {
    let store = store().await;
    let unit = store.begin().await.unwrap();
    assert_eq!(unit.next_sequence(FAMILY, &[]).await.unwrap(), 0);
    let second = unit.next_sequence(FAMILY, &[]).await.unwrap();
    unit.put(&RecordId::sequence(FAMILY, &[], second), &()).unwrap();
    unit.commit().await.unwrap();
    let unit = store.begin().await.unwrap();
    unit.delete(&RecordId::sequence(FAMILY, &[], second)).unwrap();
    assert_eq!(unit.next_sequence(FAMILY, &[]).await.unwrap(), second + 1);
    assert_eq!(unit.next_sequence(FAMILY, &["other"]).await.unwrap(), 0);
}

#[tokio::test]
async fn another_device_is_refused() {
    let store = store().await;
    OlmMachine::with_store(user_id!("@a:b"), device_id!("D"), store.clone(), None)
        .await
        .unwrap();
    assert_eq!(
        store.device().await.unwrap(),
        Some((user_id!("@a:b").to_owned(), device_id!("D").to_owned()))
    );
    let other = matrix_sdk_crypto::Account::with_device_id(user_id!("@a:b"), device_id!("E"));
    let pending = matrix_sdk_crypto::store::types::PendingChanges { account: Some(other) };
    assert_eq!(
        store.save_pending_changes(pending).await.unwrap_err().code(),
        "store_of_another_device"
    );
}

/// A disk that fails when it is told to.
#[derive(Debug)]
struct Failing {
    inner: Memory,
    fails: Arc<AtomicBool>,
}

impl Failing {
    fn check(&self) -> Result<(), BackendError> {
        if self.fails.load(Ordering::SeqCst) {
            Err(BackendError::new(BackendErrorKind::NoSpace))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Backend for Failing {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.check()?;
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
        self.check()?;
        self.inner.commit(batch).await
    }
    async fn compact(&self) -> Result<(), BackendError> {
        self.check()?;
        self.inner.compact().await
    }
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.inner.size_bytes().await
    }
    async fn close(&self) -> Result<(), BackendError> {
        self.inner.close().await
    }
}

async fn failing() -> (PickleStore, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let backend = Failing {
        inner: Memory::new(),
        fails: Arc::clone(&fails),
    };
    (PickleStore::open(Arc::new(backend), key()).await.unwrap(), fails)
}

#[tokio::test]
async fn a_failed_write_poisons() {
    let (store, fails) = failing().await;
    let unit = store.begin().await.unwrap();
    unit.put(&id("a"), &1).unwrap();
    fails.store(true, Ordering::SeqCst);
    assert_eq!(unit.commit().await.unwrap_err().code(), "store_no_space");
    fails.store(false, Ordering::SeqCst);
    assert!(store.is_poisoned());
    assert!(matches!(store.begin().await, Err(StoreError::Poisoned)));
    assert!(matches!(
        store.set_custom_value("a", vec![]).await,
        Err(StoreError::Poisoned)
    ));
    assert_eq!(store.record::<u8>(&id("a")).await.unwrap(), None, "reading goes on");
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_read_error_that_the_engine_swallows_stops_the_commit() {
    let (store, fails) = failing().await;
    let unit = store.begin().await.unwrap();
    unit.put(&id("a"), &1).unwrap();
    fails.store(true, Ordering::SeqCst);
    let _swallowed = store.get_custom_value("custom").await;
    fails.store(false, Ordering::SeqCst);
    assert!(matches!(unit.commit().await, Err(StoreError::UnitFailed)));
    assert!(!store.is_poisoned(), "nothing was written");
    assert_eq!(store.record::<u8>(&id("a")).await.unwrap(), None);
}

#[tokio::test]
async fn any_flipped_bit_and_any_exchanged_row_is_corrupt() {
    let disk = MemoryDisk::new();
    let open = || async { SealedStore::open(Arc::new(Memory::open(&disk).unwrap()), key()).await };
    let store = open().await.unwrap();
    let unit = store.begin().await.unwrap();
    unit.put(&id("a"), "one value").unwrap();
    unit.put(&id("b"), "two value").unwrap();
    unit.commit().await.unwrap();
    store.shutdown().await.unwrap();
    let raw = Memory::open(&disk).unwrap();
    let rows = raw.scan(&[0x40], None, 10).await.unwrap();
    raw.close().await.unwrap();
    assert_eq!(rows.len(), 2);
    let rewrite = |changes: Vec<(Vec<u8>, Vec<u8>)>| async {
        let raw = Memory::open(&disk).unwrap();
        let batch = changes
            .into_iter()
            .fold(Batch::new(), |batch, (row, value)| batch.put(row, value));
        raw.commit(batch).await.unwrap();
    };
    let broken = || async {
        let store = open().await.unwrap();
        let read = (
            store.record::<String>(&id("a")).await,
            store.record::<String>(&id("b")).await,
        );
        store.shutdown().await.unwrap();
        matches!(
            read,
            (Err(StoreError::Corrupt { .. }), _) | (_, Err(StoreError::Corrupt { .. }))
        )
    };
    for position in [0, 1, rows[0].1.len() / 2, rows[0].1.len() - 1] {
        let mut value = rows[0].1.clone();
        value[position] ^= 0x80;
        rewrite(vec![(rows[0].0.clone(), value)]).await;
        assert!(broken().await, "byte {position}");
    }
    rewrite(vec![
        (rows[0].0.clone(), rows[1].1.clone()),
        (rows[1].0.clone(), rows[0].1.clone()),
    ])
    .await;
    assert!(broken().await, "exchanged");
    rewrite(rows).await;
    assert!(!broken().await);
}

#[tokio::test]
async fn keys_are_never_made_beside_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pickle.key");
    let open = |key: KeySource| {
        let path = directory.path().join("store");
        async move { PickleStore::open(Arc::new(Sqlite::open(path).await.unwrap()), key).await }
    };
    open(KeySource::File(file.clone()))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    let original = std::fs::read(&file).unwrap();
    open(KeySource::File(file.clone()))
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(
        open(KeySource::File(file.clone())).await,
        Err(StoreError::KeyMissing { .. })
    ));
    assert!(!file.exists(), "no key was made");
    assert!(matches!(open(key()).await, Err(StoreError::WrongKey)));
    let original = KeySource::Bytes(StoreKey::from_bytes(original.try_into().unwrap()));
    open(original).await.unwrap();
}

#[tokio::test]
async fn the_disk_holds_no_name_and_no_plaintext() {
    let directory = tempfile::tempdir().unwrap();
    let store = PickleStore::open(Arc::new(Sqlite::open(directory.path()).await.unwrap()), key())
        .await
        .unwrap();
    OlmMachine::with_store(
        user_id!("@unmistakable:b"),
        device_id!("UNMISTAKABLE"),
        store.clone(),
        None,
    )
    .await
    .unwrap();
    let unit = store.begin().await.unwrap();
    unit.put(&id("!unmistakable:room"), "unmistakable plaintext").unwrap();
    unit.commit().await.unwrap();
    store.shutdown().await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap().to_ascii_lowercase();
        assert!(!bytes.windows(12).any(|window| window == b"unmistakable"));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Commit,
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, any::<u8>()).prop_map(|(position, value)| Step::Put(position, value)),
        2 => (0..12_u8).prop_map(Step::Delete),
        1 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// A unit's eyes are those of a map that is changed at once, in any order and page size.
    #[test]
    fn a_unit_reads_like_a_map(steps in prop::collection::vec(step(), 1..40), page in 1..6_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = store().await;
            let mut committed: BTreeMap<u8, u8> = BTreeMap::new();
            let mut seen = committed.clone();
            let mut unit = store.begin().await.unwrap();
            for step in steps {
                match step {
                    Step::Put(position, value) => {
                        unit.put(&RecordId::sequence(FAMILY, &[], position.into()), &(position, value)).unwrap();
                        seen.insert(position, value);
                    }
                    Step::Delete(position) => {
                        unit.delete(&RecordId::sequence(FAMILY, &[], position.into())).unwrap();
                        seen.remove(&position);
                    }
                    Step::Commit => {
                        unit.commit().await.unwrap();
                        committed.clone_from(&seen);
                        unit = store.begin().await.unwrap();
                    }
                    Step::Abort => {
                        unit.abort().await.unwrap();
                        seen.clone_from(&committed);
                        unit = store.begin().await.unwrap();
                    }
                }
                let mut scanned = Vec::new();
                let mut after = None;
                loop {
                    let records = unit.scan(FAMILY, &[], after.as_ref(), page).await.unwrap();
                    let Some(last) = records.last() else { break };
                    after = Some(last.cursor.clone());
                    scanned.extend(records.iter().map(|record| record.decode::<(u8, u8)>().unwrap()));
                }
                assert_eq!(scanned, seen.iter().map(|(position, value)| (*position, *value)).collect::<Vec<_>>());
                let outside = store.scan(FAMILY, &[], None, 100).await.unwrap();
                assert_eq!(outside.len(), committed.len());
            }
        });
    }
}

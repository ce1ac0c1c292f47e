//! Stores of every schema that was ever written must open, with everything in them.
//!
//! A golden store is a directory `tests/golden/schema-N`: a SQLite store, its key, and `facts.json`, which says what
//! is in it. It is written once, by the version that introduced the schema, and never again:
//! `MX_WRITE_GOLDEN=1 cargo test -p mx-crypto-store --test golden` writes the one of the current schema where it is
//! missing.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "sample/sample.rs"]
mod sample;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use mx_crypto_store::{
    KeySource, PickleStore,
    backend::{Backend, BackendError, BackendErrorKind, Batch, Promises, Sqlite},
};

use self::sample::{Facts, check_the_rest, facts, fill};

/// The newest schema that has a golden store.
const SCHEMA: u32 = 2;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

async fn open(directory: &Path) -> PickleStore {
    let backend = Sqlite::open(directory.join("store")).await.unwrap();
    PickleStore::open(Arc::new(backend), KeySource::File(directory.join("pickle.key")))
        .await
        .unwrap()
}

/// The newest golden store is written by the version that introduced its schema, and never again.
#[tokio::test]
async fn a_golden_store_is_written_once() {
    let directory = golden().join(format!("schema-{SCHEMA}"));
    if std::env::var_os("MX_WRITE_GOLDEN").is_some() && !directory.exists() {
        std::fs::create_dir_all(&directory).unwrap();
        let store = open(&directory).await;
        let peer = fill(&store).await;
        let facts = serde_json::to_string_pretty(&facts(&store, &peer).await).unwrap();
        store.shutdown().await.unwrap();
        std::fs::write(directory.join("facts.json"), facts).unwrap();
    }
    assert!(
        directory.join("facts.json").exists(),
        "a new schema needs its golden store: run this with MX_WRITE_GOLDEN=1"
    );
}

#[tokio::test]
async fn every_golden_store_opens_with_everything_in_it() {
    for schema in 1..=SCHEMA {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&golden().join(format!("schema-{schema}")), copy.path());
        let expected: Facts = serde_json::from_slice(&std::fs::read(copy.path().join("facts.json")).unwrap()).unwrap();
        for _ in 0..2 {
            let store = open(copy.path()).await;
            assert_eq!(
                facts(&store, &expected.peer_curve25519).await,
                expected,
                "schema {schema}"
            );
            check_the_rest(&store).await;
            store.shutdown().await.unwrap();
        }
    }
}

/// Git keeps no file modes, and a key that others may read is refused.
fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
}

/// An engine whose process dies at one of its operations: before it, or after it and before anybody learns of it.
#[derive(Debug)]
struct Dies {
    engine: Sqlite,
    /// How many operations are left, and whether the last of them is carried out.
    left: AtomicU64,
    after: bool,
}

impl Dies {
    async fn call<T>(&self, call: impl Future<Output = Result<T, BackendError>> + Send) -> Result<T, BackendError> {
        let dead = || BackendError::new(BackendErrorKind::Io);
        match self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        {
            Err(_) => Err(dead()),
            Ok(1) if self.after => call.await.and_then(|_| Err(dead())),
            Ok(1) => Err(dead()),
            Ok(_) => call.await,
        }
    }
}

#[async_trait]
impl Backend for Dies {
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
        self.engine.size_bytes().await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.engine.close().await
    }
}

/// Row K20, and ST-34 and ST-35: an upgrade, and a change of the key, that die at any operation of the disk. Whoever opens
/// next has all of the store, with the key file that is there.
#[tokio::test]
async fn k20_an_upgrade_or_a_rekeying_that_dies_anywhere_is_done_or_not_begun() {
    for (schema, rekeys) in [(1, false), (SCHEMA, true)] {
        for after in [false, true] {
            let mut died = 0;
            for operations in 1.. {
                let copy = tempfile::tempdir().unwrap();
                copy_directory(&golden().join(format!("schema-{schema}")), copy.path());
                let facts_file = std::fs::read(copy.path().join("facts.json")).unwrap();
                let expected: Facts = serde_json::from_slice(&facts_file).unwrap();
                let file = KeySource::File(copy.path().join("pickle.key"));
                let dies = Arc::new(Dies {
                    engine: Sqlite::open(copy.path().join("store")).await.unwrap(),
                    left: AtomicU64::new(operations),
                    after,
                });
                let opened = PickleStore::open_existing(Arc::clone(&dies) as Arc<dyn Backend>, file.clone()).await;
                let done = match opened {
                    Ok(store) if rekeys => store.sealed().rekey(&file).await.is_ok(),
                    Ok(_) => true,
                    Err(_) => false,
                };
                dies.engine.close().await.unwrap();
                drop(dies);
                let store = open(copy.path()).await;
                let place = format!("schema {schema}, after {operations} operations");
                assert_eq!(facts(&store, &expected.peer_curve25519).await, expected, "{place}");
                check_the_rest(&store).await;
                assert!(store.sealed().verify().await.unwrap().is_whole(), "{place}");
                store.shutdown().await.unwrap();
                assert!(!copy.path().join("pickle.key.new").exists(), "{place}");
                if done {
                    break;
                }
                died += 1;
            }
            assert!(died >= 3, "schema {schema} died {died} times");
        }
    }
}

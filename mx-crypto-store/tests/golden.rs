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
    sync::Arc,
};

use mx_crypto_store::{KeySource, PickleStore, backend::Sqlite};

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

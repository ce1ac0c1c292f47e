//! The protocol engine's own suite for stores, on each storage engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(unexpected_cfgs, reason = "the suite asks for features of its own crate")]

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use mx_crypto_store::{
    KeySource, PickleStore, StoreKey,
    backend::{Backend, BackendError, Memory, MemoryDisk, Redb, Sled, Sqlite},
};

/// Stores that are open, by name: the suite opens a store again without closing it, which is no second process.
fn stores() -> &'static Mutex<HashMap<String, PickleStore>> {
    static STORES: OnceLock<Mutex<HashMap<String, PickleStore>>> = OnceLock::new();
    STORES.get_or_init(Mutex::default)
}

/// What is left of memory when it is closed.
fn disk(path: PathBuf) -> MemoryDisk {
    static DISKS: OnceLock<Mutex<HashMap<PathBuf, MemoryDisk>>> = OnceLock::new();
    let fresh = std::fs::create_dir(&path).is_ok();
    let mut disks = DISKS.get_or_init(Mutex::default).lock().unwrap();
    if fresh {
        disks.remove(&path);
    }
    disks.entry(path).or_default().clone()
}

async fn store<B: Backend>(
    name: String,
    clear: bool,
    open: impl AsyncFnOnce(PathBuf) -> Result<B, BackendError>,
) -> PickleStore {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let path = DIRECTORY
        .get_or_init(|| tempfile::tempdir().unwrap())
        .path()
        .join(&name);
    let before = stores().lock().unwrap().remove(&name);
    if let Some(store) = before {
        store.shutdown().await.unwrap();
    }
    if clear && path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    let backend = Arc::new(open(path).await.unwrap());
    let store = PickleStore::open(backend, key).await.unwrap();
    stores().lock().unwrap().insert(name, store.clone());
    store
}

/// The suite is a macro that calls `get_store` of the module where it stands.
macro_rules! engine {
    ($name:ident, $open:expr) => {
        mod $name {
            use super::*;
            use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

            async fn get_store(name: &str, _passphrase: Option<&str>, clear_data: bool) -> PickleStore {
                store(format!("{}-{name}", stringify!($name)), clear_data, $open).await
            }

            cryptostore_integration_tests!();
            cryptostore_integration_tests_time!();
        }
    };
}

engine!(memory, async |path| Memory::open(&disk(path)));
engine!(sqlite, Sqlite::open);
engine!(redb, Redb::open);
engine!(sled, Sled::open);

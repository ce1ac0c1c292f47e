//! The protocol engine's own suite for stores, on each storage engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(unexpected_cfgs, reason = "the suite asks for features of its own crate")]

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Backend};

/// The suite opens a store of the same name again and expects what was there; a handle that it forgot to drop is not a
/// second process.
fn again(name: &str) -> Option<PickleStore> {
    stores().lock().unwrap().get(name).cloned()
}

fn stores() -> &'static Mutex<HashMap<String, PickleStore>> {
    static STORES: OnceLock<Mutex<HashMap<String, PickleStore>>> = OnceLock::new();
    STORES.get_or_init(Mutex::default)
}

async fn open(name: String, backend: Arc<dyn Backend>) -> PickleStore {
    let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    let store = PickleStore::open(backend, key).await.unwrap();
    stores().lock().unwrap().insert(name, store.clone());
    store
}

fn directory() -> PathBuf {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIRECTORY.get_or_init(|| tempfile::tempdir().unwrap()).path().to_owned()
}

mod memory {
    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

    use super::{Arc, PickleStore, again, open};

    async fn get_store(name: &str, _passphrase: Option<&str>, clear_data: bool) -> PickleStore {
        let name = format!("memory-{name}");
        match again(&name).filter(|_| !clear_data) {
            Some(store) => store,
            None => open(name, Arc::new(mx_crypto_store::backend::Memory::new())).await,
        }
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

mod sqlite {
    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};
    use mx_crypto_store::backend::Sqlite;

    use super::{Arc, PickleStore, again, directory, open};

    async fn get_store(name: &str, _passphrase: Option<&str>, clear_data: bool) -> PickleStore {
        let name = format!("sqlite-{name}");
        let path = directory().join(&name);
        if let Some(store) = again(&name) {
            store.shutdown().await.unwrap();
        }
        if clear_data && path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        open(name, Arc::new(Sqlite::open(path).await.unwrap())).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

mod sled {
    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};
    use mx_crypto_store::backend::Sled;

    use super::{Arc, PickleStore, again, directory, open};

    async fn get_store(name: &str, _passphrase: Option<&str>, clear_data: bool) -> PickleStore {
        let name = format!("sled-{name}");
        let path = directory().join(&name);
        if let Some(store) = again(&name) {
            store.shutdown().await.unwrap();
        }
        if clear_data && path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        open(name, Arc::new(Sled::open(path).await.unwrap())).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

//! Who opens a store: keys that change, crashes while they do, and keys that are never made.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "sample/sample.rs"]
mod sample;

use std::{path::Path, sync::Arc};

use matrix_sdk_crypto::store::CryptoStore;
use mx_crypto_store::{
    KeySource, Passphrase, PassphraseCost, PickleStore, SealedStore, StoreError, StoreKey,
    backend::{Memory, MemoryDisk},
};

use self::sample::{Facts, check_the_rest, facts, fill};

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

fn passphrase(secret: &str) -> KeySource {
    KeySource::Passphrase(Passphrase::new(secret))
}

async fn open(disk: &MemoryDisk, key: KeySource) -> Result<PickleStore, StoreError> {
    PickleStore::open_existing(Arc::new(Memory::open(disk).unwrap()), key).await
}

/// A store with something of everything, closed, and what is in it.
async fn filled(disk: &MemoryDisk) -> Facts {
    let store = PickleStore::open(Arc::new(Memory::open(disk).unwrap()), key())
        .await
        .unwrap();
    let peer = fill(&store).await;
    let facts = facts(&store, &peer).await;
    store.shutdown().await.unwrap();
    facts
}

async fn check(store: &PickleStore, expected: &Facts) {
    assert_eq!(facts(store, &expected.peer_curve25519).await, *expected);
    check_the_rest(store).await;
}

#[tokio::test]
async fn rekey_changes_who_opens_the_store_and_nothing_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| KeySource::File(directory.path().join(name));
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let mut before = key();
    let dearer = Passphrase::new("correct horse").with_cost(PassphraseCost::new(70_000, 3));
    let sources = [
        file("pickle.key"),
        file("pickle.key"),
        passphrase("correct horse"),
        KeySource::Passphrase(dearer),
        file("another.key"),
        KeySource::Bytes(StoreKey::from_bytes([8; 32])),
    ];
    for source in sources {
        let old_file = std::fs::read(directory.path().join("pickle.key")).ok();
        let store = open(&disk, before.clone()).await.unwrap();
        store.sealed().rekey(&source).await.unwrap();
        check(&store, &expected).await;
        store.set_custom_value("after", vec![1]).await.unwrap();
        store.shutdown().await.unwrap();
        let again = open(&disk, source.clone()).await.unwrap();
        check(&again, &expected).await;
        assert!(again.sealed().verify().await.unwrap().is_whole());
        again.shutdown().await.unwrap();
        let old = match (&before, old_file) {
            (KeySource::File(_), Some(bytes)) => KeySource::Bytes(StoreKey::from_bytes(bytes.try_into().unwrap())),
            _ => before.clone(),
        };
        let same_passphrase = matches!((&old, &source), (KeySource::Passphrase(_), KeySource::Passphrase(_)));
        assert_eq!(
            open(&disk, old).await.is_err(),
            !same_passphrase,
            "{before:?} to {source:?}"
        );
        before = source;
    }
    assert_eq!(leftovers(directory.path()), ["another.key", "pickle.key"]);
}

fn leftovers(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A crash between the steps of a rekeying: one of the two keys opens the store, and opening tidies up.
#[tokio::test]
async fn a_rekeying_that_was_cut_off_is_finished_or_undone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, staged) = (
        directory.path().join("pickle.key"),
        directory.path().join("pickle.key.new"),
    );
    let source = KeySource::File(path.clone());
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let store = open(&disk, key()).await.unwrap();
    store.sealed().rekey(&source).await.unwrap();
    store.shutdown().await.unwrap();
    let private = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    // Before the store has the new key: the staged one opens nothing.
    let old = std::fs::read(&path).unwrap();
    private(&staged, &[9; 32]);
    check(&open(&disk, source.clone()).await.unwrap(), &expected).await;
    assert_eq!(leftovers(directory.path()), ["pickle.key"]);
    // After: the file that has the name opens nothing.
    private(&staged, &old);
    private(&path, &[9; 32]);
    check(&open(&disk, source.clone()).await.unwrap(), &expected).await;
    assert_eq!(leftovers(directory.path()), ["pickle.key"]);
    assert_eq!(std::fs::read(&path).unwrap(), old);
    // The first key of a store, which is not there yet or not any more.
    std::fs::rename(&path, &staged).unwrap();
    check(&open(&disk, source.clone()).await.unwrap(), &expected).await;
    assert_eq!(leftovers(directory.path()), ["pickle.key"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        open(&disk, source.clone()).await.unwrap_err().code(),
        "store_key_missing"
    );
    assert_eq!(
        leftovers(directory.path()),
        Vec::<String>::new(),
        "no key is made beside a store"
    );
}

#[tokio::test]
async fn a_key_beside_an_empty_store_begins_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let source = KeySource::File(directory.path().join("pickle.key"));
    let begin = async || SealedStore::open(Arc::new(Memory::new()), source.clone()).await;
    begin().await.unwrap();
    assert_eq!(begin().await.unwrap_err().code(), "store_missing");
    // A first start that ended before it had a store left a staged key, which means nothing.
    std::fs::rename(
        directory.path().join("pickle.key"),
        directory.path().join("pickle.key.new"),
    )
    .unwrap();
    begin().await.unwrap();
    assert_eq!(leftovers(directory.path()), ["pickle.key"]);
    let other = MemoryDisk::new();
    filled(&other).await;
    let store = open(&other, key()).await.unwrap();
    let error = store.sealed().rekey(&source).await.unwrap_err();
    assert_eq!(
        error.code(),
        "store_key_of_another",
        "the key of another store is not replaced"
    );
    open(&MemoryDisk::new(), key()).await.unwrap_err();
}

#[tokio::test]
async fn a_credential_is_a_name_and_is_never_made() {
    let disk = MemoryDisk::new();
    filled(&disk).await;
    for name in ["", "../pickle.key", "a/b", ".hidden", "missing"] {
        let error = open(&disk, KeySource::Credential(name.to_owned())).await.unwrap_err();
        assert_eq!(error.code(), "store_key_missing", "{name}");
    }
}

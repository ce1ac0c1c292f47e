//! What operators do with a store: look at it, copy it, move it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "sample/sample.rs"]
mod sample;

use std::sync::Arc;

use matrix_sdk_crypto::store::CryptoStore;
use mx_crypto_store::{
    KeySource, Passphrase, PickleStore, SealedStore, StoreError, StoreKey,
    backend::{Backend, Batch, Memory, MemoryDisk, Redb, Sled, Sqlite},
    copy,
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
async fn stats_count_by_kind() {
    let disk = MemoryDisk::new();
    filled(&disk).await;
    let store = open(&disk, key()).await.unwrap();
    let stats = store.sealed().stats().await.unwrap();
    for kind in [
        "olm_sessions",
        "inbound_group_sessions",
        "devices",
        "next_batch",
        "records",
    ] {
        assert!(stats.records.contains_key(kind), "{kind}");
    }
    assert_eq!(stats.records["records"], 4);
    assert!(stats.size_bytes.unwrap() > 1000);
}

#[tokio::test]
async fn every_engine_copies_to_every_engine() {
    let directory = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let at = |name: &str| directory.path().join(name);
    let engine = async |name: &str, round: u8| -> Arc<dyn Backend> {
        let path = at(&format!("{name}-{round}"));
        let engine: Arc<dyn Backend> = match name {
            "sqlite" => Arc::new(Sqlite::open(path).await.unwrap()),
            "redb" => Arc::new(Redb::open(path).await.unwrap()),
            _ => Arc::new(Sled::open(path).await.unwrap()),
        };
        engine
    };
    let mut from: Arc<dyn Backend> = Arc::new(Memory::open(&disk).unwrap());
    for (round, name) in ["sled", "redb", "sqlite", "sled", "sqlite", "redb", "sled"]
        .into_iter()
        .enumerate()
    {
        let to = engine(name, round.try_into().unwrap()).await;
        let rows = copy(&*from, &*to).await.unwrap();
        assert!(rows > 20);
        assert!(matches!(copy(&*from, &*to).await, Err(StoreError::NotEmpty)));
        let store = PickleStore::open_existing(Arc::clone(&to), key()).await.unwrap();
        assert!(store.sealed().verify().await.unwrap().is_whole());
        check(&store, &expected).await;
        from.close().await.unwrap();
        from = to;
    }
}

#[tokio::test]
async fn a_copy_that_was_cut_off_is_begun_again() {
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let from = Memory::open(&disk).unwrap();
    let half = MemoryDisk::new();
    let to = Memory::open(&half).unwrap();
    let rest = from.scan(&[], None, 10).await.unwrap();
    let batch = rest
        .into_iter()
        .skip(1)
        .fold(Batch::new(), |batch, (row, value)| batch.put(row, value));
    to.commit(batch.put("of an older copy", "stale")).await.unwrap();
    assert!(
        matches!(copy(&from, &to).await, Err(StoreError::NotEmpty)),
        "a store that lost its header is not removed"
    );
    // What says that this is half of a copy.
    to.commit(Batch::new().put([0xff], [])).await.unwrap();
    drop(to);
    assert_eq!(
        open(&half, key()).await.unwrap_err().code(),
        "store_corrupt",
        "half a copy is no store"
    );
    let to = Memory::open(&half).unwrap();
    copy(&from, &to).await.unwrap();
    assert_eq!(
        to.scan(&[], None, 10_000).await.unwrap(),
        from.scan(&[], None, 10_000).await.unwrap()
    );
    drop(to);
    check(&open(&half, key()).await.unwrap(), &expected).await;
    assert!(matches!(
        copy(&Memory::new(), &Memory::new()).await,
        Err(StoreError::Empty)
    ));
}

#[tokio::test]
async fn an_export_is_one_file_that_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.export");
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let store = open(&disk, key()).await.unwrap();
    let records = store
        .sealed()
        .export(&file, &passphrase("correct horse"))
        .await
        .unwrap();
    assert!(records > 15);
    assert!(matches!(
        store.sealed().export(&file, &key()).await,
        Err(StoreError::ExportFile { .. })
    ));
    check(&store, &expected).await;
    let bytes = std::fs::read(&file).unwrap();
    assert!(
        !bytes.windows(6).any(|window| window == b"golden"),
        "nothing is in the clear"
    );
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions()) & 0o777,
        0o600
    );
}

#[tokio::test]
async fn what_is_imported_is_what_was_exported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.export");
    let disk = MemoryDisk::new();
    let expected = filled(&disk).await;
    let store = open(&disk, key()).await.unwrap();
    store
        .sealed()
        .export(&file, &passphrase("correct horse"))
        .await
        .unwrap();
    let new = MemoryDisk::new();
    let import =
        async |with: KeySource| SealedStore::import(&file, &with, Arc::new(Memory::open(&new).unwrap()), &key()).await;
    assert!(matches!(import(passphrase("wrong")).await, Err(StoreError::WrongKey)));
    assert!(matches!(
        import(key()).await,
        Err(StoreError::WrongKeyKind { passphrase: true })
    ));
    let imported = PickleStore::over(import(passphrase("correct horse")).await.unwrap());
    assert!(imported.sealed().verify().await.unwrap().is_whole());
    let left_out = imported
        .get_outbound_group_session(ruma::room_id!("!golden:example.org"))
        .await
        .unwrap();
    assert!(left_out.is_none(), "the exported store may have gone on with it");
    assert_eq!(
        imported
            .load_account()
            .await
            .unwrap()
            .unwrap()
            .identity_keys()
            .curve25519
            .to_base64(),
        expected.curve25519
    );
    assert_eq!(
        imported
            .get_sessions(&expected.peer_curve25519)
            .await
            .unwrap()
            .unwrap()
            .len(),
        1
    );
    check_the_rest(&imported).await;
    imported.shutdown().await.unwrap();
    drop(imported);
    assert!(matches!(
        import(passphrase("correct horse")).await,
        Err(StoreError::NotEmpty)
    ));
    check_the_rest(&open(&new, key()).await.unwrap()).await;
}

/// Every byte of the header, bytes and cuts all over the rest, and a segment of another file: no store is made of it.
#[tokio::test]
async fn a_damaged_export_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.export");
    let disk = MemoryDisk::new();
    filled(&disk).await;
    let store = open(&disk, key()).await.unwrap();
    store.sealed().export(&file, &key()).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    let other = directory.path().join("other.export");
    store.sealed().export(&other, &key()).await.unwrap();
    let another = std::fs::read(&other).unwrap();
    let half = whole.len() / 2;
    let mut damaged: Vec<Vec<u8>> = (0..whole.len())
        .step_by(7)
        .map(|length| whole[..length].to_vec())
        .collect();
    damaged.extend(
        (0..whole.len())
            .filter(|position| *position < 300 || position % 13 == 0)
            .map(|position| {
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << (position % 8);
                flipped
            }),
    );
    damaged.push([&whole[..half], &another[half..]].concat());
    damaged.push([&whole[..], &[0, 0, 0, 16], &[7; 16]].concat());
    damaged.push([&whole[..], &[0]].concat());
    let target = MemoryDisk::new();
    for bytes in damaged {
        std::fs::write(&file, &bytes).unwrap();
        let backend = Arc::new(Memory::open(&target).unwrap());
        let error = SealedStore::import(&file, &key(), backend, &key()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. } | StoreError::WrongKey),
            "{} bytes of {}: {error:?}",
            bytes.len(),
            whole.len()
        );
        assert!(open(&target, key()).await.is_err(), "no store was made");
    }
}

//! Files that lie on the disk: damaged they are everything or an error, and they say nothing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "sample/sample.rs"]
mod sample;

use std::{path::Path, sync::Arc};

use matrix_sdk_crypto::store::CryptoStore;
use mx_crypto_store::{
    KeySource, PickleStore, StoreError, StoreKey, Verified,
    backend::{Backend, Batch, Redb, Sled, Sqlite},
};
use sha2::{Digest, Sha256};

use self::sample::{Facts, check_the_rest, facts, fill};

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

/// The files of a store, with their contents and when they were changed.
fn files(directory: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
                modified,
            )
        })
        .collect();
    files.sort();
    files
}

async fn filled_sqlite(directory: &Path) -> Facts {
    let backend = Sqlite::open(directory).await.unwrap();
    let store = PickleStore::open(Arc::new(backend), key()).await.unwrap();
    let peer = fill(&store).await;
    let facts = facts(&store, &peer).await;
    store.shutdown().await.unwrap();
    facts
}

async fn open_sqlite(directory: &Path, key: KeySource) -> Result<PickleStore, StoreError> {
    PickleStore::open(Arc::new(Sqlite::open(directory).await?), key).await
}

#[tokio::test]
async fn st_01_and_st_32_a_wrong_key_and_a_newer_schema_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    filled_sqlite(directory.path()).await;
    let before = files(directory.path());
    let wrong = KeySource::Bytes(StoreKey::from_bytes([8; 32]));
    assert!(matches!(
        open_sqlite(directory.path(), wrong).await,
        Err(StoreError::WrongKey)
    ));
    assert_eq!(files(directory.path()), before);

    let backend = Sqlite::open(directory.path()).await.unwrap();
    let header = backend.get(&[0]).await.unwrap().unwrap();
    let mut newer = header[..header.len() - 32].to_vec();
    newer[11] = 99;
    let checksum = Sha256::digest(&newer);
    newer.extend_from_slice(&checksum);
    backend.commit(Batch::new().put([0], newer)).await.unwrap();
    backend.close().await.unwrap();
    let before = files(directory.path());
    assert!(matches!(
        open_sqlite(directory.path(), key()).await,
        Err(StoreError::SchemaTooNew { found: 99, known: 2 })
    ));
    assert_eq!(files(directory.path()), before);
}

/// What opens after a change of the file is everything, or says what is wrong: never less, never something else.
async fn all_or_an_error(directory: &Path, expected: &Facts, what: &str) {
    let store = match open_sqlite(directory, key()).await {
        Ok(store) => store,
        Err(
            StoreError::Corrupt { .. } | StoreError::RolledBack { .. } | StoreError::WrongKey | StoreError::Backend(_),
        ) => return,
        Err(other) => panic!("{what}: {other:?}"),
    };
    let verified = store.sealed().verify().await;
    if verified.as_ref().is_ok_and(Verified::is_whole) {
        assert_eq!(facts(&store, &expected.peer_curve25519).await, *expected, "{what}");
        check_the_rest(&store).await;
    }
    store.shutdown().await.ok();
}

#[tokio::test]
async fn st_16_and_st_21_a_damaged_database_is_everything_or_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original");
    let expected = filled_sqlite(&original).await;
    let whole = std::fs::read(original.join("store.sqlite3")).unwrap();
    let damaged = directory.path().join("damaged");
    let place = |bytes: &[u8]| {
        std::fs::remove_dir_all(&damaged).ok();
        std::fs::create_dir(&damaged).unwrap();
        for (name, content, _) in files(&original) {
            std::fs::write(damaged.join(name), content).unwrap();
        }
        std::fs::write(damaged.join("store.sqlite3"), bytes).unwrap();
    };
    for position in (0..whole.len()).step_by(41) {
        let mut flipped = whole.clone();
        flipped[position] ^= 1 << (position % 8);
        place(&flipped);
        all_or_an_error(&damaged, &expected, &format!("byte {position}")).await;
    }
    let sixtyfourths = (0..64).map(|part| whole.len() * part / 64);
    let last = [1, 2, 3, 100, 511, 512, 1000, 4095, 4096].map(|cut| whole.len() - cut);
    for length in sixtyfourths.chain(last) {
        place(&whole[..length]);
        let opened = open_sqlite(&damaged, key()).await;
        let what = format!("cut to {length} of {}", whole.len());
        match opened {
            Err(StoreError::Corrupt { .. } | StoreError::RolledBack { .. } | StoreError::Backend(_)) => {}
            Err(other) => panic!("{what}: {other:?}"),
            Ok(store) => {
                let verified = store.sealed().verify().await;
                assert!(!verified.is_ok_and(|verified| verified.is_whole()), "{what}");
            }
        }
    }
}

/// ST-42: everything that names something or is secret, in the ways in which it could be written.
#[tokio::test]
async fn st_42_no_file_says_anything() {
    let needles = ["golden", "GOLDEN", "a record", "s42canary", "custom-canary"];
    let mut forms: Vec<Vec<u8>> = Vec::new();
    for needle in needles.iter().filter(|needle| needle.len() > 5) {
        forms.push(needle.as_bytes().to_vec());
        forms.push(needle.encode_utf16().flat_map(u16::to_le_bytes).collect());
        forms.push(
            needle
                .bytes()
                .flat_map(|byte| format!("{byte:02x}").into_bytes())
                .collect(),
        );
        for offset in 0..3 {
            forms.push(base64_inside(needle.as_bytes(), offset));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    for engine in ["sqlite", "redb", "sled"] {
        let path = directory.path().join(engine);
        let backend: Arc<dyn Backend> = match engine {
            "sqlite" => Arc::new(Sqlite::open(&path).await.unwrap()),
            "redb" => Arc::new(Redb::open(&path).await.unwrap()),
            _ => Arc::new(Sled::open(&path).await.unwrap()),
        };
        let store = PickleStore::open(backend, key()).await.unwrap();
        fill(&store).await;
        for round in 0..3 {
            store
                .set_custom_value("custom-canary", format!("s42canary{round}").into_bytes())
                .await
                .unwrap();
        }
        // While it is open, with its journal, and when it is closed.
        for _ in 0..2 {
            for file in walk(&path) {
                let bytes = std::fs::read(&file).unwrap();
                for form in &forms {
                    let found = bytes.windows(form.len()).any(|window| window == form);
                    assert!(!found, "{} holds {:?}", file.display(), String::from_utf8_lossy(form));
                }
            }
            store.shutdown().await.unwrap();
        }
    }
}

/// What base64 writes for these bytes wherever they begin, without the characters that depend on their neighbours.
fn base64_inside(bytes: &[u8], offset: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = std::iter::repeat_n(0, offset * 8)
        .chain(
            bytes
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)),
        )
        .collect();
    let skip = (offset * 8).div_ceil(6);
    let whole = bits
        .chunks_exact(6)
        .map(|six| six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit)));
    whole.skip(skip).map(|value| ALPHABET[value]).collect()
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}

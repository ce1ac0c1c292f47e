//! The files of the embedded engines: who may read them, who may open them, and what is not taken for a store.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind as Kind, Batch, Redb, Sled, Sqlite};

/// Each engine by its name and its main file.
const ENGINES: [(&str, &str); 3] = [("sqlite", "store.sqlite3"), ("redb", "store.redb"), ("sled", "db")];

async fn open(engine: &str, path: &Path) -> Result<Box<dyn Backend>, BackendError> {
    Ok(match engine {
        "sqlite" => Box::new(Sqlite::open(path).await?),
        "redb" => Box::new(Redb::open(path).await?),
        _ => Box::new(Sled::open(path).await?),
    })
}

async fn refused(engine: &str, path: &Path) -> Kind {
    open(engine, path).await.unwrap_err().kind()
}

/// A store with 200 rows, closed.
async fn store(engine: &str, path: &Path) {
    let backend = open(engine, path).await.unwrap();
    for number in 0..10_u8 {
        let batch = (0..20_u8).fold(Batch::new(), |batch, row| batch.put([number, row], vec![number; 500]));
        backend.commit(batch).await.unwrap();
    }
    backend.close().await.unwrap();
}

#[tokio::test]
async fn a_main_file_that_is_lost_is_no_fresh_store() {
    for (engine, file) in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        store(engine, directory.path()).await;
        let file = directory.path().join(file);
        fs::write(&file, b"").unwrap();
        assert_eq!(
            refused(engine, directory.path()).await,
            Kind::Corrupt,
            "{engine}, emptied"
        );
        assert_eq!(fs::read(&file).unwrap(), b"", "{engine}: it is left alone");
        fs::remove_file(&file).unwrap();
        assert_eq!(
            refused(engine, directory.path()).await,
            Kind::Corrupt,
            "{engine}, removed"
        );
        assert!(!file.exists(), "{engine}: it is not made again");
    }
}

#[tokio::test]
async fn an_empty_database_with_a_wal_is_corrupt_and_its_wal_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (main, wal) = (
        directory.path().join("store.sqlite3"),
        directory.path().join("store.sqlite3-wal"),
    );
    fs::write(&main, b"").unwrap();
    fs::write(&wal, [1; 5000]).unwrap();
    assert_eq!(refused("sqlite", directory.path()).await, Kind::Corrupt);
    assert_eq!(fs::read(&wal).unwrap(), [1; 5000]);
    fs::remove_file(&wal).unwrap();
    // What a crash while it was made can leave.
    drop(open("sqlite", directory.path()).await.unwrap());
}

#[tokio::test]
async fn a_file_that_is_cut_never_reads_as_less() {
    for (engine, file) in [ENGINES[0], ENGINES[1]] {
        let directory = tempfile::tempdir().unwrap();
        store(engine, directory.path()).await;
        let file = directory.path().join(file);
        let whole = fs::read(&file).unwrap();
        for length in (1..whole.len()).step_by(whole.len() / 40) {
            fs::write(&file, &whole[..length]).unwrap();
            // Where it opens, because redb reads on demand, each read is an error or right.
            match open(engine, directory.path()).await {
                Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{engine}, cut at {length}: {error:?}"),
                Ok(backend) => match backend.scan(b"", None, 1000).await {
                    Ok(rows) => assert_eq!(rows.len(), 200, "{engine}, cut at {length}"),
                    Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{engine}, cut at {length}: {error:?}"),
                },
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_store_is_corrupt_and_left_alone() {
    for (engine, file) in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        if engine == "sled" {
            // It takes any file for an empty store, so that only one that was there before can be missed.
            store(engine, directory.path()).await;
        }
        let file = directory.path().join(file);
        fs::write(&file, vec![b'x'; 10_000]).unwrap();
        assert_eq!(refused(engine, directory.path()).await, Kind::Corrupt, "{engine}");
        if engine != "sled" {
            assert_eq!(fs::read(&file).unwrap(), vec![b'x'; 10_000], "{engine}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let foreign = rusqlite::Connection::open(directory.path().join("store.sqlite3")).unwrap();
    foreign
        .execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(foreign);
    assert_eq!(refused("sqlite", directory.path()).await, Kind::Corrupt);
}

/// A store whose files are damaged anywhere opens or does not, and reads or does not: it neither panics nor hangs. What
/// a value has become is for the layer above to see.
#[tokio::test]
async fn damage_is_an_error_and_no_panic() {
    for (engine, file) in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        store(engine, directory.path()).await;
        let main = directory.path().join(file);
        let whole = fs::read(&main).unwrap();
        let (mut opened, mut read) = (0, 0);
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut damaged = whole.clone();
            for _ in 0..random.u8(1..40) {
                let start = random.usize(..damaged.len());
                let end = (start + random.usize(1..600)).min(damaged.len());
                random.fill(&mut damaged[start..end]);
            }
            fs::write(&main, damaged).unwrap();
            let is_typed = |error: &BackendError| matches!(error.kind(), Kind::Corrupt | Kind::Io);
            match open(engine, directory.path()).await {
                Err(error) => assert!(is_typed(&error), "{engine}, seed {seed}: {error:?}"),
                Ok(backend) => {
                    opened += 1;
                    match backend.scan(b"", None, 1000).await {
                        Err(error) => assert!(is_typed(&error), "{engine}, seed {seed}: {error:?}"),
                        Ok(_) => read += 1,
                    }
                    for result in [backend.commit(Batch::new().put("a", [1])).await, backend.close().await] {
                        assert!(
                            result.as_ref().err().is_none_or(is_typed),
                            "{engine}, seed {seed}: {result:?}"
                        );
                    }
                }
            }
        }
        assert!(
            opened < 60 && read <= opened,
            "{engine}: of 60 damaged stores {opened} opened, {read} were read"
        );
    }
}

/// What a kill in the middle of writing a snapshot leaves, some thousand kills apart.
#[tokio::test]
async fn an_unfinished_snapshot_of_sled_is_none() {
    let directory = tempfile::tempdir().unwrap();
    store("sled", directory.path()).await;
    for content in [b"".as_slice(), &[0; 100]] {
        fs::write(directory.path().join("snap.00000000FFFFFFFF.generating"), content).unwrap();
        let backend = open("sled", directory.path()).await.unwrap();
        assert_eq!(backend.scan(b"", None, 1000).await.unwrap().len(), 200);
        backend.close().await.unwrap();
    }
}

/// What a kill in the middle of making a store leaves.
#[tokio::test]
async fn half_made_files_are_no_store() {
    for (engine, file) in [("sled", "conf"), ("redb", "store.redb.new")] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(file), b"segm").unwrap();
        store(engine, directory.path()).await;
        assert!(open(engine, directory.path()).await.is_ok(), "{engine}");
    }
}

#[tokio::test]
async fn compacting_gives_space_back() {
    for engine in ["sqlite", "redb"] {
        let directory = tempfile::tempdir().unwrap();
        let backend = open(engine, directory.path()).await.unwrap();
        let rows = |write: fn(Batch, u16) -> Batch| (0..2000).fold(Batch::new(), write);
        let put = rows(|batch, number| batch.put(number.to_be_bytes(), vec![7; 2000]));
        backend.commit(put).await.unwrap();
        backend
            .commit(rows(|batch, number| batch.delete(number.to_be_bytes())))
            .await
            .unwrap();
        let before = backend.size_bytes().await.unwrap().unwrap();
        backend.compact().await.unwrap();
        let after = backend.size_bytes().await.unwrap().unwrap();
        assert!(
            before > 4_000_000 && after < before / 2,
            "{engine}: {before} -> {after}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for engine in ["sqlite", "redb"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a").join("store");
        let backend = open(engine, &path).await.unwrap();
        backend.commit(Batch::new().put("a", [1])).await.unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&directory.path().join("a")), 0o700);
        let names: Vec<PathBuf> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        for name in &names {
            assert_eq!(mode(name), 0o600, "{name:?}");
        }
        let named = |end: &str| names.iter().any(|name| name.to_string_lossy().ends_with(end));
        assert_eq!(named("-wal"), engine == "sqlite");
        assert!(!named("-shm"), "nothing is shared");
    }
}

const LOCKED: &str = "MX_TEST_LOCKED";

/// What another process sees of a store, as its exit code.
fn another_process(engine: &str, path: &Path) -> bool {
    let program = env::current_exe().unwrap();
    let status = Command::new(program)
        .args(["an_open_store_is_in_use_for_everybody", "--exact", "--nocapture"])
        .env(LOCKED, format!("{engine}:{}", path.display()))
        .stdout(std::process::Stdio::null())
        .status();
    let code = status.unwrap().code();
    assert!(
        [Some(3), Some(4)].contains(&code),
        "the other process ended with {code:?}"
    );
    code == Some(3)
}

#[tokio::test]
async fn an_open_store_is_in_use_for_everybody() {
    if let Ok(store) = env::var(LOCKED) {
        let (engine, path) = store.split_once(':').unwrap();
        let result = open(engine, Path::new(path)).await;
        std::process::exit(match result.map_err(|error| error.kind()) {
            Err(Kind::InUse) => 3,
            Ok(_) => 4,
            Err(_) => 5,
        });
    }
    for (engine, _) in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let link = directory.path().join("link");
        let first = open(engine, &path).await.unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for round in 0..3_u8 {
            let started = Instant::now();
            assert_eq!(refused(engine, &path).await, Kind::InUse, "{engine}, in this process");
            assert_eq!(refused(engine, &link).await, Kind::InUse, "{engine}, through a link");
            assert!(started.elapsed() < Duration::from_secs(1), "{engine}: at once");
            // After those were refused: a lock of POSIX would be gone with their handles.
            assert!(another_process(engine, &path), "{engine}, in another process");
            assert!(
                another_process(engine, &link),
                "{engine}, in another process, through a link"
            );
            first.commit(Batch::new().put("a", [round])).await.unwrap();
            assert_eq!(first.get(b"a").await.unwrap(), Some(vec![round]));
        }
        first.close().await.unwrap();
        assert!(!another_process(engine, &link), "{engine}: it is free");
    }
}

/// SQLite's own lock is there as well, for programs that do not know ours.
#[tokio::test]
async fn other_programs_of_sqlite_are_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open("sqlite", directory.path()).await.unwrap();
    backend.commit(Batch::new().put("a", [1])).await.unwrap();
    let other = rusqlite::Connection::open(directory.path().join("store.sqlite3")).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    let error = other
        .execute_batch("INSERT INTO rows VALUES (x'00', x'00')")
        .unwrap_err();
    let codes = [rusqlite::ErrorCode::DatabaseBusy, rusqlite::ErrorCode::DatabaseLocked];
    assert!(
        error.sqlite_error_code().is_some_and(|code| codes.contains(&code)),
        "{error:?}"
    );
}

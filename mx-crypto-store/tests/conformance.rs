//! The contract of a backend, on each engine.

use mx_crypto_store::{
    backend::{Backend, BackendError, Memory, MemoryDisk, Redb, Sled, Sqlite},
    conformance,
};

fn boxed<B: Backend>(opened: Result<B, BackendError>) -> Result<Box<dyn Backend>, BackendError> {
    opened.map(|backend| Box::new(backend) as _)
}

#[tokio::test]
async fn memory() {
    let disk = MemoryDisk::new();
    conformance::all(&|| async { boxed(Memory::open(&disk)) }).await;
}

#[tokio::test]
async fn sqlite() {
    let directory = tempfile::tempdir().unwrap();
    conformance::all(&|| async { boxed(Sqlite::open(directory.path().join("store")).await) }).await;
}

#[tokio::test]
async fn redb() {
    let directory = tempfile::tempdir().unwrap();
    conformance::all(&|| async { boxed(Redb::open(directory.path().join("store")).await) }).await;
}

#[tokio::test]
async fn sled() {
    let directory = tempfile::tempdir().unwrap();
    conformance::all(&|| async { boxed(Sled::open(directory.path().join("store")).await) }).await;
}

#[cfg(unix)]
#[tokio::test]
async fn sqlite_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a").join("store");
    let _open = Sqlite::open(&path).await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_corrupt_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.sqlite3");
    std::fs::write(&file, vec![b'x'; 10_000]).unwrap();
    let error = Sqlite::open(directory.path()).await.unwrap_err();
    assert_eq!(error.kind(), mx_crypto_store::backend::BackendErrorKind::Corrupt);
    assert_eq!(std::fs::read(&file).unwrap(), vec![b'x'; 10_000]);
}

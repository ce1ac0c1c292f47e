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

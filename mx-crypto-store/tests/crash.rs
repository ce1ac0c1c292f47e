//! A process that writes is killed at any moment, on each engine that promises to survive it.

use std::path::PathBuf;

use mx_crypto_store::{
    backend::{Backend, BackendError, Redb, Sled, Sqlite},
    conformance::{Opened, killed::survives},
};

/// `cargo xtask crash` runs more of them.
const ROUNDS: u32 = 200;

fn boxed<B: Backend>(opened: Result<B, BackendError>) -> Opened {
    opened.map(|backend| Box::new(backend) as _)
}

#[test]
fn sqlite() {
    survives("sqlite", ROUNDS, |path: PathBuf| async {
        boxed(Sqlite::open(path).await)
    });
}

#[test]
fn redb() {
    survives("redb", ROUNDS, |path: PathBuf| async { boxed(Redb::open(path).await) });
}

#[test]
fn sled() {
    survives("sled", ROUNDS, |path: PathBuf| async { boxed(Sled::open(path).await) });
}

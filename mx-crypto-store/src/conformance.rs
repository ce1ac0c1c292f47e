//! The contract of a [`Backend`] as functions: what an author of an engine runs to know that it is one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use mx_crypto_store::{backend::{Backend, Memory, MemoryDisk}, conformance};
//!
//! // How to open the engine: called again after each close, it must find what was there.
//! let disk = MemoryDisk::new();
//! let open = || async { Memory::open(&disk).map(|backend| Box::new(backend) as Box<dyn Backend>) };
//! conformance::all(&open).await;
//! # }
//! ```
//! A clause panics, with what it found, when the engine does not keep it.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a clause reports by a panic, as tests do"
)]

use std::future::Future;

use crate::backend::{Backend, BackendError, BackendErrorKind as Kind, Batch};

type Opened = Result<Box<dyn Backend>, BackendError>;

/// Every clause, one after the other, on the same store.
pub async fn all<F: Future<Output = Opened> + Send>(open: &(impl Fn() -> F + Sync)) {
    let backend = open().await.unwrap();
    get_returns_what_was_put(&*backend).await;
    scan_is_ordered(&*backend).await;
    commit_is_atomic(&*backend).await;
    commit_applies_in_order(&*backend).await;
    commit_checks_expectations(&*backend).await;
    open_is_exclusive(open).await;
    closed_is_closed(&*backend).await;
    commit_is_durable(open).await;
}

/// The latest value, byte for byte, of any length; absent is `None`.
pub async fn get_returns_what_was_put(backend: &dyn Backend) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for value in [vec![], vec![0], vec![255; 100], large] {
        backend.commit(Batch::new().put("get/a", value.clone())).await.unwrap();
        assert!(
            backend.get(b"get/a").await.unwrap() == Some(value),
            "the value came back changed"
        );
    }
    assert!(backend.get(b"get/").await.unwrap().is_none());
    assert!(backend.get(b"get/a\0").await.unwrap().is_none());
    backend
        .commit(Batch::new().delete("get/a").delete("get/never"))
        .await
        .unwrap();
    assert!(backend.get(b"get/a").await.unwrap().is_none());
}

/// Rows under a prefix in ascending order of bytes, strictly after `after`, at most `limit`.
pub async fn scan_is_ordered(backend: &dyn Backend) {
    let names: [&[u8]; 6] = [
        b"scan/",
        b"scan/\0",
        b"scan/a",
        b"scan/a\xff",
        b"scan/b",
        b"scan/\xff\xff",
    ];
    let outside: [&[u8]; 2] = [b"scan", b"scan0"];
    let batch = names
        .iter()
        .chain(&outside)
        .rev()
        .fold(Batch::new(), |batch, name| batch.put(*name, *name));
    backend.commit(batch).await.unwrap();
    let all = backend.scan(b"scan/", None, 100).await.unwrap();
    assert_eq!(all.iter().map(|(row, _)| row.as_slice()).collect::<Vec<_>>(), names);
    assert!(all.iter().all(|(row, value)| row == value));
    for (position, after) in names.iter().enumerate() {
        let rest = backend.scan(b"scan/", Some(after), 2).await.unwrap();
        let expected: Vec<&[u8]> = names.iter().skip(position + 1).take(2).copied().collect();
        assert_eq!(rest.iter().map(|(row, _)| row.as_slice()).collect::<Vec<_>>(), expected);
    }
    assert!(backend.scan(b"scan/", None, 0).await.unwrap().is_empty());
    let many = (0..1000_u32).fold(Batch::new(), |batch, number| {
        batch.put([b"many/", &number.to_be_bytes()[..]].concat(), [])
    });
    backend.commit(many).await.unwrap();
    let mut after: Option<Vec<u8>> = None;
    let mut count = 0;
    loop {
        let page = backend.scan(b"many/", after.as_deref(), 77).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        count += page.len();
    }
    assert_eq!(count, 1000);
}

/// Readers at the same time see all of a batch or nothing of it.
pub async fn commit_is_atomic(backend: &dyn Backend) {
    let set = |value: u8| {
        (0..20_u8).fold(Batch::new(), |batch, row| {
            batch.put([b"atomic/", &[row][..]].concat(), [value])
        })
    };
    backend.commit(set(0)).await.unwrap();
    let read = async {
        for _ in 0..50 {
            let rows = backend.scan(b"atomic/", None, 100).await.unwrap();
            assert_eq!(rows.len(), 20);
            assert!(
                rows.iter().all(|(_, value)| value == &rows[0].1),
                "half of a batch was seen"
            );
        }
    };
    let write = async {
        for value in 1..50 {
            backend.commit(set(value)).await.unwrap();
        }
    };
    tokio::join!(read, write);
}

/// The last write to a row in a batch wins.
pub async fn commit_applies_in_order(backend: &dyn Backend) {
    backend
        .commit(Batch::new().put("order", [1]).delete("order").put("order", [2]))
        .await
        .unwrap();
    assert_eq!(backend.get(b"order").await.unwrap(), Some(vec![2]));
    backend
        .commit(Batch::new().put("order", [3]).delete("order"))
        .await
        .unwrap();
    assert_eq!(backend.get(b"order").await.unwrap(), None);
}

/// If one expected row differs, nothing is written.
pub async fn commit_checks_expectations(backend: &dyn Backend) {
    let set = || Batch::new().put("expect/a", [1]).put("expect/b", [1]);
    backend.commit(set().expect("expect/a", None)).await.unwrap();
    for refused in [
        Batch::new().expect("expect/a", None),
        Batch::new().expect("expect/a", Some(vec![2])),
        Batch::new()
            .expect("expect/a", Some(vec![1]))
            .expect("expect/b", Some(vec![])),
        Batch::new().expect("expect/c", Some(vec![1])),
    ] {
        let error = backend
            .commit(refused.put("expect/a", [9]).delete("expect/b"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
    }
    assert_eq!(backend.get(b"expect/a").await.unwrap(), Some(vec![1]));
    assert_eq!(backend.get(b"expect/b").await.unwrap(), Some(vec![1]));
    backend
        .commit(Batch::new().expect("expect/a", Some(vec![1])).put("expect/a", [2]))
        .await
        .unwrap();
    assert_eq!(backend.get(b"expect/a").await.unwrap(), Some(vec![2]));
}

/// While it is open, another open is `InUse`.
pub async fn open_is_exclusive<F: Future<Output = Opened> + Send>(open: &(impl Fn() -> F + Sync)) {
    match open().await {
        Ok(_) => assert!(std::hint::black_box(false), "a second open succeeded"),
        Err(error) => assert_eq!(error.kind(), Kind::InUse),
    }
}

/// After `close` every call is `Closed`; closing again is `Ok`.
pub async fn closed_is_closed(backend: &dyn Backend) {
    backend.close().await.unwrap();
    backend.close().await.unwrap();
    assert_eq!(backend.get(b"a").await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(backend.scan(b"a", None, 1).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(
        backend.commit(Batch::new().put("a", [1])).await.unwrap_err().kind(),
        Kind::Closed
    );
    assert_eq!(backend.size_bytes().await.unwrap_err().kind(), Kind::Closed);
}

/// What was committed is there when the store is opened again, whether it was closed or dropped.
pub async fn commit_is_durable<F: Future<Output = Opened> + Send>(open: &(impl Fn() -> F + Sync)) {
    for round in 0..6_u8 {
        let backend = open().await.unwrap();
        let expected = round.checked_sub(1).map(|before| vec![before]);
        assert_eq!(backend.get(b"durable").await.unwrap(), expected, "round {round}");
        backend.commit(Batch::new().put("durable", [round])).await.unwrap();
        if round % 2 == 0 {
            backend.close().await.unwrap();
        }
    }
}

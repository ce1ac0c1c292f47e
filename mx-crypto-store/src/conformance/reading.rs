//! Clauses about reading: values come back as they were, and rows in their order.

use super::{Clause, Opens};
use crate::backend::Batch;

/// A value of 16 MiB: what a store of rows must take without a special case.
const LARGE_BYTES: usize = 16 << 20;
const MANY_ROWS: u32 = 20_000;

/// The latest value, byte for byte; absent is `None`, and an empty value is not absent.
pub async fn get_returns_what_was_put(open: &impl Opens) {
    let clause = Clause("get_returns_what_was_put");
    let backend = &*clause.open(open).await;
    let rows: [&[u8]; 4] = [b"get/a", b"get/\0\xff", b"get/'; --", &[b'g'; 200]];
    for row in rows {
        for value in [vec![], vec![0], vec![255; 100], vec![b'%'; 5000], vec![0; 4096]] {
            clause.commit(backend, Batch::new().put(row, value.clone())).await;
            let found = clause.get(backend, row).await;
            clause.holds(
                found.is_some(),
                format_args!("a value of {} bytes is absent", value.len()),
            );
            clause.holds(found == Some(value), "a value came back changed");
        }
    }
    for absent in ["get/", "get/a\0", "get/b"] {
        clause.holds(
            clause.get(backend, absent).await.is_none(),
            "a row is there that was never put",
        );
    }
    clause
        .commit(backend, Batch::new().delete(b"get/a").delete(b"get/never"))
        .await;
    clause.holds(clause.get(backend, b"get/a").await.is_none(), "a removed row is there");
}

/// A value of 16 MiB comes back whole, by its row and in a scan, also after it was replaced by another.
pub async fn get_returns_large_values(open: &impl Opens) {
    let clause = Clause("get_returns_large_values");
    let backend = &*clause.open(open).await;
    for seed in [1, 2] {
        let mut large = vec![0; LARGE_BYTES];
        fastrand::Rng::with_seed(seed).fill(&mut large);
        let batch = Batch::new().put("large/a", large.clone()).put("large/b", [1]);
        clause.commit(backend, batch).await;
        clause.holds(
            clause.get(backend, "large/a").await.as_ref() == Some(&large),
            "a large value came back changed",
        );
        let rows = clause.rows(backend, b"large/").await;
        clause.holds(
            rows == [(b"large/a".to_vec(), large), (b"large/b".to_vec(), vec![1])],
            "a scan returned a large value changed",
        );
    }
    clause.clear(backend, b"large/").await;
}

/// Rows under a prefix in ascending order of bytes, strictly after `after`, at most `limit`.
pub async fn scan_is_ordered(open: &impl Opens) {
    let clause = Clause("scan_is_ordered");
    let backend = &*clause.open(open).await;
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
    clause.commit(backend, batch).await;
    let scan = async |after: Option<&[u8]>, limit: usize| {
        let rows = clause.ok(backend.scan(b"scan/", after, limit).await);
        clause.holds(
            rows.iter().all(|(row, value)| row == value),
            "a row has the value of another",
        );
        rows.into_iter().map(|(row, _)| row).collect::<Vec<_>>()
    };
    clause.holds(
        scan(None, 100).await == names,
        "the rows under a prefix are not those, in ascending order",
    );
    clause.holds(
        scan(None, usize::MAX).await == names,
        "without a limit there are others",
    );
    clause.holds(scan(None, 0).await.is_empty(), "a limit of 0 gives rows");
    clause.holds(
        scan(Some(b"scan"), 100).await == names,
        "after what is before the prefix there are others",
    );
    clause.holds(
        scan(Some(b"scan0"), 100).await.is_empty(),
        "after what is behind the prefix there are rows",
    );
    for (position, after) in names.iter().enumerate() {
        let expected: Vec<&[u8]> = names.iter().skip(position + 1).take(2).copied().collect();
        clause.holds(
            scan(Some(after), 2).await == expected,
            "strictly after a row, at most two, there are others",
        );
    }
}

/// 20,000 rows, written in any order and read in pages, are those rows.
pub async fn scan_pages_many_rows(open: &impl Opens) {
    let clause = Clause("scan_pages_many_rows");
    let backend = &*clause.open(open).await;
    let mut numbers: Vec<u32> = (0..MANY_ROWS).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut numbers);
    for some in numbers.chunks(2000) {
        let batch = some.iter().fold(Batch::new(), |batch, number| {
            batch.put([b"many/", &number.to_be_bytes()[..]].concat(), number.to_le_bytes())
        });
        clause.commit(backend, batch).await;
    }
    let rows = clause.rows(backend, b"many/").await;
    let expected = (0..MANY_ROWS).map(|number| {
        (
            [b"many/", &number.to_be_bytes()[..]].concat(),
            number.to_le_bytes().to_vec(),
        )
    });
    clause.holds(
        rows.into_iter().eq(expected),
        "the pages are not the rows that were put",
    );
    clause.clear(backend, b"many/").await;
}

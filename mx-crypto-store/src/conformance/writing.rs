//! Clauses about writing: all or nothing, in order, and only if what is expected is there.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Clause, Opens};
use crate::backend::{Backend, BackendErrorKind as Kind, Batch};

/// Readers at the same time see all of a batch or nothing of it.
pub async fn commit_is_atomic(open: &impl Opens) {
    let clause = Clause("commit_is_atomic");
    let backend = &*clause.open(open).await;
    let set = |value: u8| {
        (0..20_u8).fold(Batch::new(), |batch, row| {
            batch.put([b"atomic/", &[row][..]].concat(), [value])
        })
    };
    clause.commit(backend, set(0)).await;
    let read = async {
        for _ in 0..50 {
            let rows = clause.ok(backend.scan(b"atomic/", None, 100).await);
            let values: Vec<&[u8]> = rows.iter().map(|(_, value)| value.as_slice()).collect();
            clause.holds(values.len() == 20, "rows are missing");
            clause.holds(
                values.windows(2).all(|pair| matches!(pair, [a, b] if a == b)),
                "half of a batch was seen",
            );
            // An engine that never waits lets the writer have its turn here.
            tokio::task::yield_now().await;
        }
    };
    let write = async {
        for value in 1..50 {
            clause.commit(backend, set(value)).await;
        }
    };
    tokio::join!(read, write);
}

/// The last write to a row in a batch wins.
pub async fn commit_applies_in_order(open: &impl Opens) {
    let clause = Clause("commit_applies_in_order");
    let backend = &*clause.open(open).await;
    let batch = Batch::new().put("order", [1]).delete("order").put("order", [2]);
    clause.commit(backend, batch).await;
    clause.holds(
        clause.get(backend, "order").await == Some(vec![2]),
        "put, delete, put is not the last put",
    );
    let batch = Batch::new().put("order", [3]).delete("order");
    clause.commit(backend, batch).await;
    clause.holds(
        clause.get(backend, "order").await.is_none(),
        "put, delete is not the delete",
    );
}

/// If one expected row differs, nothing is written; not even by a large batch whose last expectation fails, and not
/// after the store was opened again.
pub async fn commit_checks_expectations(open: &impl Opens) {
    let clause = Clause("commit_checks_expectations");
    let backend = clause.open(open).await;
    clause.clear(&*backend, b"expect/").await;
    let batch = Batch::new().put("expect/a", [1]).put("expect/b", [1]);
    clause.commit(&*backend, batch.expect("expect/a", None)).await;
    let before = clause.rows(&*backend, b"expect/").await;
    for refused in [
        Batch::new().expect("expect/a", None),
        Batch::new().expect("expect/a", Some(vec![2])),
        Batch::new()
            .expect("expect/a", Some(vec![1]))
            .expect("expect/b", Some(vec![])),
        Batch::new().expect("expect/c", Some(vec![1])),
        Batch::new().expect("expect/c", Some(vec![])),
    ] {
        let batch = (0..300_u32).fold(refused.put("expect/a", [9]).delete("expect/b"), |batch, number| {
            batch.put(format!("expect/more/{number}"), vec![0; 1000])
        });
        let result = backend.commit(batch).await;
        clause.refused("a commit whose expectation fails", result, Kind::Conflict);
        clause.holds(
            clause.rows(&*backend, b"expect/").await == before,
            "a commit that conflicts left something",
        );
    }
    clause.ok(backend.close().await);
    let backend = clause.open(open).await;
    clause.holds(
        clause.rows(&*backend, b"expect/").await == before,
        "a commit that conflicts left something that is seen after opening again",
    );
    let batch = Batch::new().expect("expect/a", Some(vec![1])).put("expect/a", [2]);
    clause.commit(&*backend, batch.expect("expect/c", None)).await;
    clause.holds(
        clause.get(&*backend, "expect/a").await == Some(vec![2]),
        "a commit whose expectations hold did not write",
    );
}

/// Of many commits at the same time that expect the same, one is `Ok` and the others are `Conflict`.
pub async fn commit_lets_one_of_many_win(open: &impl Opens) {
    let clause = Clause("commit_lets_one_of_many_win");
    let backend: Arc<dyn Backend> = Arc::from(clause.open(open).await);
    clause.clear(&*backend, b"race/").await;
    clause.commit(&*backend, Batch::new().put("race/turn", [0])).await;
    for turn in 1..=20_u8 {
        let mut commits = JoinSet::new();
        for runner in 0..8_u8 {
            let backend = Arc::clone(&backend);
            commits.spawn(async move {
                let batch = Batch::new()
                    .expect("race/turn", Some(vec![turn - 1]))
                    .put("race/turn", [turn])
                    .put([b"race/won/", &[turn, runner][..]].concat(), []);
                (runner, backend.commit(batch).await)
            });
        }
        let mut winners = Vec::new();
        for (runner, result) in commits.join_all().await {
            if result.is_ok() {
                winners.push([b"race/won/", &[turn, runner][..]].concat());
            } else {
                clause.refused("a commit that was too late", result, Kind::Conflict);
            }
        }
        clause.holds(winners.len() == 1, format_args!("{} of 8 won a race", winners.len()));
        let found = clause.rows(&*backend, &[b"race/won/", &[turn][..]].concat()).await;
        clause.holds(
            found.into_iter().map(|(row, _)| row).eq(winners),
            "a loser has left a row",
        );
    }
}

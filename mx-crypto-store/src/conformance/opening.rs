//! Clauses about a store's life: opened once, closed for good, the same when it is opened again.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Clause, Opens};
use crate::backend::{BackendErrorKind as Kind, Batch};

/// Much more than an engine needs to see a lock, and much less than any wait for one.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A commit whose future was dropped is carried out before the next one, or never: by the rows, and after opening again.
pub async fn dropped_commit_is_all_or_nothing(open: &impl Opens) {
    let clause = Clause("dropped_commit_is_all_or_nothing");
    let mut backend = clause.open(open).await;
    let set = |value: u8| {
        (0..50_u8).fold(Batch::new(), |batch, row| {
            batch.put([b"dropped/", &[row][..]].concat(), [value])
        })
    };
    clause.commit(&*backend, set(0)).await;
    let mut before = 0;
    for value in 1..=30 {
        let mut polls = value % 5;
        let mut commit = backend.commit(set(value));
        poll_fn(|context| {
            if polls == 0 || commit.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            polls -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(commit);
        // What was dropped may still be under way, and ends before this commit begins: later it would undo newer ones.
        clause.commit(&*backend, Batch::new().put("turn", [value])).await;
        let rows = clause.rows(&*backend, b"dropped/").await;
        let whole = |value: u8| rows.len() == 50 && rows.iter().all(|(_, found)| *found == [value]);
        clause.holds(
            whole(before) || whole(value),
            "a dropped commit is there by half, or came after a later one",
        );
        before = if whole(value) { value } else { before };
        if value % 10 == 0 {
            clause.ok(backend.close().await);
            backend = clause.open(open).await;
            let again = clause.rows(&*backend, b"dropped/").await;
            clause.holds(again == rows, "a dropped commit changed with opening again");
        }
    }
}

/// What was committed is there when the store is opened again, whether it was closed or dropped.
pub async fn commit_is_durable(open: &impl Opens) {
    let clause = Clause("commit_is_durable");
    let backend = clause.open(open).await;
    clause.clear(&*backend, b"durable/").await;
    drop(backend);
    for round in 0..6_u8 {
        let backend = clause.open(open).await;
        let rows = clause.rows(&*backend, b"durable/").await;
        let last = round.checked_sub(1);
        let expected = last.map(|last| ([b"durable/".as_slice(), &[last]].concat(), vec![last; 3000]));
        clause.holds(
            rows.into_iter().eq(expected),
            format_args!("after opening {round} times what was committed last is not there"),
        );
        let batch = Batch::new().put([b"durable/".as_slice(), &[round]].concat(), vec![round; 3000]);
        let batch = match last {
            Some(last) => batch.delete([b"durable/".as_slice(), &[last]].concat()),
            None => batch,
        };
        clause.commit(&*backend, batch).await;
        if round % 2 == 0 {
            clause.ok(backend.close().await);
        }
    }
}

/// While it is open another open is `InUse`, at once, and the first does not notice. Closed or dropped, it is free.
pub async fn open_is_exclusive(open: &impl Opens) {
    let clause = Clause("open_is_exclusive");
    let first = clause.open(open).await;
    for round in 0..3_u8 {
        let started = Instant::now();
        clause.refused("a second open", open.open().await, Kind::InUse);
        clause.holds(started.elapsed() < AT_ONCE, "a second open waited");
        clause.commit(&*first, Batch::new().put("exclusive", [round])).await;
        clause.holds(
            clause.get(&*first, "exclusive").await == Some(vec![round]),
            "a second open disturbed the first",
        );
    }
    clause.ok(first.close().await);
    let second = clause.open(open).await;
    clause.refused("a second open after a close", open.open().await, Kind::InUse);
    drop(first);
    clause.refused("a second open after a late drop", open.open().await, Kind::InUse);
    drop(second);
    drop(clause.open(open).await);
}

/// After `close` every call is `Closed` and does nothing; closing again is `Ok`.
pub async fn closed_is_closed(open: &impl Opens) {
    let clause = Clause("closed_is_closed");
    let backend = clause.open(open).await;
    clause.commit(&*backend, Batch::new().put("closed", [1])).await;
    clause.ok(backend.close().await);
    clause.ok(backend.close().await);
    clause.refused("get", backend.get(b"closed").await, Kind::Closed);
    clause.refused("scan", backend.scan(b"closed", None, 1).await, Kind::Closed);
    let batch = Batch::new().put("closed", [2]);
    clause.refused("commit", backend.commit(batch).await, Kind::Closed);
    clause.refused("compact", backend.compact().await, Kind::Closed);
    clause.refused("size_bytes", backend.size_bytes().await, Kind::Closed);
    let backend = clause.open(open).await;
    clause.holds(
        clause.get(&*backend, "closed").await == Some(vec![1]),
        "a closed store was written",
    );
}

/// Compacting changes neither a row nor a value, and the store goes on.
pub async fn compact_changes_nothing(open: &impl Opens) {
    let clause = Clause("compact_changes_nothing");
    let backend = clause.open(open).await;
    clause.clear(&*backend, b"compact/").await;
    clause.ok(backend.compact().await);
    let row = |number: u32| [b"compact/", &number.to_be_bytes()[..]].concat();
    let put = |batch: Batch, number: u32| batch.put(row(number), vec![number.to_le_bytes()[0]; 300]);
    clause.commit(&*backend, (0..2000).fold(Batch::new(), put)).await;
    let removed = (0..2000).filter(|number| number % 4 != 0);
    let removed = removed.fold(Batch::new(), |batch, number| batch.delete(row(number)));
    clause.commit(&*backend, removed).await;
    let before = clause.rows(&*backend, b"").await;
    clause.ok(backend.compact().await);
    clause.holds(
        clause.rows(&*backend, b"").await == before,
        "compacting changed what is there",
    );
    clause.commit(&*backend, put(Batch::new(), 1)).await;
    clause.commit(&*backend, Batch::new().delete(row(1))).await;
    clause.ok(backend.close().await);
    let backend = clause.open(open).await;
    clause.holds(
        clause.rows(&*backend, b"").await == before,
        "after compacting and opening again there is something else",
    );
}

/// The size is not less than what is in it, where it is told.
pub async fn size_is_told(open: &impl Opens) {
    let clause = Clause("size_is_told");
    let backend = clause.open(open).await;
    let mut random = fastrand::Rng::with_seed(4);
    let batch = (0..64_u8).fold(Batch::new(), |batch, number| {
        let mut value = vec![0; 16 << 10];
        random.fill(&mut value);
        batch.put([b"size/".as_slice(), &[number]].concat(), value)
    });
    clause.commit(&*backend, batch).await;
    if let Some(bytes) = clause.ok(backend.size_bytes().await) {
        clause.holds(
            bytes >= 1 << 20,
            format_args!("a MiB that cannot be compressed is in {bytes} bytes"),
        );
    }
    clause.clear(&*backend, b"size/").await;
}

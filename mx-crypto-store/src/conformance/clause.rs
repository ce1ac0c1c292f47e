//! A clause by its name, under which it fails.
#![expect(clippy::panic, reason = "a clause reports by a panic, as tests do")]

use std::fmt::Display;

use super::Opens;
use crate::backend::{Backend, BackendError, BackendErrorKind, Batch};

/// The name of a clause.
#[derive(Clone, Copy)]
pub(super) struct Clause(pub(super) &'static str);

impl Clause {
    #[track_caller]
    pub(super) fn broken(self, found: impl Display) -> ! {
        panic!("clause {} is broken: {found}", self.0)
    }

    #[track_caller]
    pub(super) fn holds(self, holds: bool, otherwise: impl Display) {
        if !holds {
            self.broken(otherwise);
        }
    }

    #[track_caller]
    pub(super) fn ok<T>(self, result: Result<T, BackendError>) -> T {
        result.unwrap_or_else(|error| self.broken(format_args!("an unexpected error: {error:?}")))
    }

    /// It was refused, with an error of this kind.
    #[track_caller]
    pub(super) fn refused<T>(self, what: &str, result: Result<T, BackendError>, kind: BackendErrorKind) {
        match result {
            Ok(_) => self.broken(format_args!("{what} was Ok and not {kind:?}")),
            Err(error) => self.holds(
                error.kind() == kind,
                format_args!("{what} was {:?} and not {kind:?}", error.kind()),
            ),
        }
    }

    pub(super) async fn open(self, open: &impl Opens) -> Box<dyn Backend> {
        self.ok(open.open().await)
    }

    pub(super) async fn commit(self, backend: &dyn Backend, batch: Batch) {
        self.ok(backend.commit(batch).await);
    }

    pub(super) async fn get(self, backend: &dyn Backend, row: impl AsRef<[u8]> + Send) -> Option<Vec<u8>> {
        let row = row.as_ref().to_vec();
        self.ok(backend.get(&row).await)
    }

    /// Everything under a prefix, in pages.
    pub(super) async fn rows(self, backend: &dyn Backend, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let after = rows.last().map(|(row, _)| row.clone());
            let page = self.ok(backend.scan(prefix, after.as_deref(), 1000).await);
            if page.is_empty() {
                return rows;
            }
            let ascends = |pair: &[(Vec<u8>, Vec<u8>)]| matches!(pair, [a, b] if a.0 < b.0);
            rows.extend(page);
            self.holds(
                rows.windows(2).all(ascends),
                "a page does not follow the page before it",
            );
        }
    }

    /// Remove what an earlier run left.
    pub(super) async fn clear(self, backend: &dyn Backend, prefix: &[u8]) {
        for page in self.rows(backend, prefix).await.chunks(2000) {
            let batch = page
                .iter()
                .fold(Batch::new(), |batch, (row, _)| batch.delete(row.clone()));
            self.commit(backend, batch).await;
        }
    }
}

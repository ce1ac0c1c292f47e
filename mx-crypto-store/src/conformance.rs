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
//! let report = conformance::all(&open).await;
//! assert!(report.passed().contains(&"scan_is_ordered"));
//! // Memory says that it does not survive its process, and the report says it too.
//! assert_eq!(report.skipped()[0].clause, "survives_kill");
//! # }
//! ```
//!
//! A clause that the engine does not keep panics with its name and with what was found. What a killed process leaves is
//! a test of its own, of three lines: [`killed::survives`]. A whole engine that passes both, as a start for yours, is
//! `examples/own_engine.rs` of this crate.

mod clause;
pub mod killed;
mod opening;
mod reading;
mod report;
mod writing;

use std::future::Future;

use self::clause::Clause;
pub use self::{
    opening::{
        closed_is_closed, commit_is_durable, compact_changes_nothing, dropped_commit_is_all_or_nothing,
        open_is_exclusive, size_is_told,
    },
    reading::{get_returns_large_values, get_returns_what_was_put, scan_is_ordered, scan_pages_many_rows},
    report::{Report, Skipped},
    writing::{commit_applies_in_order, commit_checks_expectations, commit_is_atomic, commit_lets_one_of_many_win},
};
use crate::backend::{Backend, BackendError};

/// What opening an engine gives.
pub type Opened = Result<Box<dyn Backend>, BackendError>;

/// How the engine is opened: again after each close, on what was there. A closure that returns a future is one.
pub trait Opens: Sync {
    /// Open it.
    fn open(&self) -> impl Future<Output = Opened> + Send;
}

impl<O: Fn() -> F + Sync, F: Future<Output = Opened> + Send> Opens for O {
    fn open(&self) -> impl Future<Output = Opened> + Send {
        self()
    }
}

/// Every clause, one after the other, on the same store; the report is printed as well.
#[expect(clippy::print_stdout, reason = "what was skipped is never skipped in silence")]
pub async fn all(open: &impl Opens) -> Report {
    let backend = Clause("open").open(open).await;
    let mut report = Report::new(backend.promises());
    drop(backend);
    macro_rules! keep {
        ($($clause:ident),+ $(,)?) => {
            $($clause(open).await; report.pass(stringify!($clause));)+
        };
    }
    keep!(
        get_returns_what_was_put,
        scan_is_ordered,
        get_returns_large_values,
        scan_pages_many_rows,
        commit_is_atomic,
        commit_applies_in_order,
        commit_checks_expectations,
        commit_lets_one_of_many_win,
        dropped_commit_is_all_or_nothing,
        commit_is_durable,
        open_is_exclusive,
        closed_is_closed,
        compact_changes_nothing,
        size_is_told,
    );
    println!("{report}");
    report
}

//! The contract of a storage engine: ordered, atomic, durable rows of bytes. No I/O here.

use std::fmt;

use async_trait::async_trait;

mod caught;
mod error;
#[cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]
mod home;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]
mod worker;

pub(crate) use self::caught::Caught;
#[cfg(feature = "redb")]
pub use self::redb::Redb;
#[cfg(feature = "sled")]
pub use self::sled::Sled;
#[cfg(feature = "sqlite")]
pub use self::sqlite::Sqlite;
pub use self::{
    error::{BackendError, BackendErrorKind},
    memory::{Memory, MemoryDisk},
};

/// Ordered, atomic, durable rows of bytes. Rows hold secrets, sealed by the layer above: never log them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mx_crypto_store::backend::{Backend, BackendErrorKind, Batch, Memory};
///
/// let rows: &dyn Backend = &Memory::new();
/// rows.commit(Batch::new().put("a1", "x").put("a2", "y").put("b1", "z")).await?;
/// assert_eq!(rows.scan(b"a", Some(b"a1"), 10).await?, [(b"a2".to_vec(), b"y".to_vec())]);
/// let refused = rows.commit(Batch::new().expect("a1", None).put("a1", "w")).await.unwrap_err();
/// assert_eq!(refused.kind(), BackendErrorKind::Conflict);
/// # Ok(()) }
/// ```
///
/// # Contract (each clause is a function in `conformance`, run on every engine)
/// - `get_returns_what_was_put`: the latest committed value, byte for byte; absent is `Ok(None)`, and an empty value is
///   not absent.
/// - `scan_is_ordered`: rows under `prefix`, ascending bytes, strictly after `after`, at most `limit`.
/// - `get_returns_large_values`: a value of 16 MiB is a value.
/// - `scan_pages_many_rows`: so it is with 20,000 rows, read in pages.
/// - `commit_is_atomic`: all of the batch or none, to every reader and after a crash.
/// - `commit_applies_in_order`: the last write to a row in a batch wins.
/// - `commit_checks_expectations`: if one expected row differs, nothing is written: `Conflict`.
/// - `commit_lets_one_of_many_win`: the check and the writes are one step, also for commits at the same time.
/// - `dropped_commit_is_all_or_nothing`: a future that was dropped is carried out before the next commit, or never.
/// - `commit_is_durable`: `Ok` means the bytes are on disk, not scheduled: they are there when the store is opened
///   again, whether it was closed or dropped.
/// - `open_is_exclusive`: a second open is `InUse` at once, until the first is closed or dropped and what it had under
///   way has ended; the first does not notice.
/// - `closed_is_closed`: after `close`, every call is `Closed`, and closing again is `Ok`.
/// - `compact_changes_nothing`: neither a row nor a value.
/// - `size_is_told`: not less than what is in it, where it is told at all.
/// - `survives_kill`: every commit that returned is there when the process was killed, the one under way is there or not,
///   the lock is free at once, and opening needs no help. If [`Promises::survives_kill`]; run with
///   `conformance::killed::survives`.
/// - `survives_power_cut`: the same, when what was not synced is gone. If [`Promises::survives_power_cut`].
///
/// An engine of yours is some 200 lines: `examples/own_engine.rs` of this crate is a whole one, and passes.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What this engine promises beyond the process. The conformance suite says aloud what is not promised.
    fn promises(&self) -> Promises;

    /// The value of a row.
    ///
    /// # Errors
    /// Of the engine. A row that cannot be read is an error, never `None`.
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// Rows under `prefix` with their values, in ascending order, strictly after `after`, at most `limit`.
    ///
    /// # Errors
    /// Of the engine.
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError>;

    /// Write all of a batch, durably, or nothing.
    ///
    /// # Errors
    /// `Conflict` when an expectation does not hold: nothing was written. Any other error: it is not known whether
    /// the batch was written, and the caller must not write again before the store was opened anew. An engine may refuse
    /// to read as well from then on.
    ///
    /// # Cancel safety
    /// A call that was dropped may have been carried out, or still is: before any call that begins after it.
    async fn commit(&self, batch: Batch) -> Result<(), BackendError>;

    /// Give unused space back to the operating system, where the engine can. It may take as long as writing everything
    /// once, and needs as much space meanwhile; other calls wait for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_crypto_store::backend::{Backend, Batch, Memory};
    ///
    /// // Nobody who reads notices it; an engine that cannot do it does nothing.
    /// let rows = Memory::new();
    /// rows.commit(Batch::new().put("row", "value")).await?;
    /// rows.compact().await?;
    /// assert_eq!(rows.get(b"row").await?.as_deref(), Some(&b"value"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As of [`commit`](Self::commit), but for `Conflict`.
    async fn compact(&self) -> Result<(), BackendError>;

    /// The size on disk, in bytes, where the engine knows it.
    ///
    /// # Errors
    /// Of the engine.
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError>;

    /// Finish what is under way and release the lock. Later calls are `Closed`; closing again is `Ok`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_crypto_store::backend::{Backend, BackendErrorKind, Memory};
    ///
    /// let rows = Memory::new();
    /// rows.close().await?;
    /// rows.close().await?; // once more is no error
    /// assert_eq!(rows.get(b"row").await.unwrap_err().kind(), BackendErrorKind::Closed);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the engine. The lock is released all the same.
    async fn close(&self) -> Result<(), BackendError>;
}

/// What an engine promises about commits that returned `Ok`.
///
/// ```
/// use mx_crypto_store::backend::{Backend, Memory};
///
/// let promises = Memory::new().promises();
/// assert!(!promises.survives_kill, "for tests, and for devices that are thrown away");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// They are there after the process was killed (`SIGKILL`, a panic, the out-of-memory killer), at any instruction.
    pub survives_kill: bool,
    /// They are there after the machine lost its power: they were synced, and what was not synced can be torn or lost
    /// without harm to them. Beyond the disk's own promise to keep what it said it has kept, which no engine can mend.
    pub survives_power_cut: bool,
}

/// Writes that happen together, under expectations.
///
/// ```
/// use mx_crypto_store::backend::Batch;
///
/// // Both or neither, and only while nobody else has made the first.
/// let batch = Batch::new().expect("owner", None).put("owner", "us").delete("old");
/// assert_eq!(batch.writes.len(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Batch {
    /// What must hold for anything to be written.
    pub expect: Vec<Expectation>,
    /// What is written, in this order.
    pub writes: Vec<Write>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Set a row.
    #[must_use]
    pub fn put(mut self, row: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write {
            row: row.into(),
            value: Some(value.into()),
        });
        self
    }

    /// Remove a row.
    #[must_use]
    pub fn delete(mut self, row: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write {
            row: row.into(),
            value: None,
        });
        self
    }

    /// Write only if a row has this value; `None`: only if it is absent.
    #[must_use]
    pub fn expect(mut self, row: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        self.expect.push(Expectation { row: row.into(), value });
        self
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("expect", &self.expect.len())
            .field("writes", &self.writes.len())
            .finish()
    }
}

/// One write.
///
/// ```
/// use std::collections::BTreeMap;
/// use mx_crypto_store::backend::{Batch, Write};
///
/// // What an engine does with a batch, in its order: the last write to a row wins.
/// fn apply(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: Batch) {
///     for Write { row, value } in batch.writes {
///         match value {
///             Some(value) => rows.insert(row, value),
///             None => rows.remove(&row),
///         };
///     }
/// }
/// let mut rows = BTreeMap::new();
/// apply(&mut rows, Batch::new().put("row", "1").delete("row").put("row", "2"));
/// assert_eq!(rows[&b"row".to_vec()], b"2");
/// ```
#[derive(Clone)]
pub struct Write {
    /// The row.
    pub row: Vec<u8>,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// What a row must be.
///
/// ```
/// use std::collections::BTreeMap;
/// use mx_crypto_store::backend::{Batch, Expectation};
///
/// // What an engine looks at before it writes anything. An empty value is not an absent one.
/// fn holds(rows: &BTreeMap<Vec<u8>, Vec<u8>>, batch: &Batch) -> bool {
///     batch.expect.iter().all(|Expectation { row, value }| rows.get(row) == value.as_ref())
/// }
/// assert!(holds(&BTreeMap::new(), &Batch::new().expect("row", None)));
/// assert!(!holds(&BTreeMap::new(), &Batch::new().expect("row", Some(Vec::new()))));
/// ```
#[derive(Clone)]
pub struct Expectation {
    /// The row.
    pub row: Vec<u8>,
    /// Its value; `None`: it is absent.
    pub value: Option<Vec<u8>>,
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expectation")
            .field("bytes", &self.value.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

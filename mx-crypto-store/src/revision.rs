//! Whether anything was written that a caller has to look at again.
//!
//! # Why
//! Who sends many messages to the same people wants to know, cheaply, that nothing has changed for them. It is counted
//! where every write goes through, and everything counts that is not named as passing: what is forgotten in the list
//! costs a second look, and never a change that nobody saw.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{Row, Table};

/// How often something was written. A write counts when it joins its unit, whether that is committed or not: ask inside
/// of a unit of work, which is alone, to know of all.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// let before = store.revision();
/// let unit = store.begin().await?;
/// unit.put(&RecordId::named(Family::new("seen"), &[], "1"), &1)?;
/// unit.commit().await?;
/// assert_ne!(store.revision(), before, "what was read before may have changed");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Anything but what comes and goes with messages: ratchets, room keys, hashes, positions, tokens, and records of
    /// families that are [`passing`](crate::Family::passing).
    pub records: u64,
    /// Olm sessions: one was opened, used or lost.
    pub sessions: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Moves {
    records: AtomicU64,
    sessions: AtomicU64,
}

impl Moves {
    /// A record of a caller was written that is not passing.
    pub(crate) fn record(&self) {
        self.records.fetch_add(1, Ordering::SeqCst);
    }

    /// These rows were written.
    pub(crate) fn engine<T>(&self, rows: &[(Row, T)]) {
        let tables = || rows.iter().map(|(row, _)| Table::of(row));
        if tables().any(|table| table.is_none_or(|table| !table.is_passing())) {
            self.record();
        }
        if tables().any(|table| table == Some(Table::OlmSession)) {
            self.sessions.fetch_add(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision {
            records: self.records.load(Ordering::SeqCst),
            sessions: self.sessions.load(Ordering::SeqCst),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_as_passing_counts() {
        let moves = Moves::default();
        let row = |number: u8| (vec![number, 1, 2], ());
        moves.engine(&[row(Table::NextBatch as u8), row(Table::OutboundGroupSession as u8)]);
        assert_eq!(moves.revision(), Revision::default());
        moves.engine(&[row(Table::NextBatch as u8), row(Table::Device as u8)]);
        moves.engine(&[row(Table::TrackedUser as u8)]);
        moves.engine(&[row(0xee)]);
        assert_eq!(
            moves.revision(),
            Revision {
                records: 3,
                sessions: 0
            }
        );
        moves.engine(&[row(Table::OlmSession as u8)]);
        assert_eq!(
            moves.revision(),
            Revision {
                records: 3,
                sessions: 1
            }
        );
    }
}

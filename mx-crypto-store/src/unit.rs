//! The unit of work: what is written inside is seen inside only, until one durable commit shows all of it.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

use crate::{
    Record, RecordId, Result, Submitted,
    layers::{Core, View},
    record::{Cursor, Family, decode, encode},
};

/// An open unit of work. There is one at a time; writes of the engine join it. Dropped without
/// [`commit`](Self::commit) or [`submit`](Self::submit), it leaves no trace.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
/// let (one, two) = (RecordId::named(Family::new("seen"), &[], "1"), RecordId::named(Family::new("seen"), &[], "2"));
/// let unit = store.begin().await?;
/// unit.put(&one, "both")?;
/// unit.put(&two, "or none")?;
/// assert_eq!(unit.get::<String>(&one).await?.as_deref(), Some("both")); // inside it is seen
/// drop(unit);
/// assert_eq!(store.record::<String>(&one).await?, None); // nothing was committed
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Unit {
    core: Arc<Core>,
    _turn: OwnedMutexGuard<()>,
    open: bool,
}

impl Unit {
    pub(crate) fn new(core: Arc<Core>, turn: OwnedMutexGuard<()>) -> Self {
        Self {
            core,
            _turn: turn,
            open: true,
        }
    }

    /// Set a record.
    ///
    /// # Errors
    /// [`StoreError::Encode`](crate::StoreError::Encode).
    pub fn put<T: Serialize + ?Sized>(&self, id: &RecordId, value: &T) -> Result<()> {
        let encoded = self.core.taint(encode(value))?;
        self.write(id.row(&self.core.sealer), Some(encoded), id.is_passing());
        Ok(())
    }

    /// Remove a record. Removing what is absent is `Ok`.
    ///
    /// # Errors
    /// None today.
    pub fn delete(&self, id: &RecordId) -> Result<()> {
        self.write(id.row(&self.core.sealer), None, id.is_passing());
        Ok(())
    }

    /// Remove the record that a scan found.
    ///
    /// # Errors
    /// None today.
    pub fn delete_at(&self, cursor: &Cursor) -> Result<()> {
        self.write(cursor.row.clone(), None, cursor.passing);
        Ok(())
    }

    /// A record, as this unit sees it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    pub async fn get<T: DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>> {
        let value = self.core.read(&id.row(&self.core.sealer), View::Unit).await?;
        self.core.taint(value.map(|value| decode(&value)).transpose())
    }

    /// Records of a group, as this unit sees them: by position, or in no particular order by name; strictly after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    pub async fn scan(
        &self,
        family: Family,
        group: &[&str],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let prefix = family.prefix(&self.core.sealer, group);
        self.core
            .records(&prefix, after, limit, View::Unit, family.is_passing())
            .await
    }

    /// The next position of a group. No position is ever given twice, even when its record is gone.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
    /// const QUEUE: Family = Family::new("queue");
    /// let unit = store.begin().await?;
    /// let first = unit.next_sequence(QUEUE, &["mail"]).await?;
    /// unit.put(&RecordId::sequence(QUEUE, &["mail"], first), "a task")?;
    /// assert!(unit.next_sequence(QUEUE, &["mail"]).await? > first);
    /// // What was taken is seen by a scan of the same unit, and removed by the place where it was found.
    /// let found = unit.scan(QUEUE, &["mail"], None, 10).await?;
    /// unit.delete_at(&found[0].cursor)?;
    /// unit.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`](crate::StoreError::Corrupt); of the engine.
    pub async fn next_sequence(&self, family: Family, group: &[&str]) -> Result<u64> {
        let row = family.position_row(&self.core.sealer, group);
        let next: u64 = match self.core.read(&row, View::Unit).await? {
            Some(value) => self.core.taint(decode(&value))?,
            None => 0,
        };
        let encoded = encode(&next.saturating_add(1))?;
        self.write(row, Some(encoded), true);
        Ok(next)
    }

    fn write(&self, row: Vec<u8>, value: Option<Vec<u8>>, passing: bool) {
        let value = value.map(|value| Arc::new(Zeroizing::new(value)));
        if !passing {
            self.core.moves.record();
        }
        self.core.write_into_unit(&mut vec![(row, value)]);
    }

    /// Make everything durable, all at once. `Ok`: it is on the disk.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
    /// let id = RecordId::named(Family::new("seen"), &[], "last");
    /// let unit = store.begin().await?;
    /// unit.put(&id, "$event")?;
    /// unit.commit().await?;
    /// // It is on the disk: a message may be sent now that depends on it.
    /// assert_eq!(store.record::<String>(&id).await?.as_deref(), Some("$event"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Submitted::durable`].
    ///
    /// # Cancel safety
    /// A call that was dropped may have been carried out: whole, or not at all.
    pub async fn commit(mut self) -> Result<()> {
        let submitted = self.core.submit_and_begin();
        let durable = self.ended(submitted)?.durable();
        // The next unit may begin.
        drop(self);
        durable.await
    }

    /// End this unit and begin its way to the disk. The next unit may begin at once, on top of this one; all that wait
    /// while the disk is busy are written together, in order, in one commit.
    ///
    /// # Errors
    /// [`StoreError::UnitFailed`](crate::StoreError::UnitFailed) when something failed inside before,
    /// [`StoreError::Poisoned`](crate::StoreError::Poisoned) when a write failed since: nothing is written.
    pub fn submit(mut self) -> Result<Submitted> {
        let submitted = self.core.submit();
        self.ended(submitted)
    }

    fn ended(&mut self, submitted: Result<Submitted>) -> Result<Submitted> {
        if submitted.is_ok() {
            self.open = false;
        }
        submitted
    }

    /// Undo everything.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
    /// let id = RecordId::named(Family::new("seen"), &[], "last");
    /// let unit = store.begin().await?;
    /// unit.put(&id, "$event")?;
    /// unit.abort().await?;
    /// // When this returns, the next unit begins without it.
    /// assert_eq!(store.begin().await?.get::<String>(&id).await?, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None today.
    pub async fn abort(self) -> Result<()> {
        drop(self);
        Ok(())
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if self.open {
            self.core.undo();
        }
    }
}

//! The unit of work: what is written inside is seen inside only, until one durable commit shows all of it.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

use crate::{
    Record, RecordId, Result, StoreError,
    record::{Cursor, Family, decode, encode},
    sealed::{Core, View},
};

/// An open unit of work. There is one at a time; writes of the engine join it. Dropped without
/// [`commit`](Self::commit), it leaves no trace.
#[derive(Debug)]
pub struct Unit {
    core: Arc<Core>,
    _turn: OwnedMutexGuard<()>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The engine was asked to write, and has not answered.
    Committing,
    Ended,
}

impl Unit {
    pub(crate) fn new(core: Arc<Core>, turn: OwnedMutexGuard<()>) -> Self {
        Self {
            core,
            _turn: turn,
            state: State::Open,
        }
    }

    /// Set a record.
    ///
    /// # Errors
    /// [`StoreError::Encode`].
    pub fn put<T: Serialize + ?Sized>(&self, id: &RecordId, value: &T) -> Result<()> {
        let encoded = self.core.taint(encode(value))?;
        self.write(id.row(&self.core.sealer), Some(encoded));
        Ok(())
    }

    /// Remove a record. Removing what is absent is `Ok`.
    ///
    /// # Errors
    /// None today.
    pub fn delete(&self, id: &RecordId) -> Result<()> {
        self.write(id.row(&self.core.sealer), None);
        Ok(())
    }

    /// Remove the record that a scan found.
    ///
    /// # Errors
    /// None today.
    pub fn delete_at(&self, cursor: &Cursor) -> Result<()> {
        self.write(cursor.0.clone(), None);
        Ok(())
    }

    /// A record, as this unit sees it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn get<T: DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>> {
        let value = self.core.read(&id.row(&self.core.sealer), View::Unit).await?;
        self.core.taint(value.map(|value| decode(&value)).transpose())
    }

    /// Records of a group, as this unit sees them: by position, or in no particular order by name; strictly after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn scan(
        &self,
        family: Family,
        group: &[&str],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let prefix = family.prefix(&self.core.sealer, group);
        self.core.records(&prefix, after, limit, View::Unit).await
    }

    /// The next position of a group. No position is ever given twice, even when its record is gone.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn next_sequence(&self, family: Family, group: &[&str]) -> Result<u64> {
        let row = family.position_row(&self.core.sealer, group);
        let next: u64 = match self.core.read(&row, View::Unit).await? {
            Some(value) => self.core.taint(decode(&value))?,
            None => 0,
        };
        let encoded = encode(&next.saturating_add(1))?;
        self.write(row, Some(encoded));
        Ok(next)
    }

    fn write(&self, row: Vec<u8>, value: Option<Vec<u8>>) {
        self.core.write_into_unit(&mut vec![(row, value.map(Zeroizing::new))]);
    }

    /// Make everything durable, all at once. `Ok`: it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::UnitFailed`] when something failed inside before: nothing was written. Of the engine: it is not
    /// known what was written, and the store is poisoned.
    ///
    /// # Cancel safety
    /// Not safe to drop: as it is not known then what was written, the store is poisoned.
    pub async fn commit(mut self) -> Result<()> {
        let overlay = match self.core.open_unit().as_ref() {
            Some(unit) if unit.failed => None,
            Some(unit) => Some(unit.overlay.clone()),
            None => None,
        };
        let Some(overlay) = overlay else {
            self.end(false);
            return Err(StoreError::UnitFailed);
        };
        self.state = State::Committing;
        let written = self.core.write(&overlay).await;
        self.end(written.is_ok());
        written
    }

    /// Undo everything.
    ///
    /// # Errors
    /// None today.
    pub async fn abort(mut self) -> Result<()> {
        self.end(false);
        Ok(())
    }

    fn end(&mut self, committed: bool) {
        self.state = State::Ended;
        if committed {
            self.core.open_unit().take();
        } else {
            self.core.undo();
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        match self.state {
            State::Ended => {}
            State::Open => self.end(false),
            State::Committing => {
                self.core.poison();
                self.end(false);
            }
        }
    }
}

//! `PickleStore`: the engine's `CryptoStore` over any `Backend`, with its writes in the unit of work that is open.

mod account;
mod crypto_store;
mod devices;
mod leases;
mod megolm;
mod requests;
mod rooms;

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, StaticAccountData},
    types::DeviceKeys,
};
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    Cursor, Family, KeySource, Record, RecordId, Result, SealedStore, StoreError, Unit,
    backend::Backend,
    layout::{self, Row, Table},
    record,
    sealed::{Plain, View},
};

/// How many decoded Megolm sessions are kept in memory.
const CACHED_SESSIONS: usize = 1024;

/// The engine's store. Cheap to clone; all clones are the same store.
///
/// While a [`Unit`] is open, every write of the engine joins it and every read sees it. A write outside of a unit is
/// durable when it returns.
#[derive(Clone, Debug)]
pub struct PickleStore {
    pub(crate) sealed: SealedStore,
    decoded: Arc<Decoded>,
}

/// What was decoded, until a unit is undone: one store has one writer, so that nobody else changes what is under it.
#[derive(Debug)]
struct Decoded {
    inbound: Cache<Row, InboundGroupSession>,
    own: StdMutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    /// How many units were undone when this was decoded.
    undone: u64,
    account: Option<StaticAccountData>,
    device_keys: Option<DeviceKeys>,
}

impl PickleStore {
    /// Open the store in `backend`, or begin one if it is empty.
    ///
    /// # Errors
    /// As [`SealedStore::open`].
    pub async fn open(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        let sealed = SealedStore::open(backend, key).await?;
        let decoded = Decoded {
            inbound: Cache::new(CACHED_SESSIONS),
            own: StdMutex::default(),
        };
        Ok(Self {
            sealed,
            decoded: Arc::new(decoded),
        })
    }

    /// Begin a unit of work, after the one that is open has ended.
    ///
    /// # Errors
    /// As [`SealedStore::begin`].
    ///
    /// # Cancel safety
    /// Safe: nothing has begun when the future is dropped.
    pub async fn begin(&self) -> Result<Unit> {
        self.sealed.begin().await
    }

    /// A record as it is on the disk.
    ///
    /// # Errors
    /// As [`SealedStore::record`].
    pub async fn record<T: DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>> {
        self.sealed.record(id).await
    }

    /// Records of a group as they are on the disk.
    ///
    /// # Errors
    /// As [`SealedStore::scan`].
    pub async fn scan(
        &self,
        family: Family,
        group: &[&str],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.sealed.scan(family, group, after, limit).await
    }

    /// Whose store this is. `None`: no account was saved yet.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn device(&self) -> Result<Option<(OwnedUserId, OwnedDeviceId)>> {
        let row = self.row(Table::Account, &[], "owner");
        let owner = self.sealed.core.read(&row, View::Committed).await?;
        owner.map(|value| record::decode(&value)).transpose()
    }

    /// A write failed: the store may be read and closed, and nothing else.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.sealed.is_poisoned()
    }

    /// Finish what is under way and release the engine's lock.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn shutdown(&self) -> Result<()> {
        self.sealed.shutdown().await
    }

    /// What never changes of the account, once it was loaded or saved. The engine's own suite asks for it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn get_static_account(&self) -> Option<StaticAccountData> {
        self.own().account.clone()
    }

    fn row(&self, table: Table, group: &[&str], name: &str) -> Row {
        layout::named(&self.sealed.core.sealer, table, group, name)
    }

    fn group(&self, table: Table, group: &[&str]) -> Row {
        layout::group(&self.sealed.core.sealer, table, group)
    }

    async fn plain(&self, row: &[u8]) -> Result<Option<Plain>> {
        self.sealed.core.read(row, View::Unit).await
    }

    async fn json<T: DeserializeOwned>(&self, table: Table, group: &[&str], name: &str) -> Result<Option<T>> {
        let value = self.plain(&self.row(table, group, name)).await?;
        self.taint(value.map(|value| record::decode(&value)).transpose())
    }

    /// All values under a prefix, decoded.
    async fn all_json<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<T>> {
        let rows = self.sealed.core.rows(prefix, None, usize::MAX, View::Unit).await?;
        self.taint(rows.iter().map(|(_, value)| record::decode(value)).collect())
    }

    fn taint<T>(&self, result: Result<T>) -> Result<T> {
        self.sealed.core.taint(result)
    }

    /// Write into the open unit, or durably on its own.
    async fn write(&self, rows: Rows) -> Result<()> {
        let mut rows = rows.0;
        if rows.is_empty() || self.sealed.core.write_into_unit(&mut rows) {
            return Ok(());
        }
        let unit = self.sealed.begin().await?;
        self.sealed.core.write_into_unit(&mut rows);
        unit.commit().await
    }

    /// What is decoded of our own account, emptied first if a unit was undone since.
    fn own(&self) -> std::sync::MutexGuard<'_, Own> {
        let undone = self.sealed.core.undone();
        let mut own = self.decoded.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.undone != undone {
            *own = Own {
                undone,
                ..Own::default()
            };
            self.decoded.inbound.clear();
        }
        own
    }

    /// Decoded Megolm sessions, emptied first if a unit was undone since.
    fn inbound_cache(&self) -> &Cache<Row, InboundGroupSession> {
        drop(self.own());
        &self.decoded.inbound
    }
}

/// Rows to be written together.
#[derive(Default)]
struct Rows(Vec<(Row, Option<Plain>)>);

impl Rows {
    fn json<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        self.0.push((row, Some(Zeroizing::new(record::encode(value)?))));
        Ok(())
    }

    /// Pickles hold keys as arrays of bytes, which MessagePack writes in a quarter of JSON's space.
    fn pickle<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        let encoded = rmp_serde::to_vec_named(value).map_err(|_| StoreError::Encode {
            what: std::any::type_name::<T>(),
        })?;
        self.0.push((row, Some(Zeroizing::new(encoded))));
        Ok(())
    }

    fn bytes(&mut self, row: Row, value: Vec<u8>) {
        self.0.push((row, Some(Zeroizing::new(value))));
    }

    fn delete(&mut self, row: Row) {
        self.0.push((row, None));
    }
}

fn unpickle<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    rmp_serde::from_slice(value).map_err(|_| damaged())
}

fn damaged() -> StoreError {
    StoreError::Corrupt {
        what: "the content of a pickle",
    }
}

//! `PickleStore`: the engine's `CryptoStore` over any `Backend`, with its writes in the unit of work that is open.

mod account;
mod backup;
mod by_sender;
mod crypto_store;
mod decoded;
mod devices;
mod inbound;
mod leases;
mod outbound;
mod requests;
mod retention;
mod rooms;
mod rows;

use std::sync::{Arc, MutexGuard};

#[cfg(feature = "testing")]
use matrix_sdk_crypto::olm::StaticAccountData;
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::de::DeserializeOwned;

use crate::{
    Cursor, Family, KeySource, Record, RecordId, Result, Revision, SealedStore, StoreError, Unit,
    backend::Backend,
    layers::{Plain, View},
    layout::{self, Row, Table},
    record,
};

pub(crate) use self::by_sender::sender_index;
pub use self::retention::{Retention, Retired};
use self::{
    decoded::{Decoded, Kept, Stamp},
    rows::{Keep, Rows},
};

/// The engine's store. Cheap to clone; all clones are the same store.
///
/// While a [`Unit`] is open, every write of the engine joins it and every read sees it. A write outside of a unit is
/// durable when it returns.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use mx_crypto_store::{KeySource, PickleStore, backend::Sqlite};
///
/// let engine = Arc::new(Sqlite::open("/var/lib/mybot/store").await?);
/// let store = PickleStore::open(engine, KeySource::File("/var/lib/mybot/pickle.key".into())).await?;
/// // It is a `CryptoStore` for an `OlmMachine`, whose writes join the unit that is open.
/// let unit = store.begin().await?;
/// unit.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct PickleStore {
    pub(crate) sealed: SealedStore,
    decoded: Arc<Decoded>,
}

impl PickleStore {
    /// Open the store in `backend`, or begin one if it is empty.
    ///
    /// # Errors
    /// As [`SealedStore::open`].
    pub async fn open(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        Ok(Self::over(SealedStore::open(backend, key).await?))
    }

    /// Open the store in `backend`, which must be there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use mx_crypto_store::{KeySource, PickleStore, StoreError, StoreKey, backend::Memory};
    ///
    /// // Of a device that is there: a new store in place of a lost one would be another device.
    /// let key = KeySource::Bytes(StoreKey::generate()?);
    /// let opened = PickleStore::open_existing(Arc::new(Memory::new()), key).await;
    /// assert!(matches!(opened, Err(StoreError::Empty)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`SealedStore::open_existing`].
    pub async fn open_existing(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        Ok(Self::over(SealedStore::open_existing(backend, key).await?))
    }

    /// The engine's store over a store that is open.
    #[must_use]
    pub fn over(sealed: SealedStore) -> Self {
        Self {
            sealed,
            decoded: Arc::new(Decoded::new()),
        }
    }

    /// The store below, with what is not about the engine: its key, its size, copies of it.
    #[must_use]
    pub const fn sealed(&self) -> &SealedStore {
        &self.sealed
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
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    ///
    /// let key = KeySource::Bytes(StoreKey::generate()?);
    /// let store = PickleStore::open(Arc::new(Memory::new()), key).await?;
    /// match store.device().await? {
    ///     Some((user, device)) => println!("{user} {device}"),
    ///     None => println!("it is nobody's yet"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Corrupt`]; of the engine.
    pub async fn device(&self) -> Result<Option<(OwnedUserId, OwnedDeviceId)>> {
        let row = self.row(Table::Account, &[], "owner");
        let owner = self.sealed.core.read(&row, View::Committed).await?;
        owner.map(|value| record::decode(&value)).transpose()
    }

    /// How often something was written that is not passing.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.sealed.revision()
    }

    /// A write failed: the store may be read and closed, and nothing else.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.sealed.is_poisoned()
    }

    /// Finish what is under way and release the engine's lock.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::{Memory, MemoryDisk}};
    ///
    /// let (disk, key) = (MemoryDisk::new(), KeySource::Bytes(StoreKey::generate()?));
    /// let store = PickleStore::open(Arc::new(Memory::open(&disk)?), key.clone()).await?;
    /// store.shutdown().await?;
    /// // The same process opens it again.
    /// PickleStore::open_existing(Arc::new(Memory::open(&disk)?), key).await?;
    /// # Ok(()) }
    /// ```
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
        self.kept().account.clone()
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

    /// The turn of a save: `None` where it joins the unit that is open. Taken before anything is looked at or pickled,
    /// so that two saves at the same time do not write over each other's news.
    async fn turn(&self) -> Result<Option<Unit>> {
        if self.sealed.core.is_unit_open() {
            return Ok(None);
        }
        self.sealed.begin_alone().await.map(Some)
    }

    /// Write into the open unit, or durably on its own.
    async fn write(&self, rows: Rows) -> Result<()> {
        let turn = self.turn().await?;
        self.write_in(turn, rows).await
    }

    /// Write in one's turn. What was decoded is kept once it is in a unit, and not before.
    async fn write_in(&self, turn: Option<Unit>, rows: Rows) -> Result<()> {
        let Some((mut writes, keep)) = rows.into_writes() else {
            return Ok(());
        };
        let unit = match turn {
            Some(unit) => unit,
            None if self.sealed.core.join_unit(&mut writes) => {
                self.keep_all(keep);
                return Ok(());
            }
            // The unit has ended meanwhile.
            None => self.sealed.begin_alone().await?,
        };
        self.sealed.core.write_into_unit(&mut writes);
        self.keep_all(keep);
        unit.commit().await
    }

    fn keep_all(&self, keep: Vec<Keep>) {
        let mut kept = self.kept();
        kept.count_write();
        for keep in keep {
            keep(&mut kept);
        }
    }

    /// What is decoded and kept.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.decoded.kept(self.sealed.core.undone())
    }

    fn stamp(&self) -> Stamp {
        self.decoded.stamp(self.sealed.core.undone())
    }

    /// Keep what was read since `stamp`.
    fn keep(&self, stamp: Stamp, put: impl FnOnce(&mut Kept)) {
        self.decoded.keep(stamp, self.sealed.core.undone(), put);
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

//! Records of callers: what they keep beside the engine's, sealed and committed in the same units.

use serde::de::DeserializeOwned;

use crate::{
    Result, StoreError,
    layers::Plain,
    layout::{self, Row, Table},
    seal::Sealer,
};

/// A family of records, by its name. Two families never meet.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// const SETTINGS: Family = Family::guarded("settings"); // one that is deleted or set back on the disk is missed
/// const SEEN: Family = Family::new("seen").passing(); // one comes with every message
///
/// let unit = store.begin().await?;
/// unit.put(&RecordId::named(SETTINGS, &[], "language"), "en")?;
/// unit.put(&RecordId::named(SEEN, &["!room"], "$event"), &true)?;
/// unit.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    name: &'static str,
    guarded: bool,
    passing: bool,
}

impl Family {
    /// The family of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            guarded: false,
            passing: false,
        }
    }

    /// The family of this name, every record of which is missed: one that somebody deletes from the disk, or sets back
    /// to what it was, is [`StoreError::RolledBack`] when it is read. Costs some hundred bytes more a commit; for a sequence, as
    /// many as a list of its records takes. A guarded
    /// family and one that is not are two families, even with one name.
    #[must_use]
    pub const fn guarded(name: &'static str) -> Self {
        Self {
            name,
            guarded: true,
            passing: false,
        }
    }

    /// The same family, whose records come and go with every message: they do not move
    /// [`Revision::records`](crate::Revision).
    #[must_use]
    pub const fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    pub(crate) const fn is_passing(self) -> bool {
        self.passing
    }

    const fn table(self) -> Table {
        if self.guarded {
            Table::GuardedRecord
        } else {
            Table::Record
        }
    }

    /// The family and its group, as a row's group.
    fn parts<'a>(&self, group: &[&'a str]) -> Vec<&'a str>
    where
        'static: 'a,
    {
        std::iter::once(self.name).chain(group.iter().copied()).collect()
    }

    pub(crate) fn prefix(&self, sealer: &Sealer, group: &[&str]) -> Row {
        layout::group(sealer, self.table(), &self.parts(group))
    }

    pub(crate) fn position_row(&self, sealer: &Sealer, group: &[&str]) -> Row {
        layout::group(sealer, Table::Position, &self.parts(group))
    }
}

/// Where a record is: in a family, in a group of it, under a name or at a position.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// const QUEUE: Family = Family::new("queue");
/// let unit = store.begin().await?;
/// for task in ["first", "second"] {
///     let position = unit.next_sequence(QUEUE, &["mail"]).await?;
///     unit.put(&RecordId::sequence(QUEUE, &["mail"], position), task)?;
/// }
/// unit.commit().await?;
///
/// let waiting = store.scan(QUEUE, &["mail"], None, 10).await?;
/// assert_eq!(waiting[0].decode::<String>()?, "first");
/// let unit = store.begin().await?;
/// unit.delete_at(&waiting[0].cursor)?; // done
/// unit.commit().await?;
/// # assert_eq!(store.scan(QUEUE, &["mail"], None, 10).await?.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RecordId {
    family: Family,
    group: Vec<String>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Name(String),
    Position(u64),
}

impl RecordId {
    /// A record that is found by its name.
    #[must_use]
    pub fn named(family: Family, group: &[&str], name: &str) -> Self {
        Self {
            family,
            group: owned(group),
            place: Place::Name(name.to_owned()),
        }
    }

    /// A record at a position of its group, which is scanned in the order of positions. Take positions from
    /// [`Unit::next_sequence`](crate::Unit::next_sequence), and do not mix them with names in one group.
    #[must_use]
    pub fn sequence(family: Family, group: &[&str], position: u64) -> Self {
        Self {
            family,
            group: owned(group),
            place: Place::Position(position),
        }
    }

    pub(crate) const fn is_passing(&self) -> bool {
        self.family.is_passing()
    }

    pub(crate) fn row(&self, sealer: &Sealer) -> Row {
        let group: Vec<&str> = self.group.iter().map(String::as_str).collect();
        let parts = self.family.parts(&group);
        match &self.place {
            Place::Name(name) => layout::named(sealer, self.family.table(), &parts, name),
            Place::Position(position) => layout::positioned(sealer, self.family.table(), &parts, *position),
        }
    }
}

fn owned(group: &[&str]) -> Vec<String> {
    group.iter().map(|&part| part.to_owned()).collect()
}

/// Where a scan stands, and what deletes the record it came with.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
/// # const QUEUE: Family = Family::new("queue");
/// # let unit = store.begin().await?;
/// # for task in 0..5_u32 {
/// #     unit.put(&RecordId::sequence(QUEUE, &[], unit.next_sequence(QUEUE, &[]).await?), &task)?;
/// # }
/// # unit.commit().await?;
/// // All records of a family, in pages of two: the next page begins after the last record of the one before.
/// let (mut tasks, mut last) = (Vec::new(), None);
/// loop {
///     let page = store.scan(QUEUE, &[], last.as_ref(), 2).await?;
///     let Some(record) = page.last() else { break };
///     last = Some(record.cursor.clone());
///     for record in &page {
///         tasks.push(record.decode::<u32>()?);
///     }
/// }
/// assert_eq!(tasks, [0, 1, 2, 3, 4]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) row: Row,
    pub(crate) passing: bool,
}

/// A record that a scan found.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
/// # let unit = store.begin().await?;
/// # unit.put(&RecordId::named(Family::new("settings"), &[], "colour"), "blue")?;
/// # unit.commit().await?;
/// let found = store.scan(Family::new("settings"), &[], None, 10).await?;
/// assert_eq!(found[0].decode::<String>()?, "blue");
/// assert!(found[0].decode::<u32>().is_err(), "it is of another type");
/// # Ok(()) }
/// ```
pub struct Record {
    /// Where it is.
    pub cursor: Cursor,
    pub(crate) value: Plain,
}

impl Record {
    /// The record's value.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is of another type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        decode(&self.value)
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|_| StoreError::Corrupt {
        what: "the content of a record",
    })
}

pub(crate) fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|_| encode_failed::<T>())
}

pub(crate) fn encode_failed<T: ?Sized>() -> StoreError {
    StoreError::Encode {
        what: std::any::type_name::<T>(),
    }
}

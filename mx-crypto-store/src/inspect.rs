//! What an operator asks a store: how large it is, what is in it, whether all of it is whole.

use std::collections::BTreeMap;

use crate::{
    Result, SealedStore, StoreError,
    layers::{Core, PAGE},
    layout::{HEADER_ROW, Row, Table},
    manifest::{Manifest, Missing, ROOT_ROW, leaf_of},
    sealed::read_root,
};

/// More damaged records than this are counted and not listed.
const MAX_LISTED: usize = 100;

/// How large a store is, and what is in it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// let stats = store.stats().await?;
/// println!("schema {}, {:?} bytes on the disk", stats.schema, stats.size_bytes);
/// for (kind, count) in stats.records {
///     println!("{count} of {kind}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What it takes on the disk, in bytes, where the engine knows.
    pub size_bytes: Option<u64>,
    /// The version of its form: a store of an older one was upgraded when it was opened.
    pub schema: u32,
    /// How many records of each kind there are, by the kind's name. Kinds without records are left out.
    pub records: BTreeMap<&'static str, u64>,
}

/// What looking at every record found.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
/// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
/// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
///
/// let verified = store.verify().await?;
/// assert!(verified.is_whole(), "{:?}", verified.first_damaged);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Records that were looked at.
    pub records: u64,
    /// Records that do not open, are missing, or are older than they were.
    pub damaged: u64,
    /// The first 100 of these, by kind and what is wrong.
    pub first_damaged: Vec<Damage>,
}

impl Verified {
    /// Everything is whole.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.damaged == 0
    }

    fn note(&mut self, row: &[u8], what: DamageKind) {
        self.damaged += 1;
        if self.first_damaged.len() < MAX_LISTED {
            self.first_damaged.push(Damage {
                records: Table::of(row).map_or("unknown", Table::name),
                kind: what,
            });
        }
    }
}

/// A record that is not as it should be.
///
/// ```no_run
/// # async fn example(store: mx_crypto_store::SealedStore) -> mx_crypto_store::Result<()> {
/// let verified = store.verify().await?;
/// for damage in &verified.first_damaged {
///     println!("one of {}: {:?}", damage.records, damage.kind);
/// }
/// println!("{} of {} records are damaged", verified.damaged, verified.records);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Its kind.
    pub records: &'static str,
    /// What is wrong with it.
    pub kind: DamageKind,
}

/// What is wrong with a record.
///
/// ```
/// use mx_crypto_store::DamageKind;
///
/// fn advice(kind: DamageKind) -> &'static str {
///     match kind {
///         // No disk does that by itself.
///         DamageKind::RolledBack | DamageKind::Missing => "was an old copy put back? stop, and use a new device",
///         DamageKind::Unknown => "was it written by a newer version?",
///         _ => "look at the disk",
///     }
/// }
/// assert_eq!(advice(DamageKind::Corrupt), "look at the disk");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// It does not open: it was changed, cut, moved, or exchanged with another one.
    Corrupt,
    /// It was removed.
    Missing,
    /// It is an older one than it was, or was put back after its removal.
    RolledBack,
    /// Nothing of this kind is known to this version.
    Unknown,
}

impl SealedStore {
    /// The store's size, and its records by kind. Reads the rows and opens none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
    /// let before: u64 = store.stats().await?.records.values().sum();
    /// let unit = store.begin().await?;
    /// unit.put(&RecordId::named(Family::new("settings"), &[], "colour"), "blue")?;
    /// unit.commit().await?;
    /// let after: u64 = store.stats().await?.records.values().sum();
    /// assert!(after > before, "a record, and what notes that it is there");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the engine.
    pub async fn stats(&self) -> Result<Stats> {
        let mut stats = Stats {
            size_bytes: self.core.backend.size_bytes().await?,
            schema: crate::header::SCHEMA,
            ..Stats::default()
        };
        let mut rows = Pages::new();
        while let Some(page) = rows.next(&self.core).await? {
            for (row, _) in page {
                let kind = Table::of(&row).map_or("unknown", Table::name);
                *stats.records.entry(kind).or_default() += 1;
            }
        }
        Ok(stats)
    }

    /// Open every record and miss every one that is not there. Units of work wait meanwhile.
    ///
    /// # Errors
    /// Of the engine. What is damaged is no error here: it is what is asked for.
    pub async fn verify(&self) -> Result<Verified> {
        let _alone = self.core.turn.lock().await;
        self.core.until_idle().await;
        self.verify_alone().await
    }

    /// The caller keeps units of work waiting.
    pub(crate) async fn verify_alone(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        let mut newest = self.newest(&mut verified).await?;
        let mut rows = Pages::new();
        while let Some(page) = rows.next(&self.core).await? {
            for (row, sealed) in page {
                if row == HEADER_ROW {
                    continue;
                }
                verified.records += 1;
                let named = newest.remove(&row);
                if Table::of(&row).is_none() {
                    verified.note(&row, DamageKind::Unknown);
                    continue;
                }
                match self.core.sealer.open_record(&row, &sealed) {
                    Err(_) => verified.note(&row, DamageKind::Corrupt),
                    Ok(opened) if leaf_of(&row).is_some() && named != Some(opened.version) => {
                        verified.note(&row, DamageKind::RolledBack);
                    }
                    Ok(_) => {}
                }
            }
        }
        for row in newest.keys() {
            verified.note(row, DamageKind::Missing);
        }
        Ok(verified)
    }

    /// The newest version of every guarded row, as the manifest has it.
    async fn newest(&self, verified: &mut Verified) -> Result<BTreeMap<Row, u64>> {
        // As it is on the disk, and not as it is known here.
        let root = read_root(&*self.core.backend, &self.core.sealer).await;
        let mut manifest = match root {
            Ok(root) => Manifest::new(root),
            Err(StoreError::Corrupt { .. } | StoreError::RolledBack { .. }) => {
                verified.note(ROOT_ROW, DamageKind::RolledBack);
                Manifest::new(self.core.manifest().root.clone())
            }
            Err(error) => return Err(error),
        };
        if manifest.root != self.core.manifest().root {
            verified.note(ROOT_ROW, DamageKind::RolledBack);
        }
        let mut newest = BTreeMap::new();
        for table in Table::ALL.into_iter().filter(|table| table.is_guarded()) {
            let mut last: Option<Missing> = None;
            loop {
                let missing = match manifest.under(&[table as u8], None) {
                    Ok(rows) => break newest.extend(rows),
                    Err(missing) => missing,
                };
                let loaded = self.core.load_into(missing, &mut manifest).await;
                match loaded {
                    Ok(()) if last != Some(missing) => last = Some(missing),
                    Ok(()) | Err(StoreError::Corrupt { .. } | StoreError::RolledBack { .. }) => {
                        // Without its list, nothing of this kind can be held against it.
                        break verified.note(&missing.row(), DamageKind::RolledBack);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(newest)
    }

    /// Give space that is not used any more back to the file system, where the engine can. Units of work wait meanwhile.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::SealedStore) -> mx_crypto_store::Result<()> {
    /// // After many room keys were let go. It needs as much free space as the store has.
    /// let before = store.stats().await?.size_bytes;
    /// store.compact().await?;
    /// println!("{before:?} bytes before, {:?} after", store.stats().await?.size_bytes);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the engine; [`StoreError::Poisoned`] after a failed write.
    pub async fn compact(&self) -> Result<()> {
        let _alone = self.core.turn.lock().await;
        self.core.until_idle().await;
        self.core.check_writable()?;
        let _loud = self.core.quiet.write().await;
        let unknown = self.core.unknown();
        self.core.backend.compact().await?;
        unknown.known();
        Ok(())
    }
}

/// All rows of a store, a page at a time.
pub(crate) struct Pages {
    after: Option<Row>,
}

impl Pages {
    pub(crate) const fn new() -> Self {
        Self { after: None }
    }

    /// The next rows. `None`: that was all.
    pub(crate) async fn next(&mut self, core: &Core) -> Result<Option<Vec<(Row, Vec<u8>)>>> {
        let page = core.backend.scan(&[], self.after.as_deref(), PAGE).await?;
        self.after = page.last().map(|(row, _)| row.clone());
        // Reads may never wait, and this is long: others get their turn.
        tokio::task::yield_now().await;
        Ok((!page.is_empty()).then_some(page))
    }
}

/// Neither the header nor the manifest: what a store holds.
pub(crate) fn is_content(row: &[u8]) -> bool {
    row != HEADER_ROW && !row.starts_with(ROOT_ROW)
}

//! A sealed store over any engine: opened by its key, written in units of work.

use std::sync::Arc;

use crate::{
    KeySource, Record, RecordId, Result, Revision, StoreError, Unit,
    backend::{Backend, Batch, Caught},
    copy::UNFINISHED_ROW,
    header::Header,
    key::{Minted, NewKey, StoreKey},
    layers::{Core, OpenUnit, View},
    layout::HEADER_ROW,
    manifest::{Manifest, ROOT_ROW, Root},
    random,
    record::{Cursor, Family, decode},
    seal::{Keys, STORE_ID, Sealer},
    upgrade,
};

/// A sealed store without any engine of Matrix: records, units of work, any [`Backend`]. Cheap to clone; all clones
/// are the same store.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
/// use std::sync::Arc;
/// use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::{Memory, MemoryDisk}};
///
/// let (disk, key) = (MemoryDisk::new(), KeySource::Bytes(StoreKey::from_bytes([7; 32])));
/// let seen = RecordId::named(Family::new("seen"), &["!room"], "$event");
/// let store = SealedStore::open(Arc::new(Memory::open(&disk)?), key.clone()).await?;
/// let unit = store.begin().await?;
/// unit.put(&seen, &42)?;
/// unit.commit().await?;
/// store.shutdown().await?;
///
/// // Another key opens nothing, and the right one finds what was committed.
/// let other = KeySource::Bytes(StoreKey::from_bytes([8; 32]));
/// assert!(SealedStore::open(Arc::new(Memory::open(&disk)?), other).await.is_err());
/// let store = SealedStore::open_existing(Arc::new(Memory::open(&disk)?), key).await?;
/// assert_eq!(store.record::<u32>(&seen).await?, Some(42));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SealedStore {
    pub(crate) core: Arc<Core>,
}

impl SealedStore {
    /// Open the store in `backend`, or begin one if it is empty. A store of an older schema is upgraded first, in one
    /// commit.
    ///
    /// # Errors
    /// [`StoreError::WrongKey`], [`StoreError::KeyMissing`] and the other errors of keys; [`StoreError::StoreMissing`]
    /// when the backend is empty and the key file is there; [`StoreError::Corrupt`], [`StoreError::RolledBack`];
    /// [`StoreError::SchemaTooNew`]; of the engine. Nothing was written then, but for an upgrade that had begun.
    pub async fn open(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        let backend = Caught::over(backend);
        match Self::open_or_absent(&backend, &key).await? {
            Some(store) => Ok(store),
            None => Self::create(backend, &key).await,
        }
    }

    /// Open the store in `backend`, which must be there.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Empty`] when the backend is empty.
    pub async fn open_existing(backend: Arc<dyn Backend>, key: KeySource) -> Result<Self> {
        Self::open_or_absent(&Caught::over(backend), &key)
            .await?
            .ok_or(StoreError::Empty)
    }

    async fn open_or_absent(backend: &Arc<dyn Backend>, key: &KeySource) -> Result<Option<Self>> {
        let Some(mut row) = backend.get(HEADER_ROW).await? else {
            return match backend.scan(&[], None, 1).await?.is_empty() {
                true => Ok(None),
                false => Err(StoreError::Corrupt {
                    what: "its header, which is missing",
                }),
            };
        };
        if Header::schema_of(&row)? < crate::header::SCHEMA {
            row = upgrade::to_newest(&**backend, key, &row).await?;
        }
        let header = Header::parse(&row)?;
        let (opened_by, keys) = unlock(&header, key).await?;
        let sealer = Sealer::new(keys, header.store_id)?;
        let root = read_root(&**backend, &sealer).await?;
        if root.header_generation != header.generation {
            return Err(StoreError::RolledBack { what: "its header" });
        }
        key.settle(&opened_by)?;
        Ok(Some(Self::over(Arc::clone(backend), sealer, Manifest::new(root))))
    }

    async fn create(backend: Arc<dyn Backend>, key: &KeySource) -> Result<Self> {
        let minted = key.mint().await?;
        let store_id: [u8; STORE_ID] = random::bytes("a store id")?;
        let keys = Keys::generate()?;
        let header = Header::wrap(&store_id, 0, &minted.kdf, &minted.key, &keys)?;
        let sealer = Sealer::new(keys, store_id)?;
        let manifest = Manifest::default();
        finish_new(&*backend, &sealer, &manifest, header).await?;
        key.settle(&minted.key)?;
        Ok(Self::over(backend, sealer, manifest))
    }

    pub(crate) fn over(backend: Arc<dyn Backend>, sealer: Sealer, manifest: Manifest) -> Self {
        Self {
            core: Arc::new(Core::new(backend, sealer, manifest)),
        }
    }

    /// How often something was written that is not [`passing`](crate::Family::passing), in this process. The same twice:
    /// nothing was in between.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mx_crypto_store::StoreError> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key).await?;
    /// let before = store.revision();
    /// let unit = store.begin().await?;
    /// unit.put(&RecordId::named(Family::new("cache").passing(), &[], "a"), "b")?;
    /// unit.commit().await?;
    /// assert_eq!(store.revision(), before, "what only passes does not count");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.core.moves.revision()
    }

    /// Begin a unit of work, after the one that is open has ended.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] after a failed write.
    ///
    /// # Ordering
    /// One unit at a time, in the order of the calls. Whoever holds one and waits for another, or for a call of this type
    /// that keeps units waiting, waits for ever.
    ///
    /// # Cancel safety
    /// Safe: nothing has begun when the future is dropped.
    pub async fn begin(&self) -> Result<Unit> {
        self.begin_as(OpenUnit::default()).await
    }

    /// Begin a unit that writes of the engine do not join: the turn of one of them that is outside of a unit.
    #[cfg(feature = "engine")]
    pub(crate) async fn begin_alone(&self) -> Result<Unit> {
        let alone = OpenUnit {
            alone: true,
            ..OpenUnit::default()
        };
        self.begin_as(alone).await
    }

    async fn begin_as(&self, unit: OpenUnit) -> Result<Unit> {
        let turn = Arc::clone(&self.core.turn).lock_owned().await;
        self.core.check_writable()?;
        self.core.layers().open = Some(unit);
        Ok(Unit::new(Arc::clone(&self.core), turn))
    }

    /// A record as it is on the disk: an open unit of work is not looked at.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::RolledBack`]; of the engine.
    pub async fn record<T: serde::de::DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>> {
        let row = id.row(&self.core.sealer);
        self.core
            .read(&row, View::Committed)
            .await?
            .map(|value| decode(&value))
            .transpose()
    }

    /// Records of a group as they are on the disk: by position, or in no particular order by name; strictly after
    /// `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::RolledBack`]; of the engine.
    pub async fn scan(
        &self,
        family: Family,
        group: &[&str],
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let prefix = family.prefix(&self.core.sealer, group);
        self.core
            .records(&prefix, after, limit, View::Committed, family.is_passing())
            .await
    }

    /// A write failed: the store may be read and closed, and nothing else.
    ///
    /// ```no_run
    /// # async fn example(store: mx_crypto_store::SealedStore, id: mx_crypto_store::RecordId) -> mx_crypto_store::Result<()> {
    /// let unit = store.begin().await?;
    /// unit.put(&id, "value")?;
    /// if unit.commit().await.is_err() && store.is_poisoned() {
    ///     // Whether it is on the disk is not known: open the store again, and look.
    ///     println!("{:?}", store.record::<String>(&id).await?);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.core.is_poisoned()
    }

    /// Open the store with another key from now on: a new key file, a passphrase (or the same one at another cost), a
    /// credential, a key that the caller keeps. The records are not touched: the key wraps the keys that seal them.
    ///
    /// A key file that is there is replaced only if its key opens this store. The former key opens nothing any more,
    /// but for copies of the store that were made before.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, SealedStore, StoreError, StoreKey, backend::{Memory, MemoryDisk}};
    /// # let (disk, key) = (MemoryDisk::new(), KeySource::Bytes(StoreKey::from_bytes([7; 32])));
    /// # let store = SealedStore::open(Arc::new(Memory::open(&disk)?), key.clone()).await?;
    /// let next = KeySource::Bytes(StoreKey::generate()?);
    /// store.rekey(&next).await?;
    /// store.shutdown().await?;
    /// let former = SealedStore::open(Arc::new(Memory::open(&disk)?), key).await;
    /// assert!(matches!(former, Err(StoreError::WrongKey)));
    /// let store = SealedStore::open(Arc::new(Memory::open(&disk)?), next).await?;
    /// # drop(store);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of keys, before anything has changed; [`StoreError::KeyFile`] when the new key file cannot take its name after
    /// the store has its key: the next opening with it finishes that. Of the engine.
    ///
    /// # Cancel safety
    /// A call that was dropped, or whose process died, may have been carried out: one of the two keys opens the store. If
    /// it was dropped while it wrote, the store is poisoned until it is opened again.
    pub async fn rekey(&self, to: &KeySource) -> Result<()> {
        self.rekey_with(to, |_| Ok::<(), StoreError>(())).await
    }

    /// As [`rekey`](Self::rekey), and seal with the new key what is kept beside the store before the store has it: `before`
    /// is called with the new key once it is on the disk. Keep what is sealed with the former one until this returns.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
    ///
    /// use mx_crypto_store::{StoreError, Vault};
    ///
    /// let next = KeySource::Bytes(StoreKey::generate()?);
    /// let mut beside = Vec::new();
    /// store.rekey_with(&next, |new_key| {
    ///     beside = Vault::for_new_key(new_key)?.seal(b"tokens", b"a token")?;
    ///     Ok::<_, StoreError>(()) // and it is on the disk
    /// }).await?;
    /// assert_eq!(*Vault::open(&next, b"tokens", &beside).await?.1, b"a token");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`rekey`](Self::rekey); of `before`, and nothing has changed then.
    ///
    /// # Cancel safety
    /// As [`rekey`](Self::rekey).
    pub async fn rekey_with<E: From<StoreError>>(
        &self,
        to: &KeySource,
        before: impl FnOnce(&NewKey) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let _alone = self.core.turn.lock().await;
        self.core.until_idle().await;
        self.core.check_writable()?;
        let _loud = self.core.quiet.write().await;
        let row = self.core.backend.get(HEADER_ROW).await.map_err(StoreError::from)?;
        let row = row.ok_or(StoreError::Corrupt {
            what: "its header, which is missing",
        })?;
        let header = Header::parse(&row)?;
        to.check_replaceable(|key| header.unwrap_keys(key).is_ok())?;
        let minted = to.mint_another().await?;
        let minted = NewKey(minted);
        before(&minted)?;
        let NewKey(minted) = minted;
        let mut root = self.core.manifest().root.clone();
        root.counter = root.counter.saturating_add(1);
        root.header_generation = header.generation.saturating_add(1);
        let batch = self.rewrap(row, &root, &minted)?;
        let unknown = self.core.unknown();
        self.core.backend.commit(batch).await.map_err(StoreError::from)?;
        self.core.manifest().root = root;
        unknown.known();
        Ok(to.settle(&minted.key)?)
    }

    fn rewrap(&self, before: Vec<u8>, root: &Root, minted: &Minted) -> Result<Batch> {
        let sealer = &self.core.sealer;
        let header = Header::wrap(
            sealer.store_id(),
            root.header_generation,
            &minted.kdf,
            &minted.key,
            sealer.keys(),
        )?;
        Ok(Batch::new()
            .expect(HEADER_ROW, Some(before))
            .put(HEADER_ROW, header)
            .put(ROOT_ROW, sealer.seal(ROOT_ROW, root.counter, &root.encode())?))
    }

    /// Finish what is under way and release the engine's lock.
    ///
    /// # Errors
    /// Of the engine.
    pub async fn shutdown(&self) -> Result<()> {
        let _last = self.core.turn.lock().await;
        self.core.until_idle().await;
        Ok(self.core.backend.close().await?)
    }
}

/// From here on there is a store: the header, and the manifest of what was written before it.
pub(crate) async fn finish_new(
    backend: &dyn Backend,
    sealer: &Sealer,
    manifest: &Manifest,
    header: Vec<u8>,
) -> Result<()> {
    let root = sealer.seal(ROOT_ROW, manifest.root.counter, &manifest.root.encode())?;
    let batch = Batch::new()
        .expect(HEADER_ROW, None)
        .put(HEADER_ROW, header)
        .put(ROOT_ROW, root)
        .delete(UNFINISHED_ROW);
    Ok(backend.commit(batch).await?)
}

/// The key that opens a header, and what it opens.
pub(crate) async fn unlock(header: &Header, source: &KeySource) -> Result<(StoreKey, Keys)> {
    for key in source.candidates(&header.kdf).await? {
        match header.unwrap_keys(&key) {
            Ok(keys) => return Ok((key, keys)),
            Err(StoreError::WrongKey) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::WrongKey)
}

/// The top of the manifest, as it is on the disk.
pub(crate) async fn read_root(backend: &dyn Backend, sealer: &Sealer) -> Result<Root> {
    let gone = || StoreError::RolledBack {
        what: "the list of what it holds",
    };
    let sealed = backend.get(ROOT_ROW).await?.ok_or_else(gone)?;
    let opened = sealer.open_record(ROOT_ROW, &sealed)?;
    let root = Root::decode(&opened.value)?;
    if root.counter == opened.version {
        Ok(root)
    } else {
        Err(gone())
    }
}

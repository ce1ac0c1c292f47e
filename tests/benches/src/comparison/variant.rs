//! What is compared: the store on each engine, and matrix-sdk-sqlite with and without a passphrase.

use std::sync::Arc;

use anyhow::Context as _;
use matrix_sdk_crypto::{
    OlmMachine,
    store::{DynCryptoStore, IntoCryptoStore},
};
use matrix_sdk_sqlite::SqliteCryptoStore;
use mx_crypto_store::{KeySource, PickleStore, StoreKey, Unit, backend::MemoryDisk};
use ruma::{DeviceId, UserId, device_id, user_id};
use tempfile::TempDir;

use crate::engine::Engine;

/// A store that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// vodozemac's part of it, without any store.
    Floor,
    Ours(Engine),
    /// matrix-sdk-sqlite as it opens without a secret: nothing is encrypted at rest.
    MatrixSqlite,
    /// matrix-sdk-sqlite with a passphrase, which it stretches when it opens.
    MatrixSqlitePassphrase,
    /// The same with a key of 32 bytes, as ours is opened.
    MatrixSqliteKey,
}

impl Variant {
    /// What everything is divided by.
    pub(crate) const BASE: Self = Self::Ours(Engine::Sqlite);

    /// Every store; which have a floor or more than one way to open say so themselves.
    pub(crate) fn stores() -> Vec<Self> {
        let ours = Engine::ALL.iter().copied().map(Self::Ours);
        ours.chain([Self::MatrixSqlite, Self::MatrixSqlitePassphrase]).collect()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours(engine) => engine.name(),
            Self::MatrixSqlite => "matrix-sdk-sqlite",
            Self::MatrixSqlitePassphrase => "matrix-sdk-sqlite, passphrase",
            Self::MatrixSqliteKey => "matrix-sdk-sqlite, key",
        }
    }

    pub(crate) const fn has_files(self) -> bool {
        match self {
            Self::Floor => false,
            Self::Ours(engine) => engine.has_files(),
            Self::MatrixSqlite | Self::MatrixSqlitePassphrase | Self::MatrixSqliteKey => true,
        }
    }

    pub(crate) async fn open(self, home: &Home) -> anyhow::Result<Store> {
        let path = home.directory.path();
        let matrix = |store: SqliteCryptoStore| Store {
            engine: store.into_crypto_store(),
            ours: None,
        };
        let opened = match self {
            Self::Floor => None,
            Self::Ours(engine) => {
                let backend = engine.open(path, &home.disk).await?;
                let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
                let store = PickleStore::open(backend, key).await?;
                Some(Store {
                    engine: store.clone().into_crypto_store(),
                    ours: Some(store),
                })
            }
            Self::MatrixSqlite => Some(matrix(SqliteCryptoStore::open(path, None).await?)),
            Self::MatrixSqlitePassphrase => Some(matrix(SqliteCryptoStore::open(path, Some("a passphrase")).await?)),
            Self::MatrixSqliteKey => Some(matrix(SqliteCryptoStore::open_with_key(path, Some(&[7; 32])).await?)),
        };
        opened.context("the floor has no store")
    }
}

/// Where a store lives, longer than it is open.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) directory: TempDir,
    disk: MemoryDisk,
}

impl Home {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            directory: TempDir::new()?,
            disk: MemoryDisk::new(),
        })
    }
}

/// An open store.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) engine: Arc<DynCryptoStore>,
    ours: Option<PickleStore>,
}

impl Store {
    /// Begin a unit of work where there is such a thing.
    pub(crate) async fn begin(&self) -> anyhow::Result<Option<Unit>> {
        match &self.ours {
            Some(ours) => Ok(Some(ours.begin().await?)),
            None => Ok(None),
        }
    }

    /// The store of ours that it is, if it is one.
    pub(crate) fn into_ours(self) -> Option<PickleStore> {
        self.ours
    }

    /// An engine of the protocol on this store; it makes the account of a new one.
    pub(crate) async fn machine(&self) -> anyhow::Result<OlmMachine> {
        Ok(OlmMachine::with_store(user(), device(), Arc::clone(&self.engine), None).await?)
    }

    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.ours {
            Some(ours) => ours.shutdown().await?,
            None => self.engine.close().await?,
        }
        Ok(())
    }
}

/// Commit what [`Store::begin`] began.
pub(crate) async fn commit(unit: Option<Unit>) -> anyhow::Result<()> {
    match unit {
        Some(unit) => Ok(unit.commit().await?),
        None => Ok(()),
    }
}

/// Whose stores these are.
pub(crate) fn user() -> &'static UserId {
    user_id!("@bot:example.org")
}

/// Which device's.
pub(crate) fn device() -> &'static DeviceId {
    device_id!("BOTDEVICE")
}

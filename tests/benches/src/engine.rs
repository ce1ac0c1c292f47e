//! The storage engines, by name.

use std::{path::Path, str::FromStr, sync::Arc};

use anyhow::Context as _;
use mx_crypto_store::backend::{Backend, Memory, MemoryDisk, Redb, Sled, Sqlite};

/// A storage engine of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Memory,
    Sqlite,
    Redb,
    Sled,
}

impl Engine {
    pub(crate) const ALL: &[Self] = &[Self::Sqlite, Self::Redb, Self::Sled, Self::Memory];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redb => "redb",
            Self::Sled => "sled",
        }
    }

    /// Whether anything of it outlives the process.
    pub(crate) const fn has_files(self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// Opens what is in a directory; `disk` is the directory of the engine that has none.
    pub(crate) async fn open(self, directory: &Path, disk: &MemoryDisk) -> anyhow::Result<Arc<dyn Backend>> {
        let opened: Result<Arc<dyn Backend>, _> = match self {
            Self::Memory => Memory::open(disk).map(|backend| Arc::new(backend) as _),
            Self::Sqlite => Sqlite::open(directory).await.map(|backend| Arc::new(backend) as _),
            Self::Redb => Redb::open(directory).await.map(|backend| Arc::new(backend) as _),
            Self::Sled => Sled::open(directory).await.map(|backend| Arc::new(backend) as _),
        };
        opened.with_context(|| format!("cannot open {} in {}", self.name(), directory.display()))
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|engine| engine.name() == name);
        found.copied().with_context(|| format!("there is no engine {name}"))
    }
}

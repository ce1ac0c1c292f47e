//! The engines that have a door for a disk of ours.

use mx_crypto_store::backend::{Backend, BackendError, Redb, Sqlite};

use crate::{recorder::Disk, redb_storage::Storage, sqlite_vfs::registered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Redb,
}

impl Engine {
    pub(crate) async fn open(self, disk: &Disk) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self {
            Self::Sqlite => Box::new(Sqlite::open_with_vfs(&registered(disk)).await?),
            Self::Redb => Box::new(Redb::open_with_storage(Storage::new(disk)).await?),
        })
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

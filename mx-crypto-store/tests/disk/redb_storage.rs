//! The disk in memory as redb's storage.

use std::io::Result;

use crate::recorder::Disk;

const FILE: &str = "store.redb";

#[derive(Debug)]
pub(crate) struct Storage(Disk);

impl Storage {
    pub(crate) fn new(disk: &Disk) -> Self {
        disk.create(FILE);
        Self(disk.clone())
    }
}

impl redb::StorageBackend for Storage {
    fn len(&self) -> Result<u64> {
        Ok(self.0.len(FILE)? as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.read(FILE, usize::try_from(offset).unwrap(), out)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(FILE, usize::try_from(len).unwrap())
    }
    fn sync_data(&self) -> Result<()> {
        self.0.sync(FILE)
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write(FILE, usize::try_from(offset).unwrap(), data)
    }
}

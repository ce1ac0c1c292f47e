//! The disk in memory as SQLite's file system. It has no shared memory at all, so that a WAL works without is proven
//! with each test.

use std::{
    io::{Error, Result},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenOptions, Vfs, WalDisabled, register};

use crate::recorder::{Disk, full};

/// Register a disk under a name of its own. SQLite keeps it until the process ends.
pub(crate) fn registered(disk: &Disk) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("disk-{}", COUNT.fetch_add(1, Ordering::SeqCst));
    register(&name, Recording(disk.clone()), false).unwrap();
    name
}

struct Recording(Disk);

pub(crate) struct File {
    disk: Disk,
    name: String,
    lock: LockKind,
}

impl Vfs for Recording {
    type Handle = File;

    fn open(&self, name: &str, options: OpenOptions) -> Result<File> {
        match options.access {
            OpenAccess::Create | OpenAccess::CreateNew => self.0.create(name),
            _ => drop(self.0.len(name)?),
        }
        Ok(File {
            disk: self.0.clone(),
            name: name.to_owned(),
            lock: LockKind::None,
        })
    }
    fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name)
    }
    fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.0.exists(name))
    }
    fn access(&self, name: &str, _write: bool) -> Result<bool> {
        Ok(self.0.exists(name))
    }
    fn temporary_name(&self) -> String {
        panic!("something is written beside the store")
    }
    fn random(&self, buffer: &mut [i8]) {
        buffer.fill_with(|| fastrand::i8(..));
    }
    fn sleep(&self, duration: Duration) -> Duration {
        duration
    }
}

impl DatabaseHandle for File {
    type WalIndex = WalDisabled;

    fn size(&self) -> Result<u64> {
        Ok(self.disk.len(&self.name)? as u64)
    }
    fn read_exact_at(&mut self, out: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read(&self.name, usize::try_from(offset).unwrap(), out)
    }
    fn write_all_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        let written = self.disk.write(&self.name, usize::try_from(offset).unwrap(), data);
        written.map_err(full)
    }
    fn sync(&mut self, _data_only: bool) -> Result<()> {
        self.disk.sync(&self.name)
    }
    fn set_len(&mut self, len: u64) -> Result<()> {
        self.disk.set_len(&self.name, usize::try_from(len).unwrap())
    }
    fn lock(&mut self, lock: LockKind) -> Result<bool> {
        self.lock = lock;
        Ok(true)
    }
    fn reserved(&mut self) -> Result<bool> {
        Ok(false)
    }
    fn current_lock(&self) -> Result<LockKind> {
        Ok(self.lock)
    }
    fn wal_index(&self, _readonly: bool) -> Result<WalDisabled> {
        Err(Error::other("the store shares memory"))
    }
}

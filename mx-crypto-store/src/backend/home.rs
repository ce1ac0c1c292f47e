//! The directory of a store: its modes, its lock, and the mark that a store is in it.
//!
//! # Why a lock of our own
//! SQLite's lock is one of POSIX, which a process gives up when it closes any other handle of the same file: a second
//! open that is refused would unlock the first. The lock here is of one handle, is refused at once, whatever path leads
//! to it, and is released by the kernel with the process.
//!
//! # Why a mark
//! Engines take an empty or missing file for a store that is to be begun. A file that was cut to nothing, or was not
//! restored with the others, must not become a fresh store in silence: once a store is complete the lock file says so.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use super::{BackendError, BackendErrorKind as Kind};

const LOCK: &str = "store.lock";
const MARK: &[u8] = b"made\n";

/// A directory that holds one store, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    lock: File,
    made: bool,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Closing it is not enough: a child that this process is starting has a copy until it becomes another program.
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "the lock of a store is released by closing it");
        }
    }
}

impl Home {
    /// Lock a directory, making it (mode 0700) where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, BackendError> {
        create(path).map_err(BackendError::from_io)?;
        let mut lock = private().open(path.join(LOCK)).map_err(BackendError::from_io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BackendError::new(Kind::InUse),
            TryLockError::Error(error) => BackendError::from_io(error),
        })?;
        let mut mark = Vec::new();
        lock.read_to_end(&mut mark).map_err(BackendError::from_io)?;
        Ok(Self {
            path: path.to_owned(),
            lock,
            made: mark == MARK,
        })
    }

    /// A complete store was here once.
    #[cfg(any(feature = "sled", feature = "sqlite"))]
    pub(super) const fn is_made(&self) -> bool {
        self.made
    }

    /// The store is complete and on the disk: from now on its files may not be missing.
    pub(super) fn mark(&mut self) -> Result<(), BackendError> {
        if self.made {
            return Ok(());
        }
        sync_directory(&self.path)
            .and_then(|()| self.lock.set_len(0))
            .and_then(|()| self.lock.write_all(MARK))
            .and_then(|()| self.lock.sync_all())
            .map_err(BackendError::from_io)?;
        self.made = true;
        Ok(())
    }

    /// A file of the store.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Make a file with mode 0600 unless it is there; it can be read and written afterwards, or this fails.
    #[cfg(any(feature = "redb", feature = "sqlite"))]
    pub(super) fn create_file(&self, name: &str) -> Result<File, BackendError> {
        private().open(self.file(name)).map_err(BackendError::from_io)
    }

    /// Give a complete file its name, durably.
    #[cfg(feature = "redb")]
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), BackendError> {
        fs::rename(self.file(from), self.file(to))
            .and_then(|()| sync_directory(&self.path))
            .map_err(BackendError::from_io)
    }

    /// The store's main file must be there with something in it, if a store was ever complete.
    pub(super) fn refuse_if_lost(&self, name: &str) -> Result<(), BackendError> {
        if self.made && length(&self.file(name))?.unwrap_or(0) == 0 {
            return Err(lost());
        }
        Ok(())
    }
}

/// There was a store, and its file is not there any more.
pub(super) fn lost() -> BackendError {
    BackendError::with_source(
        Kind::Corrupt,
        "its main file is missing or empty: restore it, or remove the whole directory to begin anew",
    )
}

/// The length of a file in bytes; `None` where there is none.
pub(super) fn length(file: &Path) -> Result<Option<u64>, BackendError> {
    match fs::metadata(file) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackendError::from_io(error)),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Make a directory and what is missing above it, and sync each name in its parent.
fn create(path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let here = parent.as_os_str().is_empty();
        sync_directory(if here { Path::new(".") } else { parent })?;
    }
    Ok(())
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> std::io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems have no such thing and say so.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}

//! The key file: 32 raw bytes that only their owner may read, made whole or not at all.
//!
//! A new key is staged in a file beside (`pickle.key.new`), then the store takes it, then the file takes its name. A
//! crash between these steps leaves the staged key, which opens the store or does not: whoever opens next finishes the
//! step or undoes it.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{KEY_BYTES, StoreKey};
use crate::{Result, StoreError};

/// Whose job it is that nobody else reads a key file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Ours: a file that others may read is refused.
    OnlyUs,
    /// The service manager's, which may use access lists that a mode does not show.
    ServiceManager,
}

/// Where a key waits until the store has it.
pub(super) fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::KeyFile {
        path: path.clone(),
        source,
    }
}

/// The key in a file. `None`: there is no file.
pub(super) fn read(path: &Path, owner: Owner) -> Result<Option<StoreKey>> {
    let mut file = match careful(OpenOptions::new().read(true)).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    let metadata = file.metadata().map_err(failed(path))?;
    if !metadata.is_file() {
        return Err(failed(path)(io::Error::other("it is not a regular file")));
    }
    if owner == Owner::OnlyUs {
        check_permissions(path, &metadata)?;
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(StoreError::KeyMalformed {
            path: path.to_owned(),
            len: metadata.len(),
        });
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    file.read_exact(bytes.as_mut()).map_err(failed(path))?;
    Ok(Some(StoreKey(*bytes)))
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    const OTHERS: u32 = 0o077;
    if metadata.mode() & OTHERS != 0 || !is_ours(metadata) {
        return Err(StoreError::KeyPermissions {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    check_directory(path)
}

#[cfg(unix)]
fn is_ours(metadata: &Metadata) -> bool {
    let owner = std::os::unix::fs::MetadataExt::uid(metadata);
    owner == rustix::process::geteuid().as_raw() || owner == 0
}

/// Whoever may write the directory may put another key in this one's place.
#[cfg(unix)]
fn check_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;

    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let directory = directory(path);
    let around = directory.metadata().map_err(failed(path))?;
    let writable = around.mode() & OTHERS_WRITE != 0 && around.mode() & STICKY == 0;
    if writable || !is_ours(&around) {
        return Err(StoreError::KeyDirectory {
            path: directory.to_owned(),
            mode: around.mode() & 0o7777,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &Metadata) -> Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn check_directory(_: &Path) -> Result<()> {
    Ok(())
}

/// The directory that a file is in.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

/// Write a key beside its place, with its mode from birth; back when it and its directory entry are on the disk.
pub(super) fn stage(path: &Path, key: &StoreKey) -> Result<()> {
    let target = staged(path);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory(path)).map_err(failed(&target))?;
    // Before anything is written: a store must not be made for a key that will be refused.
    check_directory(path)?;
    let made = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        // What an earlier attempt left opens nothing: whoever opened the store has seen to it.
        remove(&target)?;
        let mut file = careful(&mut options).open(&target)?;
        file.write_all(key.bytes())?;
        file.sync_all()?;
        sync_directory(path)
    };
    made().map_err(failed(&target))
}

/// `key` opens the store: it gets the name, and no other key stays beside it.
pub(super) fn settle(path: &Path, key: &StoreKey) -> Result<()> {
    let beside = staged(path);
    let waiting = match read(&beside, Owner::OnlyUs) {
        // Half of a key that no store has taken.
        Err(StoreError::KeyMalformed { .. }) => None,
        Ok(None) => return check(path, key),
        read => read?,
    };
    let settled = || {
        match waiting {
            Some(waiting) if waiting.bytes() == key.bytes() => std::fs::rename(&beside, path)?,
            _ => remove(&beside)?,
        }
        sync_directory(path)
    };
    settled().map_err(failed(path))?;
    check(path, key)
}

/// The file has the key. If it has not, somebody else is at work here, and the store would be closed for good.
fn check(path: &Path, key: &StoreKey) -> Result<()> {
    match read(path, Owner::OnlyUs)? {
        Some(found) if found.bytes() == key.bytes() => Ok(()),
        Some(_) => Err(StoreError::KeyOfAnotherStore { path: path.to_owned() }),
        None => Err(StoreError::KeyMissing { path: path.to_owned() }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// A link in the key's place is refused: it would put the key where somebody else wants it. A pipe is not waited for.
fn careful(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    options
}

#[cfg(test)]
mod tests;

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
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    let mine = |owner: u32| owner == rustix::process::geteuid().as_raw() || owner == 0;
    let refuse = |path: &Path, mode: u32| StoreError::KeyPermissions {
        path: path.to_owned(),
        mode: mode & 0o7777,
    };
    if metadata.mode() & OTHERS != 0 || !mine(metadata.uid()) {
        return Err(refuse(path, metadata.mode()));
    }
    // Whoever may write the directory may put another key in this one's place.
    let directory = directory(path);
    let around = directory.metadata().map_err(failed(path))?;
    let writable = around.mode() & OTHERS_WRITE != 0 && around.mode() & STICKY == 0;
    if writable || !mine(around.uid()) {
        return Err(refuse(directory, around.mode()));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &Metadata) -> Result<()> {
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
    let made = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        builder.create(directory(path))?;
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
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn made(directory: &tempfile::TempDir) -> (PathBuf, StoreKey) {
        let path = directory.path().join("inner").join("pickle.key");
        let key = StoreKey::generate().unwrap();
        stage(&path, &key).unwrap();
        settle(&path, &key).unwrap();
        (path, key)
    }

    fn key(path: &Path) -> Result<Option<StoreKey>> {
        read(path, Owner::OnlyUs)
    }

    #[test]
    fn a_key_is_for_its_owner_from_birth() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("inner").join("pickle.key");
        assert!(key(&path).unwrap().is_none());
        let wanted = StoreKey::generate().unwrap();
        stage(&path, &wanted).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&staged(&path)), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        settle(&path, &wanted).unwrap();
        assert!(!staged(&path).exists());
        assert_eq!(key(&path).unwrap().unwrap().bytes(), wanted.bytes());
        assert!(!format!("{wanted:?}").contains(char::is_numeric));
    }

    #[test]
    fn a_staged_key_that_opens_nothing_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let (path, kept) = made(&directory);
        stage(&path, &StoreKey::generate().unwrap()).unwrap();
        settle(&path, &kept).unwrap();
        assert!(!staged(&path).exists());
        assert_eq!(key(&path).unwrap().unwrap().bytes(), kept.bytes());
        // What a crash left of writing one.
        std::fs::write(staged(&path), [7; 5]).unwrap();
        std::fs::set_permissions(staged(&path), std::fs::Permissions::from_mode(0o600)).unwrap();
        settle(&path, &kept).unwrap();
        assert!(!staged(&path).exists());
        let other = StoreKey::generate().unwrap();
        assert!(matches!(
            settle(&path, &other),
            Err(StoreError::KeyOfAnotherStore { .. })
        ));
    }

    #[test]
    fn loose_permissions_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, _) = made(&directory);
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610, 0o777] {
            set(&path, mode);
            assert!(matches!(key(&path), Err(StoreError::KeyPermissions { mode: found, .. }) if found == mode));
            assert_eq!(
                path.metadata().unwrap().permissions().mode() & 0o777,
                mode,
                "not mended by itself"
            );
        }
        set(&path, 0o400);
        key(&path).unwrap().unwrap();
        let around = path.parent().unwrap();
        for mode in [0o702, 0o720, 0o777] {
            set(around, mode);
            assert!(matches!(key(&path), Err(StoreError::KeyPermissions { mode: found, .. }) if found == mode));
        }
        set(around, 0o1777);
        key(&path).unwrap().unwrap();
    }

    #[test]
    fn only_a_regular_file_of_32_bytes_is_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let (path, kept) = made(&directory);
        let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
        let hex: String = kept.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let with_newline = [kept.bytes(), &b"\n"[..]].concat();
        for bytes in [&[][..], &[7; 31], &[7; 33], &[7; 64], &with_newline, hex.as_bytes()] {
            write(bytes);
            assert!(matches!(key(&path), Err(StoreError::KeyMalformed { len, .. }) if len == bytes.len() as u64));
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it is");
        }
        write(kept.bytes());
        let elsewhere = path.with_file_name("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(key(&path), Err(StoreError::KeyFile { .. })), "a link");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(key(&path), Err(StoreError::KeyFile { .. })), "a directory");
        std::fs::remove_dir(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        if made.is_ok_and(|status| status.success()) {
            assert!(
                matches!(key(&path), Err(StoreError::KeyFile { .. })),
                "a pipe, which nobody writes"
            );
        }
    }
}

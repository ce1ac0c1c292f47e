//! Where the store's key comes from: a file of 32 bytes that only its owner reads, or bytes that the caller brings.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{Result, StoreError};

/// The length of a store's key, in bytes.
const KEY_BYTES: usize = 32;

/// The key that a store is sealed with. Wiped from memory when dropped, hidden in debug output.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StoreKey([u8; KEY_BYTES]);

impl StoreKey {
    /// A key that the caller keeps: 32 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`StoreError::Encode`] when the operating system gives no randomness.
    pub fn generate() -> Result<Self> {
        Self::random().map_err(|_| StoreError::Encode { what: "a key" })
    }

    fn random() -> io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    pub(crate) const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreKey(<hidden>)")
    }
}

/// Where a store's key comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A file of exactly 32 raw bytes, which only its owner may read. It is made, with mode 0600 from birth, for a
    /// store that is empty, and never again.
    File(PathBuf),
    /// A key that the caller keeps, as in a credential of the service manager.
    Bytes(StoreKey),
}

impl KeySource {
    /// The key of a store that exists.
    pub(crate) fn existing(&self) -> Result<StoreKey> {
        match self {
            Self::Bytes(key) => Ok(key.clone()),
            Self::File(path) => read(path)?.ok_or_else(|| StoreError::KeyMissing { path: path.clone() }),
        }
    }

    /// The key of a store that is empty: an earlier start may have made it and ended before it used it.
    pub(crate) fn existing_or_new(&self) -> Result<StoreKey> {
        match self {
            Self::Bytes(key) => Ok(key.clone()),
            Self::File(path) => match read(path)? {
                Some(key) => Ok(key),
                None => create(path).map_err(|source| StoreError::KeyFile {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }
}

fn read(path: &Path) -> Result<Option<StoreKey>> {
    let failed = |source| StoreError::KeyFile {
        path: path.to_owned(),
        source,
    };
    let mut file = match not_a_link(OpenOptions::new().read(true)).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::KeyPermissions {
                path: path.to_owned(),
                mode,
            });
        }
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(StoreError::KeyMalformed {
            path: path.to_owned(),
            len: metadata.len(),
        });
    }
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    file.read_exact(bytes.as_mut()).map_err(failed)?;
    Ok(Some(StoreKey(*bytes)))
}

/// Make the file with its mode, and come back when it and its directory entry are on the disk.
fn create(path: &Path) -> io::Result<StoreKey> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    builder.create(directory)?;
    let key = StoreKey::random()?;
    let mut file = not_a_link(&mut options).open(path)?;
    file.write_all(key.bytes())?;
    file.sync_all()?;
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(key)
}

/// A link in the key's place is refused: it would put the key where somebody else wants it.
fn not_a_link(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
    }
    options
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn source(directory: &tempfile::TempDir) -> (KeySource, PathBuf) {
        let path = directory.path().join("inner").join("pickle.key");
        (KeySource::File(path.clone()), path)
    }

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let (source, path) = source(&directory);
        assert!(matches!(source.existing(), Err(StoreError::KeyMissing { .. })));
        let key = source.existing_or_new().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), key.bytes());
        assert_eq!(source.existing().unwrap().bytes(), key.bytes());
        assert_eq!(source.existing_or_new().unwrap().bytes(), key.bytes());
        assert!(
            !format!("{key:?} {source:?}").contains(&format!("{}", key.bytes()[0]))
                || format!("{key:?}").contains("hidden")
        );
    }

    #[test]
    fn loose_permissions_wrong_lengths_and_links_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (source, path) = source(&directory);
        source.existing_or_new().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(source.existing(), Err(StoreError::KeyPermissions { mode: found, .. }) if found == mode));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for length in [0, 31, 33, 64] {
            std::fs::write(&path, vec![7; length]).unwrap();
            assert!(
                matches!(source.existing_or_new(), Err(StoreError::KeyMalformed { len, .. }) if len == length as u64)
            );
        }
        std::fs::write(&path, [7; 32]).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(source.existing_or_new(), Err(StoreError::KeyFile { .. })));
    }
}

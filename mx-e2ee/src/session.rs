//! The login: who, which device, where, with which token. A file that only its owner reads, replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use mx_transport::AccessToken;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, Result};

const FILE: &str = "session.json";

/// A login, without its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The homeserver's address.
    pub homeserver: String,
    /// Who is logged in.
    pub user_id: OwnedUserId,
    /// As which device.
    pub device_id: OwnedDeviceId,
}

impl Session {
    /// The login that a directory holds, also while another process uses its store. `None`: there is none.
    ///
    /// # Errors
    /// [`Error::SessionFile`], [`Error::SessionFilePermissions`].
    pub fn of(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        Ok(load(directory.as_ref())?.map(|(session, _)| session))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    homeserver: String,
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    access_token: Zeroizing<String>,
}

/// The login of a directory. `None`: there is none.
pub(crate) fn load(directory: &Path) -> Result<Option<(Session, AccessToken)>> {
    let path = directory.join(FILE);
    let failed = |source| Error::SessionFile {
        path: path.clone(),
        source,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).map_err(failed)?.permissions());
        if mode & 0o077 != 0 {
            return Err(Error::SessionFilePermissions { path });
        }
    }
    // serde_json's error would quote the file, which holds the token.
    let damaged = || failed(io::Error::new(io::ErrorKind::InvalidData, "it is not a login"));
    let stored: Stored = serde_json::from_str(&text).map_err(|_| damaged())?;
    let token = AccessToken::new(stored.access_token.as_str()).map_err(|_| damaged())?;
    let session = Session {
        homeserver: stored.homeserver,
        user_id: stored.user_id,
        device_id: stored.device_id,
    };
    Ok(Some((session, token)))
}

/// Replace the login of a directory: the old one or the new one is on the disk, never half of one.
pub(crate) fn save(directory: &Path, session: &Session, token: &AccessToken) -> Result<()> {
    let path = directory.join(FILE);
    let stored = Stored {
        homeserver: session.homeserver.clone(),
        user_id: session.user_id.clone(),
        device_id: session.device_id.clone(),
        access_token: Zeroizing::new(token.expose().to_owned()),
    };
    write(directory, &path, &stored).map_err(|source| Error::SessionFile { path, source })
}

fn write(directory: &Path, path: &Path, stored: &Stored) -> io::Result<()> {
    let text = Zeroizing::new(serde_json::to_vec_pretty(stored)?);
    let new = directory.join(format!("{FILE}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Forget a login that was ended. The login goes last: whatever comes between, it can be ended again.
pub(crate) fn forget(directory: &Path, session: &Session) -> Result<()> {
    put_store_aside(directory, &session.device_id)?;
    remove(directory)
}

fn remove(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::SessionFile { path, source: error }),
        _ => Ok(()),
    }
}

/// Put the store of a device that was logged out aside, with its key: a new login starts with an empty one, and nothing
/// is destroyed.
fn put_store_aside(directory: &Path, device: &DeviceId) -> Result<()> {
    let name: String = device
        .as_str()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(64)
        .collect();
    let failed = |source| Error::SessionFile {
        path: directory.join("logged-out"),
        source,
    };
    for number in 0.. {
        let aside = directory.join("logged-out").join(format!("{name}.{number}"));
        if aside.exists() {
            continue;
        }
        create_directory(&aside)?;
        for part in ["store", "pickle.key"] {
            match fs::rename(directory.join(part), aside.join(part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        break;
    }
    Ok(())
}

/// Make a directory for its owner only.
pub(crate) fn create_directory(directory: &Path) -> Result<PathBuf> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|source| Error::SessionFile {
        path: directory.to_owned(),
        source,
    })?;
    Ok(directory.to_owned())
}

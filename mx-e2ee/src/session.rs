//! The login: who, which device, where; with its tokens, sealed. A file that only its owner reads, replaced as a whole.

mod credentials;
mod ending;
mod keeper;
mod safe;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use ruma::{OwnedDeviceId, OwnedUserId, serde::Base64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::credentials::Written;
pub(crate) use self::{
    credentials::{Credentials, Kind, masquerade},
    ending::{destroy, destroy_aside, forget},
    keeper::{SessionKeeper, lock},
    safe::{Safe, unlock},
};
use crate::{Error, Result};

const FILE: &str = "session.json";
/// Held by the process that changes the login. Empty.
const LOCK: &str = "session.lock";

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
        let found = find(directory.as_ref())?;
        Ok(found
            .filter(|(_, kept)| !matches!(kept, Kept::Ended))
            .map(|(session, _)| session))
    }
}

/// What a file keeps of a login's tokens.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Sealed with the key of the store.
    Sealed(Vec<u8>),
    /// In the clear, by a version before this one.
    Plain(Written),
    /// Nothing: the login was ended on the homeserver, and its files are on their way out.
    Ended,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    homeserver: String,
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_tokens: Option<Base64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
}

/// The login of a directory. `None`: there is none.
pub(crate) fn find(directory: &Path) -> Result<Option<(Session, Kept)>> {
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
    // serde_json's error would quote the file, which may hold a token.
    let stored: Stored = serde_json::from_str(&text).map_err(|_| damaged(directory))?;
    let kept = match (stored.ended, stored.sealed_tokens) {
        (true, _) => Kept::Ended,
        (false, Some(sealed)) => Kept::Sealed(sealed.into_inner()),
        (false, None) => Kept::Plain(serde_json::from_str(&text).map_err(|_| damaged(directory))?),
    };
    let session = Session {
        homeserver: stored.homeserver,
        user_id: stored.user_id,
        device_id: stored.device_id,
    };
    Ok(Some((session, kept)))
}

fn damaged(directory: &Path) -> Error {
    Error::SessionFile {
        path: directory.join(FILE),
        source: io::Error::new(io::ErrorKind::InvalidData, "it is not a login, or was changed"),
    }
}

/// What the tokens are bound to: sealed for one homeserver and device, they open for no other, whatever the file says.
fn context(session: &Session) -> Vec<u8> {
    let (user, device) = (session.user_id.as_str(), session.device_id.as_str());
    ["mx-e2ee login", &session.homeserver, user, device]
        .join("\0")
        .into_bytes()
}

/// Replace the login of a directory: the old one or the new one is on the disk, never half of one.
fn save(directory: &Path, session: &Session, kept: &Kept) -> Result<()> {
    let path = directory.join(FILE);
    let stored = Stored {
        homeserver: session.homeserver.clone(),
        user_id: session.user_id.clone(),
        device_id: session.device_id.clone(),
        sealed_tokens: match kept {
            Kept::Sealed(sealed) => Some(Base64::new(sealed.clone())),
            Kept::Plain(_) | Kept::Ended => None,
        },
        ended: matches!(kept, Kept::Ended),
    };
    write(directory, &path, &stored).map_err(|source| Error::SessionFile { path, source })
}

/// Note that a login was ended on the homeserver: from now on its files may go, the key first, and whoever goes on with that
/// needs no token. Where it cannot be noted, on a disk that is full, they go all the same. The caller holds the lock.
pub(crate) fn mark_ended(directory: &Path, session: &Session) {
    if let Err(error) = save(directory, session, &Kept::Ended) {
        tracing::warn!(code = error.code(), "the end of a login cannot be noted");
    }
}

fn write(directory: &Path, path: &Path, stored: &Stored) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(stored)?;
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

#[cfg(test)]
mod tests;

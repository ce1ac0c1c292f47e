//! The login: who, which device, where, with which tokens. A file that only its owner reads, replaced as a whole.

mod ending;
mod keeper;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use mx_transport::{AccessToken, RefreshToken, Tokens};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use self::{
    ending::{destroy, destroy_aside, forget},
    keeper::{SessionKeeper, lock},
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
        Ok(load(directory.as_ref())?.map(|(session, _)| session))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    homeserver: String,
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    access_token: Zeroizing<String>,
    /// Of a homeserver whose access tokens expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Zeroizing<String>>,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token_expires_at_ms: Option<u64>,
}

impl Stored {
    fn of(session: &Session, tokens: &Tokens) -> Self {
        let expires_at = tokens
            .expires_at
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let refresh = tokens.refresh.as_ref();
        Self {
            homeserver: session.homeserver.clone(),
            user_id: session.user_id.clone(),
            device_id: session.device_id.clone(),
            access_token: Zeroizing::new(tokens.access.expose().to_owned()),
            refresh_token: refresh.map(|refresh| Zeroizing::new(refresh.expose().to_owned())),
            access_token_expires_at_ms: expires_at.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// `None`: it is damaged.
    fn tokens(&self) -> Option<Tokens> {
        let expires_at = self.access_token_expires_at_ms;
        Some(Tokens {
            access: AccessToken::new(self.access_token.as_str()).ok()?,
            refresh: self
                .refresh_token
                .as_ref()
                .map(|token| RefreshToken::new(token.as_str())),
            expires_at: expires_at.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))),
        })
    }
}

/// The login of a directory. `None`: there is none.
pub(crate) fn load(directory: &Path) -> Result<Option<(Session, Tokens)>> {
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
    let tokens = stored.tokens().ok_or_else(damaged)?;
    let session = Session {
        homeserver: stored.homeserver,
        user_id: stored.user_id,
        device_id: stored.device_id,
    };
    Ok(Some((session, tokens)))
}

/// Replace the login of a directory: the old one or the new one is on the disk, never half of one.
pub(crate) fn save(directory: &Path, session: &Session, tokens: &Tokens) -> Result<()> {
    let path = directory.join(FILE);
    let stored = Stored::of(session, tokens);
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

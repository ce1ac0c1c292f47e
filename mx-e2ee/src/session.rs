//! The login: who, which device, where; with its tokens, sealed. A file that only its owner reads, replaced as a whole.

mod credentials;
mod ending;
mod keeper;
mod rekey;
mod safe;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use ruma::{OwnedDeviceId, OwnedUserId, serde::Base64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub(crate) use self::{
    credentials::{Credentials, Kind, Written, masquerade},
    ending::{destroy, destroy_aside, forget},
    keeper::{SessionKeeper, lock},
    rekey::rekey,
    safe::{Safe, settle, unlock},
};
#[cfg(feature = "sqlite")]
pub(crate) use self::{keeper::Locked, safe::unlock_held};
use crate::{Error, Result};

const FILE: &str = "session.json";
/// Held by the process that changes the login. Empty.
const LOCK: &str = "session.lock";

/// A login, without its token.
///
/// ```
/// use mx_e2ee::Session;
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// match Session::of(directory)? {
///     Some(login) => println!("{} as {} at {}", login.user_id, login.device_id, login.homeserver),
///     None => println!("log in first"),
/// }
/// # assert_eq!(Session::of(directory)?, None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
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
    /// [`Error::SessionFile`], [`Error::SessionFilePermissions`]; [`Error::Moved`], [`Error::MoveUnfinished`].
    pub fn of(directory: impl AsRef<Path>) -> Result<Option<Self>> {
        match find(directory.as_ref())? {
            None | Some((_, Kept::Ended)) => Ok(None),
            Some((session, kept)) => kept.refuse_moved(directory.as_ref(), &session).map(|()| Some(session)),
        }
    }
}

/// What a file keeps of a login's tokens.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Sealed with the key of the store. While the store is given another key, sealed with that one too.
    Sealed(Vec<Vec<u8>>),
    /// In the clear, by a version before this one.
    Plain(Written),
    /// Nothing: the login was ended on the homeserver, and its files are on their way out.
    Ended,
    /// The device leaves this directory for there, and does not run here. Sealed, until all of it is there.
    Leaving(Vec<Vec<u8>>, String),
    /// Nothing: the device left this directory, and all of it was there.
    Left(String),
}

impl Kept {
    /// The store was about to be given another key, and whoever did that died.
    pub(crate) fn is_for_two_keys(&self) -> bool {
        matches!(self, Self::Sealed(sealed) if sealed.len() > 1)
    }

    /// # Errors
    /// [`Error::Moved`], [`Error::MoveUnfinished`].
    pub(crate) fn refuse_moved(&self, directory: &Path, session: &Session) -> Result<()> {
        let (directory, device) = (directory.to_owned(), session.device_id.clone());
        match self {
            Self::Left(to) => Err(Error::Moved {
                directory,
                device,
                to: to.clone(),
            }),
            Self::Leaving(_, to) => Err(Error::MoveUnfinished {
                directory,
                device,
                to: to.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The device leaves, or left.
    pub(crate) const fn is_moved(&self) -> bool {
        matches!(self, Self::Leaving(..) | Self::Left(_))
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    homeserver: String,
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_tokens: Option<Base64>,
    /// The same, sealed with the key that the store is about to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_tokens_next: Option<Base64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved: Option<Moved>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Moved {
    Leaving { to: String },
    Left { to: String },
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
    let kept = match (stored.ended, stored.moved, stored.sealed_tokens) {
        (true, ..) => Kept::Ended,
        (false, Some(Moved::Left { to }), _) => Kept::Left(to),
        (false, moved, Some(sealed)) => {
            let next = stored.sealed_tokens_next;
            let sealed = [sealed].into_iter().chain(next).map(Base64::into_inner).collect();
            match moved {
                Some(Moved::Leaving { to }) => Kept::Leaving(sealed, to),
                _ => Kept::Sealed(sealed),
            }
        }
        (false, Some(Moved::Leaving { .. }), None) => return Err(damaged(directory)),
        (false, None, None) => Kept::Plain(serde_json::from_str(&text).map_err(|_| damaged(directory))?),
    };
    let session = Session {
        homeserver: stored.homeserver,
        user_id: stored.user_id,
        device_id: stored.device_id,
    };
    Ok(Some((session, kept)))
}

pub(crate) fn damaged(directory: &Path) -> Error {
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
pub(crate) fn save(directory: &Path, session: &Session, kept: &Kept) -> Result<()> {
    let path = directory.join(FILE);
    let mut sealed = match kept {
        Kept::Sealed(sealed) | Kept::Leaving(sealed, _) => sealed.iter().cloned().map(Base64::new),
        Kept::Plain(_) | Kept::Ended | Kept::Left(_) => [].iter().cloned().map(Base64::new),
    };
    let stored = Stored {
        homeserver: session.homeserver.clone(),
        user_id: session.user_id.clone(),
        device_id: session.device_id.clone(),
        sealed_tokens: sealed.next(),
        sealed_tokens_next: sealed.next(),
        ended: matches!(kept, Kept::Ended),
        moved: match kept {
            Kept::Left(to) => Some(Moved::Left { to: to.clone() }),
            Kept::Leaving(_, to) => Some(Moved::Leaving { to: to.clone() }),
            _ => None,
        },
    };
    write(directory, &path, &stored).map_err(|source| Error::SessionFile { path, source })
}

/// Whether a login that was read before the lock was taken is still that of the directory. Another process may have ended it,
/// and put another one there. The caller holds the lock.
///
/// # Errors
/// [`Error::Moved`], [`Error::MoveUnfinished`] where its device left meanwhile; of the file.
pub(crate) fn is_here(directory: &Path, session: &Session) -> Result<bool> {
    match find(directory)? {
        Some((found, kept)) if found == *session => kept.refuse_moved(directory, session).map(|()| true),
        _ => Ok(false),
    }
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

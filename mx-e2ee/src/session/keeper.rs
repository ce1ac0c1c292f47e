//! Where the tokens of a login are kept when they are renewed: its file, with one process at a time at it.
//!
//! # Why a lock of its own
//! `mx download` and `mx logout` use a login beside a process that holds its store. When two of them renewed it at once,
//! one of them would go on with tokens that are worth nothing. The lock is the operating system's on an empty file: it
//! ends with the process that holds it, however that ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use mx_transport::{KeepError, KeeperTurn, TokenKeeper, Tokens};
use tokio::time::Instant;

use super::{LOCK, Safe, Session, credentials::Credentials};
use crate::Error;

/// Another process that renews the login has an exchange with the homeserver to end, which may be tried several times.
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(20);

/// The file of a login.
#[derive(Clone, Debug)]
pub(crate) struct SessionKeeper {
    directory: PathBuf,
    session: Session,
    safe: Safe,
    /// Of which only the tokens change.
    login: Credentials,
}

impl SessionKeeper {
    pub(crate) fn new(directory: &Path, session: &Session, safe: Safe, login: Credentials) -> Self {
        Self {
            directory: directory.to_owned(),
            session: session.clone(),
            safe,
            login,
        }
    }
}

/// The right to change the login of a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked(#[expect(dead_code, reason = "held, and let go when it is dropped")] File);

/// Wait until no process renews the login of this directory.
///
/// # Cancel safety
/// Safe: nothing is held then.
pub(crate) async fn lock(directory: &Path) -> Result<Locked, Error> {
    let path = directory.join(LOCK);
    locked(&path, PATIENCE)
        .await
        .map_err(|source| Error::SessionFile { path, source })
}

async fn locked(path: &Path, patience: Duration) -> io::Result<Locked> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Locked(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another process does not let the login go",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

#[async_trait]
impl TokenKeeper for SessionKeeper {
    async fn turn(&self) -> Result<Box<dyn KeeperTurn>, KeepError> {
        Ok(Box::new(Turn {
            _locked: lock(&self.directory).await?,
            keeper: self.clone(),
        }))
    }
}

#[derive(Debug)]
struct Turn {
    _locked: Locked,
    keeper: SessionKeeper,
}

#[async_trait]
impl KeeperTurn for Turn {
    /// The login of another device is none of ours.
    async fn kept(&self) -> Result<Option<Tokens>, KeepError> {
        let SessionKeeper {
            directory,
            session,
            safe,
            ..
        } = &self.keeper;
        let found = super::find(directory)?.filter(|(found, _)| found == session);
        let Some((_, kept)) = found else { return Ok(None) };
        if kept.is_for_two_keys() {
            // Who renewed them now would seal them with one of the two, which may be the one that opens nothing any more.
            return Err("the store is between two keys: open it, which ends that".into());
        }
        let credentials = safe.read(directory, session, kept).await?;
        Ok(credentials.map(|credentials| credentials.tokens))
    }

    /// A small file, written without a pause at which it could be dropped.
    async fn keep(&mut self, tokens: &Tokens) -> Result<(), KeepError> {
        let SessionKeeper {
            directory,
            session,
            safe,
            login,
        } = &self.keeper;
        Ok(safe.save(directory, session, &login.with(tokens.clone()))?)
    }
}

#[cfg(test)]
mod tests {
    use mx_crypto_store::{KeySource, StoreKey};
    use mx_transport::{AccessToken, RefreshToken};

    use super::*;
    use crate::session::{Kept, find, forget, mark_ended, settle};

    fn session(device: &str) -> Session {
        Session {
            homeserver: "https://hs.test".to_owned(),
            user_id: ruma::user_id!("@a:hs.test").to_owned(),
            device_id: device.into(),
        }
    }

    fn tokens(number: u32) -> Tokens {
        let access = AccessToken::new(format!("access-{number}")).unwrap();
        Tokens::lasting(access, Some(RefreshToken::new("refresh")), None)
    }

    async fn safe() -> Safe {
        Safe::create(KeySource::Bytes(StoreKey::from_bytes([7; 32])))
            .await
            .unwrap()
    }

    async fn keeper(directory: &Path) -> SessionKeeper {
        SessionKeeper::new(
            directory,
            &session("DEVICE"),
            safe().await,
            Credentials::native(tokens(0)),
        )
    }

    async fn save(directory: &Path, device: &str, number: u32) {
        let credentials = Credentials::native(tokens(number));
        safe().await.save(directory, &session(device), &credentials).unwrap();
    }

    async fn kept(keeper: &SessionKeeper) -> Option<String> {
        let kept = keeper.turn().await.unwrap().kept().await.unwrap();
        kept.map(|tokens| tokens.access.expose().to_owned())
    }

    #[tokio::test]
    async fn what_is_kept_is_the_login_of_this_device_and_of_no_other() {
        let here = tempfile::tempdir().unwrap();
        let keeper = keeper(here.path()).await;
        assert!(kept(&keeper).await.is_none());
        save(here.path(), "DEVICE", 1).await;
        assert_eq!(
            kept(&keeper).await.as_deref(),
            Some("access-1"),
            "whoever has sealed it"
        );
        keeper.turn().await.unwrap().keep(&tokens(2)).await.unwrap();
        assert_eq!(kept(&keeper).await.as_deref(), Some("access-2"));
        save(here.path(), "OTHER", 3).await;
        assert!(kept(&keeper).await.is_none());
        mark_ended(here.path(), &session("DEVICE"));
        assert!(kept(&keeper).await.is_none(), "what was ended is not renewed");
        forget(here.path(), &session("OTHER")).unwrap();
        assert!(kept(&keeper).await.is_none());
        assert!(
            find(here.path()).unwrap().is_none(),
            "what was ended does not come back"
        );
    }

    #[tokio::test]
    async fn between_two_keys_nobody_renews_until_the_store_was_opened() {
        let here = tempfile::tempdir().unwrap();
        let session = session("DEVICE");
        let sealed = async |number: u32| {
            save(here.path(), "DEVICE", number).await;
            match find(here.path()).unwrap().unwrap().1 {
                Kept::Sealed(mut parts) => parts.remove(0),
                kept => unreachable!("{kept:?}"),
            }
        };
        // What a rekey leaves that was killed between its steps.
        let both = vec![sealed(1).await, sealed(1).await];
        crate::session::save(here.path(), &session, &Kept::Sealed(both)).unwrap();
        let keeper = keeper(here.path()).await;
        assert!(keeper.turn().await.unwrap().kept().await.is_err());
        settle(here.path(), &session, &safe().await).await.unwrap();
        assert_eq!(kept(&keeper).await.as_deref(), Some("access-1"));
    }

    #[tokio::test]
    async fn one_at_a_time_has_its_turn() {
        let here = tempfile::tempdir().unwrap();
        let keeper = keeper(here.path()).await;
        let first = keeper.turn().await.unwrap();
        let error = locked(&here.path().join(LOCK), Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "nobody waits for ever");
        let letting_go = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (turn, ()) = tokio::join!(keeper.turn(), letting_go);
        assert!(turn.is_ok());
    }
}

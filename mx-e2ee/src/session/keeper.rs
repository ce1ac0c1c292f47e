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

use super::{LOCK, Session};
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
}

impl SessionKeeper {
    pub(crate) fn new(directory: &Path, session: &Session) -> Self {
        Self {
            directory: directory.to_owned(),
            session: session.clone(),
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
        let ours = &self.keeper.session;
        let kept = super::load(&self.keeper.directory)?;
        Ok(kept
            .filter(|(kept, _)| kept.user_id == ours.user_id && kept.device_id == ours.device_id)
            .map(|(_, tokens)| tokens))
    }

    /// A small file, written without a pause at which it could be dropped.
    async fn keep(&mut self, tokens: &Tokens) -> Result<(), KeepError> {
        Ok(super::save(&self.keeper.directory, &self.keeper.session, tokens)?)
    }
}

#[cfg(test)]
mod tests {
    use mx_transport::{AccessToken, RefreshToken};

    use super::*;
    use crate::session::{forget, load, save};

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

    async fn kept(keeper: &SessionKeeper) -> Option<String> {
        let kept = keeper.turn().await.unwrap().kept().await.unwrap();
        kept.map(|tokens| tokens.access.expose().to_owned())
    }

    #[tokio::test]
    async fn what_is_kept_is_the_login_of_this_device_and_of_no_other() {
        let here = tempfile::tempdir().unwrap();
        let keeper = SessionKeeper::new(here.path(), &session("DEVICE"));
        assert!(kept(&keeper).await.is_none());
        save(here.path(), &session("DEVICE"), &tokens(1)).unwrap();
        keeper.turn().await.unwrap().keep(&tokens(2)).await.unwrap();
        assert_eq!(kept(&keeper).await.as_deref(), Some("access-2"));
        save(here.path(), &session("OTHER"), &tokens(3)).unwrap();
        assert!(kept(&keeper).await.is_none());
        forget(here.path(), &session("OTHER")).unwrap();
        assert!(kept(&keeper).await.is_none());
        assert!(
            load(here.path()).unwrap().is_none(),
            "what was ended does not come back"
        );
    }

    #[tokio::test]
    async fn one_at_a_time_has_its_turn() {
        let here = tempfile::tempdir().unwrap();
        let keeper = SessionKeeper::new(here.path(), &session("DEVICE"));
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

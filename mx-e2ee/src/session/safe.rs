//! The login in its directory: a file that says who, and that holds the tokens sealed with the store's key.
//!
//! # Why not in the store
//! A store has one user at a time, and the login is needed beside it: to end it, and to fetch files, while another process
//! sends and receives. What seals the tokens is opened by the same key as the store, without it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mx_crypto_store::{KeySource, NewKey, StoreError, Vault};
use zeroize::Zeroizing;

use super::{Credentials, Kept, Session, context, credentials::Written, damaged, find, lock, save};
use crate::{Error, Result};

/// What opens and seals the tokens of one login. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Safe {
    /// Of whoever sealed the tokens last, when they were read last: another process may have given the store another key.
    vault: Arc<Mutex<Arc<Vault>>>,
    key: KeySource,
}

impl Safe {
    /// A new one, for a login that is being made.
    pub(crate) async fn create(key: KeySource) -> Result<Self> {
        Ok(Self::of(Vault::create(&key).await?, key))
    }

    fn of(vault: Vault, key: KeySource) -> Self {
        Self {
            vault: Arc::new(Mutex::new(Arc::new(vault))),
            key,
        }
    }

    fn vault(&self) -> MutexGuard<'_, Arc<Vault>> {
        self.vault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replace the login of a directory. Durable when it returns.
    pub(crate) fn save(&self, directory: &Path, session: &Session, credentials: &Credentials) -> Result<()> {
        let sealed = self.sealed(directory, session, credentials)?;
        save(directory, session, &Kept::Sealed(vec![sealed]))
    }

    /// The same for a device that leaves for there.
    #[cfg(feature = "sqlite")]
    pub(crate) fn save_leaving(
        &self,
        directory: &Path,
        session: &Session,
        credentials: &Credentials,
        to: String,
    ) -> Result<()> {
        let sealed = self.sealed(directory, session, credentials)?;
        save(directory, session, &Kept::Leaving(vec![sealed], to))
    }

    fn sealed(&self, directory: &Path, session: &Session, credentials: &Credentials) -> Result<Vec<u8>> {
        let text = written(directory, credentials)?;
        Ok(self.vault().seal(&context(session), &text)?)
    }

    /// The credentials of what a directory holds. `None`: the login was ended.
    pub(crate) async fn read(&self, directory: &Path, session: &Session, kept: Kept) -> Result<Option<Credentials>> {
        let text = match kept {
            Kept::Ended => return Ok(None),
            Kept::Leaving(..) | Kept::Left(_) => return kept.refuse_moved(directory, session).map(|()| None),
            Kept::Plain(written) => return written.credentials(session).map(Some).ok_or_else(|| damaged(directory)),
            Kept::Sealed(sealed) => self.reopened(directory, session, &sealed).await?,
        };
        parsed(&text, session, directory).map(Some)
    }

    async fn reopened(&self, directory: &Path, session: &Session, sealed: &[Vec<u8>]) -> Result<Zeroizing<Vec<u8>>> {
        let vault = Arc::clone(&self.vault());
        for sealed in sealed {
            match vault.reopen(&context(session), sealed) {
                Ok(None) => {}
                Ok(Some(text)) => return Ok(text),
                Err(error) => return Err(corrupt(error, directory)),
            }
        }
        // A login that was made anew beside us, or a store that was given another key.
        let (vault, text) = opened(&self.key, directory, session, sealed).await?;
        *self.vault() = Arc::new(vault);
        Ok(text)
    }
}

fn written(directory: &Path, credentials: &Credentials) -> Result<Zeroizing<Vec<u8>>> {
    let text = serde_json::to_vec(&credentials.written()).map(Zeroizing::new);
    text.map_err(|_| damaged(directory))
}

/// Keep the tokens sealed with the key that opens the store, and with the one that it is about to have: whoever dies next,
/// one of them opens them. The caller holds the lock. Returns what is sealed with the latter.
pub(crate) fn save_for_both(
    directory: &Path,
    session: &Session,
    (safe, credentials): (&Safe, &Credentials),
    next: &NewKey,
) -> Result<Vec<u8>> {
    let text = written(directory, credentials)?;
    let now = safe.vault().seal(&context(session), &text)?;
    let next = Vault::for_new_key(next)?.seal(&context(session), &text)?;
    save(directory, session, &Kept::Sealed(vec![now, next.clone()]))?;
    Ok(next)
}

/// The store has one key again, which `safe` has: the tokens are sealed with it alone. The caller holds the store.
pub(crate) async fn settle(directory: &Path, session: &Session, safe: &Safe) -> Result<()> {
    let _locked = lock(directory).await?;
    let Some((found, kept)) = find(directory)?.filter(|(found, _)| found == session) else {
        return Ok(());
    };
    if let Some(credentials) = safe.read(directory, &found, kept).await? {
        safe.save(directory, &found, &credentials)?;
    }
    Ok(())
}

/// The tokens of a login that was found, and what seals them. Tokens that a version before this one has kept in the clear are
/// sealed first.
pub(crate) async fn unlock(
    key: &KeySource,
    directory: &Path,
    session: &Session,
    kept: Kept,
) -> Result<Option<(Safe, Credentials)>> {
    let sealed = match kept {
        Kept::Ended => return Ok(None),
        Kept::Leaving(..) | Kept::Left(_) => return kept.refuse_moved(directory, session).map(|()| None),
        Kept::Sealed(sealed) => sealed,
        Kept::Plain(_) => {
            let _locked = lock(directory).await?;
            return seal_old(key, directory, session).await;
        }
    };
    let (vault, text) = opened(key, directory, session, &sealed).await?;
    let safe = Safe::of(vault, key.clone());
    Ok(Some((safe, parsed(&text, session, directory)?)))
}

/// The same for who holds the lock.
#[cfg(feature = "sqlite")]
pub(crate) async fn unlock_held(
    key: &KeySource,
    directory: &Path,
    session: &Session,
    kept: Kept,
) -> Result<Option<(Safe, Credentials)>> {
    match kept {
        Kept::Plain(_) => seal_old(key, directory, session).await,
        kept => unlock(key, directory, session, kept).await,
    }
}

/// The caller holds the lock.
async fn seal_old(key: &KeySource, directory: &Path, session: &Session) -> Result<Option<(Safe, Credentials)>> {
    let safe = Safe::create(key.clone()).await?;
    // Another process may have renewed or sealed them meanwhile.
    let Some((found, kept)) = find(directory)?.filter(|(found, _)| found == session) else {
        return Ok(None);
    };
    let Some(credentials) = safe.read(directory, &found, kept).await? else {
        return Ok(None);
    };
    safe.save(directory, &found, &credentials)?;
    tracing::info!("the tokens of the login are sealed from now on");
    Ok(Some((safe, credentials)))
}

/// Of what is sealed with one key or with two: what this key opens.
async fn opened(
    key: &KeySource,
    directory: &Path,
    session: &Session,
    sealed: &[Vec<u8>],
) -> Result<(Vault, Zeroizing<Vec<u8>>)> {
    let mut last = damaged(directory);
    for sealed in sealed {
        match Vault::open(key, &context(session), sealed).await {
            Ok(opened) => return Ok(opened),
            Err(error) => last = corrupt(error, directory),
        }
    }
    Err(last)
}

fn corrupt(error: StoreError, directory: &Path) -> Error {
    match error {
        StoreError::Corrupt { .. } => damaged(directory),
        other => other.into(),
    }
}

/// serde_json's error would quote what holds the tokens.
fn parsed(text: &[u8], session: &Session, directory: &Path) -> Result<Credentials> {
    let written = serde_json::from_slice::<Written>(text).ok();
    written
        .and_then(|written| written.credentials(session))
        .ok_or_else(|| damaged(directory))
}

//! The login in its directory: a file that says who, and that holds the tokens sealed with the store's key.
//!
//! # Why not in the store
//! A store has one user at a time, and the login is needed beside it: to end it, and to fetch files, while another process
//! sends and receives. What seals the tokens is opened by the same key as the store, without it.

use std::{path::Path, sync::Arc};

use mx_crypto_store::{KeySource, StoreError, Vault};
use zeroize::Zeroizing;

use super::{Credentials, Kept, Session, context, credentials::Written, damaged, find, lock, save};
use crate::{Error, Result};

/// What opens and seals the tokens of one login. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Safe {
    vault: Arc<Vault>,
    key: KeySource,
}

impl Safe {
    /// A new one, for a login that is being made.
    pub(crate) async fn create(key: KeySource) -> Result<Self> {
        Ok(Self {
            vault: Arc::new(Vault::create(&key).await?),
            key,
        })
    }

    /// Replace the login of a directory. Durable when it returns.
    pub(crate) fn save(&self, directory: &Path, session: &Session, credentials: &Credentials) -> Result<()> {
        let text = serde_json::to_vec(&credentials.written()).map(Zeroizing::new);
        let text = text.map_err(|_| damaged(directory))?;
        let sealed = self.vault.seal(&context(session), &text)?;
        save(directory, session, &Kept::Sealed(sealed))
    }

    /// The credentials of what a directory holds. `None`: the login was ended.
    pub(crate) async fn read(&self, directory: &Path, session: &Session, kept: Kept) -> Result<Option<Credentials>> {
        let text = match kept {
            Kept::Ended => return Ok(None),
            Kept::Plain(written) => return written.credentials(session).map(Some).ok_or_else(|| damaged(directory)),
            Kept::Sealed(sealed) => match self.vault.reopen(&context(session), &sealed) {
                // A login that was made anew beside us.
                Ok(None) => opened(&self.key, directory, session, &sealed).await?.1,
                Ok(Some(text)) => text,
                Err(error) => return Err(corrupt(error, directory)),
            },
        };
        parsed(&text, session, directory).map(Some)
    }
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
        Kept::Sealed(sealed) => sealed,
        Kept::Plain(_) => return seal_old(key, directory, session).await,
    };
    let (vault, text) = opened(key, directory, session, &sealed).await?;
    let safe = Safe {
        vault: Arc::new(vault),
        key: key.clone(),
    };
    Ok(Some((safe, parsed(&text, session, directory)?)))
}

async fn seal_old(key: &KeySource, directory: &Path, session: &Session) -> Result<Option<(Safe, Credentials)>> {
    let safe = Safe::create(key.clone()).await?;
    let _locked = lock(directory).await?;
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

async fn opened(
    key: &KeySource,
    directory: &Path,
    session: &Session,
    sealed: &[u8],
) -> Result<(Vault, Zeroizing<Vec<u8>>)> {
    let opened = Vault::open(key, &context(session), sealed).await;
    opened.map_err(|error| corrupt(error, directory))
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

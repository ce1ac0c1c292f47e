//! Another key for the store of a login, and for its tokens, which are sealed beside it.
//!
//! # Order
//! 1. The new key is on the disk. The tokens are sealed with both keys, in one file that is replaced as a whole.
//! 2. The store takes the new key, in one commit.
//! 3. The key file takes its name, and the tokens are sealed with the new key only.
//!
//! Whoever dies between two steps leaves a key that opens the store, and tokens that this key opens. Nobody renews the
//! tokens meanwhile: their lock is held.

use std::path::Path;

use mx_crypto_store::{KeySource, PickleStore};

use super::{Kept, Session, find, keeper::lock, safe, save};
use crate::{Error, Result};

/// Give `store`, which `from` opens, the key `to`, and the login of the directory with it.
pub(crate) async fn rekey(directory: &Path, store: &PickleStore, from: &KeySource, to: &KeySource) -> Result<Session> {
    let gone = || Error::NotLoggedIn {
        directory: directory.to_owned(),
    };
    let (session, kept) = find(directory)?.ok_or_else(gone)?;
    let (safe, _) = safe::unlock(from, directory, &session, kept).await?.ok_or_else(gone)?;
    let _locked = lock(directory).await?;
    // As they are now: another process may have renewed them until it was our turn.
    let (session, kept) = find(directory)?
        .filter(|(found, _)| *found == session)
        .ok_or_else(gone)?;
    let credentials = safe.read(directory, &session, kept).await?.ok_or_else(gone)?;
    let mut next = None;
    store
        .sealed()
        .rekey_with(to, |key| {
            next = Some(safe::save_for_both(directory, &session, (&safe, &credentials), key)?);
            Ok::<(), Error>(())
        })
        .await?;
    if let Some(next) = next {
        save(directory, &session, &Kept::Sealed(vec![next]))?;
    }
    Ok(session)
}

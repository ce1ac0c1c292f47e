//! Another key for the store of a login that is kept in a directory.

use std::sync::Arc;

use mx_crypto_store::KeySource;

use super::{ClientBuilder, existing_store, not_logged_in};
use crate::{Error, Result, Session, session};

impl ClientBuilder {
    /// Give the store of the directory another key, as after somebody saw the one that it has: `to`, or a new one in the
    /// file that it has now. The tokens of the login, which are sealed beside the store, are opened by it too. What was
    /// copied before opens with the former key for ever.
    ///
    /// A call that was dropped, or whose process died, has done it or has not: the directory opens with one of the two keys,
    /// and with a key file in either case.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, store::{KeySource, Passphrase}};
    ///
    /// let profile = || Client::builder().directory("/var/lib/mybot");
    /// // A new key in the file that there is.
    /// profile().rekey(None).await?;
    /// // A passphrase instead of a file, which opens the login from then on.
    /// let passphrase = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
    /// profile().rekey(Some(passphrase.clone())).await?;
    /// let bot = profile().key(passphrase).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`], [`Error::StoreLost`], [`Error::Moved`]; [`Error::Configuration`] without `to` where the key is
    /// not in a file; of the store: in use, wrong key; of the new key, and nothing has changed then.
    pub async fn rekey(self, to: Option<KeySource>) -> Result<Session> {
        let directory = self.kept_in()?;
        if session::find(directory)?.is_none() {
            return Err(not_logged_in(directory));
        }
        let (backend, key) = match &self.backend {
            Some((backend, key)) => (Arc::clone(backend), key.clone()),
            None => self.own_backend().await?,
        };
        let to = match (to, &key) {
            (Some(to), _) => to,
            (None, KeySource::File(_)) => key.clone(),
            (None, _) => {
                return Err(Error::Configuration {
                    what: "a new key is made in a file: where the key comes from elsewhere, say which one is next"
                        .to_owned(),
                });
            }
        };
        let store = existing_store(directory, backend, &key).await?;
        let done = session::rekey(directory, &store, &key, &to).await;
        let closed = store.shutdown().await;
        let session = done?;
        closed?;
        Ok(session)
    }
}

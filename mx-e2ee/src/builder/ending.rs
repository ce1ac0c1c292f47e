//! The end of a login whose store is not open.

use super::{ClientBuilder, not_logged_in};
use crate::{Error, Result, Session, client, session};

impl ClientBuilder {
    /// End the login of the directory, also when its store is in use or cannot be opened. As
    /// [`Client::logout`](crate::Client::logout). The key is needed, which opens the tokens.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// // From another process than the bot's, which holds the store: its next request is refused.
    /// let ended = Client::builder().directory("/var/lib/mybot").logout().await?;
    /// println!("{} of {} is no device any more", ended.device_id, ended.user_id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`]; of the request; of the key: where it is lost, the login can only be
    /// [forgotten](Self::forget).
    pub async fn logout(self) -> Result<Session> {
        let directory = self.kept_in()?;
        let held = self.held(directory).await?;
        if let Some(homeserver) = &held.homeserver {
            client::end_login(homeserver).await?;
        }
        let _locked = session::lock(directory).await?;
        if session::is_here(directory, &held.session)? {
            session::mark_ended(directory, &held.session);
            session::forget(directory, &held.session)?;
        }
        Ok(held.session)
    }

    /// Forget the login of the directory here, without telling the homeserver, as when its key is lost: the device stays
    /// there until it is deleted elsewhere. Its store is put aside.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Client;
    ///
    /// let login = || Client::builder().directory("/var/lib/mybot");
    /// if let Err(error) = login().logout().await {
    ///     let left = login().forget().await?;
    ///     println!("delete {} elsewhere, it could not be done here: {error}", left.device_id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`]; of the directory.
    pub async fn forget(self) -> Result<Session> {
        let directory = self.kept_in()?;
        let login = || session::find(directory)?.ok_or_else(|| not_logged_in(directory));
        login()?;
        let _locked = session::lock(directory).await?;
        // Another process may have changed it, as long as it was not held.
        let (session, kept) = login()?;
        if let session::Kept::Leaving(..) = kept {
            // It may be all that there is of the device.
            kept.refuse_moved(directory, &session)?;
        }
        session::forget(directory, &session)?;
        Ok(session)
    }

    /// End the login of the directory and destroy its store and key, as
    /// [`Client::logout_and_wipe`](crate::Client::logout_and_wipe), also when the store cannot be opened. Where the device was
    /// moved away, only what it left here is destroyed. Where there is no login any more, what earlier logouts put aside is
    /// destroyed: `None`. A store without a login stays, since its device may be logged in.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// match mx_e2ee::Client::builder().directory("/var/lib/mybot").logout_and_wipe().await? {
    ///     Some(login) => println!("{} is gone, and its keys with it", login.device_id),
    ///     None => println!("there was no login any more, and its rest is gone"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotLoggedIn`] when nothing is left to be destroyed; of the request, and nothing is destroyed then.
    pub async fn logout_and_wipe(self) -> Result<Option<Session>> {
        let directory = self.kept_in()?;
        let left = || {
            let found = session::find(directory)?.filter(|(_, kept)| matches!(kept, session::Kept::Left(_)));
            Ok::<_, Error>(found.map(|(session, _)| session))
        };
        if let Some(before) = left()? {
            // The device is somewhere else, and goes on there: unless it came back meanwhile.
            let _locked = session::lock(directory).await?;
            if left()?.as_ref() == Some(&before) {
                session::destroy(directory)?;
                return Ok(Some(before));
            }
        }
        let held = match self.held(directory).await {
            Err(Error::NotLoggedIn { .. }) if session::destroy_aside(directory)? => return Ok(None),
            held => held?,
        };
        if let Some(homeserver) = &held.homeserver {
            client::end_login_surely(homeserver).await?;
        }
        let _locked = session::lock(directory).await?;
        if session::is_here(directory, &held.session)? {
            session::mark_ended(directory, &held.session);
            session::destroy(directory)?;
        } else {
            // Another process put it aside.
            session::destroy_aside(directory)?;
        }
        Ok(Some(held.session))
    }
}

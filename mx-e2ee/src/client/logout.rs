//! The end of a login: on the homeserver first, then here.

use mx_transport::{Homeserver, RequestError};

use crate::{Client, Result, session};

impl Client {
    /// Delete this device on the homeserver and forget the login here. The store, which is of no more use, is put aside
    /// into the directory's `logged-out`: a new login starts with an empty one.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // `close` would leave the device as it is, for the next start. This ends it.
    /// client.logout().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request. A token that is not valid any more is no error.
    pub async fn logout(self) -> Result<()> {
        end_login(self.homeserver()).await?;
        let (session, directory) = (self.0.session.clone(), self.0.directory.clone());
        self.close().await?;
        match directory {
            Some(directory) => {
                let _locked = session::lock(&directory).await?;
                session::mark_ended(&directory, &session);
                session::forget(&directory, &session)
            }
            None => Ok(()),
        }
    }

    /// Delete this device on the homeserver, forget the login here, and destroy what it leaves in the directory: the key,
    /// then the store, and what earlier logouts put aside. Whatever stops it, the same again ends it.
    ///
    /// What is destroyed is unlinked, and not overwritten, which on today's disks is no promise: only a disk that is
    /// encrypted as a whole makes sure that nobody finds it. A key that is not in the directory, and an engine that the app
    /// brought, are the app's to destroy.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let (user, device) = (client.user_id().to_owned(), client.device_id().to_owned());
    /// match client.logout_and_wipe().await {
    ///     Ok(()) => println!("{user} has no device {device} any more, and its keys are gone from here"),
    ///     Err(error) => println!("nothing is destroyed, try again [{}]: {error}", error.code()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, and nothing is destroyed then. A token that expired is one too (`soft_logged_out`): the device is
    /// still there, and can log in again. One that was ended is no error.
    pub async fn logout_and_wipe(self) -> Result<()> {
        end_login_surely(self.homeserver()).await?;
        let (session, directory) = (self.0.session.clone(), self.0.directory.clone());
        self.close().await?;
        let Some(directory) = directory else { return Ok(()) };
        let _locked = session::lock(&directory).await?;
        session::mark_ended(&directory, &session);
        session::destroy(&directory)
    }
}

/// End the login on the homeserver. One that was ended already is no error.
pub(crate) async fn end_login(homeserver: &Homeserver) -> Result<()> {
    match homeserver.log_out().await {
        Ok(_) | Err(RequestError::LoggedOut { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same, and after it the device is not on the homeserver: a token that only expired is an error.
pub(crate) async fn end_login_surely(homeserver: &Homeserver) -> Result<()> {
    match homeserver.log_out().await {
        Ok(_) | Err(RequestError::LoggedOut { soft: false }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

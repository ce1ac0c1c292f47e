//! By OAuth 2.0: a person types a code elsewhere.

use mx_transport::{ClientRegistration, DeviceAuthorization, Homeserver, OAuthClient, OAuthError, RequestError};
use ruma::{DeviceId, OwnedDeviceId, api::client::account::whoami};

use super::{is_of_another_device, known_device};
use crate::{
    Client, ClientBuilder, Error, Result,
    session::{Credentials, Kind},
};

impl ClientBuilder {
    /// Log in by OAuth 2.0: `show` is given a code and the page where a person types it, on any device; then this waits until
    /// that is done. With a store that was used before, the same device logs in again.
    ///
    /// `registration` is what the person is told about us. The name that the authorization server gives us is kept with the
    /// login, and used again.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, transport::ClientRegistration};
    ///
    /// let us = ClientRegistration::new("My bot", "https://example.org/mybot");
    /// let builder = Client::builder().homeserver("example.org").directory("/var/lib/mybot");
    /// let login = builder.login_with_oauth(us, |code| println!("type {} at {}", code.user_code, code.verification_uri));
    /// println!("{} is logged in", login.await?.user_id());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::OAuth`], [`Error::AlreadyLoggedIn`], [`Error::DeviceDeleted`]; of the request, of the store.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nobody is logged in, unless the code was typed at that very moment.
    pub async fn login_with_oauth(
        self,
        registration: ClientRegistration,
        show: impl FnOnce(&DeviceAuthorization) + Send,
    ) -> Result<Client> {
        let known = self.known_client().await;
        let prepared = self.prepare_login().await?;
        let homeserver = prepared.homeserver.clone();
        let device = known_device(&prepared.store).await?.unwrap_or_else(DeviceId::new);
        let (client, waiting) = begin(&homeserver, known, &registration, &device).await?;
        show(&waiting);
        let tokens = homeserver.finish_device_authorization(&client, waiting).await?;
        let credentials = Credentials {
            tokens,
            kind: Kind::OAuth(client),
        };
        credentials.clone().give_to(&homeserver, None);
        let who = homeserver.send(whoami::v3::Request::new()).await?;
        if who.device_id.as_ref() != Some(&device) {
            super::end_unused(&homeserver).await;
            return Err(Error::OAuth(OAuthError::OtherDevice));
        }
        let finished = self.finish(prepared, who.user_id, device, credentials).await;
        if is_of_another_device(&finished) {
            super::end_unused(&homeserver).await;
        }
        finished
    }

    /// Our name of an earlier login of the directory.
    async fn known_client(&self) -> Option<OAuthClient> {
        self.held(self.directory.as_deref()?).await.ok()?.oauth
    }
}

/// Begin a login under a name that we have, or under a new one where the server does not know it any more.
async fn begin(
    homeserver: &Homeserver,
    known: Option<OAuthClient>,
    registration: &ClientRegistration,
    device: &OwnedDeviceId,
) -> Result<(OAuthClient, DeviceAuthorization)> {
    let server = homeserver.authorization_server().await?;
    if !server.offers_device_codes() {
        return Err(OAuthError::Unsupported { what: "device codes" }.into());
    }
    if let Some(client) = known.filter(|client| client.issuer == server.issuer()) {
        match homeserver.begin_device_authorization(&client, device.clone()).await {
            Err(OAuthError::Request(RequestError::Api {
                errcode: Some(code), ..
            })) if matches!(code.as_str(), "invalid_client" | "unauthorized_client") => {}
            begun => return Ok((client, begun?)),
        }
    }
    let client = homeserver.register_oauth_client(registration).await?;
    let waiting = homeserver.begin_device_authorization(&client, device.clone()).await?;
    Ok((client, waiting))
}

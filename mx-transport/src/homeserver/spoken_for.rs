//! A homeserver to whom an application service speaks for somebody.

use std::sync::{Arc, PoisonError, RwLock};

use http::header::AUTHORIZATION;
use ruma::{
    DeviceId, OwnedUserId,
    api::client::{
        account::register,
        device::update_device,
        session::login,
        uiaa::{MatrixUserIdentifier, UserIdentifier},
    },
};
use tokio::sync::OnceCell;

use super::{Authenticate, Call, Homeserver, Inner, PathInput, decode, endpoint, in_this_way, path, renew::bearer};
use crate::{AccessToken, Masquerade, RequestError, refresh::Login};

impl Homeserver {
    /// The same homeserver for another login: its transport and what is known of it are shared, its tokens are not.
    #[must_use]
    pub fn for_another_login(&self) -> Self {
        Self(Arc::new(Inner {
            base_url: self.0.base_url.clone(),
            transport: Arc::clone(&self.0.transport),
            login: Login::default(),
            versions: Arc::clone(&self.0.versions),
            authorization: OnceCell::new_with(self.0.authorization.get().cloned()),
            masquerade: RwLock::default(),
        }))
    }

    /// Speak as somebody else from now on, in all clones, with the token of an application service. The token is in a header,
    /// and who speaks is in the query of each request that carries it.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::{AccessToken, Masquerade};
    /// use ruma::{device_id, owned_user_id};
    ///
    /// let as_token = AccessToken::new("as_token")?;
    /// homeserver.register_by_appservice(&as_token, "bot.one").await?;
    /// let bot = homeserver.for_another_login();
    /// bot.masquerade(as_token, Masquerade::user(owned_user_id!("@bot.one:example.org")));
    /// bot.make_device(device_id!("ONE"), "bot one").await?;
    /// # Ok(()) }
    /// ```
    pub fn masquerade(&self, as_token: AccessToken, masquerade: Masquerade) {
        *self.0.masquerade.write().unwrap_or_else(PoisonError::into_inner) = Some(masquerade);
        self.set_access_token(as_token);
    }

    /// Speak as nobody else any more, and with no token.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nowhere = std::sync::Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// use mx_transport::{AccessToken, Homeserver, Masquerade};
    ///
    /// let homeserver = Homeserver::new("https://matrix.example.org", nowhere)?;
    /// let bot = homeserver.for_another_login();
    /// bot.masquerade(AccessToken::new("as_token")?, Masquerade::user(ruma::owned_user_id!("@bot.one:example.org")));
    /// assert_eq!(bot.masquerading().map(|as_whom| as_whom.user_id.to_string()).as_deref(), Some("@bot.one:example.org"));
    /// assert!(homeserver.masquerading().is_none(), "the other login speaks as itself");
    /// bot.stop_masquerading();
    /// assert!(bot.masquerading().is_none() && bot.access_token().is_none());
    /// # Ok(()) }
    /// ```
    pub fn stop_masquerading(&self) {
        *self.0.masquerade.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.clear_access_token();
    }

    /// As whom it speaks. `None`: as itself.
    #[must_use]
    pub fn masquerading(&self) -> Option<Masquerade> {
        self.0.masquerade.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Say as whom a request is made, if it carries our token.
    pub(super) fn assert_identity(&self, request: &mut http::Request<Vec<u8>>) -> Result<(), RequestError> {
        match self.masquerading() {
            Some(masquerade) if request.headers().contains_key(AUTHORIZATION) => {
                masquerade.assert(request).map_err(RequestError::build)
            }
            _ => Ok(()),
        }
    }

    /// Make the user that an application service speaks for. One that is there is no error.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver, as_token: mx_transport::AccessToken) -> Result<(), mx_transport::RequestError> {
    /// // The second time nothing happens.
    /// homeserver.register_by_appservice(&as_token, "bot.one").await?;
    /// homeserver.register_by_appservice(&as_token, "bot.one").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: of its codes, `exclusive` where the user is none of the application service's.
    pub async fn register_by_appservice(&self, as_token: &AccessToken, localpart: &str) -> Result<(), RequestError> {
        let mut request = register::v3::Request::new();
        request.login_type = Some(register::LoginType::ApplicationService);
        request.username = Some(localpart.to_owned());
        // A login that nobody asked for would be a device without keys.
        request.inhibit_login = true;
        match self.as_appservice(request, as_token).await {
            Ok(_) => Ok(()),
            Err(RequestError::Api {
                errcode: Some(code), ..
            }) if code == "M_USER_IN_USE" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Make a device of the user that we speak for (MSC4190). One that is there gets this name.
    ///
    /// ```no_run
    /// # async fn example(bot: mx_transport::Homeserver) -> Result<(), mx_transport::RequestError> {
    /// // It speaks for the user already, and as no device yet.
    /// match bot.make_device(ruma::device_id!("ONE"), "bot one").await {
    ///     Err(error) if error.code() == "not_found" => println!("log the user in instead"),
    ///     made => made?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: a homeserver that does not know this answers `not_found`, and the user is
    /// [logged in](Self::login_by_appservice) instead.
    pub async fn make_device(&self, device: &DeviceId, name: &str) -> Result<(), RequestError> {
        let mut request = update_device::v3::Request::new(device.to_owned());
        request.display_name = Some(name.to_owned());
        self.send(request).await.map(|_| ())
    }

    /// Log a user in whom an application service speaks for: the login has a token of its own.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver, as_token: mx_transport::AccessToken) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::AccessToken;
    /// use ruma::owned_user_id;
    ///
    /// // For a homeserver that makes no device otherwise: this one does not know MSC4190.
    /// let bot = homeserver.for_another_login();
    /// let login = homeserver.login_by_appservice(&as_token, owned_user_id!("@bot.one:example.org"), None, "bot one").await?;
    /// bot.set_access_token(AccessToken::new(login.access_token)?);
    /// println!("{} has the device {}", login.user_id, login.device_id);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn login_by_appservice(
        &self,
        as_token: &AccessToken,
        user: OwnedUserId,
        device: Option<&DeviceId>,
        name: &str,
    ) -> Result<login::v3::Response, RequestError> {
        let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(user.to_string()));
        let info = login::v3::LoginInfo::ApplicationService(login::v3::ApplicationService::new(user));
        let mut request = login::v3::Request::new(info);
        request.device_id = device.map(DeviceId::to_owned);
        request.initial_device_display_name = Some(name.to_owned());
        request.refresh_token = true;
        self.as_appservice(request, as_token).await
    }

    /// What a refusal means where we speak for somebody: the device is not gone with the token of an application service, and
    /// it is gone where the homeserver says that it does not know it.
    pub(super) fn meant(&self, error: RequestError) -> RequestError {
        if self.masquerading().is_none() {
            return error;
        }
        match error {
            RequestError::LoggedOut { .. } => RequestError::LoggedOut { soft: true },
            RequestError::Api {
                errcode: Some(code), ..
            } if code == "M_UNKNOWN_DEVICE" => RequestError::LoggedOut { soft: false },
            error => error,
        }
    }

    /// Send a request with the token of an application service, for which ruma has no place.
    async fn as_appservice<R>(&self, request: R, as_token: &AccessToken) -> Result<R::IncomingResponse, RequestError>
    where
        R: ruma::api::OutgoingRequest + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let versions = self.versions().await?;
        let endpoint = endpoint::<R>(&versions)?;
        let http = path::in_http(request, self.base_url(), None, &versions)?;
        let mut http = in_this_way(http, Call::default());
        http.headers_mut().insert(AUTHORIZATION, bearer(as_token)?);
        decode::<R>(self.once(http, endpoint).await?, endpoint)
    }
}

#[cfg(test)]
mod tests;

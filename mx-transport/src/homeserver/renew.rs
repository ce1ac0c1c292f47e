//! Our tokens: used, renewed a little before they expire or when they are refused, and never twice at a time.
//!
//! From the client-server API, "Refreshing access tokens": the refresh token stays valid until what was given for it is
//! used, so that a renewal whose answer was lost, or that a killed process did not keep, is repeated with the same one.
//!
//! # Why nothing loops
//! A request is sent again once with tokens that somebody else has renewed, and once with tokens that were renewed for
//! it. Whatever is answered then is the answer. A refresh token that was refused is not sent again.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use ruma::api::client::{
    device::delete_device,
    session::{logout, refresh_token::v3::Request as Refresh},
};

use super::{Call, Homeserver, decode, endpoint, until::Until};
use crate::{AccessToken, OAuthClient, RefreshToken, RequestError, TokenKeeper, Tokens};

/// What was done for one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Renewals {
    adopted: bool,
    renewed: bool,
}

/// Where the next token comes from.
enum Next {
    /// Somebody else has renewed it.
    Adopted(AccessToken),
    Renewed(AccessToken),
}

impl Homeserver {
    /// Use this token from now on, in all clones. It is not renewed.
    pub fn set_access_token(&self, token: AccessToken) {
        self.0.login.set(Some(token.into()), None, None);
    }

    /// Use these tokens from now on, in all clones, and renew them: a little before the access token expires, and when it
    /// is refused as unknown (`M_UNKNOWN_TOKEN`), after which the refused request is sent once more. One renewal runs at
    /// a time. New tokens are kept by `keeper` before they are used; without one they are in memory only.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nowhere = std::sync::Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// use std::time::Duration;
    /// use mx_transport::{AccessToken, Homeserver, RefreshToken, Tokens};
    ///
    /// let homeserver = Homeserver::new("https://matrix.example.org", nowhere)?;
    /// let (access, refresh) = (AccessToken::new("syt_one")?, RefreshToken::new("syr_one"));
    /// // Without a keeper a restart has the tokens of before, which are worth nothing then: for what ends with this process.
    /// homeserver.set_tokens(Tokens::lasting(access, Some(refresh), Some(Duration::from_secs(300))), None);
    /// assert!(homeserver.access_token().is_some());
    /// # Ok(()) }
    /// ```
    pub fn set_tokens(&self, tokens: Tokens, keeper: Option<Arc<dyn TokenKeeper>>) {
        self.0.login.set(Some(tokens), None, keeper);
    }

    /// The same for tokens of an authorization server, which renews them under this name of ours.
    pub fn set_oauth_tokens(&self, tokens: Tokens, client: OAuthClient, keeper: Option<Arc<dyn TokenKeeper>>) {
        self.0.login.set(Some(tokens), Some(client), keeper);
    }

    /// End the login: the device is deleted, and its tokens are worth nothing any more. Where an authorization server gave
    /// them, they are given back there; the token of an application service stays. The tokens stay in use here, until they are
    /// [forgotten](Self::clear_access_token).
    ///
    /// ```no_run
    /// # use mx_transport::{Homeserver, RequestError};
    /// # async fn example(homeserver: Homeserver) -> Result<(), RequestError> {
    /// match homeserver.log_out().await {
    ///     Ok(()) | Err(RequestError::LoggedOut { .. }) => homeserver.clear_access_token(),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: of its kinds, [`RequestError::LoggedOut`] says that there was no login any more.
    ///
    /// # Cancel safety
    /// Whether the login has ended is not known then; ending it again does no harm.
    pub async fn log_out(&self) -> Result<(), RequestError> {
        match (self.0.login.oauth(), self.0.login.held()) {
            (Some(client), Some((tokens, _))) => {
                // The newest tokens: another process may have renewed them, and the old ones are nobody's.
                let tokens = self.kept_tokens().await.unwrap_or(tokens);
                self.revoke_by_oauth(&client, &tokens).await
            }
            _ => match self.masquerading().and_then(|masquerade| masquerade.device_id) {
                // The token is that of all of them.
                Some(device) => self.send(delete_device::v3::Request::new(device)).await.map(|_| ()),
                None => self.send(logout::v3::Request::new()).await.map(|_| ()),
            },
        }
    }

    /// What the keeper has, which another process may have renewed.
    async fn kept_tokens(&self) -> Option<Tokens> {
        let (_, keeper) = self.0.login.held()?;
        keeper?.turn().await.ok()?.kept().await.ok().flatten()
    }

    /// Forget the tokens, in all clones.
    pub fn clear_access_token(&self) {
        self.0.login.set(None, None, None);
    }

    /// The access token in use.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let nowhere = std::sync::Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// use mx_transport::{AccessToken, Homeserver};
    ///
    /// let homeserver = Homeserver::new("https://matrix.example.org", nowhere)?;
    /// let clone = homeserver.clone();
    /// homeserver.set_access_token(AccessToken::new("syt_secret")?);
    /// assert_eq!(clone.access_token().as_ref().map(AccessToken::expose), Some("syt_secret"), "one login, however many clones");
    /// clone.clear_access_token();
    /// assert!(homeserver.access_token().is_none());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn access_token(&self) -> Option<AccessToken> {
        self.0.login.access()
    }

    /// Renew the access token, if it is about to expire. While it is valid a failure costs nothing but half of the time
    /// that there is: the old one stays in use.
    pub(crate) async fn renew_early(&self, until: Until) {
        if self.0.login.due().is_some() {
            // Boxed, since it is rare and would make every request larger.
            Box::pin(self.renew_due(until.half())).await;
        }
    }

    async fn renew_due(&self, until: Until) {
        let Ok(_renewing) = until.wait(self.0.login.renewing.lock()).await else {
            return;
        };
        // Another task may have done it meanwhile.
        let Some(due) = self.0.login.due() else { return };
        if let Err(error) = self.renew(&due, None, until).await {
            tracing::warn!(
                code = error.code(),
                "the access token is about to expire and was not renewed"
            );
            self.0.login.postpone(&due);
        }
    }

    /// What becomes of an answer. `None`: the request, which was refused and not processed, has another token now and is
    /// to be sent again.
    pub(super) async fn judge<B>(
        &self,
        answer: Result<http::Response<Bytes>, RequestError>,
        request: &mut http::Request<B>,
        renewals: &mut Renewals,
        until: Until,
    ) -> Result<Option<http::Response<Bytes>>, RequestError> {
        match answer.map_err(|error| self.meant(error)) {
            Err(refused @ RequestError::LoggedOut { .. }) if !renewals.renewed => {
                Box::pin(self.another_token(refused, request.headers_mut(), renewals, until)).await?;
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// Give a refused request another token.
    pub(crate) async fn another_token(
        &self,
        refused: RequestError,
        headers: &mut HeaderMap,
        renewals: &mut Renewals,
        until: Until,
    ) -> Result<(), RequestError> {
        let Some(used) = sent_token(headers).filter(|_| !renewals.renewed) else {
            return Err(refused);
        };
        let _renewing = until.wait(self.0.login.renewing.lock()).await?;
        let next = match self.0.login.access() {
            Some(access) if access.is(&used) => self.renew(&used, Some(refused), until).await?,
            Some(access) if !renewals.adopted => Next::Adopted(access),
            _ => return Err(refused),
        };
        let access = match next {
            Next::Adopted(access) => {
                renewals.adopted = true;
                access
            }
            Next::Renewed(access) => {
                renewals.renewed = true;
                access
            }
        };
        headers.insert(AUTHORIZATION, bearer(&access)?);
        Ok(())
    }

    /// Renew the tokens in use, of which the access token is `used`. `refused`: what was said to it.
    async fn renew(
        &self,
        used: &AccessToken,
        refused: Option<RequestError>,
        until: Until,
    ) -> Result<Next, RequestError> {
        let refused = refused.unwrap_or(RequestError::LoggedOut { soft: true });
        let Some((held, keeper)) = self.0.login.held() else {
            return Err(refused);
        };
        let not_kept = |source| RequestError::TokenNotKept { source };
        let mut turn = match &keeper {
            Some(keeper) => Some(keeper.turn().await.map_err(not_kept)?),
            None => None,
        };
        if let Some(turn) = &turn {
            match turn.kept().await.map_err(not_kept)? {
                None => return Err(refused),
                Some(kept) if !kept.access.is(used) => {
                    let access = kept.access.clone();
                    self.0.login.replace(used, kept);
                    return Ok(Next::Adopted(access));
                }
                Some(_) => {}
            }
        }
        let Some(refresh) = held.refresh else {
            return Err(refused);
        };
        let asked = match self.0.login.oauth() {
            // Not cut off: some authorization servers end a login whose refresh token comes a second time.
            Some(client) => self.refresh_by_oauth(&client, refresh).await,
            None => self.ask_for_tokens(refresh, until).await,
        };
        let tokens = match asked {
            Ok(tokens) => tokens,
            Err(error) if is_for_good(&error) => {
                self.0.login.forget_refresh_token(used);
                return Err(match error {
                    RequestError::LoggedOut { .. } => error,
                    // It says nothing of the device.
                    _ => refused,
                });
            }
            Err(error) => return Err(error),
        };
        if let Some(turn) = &mut turn {
            turn.keep(&tokens).await.map_err(not_kept)?;
        }
        let access = tokens.access.clone();
        self.0.login.replace(used, tokens);
        tracing::debug!("the access token was renewed");
        Ok(Next::Renewed(access))
    }

    /// What the homeserver gives for a refresh token. Sending it twice does no harm.
    async fn ask_for_tokens(&self, refresh: RefreshToken, until: Until) -> Result<Tokens, RequestError> {
        let versions = self.versions_by(until).await?;
        let endpoint = endpoint::<Refresh>(&versions)?;
        let request = self.head(Refresh::new(refresh.expose().to_owned()), &versions)?;
        let call = Call {
            deadline: until.left(),
            repeatable: true,
        };
        let answer = self.raw(request, call, endpoint).await?;
        // What is wrong with it could quote a token.
        let unreadable = || RequestError::Decode {
            endpoint,
            source: "it holds no token".into(),
        };
        let answer = decode::<Refresh>(answer, endpoint).map_err(|_| unreadable())?;
        let access = AccessToken::new(answer.access_token).map_err(|_| unreadable())?;
        // Without a new one the old one goes on.
        let refresh = answer.refresh_token.map_or(refresh, RefreshToken::new);
        Ok(Tokens::lasting(access, Some(refresh), answer.expires_in_ms))
    }
}

/// Whether the homeserver, and not the network or something before it, has refused a refresh token.
fn is_for_good(error: &RequestError) -> bool {
    match error {
        RequestError::LoggedOut { .. } => true,
        RequestError::Api { status, errcode, .. } => {
            status.is_client_error() && !matches!(status.as_u16(), 408 | 429) && errcode.is_some()
        }
        _ => false,
    }
}

/// The access token that a request was sent with.
fn sent_token(headers: &HeaderMap) -> Option<AccessToken> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    AccessToken::new(value.strip_prefix("Bearer ")?).ok()
}

pub(crate) fn bearer(access: &AccessToken) -> Result<HeaderValue, RequestError> {
    let mut value =
        HeaderValue::try_from(format!("Bearer {}", access.expose())).map_err(|_| RequestError::NoAccessToken)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;

//! The token as a wrapper: for who sends requests by hand, and has one login.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Uri, header::AUTHORIZATION};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    Homeserver, RequestError, TokenKeeper, Tokens, Transport, UrlError,
    homeserver::{Renewals, Until, bearer},
    layer::{Answer, Job, Layer, transport},
};

/// A transport that gives requests our access token, and renews it: a little before it expires, and when it is refused as
/// unknown (`M_UNKNOWN_TOKEN`), after which the refused request is sent once more. One renewal runs at a time.
///
/// The token goes to the client API of one homeserver, in a header, and nowhere else; a request that has an
/// `Authorization` of its own keeps it. An answer that still refuses the token is given as it came: its `soft_logout`
/// tells whether the device goes on after another login.
///
/// [`Homeserver`] does the same itself, for many logins on one transport, and needs no such wrapper; the one
/// [inside](Self::homeserver) shares the login with the requests that are sent by hand.
///
/// ```no_run
/// # use mx_transport::{AccessToken, Retry, TokenRefresh, Transport};
/// # async fn example(client: impl Transport + 'static, token: AccessToken) -> Result<(), Box<dyn std::error::Error>> {
/// # use bytes::Bytes;
/// let transport = TokenRefresh::new("https://matrix.example.org", Retry::new(client), token.into(), None)?;
/// let whoami = http::Request::get("https://matrix.example.org/_matrix/client/v3/account/whoami").body(Bytes::new())?;
/// println!("{}", transport.send(whoami).await?.status());
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// As [`Transport::send`]. Tokens that a renewal brought before it was dropped are kept or not, and the old refresh token
/// is tried again then (client-server API, "Refreshing access tokens").
#[derive(Debug)]
pub struct TokenRefresh<T> {
    inner: Arc<T>,
    homeserver: Homeserver,
}

impl<T: Transport + 'static> TokenRefresh<T> {
    /// Requests to the homeserver at `base_url` are sent with these tokens. Renewed ones are kept by `keeper` before they
    /// are used; without one they are in memory only.
    ///
    /// # Errors
    /// [`UrlError`], as [`Homeserver::new`].
    pub fn new(
        base_url: &str,
        inner: T,
        tokens: Tokens,
        keeper: Option<Arc<dyn TokenKeeper>>,
    ) -> Result<Self, UrlError> {
        let inner = Arc::new(inner);
        let homeserver = Homeserver::new(base_url, Arc::clone(&inner) as Arc<dyn Transport>)?;
        homeserver.set_tokens(tokens, keeper);
        Ok(Self { inner, homeserver })
    }

    /// The homeserver, with this login: for requests of ruma, for tokens of an authorization server, and to log out.
    #[must_use]
    pub const fn homeserver(&self) -> &Homeserver {
        &self.homeserver
    }

    /// Whether our token belongs into this request.
    fn is_ours(&self, job: &Job<'_>) -> bool {
        !job.headers().contains_key(AUTHORIZATION) && is_client_api_of(self.homeserver.base_url(), job.uri())
    }
}

transport!(TokenRefresh: 'static);

#[async_trait]
impl<T: Transport + 'static> Layer for TokenRefresh<T> {
    fn inner(&self) -> &dyn Transport {
        &*self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        if !self.is_ours(job) {
            return job.run(&self.inner).await;
        }
        let mut since = Instant::now();
        let until = job.time_left().map_or_else(Until::default, Until::in_at_most);
        self.homeserver.renew_early(until).await;
        let Some(access) = self.homeserver.access_token() else {
            return job.run(&self.inner).await;
        };
        let Ok(value) = bearer(&access) else {
            return job.run(&self.inner).await;
        };
        job.headers_mut().insert(AUTHORIZATION, value);
        let mut renewals = Renewals::default();
        loop {
            job.spend(since.elapsed());
            since = Instant::now();
            let answer = job.run(&self.inner).await?;
            let Some(refused) = refused(&answer) else {
                return Ok(answer);
            };
            let another = self
                .homeserver
                .another_token(refused, job.headers_mut(), &mut renewals, until);
            if let Err(error) = another.await {
                tracing::warn!(
                    code = error.code(),
                    "the access token was refused, and there is no other one"
                );
                // What the homeserver said of the request tells more than why there is no other token.
                return Ok(answer);
            }
        }
    }
}

/// What an answer says of the token, if it refuses it.
fn refused(answer: &http::Response<bytes::Bytes>) -> Option<RequestError> {
    #[derive(Deserialize)]
    struct Body {
        errcode: String,
        #[serde(default)]
        soft_logout: bool,
    }
    if answer.status() != http::StatusCode::UNAUTHORIZED {
        return None;
    }
    let body: Body = serde_json::from_slice(answer.body()).ok()?;
    (body.errcode == "M_UNKNOWN_TOKEN").then_some(RequestError::LoggedOut { soft: body.soft_logout })
}

/// Whether this is an address of the client API at `base`.
fn is_client_api_of(base: &str, uri: &Uri) -> bool {
    let (Ok(base), Ok(url)) = (url::Url::parse(base), url::Url::parse(&uri.to_string())) else {
        return false;
    };
    let path = url.path().strip_prefix(base.path().trim_end_matches('/'));
    url.origin() == base.origin()
        && path.is_some_and(|path| path.starts_with("/_matrix/client/") || path.starts_with("/_matrix/media/"))
}

#[cfg(test)]
mod tests;

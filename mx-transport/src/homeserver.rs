//! A homeserver: its address, our token, what it supports, and typed requests to it.

mod answers;
mod inputs;
mod interactive;
mod media;
mod oauth;
mod path;
mod renew;
mod spoken_for;
mod until;
mod versions;

use std::{
    borrow::Cow,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, RwLock},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ruma::api::{Metadata, OutgoingRequest, SupportedVersions};
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::Url;

pub use self::inputs::{Authenticate, PathInput};
use self::{answers::decode, versions::Versions};
pub(crate) use self::{
    renew::{Renewals, bearer},
    until::Until,
};
use crate::{
    AuthorizationServer, Endpoint, Idempotent, Masquerade, RequestError, Transport, TransportError, TransportErrorKind,
    refresh::Login, retry::named_pause,
};

/// What a homeserver says about an error is cut to this many characters: two one-time keys fit, which Synapse quotes.
const MAX_MESSAGE_CHARS: usize = 2_000;

/// How one request is sent.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use mx_transport::Call;
/// use ruma::api::client::keys::get_keys;
///
/// // A POST that only reads, and that nobody waits long for.
/// let call = Call::repeatable().within(Duration::from_secs(10));
/// let keys = homeserver.send_with(get_keys::v3::Request::new(), call).await?;
/// # drop(keys);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Call {
    /// How long it may take, with what is asked before it and with a renewal of the access token. `None`: the transport
    /// decides.
    pub deadline: Option<Duration>,
    /// Sending it twice does no harm, although its method does not say so.
    pub repeatable: bool,
}

impl Call {
    /// Sending it twice does no harm.
    #[must_use]
    pub const fn repeatable() -> Self {
        Self {
            deadline: None,
            repeatable: true,
        }
    }

    /// It may take this long.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// A homeserver. Cheap to clone; all clones share the tokens.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use mx_transport::{AccessToken, Homeserver, Transport};
/// # async fn example(transport: Arc<dyn Transport>) -> Result<(), Box<dyn std::error::Error>> {
/// use ruma::api::client::account::whoami;
///
/// let homeserver = Homeserver::new("https://matrix.example.org", transport)?;
/// homeserver.set_access_token(AccessToken::new("syt_…")?);
/// println!("{}", homeserver.send(whoami::v3::Request::new()).await?.user_id);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Homeserver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base_url: Url,
    transport: Arc<dyn Transport>,
    login: Login,
    versions: Arc<Versions>,
    authorization: OnceCell<Arc<AuthorizationServer>>,
    masquerade: RwLock<Option<Masquerade>>,
}

/// This is not the address of a homeserver.
///
/// ```no_run
/// # use std::sync::Arc;
/// # fn example(transport: Arc<dyn mx_transport::Transport>) {
/// let error = mx_transport::Homeserver::new("matrix.example.org", transport).unwrap_err();
/// println!("{error}"); // "matrix.example.org" is not the address of a homeserver: it is like https://…
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the address of a homeserver: it is like https://matrix.example.org")]
pub struct UrlError {
    given: String,
}

impl Homeserver {
    /// The homeserver at `base_url`, reached through `transport`. Nothing is sent.
    ///
    /// # Errors
    /// [`UrlError`] when it is not an `http` or `https` URL of a host, or holds a user, a password or a query.
    pub fn new(base_url: &str, transport: Arc<dyn Transport>) -> Result<Self, UrlError> {
        let parsed = Url::parse(base_url.trim()).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        // What was given may hold a password: only its beginning is shown, and only when it cannot.
        let shown = if base_url.contains('@') || base_url.contains('?') {
            "<hidden>"
        } else {
            base_url
        };
        let base_url = parsed.ok_or_else(|| UrlError {
            given: shown.chars().take(100).collect(),
        })?;
        Ok(Self(Arc::new(Inner {
            base_url,
            transport,
            login: Login::default(),
            versions: Arc::default(),
            authorization: OnceCell::new(),
            masquerade: RwLock::default(),
        })))
    }

    /// The address, without a slash at its end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.0.base_url.as_str().trim_end_matches('/')
    }

    /// Send a request and read its answer.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange; whether the homeserver processed it is not known then.
    pub async fn send<R>(&self, request: R) -> Result<R::IncomingResponse, RequestError>
    where
        R: OutgoingRequest + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        self.send_with(request, Call::default()).await
    }

    /// Send a request in a certain way and read its answer.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_with<R>(&self, request: R, call: Call) -> Result<R::IncomingResponse, RequestError>
    where
        R: OutgoingRequest + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let until = Until::of(call);
        let versions = self.versions_by(until).await?;
        let endpoint = endpoint::<R>(&versions)?;
        let response = self.exchange_at(request, call, until, &versions, endpoint).await?;
        decode::<R>(response, endpoint)
    }

    /// Send a request and return its answer as it came, if it is a 2xx.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::Call;
    /// use ruma::api::client::discovery::get_capabilities;
    ///
    /// // Also what ruma has no field for.
    /// let answer = homeserver.exchange(get_capabilities::v3::Request::new(), Call::default()).await?;
    /// let json: serde_json::Value = serde_json::from_slice(answer.body())?;
    /// println!("{}", json["capabilities"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`], but never `Decode`.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn exchange<R>(&self, request: R, call: Call) -> Result<http::Response<Bytes>, RequestError>
    where
        R: OutgoingRequest + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let until = Until::of(call);
        let versions = self.versions_by(until).await?;
        let endpoint = endpoint::<R>(&versions)?;
        self.exchange_at(request, call, until, &versions, endpoint).await
    }

    async fn exchange_at<R>(
        &self,
        request: R,
        call: Call,
        until: Until,
        versions: &SupportedVersions,
        endpoint: &'static str,
    ) -> Result<http::Response<Bytes>, RequestError>
    where
        R: OutgoingRequest + Send + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        if R::Authentication::REQUIRED {
            self.renew_early(until).await;
        }
        let mut http = in_this_way(self.head(request, versions)?, call);
        let mut renewals = Renewals::default();
        loop {
            until.tell(http.extensions_mut());
            let answer = self.once(http.clone(), endpoint).await;
            if let Some(answer) = self.judge(answer, &mut http, &mut renewals, until).await? {
                return Ok(answer);
            }
        }
    }

    /// The request in HTTP, with our token where it belongs.
    fn head<R>(&self, request: R, versions: &SupportedVersions) -> Result<http::Request<Vec<u8>>, RequestError>
    where
        R: OutgoingRequest + 'static,
        R::Authentication: Authenticate,
        R::PathBuilder: PathInput,
    {
        let token = self.access_token();
        if R::Authentication::REQUIRED && token.is_none() {
            return Err(RequestError::NoAccessToken);
        }
        let mut request = path::in_http(request, self.base_url(), token.as_ref(), versions)?;
        if let Some(token) = request.headers_mut().get_mut(AUTHORIZATION) {
            // Who prints a request does not print it.
            token.set_sensitive(true);
        }
        self.assert_identity(&mut request)?;
        Ok(request)
    }

    async fn raw(
        &self,
        request: http::Request<Vec<u8>>,
        call: Call,
        endpoint: &'static str,
    ) -> Result<http::Response<Bytes>, RequestError> {
        let mut request = in_this_way(request, call);
        Until::of(call).tell(request.extensions_mut());
        self.once(request, endpoint).await
    }

    async fn once(
        &self,
        mut request: http::Request<Bytes>,
        endpoint: &'static str,
    ) -> Result<http::Response<Bytes>, RequestError> {
        request.extensions_mut().insert(Endpoint(endpoint));
        accepted(caught(self.0.transport.send(request)).await, endpoint)
    }
}

/// An answer of 2xx.
fn accepted(
    answer: Result<http::Response<Bytes>, TransportError>,
    endpoint: &'static str,
) -> Result<http::Response<Bytes>, RequestError> {
    let response = answer?;
    if response.status().is_success() {
        Ok(response)
    } else {
        Err(refusal(&response, endpoint))
    }
}

/// A request with what its transport is told about it, but for its end.
fn in_this_way(request: http::Request<Vec<u8>>, call: Call) -> http::Request<Bytes> {
    let mut request = request.map(Bytes::from);
    request
        .headers_mut()
        .entry(HeaderName::from_static("accept"))
        .or_insert(HeaderValue::from_static("application/json"));
    if call.repeatable {
        request.extensions_mut().insert(Idempotent);
    }
    request
}

/// A transport that panics has broken the connection, and nothing else: what the caller holds stays in order.
async fn caught<T>(call: impl Future<Output = Result<T, TransportError>> + Send) -> Result<T, TransportError> {
    let mut call = pin!(call);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(_) => {
                tracing::error!("the transport panicked");
                let error = TransportError::with_source(TransportErrorKind::Interrupted, "the transport panicked");
                Poll::Ready(Err(error))
            }
        },
    )
    .await
}

/// The path of an endpoint with the names of its parameters: what an error may show.
fn endpoint<R>(versions: &SupportedVersions) -> Result<&'static str, RequestError>
where
    R: Metadata,
    R::PathBuilder: PathInput,
{
    use ruma::api::path_builder::PathBuilder;
    R::PATH_BUILDER
        .select_path(R::PathBuilder::input(Cow::Borrowed(versions)))
        .map_err(RequestError::build)
}

/// What a status that is not 2xx means.
fn refusal(response: &http::Response<Bytes>, endpoint: &'static str) -> RequestError {
    #[derive(Default, Deserialize)]
    struct Body {
        errcode: Option<String>,
        #[serde(default)]
        error: String,
        #[serde(default)]
        soft_logout: bool,
    }
    let body: Body = serde_json::from_slice(response.body()).unwrap_or_default();
    if response.status().as_u16() == 401 && body.errcode.as_deref() == Some("M_UNKNOWN_TOKEN") {
        return RequestError::LoggedOut { soft: body.soft_logout };
    }
    RequestError::Api {
        endpoint,
        status: response.status(),
        errcode: body.errcode.as_deref().map(visible),
        message: visible(&body.error),
        retry_after: named_pause(response),
    }
}

/// What a homeserver says, as far as it can be seen, and not for ever.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .filter(|char| !char.is_control())
        .take(MAX_MESSAGE_CHARS)
        .collect()
}

#[cfg(test)]
mod tests;

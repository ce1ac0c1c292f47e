//! The one HTTP client: reqwest with rustls.

mod streams;

use std::{error::Error as StdError, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use url::{Host, Url};

use crate::{Deadline, Streams, Transport, TransportError, TransportErrorKind as Kind};

/// No answer is larger than this unless the caller allows it, in bytes after decompression: the first sync of an
/// account in a thousand rooms stays well below.
const MAX_BODY_BYTES: usize = 256 * 1024 * 1024;

/// A [`Transport`] over reqwest and rustls, with the platform's trusted roots.
///
/// Redirects are never followed and `http://` is for loopback only, unless allowed: a token must not be seen by
/// anybody else. Connections are reused. Clones share them.
#[derive(Clone, Debug)]
pub struct ReqwestTransport {
    client: reqwest::Client,
    max_body_bytes: usize,
    total: Duration,
    idle: Duration,
    allow_plain_http: bool,
}

/// How a [`ReqwestTransport`] behaves.
#[derive(Clone, Debug)]
pub struct ReqwestTransportBuilder {
    user_agent: String,
    connect: Duration,
    total: Duration,
    idle: Duration,
    max_body_bytes: usize,
    allow_plain_http: bool,
}

impl Default for ReqwestTransportBuilder {
    fn default() -> Self {
        Self {
            user_agent: concat!("mx-e2ee/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect: Duration::from_secs(10),
            total: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            max_body_bytes: MAX_BODY_BYTES,
            allow_plain_http: false,
        }
    }
}

impl ReqwestTransportBuilder {
    /// What the server is told about who asks.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// How long making a connection may take. Default: 10 seconds.
    #[must_use]
    pub const fn connect_timeout(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// How long an exchange without a [`Deadline`] may take. Default: 60 seconds.
    #[must_use]
    pub const fn total_timeout(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// How long the exchange of a file may stand still, whatever its [`Deadline`]. Default: 60 seconds.
    #[must_use]
    pub const fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How large an answer may be that is held in memory, in bytes after decompression. Default: 256 MiB.
    #[must_use]
    pub const fn max_body_bytes(mut self, max: usize) -> Self {
        self.max_body_bytes = max;
        self
    }

    /// Allow `http://` to hosts that are not loopback: everybody on the way sees the access token.
    #[must_use]
    pub const fn allow_plain_http(mut self, allow: bool) -> Self {
        self.allow_plain_http = allow;
        self
    }

    /// The transport.
    ///
    /// # Errors
    /// [`Kind::Build`] when the platform's roots or the user agent cannot be used.
    pub fn build(self) -> Result<ReqwestTransport, TransportError> {
        let client = reqwest::Client::builder()
            .user_agent(self.user_agent)
            .connect_timeout(self.connect)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .build()
            .map_err(|error| TransportError::with_source(Kind::Build, error.without_url()))?;
        Ok(ReqwestTransport {
            client,
            max_body_bytes: self.max_body_bytes,
            total: self.total,
            idle: self.idle,
            allow_plain_http: self.allow_plain_http,
        })
    }
}

impl ReqwestTransport {
    /// How it behaves, to be changed before it is built.
    #[must_use]
    pub fn builder() -> ReqwestTransportBuilder {
        ReqwestTransportBuilder::default()
    }

    fn allowed(&self, url: &Url) -> Result<(), TransportError> {
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(()),
            "http" if loopback || self.allow_plain_http => Ok(()),
            _ => Err(TransportError::with_source(
                Kind::Build,
                "only https:// is safe, and http:// to this very machine",
            )),
        }
    }

    /// Send it to where tokens may go, and nowhere else.
    async fn execute(&self, request: http::Request<reqwest::Body>) -> Result<reqwest::Response, TransportError> {
        let request = reqwest::Request::try_from(request).map_err(|error| failed(error, Kind::Build))?;
        self.allowed(request.url())?;
        let response = self
            .client
            .execute(request)
            .await
            .map_err(|error| failed(error, Kind::Interrupted))?;
        if response.status().is_redirection() {
            return Err(TransportError::new(Kind::Redirect));
        }
        Ok(response)
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let mut response = self.execute(request.map(reqwest::Body::from)).await?;
        let body = collect(&mut response, self.max_body_bytes).await?;
        Ok(complete(&mut response, body))
    }
}

#[async_trait]
impl Transport for ReqwestTransport {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let total = request
            .extensions()
            .get::<Deadline>()
            .map_or(self.total, |deadline| deadline.0);
        match tokio::time::timeout(total, self.exchange(request)).await {
            Ok(exchanged) => exchanged,
            Err(_) => Err(TransportError::new(Kind::Timeout)),
        }
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(self)
    }
}

fn complete(response: &mut reqwest::Response, body: Bytes) -> http::Response<Bytes> {
    let mut complete = http::Response::new(body);
    *complete.status_mut() = response.status();
    *complete.headers_mut() = std::mem::take(response.headers_mut());
    complete
}

/// The whole body, which is not longer than this.
async fn collect(response: &mut reqwest::Response, max_bytes: usize) -> Result<Bytes, TransportError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed(error, Kind::Interrupted))?
    {
        if body.len() + chunk.len() > max_bytes {
            return Err(TransportError::new(Kind::BodyTooLarge));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The kind of a reqwest error. Its URL, which may hold a query, is left out.
fn failed(error: reqwest::Error, otherwise: Kind) -> TransportError {
    let kind = if error.is_builder() {
        Kind::Build
    } else if error.is_connect() {
        if is_tls(&error) { Kind::Tls } else { Kind::Connect }
    } else if error.is_timeout() {
        Kind::Timeout
    } else if error.is_redirect() {
        Kind::Redirect
    } else {
        otherwise
    };
    TransportError::with_source(kind, error.without_url())
}

/// rustls wraps its errors as `InvalidData` of the connection.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::InvalidData
        {
            return true;
        }
        source = cause.source();
    }
    false
}

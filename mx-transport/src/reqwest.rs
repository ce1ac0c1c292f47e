//! The one HTTP client: reqwest with rustls.

mod builder;
mod failure;
mod proxy;
mod streams;
mod tls;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION},
};
use tokio::time::timeout;
use url::{Host, Url};

use self::failure::{before_the_answer, within_the_answer};
pub use self::{
    builder::ReqwestTransportBuilder,
    tls::{InvalidPin, Pin},
};
use crate::{Deadline, Phase, ShowRedirects, Streams, Transport, TransportError, TransportErrorKind as Kind};

/// A [`Transport`] over reqwest and rustls, with the platform's trusted roots.
///
/// Redirects are never followed and `http://` is for loopback only, unless allowed: a token must not be seen by
/// anybody else. Proxies of the environment are not used, unless allowed, and none for loopback. Connections are reused; over
/// TLS they are HTTP/2 where the server has it. Clones share them.
///
/// # Time
/// Making a connection, waiting for the head of an answer where nobody says how long that may take, a body that stands
/// still and the whole exchange have limits of their own, and the error tells which one it was ([`Phase`]). A request
/// with a [`Deadline`] may be answered as late as that: a long poll is silent, and nothing is wrong with it.
///
/// # Size
/// An answer's body ends at the limit, counted after decompression. Its head is limited to 100 fields, and to some
/// hundred kilobytes over HTTP/1.1 or 64 KiB over HTTP/2. `gzip` is asked for and undone; an answer in another encoding,
/// or in a list of several, is [`Malformed`](Kind::Malformed); no more than one is ever undone. Brotli and Zstandard are not
/// asked for: no homeserver needs them, and each is a decoder more to be attacked.
///
/// # Sent once
/// A request that a server has provably not looked at (a stream that HTTP/2 refuses, a connection that was closed before
/// the first byte was written) goes out on another connection. Nothing else is repeated here.
///
/// ```no_run
/// # fn example() -> Result<(), mx_transport::TransportError> {
/// use std::time::Duration;
/// use mx_transport::ReqwestTransport;
///
/// let client = ReqwestTransport::builder()
///     .user_agent("mybot/1.0")
///     .connect_timeout(Duration::from_secs(5))
///     .trust_pem(&std::fs::read("company-root.pem").unwrap_or_default())?
///     .build()?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ReqwestTransport {
    client: ::reqwest::Client,
    /// What goes to loopback, through no proxy.
    on_this_machine: ::reqwest::Client,
    max_body_bytes: usize,
    headers: Option<Duration>,
    stall: Duration,
    total: Duration,
    idle: Duration,
    allow_plain_http: bool,
}

impl ReqwestTransport {
    /// How it behaves, to be changed before it is built.
    #[must_use]
    pub fn builder() -> ReqwestTransportBuilder {
        ReqwestTransportBuilder::default()
    }

    /// The client for this address, if tokens may go there.
    fn client_for(&self, url: &Url) -> Result<&::reqwest::Client, TransportError> {
        let client = if is_loopback(url) {
            &self.on_this_machine
        } else {
            &self.client
        };
        match url.scheme() {
            "https" => Ok(client),
            "http" if is_loopback(url) || self.allow_plain_http => Ok(client),
            _ => Err(TransportError::with_source(
                Kind::Build,
                "only https:// is safe, and http:// to this very machine",
            )),
        }
    }

    /// Send it to where tokens may go, and nowhere else. The answer has begun then.
    async fn execute(&self, request: http::Request<::reqwest::Body>) -> Result<::reqwest::Response, TransportError> {
        let asked = request.uri().path().to_owned();
        let show_redirects = request.extensions().get::<ShowRedirects>().is_some();
        let mut request = ::reqwest::Request::try_from(request).map_err(before_the_answer)?;
        let client = self.client_for(request.url())?;
        // A URL has no `..` in it: another endpoint would be asked than the one that was meant.
        if request.url().path() != asked && !asked.is_empty() {
            return Err(TransportError::with_source(
                Kind::Build,
                "the path would be another one after its dots and odd characters are resolved",
            ));
        }
        let asked = request.url().clone();
        if let Some(value) = request.headers_mut().get_mut(AUTHORIZATION) {
            // Neither printed by whoever logs headers, nor kept in the tables of HTTP/2's compression.
            value.set_sensitive(true);
        }
        let response = client.execute(request).await.map_err(before_the_answer)?;
        if response.status().is_redirection() && !show_redirects {
            return Err(TransportError::redirect(target(&asked, response.headers()).as_deref()));
        }
        if is_encoded(response.headers()) {
            return Err(TransportError::with_source(
                Kind::Malformed,
                "the answer is in an encoding that was not asked for",
            ));
        }
        Ok(response)
    }

    async fn exchange(
        &self,
        request: http::Request<Bytes>,
        begun: &AtomicBool,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let headers = match request.extensions().get::<Deadline>() {
            Some(deadline) => deadline.0,
            None => self.headers.unwrap_or(self.total),
        };
        let mut response = timeout(headers, self.execute(request.map(::reqwest::Body::from)))
            .await
            .unwrap_or_else(|_| Err(TransportError::new(Kind::Timeout(Phase::Headers))))?;
        begun.store(true, Ordering::Relaxed);
        let body = collect(&mut response, self.max_body_bytes, self.stall).await?;
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
        let begun = AtomicBool::new(false);
        match timeout(total, self.exchange(request, &begun)).await {
            Ok(exchanged) => exchanged,
            Err(_) if begun.into_inner() => Err(TransportError::new(Kind::Timeout(Phase::Total))),
            Err(_) => Err(TransportError::new(Kind::Timeout(Phase::Headers))),
        }
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(self)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn complete(response: &mut ::reqwest::Response, body: Bytes) -> http::Response<Bytes> {
    let mut complete = http::Response::new(body);
    *complete.status_mut() = response.status();
    *complete.headers_mut() = std::mem::take(response.headers_mut());
    complete
}

/// The whole body, which is not longer than this, and does not stand still for longer than that.
async fn collect(
    response: &mut ::reqwest::Response,
    max_bytes: usize,
    stall: Duration,
) -> Result<Bytes, TransportError> {
    if announced(response).is_some_and(|announced| announced > max_bytes as u64) {
        return Err(TransportError::new(Kind::BodyTooLarge));
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = timeout(stall, response.chunk())
            .await
            .map_err(|_| TransportError::new(Kind::Timeout(Phase::Body)))?;
        let Some(chunk) = chunk.map_err(within_the_answer)? else {
            return Ok(body.freeze());
        };
        if body.len() + chunk.len() > max_bytes {
            return Err(TransportError::new(Kind::BodyTooLarge));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The length that a server has announced, of a body that is not unpacked: the header goes when it is.
fn announced(response: &::reqwest::Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Where a redirect points to: a host, and its port where that is not the scheme's.
fn target(asked: &Url, headers: &HeaderMap) -> Option<String> {
    failure::host_of(&asked.join(headers.get(LOCATION)?.to_str().ok()?).ok()?)
}

/// An encoding is left that the client has not undone.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity") && !encoding.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_told_by_its_host_alone() {
        let told = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            target(&Url::parse("https://hs.test/x").unwrap(), &headers)
        };
        assert_eq!(told("https://other.test/?token=secret").as_deref(), Some("other.test"));
        assert_eq!(told("http://u:p@other.test:81/path").as_deref(), Some("other.test:81"));
        assert_eq!(told("/elsewhere").as_deref(), Some("hs.test"));
        assert_eq!(told("//[::1]:8/").as_deref(), Some("[::1]:8"));
        assert_eq!(told("mailto:a@b"), None);
        assert_eq!(target(&Url::parse("https://hs.test").unwrap(), &HeaderMap::new()), None);
    }
}

//! The seam: one complete HTTP request to one complete response.

mod error;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::error::{Phase, TransportError, TransportErrorKind};
use crate::Streams;

/// Something that carries one HTTP request to its response.
///
/// Wrappers are transports themselves, so that they stack: `Retry<ReqwestTransport>` is one.
///
/// # Contract
/// - `Ok` is any complete response, whatever its status. `Err` means that no complete response arrived.
/// - A request is sent at most once by a call; only a wrapper whose job it is sends it again.
/// - The extension [`Deadline`] bounds the whole call. [`Idempotent`] says that sending twice does no harm.
/// - Neither errors nor logs hold a header, a body or a query.
///
/// # A wrapper of yours
/// ```
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use http::{HeaderValue, Request, Response};
/// use mx_transport::{Transport, TransportError};
///
/// #[derive(Debug)]
/// struct Named<T>(T);
///
/// #[async_trait]
/// impl<T: Transport> Transport for Named<T> {
///     async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
///         request.headers_mut().insert("x-bot", HeaderValue::from_static("mybot"));
///         self.0.send(request).await
///     }
/// }
/// ```
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync {
    /// Send `request`, and return the complete response.
    ///
    /// # Errors
    /// [`TransportError`] when no complete response arrived; its kind says whether it may be tried again.
    ///
    /// # Cancel safety
    /// Dropping the future closes the exchange; whether the server processed it is not known then.
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError>;

    /// The same for bodies that do not fit into memory. `None`: it carries none, and files cannot be sent or received.
    /// A wrapper gives itself, where what it wraps does.
    fn streams(&self) -> Option<&dyn Streams> {
        None
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for std::sync::Arc<T> {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        (**self).send(request).await
    }

    fn streams(&self) -> Option<&dyn Streams> {
        (**self).streams()
    }
}

/// Request extension: how long the whole exchange may take, with every attempt and pause.
///
/// ```
/// use std::time::Duration;
/// use mx_transport::{Deadline, Endpoint, Idempotent};
///
/// let mut request = http::Request::post("https://matrix.example.org/_matrix/client/v3/keys/query").body("{}")?;
/// let extensions = request.extensions_mut();
/// extensions.insert(Deadline(Duration::from_secs(20)));
/// extensions.insert(Idempotent);
/// extensions.insert(Endpoint("/_matrix/client/v3/keys/query"));
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// Request extension: sending this request twice does no harm.
///
/// GET, HEAD, PUT and DELETE are idempotent by their definition (RFC 9110, section 9.2.2), and in Matrix because a PUT
/// carries a transaction id or sets a state; this marks a POST that only reads.
///
/// ```
/// use mx_transport::Idempotent;
///
/// // A POST that only reads: `Retry` may send it again after a connection that broke.
/// let mut query = http::Request::post("https://matrix.example.org/_matrix/client/v3/keys/query").body("{}")?;
/// query.extensions_mut().insert(Idempotent);
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Idempotent;

/// Request extension: a redirect is an answer like any other. It is not followed: whoever sent the request looks at it.
///
/// ```no_run
/// # async fn example(transport: &dyn mx_transport::Transport) -> Result<(), Box<dyn std::error::Error>> {
/// use mx_transport::ShowRedirects;
///
/// // Without it a redirect is an error, and whoever asked learns no more than the host.
/// let mut page = http::Request::get("https://example.org/.well-known/matrix/client").body(bytes::Bytes::new())?;
/// page.extensions_mut().insert(ShowRedirects);
/// let answer = transport.send(page).await?;
/// println!("{} to {:?}", answer.status(), answer.headers().get(http::header::LOCATION));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ShowRedirects;

/// Request extension: the endpoint's path with the names of its parameters, such as
/// `/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}`. It is what logs and metrics show of a path.
///
/// ```
/// use mx_transport::Endpoint;
///
/// // Made by hand: without this, logs show the words of its path that they know, and `_` for the rest.
/// let mut request = http::Request::get("https://matrix.example.org/_matrix/client/v3/rooms/!r/members").body(())?;
/// request.extensions_mut().insert(Endpoint("/_matrix/client/v3/rooms/{room_id}/members"));
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub &'static str);

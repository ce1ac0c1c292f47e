//! The seam: one complete HTTP request to one complete response.

use std::{error::Error as StdError, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

/// Request extension: sending this request twice does no harm.
///
/// GET, HEAD, PUT and DELETE are idempotent by their definition (RFC 9110, section 9.2.2), and in Matrix because a PUT
/// carries a transaction id or sets a state; this marks a POST that only reads.
#[derive(Clone, Copy, Debug)]
pub struct Idempotent;

/// What a transport was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// The request could not be put together, or may not be sent to this address.
    Build,
    /// No connection was made: nothing was sent.
    Connect,
    /// The server is not who its certificate says, or speaks no TLS that we accept: nothing was sent.
    Tls,
    /// It took too long.
    Timeout,
    /// The server sent us elsewhere, which is never followed: a token must not go to another host.
    Redirect,
    /// The answer is larger than allowed.
    BodyTooLarge,
    /// The answer ended early, or the connection broke.
    Interrupted,
    /// What is to be sent cannot be read here, or what is received cannot be written.
    LocalBody,
}

/// No complete response arrived.
pub struct TransportError {
    kind: TransportErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// An error without a cause.
    #[must_use]
    pub const fn new(kind: TransportErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error with its cause. The cause must hold no secret: no URL query, no header, no body.
    #[must_use]
    pub fn with_source(kind: TransportErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
        }
    }

    /// What the transport was doing.
    #[must_use]
    pub const fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// The server may have processed the request: only what is idempotent may be sent again.
    #[must_use]
    pub const fn may_have_been_processed(&self) -> bool {
        !matches!(
            self.kind,
            TransportErrorKind::Build | TransportErrorKind::Connect | TransportErrorKind::Tls
        )
    }

    /// A later attempt may succeed.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            TransportErrorKind::Connect | TransportErrorKind::Timeout | TransportErrorKind::Interrupted
        )
    }

    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.kind {
            TransportErrorKind::Build => "request_invalid",
            TransportErrorKind::Connect => "unreachable",
            TransportErrorKind::Tls => "tls",
            TransportErrorKind::Timeout => "timeout",
            TransportErrorKind::Redirect => "redirect",
            TransportErrorKind::BodyTooLarge => "answer_too_large",
            TransportErrorKind::Interrupted => "interrupted",
            TransportErrorKind::LocalBody => "local_body",
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TransportErrorKind::Build => "the request cannot be sent to this address",
            TransportErrorKind::Connect => {
                "the homeserver cannot be reached: check its address, the network, and that it is running"
            }
            TransportErrorKind::Tls => "no secure connection to the homeserver: check its certificate and the clock",
            TransportErrorKind::Timeout => "the homeserver took too long to answer",
            TransportErrorKind::Redirect => {
                "the homeserver redirected us, which is never followed: use the address that it redirects to"
            }
            TransportErrorKind::BodyTooLarge => "the homeserver's answer is larger than allowed",
            TransportErrorKind::Interrupted => "the connection to the homeserver broke before its answer was complete",
            TransportErrorKind::LocalBody => {
                "the file cannot be read or written here: check the disk and the permissions"
            }
        })
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportError")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

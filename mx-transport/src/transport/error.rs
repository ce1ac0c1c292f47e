//! No complete response arrived: what the transport was doing, and what the caller may do now.

use std::{error::Error as StdError, fmt};

/// What a transport was doing when it failed.
///
/// ```
/// use mx_transport::{TransportError, TransportErrorKind};
///
/// /// What a program of its own does next.
/// fn next(error: &TransportError) -> &'static str {
///     match error.kind() {
///         TransportErrorKind::Tls => "somebody is in between, or a clock is wrong: ask a person",
///         TransportErrorKind::Build | TransportErrorKind::LocalBody => "the fault is here",
///         TransportErrorKind::BodyTooLarge => "allow more, or ask for less",
///         _ if error.is_transient() => "try again",
///         _ => "ask the server's operator",
///     }
/// }
/// assert_eq!(next(&TransportError::new(TransportErrorKind::Connect)), "try again");
/// ```
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
    Timeout(Phase),
    /// The server sent us elsewhere, which is never followed: a token must not go to another host.
    Redirect,
    /// The answer is larger than allowed.
    BodyTooLarge,
    /// The answer began and ended early.
    Truncated,
    /// The connection broke before an answer began.
    Interrupted,
    /// What answers does not speak HTTP as the standard has it, or in an encoding that nobody asked for.
    Malformed,
    /// What is to be sent cannot be read here, or what is received cannot be written.
    LocalBody,
}

/// What was waited for when the time was up.
///
/// ```
/// use mx_transport::{Phase, TransportError, TransportErrorKind};
///
/// // Whether the server can have heard of it hangs on what was waited for.
/// let timeout = |phase| TransportError::new(TransportErrorKind::Timeout(phase));
/// assert!(!timeout(Phase::Queue).may_have_been_processed());
/// assert!(!timeout(Phase::Connect).may_have_been_processed());
/// assert!(timeout(Phase::Headers).may_have_been_processed());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Our turn: nothing was sent. Requests wait here, and not at the homeserver.
    Queue,
    /// A connection, with its name and its TLS: nothing was sent.
    Connect,
    /// The head of the answer.
    Headers,
    /// The next piece of a body, which stood still.
    Body,
    /// The whole exchange, which went on and did not end.
    Total,
}

/// No complete response arrived.
///
/// ```
/// use mx_transport::{Phase, TransportError, TransportErrorKind};
///
/// // What a transport of yours says when nobody answered in time.
/// let error = TransportError::new(TransportErrorKind::Timeout(Phase::Headers));
/// assert!(error.is_transient());
/// assert!(error.may_have_been_processed(), "only what is idempotent may be sent again");
/// assert_eq!(error.code(), "timeout");
/// ```
pub struct TransportError {
    kind: TransportErrorKind,
    /// Where a redirect points to, or who cannot be reached. Behind a pointer, since errors are handed on by value.
    host: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TransportError {
    /// An error without a cause.
    #[must_use]
    pub const fn new(kind: TransportErrorKind) -> Self {
        Self {
            kind,
            host: None,
            source: None,
        }
    }

    /// An error with its cause. The cause must hold no secret: no URL query, no header, no body.
    ///
    /// ```
    /// use std::error::Error;
    /// use mx_transport::{TransportError, TransportErrorKind};
    ///
    /// // As a transport of yours says that nobody listens there.
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let error = TransportError::with_source(TransportErrorKind::Connect, refused).with_host(Some("matrix.example.org"));
    /// assert!(error.source().is_some());
    /// // Several callers wait for one answer: the first has the cause, the others what to do about it.
    /// let for_another = error.without_source();
    /// assert!(for_another.source().is_none() && for_another.kind() == error.kind());
    /// ```
    #[must_use]
    pub fn with_source(kind: TransportErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            host: None,
            source: Some(source.into()),
        }
    }

    /// The same error, of an exchange with this host.
    #[must_use]
    pub fn with_host(mut self, host: Option<&str>) -> Self {
        self.host = host.map(Into::into);
        self
    }

    /// A redirect to this host. The rest of its address is left out: it may hold a secret.
    ///
    /// ```
    /// use mx_transport::TransportError;
    ///
    /// let error = TransportError::redirect(Some("sso.example.com"));
    /// assert_eq!((error.code(), error.redirect_host()), ("redirect", Some("sso.example.com")));
    /// assert!(!error.is_transient(), "the next attempt would be sent there, too");
    /// ```
    #[must_use]
    pub fn redirect(host: Option<&str>) -> Self {
        Self {
            kind: TransportErrorKind::Redirect,
            host: host.map(Into::into),
            source: None,
        }
    }

    /// The same error without its cause, for another who waits for the same answer.
    #[must_use]
    pub fn without_source(&self) -> Self {
        Self {
            kind: self.kind,
            host: self.host.clone(),
            source: None,
        }
    }

    /// What the transport was doing.
    #[must_use]
    pub const fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// The host that a redirect points to, with its port where it has one of its own. `None`: it is no redirect, or
    /// one to nowhere.
    #[must_use]
    pub fn redirect_host(&self) -> Option<&str> {
        self.host
            .as_deref()
            .filter(|_| self.kind == TransportErrorKind::Redirect)
    }

    /// The server may have processed the request: only what is idempotent may be sent again.
    #[must_use]
    pub const fn may_have_been_processed(&self) -> bool {
        !matches!(
            self.kind,
            TransportErrorKind::Build
                | TransportErrorKind::Connect
                | TransportErrorKind::Tls
                | TransportErrorKind::Timeout(Phase::Queue | Phase::Connect)
        )
    }

    /// A later attempt may succeed.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            TransportErrorKind::Connect
                | TransportErrorKind::Timeout(_)
                | TransportErrorKind::Truncated
                | TransportErrorKind::Interrupted
                | TransportErrorKind::Malformed
        )
    }

    /// A stable name of this error, for programs. It is coarser than [`kind`](Self::kind): an answer that ended early
    /// is `interrupted` too, and every [`Phase`] a `timeout`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.kind {
            TransportErrorKind::Build => "request_invalid",
            TransportErrorKind::Connect => "unreachable",
            TransportErrorKind::Tls => "tls",
            TransportErrorKind::Timeout(_) => "timeout",
            TransportErrorKind::Redirect => "redirect",
            TransportErrorKind::BodyTooLarge => "answer_too_large",
            TransportErrorKind::Truncated | TransportErrorKind::Interrupted => "interrupted",
            TransportErrorKind::Malformed => "malformed_answer",
            TransportErrorKind::LocalBody => "local_body",
        }
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.host) {
            (TransportErrorKind::Redirect, Some(host)) => {
                return write!(
                    f,
                    "the homeserver redirected us to {host}, which is never followed: use the address that it redirects to"
                );
            }
            (TransportErrorKind::Connect, Some(host)) => {
                return write!(
                    f,
                    "the homeserver cannot be reached at {host}: check this address, the network, and that it is running"
                );
            }
            _ => {}
        }
        f.write_str(match self.kind {
            TransportErrorKind::Build => "the request cannot be sent to this address",
            TransportErrorKind::Connect => {
                "the homeserver cannot be reached: check its address, the network, and that it is running"
            }
            TransportErrorKind::Tls => "no secure connection to the homeserver: check its certificate and the clock",
            TransportErrorKind::Timeout(phase) => too_long(phase),
            TransportErrorKind::Redirect => {
                "the homeserver redirected us, which is never followed: use the address that it redirects to"
            }
            TransportErrorKind::BodyTooLarge => "the homeserver's answer is larger than allowed",
            TransportErrorKind::Truncated => "the homeserver's answer ended before it was complete",
            TransportErrorKind::Interrupted => "the connection to the homeserver broke before its answer was complete",
            TransportErrorKind::Malformed => {
                "what answered does not speak HTTP as it should: check the address, and what stands between"
            }
            TransportErrorKind::LocalBody => {
                "the file cannot be read or written here: check the disk and the permissions"
            }
        })
    }
}

const fn too_long(phase: Phase) -> &'static str {
    match phase {
        Phase::Queue => "the request waited too long for its turn: the homeserver lets us send so much and no more",
        Phase::Connect => "connecting to the homeserver took too long: check its address and the network",
        Phase::Headers => "the homeserver took too long to answer",
        Phase::Body => "the homeserver took too long to answer: its answer began, and stood still",
        Phase::Total => "the homeserver took too long to answer: the time for the whole exchange is up",
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportError")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

//! HTTP for Matrix clients: one request, one response, typed by ruma, tried again with care.
//!
//! [`Transport`] carries one complete HTTP request to one complete response. [`ReqwestTransport`] is the client that
//! most people want, [`Retry`] a transport around another one, and [`Homeserver`] turns ruma's request types into
//! their answers. Bodies that do not fit into memory have a seam of their own, [`Streams`], which a transport may have.
//!
//! ```no_run
//! # #[cfg(feature = "reqwest")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use mx_transport::{AccessToken, Homeserver, ReqwestTransport, Retry};
//! use ruma::api::client::account::whoami;
//!
//! let transport = Retry::new(ReqwestTransport::builder().build()?);
//! let homeserver = Homeserver::new("https://matrix.example.org", Arc::new(transport))?;
//! homeserver.set_access_token(AccessToken::new("syt_…")?);
//! println!("{}", homeserver.send(whoami::v3::Request::new()).await?.user_id);
//! # Ok(()) }
//! ```
//!
//! Without default features there is no HTTP client in this crate: bring your own [`Transport`].
//!
//! # What was weighed
//! `tower` would give the stacking of wrappers; its `Service` asks for readiness, which nobody here needs, and its
//! retry wants every request cloned by a policy type. The pauses between attempts are those of `backon`. Redirects are
//! never followed, because a token must not go to another host.

mod error;
mod homeserver;
mod interactive;
mod refresh;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry;
mod stream;
mod token;
mod transport;

#[cfg(feature = "reqwest")]
pub use self::reqwest::{ReqwestTransport, ReqwestTransportBuilder};
pub use self::{
    error::RequestError,
    homeserver::{Authenticate, Call, Homeserver, PathInput, UrlError},
    interactive::{Answers, Asked, Challenge, InteractiveError, Refusal, Unattended},
    refresh::{KeepError, KeeperTurn, RefreshToken, TokenKeeper, Tokens},
    retry::Retry,
    stream::{Chunks, FileSink, FileSource, Sink, Source, Streams},
    token::{AccessToken, InvalidToken},
    transport::{Deadline, Idempotent, Transport, TransportError, TransportErrorKind},
};

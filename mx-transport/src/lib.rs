//! HTTP for Matrix clients: one request, one response, typed by ruma, tried again with care.
//!
//! [`Transport`] carries one complete HTTP request to one complete response. [`ReqwestTransport`] is the client that
//! most people want, and [`Homeserver`] turns ruma's request types into their answers. Bodies that do not fit into memory
//! have a seam of their own, [`Streams`], which a transport may have.
//!
//! ```no_run
//! # #[cfg(feature = "reqwest")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use mx_transport::{AccessToken, Homeserver, RateLimit, ReqwestTransport, RequestLog, Retry};
//! use ruma::api::client::account::whoami;
//!
//! let client = ReqwestTransport::builder().build()?;
//! let transport = Retry::new(RateLimit::new(RequestLog::new(client)));
//! let homeserver = Homeserver::new("https://matrix.example.org", Arc::new(transport))?;
//! homeserver.set_access_token(AccessToken::new("syt_…")?);
//! println!("{}", homeserver.send(whoami::v3::Request::new()).await?.user_id);
//! # Ok(()) }
//! ```
//!
//! Without default features there is no HTTP client in this crate: bring your own [`Transport`], and run
//! `conformance::all` on it (feature `testing`).
//!
//! # Wrappers
//! Each is a transport around another one, carries files where that does, and is useful alone. From the outside to the
//! inside this order makes sense:
//!
//! | | what it does | why there |
//! |---|---|---|
//! | [`TokenRefresh`] | gives requests our token, and renews it | what is sent once more is limited and tried as any other |
//! | [`Timeouts`] | a time for every request, by what it is about | bounds all attempts together |
//! | [`Retry`] | tries again what does no harm twice | pauses outside of any line |
//! | [`RateLimit`] | one budget a login and family of endpoints, learned from 429 | every attempt stands in line |
//! | `Metrics` (feature `metrics`), [`RequestLog`] | counts, measures, logs | sees every attempt |
//! | [`BodyCap`] | how large an answer may be | nothing outside sees more |
//! | [`Faults`], [`Record`], [`Replay`] | for tests: what goes wrong, what went over the wire | instead of a network |
//!
//! [`TokenRefresh`] is for requests that are made by hand. A token belongs to a login, and many logins may share a
//! transport: [`Homeserver`] holds, renews and replaces the tokens of its own, with the same code.
//!
//! # What was weighed
//! - `tower` would give the stacking of wrappers; its `Service` asks for readiness, which nobody here needs, and its
//!   retry wants every request cloned by a policy type. reqwest uses it inside.
//! - `backon` gives the series of pauses; what may be tried again is a matter of Matrix, and is here.
//! - `governor` limits to a rate that is known. A homeserver's is not: it says 429.
//! - `http-body-util` has a cap for bodies as streams; ours come whole or go to a sink, and both count as they read.
//! - `metrics` is the facade for counters, as `tracing` is for spans; which recorder there is, the application says.
//! - Redirects are never followed, because a token must not go to another host.

mod appservice;
mod body_cap;
#[cfg(feature = "testing")]
pub mod conformance;
mod discovery;
mod endpoint;
mod error;
mod faults;
mod fetch;
mod homeserver;
mod interactive;
mod layer;
#[cfg(feature = "metrics")]
mod metrics;
mod oauth;
mod rate_limit;
mod refresh;
mod request_log;
#[cfg(feature = "reqwest")]
mod reqwest;
mod retry;
mod seen;
mod stream;
mod timeouts;
mod token;
mod token_refresh;
mod transcript;
mod transport;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
#[cfg(feature = "reqwest")]
pub use self::reqwest::{InvalidPin, Pin, ReqwestTransport, ReqwestTransportBuilder};
pub use self::{
    appservice::{AppServiceRegistration, Masquerade, Namespace, Namespaces},
    body_cap::BodyCap,
    discovery::{Discovered, Discovery, DiscoveryError},
    endpoint::Family,
    error::RequestError,
    faults::{Fault, Faults},
    homeserver::{Authenticate, Call, Homeserver, PathInput, UrlError},
    interactive::{Answers, Asked, Challenge, InteractiveError, Refusal, Unattended},
    oauth::{AuthorizationServer, ClientRegistration, DeviceAuthorization, OAuthClient, OAuthError},
    rate_limit::RateLimit,
    refresh::{KeepError, KeeperTurn, RefreshToken, TokenKeeper, Tokens},
    request_log::RequestLog,
    retry::Retry,
    stream::{Chunks, FileSink, FileSource, Sink, Source, Streams},
    timeouts::Timeouts,
    token::{AccessToken, InvalidToken},
    token_refresh::TokenRefresh,
    transcript::{Record, Replay, TranscriptError},
    transport::{Deadline, Endpoint, Idempotent, Phase, ShowRedirects, Transport, TransportError, TransportErrorKind},
};

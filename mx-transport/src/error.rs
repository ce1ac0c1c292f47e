//! What can go wrong with a Matrix request, as the caller's next step.

use std::{error::Error as StdError, time::Duration};

use http::StatusCode;

use crate::TransportError;

/// An error shows this many characters of what a homeserver says.
const MAX_SHOWN_CHARS: usize = 300;

/// A request to a homeserver failed.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use mx_transport::RequestError;
/// use ruma::api::client::account::whoami;
///
/// match homeserver.send(whoami::v3::Request::new()).await {
///     Ok(who) => println!("{}", who.user_id),
///     Err(RequestError::LoggedOut { soft: true }) => println!("log in again, with the same device"),
///     Err(RequestError::Api { retry_after: Some(pause), .. }) => println!("ask again in {pause:?}"),
///     Err(error) => println!("{error} [{}]", error.code()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No complete answer arrived.
    #[error(transparent)]
    Transport(#[from] TransportError),

    /// The homeserver refused.
    #[error("the homeserver refused {endpoint}: {status}{}{}", suffix(errcode.as_deref()), suffix(Some(shown(message))))]
    Api {
        /// The endpoint's path, with the names of its parameters.
        endpoint: &'static str,
        /// The status.
        status: StatusCode,
        /// The Matrix error code. `None`: the answer is not a Matrix error, as when a proxy answers.
        errcode: Option<String>,
        /// What the homeserver says, at most 2,000 visible characters, of which 300 are displayed. Never
        /// to be trusted.
        message: String,
        /// How long the homeserver asks us to wait.
        retry_after: Option<Duration>,
    },

    /// The homeserver answered with something that cannot be read.
    #[error("the homeserver's answer to {endpoint} cannot be read: is the address that of a Matrix homeserver?")]
    Decode {
        /// The endpoint's path, with the names of its parameters.
        endpoint: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The access token is not valid any more.
    #[error("{}", if *soft {
        "the access token expired: log in again with the same device to go on"
    } else {
        "this device was logged out, or the access token is wrong: log in again, as a new device with an empty store"
    })]
    LoggedOut {
        /// The device is still there: the same device can log in again.
        soft: bool,
    },

    /// The access token was renewed, and the new one cannot be kept: the old one stays in use.
    #[error("a renewed access token cannot be kept: check the disk and the permissions of the login's directory")]
    TokenNotKept {
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The request needs an access token and there is none.
    #[error("not logged in: log in first")]
    NoAccessToken,

    /// The request cannot be put together.
    #[error("the request cannot be put together")]
    Build {
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl RequestError {
    /// A stable name of this error, for programs. The error codes of a homeserver that mean something of their own have one:
    /// `forbidden` for `M_FORBIDDEN`; of all others it is `homeserver_refused` or `homeserver_failed`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Transport(error) => error.code(),
            Self::Api { errcode, status, .. } => match errcode.as_deref() {
                Some("M_FORBIDDEN") => "forbidden",
                Some("M_NOT_FOUND") => "not_found",
                Some("M_LIMIT_EXCEEDED") => "rate_limited",
                Some("M_TOO_LARGE") => "too_large",
                Some("M_UNRECOGNIZED") => "unsupported_by_homeserver",
                Some("M_USER_DEACTIVATED") => "user_deactivated",
                Some("M_USER_LOCKED") => "user_locked",
                Some("M_USER_SUSPENDED") => "user_suspended",
                Some("M_CONSENT_NOT_GIVEN") => "consent_not_given",
                Some("M_RESOURCE_LIMIT_EXCEEDED") => "resource_limit_exceeded",
                Some("M_EXCLUSIVE") => "exclusive",
                _ if status.is_server_error() => "homeserver_failed",
                _ => "homeserver_refused",
            },
            Self::Decode { .. } => "unreadable_answer",
            Self::LoggedOut { soft: true } => "soft_logged_out",
            Self::LoggedOut { soft: false } => "logged_out",
            Self::TokenNotKept { .. } => "token_not_kept",
            Self::NoAccessToken => "not_logged_in",
            Self::Build { .. } => "request_invalid",
        }
    }

    /// A request that cannot be put together.
    pub fn build(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Build { source: source.into() }
    }

    /// The same error for another who waits for the same answer: its causes are words then.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Transport(error) => Self::Transport(error.without_source()),
            Self::Api {
                endpoint,
                status,
                errcode,
                message,
                retry_after,
            } => Self::Api {
                endpoint,
                status: *status,
                errcode: errcode.clone(),
                message: message.clone(),
                retry_after: *retry_after,
            },
            Self::Decode { endpoint, source } => Self::Decode {
                endpoint,
                source: source.to_string().into(),
            },
            Self::LoggedOut { soft } => Self::LoggedOut { soft: *soft },
            Self::TokenNotKept { source } => Self::TokenNotKept {
                source: source.to_string().into(),
            },
            Self::NoAccessToken => Self::NoAccessToken,
            Self::Build { source } => Self::build(source.to_string()),
        }
    }

    /// The homeserver's status, where it refused.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// As much of a homeserver's words as an error shows.
fn shown(message: &str) -> &str {
    let end = message.char_indices().nth(MAX_SHOWN_CHARS).map(|(end, _)| end);
    end.and_then(|end| message.get(..end)).unwrap_or(message)
}

fn suffix(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty())
        .map_or_else(String::new, |text| format!(", {text}"))
}

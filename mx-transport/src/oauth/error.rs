//! What can go wrong in a login by OAuth 2.0, as the caller's next step.

use bytes::Bytes;
use serde::Deserialize;

use crate::{RequestError, homeserver::visible};

/// A login by OAuth 2.0 was not done.
///
/// ```
/// use mx_transport::OAuthError;
///
/// assert_eq!(OAuthError::Expired.code(), "login_expired");
/// println!("{}", OAuthError::NotOffered); // says what to do instead
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OAuthError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),

    /// The homeserver has no authorization server.
    #[error("this homeserver offers no login by OAuth 2.0: log in by password or single sign-on")]
    NotOffered,

    /// The authorization server cannot do what is needed.
    #[error("the authorization server of this homeserver does not offer {what}: log in in another way")]
    Unsupported {
        /// What it does not offer.
        what: &'static str,
    },

    /// The metadata of the authorization server name something that is not safe.
    #[error("the homeserver names {what} as that of its authorization server, which is not safe: tell its operator")]
    Unsafe {
        /// Which address.
        what: String,
    },

    /// The person who was asked has said no.
    #[error("the login was denied where the code was typed")]
    Denied,

    /// Nobody typed the code in time.
    #[error("nobody typed the code in time: begin again")]
    Expired,

    /// The device is another one than was asked for.
    #[error("the login is that of another device than was asked for: tell the homeserver's operator")]
    OtherDevice,
}

impl OAuthError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::NotOffered => "no_oauth_login",
            Self::Unsupported { .. } => "oauth_unsupported",
            Self::Unsafe { .. } => "oauth_unsafe",
            Self::Denied => "login_denied",
            Self::Expired => "login_expired",
            Self::OtherDevice => "device_mismatch",
        }
    }
}

/// What a status that is not 2xx of an authorization server means (RFC 6749, section 5.2).
pub(crate) fn refused(response: &http::Response<Bytes>, endpoint: &'static str) -> RequestError {
    #[derive(Default, Deserialize)]
    struct Body {
        error: Option<String>,
        #[serde(default)]
        error_description: String,
    }
    let body: Body = serde_json::from_slice(response.body()).unwrap_or_default();
    RequestError::Api {
        endpoint,
        status: response.status(),
        errcode: body.error.as_deref().map(visible),
        message: visible(&body.error_description),
        retry_after: crate::retry::named_pause(response),
    }
}

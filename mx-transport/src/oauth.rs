//! Logins by OAuth 2.0: the authorization server of a homeserver, our registration there, and the device code that a person
//! types elsewhere.
//!
//! From the client-server API, "OAuth 2.0 API" (Matrix 1.15, and the device authorization grant of 1.18), RFC 8414
//! (metadata), RFC 7591 (registration), RFC 8628 (device codes), RFC 6749 (tokens), RFC 7009 (revocation). The requests are
//! methods of [`Homeserver`](crate::Homeserver), through the transport that it has.
//!
//! # What was weighed
//! The crate `oauth2` has the grants, and neither registration nor metadata; its tokens have names of their own, and it
//! brings second versions of crates that are here already. What is left are four small requests, which `ruma`'s metadata,
//! `serde` and `url` carry.

pub(crate) mod device;
mod error;
mod registration;
mod server;

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

pub(crate) use self::error::refused;
pub use self::{
    device::DeviceAuthorization,
    error::OAuthError,
    registration::{ClientRegistration, OAuthClient},
    server::AuthorizationServer,
};
use crate::{AccessToken, RefreshToken, Tokens};

/// No answer of an authorization server is longer, in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// What the token endpoint gives.
#[derive(Deserialize)]
pub(crate) struct Granted {
    access_token: Zeroizing<String>,
    refresh_token: Option<Zeroizing<String>>,
    expires_in: Option<u64>,
}

impl Granted {
    /// As tokens, and the old refresh token goes on where there is no new one. `None`: what it gives is no token.
    pub(crate) fn tokens(self, before: Option<RefreshToken>) -> Option<Tokens> {
        let access = AccessToken::new(self.access_token.as_str()).ok()?;
        let refresh = self.refresh_token.map(|token| RefreshToken::new(token.as_str()));
        Some(Tokens::lasting(
            access,
            refresh.or(before),
            self.expires_in.map(Duration::from_secs),
        ))
    }
}

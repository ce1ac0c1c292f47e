//! What a login is proven with: tokens, and by which way they are renewed and ended. Sealed on the disk.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use mx_transport::{AccessToken, Homeserver, Masquerade, OAuthClient, RefreshToken, TokenKeeper, Tokens};
use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Session;

/// The tokens of a login, and whose they are.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) tokens: Tokens,
    pub(crate) kind: Kind,
}

/// Which way a login was made.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// By the homeserver itself.
    Native,
    /// By its authorization server.
    OAuth(OAuthClient),
    /// The token is that of an application service, which speaks for the user.
    AppService(Masquerade),
}

/// As on the disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct Written {
    access_token: Zeroizing<String>,
    /// Of a homeserver whose access tokens expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Zeroizing<String>>,
    /// In milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_token_expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oauth: Option<OAuthClient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    appservice: Option<AppService>,
}

#[derive(Serialize, Deserialize)]
struct AppService {
    /// The homeserver is from before Matrix 1.17.
    unstable: bool,
}

impl Credentials {
    pub(crate) const fn native(tokens: Tokens) -> Self {
        Self {
            tokens,
            kind: Kind::Native,
        }
    }

    /// The same login with other tokens.
    pub(crate) fn with(&self, tokens: Tokens) -> Self {
        Self {
            tokens,
            kind: self.kind.clone(),
        }
    }

    /// Use them from now on.
    pub(crate) fn give_to(self, homeserver: &Homeserver, keeper: Option<std::sync::Arc<dyn TokenKeeper>>) {
        match self.kind {
            Kind::Native => homeserver.set_tokens(self.tokens, keeper),
            Kind::OAuth(client) => homeserver.set_oauth_tokens(self.tokens, client, keeper),
            Kind::AppService(masquerade) => homeserver.masquerade(self.tokens.access, masquerade),
        }
    }

    pub(crate) fn written(&self) -> Written {
        let expires_at = self.tokens.expires_at;
        let expires_at = expires_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let refresh = self.tokens.refresh.as_ref();
        let (oauth, appservice) = match &self.kind {
            Kind::Native => (None, None),
            Kind::OAuth(client) => (Some(client.clone()), None),
            Kind::AppService(masquerade) => (
                None,
                Some(AppService {
                    unstable: masquerade.is_unstable(),
                }),
            ),
        };
        Written {
            access_token: Zeroizing::new(self.tokens.access.expose().to_owned()),
            refresh_token: refresh.map(|refresh| Zeroizing::new(refresh.expose().to_owned())),
            access_token_expires_at_ms: expires_at.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
            oauth,
            appservice,
        }
    }
}

impl Written {
    /// `None`: it is damaged.
    pub(crate) fn credentials(self, session: &Session) -> Option<Credentials> {
        let expires_at = self.access_token_expires_at_ms;
        let tokens = Tokens {
            access: AccessToken::new(self.access_token.as_str()).ok()?,
            refresh: self.refresh_token.map(|token| RefreshToken::new(token.as_str())),
            expires_at: expires_at.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))),
        };
        let kind = match (self.oauth, self.appservice) {
            (Some(client), _) => Kind::OAuth(client),
            (None, Some(service)) => {
                Kind::AppService(masquerade(&session.user_id, Some(&session.device_id), service.unstable))
            }
            (None, None) => Kind::Native,
        };
        Some(Credentials { tokens, kind })
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written(<hidden>)")
    }
}

/// As this device of this user.
pub(crate) fn masquerade(user: &OwnedUserId, device: Option<&OwnedDeviceId>, unstable: bool) -> Masquerade {
    let mut masquerade = Masquerade::user(user.clone());
    if let Some(device) = device {
        masquerade = masquerade.device(device.clone());
    }
    if unstable { masquerade.unstable() } else { masquerade }
}

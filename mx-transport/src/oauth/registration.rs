//! What an authorization server is told about us, and the name that it gives us (RFC 7591).

use serde::{Deserialize, Serialize};

/// Our name at an authorization server. It is no secret. It is kept with the login: tokens are renewed under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OAuthClient {
    /// The authorization server.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
}

impl OAuthClient {
    /// A name that was given before, or by hand.
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
        }
    }
}

/// What an authorization server is told about us. People see it when they are asked whether they know us.
#[derive(Clone, Debug)]
pub struct ClientRegistration {
    name: String,
    page: String,
}

impl ClientRegistration {
    /// A client of this name, with a page about it (`https`), which the specification demands.
    pub fn new(name: impl Into<String>, page: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            page: page.into(),
        }
    }

    /// The request's body: a program on a machine, with no secret, that logs in by device code.
    pub(crate) fn body(&self) -> serde_json::Value {
        serde_json::json!({
            "client_name": self.name,
            "client_uri": self.page,
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
            "response_types": [],
        })
    }
}

impl Default for ClientRegistration {
    fn default() -> Self {
        Self::new("mx-e2ee", "https://github.com/mx-e2ee/mx-e2ee")
    }
}

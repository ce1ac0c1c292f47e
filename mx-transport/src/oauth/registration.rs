//! What an authorization server is told about us, and the name that it gives us (RFC 7591).

use serde::{Deserialize, Serialize};

/// Our name at an authorization server. It is no secret. It is kept with the login: tokens are renewed under it.
///
/// ```
/// use mx_transport::OAuthClient;
///
/// // Kept as it is, beside the login, and read again with it.
/// let client = OAuthClient::new("https://auth.example.org/", "01J…");
/// let kept = serde_json::to_string(&client)?;
/// assert_eq!(serde_json::from_str::<OAuthClient>(&kept)?, client);
/// # Ok::<_, serde_json::Error>(())
/// ```
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
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), mx_transport::OAuthError> {
/// use mx_transport::ClientRegistration;
///
/// // Your own name and page: people are asked whether they know this.
/// let us = ClientRegistration::new("The alert bot", "https://example.org/alert-bot");
/// println!("we are {} there", homeserver.register_oauth_client(&us).await?.client_id);
/// # Ok(()) }
/// ```
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

//! Requests to the authorization server that the homeserver names.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use ruma::{
    OwnedDeviceId,
    api::{
        MatrixVersion,
        client::discovery::get_authorization_server_metadata::v1::{AuthorizationServerMetadata, Request as Metadata},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;
use url::{Url, form_urlencoded::Serializer};

use super::{Homeserver, caught};
use crate::{
    AuthorizationServer, ClientRegistration, Endpoint, Idempotent, OAuthClient, OAuthError, RefreshToken, RequestError,
    Tokens,
    fetch::fetch,
    oauth::{DeviceAuthorization, Granted, MAX_BYTES, device::Offered, refused},
};

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How much slower it is asked after a `slow_down` (RFC 8628, section 3.5), and after each failure of the network.
const SLOWER: Duration = Duration::from_secs(5);

impl Homeserver {
    /// The authorization server of this homeserver, asked for once.
    ///
    /// # Errors
    /// [`OAuthError::NotOffered`], [`OAuthError::Unsafe`]; of the request.
    pub async fn authorization_server(&self) -> Result<Arc<AuthorizationServer>, OAuthError> {
        self.0
            .authorization
            .get_or_try_init(|| self.ask_for_authorization_server())
            .await
            .cloned()
    }

    async fn ask_for_authorization_server(&self) -> Result<Arc<AuthorizationServer>, OAuthError> {
        let versions = self.versions().await?;
        let answer = match self.send(Metadata::new()).await {
            Err(RequestError::Api { status, .. }) if matches!(status.as_u16(), 404 | 405) => {
                return Err(OAuthError::NotOffered);
            }
            answer => answer?,
        };
        let metadata: AuthorizationServerMetadata =
            answer.metadata.deserialize().map_err(|error| RequestError::Decode {
                endpoint: "/_matrix/client/v1/auth_metadata",
                source: error.into(),
            })?;
        let stable = versions.versions.iter().any(|version| *version >= MatrixVersion::V1_15);
        Ok(Arc::new(AuthorizationServer::new(metadata, &self.0.base_url, stable)?))
    }

    /// Introduce ourselves to the authorization server. The name that it gives us is to be kept, and used for every login
    /// there.
    ///
    /// # Errors
    /// [`OAuthError::Unsupported`]; of the request.
    pub async fn register_oauth_client(&self, registration: &ClientRegistration) -> Result<OAuthClient, OAuthError> {
        #[derive(Deserialize)]
        struct Registered {
            client_id: String,
        }
        let server = self.authorization_server().await?;
        let endpoint = server.metadata().registration_endpoint.as_ref();
        let endpoint = endpoint.ok_or(OAuthError::Unsupported {
            what: "registration of clients",
        })?;
        let body = Bytes::from(registration.body().to_string());
        let registered: Registered = self
            .post(endpoint, "registration of clients", "application/json", body, false)
            .await?;
        Ok(OAuthClient::new(server.issuer(), registered.client_id))
    }

    /// Begin a login of this device that a person completes elsewhere.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::ClientRegistration;
    /// use ruma::DeviceId;
    ///
    /// let us = ClientRegistration::new("My bot", "https://example.org/mybot");
    /// let client = homeserver.register_oauth_client(&us).await?;
    /// let waiting = homeserver.begin_device_authorization(&client, DeviceId::new()).await?;
    /// println!("type {} at {} within {:?}", waiting.user_code, waiting.verification_uri, waiting.left());
    /// let tokens = homeserver.finish_device_authorization(&client, waiting).await?;
    /// homeserver.set_oauth_tokens(tokens, client, None);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OAuthError::Unsupported`]; of the request.
    pub async fn begin_device_authorization(
        &self,
        client: &OAuthClient,
        device: OwnedDeviceId,
    ) -> Result<DeviceAuthorization, OAuthError> {
        let server = self.authorization_server_of(client).await?;
        let endpoint = server.metadata().device_authorization_endpoint.as_ref();
        let endpoint = endpoint.filter(|_| server.offers_device_codes());
        let endpoint = endpoint.ok_or(OAuthError::Unsupported { what: "device codes" })?;
        let form = form(&[("client_id", &client.client_id), ("scope", &server.scope(&device))]);
        let offered: Offered = self.post(endpoint, "device authorization", FORM, form, false).await?;
        offered
            .authorization(device)
            .ok_or_else(|| unreadable("device authorization").into())
    }

    /// Wait for the person: until the code was typed, was refused, or nobody typed it in time. A network that fails
    /// meanwhile is waited for.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver, us: mx_transport::OAuthClient, waiting: mx_transport::DeviceAuthorization) -> Result<(), mx_transport::OAuthError> {
    /// use mx_transport::OAuthError;
    ///
    /// match homeserver.finish_device_authorization(&us, waiting).await {
    ///     Ok(tokens) => homeserver.set_oauth_tokens(tokens, us, None),
    ///     Err(OAuthError::Denied) => println!("the person said no"),
    ///     Err(OAuthError::Expired) => println!("nobody typed the code in time: begin again"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OAuthError::Denied`], [`OAuthError::Expired`]; of the request, if it is refused for another reason.
    ///
    /// # Cancel safety
    /// The login may be done, and its tokens lost: the device is there and can log in again.
    pub async fn finish_device_authorization(
        &self,
        client: &OAuthClient,
        mut waiting: DeviceAuthorization,
    ) -> Result<Tokens, OAuthError> {
        let server = self.authorization_server_of(client).await?;
        let body = form(&[
            ("grant_type", DEVICE_CODE),
            ("device_code", &waiting.device_code),
            ("client_id", &client.client_id),
        ]);
        loop {
            if Instant::now() + waiting.interval >= waiting.until {
                return Err(OAuthError::Expired);
            }
            tokio::time::sleep(waiting.interval).await;
            let answer = self
                .post(&server.metadata().token_endpoint, TOKEN, FORM, body.clone(), false)
                .await;
            let error = match answer {
                Ok(granted) => return tokens(granted, None).map_err(Into::into),
                Err(error) => error,
            };
            match &error {
                RequestError::Api {
                    errcode: Some(code), ..
                } if code == "authorization_pending" => {}
                RequestError::Api {
                    errcode: Some(code), ..
                } if code == "slow_down" => waiting.slow_down(SLOWER),
                RequestError::Api {
                    errcode: Some(code), ..
                } if code == "access_denied" => return Err(OAuthError::Denied),
                RequestError::Api {
                    errcode: Some(code), ..
                } if code == "expired_token" => return Err(OAuthError::Expired),
                RequestError::Api { status, .. } if status.is_server_error() || status.as_u16() == 429 => {
                    waiting.slow_down(SLOWER);
                }
                RequestError::Transport(error) if error.is_transient() => waiting.slow_down(SLOWER),
                _ => return Err(error.into()),
            }
        }
    }

    /// What the authorization server gives for a refresh token.
    pub(super) async fn refresh_by_oauth(
        &self,
        client: &OAuthClient,
        refresh: RefreshToken,
    ) -> Result<Tokens, RequestError> {
        let server = self.authorization_server_of(client).await.map_err(as_request_error)?;
        let body = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.expose()),
            ("client_id", &client.client_id),
        ]);
        let granted = self
            .post(&server.metadata().token_endpoint, TOKEN, FORM, body, true)
            .await?;
        tokens(granted, Some(refresh))
    }

    /// Give the tokens back: the device is logged out then. A token that is not valid any more is no error.
    pub(super) async fn revoke_by_oauth(&self, client: &OAuthClient, held: &Tokens) -> Result<(), RequestError> {
        let server = self.authorization_server_of(client).await.map_err(as_request_error)?;
        let (token, kind) = match &held.refresh {
            Some(refresh) => (refresh.expose(), "refresh_token"),
            None => (held.access.expose(), "access_token"),
        };
        let body = form(&[
            ("token", token),
            ("token_type_hint", kind),
            ("client_id", &client.client_id),
        ]);
        let answer = self
            .post_raw(&server.metadata().revocation_endpoint, REVOCATION, FORM, body, true)
            .await;
        answer.map(|_| ())
    }

    /// The authorization server, if it is still the one of this client.
    async fn authorization_server_of(&self, client: &OAuthClient) -> Result<Arc<AuthorizationServer>, OAuthError> {
        let server = self.authorization_server().await?;
        if server.issuer() == client.issuer {
            return Ok(server);
        }
        Err(RequestError::build("the homeserver has another authorization server now: log in again").into())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        url: &Url,
        endpoint: &'static str,
        kind: &str,
        body: Bytes,
        repeatable: bool,
    ) -> Result<T, RequestError> {
        let answer = self.post_raw(url, endpoint, kind, body, repeatable).await?;
        // What is wrong with it could quote a token.
        serde_json::from_slice(answer.body()).map_err(|_| unreadable(endpoint))
    }

    /// Without the access token, which is none of the authorization server's business here.
    async fn post_raw(
        &self,
        url: &Url,
        endpoint: &'static str,
        kind: &str,
        body: Bytes,
        repeatable: bool,
    ) -> Result<http::Response<Bytes>, RequestError> {
        let mut request = http::Request::post(url.as_str())
            .header(CONTENT_TYPE, kind)
            .header(ACCEPT, "application/json")
            .body(body)
            .map_err(RequestError::build)?;
        request.extensions_mut().insert(Endpoint(endpoint));
        if repeatable {
            request.extensions_mut().insert(Idempotent);
        }
        let answer = caught(fetch(&self.0.transport, request, MAX_BYTES)).await?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(refused(&answer, endpoint))
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const TOKEN: &str = "the token endpoint";
const REVOCATION: &str = "the revocation endpoint";

fn form(fields: &[(&str, &str)]) -> Bytes {
    Bytes::from(Serializer::new(String::new()).extend_pairs(fields).finish())
}

fn tokens(granted: Granted, before: Option<RefreshToken>) -> Result<Tokens, RequestError> {
    granted.tokens(before).ok_or_else(|| unreadable(TOKEN))
}

fn unreadable(endpoint: &'static str) -> RequestError {
    RequestError::Decode {
        endpoint,
        source: "it does not hold what it should".into(),
    }
}

fn as_request_error(error: OAuthError) -> RequestError {
    match error {
        OAuthError::Request(error) => error,
        other => RequestError::build(other),
    }
}

#[cfg(test)]
mod tests;

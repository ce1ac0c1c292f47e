//! An authorization server beside the homeserver: metadata, registration, device codes, tokens, revocation.
//!
//! As in the client-server API, "OAuth 2.0 API", and as the Matrix Authentication Service does where that leaves room: a
//! refresh token may be used again until what was given for it is used, and a revoked token takes its device along.

use std::collections::BTreeMap;

use bytes::Bytes;
use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::{self, Refusal, Reply},
    router::Parts,
    state::State,
};

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const LIFETIME_MS: u64 = 300_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct OAuth {
    /// Where the homeserver is, as its clients write it. `None`: there is no authorization server.
    base_url: Option<String>,
    clients: BTreeMap<String, Value>,
    /// By device code.
    codes: BTreeMap<String, Code>,
}

#[derive(Clone, Debug)]
struct Code {
    user_code: String,
    device: String,
    /// `Some(None)`: somebody has denied it.
    typed: Option<Option<String>>,
}

/// The fields of a form.
fn fields(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| crate::router::percent_decoded(&text.replace('+', " "));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// A form for the log: without tokens and codes.
pub(crate) fn readable(body: &[u8]) -> Value {
    let hidden = |name: &str| matches!(name, "token" | "refresh_token" | "device_code");
    let fields = fields(body).into_iter();
    fields
        .map(|(name, value)| {
            if hidden(&name) {
                (name, "<hidden>".into())
            } else {
                (name, Value::from(value))
            }
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn refused(error: &str) -> Refusal {
    Refusal {
        status: 400,
        body: json!({"error": error, "error_description": "refused by the test homeserver"}),
    }
}

impl State {
    pub(crate) fn authorization_metadata(&self) -> Reply {
        let unknown = || Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request");
        let base = self.oauth.base_url.as_ref().ok_or_else(unknown)?;
        Ok(json!({
            "issuer": format!("{base}/oauth/"),
            "authorization_endpoint": format!("{base}/oauth/authorize"),
            "token_endpoint": format!("{base}/oauth/token"),
            "revocation_endpoint": format!("{base}/oauth/revoke"),
            "registration_endpoint": format!("{base}/oauth/register"),
            "device_authorization_endpoint": format!("{base}/oauth/device"),
            "account_management_uri": format!("{base}/oauth/account"),
            "account_management_actions_supported": ["org.matrix.device_view", "org.matrix.device_delete"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query", "fragment"],
            "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_CODE],
            "code_challenge_methods_supported": ["S256"],
        }))
    }

    /// Answer a request to the authorization server. `None`: it is none.
    pub(crate) fn of_authorization(&mut self, parts: &Parts) -> Option<http::Response<Bytes>> {
        let path: Vec<&str> = parts.path.iter().map(String::as_str).collect();
        let ["oauth", what] = path.as_slice() else { return None };
        self.oauth.base_url.as_ref()?;
        let form = fields(parts.request.body());
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let known = self.oauth.clients.contains_key(&field("client_id"));
        let reply = match *what {
            "register" => self.register_client(&parts.body),
            _ if !known => Err(refused("invalid_client")),
            "device" => self.give_code(&field("scope")),
            "token" if field("grant_type") == DEVICE_CODE => self.redeem_code(&field("device_code")),
            "token" if field("grant_type") == "refresh_token" => self.renew(&field("refresh_token")),
            "token" => Err(refused("unsupported_grant_type")),
            "revoke" => Ok(self.revoke(&field("token"))),
            _ => return None,
        };
        Some(reply::response(reply))
    }

    fn register_client(&mut self, body: &Value) -> Reply {
        let names_a_page = body["client_uri"]
            .as_str()
            .is_some_and(|page| page.starts_with("https://"));
        if !names_a_page || body["token_endpoint_auth_method"] != "none" {
            return Err(refused("invalid_client_metadata"));
        }
        let client = self.name("client-");
        self.oauth.clients.insert(client.clone(), body.clone());
        Ok(json!({"client_id": client}))
    }

    fn give_code(&mut self, scope: &str) -> Reply {
        let names: Vec<&str> = scope.split(' ').collect();
        let device = names
            .iter()
            .find_map(|name| name.strip_prefix("urn:matrix:client:device:"));
        let device = device.filter(|device| device.len() >= 10 && names.contains(&"urn:matrix:client:api:*"));
        let device = device.ok_or_else(|| refused("invalid_scope"))?.to_owned();
        let user_code = self.name("TYPE-");
        let device_code = format!("{}-of-the-test-homeserver", self.name("code-"));
        let page = format!("{}/oauth/link", self.oauth.base_url.as_deref().unwrap_or_default());
        let answer = json!({
            "device_code": device_code, "user_code": user_code, "verification_uri": page,
            "verification_uri_complete": format!("{page}?code={user_code}"), "expires_in": 600, "interval": 1,
        });
        let code = Code {
            user_code,
            device,
            typed: None,
        };
        self.oauth.codes.insert(device_code, code);
        Ok(answer)
    }

    fn redeem_code(&mut self, device_code: &str) -> Reply {
        let code = self
            .oauth
            .codes
            .get(device_code)
            .cloned()
            .ok_or_else(|| refused("expired_token"))?;
        let typed = code.typed.ok_or_else(|| refused("authorization_pending"))?;
        self.oauth.codes.remove(device_code);
        let user = typed.ok_or_else(|| refused("access_denied"))?;
        let body = json!({"device_id": code.device, "refresh_token": true});
        let answer = self.open_session(user, &body);
        Ok(granted(&answer))
    }

    fn renew(&mut self, refresh: &str) -> Reply {
        let answer = self
            .refresh(&json!({"refresh_token": refresh}))
            .map_err(|_| refused("invalid_grant"))?;
        Ok(granted(&answer))
    }

    fn revoke(&mut self, token: &str) -> Value {
        let by_refresh = self
            .refresh_tokens
            .get(token)
            .map(|held| (held.user.clone(), held.device.clone()));
        let by_access = self
            .tokens
            .get(token)
            .map(|held| (held.user.clone(), held.device.clone()));
        if let Some((user, device)) = by_refresh.or(by_access) {
            self.remove_device(&user, &device);
        }
        json!({})
    }
}

fn granted(answer: &Value) -> Value {
    json!({
        "access_token": answer["access_token"], "refresh_token": answer["refresh_token"], "token_type": "Bearer",
        "expires_in": answer["expires_in_ms"].as_u64().unwrap_or(LIFETIME_MS) / 1000, "scope": "urn:matrix:client:api:*",
    })
}

impl Homeserver {
    /// From now on, there is an authorization server beside the homeserver, whose clients reach both at this address.
    pub fn offer_oauth(&self, base_url: &str) {
        let mut state = lock(&self.0.state);
        state.oauth.base_url = Some(base_url.trim_end_matches('/').to_owned());
        state.token_lifetime_ms.get_or_insert(LIFETIME_MS);
    }

    /// The codes that wait to be typed.
    #[must_use]
    pub fn codes(&self) -> Vec<String> {
        let state = lock(&self.0.state);
        let waiting = state.oauth.codes.values().filter(|code| code.typed.is_none());
        waiting.map(|code| code.user_code.clone()).collect()
    }

    /// A person types a code, and approves the login as this user, or denies it.
    ///
    /// ```no_run
    /// # use mx_test_homeserver::Homeserver;
    /// # async fn example(server: Homeserver, builder: mx_e2ee::ClientBuilder) -> mx_e2ee::Result<()> {
    /// server.offer_oauth("http://localhost");
    /// let alice = server.register("alice", "password");
    /// let login = builder.login_with_oauth(Default::default(), |code| server.type_code(&code.user_code, Some(&alice)));
    /// assert_eq!(login.await?.user_id(), alice);
    /// # Ok(()) }
    /// ```
    pub fn type_code(&self, user_code: &str, user: Option<&UserId>) {
        for code in lock(&self.0.state).oauth.codes.values_mut() {
            if code.user_code == user_code {
                code.typed = Some(user.map(ToString::to_string));
            }
        }
    }

    /// Forget who the clients of the authorization server are.
    pub fn forget_oauth_clients(&self) {
        lock(&self.0.state).oauth.clients.clear();
    }
}

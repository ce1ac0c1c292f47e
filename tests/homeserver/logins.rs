//! The ways to log in: by password under any of a user's names, by a token of single sign-on, as an application service.

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

/// What may be logged in with, and under which names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logins {
    /// `None`: by password only.
    offered: Option<Vec<String>>,
    /// Tokens that log in once, and whom.
    tokens: BTreeMap<String, String>,
    /// Users by medium and address.
    addresses: BTreeMap<(String, String), String>,
    /// Who is before the page of single sign-on.
    visitor: Option<String>,
}

impl State {
    pub(crate) fn login_types(&self) -> Reply {
        let password = vec!["m.login.password".to_owned()];
        let flows = self.logins.offered.as_ref().unwrap_or(&password);
        let flows: Vec<Value> = flows.iter().map(|kind| json!({"type": kind})).collect();
        Ok(json!({"flows": flows}))
    }

    pub(crate) fn login(&mut self, parts: &Parts) -> Reply {
        let body = &parts.body;
        let kind = body["type"].as_str().unwrap_or_default();
        let offered = self.logins.offered.as_ref();
        let offered = offered.map_or(kind == "m.login.password", |offered| {
            offered.iter().any(|known| known == kind)
        });
        if kind == "m.login.application_service" {
            return self.login_of_appservice(parts);
        }
        if !offered {
            return Err(Refusal::new(400, "M_UNKNOWN", "Unknown login type"));
        }
        match kind {
            "m.login.token" => {
                let token = body["token"].as_str().unwrap_or_default();
                let user = self.logins.tokens.remove(token);
                let user = user.ok_or_else(|| Refusal::forbidden("Invalid login token"))?;
                Ok(self.open_session(user, body))
            }
            _ => self.login_by_password(body),
        }
    }

    pub(crate) fn login_by_password(&mut self, body: &Value) -> Reply {
        let user = self.named(body);
        let known = user.and_then(|user| self.users.get(&user).map(|known| (user, known)));
        match known {
            Some((user, known)) if body["password"].as_str() == Some(&known.password) => {
                if known.deactivated {
                    return Err(Refusal::new(
                        403,
                        "M_USER_DEACTIVATED",
                        "This account has been deactivated",
                    ));
                }
                Ok(self.open_session(user, body))
            }
            _ => Err(Refusal::forbidden("Invalid username or password")),
        }
    }

    /// Whom the identifier of a login means.
    fn named(&self, body: &Value) -> Option<String> {
        let identifier = &body["identifier"];
        let text = |name: &str| identifier[name].as_str().unwrap_or_default().to_owned();
        let by_address = |medium: String, address: String| self.logins.addresses.get(&(medium, address)).cloned();
        match identifier["type"].as_str() {
            Some("m.id.thirdparty") => by_address(text("medium"), text("address")),
            Some("m.id.phone") => by_address("msisdn".to_owned(), text("phone")),
            _ => {
                let name = identifier["user"].as_str().or_else(|| body["user"].as_str());
                Some(self.user_id(name.unwrap_or_default()))
            }
        }
    }

    /// The page of single sign-on: whoever is before it is sent back with a token.
    pub(crate) fn single_sign_on(&mut self, parts: &Parts) -> Option<http::Response<Bytes>> {
        let path: Vec<&str> = parts.path.iter().map(String::as_str).collect();
        let ["_matrix", "client", _, "login", "sso", "redirect", ..] = path.as_slice() else {
            return None;
        };
        let back = parts.query.iter().find(|(name, _)| name == "redirectUrl")?.1.clone();
        let user = self.logins.visitor.clone()?;
        let token = format!("{}-of-the-test-homeserver", self.name("login-token-"));
        self.logins.tokens.insert(token.clone(), user);
        let joint = if back.contains('?') { '&' } else { '?' };
        let mut answer = reply::raw(302, Bytes::new());
        let location = http::HeaderValue::try_from(format!("{back}{joint}loginToken={token}")).ok()?;
        answer.headers_mut().insert(http::header::LOCATION, location);
        Some(answer)
    }
}

impl Homeserver {
    /// From now on, these kinds of login are offered, and no others: `m.login.password`, `m.login.token`, `m.login.sso`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use mx_e2ee::Client;
    /// let server = mx_test_homeserver::Homeserver::new();
    /// server.offer_logins(&["m.login.sso", "m.login.token"]);
    /// let kinds = Client::builder().homeserver("http://localhost").transport(server.transport()).login_kinds().await?;
    /// assert!(kinds.sso && !kinds.password);
    /// # Ok(()) }
    /// ```
    pub fn offer_logins(&self, kinds: &[&str]) {
        lock(&self.0.state).logins.offered = Some(kinds.iter().map(|kind| (*kind).to_owned()).collect());
    }

    /// Another name of a user: an `email` address, or the digits of an `msisdn`.
    pub fn also_named(&self, user: &UserId, medium: &str, address: &str) {
        let name = (medium.to_owned(), address.to_owned());
        lock(&self.0.state).logins.addresses.insert(name, user.to_string());
    }

    /// From now on, this user is before the page of single sign-on.
    pub fn visit_single_sign_on(&self, user: &UserId) {
        lock(&self.0.state).logins.visitor = Some(user.to_string());
    }

    /// Close an account, as an administrator can: its logins are refused.
    pub fn deactivate(&self, user: &UserId) {
        if let Some(user) = lock(&self.0.state).users.get_mut(user.as_str()) {
            user.deactivated = true;
        }
    }

    /// What the pages of server names say where the homeserver is. `None`: there is no page.
    pub fn set_well_known(&self, page: Option<Value>) {
        lock(&self.0.state).well_known = page;
    }
}

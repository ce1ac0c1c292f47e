//! Application services: one token for many users, each with devices of its own.
//!
//! As in the application service API, "Identity assertion" and "Client-Server v3 API Extensions", with the devices of
//! Matrix 1.17 (MSC4326, MSC4190).

use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    router::Parts,
    state::{Session, State},
};

/// An application service that is registered here.
#[derive(Clone, Debug)]
pub(crate) struct AppService {
    as_token: String,
    sender: String,
    /// Users whose localparts begin so are its own.
    prefix: String,
}

impl State {
    fn appservice(&self, parts: &Parts) -> Option<&AppService> {
        let token = parts.token.as_deref()?;
        self.appservices.iter().find(|known| known.as_token == token)
    }

    pub(crate) fn is_appservice(&self, parts: &Parts) -> bool {
        self.appservice(parts).is_some()
    }

    fn owns(&self, service: &AppService, user: &str) -> bool {
        let (prefix, rest) = (format!("@{}", service.prefix), format!(":{}", self.server_name));
        user == service.sender || (user.starts_with(&prefix) && user.ends_with(&rest))
    }

    /// As whom an application service speaks. `None`: the token is that of none.
    pub(crate) fn asserted(&self, parts: &Parts) -> Option<Result<Session, Refusal>> {
        let service = self.appservice(parts)?;
        let value = |wanted: &str| {
            parts
                .query
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
        };
        let user = value("user_id").unwrap_or_else(|| service.sender.clone());
        let Some(known) = self.users.get(&user).filter(|_| self.owns(service, &user)) else {
            let error = "Application service cannot masquerade as this user";
            return Some(Err(Refusal::forbidden(error)));
        };
        let device = value("device_id").or_else(|| value("org.matrix.msc3202.device_id"));
        if let Some(device) = device.as_ref().filter(|device| !known.devices.contains_key(*device)) {
            let error = format!("Application service trying to use a device that doesn't exist ({device})");
            return Some(Err(Refusal::new(400, "M_UNKNOWN_DEVICE", &error)));
        }
        Some(Ok(Session {
            user,
            device: device.unwrap_or_default(),
            expired: None,
            expires_at_ms: None,
        }))
    }

    /// Whom this request may make or log in: a user of the application service whose token it carries.
    fn own_user(&self, parts: &Parts, name: &str) -> Result<String, Refusal> {
        let missing = || Refusal::new(401, "M_MISSING_TOKEN", "Missing access token");
        let service = self.appservice(parts).ok_or_else(missing)?;
        let user = self.user_id(name);
        if self.owns(service, &user) {
            Ok(user)
        } else {
            Err(Refusal::new(
                400,
                "M_EXCLUSIVE",
                "User is not in the namespace of this application service",
            ))
        }
    }

    pub(crate) fn login_of_appservice(&mut self, parts: &Parts) -> Reply {
        let name = parts.body["identifier"]["user"]
            .as_str()
            .or_else(|| parts.body["user"].as_str());
        let user = self.own_user(parts, name.unwrap_or_default())?;
        if !self.users.contains_key(&user) {
            return Err(Refusal::forbidden("Invalid username"));
        }
        Ok(self.open_session(user, &parts.body))
    }

    pub(crate) fn register_by_appservice(&mut self, parts: &Parts) -> Reply {
        let name = parts.body["username"].as_str().unwrap_or_default().to_owned();
        let user = self.own_user(parts, &name)?;
        if self.users.contains_key(&user) {
            return Err(Refusal::new(400, "M_USER_IN_USE", "User ID already taken."));
        }
        self.register_user(&name, "");
        if parts.body["inhibit_login"] == true {
            return Ok(json!({"user_id": user}));
        }
        Ok(self.open_session(user, &parts.body))
    }

    /// `PUT /devices/{device}`: an application service makes a device so, and anybody else renames one.
    pub(crate) fn put_device(&mut self, session: &Session, parts: &Parts, device: &str, body: &Value) -> Reply {
        let may_make = self.is_appservice(parts);
        let user = self.users.get_mut(&session.user);
        let devices = user
            .map(|user| &mut user.devices)
            .ok_or_else(|| Refusal::not_found("No such user"))?;
        let is_new = !devices.contains_key(device);
        if is_new && !may_make {
            return Err(Refusal::not_found("No such device"));
        }
        let entry = devices.entry(device.to_owned()).or_default();
        if let Some(name) = body["display_name"].as_str() {
            entry.display_name = Some(name.to_owned());
        }
        if is_new {
            self.note_device_change(&session.user);
        }
        Ok(json!({}))
    }
}

impl Homeserver {
    /// Register an application service: its token, its own user, and how the localparts of all its users begin.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use mx_e2ee::Fleet;
    /// use ruma::user_id;
    ///
    /// let server = mx_test_homeserver::Homeserver::new();
    /// server.add_appservice("as_token", "bots", "bot.");
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// let fleet = Fleet::new("http://localhost", "as_token", directory, server.transport());
    /// let one = fleet.bot(user_id!("@bot.one:localhost")).await?;
    /// assert!(server.has_user(one.user_id()));
    /// one.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn add_appservice(&self, as_token: &str, sender_localpart: &str, prefix: &str) {
        let mut state = lock(&self.0.state);
        let sender = state.register_user(sender_localpart, "");
        state.appservices.push(AppService {
            as_token: as_token.to_owned(),
            sender,
            prefix: prefix.to_owned(),
        });
    }

    /// Whether there is such a user.
    #[must_use]
    pub fn has_user(&self, user: &UserId) -> bool {
        lock(&self.0.state).users.contains_key(user.as_str())
    }
}

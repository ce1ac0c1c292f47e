//! Logging in and out, registration, and a user's devices.

use serde_json::{Value, json};

use crate::{
    reply::{Refusal, Reply},
    router::Parts,
    state::{Session, State, User},
};

impl State {
    pub(crate) fn user_id(&self, localpart: &str) -> String {
        if localpart.starts_with('@') {
            localpart.to_owned()
        } else {
            format!("@{localpart}:{}", self.server_name)
        }
    }

    pub(crate) fn register_user(&mut self, localpart: &str, password: &str) -> String {
        let user = self.user_id(localpart);
        self.users.entry(user.clone()).or_insert_with(|| User {
            password: password.to_owned(),
            ..User::default()
        });
        user
    }

    pub(crate) fn open_session(&mut self, user: String, body: &Value) -> Value {
        let device = match body["device_id"].as_str() {
            Some(device) => device.to_owned(),
            None => self.name("DEVICE"),
        };
        let entry = self
            .users
            .entry(user.clone())
            .or_default()
            .devices
            .entry(device.clone())
            .or_default();
        if let Some(name) = body["initial_device_display_name"].as_str() {
            entry.display_name.get_or_insert_with(|| name.to_owned());
        }
        self.revoke_tokens(&user, &device);
        let session = Session {
            user: user.clone(),
            device: device.clone(),
            expired: None,
            expires_at_ms: None,
        };
        let mut answer = self.issue(session, body["refresh_token"] == true);
        answer["user_id"] = user.into();
        answer["device_id"] = device.into();
        answer["home_server"] = self.server_name.clone().into();
        answer
    }

    pub(crate) fn register(&mut self, parts: &Parts) -> Reply {
        let body = &parts.body;
        if body["type"] == "m.login.application_service" {
            return self.register_by_appservice(parts);
        }
        if body["auth"]["type"] != "m.login.dummy" {
            let flows = json!({"session": "registration", "flows": [{"stages": ["m.login.dummy"]}], "params": {}});
            return Err(Refusal {
                status: 401,
                body: flows,
            });
        }
        let name = body["username"].as_str().unwrap_or_default();
        let user = self.user_id(name);
        if name.is_empty() || self.users.contains_key(&user) {
            return Err(Refusal::new(400, "M_USER_IN_USE", "User ID already taken."));
        }
        self.register_user(name, body["password"].as_str().unwrap_or_default());
        Ok(self.open_session(user, body))
    }

    pub(crate) fn logout(&mut self, session: &Session) -> Reply {
        self.remove_device(&session.user, &session.device);
        Ok(json!({}))
    }

    /// As when its owner deletes it: tokens and keys are gone, and others are told.
    pub(crate) fn remove_device(&mut self, user: &str, device: &str) {
        self.revoke_tokens(user, device);
        if let Some(known) = self.users.get_mut(user)
            && known.devices.remove(device).is_some()
        {
            self.note_device_change(user);
        }
    }

    pub(crate) fn devices(&self, session: &Session) -> Reply {
        let devices = self.users.get(&session.user).map(|user| {
            user.devices
                .iter()
                .map(|(id, device)| json!({"device_id": id, "display_name": device.display_name}))
                .collect::<Vec<_>>()
        });
        Ok(json!({"devices": devices.unwrap_or_default()}))
    }

    /// Deleting a device asks who is there first.
    pub(crate) fn delete_device(&mut self, session: &Session, parts: &Parts, device: &str) -> Reply {
        if !self.is_appservice(parts) {
            self.authenticated(session, &parts.body["auth"])?;
        }
        self.remove_device(&session.user, device);
        Ok(json!({}))
    }

    pub(crate) fn put_filter(&mut self, session: &Session, filter: Value) -> Reply {
        let id = self.name("filter-");
        if let Some(user) = self.users.get_mut(&session.user) {
            user.filters.insert(id.clone(), filter);
        }
        Ok(json!({"filter_id": id}))
    }
}

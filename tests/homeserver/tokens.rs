//! Access tokens that expire, and what they are renewed with.
//!
//! As in the client-server API, "Refreshing access tokens", and as Synapse 1.163.2 does where that leaves room: the old
//! refresh token is valid until what was given for it is used, and forbidden then; of several renewals with one refresh
//! token only the last one counts. The old access token ends with it, where Synapse lets it expire.

use std::time::Duration;

use ruma::{DeviceId, UserId};
use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    state::{Renewable, Session, State},
};

impl State {
    /// Give a device an access token, and a refresh token when it asks for one and tokens expire here.
    pub(crate) fn issue(&mut self, session: Session, renewable: bool) -> Value {
        // Long enough to be found by a search for it, and no part of another one.
        let access = format!("{}-of-the-test-homeserver", self.name("token-"));
        let lifetime = self.token_lifetime_ms.filter(|_| renewable);
        let session = Session {
            expires_at_ms: lifetime.map(|lifetime| self.now().saturating_add(lifetime)),
            ..session
        };
        let mut answer = json!({"access_token": access});
        if let Some(lifetime) = lifetime {
            let refresh = format!("{}-of-the-test-homeserver", self.name("refresh-"));
            answer["expires_in_ms"] = lifetime.into();
            answer["refresh_token"] = refresh.clone().into();
            let renewable = Renewable {
                user: session.user.clone(),
                device: session.device.clone(),
                access: access.clone(),
                next: None,
                spent: false,
                revoked: None,
            };
            self.refresh_tokens.insert(refresh, renewable);
        }
        self.tokens.insert(access, session);
        answer
    }

    /// `POST /refresh`.
    pub(crate) fn refresh(&mut self, body: &Value) -> Reply {
        let given = body["refresh_token"].as_str().unwrap_or_default().to_owned();
        let mut unknown = Refusal::new(401, "M_UNKNOWN_TOKEN", "Unrecognised refresh token");
        let Some(renewable) = self.refresh_tokens.get_mut(&given) else {
            return Err(unknown);
        };
        if renewable.spent {
            return Err(Refusal::forbidden("refresh token isn't valid anymore"));
        }
        if let Some(soft) = renewable.revoked {
            unknown.body["soft_logout"] = soft.into();
            return Err(unknown);
        }
        let unused = renewable.next.take();
        let session = Session {
            user: renewable.user.clone(),
            device: renewable.device.clone(),
            expired: None,
            expires_at_ms: None,
        };
        if let Some((access, refresh)) = unused {
            self.tokens.remove(&access);
            self.refresh_tokens.remove(&refresh);
        }
        self.token_is_used(None, Some(&given));
        let answer = self.issue(session, true);
        let pair = (answer["access_token"].as_str(), answer["refresh_token"].as_str());
        if let ((Some(access), Some(refresh)), Some(renewable)) = (pair, self.refresh_tokens.get_mut(&given)) {
            renewable.next = Some((access.to_owned(), refresh.to_owned()));
        }
        if let Some(soft) = self.refreshes_once
            && let Some(renewable) = self.refresh_tokens.get_mut(&given)
        {
            renewable.revoked = Some(soft);
        }
        Ok(answer)
    }

    /// One of these is used: what it was given for is not valid any more.
    pub(crate) fn token_is_used(&mut self, access: Option<&str>, refresh: Option<&str>) {
        let before = self.refresh_tokens.iter().find(|(_, renewable)| {
            let next = renewable.next.as_ref();
            next.is_some_and(|next| Some(next.0.as_str()) == access || Some(next.1.as_str()) == refresh)
        });
        if let Some(old) = before.map(|(old, _)| old.clone())
            && let Some(renewable) = self.refresh_tokens.get_mut(&old)
        {
            renewable.spent = true;
            renewable.next = None;
            self.tokens.remove(&renewable.access);
        }
    }

    /// All tokens of a device are worth nothing from now on.
    pub(crate) fn revoke_tokens(&mut self, user: &str, device: &str) {
        self.tokens
            .retain(|_, session| session.user != user || session.device != device);
        self.refresh_tokens
            .retain(|_, renewable| renewable.user != user || renewable.device != device);
    }
}

impl Homeserver {
    /// From now on, logins that ask for it are given access tokens that expire after `lifetime` on the clock of this
    /// homeserver, and refresh tokens to renew them with.
    pub fn tokens_last(&self, lifetime: Duration) {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        lock(&self.0.state).token_lifetime_ms = Some(lifetime_ms);
    }

    /// Let the tokens of a device expire. `soft`: the device stays. Its refresh token is valid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_test_homeserver::Homeserver;
    /// use mx_transport::AccessToken;
    /// use ruma::{api::client::account::whoami, device_id};
    ///
    /// let server = Homeserver::new();
    /// let alice = server.register("alice", "password");
    /// let client = mx_transport::Homeserver::new("http://localhost", server.transport())?;
    /// client.set_access_token(AccessToken::new(server.token(&alice, "PHONE"))?);
    /// server.expire_token(&alice, device_id!("PHONE"), true);
    /// assert_eq!(client.send(whoami::v3::Request::new()).await.unwrap_err().code(), "soft_logged_out");
    /// # Ok(()) }
    /// ```
    pub fn expire_token(&self, user: &UserId, device: &DeviceId, soft: bool) {
        let mut state = lock(&self.0.state);
        for session in state.tokens.values_mut() {
            if session.user == user.as_str() && session.device == device.as_str() {
                session.expired = Some(soft);
            }
        }
    }

    /// From now on a refresh token is refused once it was used, whether its answer arrived or not. `soft`: the device stays.
    pub fn refresh_tokens_work_once(&self, soft: bool) {
        lock(&self.0.state).refreshes_once = Some(soft);
    }

    /// Refuse the refresh tokens of a device. `soft`: the device stays.
    pub fn revoke_refresh_token(&self, user: &UserId, device: &DeviceId, soft: bool) {
        let mut state = lock(&self.0.state);
        for renewable in state.refresh_tokens.values_mut() {
            if renewable.user == user.as_str() && renewable.device == device.as_str() {
                renewable.revoked = Some(soft);
            }
        }
    }
}

#[cfg(test)]
mod tests;

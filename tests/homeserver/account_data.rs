//! What a user keeps on the homeserver beside rooms: secret storage lives there.

use ruma::UserId;
use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    state::{Session, State},
};

impl State {
    pub(crate) fn put_account_data(&mut self, session: &Session, user: &str, kind: &str, content: &Value) -> Reply {
        if user != session.user {
            return Err(Refusal::forbidden("Cannot add account data for other users."));
        }
        if let Some(known) = self.users.get_mut(user) {
            known.account_data.insert(kind.to_owned(), content.clone());
        }
        Ok(json!({}))
    }

    pub(crate) fn account_data(&self, session: &Session, user: &str, kind: &str) -> Reply {
        if user != session.user {
            return Err(Refusal::forbidden("Cannot get account data for other users."));
        }
        let known = self.users.get(user).and_then(|known| known.account_data.get(kind));
        known
            .cloned()
            .ok_or_else(|| Refusal::not_found("Account data not found"))
    }
}

impl Homeserver {
    /// What a user keeps under a type.
    #[must_use]
    pub fn account_data_of(&self, user: &UserId, kind: &str) -> Option<Value> {
        let state = lock(&self.0.state);
        state.users.get(user.as_str())?.account_data.get(kind).cloned()
    }

    /// Keep something under a type, as another device of the user would, or a homeserver that lies.
    pub fn set_account_data(&self, user: &UserId, kind: &str, content: Value) {
        let mut state = lock(&self.0.state);
        if let Some(known) = state.users.get_mut(user.as_str()) {
            known.account_data.insert(kind.to_owned(), content);
        }
    }
}

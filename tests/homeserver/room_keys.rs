//! The key backup of a user: versions, and room keys that their owner has encrypted for one of them.

use std::collections::BTreeMap;

use ruma::{RoomId, UserId};
use serde_json::{Map, Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    router::Parts,
    state::{Session, State},
};

/// One version of a backup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backup {
    pub(crate) algorithm: Value,
    pub(crate) auth_data: Value,
    /// By room and session.
    pub(crate) keys: BTreeMap<String, BTreeMap<String, Value>>,
    pub(crate) etag: u64,
}

impl Backup {
    fn count(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }

    fn state(&self) -> Value {
        json!({"etag": self.etag.to_string(), "count": self.count()})
    }

    /// The better key of a session stays, as the specification has it.
    fn put(&mut self, room: &str, session: &str, key: &Value) {
        let rank = |key: &Value| {
            let number = |field: &str| key[field].as_u64().unwrap_or(u64::MAX);
            let verified = key["is_verified"].as_bool().unwrap_or(false);
            (!verified, number("first_message_index"), number("forwarded_count"))
        };
        let room = self.keys.entry(room.to_owned()).or_default();
        if room.get(session).is_none_or(|held| rank(key) < rank(held)) {
            room.insert(session.to_owned(), key.clone());
            self.etag += 1;
        }
    }
}

fn none() -> Refusal {
    Refusal::not_found("No backup found")
}

fn version_of(parts: &Parts) -> &str {
    let version = parts.query.iter().find(|(name, _)| name == "version");
    version.map(|(_, version)| version.as_str()).unwrap_or_default()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

impl State {
    pub(crate) fn create_backup(&mut self, session: &Session, body: &Value) -> Reply {
        let version = self.users.get(&session.user).map_or(1, |user| user.last_backup + 1);
        if let Some(user) = self.users.get_mut(&session.user) {
            user.last_backup = version;
            user.backups.insert(
                version,
                Backup {
                    algorithm: body["algorithm"].clone(),
                    auth_data: body["auth_data"].clone(),
                    ..Backup::default()
                },
            );
        }
        Ok(json!({"version": version.to_string()}))
    }

    /// A version; without one, the newest.
    pub(crate) fn backup(&self, session: &Session, version: Option<&str>) -> Reply {
        let backups = self.users.get(&session.user).map(|user| &user.backups);
        let found = match version {
            None => backups.and_then(|backups| backups.last_key_value()),
            Some(version) => {
                let version = version.parse().unwrap_or(0);
                backups.and_then(|backups| backups.get_key_value(&version))
            }
        };
        let (version, backup) = found.ok_or_else(none)?;
        let mut answer = backup.state();
        answer["version"] = version.to_string().into();
        answer["algorithm"] = backup.algorithm.clone();
        answer["auth_data"] = backup.auth_data.clone();
        Ok(answer)
    }

    fn backup_mut(&mut self, session: &Session, version: &str) -> Result<&mut Backup, Refusal> {
        let version = version.parse().unwrap_or(0);
        let user = self.users.get_mut(&session.user).ok_or_else(none)?;
        user.backups.get_mut(&version).ok_or_else(none)
    }

    pub(crate) fn update_backup(&mut self, session: &Session, version: &str, body: &Value) -> Reply {
        let backup = self.backup_mut(session, version)?;
        if backup.algorithm != body["algorithm"] {
            return Err(Refusal::new(400, "M_INVALID_PARAM", "Algorithm does not match"));
        }
        backup.auth_data = body["auth_data"].clone();
        Ok(json!({}))
    }

    pub(crate) fn delete_backup(&mut self, session: &Session, version: &str) -> Reply {
        self.backup_mut(session, version)?;
        if let Some(user) = self.users.get_mut(&session.user) {
            user.backups.remove(&version.parse().unwrap_or(0));
        }
        Ok(json!({}))
    }

    /// Keys may be put into the newest version only.
    pub(crate) fn put_room_keys(&mut self, session: &Session, parts: &Parts, path: &[&str]) -> Reply {
        let version = version_of(parts);
        let user = self.users.get(&session.user).ok_or_else(none)?;
        let newest = user
            .backups
            .last_key_value()
            .map(|(newest, _)| newest.to_string())
            .ok_or_else(none)?;
        if newest != version {
            let mut refusal = Refusal::new(403, "M_WRONG_ROOM_KEYS_VERSION", "Wrong backup version.");
            refusal.body["current_version"] = newest.into();
            return Err(refusal);
        }
        let backup = self.backup_mut(session, version)?;
        let body = &parts.body;
        match path {
            [] => {
                for (room, keys) in object(&body["rooms"]) {
                    for (id, key) in object(&keys["sessions"]) {
                        backup.put(&room, &id, &key);
                    }
                }
            }
            [room] => {
                for (id, key) in object(&body["sessions"]) {
                    backup.put(room, &id, &key);
                }
            }
            [room, id, ..] => backup.put(room, id, body),
        }
        Ok(backup.state())
    }

    pub(crate) fn room_keys(&mut self, session: &Session, parts: &Parts, path: &[&str]) -> Reply {
        let backup = self.backup_mut(session, version_of(parts))?;
        let of_room = |room: &str| backup.keys.get(room).cloned().unwrap_or_default();
        match path {
            [] => {
                let rooms = backup
                    .keys
                    .keys()
                    .map(|room| (room.clone(), json!({"sessions": of_room(room)})));
                Ok(json!({"rooms": rooms.collect::<Map<_, _>>()}))
            }
            [room] => Ok(json!({"sessions": of_room(room)})),
            [room, id, ..] => of_room(room)
                .get(*id)
                .cloned()
                .ok_or_else(|| Refusal::not_found("No room_keys found")),
        }
    }
}

impl Homeserver {
    /// The room keys in the newest backup of a user, by room and session.
    #[must_use]
    pub fn backed_up(&self, user: &UserId) -> BTreeMap<String, BTreeMap<String, Value>> {
        let state = lock(&self.0.state);
        let backup = state
            .users
            .get(user.as_str())
            .and_then(|user| user.backups.last_key_value());
        backup.map(|(_, backup)| backup.keys.clone()).unwrap_or_default()
    }

    /// Put a room key into the newest backup of a user, whatever is there.
    pub fn set_backed_up(&self, user: &UserId, room: &RoomId, session: &str, key: Value) {
        let mut state = lock(&self.0.state);
        let user = state.users.get_mut(user.as_str());
        if let Some(mut backup) = user.and_then(|user| user.backups.last_entry()) {
            let keys = backup.get_mut().keys.entry(room.to_string()).or_default();
            keys.insert(session.to_owned(), key);
        }
    }

    /// Make a backup of a user, as another device would, or somebody who would like to read along. Returns its version.
    pub fn new_backup(&self, user: &UserId, algorithm: &str, auth_data: Value) -> String {
        let session = Session {
            user: user.to_string(),
            device: String::new(),
            expired: None,
            expires_at_ms: None,
        };
        let body = json!({"algorithm": algorithm, "auth_data": auth_data});
        let made = lock(&self.0.state).create_backup(&session, &body).unwrap_or_default();
        made["version"].as_str().unwrap_or_default().to_owned()
    }

    /// Delete the newest backup of a user.
    pub fn drop_backup(&self, user: &UserId) {
        let mut state = lock(&self.0.state);
        if let Some(user) = state.users.get_mut(user.as_str()) {
            user.backups.pop_last();
        }
    }
}

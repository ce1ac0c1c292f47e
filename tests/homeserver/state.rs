//! What the homeserver knows. One structure behind one lock: the brain.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use crate::{
    appservice::AppService, interactive::Interactive, logins::Logins, oauth::OAuth, room_keys::Backup,
    sliding::Connection,
};

/// The whole of a homeserver.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) server_name: String,
    pub(crate) users: BTreeMap<String, User>,
    /// Access tokens, and whose they are.
    pub(crate) tokens: BTreeMap<String, Session>,
    /// Refresh tokens, and what was given for them.
    pub(crate) refresh_tokens: BTreeMap<String, Renewable>,
    /// How long access tokens last that can be renewed. `None`: for ever.
    pub(crate) token_lifetime_ms: Option<u64>,
    /// A refresh token that was used is refused from then on, `soft` or not. `None`: it is valid until what was given for it
    /// is used.
    pub(crate) refreshes_once: Option<bool>,
    pub(crate) rooms: BTreeMap<String, Room>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// Counts everything that happens; sync tokens are positions in it.
    pub(crate) position: u64,
    /// Names of tokens, rooms and events.
    pub(crate) counter: u64,
    /// Who changed devices, and when.
    pub(crate) device_changes: Vec<(u64, String)>,
    pub(crate) now_ms: Option<u64>,
    /// Simplified sliding sync is offered.
    pub(crate) slides: bool,
    /// There are no dehydrated devices here.
    pub(crate) hides_dehydration: bool,
    /// Files by their addresses.
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) max_file_bytes: Option<u64>,
    pub(crate) interactive: Interactive,
    pub(crate) logins: Logins,
    pub(crate) oauth: OAuth,
    pub(crate) appservices: Vec<AppService>,
    /// What the page of the server's name says.
    pub(crate) well_known: Option<Value>,
}

/// An access token's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) device: String,
    /// The token expired; a soft logout leaves the device.
    pub(crate) expired: Option<bool>,
    pub(crate) expires_at_ms: Option<u64>,
}

/// A refresh token, its device, and the access token that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Renewable {
    pub(crate) user: String,
    pub(crate) device: String,
    pub(crate) access: String,
    /// What was given for it last, and not used yet: an access token and a refresh token.
    pub(crate) next: Option<(String, String)>,
    /// What was given for it is used.
    pub(crate) spent: bool,
    /// It was revoked; a soft logout leaves the device.
    pub(crate) revoked: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    pub(crate) password: String,
    pub(crate) deactivated: bool,
    pub(crate) devices: BTreeMap<String, Device>,
    pub(crate) filters: BTreeMap<String, Value>,
    /// `master_key`, `self_signing_key`, `user_signing_key`.
    pub(crate) cross_signing: BTreeMap<String, Value>,
    pub(crate) account_data: BTreeMap<String, Value>,
    pub(crate) backups: BTreeMap<u64, Backup>,
    /// The id of the dehydrated device, which is among the devices, with its data.
    pub(crate) dehydrated: Option<(String, Value)>,
    /// The number of the newest backup that ever was.
    pub(crate) last_backup: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) display_name: Option<String>,
    pub(crate) keys: Option<Value>,
    /// In the order of their upload, which is the order in which they are claimed.
    pub(crate) one_time_keys: Vec<(String, Value)>,
    pub(crate) fallback_keys: BTreeMap<String, Fallback>,
    pub(crate) to_device: Vec<(u64, Value)>,
    /// Sliding syncs, by the names of their connections.
    pub(crate) connections: BTreeMap<String, Connection>,
    /// Transaction ids, with the answers that they had.
    pub(crate) transactions: BTreeMap<String, Value>,
}

#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    pub(crate) id: String,
    pub(crate) key: Value,
    pub(crate) used: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    pub(crate) events: Vec<Event>,
    /// The newest event of each type and state key.
    pub(crate) state: BTreeMap<(String, String), usize>,
}

/// An event, with its place in the order of everything.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) position: u64,
    pub(crate) json: Value,
    /// Who sent it under which transaction id.
    pub(crate) sent_by: Option<(String, String, String)>,
}

impl State {
    /// The next position in the order of everything.
    pub(crate) fn tick(&mut self) -> u64 {
        self.position += 1;
        self.position
    }

    /// A name that was not given before.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{}", self.counter)
    }

    pub(crate) fn now(&self) -> u64 {
        self.now_ms.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        })
    }

    pub(crate) fn device(&mut self, session: &Session) -> Option<&mut Device> {
        self.users.get_mut(&session.user)?.devices.get_mut(&session.device)
    }

    pub(crate) fn note_device_change(&mut self, user: &str) {
        let position = self.tick();
        self.device_changes.push((position, user.to_owned()));
    }

    /// Put an event into a room, as state where it has a state key.
    pub(crate) fn append(
        &mut self,
        room_id: &str,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
        sent_by: Option<(String, String, String)>,
    ) -> String {
        let event_id = self.name("$event-");
        let position = self.tick();
        let mut json = serde_json::json!({
            "type": event_type,
            "event_id": event_id,
            "sender": sender,
            "origin_server_ts": self.now(),
            "room_id": room_id,
            "content": content,
        });
        let room = self.rooms.entry(room_id.to_owned()).or_default();
        if let Some(state_key) = state_key {
            json["state_key"] = state_key.into();
            let before = room
                .state
                .insert((event_type.to_owned(), state_key.to_owned()), room.events.len());
            if let Some(before) = before.and_then(|index| room.events.get(index)) {
                json["unsigned"] = serde_json::json!({"prev_content": before.json["content"], "replaces_state": before.json["event_id"]});
            }
        }
        room.events.push(Event {
            position,
            json,
            sent_by,
        });
        event_id
    }

    /// Users who share an encrypted room with `user`, and `user`.
    pub(crate) fn shares_rooms_with(&self, user: &str) -> BTreeSet<String> {
        let mut users: BTreeSet<String> = self
            .rooms
            .values()
            .filter(|room| room.membership(user) == "join" && room.content("m.room.encryption", "").is_some())
            .flat_map(Room::present)
            .collect();
        users.insert(user.to_owned());
        users
    }
}

impl Room {
    /// A piece of the room's state.
    pub(crate) fn content(&self, event_type: &str, state_key: &str) -> Option<&Value> {
        let index = self.state.get(&(event_type.to_owned(), state_key.to_owned()))?;
        self.events.get(*index).map(|event| &event.json["content"])
    }

    /// `leave` for who was never there.
    pub(crate) fn membership(&self, user: &str) -> &str {
        self.content("m.room.member", user)
            .and_then(|content| content["membership"].as_str())
            .unwrap_or("leave")
    }

    /// Who joined or is invited.
    pub(crate) fn present(&self) -> Vec<String> {
        self.state
            .keys()
            .filter(|(event_type, user)| {
                event_type == "m.room.member" && matches!(self.membership(user), "join" | "invite")
            })
            .map(|(_, user)| user.clone())
            .collect()
    }

    /// State events as they were when `position` was the newest.
    pub(crate) fn state_at(&self, position: u64) -> Vec<&Event> {
        let mut state: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
        for event in self.events.iter().take_while(|event| event.position <= position) {
            if let (Some(kind), Some(key)) = (event.json["type"].as_str(), event.json["state_key"].as_str()) {
                state.insert((kind, key), event);
            }
        }
        state.into_values().collect()
    }
}

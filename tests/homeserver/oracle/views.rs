//! What each device was really shown: sync tokens (I11), members and devices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{Call, Found, Invariant, Owner};

/// What one device was shown.
#[derive(Clone, Debug, Default)]
struct View {
    tokens: BTreeSet<String>,
    /// By room and user, the membership.
    members: BTreeMap<String, BTreeMap<String, String>>,
    devices: BTreeMap<String, BTreeSet<String>>,
    /// Who sent it something encrypted: an answer may mend a broken session, wherever the two meet.
    writers: BTreeSet<String>,
}

/// What each device was shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Views(HashMap<Owner, View>);

impl Views {
    pub(super) fn request(&mut self, call: &Call<'_>) -> Found {
        let name = match (call.parts.is_sync(), call.parts.is_sliding()) {
            (true, _) => "since",
            (_, true) => "pos",
            _ => return Found::new(),
        };
        let since = call.parts.query.iter().find(|(given, _)| given == name);
        let Some((_, since)) = since else {
            return Found::new();
        };
        let view = self.0.entry(call.owner.clone()).or_default();
        if view.tokens.contains(since) {
            return Found::new();
        }
        let words = format!("a sync goes on from {since:?}, which this device was never given");
        vec![(Invariant::I11, words)]
    }

    pub(super) fn answered(&mut self, call: &Call<'_>, answer: &Value) {
        let view = self.0.entry(call.owner.clone()).or_default();
        match (call.parts.method.as_str(), call.parts.endpoint().as_slice()) {
            ("GET", ["sync"]) => view.sync(&call.owner.0, answer),
            ("POST", ["org.matrix.simplified_msc3575", "sync"]) => view.sliding(answer),
            ("GET", ["rooms", room, "members"]) if call.parts.query.is_empty() => {
                view.members.remove(*room);
                view.members(room, &answer["chunk"]);
            }
            ("POST", ["keys", "query"]) => view.devices(answer),
            _ => {}
        }
    }

    pub(super) fn retain(&mut self, lives: impl Fn(&Owner) -> bool) {
        self.0.retain(|owner, _| lives(owner));
    }

    /// Whether `owner` was shown that `user` is in the room or invited. `None`: it was shown nothing of them.
    pub(super) fn present(&self, owner: &Owner, room: &str, user: &str) -> Option<bool> {
        let membership = self.0.get(owner)?.members.get(room)?.get(user)?;
        Some(matches!(membership.as_str(), "join" | "invite"))
    }

    /// Whether `owner` was shown that a device is not there any more.
    pub(super) fn gone(&self, owner: &Owner, (user, device): &Owner) -> bool {
        let devices = self.0.get(owner).and_then(|view| view.devices.get(user));
        devices.is_some_and(|devices| !devices.contains(device))
    }

    /// Whether `owner` was given something encrypted from `user`.
    pub(super) fn was_written_to_by(&self, owner: &Owner, user: &str) -> bool {
        self.0.get(owner).is_some_and(|view| view.writers.contains(user))
    }

    /// The rooms of which `owner` was shown that `user` is in them or invited.
    pub(super) fn rooms_with(&self, owner: &Owner, user: &str) -> Vec<&str> {
        let Some(view) = self.0.get(owner) else {
            return Vec::new();
        };
        let rooms = view.members.keys().map(String::as_str);
        rooms
            .filter(|room| self.present(owner, room, user) == Some(true))
            .collect()
    }
}

impl View {
    fn sync(&mut self, own: &str, answer: &Value) {
        if let Some(token) = answer["next_batch"].as_str() {
            self.tokens.insert(token.to_owned());
        }
        self.writers(&answer["to_device"]["events"]);
        for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            for section in ["state", "timeline"] {
                self.members(room, &joined[section]["events"]);
            }
        }
        for room in answer["rooms"]["leave"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(room, _)| room)
        {
            let members = self.members.entry(room.clone()).or_default();
            members.insert(own.to_owned(), "leave".to_owned());
        }
    }

    fn sliding(&mut self, answer: &Value) {
        if let Some(token) = answer["pos"].as_str() {
            self.tokens.insert(token.to_owned());
        }
        self.writers(&answer["extensions"]["to_device"]["events"]);
        for (room, shown) in answer["rooms"].as_object().into_iter().flatten() {
            for section in ["required_state", "timeline"] {
                self.members(room, &shown[section]);
            }
        }
    }

    fn writers(&mut self, events: &Value) {
        for event in events.as_array().into_iter().flatten() {
            if let (Some("m.room.encrypted"), Some(sender)) = (event["type"].as_str(), event["sender"].as_str()) {
                self.writers.insert(sender.to_owned());
            }
        }
    }

    fn members(&mut self, room: &str, events: &Value) {
        let members = self.members.entry(room.to_owned()).or_default();
        for event in events.as_array().into_iter().flatten() {
            let membership = event["content"]["membership"].as_str();
            if let (Some("m.room.member"), Some(user), Some(membership)) =
                (event["type"].as_str(), event["state_key"].as_str(), membership)
            {
                members.insert(user.to_owned(), membership.to_owned());
            }
        }
    }

    fn devices(&mut self, answer: &Value) {
        for (user, devices) in answer["device_keys"].as_object().into_iter().flatten() {
            if let Some(devices) = devices.as_object() {
                self.devices.insert(user.clone(), devices.keys().cloned().collect());
            }
        }
    }
}

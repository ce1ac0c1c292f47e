//! Device keys, one-time keys, fallback keys, cross-signing keys, and to-device messages.

use std::collections::BTreeMap;

use ruma::{DeviceId, UserId};
use serde_json::{Map, Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    state::{Device, Fallback, Session, State},
};

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn algorithm(key_id: &str) -> &str {
    key_id.split(':').next().unwrap_or_default()
}

impl Device {
    /// How many one-time keys are left, by algorithm; `signed_curve25519` is always named, as Synapse does.
    pub(crate) fn counts(&self) -> Value {
        let mut counts = BTreeMap::from([("signed_curve25519".to_owned(), 0_u64)]);
        for (id, _) in &self.one_time_keys {
            *counts.entry(algorithm(id).to_owned()).or_default() += 1;
        }
        json!(counts)
    }

    pub(crate) fn unused_fallback(&self) -> Vec<&String> {
        self.fallback_keys
            .iter()
            .filter(|(_, key)| !key.used)
            .map(|(algorithm, _)| algorithm)
            .collect()
    }

    /// Keys without what does not belong to them: a key is the same although its signature was made anew.
    fn add_one_time_keys(&mut self, keys: Map<String, Value>) -> Result<(), Refusal> {
        for (id, key) in &keys {
            let known = self.one_time_keys.iter().find(|(known, _)| known == id);
            // In Synapse's words: the old key is JSON, the new one is how Python shows it.
            if let Some((_, known)) = known.filter(|(_, known)| known != key) {
                let new = key.to_string().replace('"', "'");
                let error = format!("One time key {id} already exists. Old key: {known}; new key: {new}");
                return Err(Refusal::new(400, "M_UNKNOWN", &error));
            }
        }
        for (id, key) in keys {
            if !self.one_time_keys.iter().any(|(known, _)| *known == id) {
                self.one_time_keys.push((id, key));
            }
        }
        Ok(())
    }

    /// Hand out a key: one-time keys in the order of their upload, then the fallback key, which stays.
    fn claim(&mut self, wanted: &str) -> Option<Value> {
        if let Some(place) = self.one_time_keys.iter().position(|(id, _)| algorithm(id) == wanted) {
            let (id, key) = self.one_time_keys.remove(place);
            return Some(json!({id: key}));
        }
        let fallback = self.fallback_keys.get_mut(wanted)?;
        fallback.used = true;
        Some(json!({fallback.id.clone(): fallback.key.clone()}))
    }
}

impl State {
    pub(crate) fn upload_keys(&mut self, session: &Session, body: &Value) -> Reply {
        let Some(device) = self.device(session) else {
            return Err(Refusal::not_found("Unknown device"));
        };
        device.add_one_time_keys(object(&body["one_time_keys"]))?;
        for (id, key) in object(&body["fallback_keys"]) {
            device
                .fallback_keys
                .insert(algorithm(&id).to_owned(), Fallback { id, key, used: false });
        }
        let counts = device.counts();
        let keys = &body["device_keys"];
        if keys.is_object() && device.keys.as_ref() != Some(keys) {
            device.keys = Some(keys.clone());
            self.note_device_change(&session.user);
        }
        Ok(json!({"one_time_key_counts": counts}))
    }

    pub(crate) fn query_keys(&self, session: &Session, body: &Value) -> Reply {
        let mut devices = Map::new();
        let mut signing: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for (user, wanted) in object(&body["device_keys"]) {
            let wanted: Vec<&str> = wanted
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let mut of_user = Map::new();
            if let Some(known) = self.users.get(&user) {
                for (id, device) in &known.devices {
                    if let Some(keys) = device
                        .keys
                        .as_ref()
                        .filter(|_| wanted.is_empty() || wanted.contains(&id.as_str()))
                    {
                        let mut keys = keys.clone();
                        keys["unsigned"] = json!({"device_display_name": device.display_name});
                        of_user.insert(id.clone(), keys);
                    }
                }
                for (kind, field) in [
                    ("master_key", "master_keys"),
                    ("self_signing_key", "self_signing_keys"),
                    ("user_signing_key", "user_signing_keys"),
                ] {
                    let own_only = kind == "user_signing_key" && session.user != user;
                    if let Some(key) = known.cross_signing.get(kind).filter(|_| !own_only) {
                        signing.entry(field).or_default().insert(user.clone(), key.clone());
                    }
                }
            }
            devices.insert(user, Value::Object(of_user));
        }
        let mut answer = json!({"device_keys": devices, "failures": {}});
        for (field, keys) in signing {
            answer[field] = Value::Object(keys);
        }
        Ok(answer)
    }

    pub(crate) fn claim_keys(&mut self, body: &Value) -> Reply {
        let mut claimed = Map::new();
        for (user, devices) in object(&body["one_time_keys"]) {
            let mut of_user = Map::new();
            for (id, wanted) in object(&devices) {
                let device = self.users.get_mut(&user).and_then(|known| known.devices.get_mut(&id));
                if let Some(key) = device.and_then(|device| device.claim(wanted.as_str().unwrap_or_default())) {
                    of_user.insert(id, key);
                }
            }
            if !of_user.is_empty() {
                claimed.insert(user, Value::Object(of_user));
            }
        }
        Ok(json!({"one_time_keys": claimed, "failures": {}}))
    }

    pub(crate) fn upload_signing_keys(&mut self, session: &Session, body: &Value) -> Reply {
        self.may_replace_identity(session, body)?;
        if let Some(user) = self.users.get_mut(&session.user) {
            for kind in ["master_key", "self_signing_key", "user_signing_key"] {
                if body[kind].is_object() {
                    user.cross_signing.insert(kind.to_owned(), body[kind].clone());
                }
            }
        }
        self.note_device_change(&session.user);
        Ok(json!({}))
    }

    /// Signatures are added to the keys that they sign.
    pub(crate) fn upload_signatures(&mut self, body: &Value) -> Reply {
        for (user, objects) in object(body) {
            for (name, signed) in object(&objects) {
                let Some(known) = self.users.get_mut(&user) else {
                    continue;
                };
                let device = known.devices.get_mut(&name).and_then(|device| device.keys.as_mut());
                let key = known.cross_signing.values_mut().find(|key| {
                    key["keys"]
                        .as_object()
                        .is_some_and(|keys| keys.values().any(|key| key.as_str() == Some(&name)))
                });
                let Some(held) = device.or(key) else { continue };
                for (signer, signatures) in object(&signed["signatures"]) {
                    for (id, signature) in object(&signatures) {
                        held["signatures"][&signer][&id] = signature;
                    }
                }
            }
            self.note_device_change(&user);
        }
        Ok(json!({"failures": {}}))
    }

    pub(crate) fn send_to_device(
        &mut self,
        session: &Session,
        event_type: &str,
        transaction: &str,
        body: &Value,
    ) -> Reply {
        let transaction = format!("to-device {event_type} {transaction}");
        if self
            .device(session)
            .is_some_and(|device| device.transactions.contains_key(&transaction))
        {
            return Ok(json!({}));
        }
        for (user, messages) in object(&body["messages"]) {
            for (id, content) in object(&messages) {
                let position = self.tick();
                let Some(known) = self.users.get_mut(&user) else {
                    continue;
                };
                let event = json!({"type": event_type, "sender": session.user, "content": content});
                for (device_id, device) in &mut known.devices {
                    if id == "*" || *device_id == id {
                        device.to_device.push((position, event.clone()));
                    }
                }
            }
        }
        if let Some(device) = self.device(session) {
            device.transactions.insert(transaction, json!({}));
        }
        Ok(json!({}))
    }
}

impl Homeserver {
    /// Forget the to-device events that wait for a device: what a homeserver may lose.
    pub fn lose_to_device(&self, user: &UserId, device: &DeviceId) {
        let mut state = lock(&self.0.state);
        let known = state.users.get_mut(user.as_str());
        if let Some(device) = known.and_then(|user| user.devices.get_mut(device.as_str())) {
            device.to_device.clear();
        }
    }

    /// Take the signatures of the user's own cross-signing identity off a device, as if they had never come.
    pub fn lose_signatures(&self, user: &UserId, device: &DeviceId) {
        let mut state = lock(&self.0.state);
        let known = state.users.get_mut(user.as_str());
        let keys = known
            .and_then(|user| user.devices.get_mut(device.as_str()))
            .and_then(|device| device.keys.as_mut());
        if let Some(signatures) = keys.and_then(|keys| keys["signatures"][user.as_str()].as_object_mut()) {
            signatures.retain(|id, _| id.ends_with(&format!(":{device}")));
        }
        state.note_device_change(user.as_str());
        drop(state);
        self.0.news.notify_waiters();
    }
}

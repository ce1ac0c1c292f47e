//! A dehydrated device (MSC3814): one that lives here, with what it is sent, until somebody opens it.

use ruma::{
    DeviceId, UserId,
    api::client::dehydrated_device::{
        delete_dehydrated_device, get_dehydrated_device, get_events, put_dehydrated_device,
    },
};
use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::{Refusal, Reply},
    router::Parts,
    state::{Session, State},
};

/// Events in one answer, as Synapse has it.
const PAGE: usize = 100;

impl State {
    /// What belongs to it.
    pub(crate) fn of_dehydrated(&mut self, session: &Session, parts: &Parts, endpoint: &[&str]) -> Reply {
        if self.hides_dehydration {
            return Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request"));
        }
        let body = &parts.body;
        match (parts.method.as_str(), endpoint) {
            ("PUT", []) => {
                parts.typed::<put_dehydrated_device::unstable::Request>(&[], || self.dehydrate(session, body))
            }
            ("GET", []) => parts.typed::<get_dehydrated_device::unstable::Request>(&[], || self.dehydrated(session)),
            ("DELETE", []) => parts.typed::<delete_dehydrated_device::unstable::Request>(&[], || {
                let device = self.dehydrated(session)?["device_id"].clone();
                self.forget_dehydrated(&session.user);
                Ok(json!({"device_id": device}))
            }),
            ("POST", [device, "events"]) => parts
                .typed::<get_events::unstable::Request>(&[device], || self.dehydrated_events(session, device, body)),
            _ => Err(Refusal::new(404, "M_UNRECOGNIZED", "Unrecognized request")),
        }
    }

    /// The one before goes, with all that it was sent.
    fn dehydrate(&mut self, session: &Session, body: &Value) -> Reply {
        let id = body["device_id"].as_str().unwrap_or_default().to_owned();
        let again = self.users.get(&session.user).and_then(|user| user.dehydrated.as_ref());
        if again.is_none_or(|(known, _)| *known != id) {
            self.forget_dehydrated(&session.user);
        }
        let as_device = Session {
            device: id.clone(),
            ..session.clone()
        };
        if let Some(user) = self.users.get_mut(&session.user) {
            let device = user.devices.entry(id.clone()).or_default();
            device.display_name = body["initial_device_display_name"].as_str().map(str::to_owned);
            user.dehydrated = Some((id.clone(), body["device_data"].clone()));
        }
        self.upload_keys(&as_device, body)?;
        Ok(json!({"device_id": id}))
    }

    fn dehydrated(&self, session: &Session) -> Reply {
        let user = self.users.get(&session.user);
        match user.and_then(|user| user.dehydrated.as_ref()) {
            Some((device, data)) => Ok(json!({"device_id": device, "device_data": data})),
            None => Err(Refusal::not_found("No dehydrated device available")),
        }
    }

    /// What is before the token that comes back is forgotten.
    fn dehydrated_events(&mut self, session: &Session, device: &str, body: &Value) -> Reply {
        if self.dehydrated(session)?["device_id"] != device {
            return Err(Refusal::forbidden(
                "You may only fetch messages for your dehydrated device",
            ));
        }
        let since = body["next_batch"].as_str().unwrap_or("0");
        let since: u64 = since.parse().map_err(|_| Refusal::bad_json("next_batch"))?;
        let found = self.users.get_mut(&session.user);
        let Some(device) = found.and_then(|user| user.devices.get_mut(device)) else {
            return Err(Refusal::not_found("No dehydrated device available"));
        };
        device.to_device.retain(|(position, _)| *position > since);
        let page: Vec<&(u64, Value)> = device.to_device.iter().take(PAGE).collect();
        let last = page.last().map_or(since, |(position, _)| *position);
        let events: Vec<&Value> = page.iter().map(|(_, event)| event).collect();
        Ok(json!({"events": events, "next_batch": last.to_string()}))
    }

    fn forget_dehydrated(&mut self, user: &str) {
        let known = self.users.get_mut(user).and_then(|user| user.dehydrated.take());
        if let Some((device, _)) = known {
            self.remove_device(user, &device);
        }
    }
}

impl Homeserver {
    /// Know dehydrated devices from now on, or not any more, as a server without them. It does from the beginning.
    pub fn offer_dehydration(&self, offer: bool) {
        lock(&self.0.state).hides_dehydration = !offer;
    }

    /// The user's dehydrated device, with its data.
    #[must_use]
    pub fn dehydrated_device(&self, user: &UserId) -> Option<(String, Value)> {
        let state = lock(&self.0.state);
        state.users.get(user.as_str()).and_then(|user| user.dehydrated.clone())
    }

    /// Show another dehydrated device, or other data of it.
    pub fn set_dehydrated_device(&self, user: &UserId, device: &DeviceId, data: Value) {
        let mut state = lock(&self.0.state);
        if let Some(user) = state.users.get_mut(user.as_str()) {
            user.dehydrated = Some((device.to_string(), data));
        }
    }
}

//! Verification in a room: its events come through the timeline, decrypted, and in the same unit of work.

use std::collections::{BTreeMap, VecDeque};

use ruma::{
    DeviceId, EventId, OwnedUserId, RoomId, UserId,
    events::{AnyMessageLikeEvent, AnyTimelineEvent},
};
use serde_json::{Value, json};

use super::{
    guard::MAX_BYTES,
    ledger::{Heard, Scene},
};
use crate::Result;

/// As many events are kept whose verification or device is not known yet,
const MOST_EARLY: usize = 32;
/// and as many requests of one user are looked at in one sync.
const MAX_REQUESTS_OF_USER: usize = 3;

/// An event of a room's timeline.
#[derive(Clone, Copy)]
pub(crate) struct RoomEvent<'a> {
    pub(crate) room: &'a RoomId,
    pub(crate) event_id: &'a EventId,
    pub(crate) sender: &'a UserId,
    pub(crate) origin_server_ts: u64,
    pub(crate) event_type: &'a str,
    pub(crate) content: &'a Value,
    /// The device whose key it was encrypted with, where it was.
    pub(crate) device: Option<&'a DeviceId>,
}

/// Events that came before what they belong to was known.
#[derive(Debug, Default)]
pub(crate) struct Early(VecDeque<(String, AnyMessageLikeEvent)>);

impl Early {
    fn add(&mut self, flow: &str, event: AnyMessageLikeEvent) {
        if self.0.len() >= MOST_EARLY {
            self.0.pop_front();
        }
        self.0.push_back((flow.to_owned(), event));
    }

    /// Those of one verification, in their order.
    pub(super) fn take(&mut self, flow: &str) -> Vec<AnyMessageLikeEvent> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(of, _)| of == flow);
        self.0 = left;
        let taken: VecDeque<(String, AnyMessageLikeEvent)> = taken;
        taken.into_iter().map(|(_, event)| event).collect()
    }

    /// Requests of devices that were not known.
    pub(super) fn take_requests(&mut self) -> Vec<AnyMessageLikeEvent> {
        let is_request = |event: &AnyMessageLikeEvent| matches!(event, AnyMessageLikeEvent::RoomMessage(_));
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(_, event)| is_request(event));
        self.0 = left;
        let taken: VecDeque<(String, AnyMessageLikeEvent)> = taken;
        taken.into_iter().map(|(_, event)| event).collect()
    }
}

/// What one sync brings about verifications in rooms.
#[derive(Debug, Default)]
pub(crate) struct Hearing {
    pub(crate) heard: Heard,
    requests: BTreeMap<OwnedUserId, usize>,
}

impl Hearing {
    /// Take an event if it is one of a verification with us. Returns whether it was: it is nothing to the app then.
    pub(crate) async fn hear(&mut self, scene: Scene<'_>, event: RoomEvent<'_>) -> Result<bool> {
        let Scene {
            machine, verifications, ..
        } = scene;
        let is_request = event.event_type == "m.room.message"
            && event.content.get("msgtype").and_then(Value::as_str) == Some("m.key.verification.request")
            && event.content.get("to").and_then(Value::as_str) == Some(machine.user_id().as_str());
        if !is_request && !event.event_type.starts_with("m.key.verification.") {
            return Ok(false);
        }
        let Some(parsed) = parse(event) else { return Ok(true) };
        if is_request {
            let count = self.requests.entry(event.sender.to_owned()).or_default();
            *count += 1;
            let from = event
                .content
                .get("from_device")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let from: &DeviceId = from.into();
            if *count > MAX_REQUESTS_OF_USER || event.device.is_some_and(|device| device != from) {
                return Ok(true);
            }
            if machine.get_device(event.sender, from, None).await?.is_none() {
                verifications.early().add(event.event_id.as_str(), parsed);
                return Ok(true);
            }
        } else {
            let flow = event.content.pointer("/m.relates_to/event_id").and_then(Value::as_str);
            let Some(flow) = flow else { return Ok(true) };
            if event.sender == machine.user_id() {
                // The engine looks for it under our own name, where it is not.
                if matches!(
                    event.event_type,
                    "m.key.verification.ready" | "m.key.verification.cancel" | "m.key.verification.done"
                ) {
                    self.heard.elsewhere.insert(flow.to_owned());
                }
                return Ok(true);
            }
            let is_known = machine.get_verification_request(event.sender, flow).is_some()
                || machine.get_verification(event.sender, flow).is_some();
            if !is_known {
                // The answer may be faster than the answer to our own request.
                verifications.early().add(flow, parsed);
                return Ok(true);
            }
        }
        self.heard.from.insert(event.sender.to_owned());
        Box::pin(machine.receive_verification_event(&parsed)).await?;
        Ok(true)
    }
}

fn parse(event: RoomEvent<'_>) -> Option<AnyMessageLikeEvent> {
    let json = json!({
        "type": event.event_type,
        "room_id": event.room,
        "event_id": event.event_id,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
        "content": event.content,
    });
    let json = serde_json::value::to_raw_value(&json).ok()?;
    if json.get().len() > MAX_BYTES {
        return None;
    }
    match serde_json::from_str(json.get()).ok()? {
        AnyTimelineEvent::MessageLike(event) => Some(event),
        AnyTimelineEvent::State(_) => None,
    }
}

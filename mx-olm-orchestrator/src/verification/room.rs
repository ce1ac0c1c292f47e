//! Verification in a room: its events come through the timeline, decrypted, and in the same unit of work.

use std::collections::{BTreeMap, VecDeque};

use ruma::{
    DeviceId, EventId, OwnedUserId, RoomId, UserId,
    events::{AnyMessageLikeEvent, AnyTimelineEvent},
};
use serde_json::{Value, json};

use super::{
    glare::{self, Asking},
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

/// What an event is to verifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// It is none of one with us.
    None,
    /// It is, and it is nothing to the app.
    Paid,
    /// It is meant as one, and cannot be used: it has no form, is not of the device that it names, or is one request too many.
    Refused,
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

    /// These were taken, and could not be used yet.
    pub(super) fn put_back(&mut self, events: Vec<AnyMessageLikeEvent>) {
        for event in events {
            let flow = event.event_id().to_string();
            self.add(&flow, event);
        }
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
    /// Take an event if it is one of a verification with us.
    pub(crate) async fn hear(&mut self, scene: Scene<'_>, event: RoomEvent<'_>) -> Result<Attention> {
        let Scene {
            machine, verifications, ..
        } = scene;
        let is_request = is_request(event.event_type, event.content, machine.user_id());
        if !is_request && !is_step(event.event_type) {
            return Ok(Attention::None);
        }
        let Some(parsed) = parse(event) else {
            return Ok(Attention::Refused);
        };
        if is_request {
            if let Some(attention) = self.hear_request(scene, event, &parsed).await? {
                return Ok(attention);
            }
        } else {
            let flow = event.content.pointer("/m.relates_to/event_id").and_then(Value::as_str);
            let Some(flow) = flow else {
                return Ok(Attention::Refused);
            };
            if event.sender == machine.user_id() {
                // The engine looks for it under our own name, where it is not.
                if matches!(
                    event.event_type,
                    "m.key.verification.ready" | "m.key.verification.cancel" | "m.key.verification.done"
                ) {
                    self.heard.elsewhere.insert(flow.to_owned());
                }
                return Ok(Attention::Paid);
            }
            let is_known = machine.get_verification_request(event.sender, flow).is_some()
                || machine.get_verification(event.sender, flow).is_some();
            if !is_known {
                // The answer may be faster than the answer to our own request.
                verifications.early().add(flow, parsed);
                return Ok(Attention::Paid);
            }
        }
        self.heard.from.insert(event.sender.to_owned());
        Box::pin(machine.receive_verification_event(&parsed)).await?;
        Ok(Attention::Paid)
    }

    /// Somebody asks. `None`: it is for the engine.
    async fn hear_request(
        &mut self,
        scene: Scene<'_>,
        event: RoomEvent<'_>,
        parsed: &AnyMessageLikeEvent,
    ) -> Result<Option<Attention>> {
        let count = self.requests.entry(event.sender.to_owned()).or_default();
        *count += 1;
        let from = event.content.get("from_device").and_then(Value::as_str);
        let from: &DeviceId = from.unwrap_or_default().into();
        if *count > MAX_REQUESTS_OF_USER || event.device.is_some_and(|device| device != from) {
            return Ok(Some(Attention::Refused));
        }
        if scene.machine.get_device(event.sender, from, None).await?.is_none() {
            let mut early = scene.verifications.early();
            early.add(event.event_id.as_str(), parsed.clone());
            return Ok(Some(Attention::Paid));
        }
        let asking = Asking {
            room: Some(event.room),
            user: event.sender,
            device: from,
            flow_id: event.event_id.as_str(),
            at_ms: event.origin_server_ts,
        };
        let is_left_out = glare::is_left_out(scene, &mut self.heard, &asking).await?;
        Ok(is_left_out.then_some(Attention::Paid))
    }
}

/// Whether an event of this type and content is one of a verification with `own`: [`Hearing::hear`] takes each of those.
pub(crate) fn is_heard(event_type: &str, content: &Value, own: &UserId) -> bool {
    is_step(event_type) || is_request(event_type, content, own)
}

fn is_step(event_type: &str) -> bool {
    event_type.starts_with("m.key.verification.")
}

fn is_request(event_type: &str, content: &Value, own: &UserId) -> bool {
    let text = |name: &str| content.get(name).and_then(Value::as_str);
    event_type == "m.room.message"
        && text("msgtype") == Some("m.key.verification.request")
        && text("to") == Some(own.as_str())
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

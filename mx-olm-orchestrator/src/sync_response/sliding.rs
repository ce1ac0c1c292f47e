//! Reading the answer to a sliding sync, part by part as that to `/sync`, into the same parts.

use std::collections::BTreeMap;

use ruma::{UserId, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{JoinedRoom, SyncResponse, device_lists, null_is_empty, one_time_keys, part, room_id, whole};
use crate::{
    Error, Result,
    receive::{Positions, StateEvent},
};

#[derive(Deserialize)]
struct Top {
    pos: Option<String>,
    rooms: Option<Box<RawValue>>,
    extensions: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Extensions {
    to_device: Option<Box<RawValue>>,
    e2ee: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct ToDevice {
    next_batch: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    events: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct E2ee {
    device_lists: Option<Box<RawValue>>,
    device_one_time_keys_count: Option<Box<RawValue>>,
    device_unused_fallback_key_types: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Room {
    #[serde(default, deserialize_with = "null_is_empty")]
    initial: bool,
    invite_state: Option<Vec<Box<RawValue>>>,
    required_state: Option<Box<RawValue>>,
    timeline: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    limited: bool,
    prev_batch: Option<String>,
}

impl SyncResponse {
    /// Read the body of a 2xx answer to a sliding sync of `own`, which was asked for from `before` on.
    ///
    /// # Errors
    /// [`Error::MalformedSync`] when it is not JSON, has no `pos`, or its to-device events or rooms cannot be read at all.
    pub(crate) fn parse_sliding(body: &[u8], own: &UserId, before: &Positions) -> Result<Self> {
        let top: Top = serde_json::from_slice(body).map_err(|error| Error::MalformedSync {
            reason: format!("not a JSON object of its shape (line {})", error.line()),
        })?;
        let pos = top
            .pos
            .filter(|pos| !pos.is_empty())
            .ok_or_else(|| Error::MalformedSync {
                reason: "it has no pos".to_owned(),
            })?;
        let mut unreadable = Vec::new();
        let extensions: Extensions = whole(top.extensions, "extensions")?;
        let to_device: Option<ToDevice> = whole(extensions.to_device, "to_device")?;
        let rooms: BTreeMap<String, Box<RawValue>> = whole(top.rooms, "rooms")?;
        let e2ee: E2ee = part(extensions.e2ee, "e2ee", &mut unreadable);
        let e2ee_is_readable = unreadable.is_empty();
        let (next, events) = match to_device {
            Some(to_device) => (Some(to_device.next_batch), to_device.events),
            None => (before.to_device.clone(), Vec::new()),
        };
        let lists = device_lists(e2ee.device_lists, &mut unreadable).filter(|_| e2ee_is_readable);
        let mut response = Self {
            next_batch: pos.clone(),
            end: None,
            positions: Some(Positions {
                pos: Some(pos),
                to_device: next,
            }),
            to_device: events.into_iter().map(Raw::from_json).collect(),
            device_lists: lists,
            // What is left out is as it was, and not zero.
            one_time_keys: match e2ee.device_one_time_keys_count {
                Some(counts) => one_time_keys(Some(counts), &mut unreadable),
                None => BTreeMap::new(),
            },
            unused_fallback_keys: part(
                e2ee.device_unused_fallback_key_types,
                "device_unused_fallback_key_types",
                &mut unreadable,
            ),
            joined: Vec::new(),
            invited: Vec::new(),
            left: Vec::new(),
            unreadable: Vec::new(),
        };
        for (id, raw) in rooms {
            if let Some(room) = room_id(&id, &mut unreadable) {
                response.add(room, &id, raw, own, &mut unreadable);
            }
        }
        response.unreadable = unreadable;
        Ok(response)
    }

    fn add(
        &mut self,
        room: ruma::OwnedRoomId,
        id: &str,
        raw: Box<RawValue>,
        own: &UserId,
        unreadable: &mut Vec<String>,
    ) {
        let failures = unreadable.len();
        let shown: Room = part(Some(raw), id, unreadable);
        if let Some(state) = shown.invite_state {
            // What knocks is shown so, too.
            if membership(state.iter(), own).as_deref() == Some("invite") {
                self.invited.push((room, state));
            }
            return;
        }
        let state = part(shown.required_state, id, unreadable);
        let timeline = part(shown.timeline, id, unreadable);
        // A room that cannot be read is a gap, which ends where nobody can say.
        let is_readable = unreadable.len() == failures;
        let joined = JoinedRoom {
            state,
            timeline,
            limited: shown.limited || !is_readable,
            initial: shown.initial,
            missed: false,
            prev_batch: shown.prev_batch.filter(|_| is_readable),
        };
        if has_left(&joined, own) {
            self.left.push((room, joined));
        } else {
            self.joined.push((room, joined));
        }
    }
}

/// Whether the last word on ourselves is that we are not in the room any more.
fn has_left(room: &JoinedRoom, own: &UserId) -> bool {
    let last = membership(room.state.iter().chain(&room.timeline).rev(), own);
    matches!(last.as_deref(), Some("leave" | "ban"))
}

/// What the first word on ourselves among these events is.
fn membership<'a>(mut events: impl Iterator<Item = &'a Box<RawValue>>, own: &UserId) -> Option<String> {
    events.find_map(|raw| {
        let event: StateEvent = serde_json::from_str(raw.get()).ok()?;
        let is_ours = event.event_type == "m.room.member" && event.state_key == own.as_str();
        is_ours.then(|| event.membership().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use ruma::{OneTimeKeyAlgorithm, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Result<SyncResponse> {
        let before = Positions {
            pos: Some("1".to_owned()),
            to_device: Some("7".to_owned()),
        };
        SyncResponse::parse_sliding(body.to_string().as_bytes(), user_id!("@me:s"), &before)
    }

    #[test]
    fn what_is_left_out_is_as_it_was() {
        let sync = read(&json!({"pos": "2"})).unwrap();
        let positions = sync.positions.clone().unwrap();
        assert_eq!(
            (positions.pos.as_deref(), positions.to_device.as_deref()),
            (Some("2"), Some("7"))
        );
        assert!(sync.one_time_keys.is_empty() && sync.has_nothing());
        let counts = json!({"pos": "2", "extensions": {"e2ee": {"device_one_time_keys_count": {"other": 1}}}});
        let left = read(&counts).unwrap().one_time_keys;
        assert_eq!(left[&OneTimeKeyAlgorithm::SignedCurve25519], 0_u32.into());
    }

    #[test]
    fn without_a_position_keys_or_rooms_it_is_refused() {
        for body in [
            json!({}),
            json!({"pos": ""}),
            json!({"pos": 7}),
            json!([]),
            json!({"pos": "2", "rooms": 7}),
            json!({"pos": "2", "extensions": 7}),
            json!({"pos": "2", "extensions": {"to_device": 7}}),
            json!({"pos": "2", "extensions": {"to_device": {"events": []}}}),
            json!({"pos": "2", "extensions": {"to_device": {"next_batch": "8", "events": {}}}}),
        ] {
            assert_eq!(read(&body).unwrap_err().code(), "malformed_sync", "{body}");
        }
    }

    #[test]
    fn one_bad_part_leaves_the_others() {
        let member = |membership: &str| json!({"type": "m.room.member", "state_key": "@me:s", "sender": "@me:s", "content": {"membership": membership}});
        let sync = read(&json!({
            "pos": "2",
            "rooms": {
                "nonsense": {},
                "!bad:s": {"timeline": 7, "prev_batch": "t0", "required_state": [member("join")]},
                "!good:s": {"initial": true, "timeline": [{}], "limited": true, "prev_batch": "t1"},
                "!left:s": {"required_state": [member("join")], "timeline": [member("leave")]},
                "!back:s": {"required_state": [member("join")], "timeline": [member("leave"), member("join")]},
                "!asked:s": {"invite_state": [{"type": "m.room.name", "state_key": "", "content": {}}, member("invite")]},
                "!knocked:s": {"invite_state": [member("knock")]},
                "!whose:s": {"invite_state": []},
            },
            "extensions": {"e2ee": {"device_lists": 5}, "to_device": {"next_batch": "8", "events": [{"type": "m.dummy"}]}},
        }))
        .unwrap();
        let rooms: BTreeMap<&str, &JoinedRoom> = sync.joined.iter().map(|(id, room)| (id.as_str(), room)).collect();
        assert_eq!(
            rooms.keys().copied().collect::<Vec<_>>(),
            ["!back:s", "!bad:s", "!good:s"]
        );
        assert!(
            rooms["!bad:s"].limited && rooms["!bad:s"].prev_batch.is_none(),
            "it is a gap"
        );
        assert!(rooms["!good:s"].initial && rooms["!good:s"].timeline.len() == 1);
        let left: Vec<&str> = sync.left.iter().map(|(room, _)| room.as_str()).collect();
        assert_eq!(left, ["!left:s"]);
        let invited: Vec<&str> = sync.invited.iter().map(|(room, _)| room.as_str()).collect();
        assert_eq!(invited, ["!asked:s"], "to knock is no invitation");
        assert_eq!(sync.to_device.len(), 1);
        assert!(sync.device_lists.is_none(), "anybody's devices may have changed");
        let mut unreadable = sync.unreadable.clone();
        unreadable.sort();
        assert_eq!(unreadable, ["!bad:s", "a room id", "device_lists"]);
    }
}

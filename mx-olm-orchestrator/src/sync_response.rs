//! Reading the answer to `/sync` so that one bad part never hides the rest.
//!
//! # Why
//! ruma's typed response is all or nothing: one event of a shape that it does not know, in any room, would stop every
//! room key in the same answer. Here each part is read on its own; only an answer without `next_batch`, or one that
//! is not JSON, is refused as a whole.

mod sliding;

use std::collections::BTreeMap;

use ruma::{
    OneTimeKeyAlgorithm, OwnedRoomId, UInt, api::client::sync::sync_events::DeviceLists, events::AnyToDeviceEvent,
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Result, receive::Positions};

/// What we take from an answer to `/sync`.
#[derive(Clone, Debug)]
pub(crate) struct SyncResponse {
    pub(crate) next_batch: String,
    /// Where this answer ends, as a place in the history of any room. `None`: it does not say.
    pub(crate) end: Option<String>,
    /// Where a sliding sync goes on, if it is one.
    pub(crate) positions: Option<Positions>,
    pub(crate) to_device: Vec<Raw<AnyToDeviceEvent>>,
    /// `None`: they could not be read, so that anybody's devices may have changed.
    pub(crate) device_lists: Option<DeviceLists>,
    /// With zero for `signed_curve25519` where it is left out, as the specification says; without it where what is there
    /// is no count.
    pub(crate) one_time_keys: BTreeMap<OneTimeKeyAlgorithm, UInt>,
    pub(crate) unused_fallback_keys: Option<Vec<OneTimeKeyAlgorithm>>,
    pub(crate) joined: Vec<(OwnedRoomId, JoinedRoom)>,
    pub(crate) invited: Vec<(OwnedRoomId, Vec<Box<RawValue>>)>,
    /// Rooms that we are not in any more, with what came before.
    pub(crate) left: Vec<(OwnedRoomId, JoinedRoom)>,
    /// Parts that could not be read, by name: reported, never silent.
    pub(crate) unreadable: Vec<String>,
}

/// What we take from a room that we are in, or were.
#[derive(Clone, Debug, Default)]
pub(crate) struct JoinedRoom {
    pub(crate) state: Vec<Box<RawValue>>,
    pub(crate) timeline: Vec<Box<RawValue>>,
    /// Events between the last sync and this timeline were left out.
    pub(crate) limited: bool,
    /// The room is shown as a whole, and not only what is new in it.
    pub(crate) initial: bool,
    /// Nothing is known of what was between the last sync and this timeline.
    pub(crate) missed: bool,
    /// Where the timeline begins: what was left out is before it.
    pub(crate) prev_batch: Option<String>,
}

#[derive(Deserialize)]
struct Top {
    next_batch: Option<String>,
    to_device: Option<Box<RawValue>>,
    device_lists: Option<Box<RawValue>>,
    device_one_time_keys_count: Option<Box<RawValue>>,
    device_unused_fallback_key_types: Option<Box<RawValue>>,
    rooms: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Events {
    #[serde(default, deserialize_with = "null_is_empty")]
    events: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Rooms {
    #[serde(default, deserialize_with = "null_is_empty")]
    join: BTreeMap<String, Box<RawValue>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    invite: BTreeMap<String, Box<RawValue>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    leave: BTreeMap<String, Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Join {
    state: Option<Box<RawValue>>,
    timeline: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Timeline {
    #[serde(default, deserialize_with = "null_is_empty")]
    events: Vec<Box<RawValue>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    limited: bool,
    prev_batch: Option<String>,
}

#[derive(Default, Deserialize)]
struct Invite {
    #[serde(default, deserialize_with = "null_is_empty")]
    invite_state: Events,
}

/// Null is as good as left out.
fn null_is_empty<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl SyncResponse {
    /// Read the body of a 2xx answer to `/sync`.
    ///
    /// # Errors
    /// [`Error::MalformedSync`] when it is not JSON, has no `next_batch`, or its to-device events or rooms cannot be read at
    /// all.
    pub(crate) fn parse(body: &[u8]) -> Result<Self> {
        let top: Top = serde_json::from_slice(body).map_err(|error| Error::MalformedSync {
            reason: format!("not a JSON object of its shape (line {})", error.line()),
        })?;
        let next_batch = top
            .next_batch
            .filter(|token| !token.is_empty())
            .ok_or_else(|| Error::MalformedSync {
                reason: "it has no next_batch".to_owned(),
            })?;
        let mut unreadable = Vec::new();
        // Room keys, and the rooms: what cannot be read of them at all is asked for again, not passed over.
        let to_device: Events = whole(top.to_device, "to_device")?;
        let rooms: Rooms = whole(top.rooms, "rooms")?;
        let one_time_keys = one_time_keys(top.device_one_time_keys_count, &mut unreadable);
        let mut response = Self {
            end: Some(next_batch.clone()),
            next_batch,
            positions: None,
            to_device: to_device.events.into_iter().map(Raw::from_json).collect(),
            device_lists: device_lists(top.device_lists, &mut unreadable),
            one_time_keys,
            unused_fallback_keys: part(
                top.device_unused_fallback_key_types,
                "device_unused_fallback_key_types",
                &mut unreadable,
            ),
            joined: Vec::new(),
            invited: Vec::new(),
            left: Vec::new(),
            unreadable: Vec::new(),
        };
        for (id, raw) in rooms.join {
            if let Some(room) = room_id(&id, &mut unreadable) {
                response.joined.push((room, joined(&id, raw, &mut unreadable)));
            }
        }
        for (id, raw) in rooms.invite {
            if let Some(room) = room_id(&id, &mut unreadable) {
                let invite: Invite = part(Some(raw), &id, &mut unreadable);
                response.invited.push((room, invite.invite_state.events));
            }
        }
        for (id, raw) in rooms.leave {
            if let Some(room) = room_id(&id, &mut unreadable) {
                response.left.push((room, joined(&id, raw, &mut unreadable)));
            }
        }
        response.unreadable = unreadable;
        Ok(response)
    }

    /// Whether it only says where to go on.
    pub(crate) fn has_nothing(&self) -> bool {
        let no_lists = |lists: &DeviceLists| lists.changed.is_empty() && lists.left.is_empty();
        self.to_device.is_empty()
            && self.device_lists.as_ref().is_some_and(no_lists)
            && self.joined.is_empty()
            && self.invited.is_empty()
            && self.left.is_empty()
            && self.unreadable.is_empty()
    }
}

/// Each count on its own. One that is no count is not zero: the engine is told nothing then.
fn one_time_keys(raw: Option<Box<RawValue>>, unreadable: &mut Vec<String>) -> BTreeMap<OneTimeKeyAlgorithm, UInt> {
    const NAME: &str = "device_one_time_keys_count";
    let failures = unreadable.len();
    let counts: BTreeMap<String, Box<RawValue>> = part(raw, NAME, unreadable);
    if unreadable.len() > failures {
        return BTreeMap::new();
    }
    let mut read = BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, UInt::default())]);
    for (name, raw) in counts {
        let algorithm = OneTimeKeyAlgorithm::from(name);
        match serde_json::from_str(raw.get()) {
            Ok(count) => {
                read.insert(algorithm, count);
            }
            Err(_) => {
                unreadable.push(NAME.to_owned());
                read.remove(&algorithm);
            }
        }
    }
    read
}

fn joined(id: &str, raw: Box<RawValue>, unreadable: &mut Vec<String>) -> JoinedRoom {
    let room: Join = part(Some(raw), id, unreadable);
    let state: Events = part(room.state, id, unreadable);
    let had_timeline = room.timeline.is_some();
    let failures = unreadable.len();
    let timeline: Timeline = part(room.timeline, id, unreadable);
    // A timeline that cannot be read is a gap.
    let limited = timeline.limited || (had_timeline && unreadable.len() > failures);
    JoinedRoom {
        state: state.events,
        timeline: timeline.events,
        limited,
        initial: false,
        missed: false,
        prev_batch: timeline.prev_batch,
    }
}

fn room_id(id: &str, unreadable: &mut Vec<String>) -> Option<OwnedRoomId> {
    let parsed = OwnedRoomId::try_from(id).ok();
    if parsed.is_none() {
        unreadable.push("a room id".to_owned());
    }
    parsed
}

/// A part without which the answer is not taken. One that is left out or null is empty.
fn whole<T: Default + for<'de> Deserialize<'de>>(raw: Option<Box<RawValue>>, name: &str) -> Result<T> {
    let mut unreadable = Vec::new();
    let read = part(raw, name, &mut unreadable);
    if unreadable.is_empty() {
        Ok(read)
    } else {
        Err(Error::MalformedSync {
            reason: format!("its {name} cannot be read"),
        })
    }
}

fn device_lists(raw: Option<Box<RawValue>>, unreadable: &mut Vec<String>) -> Option<DeviceLists> {
    let failures = unreadable.len();
    let read = part(raw, "device_lists", unreadable);
    (unreadable.len() == failures).then_some(read)
}

/// A part that is left out or null is empty; one that cannot be read is empty and named.
fn part<T: Default + for<'de> Deserialize<'de>>(
    raw: Option<Box<RawValue>>,
    name: &str,
    unreadable: &mut Vec<String>,
) -> T {
    let Some(raw) = raw else { return T::default() };
    match serde_json::from_str::<Option<T>>(raw.get()) {
        Ok(value) => value.unwrap_or_default(),
        Err(_) => {
            unreadable.push(name.to_owned());
            T::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_count_is_zero() {
        let sync = SyncResponse::parse(br#"{"next_batch":"s1"}"#).unwrap();
        assert_eq!(
            sync.one_time_keys[&OneTimeKeyAlgorithm::SignedCurve25519],
            UInt::from(0u32)
        );
        assert!(sync.unused_fallback_keys.is_none());
        assert!(sync.to_device.is_empty() && sync.unreadable.is_empty());
    }

    #[test]
    fn a_count_that_is_none_is_left_out_and_the_others_are_read() {
        for odd in ["9007199254740992", "-1", "\"50\"", "1.5", "null", "[]", "1e400"] {
            let body = format!(
                r#"{{"next_batch":"s1","device_one_time_keys_count":{{"signed_curve25519":{odd},"other":7}},
                    "to_device":{{"events":[{{"type":"m.dummy","sender":"@a:b","content":{{}}}}]}}}}"#
            );
            let sync = SyncResponse::parse(body.as_bytes()).unwrap();
            assert_eq!(
                sync.one_time_keys,
                BTreeMap::from([("other".into(), UInt::from(7u32))]),
                "{odd}"
            );
            assert_eq!(sync.unreadable, ["device_one_time_keys_count"], "{odd}");
            assert_eq!(sync.to_device.len(), 1);
        }
        let sync = SyncResponse::parse(br#"{"next_batch":"s1","device_one_time_keys_count":[]}"#).unwrap();
        assert!(sync.one_time_keys.is_empty());
    }

    #[test]
    fn without_next_batch_keys_or_rooms_it_is_refused() {
        for body in [
            &b"<html>"[..],
            b"{}",
            br#"{"next_batch":""}"#,
            br#"{"next_batch":7}"#,
            b"",
            b"[]",
            br#"{"next_batch":"s1","to_device":{"events":{}}}"#,
            br#"{"next_batch":"s1","to_device":[{"type":"m.room_key"}]}"#,
            br#"{"next_batch":"s1","rooms":7}"#,
            br#"{"next_batch":"s1","rooms":{"join":7}}"#,
        ] {
            let error = SyncResponse::parse(body).unwrap_err();
            assert_eq!(error.code(), "malformed_sync", "{body:?}");
        }
    }

    #[test]
    fn one_bad_room_leaves_the_others_and_the_keys() {
        let body = br#"{"next_batch":"s1","device_lists":5,
            "to_device":{"events":[{"type":"m.dummy","sender":"@a:b","content":{}}]},
            "rooms":{"join":{"nonsense":{},"!bad:b":{"timeline":{"events":7}},
                             "!good:b":{"timeline":{"events":[{}],"limited":true}}}}}"#;
        let sync = SyncResponse::parse(body).unwrap();
        assert_eq!(sync.to_device.len(), 1);
        let mut unreadable = sync.unreadable.clone();
        assert!(sync.device_lists.is_none(), "anybody's devices may have changed");
        unreadable.sort();
        assert_eq!(unreadable, ["!bad:b", "a room id", "device_lists"]);
        let rooms: BTreeMap<_, _> = sync.joined.iter().map(|(id, room)| (id.as_str(), room)).collect();
        assert!(rooms["!bad:b"].limited, "a timeline that cannot be read is a gap");
        assert!(rooms["!good:b"].limited);
        assert_eq!(rooms["!good:b"].timeline.len(), 1);
    }

    #[test]
    fn null_is_left_out() {
        let sync =
            SyncResponse::parse(br#"{"next_batch":"s1","to_device":{"events":null},"rooms":{"invite":null,"join":{"!a:b":{"state":null}}}}"#)
                .unwrap();
        assert!(sync.unreadable.is_empty());
        assert_eq!(sync.joined.len(), 1);
    }
}

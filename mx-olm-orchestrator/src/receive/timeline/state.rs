//! State in a timeline: who came and went.

use ruma::{OwnedUserId, RoomId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Header, Timelines};
use crate::{Event, Malformed, MembershipChanged};

#[derive(Deserialize)]
struct Member {
    state_key: OwnedUserId,
    content: Content,
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Deserialize)]
struct Content {
    membership: MembershipState,
    #[serde(default)]
    reason: serde_json::Value,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    prev_content: serde_json::Value,
}

impl Member {
    fn before(&self) -> Option<MembershipState> {
        let before = self.unsigned.prev_content.get("membership")?.as_str()?;
        Some(before.into())
    }
}

impl Timelines<'_> {
    /// Tell who came or went, where that is wanted. All other state is for `rooms.rs`, and nothing to the app.
    pub(super) fn state(&mut self, room: &RoomId, header: Header, raw: &RawValue) {
        let history = self.context.first_sync && header.origin_server_ts < self.device_since_ms;
        if !self.context.memberships || header.event_type != "m.room.member" || history {
            return;
        }
        let Ok(member) = serde_json::from_str::<Member>(raw.get()) else {
            self.events.push(Event::Malformed(Malformed {
                room_id: room.to_owned(),
                event_id: Some(header.event_id),
            }));
            return;
        };
        let before = member.before();
        if before.as_ref() == Some(&member.content.membership) {
            return;
        }
        self.events.push(Event::MembershipChanged(MembershipChanged {
            room_id: room.to_owned(),
            event_id: header.event_id,
            user_id: member.state_key,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            membership: member.content.membership,
            before,
            reason: member.content.reason.as_str().map(str::to_owned),
        }));
    }
}

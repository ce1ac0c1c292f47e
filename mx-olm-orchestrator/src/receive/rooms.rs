//! What a sync says of rooms: their state is latched, who came and went is noted, and who left must not read on.

use mx_crypto_store::Unit;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Invite, Result, members::MemberChange, rooms::RoomRecord, sync_response::JoinedRoom};

/// A state event, as far as it concerns us.
#[derive(Deserialize)]
pub(crate) struct StateEvent {
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) state_key: String,
    #[serde(default)]
    pub(crate) sender: Option<OwnedUserId>,
    #[serde(default)]
    pub(crate) content: serde_json::Value,
    #[serde(default)]
    origin_server_ts: serde_json::Value,
    #[serde(default)]
    unsigned: serde_json::Value,
}

impl StateEvent {
    /// The membership that an `m.room.member` event sets.
    pub(crate) fn membership(&self) -> &str {
        self.content
            .get("membership")
            .and_then(|value| value.as_str())
            .unwrap_or_default()
    }

    /// Whether the user went with this event, or had gone before it.
    fn has_left(&self) -> bool {
        let before = self
            .unsigned
            .get("prev_content")
            .and_then(|content| content.get("membership"))
            .and_then(|value| value.as_str());
        [Some(self.membership()), before]
            .iter()
            .flatten()
            .any(|membership| matches!(*membership, "leave" | "ban"))
    }
}

/// Latch what the room's state says, and note who came and went. Returns whether somebody went.
pub(super) async fn remember(
    unit: &Unit,
    room: &OwnedRoomId,
    joined: &JoinedRoom,
    own: &OwnedUserId,
    members: &mut Vec<(OwnedRoomId, MemberChange)>,
) -> Result<bool> {
    let before = RoomRecord::load(unit, room).await?;
    let mut after = before.clone();
    let mut somebody_left = false;
    if joined.limited {
        members.push((room.clone(), MemberChange::Forget));
    }
    for raw in joined.state.iter().chain(&joined.timeline) {
        let Ok(state) = serde_json::from_str::<StateEvent>(raw.get()) else {
            continue;
        };
        if state.event_type == "m.room.member" {
            somebody_left |= state.has_left();
            if state.state_key == own.as_str() && state.membership() == "join" {
                after.joined_ms = after.joined_ms.or_else(|| state.origin_server_ts.as_u64());
            }
            let membership = state.membership().into();
            if let Ok(user) = OwnedUserId::try_from(state.state_key) {
                members.push((room.clone(), MemberChange::Now { user, membership }));
            }
        } else if state.state_key.is_empty() {
            after.apply(&state.event_type, &state.content);
        }
    }
    if after != before {
        after.save(unit, room)?;
    }
    Ok(somebody_left)
}

pub(super) fn invite(room_id: OwnedRoomId, state: &[Box<RawValue>], own: &OwnedUserId) -> Invite {
    let mut invite = Invite {
        room_id,
        inviter: None,
        name: None,
    };
    for raw in state {
        let Ok(state) = serde_json::from_str::<StateEvent>(raw.get()) else {
            continue;
        };
        match state.event_type.as_str() {
            "m.room.member" if state.state_key == own.as_str() => invite.inviter = state.sender,
            "m.room.name" => {
                invite.name = state
                    .content
                    .get("name")
                    .and_then(|name| name.as_str())
                    .map(str::to_owned);
            }
            _ => {}
        }
    }
    invite
}

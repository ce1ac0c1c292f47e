//! What a sync says of rooms: their state is latched, who came and went is noted, and who left must not read on.

use std::collections::BTreeSet;

use mx_crypto_store::Unit;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    EncryptionChange, Invite, Result,
    members::{MemberChange, Standing, standing},
    rooms::RoomRecord,
    sync_response::JoinedRoom,
};

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

/// What a sync showed of a room beside its messages.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Who went, also where they are back.
    pub(super) left: BTreeSet<OwnedUserId>,
    /// How the homeserver shows the encryption, where that is news and is not followed.
    pub(super) tampered: Vec<EncryptionChange>,
}

/// Latch what the room's state says, and note who came and went.
pub(super) async fn remember(
    unit: &Unit,
    room: &OwnedRoomId,
    joined: &JoinedRoom,
    own: &OwnedUserId,
    members: &mut Vec<(OwnedRoomId, MemberChange)>,
) -> Result<Noted> {
    let before = RoomRecord::load(unit, room).await?;
    let mut after = before.clone();
    let mut noted = Noted::default();
    if joined.limited {
        members.push((room.clone(), MemberChange::Forget));
    }
    for raw in joined.state.iter().chain(&joined.timeline) {
        let Ok(state) = serde_json::from_str::<StateEvent>(raw.get()) else {
            if is_member_event(raw) {
                // Somebody came or went, and who cannot be said: everybody is asked for before the next send.
                members.push((room.clone(), MemberChange::Forget));
            }
            continue;
        };
        if state.event_type == "m.room.member" {
            match standing(&state) {
                Standing::Of(user, membership) => members.push((room.clone(), MemberChange::Now { user, membership })),
                Standing::Nobody => {}
                Standing::Unreadable => members.push((room.clone(), MemberChange::Forget)),
            }
            if state.state_key == own.as_str() && state.membership() == "join" {
                after.joined_ms = after.joined_ms.or_else(|| state.origin_server_ts.as_u64());
            }
            if state.has_left()
                && let Ok(user) = OwnedUserId::try_from(state.state_key)
            {
                noted.left.insert(user);
            }
        } else if state.state_key.is_empty() {
            noted.tampered.extend(after.apply(&state.event_type, &state.content));
        }
    }
    if after != before {
        after.save(unit, room)?;
    }
    Ok(noted)
}

/// Whether it says to be about a member, however broken it is.
fn is_member_event(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        event_type: String,
    }
    // Most of what is no state is a message, and not worth another reading.
    raw.get().contains("m.room.member")
        && serde_json::from_str::<Typed>(raw.get()).is_ok_and(|event| event.event_type == "m.room.member")
}

pub(super) fn invite(room_id: OwnedRoomId, state: &[Box<RawValue>], own: &OwnedUserId) -> Invite {
    let mut invite = Invite {
        room_id,
        inviter: None,
        name: None,
        joined: false,
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

//! What a sync says of rooms: their state is latched, who came and went is noted, and who left must not read on.

use std::collections::BTreeSet;

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Context, Scope};
use crate::{
    EncryptionChange, Event, Invite, Result, history,
    members::{MemberChange, Standing, standing},
    rooms::RoomRecord,
    sync_response::JoinedRoom,
};

/// Who invited us, by room: what was told is not told again.
const INVITES: Family = Family::new("invites").passing();

const INVITES_AT_ONCE: usize = 100;

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
    event_id: serde_json::Value,
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

    /// The membership before this event, as far as the homeserver says.
    pub(super) fn membership_before(&self) -> Option<&str> {
        self.unsigned
            .get("prev_content")
            .and_then(|content| content.get("membership"))
            .and_then(|value| value.as_str())
    }

    /// Whether the user came in with this event, and has not only another name.
    pub(crate) fn joins(&self) -> bool {
        self.membership() == "join" && self.membership_before() != Some("join")
    }

    /// Whether the user went with this event, or had gone before it.
    fn has_left(&self) -> bool {
        [Some(self.membership()), self.membership_before()]
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
    /// The events by which they went.
    pub(super) departures: BTreeSet<String>,
    /// How the homeserver shows the encryption, where that is news and is not followed.
    pub(super) tampered: Vec<EncryptionChange>,
}

impl Noted {
    /// Somebody went, unless their going was noted before.
    fn note_departure(&mut self, state: StateEvent, context: &Context) {
        let event = state.event_id.as_str();
        if let (Scope::Again { taken }, Some(event)) = (&context.scope, event)
            && taken.departures.contains(event)
        {
            return;
        }
        self.departures.extend(event.map(str::to_owned));
        if let Ok(user) = OwnedUserId::try_from(state.state_key) {
            self.left.insert(user);
        }
    }
}

/// Latch what the room's state says, and note who came and went.
pub(super) async fn remember(
    unit: &Unit,
    room: &OwnedRoomId,
    joined: &JoinedRoom,
    context: &Context,
    members: &mut Vec<(OwnedRoomId, MemberChange)>,
) -> Result<Noted> {
    let before = RoomRecord::load(unit, room).await?;
    let mut after = before.clone();
    let mut noted = Noted::default();
    let mut shown = false;
    if joined.limited || joined.initial {
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
            shown = true;
            if state.state_key == context.user.as_str() && state.membership() == "join" {
                let inviter = forget_invite(unit, room).await?;
                if let Some(inviter) = inviter.filter(|_| context.accept_history) {
                    history::want(unit, room, inviter, context.now_ms)?;
                }
                after.joined_ms = after.joined_ms.or_else(|| state.origin_server_ts.as_u64());
            }
            if state.has_left() {
                noted.note_departure(state, context);
            }
        } else if state.state_key.is_empty() {
            noted.tampered.extend(after.apply(&state.event_type, &state.content));
        }
    }
    if shown && matches!(context.scope, Scope::Again { .. }) {
        // A homeserver that answers from what it remembers may show an older standing than a sync since: it is asked.
        members.push((room.clone(), MemberChange::Forget));
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

fn invite_id(room: &RoomId) -> RecordId {
    RecordId::named(INVITES, &[], room.as_str())
}

/// The invitations that are news.
pub(super) async fn invitations(
    unit: &Unit,
    invited: Vec<(OwnedRoomId, Vec<Box<RawValue>>)>,
    slides: bool,
    context: &Context,
) -> Result<Vec<Event>> {
    let shows_again = matches!(context.scope, Scope::Again { .. });
    if slides && shows_again {
        // A new connection shows all that there are.
        keep_invites(unit, invited.iter().map(|(room, _)| room)).await?;
    }
    let mut events = Vec::new();
    for (room, state) in invited {
        let invite = invite(room, &state, &context.user);
        // `/sync` shows one when it comes, and not again from the same token on.
        if is_news(unit, &invite, slides || shows_again).await? {
            events.push(Event::Invite(invite));
        }
    }
    Ok(events)
}

/// Whether an invitation is news: a homeserver that has forgotten what it gave shows it again, which `may_repeat`.
async fn is_news(unit: &Unit, invite: &Invite, may_repeat: bool) -> Result<bool> {
    let id = invite_id(&invite.room_id);
    let known: Option<Option<OwnedUserId>> = unit.get(&id).await?;
    if may_repeat && known.as_ref() == Some(&invite.inviter) {
        return Ok(false);
    }
    unit.put(&id, &invite.inviter)?;
    Ok(true)
}

/// Only these rooms invite us: an invitation to another one will be another.
async fn keep_invites<'a>(unit: &Unit, rooms: impl Iterator<Item = &'a OwnedRoomId>) -> Result<()> {
    let mut kept: Vec<(RecordId, Option<OwnedUserId>)> = Vec::new();
    for room in rooms {
        let id = invite_id(room);
        if let Some(inviter) = unit.get(&id).await? {
            kept.push((id, inviter));
        }
    }
    loop {
        let page = unit.scan(INVITES, &[], None, INVITES_AT_ONCE).await?;
        if page.is_empty() {
            break;
        }
        for record in page {
            unit.delete_at(&record.cursor)?;
        }
    }
    for (id, inviter) in kept {
        unit.put(&id, &inviter)?;
    }
    Ok(())
}

/// We went: nobody invites us any more, or gives us the history.
pub(super) async fn forget_room(unit: &Unit, room: &RoomId) -> Result<()> {
    forget_invite(unit, room).await?;
    history::forget_wanted(unit, room).await
}

/// We came or went: the next invitation is another one.
/// Returns who had invited us.
async fn forget_invite(unit: &Unit, room: &RoomId) -> Result<Option<OwnedUserId>> {
    let id = invite_id(room);
    let known: Option<Option<OwnedUserId>> = unit.get(&id).await?;
    if known.is_some() {
        unit.delete(&id)?;
    }
    Ok(known.flatten())
}

fn invite(room_id: OwnedRoomId, state: &[Box<RawValue>], own: &OwnedUserId) -> Invite {
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

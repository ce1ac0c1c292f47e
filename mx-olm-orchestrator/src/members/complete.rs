//! Asking for all members of a room: a list that may leave somebody out refuses the send.

use std::collections::BTreeSet;

use ruma::{OwnedUserId, RoomId, api::client::membership::get_member_events, events::room::member::MembershipState};

use super::Members;
use crate::{
    Error, Orchestrator, Result,
    receive::StateEvent,
    rooms::{RoomRecord, is_not_in_room},
    send::{audience::Audience, rotation::Due},
};

/// A list that syncs overtake more often than this is given up.
const MAX_ATTEMPTS: usize = 5;

impl Orchestrator {
    /// The room's members, from the homeserver where a gap or a restart left the list incomplete.
    ///
    /// # Errors
    /// [`Error::NotInRoom`], [`Error::MembersIncomplete`]; of the request where asking again would not help; of the store.
    pub(crate) async fn complete_members(&self, room: &RoomId) -> Result<Members> {
        if let Some(members) = self.members().get(room).await {
            return Ok(members);
        }
        self.look_at_encryption(room).await?;
        for _ in 0..MAX_ATTEMPTS {
            let changes = self.members().changes(room).await;
            let mut members = self.ask_for_members(room).await?;
            members.as_of = changes;
            members.add_missing(self.seen_as_members(room).await?);
            if !members.disputed().is_empty() {
                tracing::warn!(%room, users = ?members.disputed(), "the homeserver's list of members leaves people out");
            }
            if self.members().put(room.to_owned(), members.clone(), changes).await {
                return Ok(members);
            }
        }
        Err(incomplete(room, "it changes faster than it can be asked for"))
    }

    /// Who was a member when we last heard of them: whom syncs showed, and whom we sent to. An honest list has a word of each
    /// of them, also of who left.
    async fn seen_as_members(&self, room: &RoomId) -> Result<BTreeSet<OwnedUserId>> {
        let seen = self.members().seen(room).await;
        let mut members: BTreeSet<OwnedUserId> = Audience::committed(self.store(), room)
            .await?
            .map(|audience| audience.users.into_keys().collect())
            .unwrap_or_default();
        if let Some(Due::Left { users }) = RoomRecord::committed(self.store(), room).await?.due {
            members.retain(|user| !users.contains(user));
        }
        for (user, joined) in seen {
            if joined {
                members.insert(user);
            } else {
                members.remove(&user);
            }
        }
        Ok(members)
    }

    async fn ask_for_members(&self, room: &RoomId) -> Result<Members> {
        let request = get_member_events::v3::Request::new(room.to_owned());
        let answer = self.homeserver().send(request).await.map_err(|error| match error {
            error if is_not_in_room(&error) => Error::NotInRoom { room: room.to_owned() },
            error @ (mx_transport::RequestError::LoggedOut { .. }
            | mx_transport::RequestError::NoAccessToken
            | mx_transport::RequestError::Build { .. }) => error.into(),
            source => Error::MembersIncomplete {
                room: room.to_owned(),
                reason: "the homeserver did not give it",
                source: Some(source),
            },
        })?;
        let mut members = Members::default();
        for raw in answer.chunk {
            let event = raw.deserialize_as_unchecked::<StateEvent>();
            match event.as_ref().map_or(Standing::Unreadable, standing) {
                Standing::Of(user, membership) => {
                    members.set(user, membership);
                }
                Standing::Nobody => {}
                Standing::Unreadable => return Err(incomplete(room, "an entry of it cannot be read")),
            }
        }
        Ok(members)
    }
}

fn incomplete(room: &RoomId, reason: &'static str) -> Error {
    Error::MembersIncomplete {
        room: room.to_owned(),
        reason,
        source: None,
    }
}

/// What an `m.room.member` event says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Of(OwnedUserId, MembershipState),
    /// Somebody whom no user id names is not in the room.
    Nobody,
    /// Somebody may be in the room, and who cannot be said.
    Unreadable,
}

pub(crate) fn standing(event: &StateEvent) -> Standing {
    let membership = event.membership();
    if event.event_type != "m.room.member" || membership.is_empty() {
        return Standing::Unreadable;
    }
    match OwnedUserId::try_from(event.state_key.as_str()) {
        Ok(user) => Standing::Of(user, membership.into()),
        Err(_) if matches!(membership, "leave" | "ban") => Standing::Nobody,
        Err(_) => Standing::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(event: &Value) -> Standing {
        let event: std::result::Result<StateEvent, _> = serde_json::from_value(event.clone());
        event.as_ref().map_or(Standing::Unreadable, standing)
    }

    #[test]
    fn an_entry_is_read_or_said_to_be_unreadable() {
        let event = |key: &str, content: Value| json!({"type": "m.room.member", "state_key": key, "content": content});
        assert_eq!(
            read(&event("@a:s", json!({"membership": "join"}))),
            Standing::Of("@a:s".try_into().unwrap(), MembershipState::Join)
        );
        assert_eq!(read(&event("nobody", json!({"membership": "leave"}))), Standing::Nobody);
        for bad in [
            event("nobody", json!({"membership": "join"})),
            event("@a:s", json!({"membership": 7})),
            event("@a:s", json!({})),
            event("@a:s", json!("join")),
            json!({"type": "m.room.member", "content": {"membership": "join"}}),
            json!({"type": "m.room.member", "state_key": 7, "content": {"membership": "join"}}),
            json!({"type": "m.room.name", "state_key": "@a:s", "content": {"membership": "join"}}),
            json!({"state_key": "@a:s", "content": {"membership": "join"}}),
            json!("@a:s"),
            json!(null),
        ] {
            assert_eq!(read(&bad), Standing::Unreadable, "{bad}");
        }
    }
}

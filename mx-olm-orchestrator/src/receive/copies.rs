//! Before a send that left messages where they are: whether another copy of this device has sent to the room.
//!
//! # Why
//! `rollback.rs` knows a store that was set back by an event of its own that it has not sent. Such an event is a message,
//! which a sync for a send does not ask for. So the room that is sent to is asked for our own last messages, and for nothing
//! else: the key of that room is the one that would be used twice. What a copy did in other rooms is seen when they are sent
//! to, or with the next sync that wants messages.

use mx_transport::Call;
use ruma::{
    OwnedEventId, OwnedUserId, RoomId,
    api::{
        Direction,
        client::{filter::RoomEventFilter, message::get_message_events},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    backlog::Backlog,
    decrypt::{self, Outcome},
};
use crate::{Orchestrator, Result, machine::Ending, rollback, rooms::RoomRecord};

/// Other devices of our user may have sent, too.
const LAST: u32 = 10;

#[derive(Deserialize)]
struct Own {
    event_id: OwnedEventId,
    sender: OwnedUserId,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    session_id: String,
}

impl Orchestrator {
    /// Look at the last messages of our user in a room, where no sync has shown them. What is found is remembered, and
    /// refuses the send.
    ///
    /// # Errors
    /// Of the request, unless the homeserver refuses the history; of the store.
    pub(crate) async fn look_for_copies(&self, room: &RoomId) -> Result<()> {
        let Some(backlog) = Backlog::committed(self.store()).await? else {
            return Ok(());
        };
        let Some(key) = RoomRecord::committed(self.store(), room).await?.key else {
            return Ok(());
        };
        let mut request = get_message_events::v3::Request::new(room.to_owned(), Direction::Backward);
        request.to = Some(backlog.from);
        request.limit = LAST.into();
        let mut filter = RoomEventFilter::default();
        filter.types = Some(vec!["m.room.encrypted".to_owned()]);
        filter.senders = Some(vec![self.user_id().to_owned()]);
        request.filter = filter;
        let events = match self.homeserver().send_with(request, Call::repeatable()).await {
            Ok(page) => page.chunk,
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| status.is_client_error() && status.as_u16() != 429) =>
            {
                tracing::warn!(code = error.code(), "the homeserver refuses our own messages");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let of_key: Vec<(OwnedEventId, Box<RawValue>)> = events
            .into_iter()
            .filter_map(|event| {
                let own: Own = serde_json::from_str(event.json().get()).ok()?;
                let is_ours = own.sender == *self.user_id() && own.content.session_id == key.session_id;
                is_ours.then(|| (own.event_id, event.into_json()))
            })
            .collect();
        if of_key.is_empty() {
            return Ok(());
        }
        self.hold_against_our_key(room, of_key).await
    }

    async fn hold_against_our_key(&self, room: &RoomId, events: Vec<(OwnedEventId, Box<RawValue>)>) -> Result<()> {
        let (room, now_ms) = (room.to_owned(), self.now_ms());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    for (event, raw) in events {
                        let Outcome::Open(opened) = decrypt::decrypt(machine, &room, &raw).await? else {
                            continue;
                        };
                        let place = &opened.place;
                        rollback::look_at_own(machine, unit, &room, &place.session, place.index, &event, now_ms)
                            .await?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

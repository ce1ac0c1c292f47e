//! Before a send that left messages where they are: whether another copy of this device has sent to the room.
//!
//! # Why
//! `rollback.rs` knows a store that was set back by an event of its own that it has not sent. Such an event is a message,
//! which a sync for a send does not ask for. So the room that is sent to is asked for our own last messages, and for nothing
//! else: the key of that room is the one that would be used twice, and one that the store does not have was made by a copy.
//! Where they are not all to be had, the room gets a new key, which no copy has. What a copy did in other rooms is seen when
//! they are sent to, or with the next sync that wants messages.

use mx_transport::Call;
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedUserId, RoomId,
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
use crate::{
    Orchestrator, Result, UndecryptableReason,
    machine::Ending,
    rollback::{self, Unopened},
    rooms::RoomRecord,
    send::rotation::{Due, end_key},
};

/// Other devices of our user may have sent, too: so many pages are asked for, of so many events.
const MAX_PAGES: usize = 5;
const PAGE: u32 = 100;

#[derive(Deserialize)]
struct Own {
    event_id: OwnedEventId,
    sender: OwnedUserId,
    #[serde(default)]
    origin_server_ts: u64,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    session_id: String,
    device_id: Option<OwnedDeviceId>,
}

/// A message that says to be of this device, or that its key encrypted.
struct Found {
    event: OwnedEventId,
    origin_server_ts: u64,
    /// It says so.
    is_claimed: bool,
    raw: Box<RawValue>,
}

impl Orchestrator {
    /// Look at the last messages of our user in a room, where no sync has shown them. What is found is remembered, and
    /// refuses the send; where not all of them are found, the room's key ends.
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
        let mut found = Vec::new();
        let all = self
            .own_messages_since(room, &backlog.from, &key.session_id, &mut found)
            .await?;
        if !found.is_empty() {
            self.hold_against_what_we_sent(room, found).await?;
        }
        if !all {
            self.end_key_unseen(room).await?;
        }
        Ok(())
    }

    /// Our own messages that were encrypted with the key, or are of this device, since a token. Returns whether these are all.
    async fn own_messages_since(
        &self,
        room: &RoomId,
        since: &str,
        session: &str,
        found: &mut Vec<Found>,
    ) -> Result<bool> {
        let mut from = None;
        for _ in 0..MAX_PAGES {
            let mut request = get_message_events::v3::Request::new(room.to_owned(), Direction::Backward);
            request.from = from;
            request.to = Some(since.to_owned());
            request.limit = PAGE.into();
            let mut filter = RoomEventFilter::default();
            filter.types = Some(vec!["m.room.encrypted".to_owned()]);
            filter.senders = Some(vec![self.user_id().to_owned()]);
            request.filter = filter;
            let page = match self.homeserver().send_with(request, Call::repeatable()).await {
                Ok(page) => page,
                Err(error)
                    if error
                        .status()
                        .is_some_and(|status| status.is_client_error() && !matches!(status.as_u16(), 401 | 429)) =>
                {
                    tracing::warn!(code = error.code(), "the homeserver refuses our own messages");
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            found.extend(page.chunk.into_iter().filter_map(|event| {
                let own: Own = serde_json::from_str(event.json().get()).ok()?;
                let is_claimed = own.content.device_id.as_deref() == Some(self.device_id());
                let is_of_key = own.content.session_id == session;
                let is_ours = own.sender == *self.user_id() && (is_claimed || is_of_key);
                is_ours.then(|| Found {
                    event: own.event_id,
                    origin_server_ts: own.origin_server_ts,
                    is_claimed,
                    raw: event.into_json(),
                })
            }));
            from = page.end;
            if from.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a copy has used the room's key is not known: another key is used from now on.
    async fn end_key_unseen(&self, room: &RoomId) -> Result<()> {
        let room = room.to_owned();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    end_key(machine, unit, &room, Due::EventsMissed).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    async fn hold_against_what_we_sent(&self, room: &RoomId, found: Vec<Found>) -> Result<()> {
        let (room, now_ms) = (room.to_owned(), self.now_ms());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    for Found {
                        event,
                        origin_server_ts,
                        is_claimed,
                        raw,
                    } in found
                    {
                        match decrypt::decrypt(machine, &room, &raw).await? {
                            Outcome::Open(opened) => {
                                let place = &opened.place;
                                rollback::look_at_own(
                                    machine,
                                    unit,
                                    &room,
                                    &place.session,
                                    place.index,
                                    &event,
                                    now_ms,
                                )
                                .await?;
                            }
                            Outcome::Closed(closed)
                                if is_claimed && closed.reason == UndecryptableReason::MissingRoomKey =>
                            {
                                let unopened = Unopened {
                                    room: &room,
                                    event: &event,
                                    origin_server_ts,
                                };
                                rollback::look_at_unopened(machine, unit, unopened, now_ms).await?;
                            }
                            Outcome::Closed(_) => {}
                        }
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

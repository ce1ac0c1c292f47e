//! Events that a sync left out: asked for page by page, back to the last one that was seen.
//!
//! # Why it ends
//! A homeserver decides what it answers, so that nothing here relies on it: at most [`MAX_PAGES`] pages are asked for, a
//! place that was asked about is not asked about again, events that come twice count once, and those of another room not
//! at all. Where the last event that was seen is not reached, a gap stays, and is told. Until everything is there nothing is
//! kept: a process that is killed in between asks again.

use std::collections::BTreeSet;

use mx_transport::Call;
use ruma::{
    OwnedRoomId, UserId,
    api::{
        Direction,
        client::{filter::RoomEventFilter, message::get_message_events},
    },
};
use serde_json::value::RawValue;

use super::{
    StateEvent,
    filters::{self, Messages},
    seen::{Seen, Which},
};
use crate::{
    Gap, Orchestrator, Result,
    sync_response::{JoinedRoom, SyncResponse},
};

/// At most this many pages of 100 events are asked for, for one room: what is before them is reported as a gap.
const MAX_PAGES: usize = 20;

impl Orchestrator {
    /// Put what was left out before each timeline. `since`: where the last sync ended, in the words of `/sync`. Returns the
    /// gaps that stay.
    ///
    /// # Errors
    /// Of the request, unless the homeserver refuses the history, which is a gap; of the store.
    pub(crate) async fn fill_gaps(
        &self,
        sync: &mut SyncResponse,
        since: Option<&str>,
        messages: Messages,
    ) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        for (room, joined) in &mut sync.joined {
            // A timeline that could not be read names no place: from where this sync ends, then.
            joined.prev_batch = joined.prev_batch.take().or_else(|| sync.end.clone());
            if !joined.limited && !joined.initial {
                continue;
            }
            let seen = Seen::committed(self.store(), room).await?;
            // Of a room that we came into with this sync, or that was never looked at, everything is history.
            let is_new = match &seen {
                Some(_) => false,
                None => since.is_none() || just_joined(joined, self.user_id()),
            };
            joined.missed = joined.initial && is_new;
            // What is shown as a whole may reach what was seen.
            let reached = joined.initial && seen.as_ref().is_some_and(|seen| seen.cut(&mut joined.timeline));
            if joined.limited && !is_new && !reached {
                let filter = filters::of_history(messages);
                let missing = Missing {
                    room,
                    since,
                    seen,
                    filter,
                };
                gaps.extend(self.fill(&missing, joined).await?);
            }
        }
        Ok(gaps)
    }

    async fn fill(&self, missing: &Missing<'_>, joined: &mut JoinedRoom) -> Result<Option<Gap>> {
        let mut known: BTreeSet<String> = joined
            .timeline
            .iter()
            .filter_map(|raw| Which::of(raw).event_id)
            .collect();
        let mut asked = BTreeSet::new();
        // The newest first.
        let mut missed: Vec<Box<RawValue>> = Vec::new();
        // `None`: from the newest on.
        let mut from = joined.prev_batch.clone();
        let mut whole = false;
        for _ in 0..MAX_PAGES {
            if !asked.insert(from.clone()) {
                break;
            }
            let Some(page) = self.page(missing, from.take()).await? else {
                break;
            };
            let is_last = page.end.is_none() || page.chunk.is_empty();
            from = page.end;
            let reached = missing.take(page.chunk, &mut known, &mut missed);
            whole = reached || is_last;
            if whole {
                break;
            }
        }
        let recovered = missed.len();
        missed.reverse();
        missed.append(&mut joined.timeline);
        joined.timeline = missed;
        Ok((!whole).then(|| Gap {
            room_id: missing.room.clone(),
            recovered,
        }))
    }

    /// `None`: the homeserver refuses it.
    async fn page(&self, missing: &Missing<'_>, from: Option<String>) -> Result<Option<Page>> {
        let mut request = get_message_events::v3::Request::new(missing.room.clone(), Direction::Backward);
        request.from = from;
        request.to = missing.since.map(str::to_owned);
        request.limit = 100_u32.into();
        request.filter = missing.filter.clone();
        match self.homeserver().send_with(request, Call::repeatable()).await {
            Ok(page) => Ok(Some(Page {
                chunk: page.chunk.into_iter().map(|event| event.into_json()).collect(),
                end: page.end,
            })),
            Err(error)
                if error
                    .status()
                    .is_some_and(|status| status.is_client_error() && status.as_u16() != 429) =>
            {
                tracing::warn!(code = error.code(), "the homeserver refuses what a sync left out");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

struct Page {
    /// The newest first.
    chunk: Vec<Box<RawValue>>,
    end: Option<String>,
}

/// What is asked for.
struct Missing<'a> {
    room: &'a OwnedRoomId,
    since: Option<&'a str>,
    seen: Option<Seen>,
    filter: RoomEventFilter,
}

impl Missing<'_> {
    /// Take a page. Returns whether it reaches what was seen.
    fn take(&self, chunk: Vec<Box<RawValue>>, known: &mut BTreeSet<String>, missed: &mut Vec<Box<RawValue>>) -> bool {
        for raw in chunk {
            let which = Which::of(&raw);
            if which.room_id.is_some_and(|room| room != self.room.as_str()) {
                tracing::warn!("the homeserver gives events of another room, which are not taken");
                continue;
            }
            if let Some(event) = which.event_id {
                if self.seen.as_ref().is_some_and(|seen| seen.has(&event)) {
                    return true;
                }
                if !known.insert(event) {
                    continue;
                }
            }
            missed.push(raw);
        }
        false
    }
}

/// We came into the room with this sync: what was before is history, and not missed.
fn just_joined(joined: &JoinedRoom, own: &UserId) -> bool {
    joined.state.iter().chain(&joined.timeline).any(|raw| {
        serde_json::from_str::<StateEvent>(raw.get())
            .is_ok_and(|event| event.event_type == "m.room.member" && event.state_key == own.as_str() && event.joins())
    })
}

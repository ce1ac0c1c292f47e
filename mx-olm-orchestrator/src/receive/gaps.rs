//! Events that a sync left out: asked for page by page, back to where the last sync ended.

use mx_transport::Call;
use ruma::{
    OwnedRoomId, UserId,
    api::{Direction, client::message::get_message_events},
};
use serde_json::value::RawValue;

use super::StateEvent;
use crate::{
    Gap, Orchestrator, Result,
    sync_response::{JoinedRoom, SyncResponse},
};

/// At most this many pages of 100 events are asked for, for one room: what is before them is reported as a gap.
const MAX_PAGES: usize = 20;

impl Orchestrator {
    /// Put what was left out since `since` before each timeline. Returns the gaps that stay.
    ///
    /// # Errors
    /// Of the request, unless the homeserver refuses the history, which is a gap.
    pub(crate) async fn fill_gaps(&self, sync: &mut SyncResponse, since: &str) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        // A timeline that could not be read names no place: from where this sync ends, then.
        let end = sync.next_batch.clone();
        for (room, joined) in &mut sync.joined {
            joined.prev_batch.get_or_insert_with(|| end.clone());
            if joined.limited && !just_joined(joined, self.user_id()) {
                gaps.extend(self.fill(room, joined, since).await?);
            }
        }
        Ok(gaps)
    }

    async fn fill(&self, room: &OwnedRoomId, joined: &mut JoinedRoom, since: &str) -> Result<Option<Gap>> {
        let mut from = joined.prev_batch.clone();
        // The newest first.
        let mut missed: Vec<Box<RawValue>> = Vec::new();
        for _ in 0..MAX_PAGES {
            let Some(start) = from.take() else { break };
            let mut request = get_message_events::v3::Request::new(room.clone(), Direction::Backward);
            request.from = Some(start);
            request.to = Some(since.to_owned());
            request.limit = 100_u32.into();
            let page = match self.homeserver().send_with(request, Call::repeatable()).await {
                Ok(page) => page,
                Err(error)
                    if error
                        .status()
                        .is_some_and(|status| status.is_client_error() && status.as_u16() != 429) =>
                {
                    tracing::warn!(code = error.code(), "the homeserver refuses what a sync left out");
                    return Ok(Some(Gap {
                        room_id: room.clone(),
                        recovered: missed.len(),
                    }));
                }
                Err(error) => return Err(error.into()),
            };
            from = page.end.filter(|_| !page.chunk.is_empty());
            missed.extend(page.chunk.into_iter().map(|event| event.into_json()));
        }
        let recovered = missed.len();
        missed.reverse();
        missed.append(&mut joined.timeline);
        joined.timeline = missed;
        Ok(from.map(|_| Gap {
            room_id: room.clone(),
            recovered,
        }))
    }
}

/// We came into the room with this sync: what was before is history, and not missed.
fn just_joined(joined: &JoinedRoom, own: &UserId) -> bool {
    joined.state.iter().chain(&joined.timeline).any(|raw| {
        serde_json::from_str::<StateEvent>(raw.get()).is_ok_and(|event| {
            event.event_type == "m.room.member" && event.state_key == own.as_str() && event.membership() == "join"
        })
    })
}

//! Events that a sync left out: asked for page by page, back to what was seen.
//!
//! # Why it ends
//! A homeserver decides what it answers, so that nothing here relies on it: at most [`MAX_PAGES`] pages are asked for, and
//! [`MAX_OF_ALL`] for all rooms of one answer; a place that was asked about is not asked about again, events that come twice
//! count once, and those of another room not at all. Where what was seen is not reached, a gap stays, and is told; so is one
//! of a room whose history fails again and again (`histories.rs`), which would keep all others from being heard. Until
//! everything is there nothing is kept: a process that is killed in between asks again.

use std::collections::BTreeSet;

use mx_transport::Call;
use ruma::{
    OwnedRoomId, UserId,
    api::{
        Direction,
        client::{filter::RoomEventFilter, message::get_message_events},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    StateEvent,
    filters::{self, Messages},
    seen::Seen,
    walk::Walk,
};
use crate::{
    Gap, Orchestrator, Result,
    sync_response::{JoinedRoom, SyncResponse},
};

/// At most this many pages of 100 events are asked for, for one room: what is before them is reported as a gap.
const MAX_PAGES: usize = 20;

/// At most this many for all rooms of one answer, which is held in memory until it is taken.
const MAX_OF_ALL: usize = 100;

/// What an answer goes on from.
pub(super) struct From<'a> {
    /// Where the last sync ended, in the words of `/sync`: nothing before it is new. `None`: they do not say.
    pub(super) since: Option<&'a str>,
    /// The device has synced never before.
    pub(super) first_sync: bool,
    pub(super) messages: Messages,
}

impl Orchestrator {
    /// Put what was left out before each timeline, and leave out what was seen where a room is shown once more. Returns the
    /// gaps that stay.
    ///
    /// # Errors
    /// Of the request, unless the homeserver refuses the history or has failed to give it for long, which is a gap; of the
    /// store.
    pub(super) async fn fill_gaps(&self, sync: &mut SyncResponse, from: &From<'_>) -> Result<Vec<Gap>> {
        let mut gaps = Vec::new();
        let mut left_of_all = MAX_OF_ALL;
        let slides = sync.positions.is_some();
        let left = sync.left.iter_mut().filter(|_| from.messages == Messages::Wanted);
        let left = left.map(|(room, shown)| (room, shown, true));
        let joined = sync.joined.iter_mut().map(|(room, shown)| (room, shown, false));
        for (room, shown, is_left) in joined.chain(left) {
            // A timeline that could not be read names no place: from where this sync ends, then.
            shown.prev_batch = shown.prev_batch.take().or_else(|| sync.end.clone());
            let is_whole = shown.initial || slides;
            if !shown.limited && !is_whole {
                continue;
            }
            let seen = Seen::committed(self.store(), room).await?.filter(|seen| seen.len() > 0);
            let came = Coming::of(shown, self.user_id());
            // Of a room that we came into with this timeline, or before the first sync, everything before is history.
            let is_new = seen.is_none() && (from.first_sync || came.as_ref().is_some_and(|came| came.is_shown));
            let was_never_in = is_left && seen.is_none() && came.is_none();
            shown.missed = shown.initial && is_new;
            if is_new || was_never_in {
                continue;
            }
            let joining = match &seen {
                Some(_) => None,
                None => came.as_ref().and_then(|came| came.event_id.as_deref()),
            };
            let missing = Missing {
                room,
                since: from.since,
                filter: filters::of_history(from.messages),
                ends_anywhere: from.since.is_some() || seen.is_none(),
            };
            let mut walk = Walk::new(room, seen.as_ref(), joining);
            let timeline = std::mem::take(&mut shown.timeline);
            if is_whole {
                walk.back(timeline.into_iter().rev());
                if shown.limited && !walk.reached {
                    gaps.extend(
                        self.fill(&missing, &mut walk, shown.prev_batch.take(), &mut left_of_all)
                            .await?,
                    );
                }
                shown.timeline = walk.into_timeline();
            } else {
                walk.pass(&timeline);
                gaps.extend(
                    self.fill(&missing, &mut walk, shown.prev_batch.take(), &mut left_of_all)
                        .await?,
                );
                shown.timeline = walk.into_timeline();
                shown.timeline.extend(timeline);
            }
        }
        Ok(gaps)
    }

    /// Go back from `place`. `None` of it: from the newest on.
    async fn fill(
        &self,
        missing: &Missing<'_>,
        walk: &mut Walk<'_>,
        mut place: Option<String>,
        left_of_all: &mut usize,
    ) -> Result<Option<Gap>> {
        let shown = walk.new.len();
        let mut asked = BTreeSet::new();
        let mut whole = false;
        for _ in 0..MAX_PAGES {
            if *left_of_all == 0 || !asked.insert(place.clone()) {
                break;
            }
            *left_of_all -= 1;
            let page = match self.page(missing, place.take()).await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) => {
                    self.history_failed(missing.room, error).await?;
                    break;
                }
            };
            // An empty page is not the last one (the specification's `/messages`): one without an end is.
            let is_last = page.end.is_none();
            place = page.end;
            walk.back(page.chunk);
            // A history that was gone through to its end and holds what was seen has nothing more.
            whole = walk.reached || (is_last && (missing.ends_anywhere || walk.has_met()));
            if whole || is_last {
                break;
            }
        }
        Ok((!whole).then(|| Gap {
            room_id: missing.room.clone(),
            recovered: walk.new.len() - shown,
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
                    .is_some_and(|status| status.is_client_error() && !matches!(status.as_u16(), 401 | 429)) =>
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
    filter: RoomEventFilter,
    /// Where the history ends, nothing is missing. Otherwise what was seen has to be there.
    ends_anywhere: bool,
}

/// How we came into a room.
struct Coming {
    event_id: Option<String>,
    /// It is in the timeline: what was left out is before it.
    is_shown: bool,
}

impl Coming {
    /// As far as the answer says.
    fn of(shown: &JoinedRoom, own: &UserId) -> Option<Self> {
        let joining = |raw: &RawValue| {
            let event: StateEvent = serde_json::from_str(raw.get()).ok()?;
            let is_ours = event.event_type == "m.room.member" && event.state_key == own.as_str();
            is_ours.then_some(event)
        };
        let coming = |events: &[Box<RawValue>], is_shown| {
            events.iter().find_map(|raw| {
                joining(raw).filter(StateEvent::joins)?;
                let event_id = named(raw);
                Some(Self { event_id, is_shown })
            })
        };
        let went = || {
            let was_in = |raw: &RawValue| joining(raw).is_some_and(|event| event.membership_before() == Some("join"));
            let event_id = None;
            let is_shown = false;
            shown
                .timeline
                .iter()
                .any(|raw| was_in(raw))
                .then_some(Self { event_id, is_shown })
        };
        coming(&shown.timeline, true)
            .or_else(|| coming(&shown.state, false))
            .or_else(went)
    }
}

fn named(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        event_id: Option<String>,
    }
    serde_json::from_str::<Named>(raw.get()).ok()?.event_id
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{json, value::to_raw_value};

    use super::*;

    #[test]
    fn how_we_came_is_read_from_our_own_membership() {
        let member = |membership: &str, before: &str| {
            let event = json!({"type": "m.room.member", "state_key": "@me:s", "event_id": "$1",
                "content": {"membership": membership}, "unsigned": {"prev_content": {"membership": before}}});
            to_raw_value(&event).unwrap()
        };
        let read = |state, timeline| {
            let room = JoinedRoom {
                state,
                timeline,
                ..JoinedRoom::default()
            };
            Coming::of(&room, user_id!("@me:s")).map(|came| (came.event_id, came.is_shown))
        };
        let known = Some("$1".to_owned());
        assert_eq!(
            read(vec![], vec![member("join", "invite")]),
            Some((known.clone(), true))
        );
        assert_eq!(read(vec![member("join", "leave")], vec![]), Some((known, false)));
        assert_eq!(read(vec![], vec![member("leave", "join")]), Some((None, false)));
        assert_eq!(read(vec![], vec![member("leave", "invite")]), None, "we were never in");
    }
}

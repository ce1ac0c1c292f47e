//! What a sync asks for: little, and for a send less.
//!
//! # Why a send asks for no messages
//! A send has to know who may read and which devices they have; what was said meanwhile is nothing to it, and in a busy
//! account is most of what a homeserver would give. So a program that only sends asks for the state that matters here,
//! and leaves the messages where they are: see `backlog.rs` for how they are not lost.

use ruma::api::client::filter::{Filter, FilterDefinition, LazyLoadOptions, RoomEventFilter};

/// State that matters to encryption. The rest of a room is not ours to know for a send.
const STATE: [&str; 4] = [
    "m.room.encryption",
    "m.room.history_visibility",
    "m.room.member",
    "m.room.tombstone",
];

/// How many events of a room a sync shows; what is before them is asked for page by page.
const TIMELINE: u32 = 100;

/// As many ways there are to ask the same: a limit that is lower.
const WORDINGS: u32 = 37;

/// Whether the messages of rooms are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    Wanted,
    Left,
}

/// Little is asked for: no presence, no receipts, and members only as far as they speak. `first_timeline`: how many events
/// of each room, where this is the first sync.
pub(super) fn of_sync(messages: Messages, first_timeline: Option<u32>) -> FilterDefinition {
    let mut filter = FilterDefinition::default();
    let nothing = || {
        let mut nothing = Filter::default();
        nothing.not_types = vec!["*".to_owned()];
        nothing
    };
    filter.presence = nothing();
    filter.account_data = nothing();
    let mut no_room_events = RoomEventFilter::default();
    no_room_events.not_types = vec!["*".to_owned()];
    filter.room.ephemeral = no_room_events.clone();
    filter.room.account_data = no_room_events;
    filter.room.state = of_events(messages);
    filter.room.timeline = of_events(messages);
    filter.room.timeline.limit = Some(first_timeline.unwrap_or(TIMELINE).into());
    filter
}

/// The same question in other words, for each `token` others. Synapse answers one that it was asked within two minutes, from
/// the same token on, as it did then: what came since would be missing, and would seem never to have been.
pub(super) fn reword(filter: &mut FilterDefinition, token: &str) {
    let words = token
        .bytes()
        .fold(0_u32, |sum, byte| (sum * 31 + u32::from(byte)) % WORDINGS);
    filter.room.timeline.limit = Some((TIMELINE - 1 - words).into());
}

/// The same events, where a sync left some out.
pub(super) fn of_history(messages: Messages) -> RoomEventFilter {
    of_events(messages)
}

fn of_events(messages: Messages) -> RoomEventFilter {
    let mut filter = RoomEventFilter::default();
    filter.lazy_load_options = LazyLoadOptions::Enabled {
        include_redundant_members: false,
    };
    if messages == Messages::Left {
        filter.types = Some(STATE.map(str::to_owned).to_vec());
    }
    filter
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_send_asks_for_state_alone_and_a_sync_for_everything_in_rooms() {
        let send = serde_json::to_value(of_sync(Messages::Left, None)).unwrap();
        for part in ["state", "timeline"] {
            let types = send["room"][part]["types"].as_array().unwrap();
            assert_eq!(types.len(), STATE.len(), "{part}");
            assert!(!types.iter().any(|kind| kind == "m.room.encrypted"));
        }
        let sync = serde_json::to_value(of_sync(Messages::Wanted, None)).unwrap();
        assert!(sync["room"]["timeline"].get("types").is_none() && sync["room"]["state"].get("types").is_none());
        assert_eq!(sync["room"]["timeline"]["limit"], TIMELINE);
        assert_eq!(sync["presence"]["not_types"][0], "*");
        let limits: BTreeSet<u64> = (0..100)
            .map(|number| {
                let mut again = of_sync(Messages::Wanted, None);
                reword(&mut again, &format!("s{number}_2_0"));
                serde_json::to_value(again).unwrap()["room"]["timeline"]["limit"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert!(
            limits.len() > 20 && limits.iter().all(|limit| (50..100).contains(limit)),
            "{limits:?}"
        );
        let first = serde_json::to_value(of_sync(Messages::Wanted, Some(20))).unwrap();
        assert_eq!(first["room"]["timeline"]["limit"], 20);
    }
}

//! The way back through a room's events, from the newest on: which are new, and where it may end.
//!
//! # Where it ends
//! A homeserver gives what is new in the order in which it came, and a history in the order of the room, in which an event
//! of another server may stand before older ones. So one event that was seen is not where the new ones begin: there are
//! [`ENOUGH`] in a row, or all that are remembered are behind. What is further back than that and came late is not found.

use std::collections::BTreeSet;

use ruma::RoomId;
use serde_json::value::RawValue;

use super::seen::{Seen, Which};

/// So many events in a row that were seen: what is before them was, too.
const ENOUGH: usize = 20;

/// Back through one room.
pub(super) struct Walk<'a> {
    room: &'a RoomId,
    /// `None`: nothing of the room was ever taken.
    seen: Option<&'a Seen>,
    /// The event by which we came: what is before it is history.
    joining: Option<&'a str>,
    passed: BTreeSet<String>,
    /// How many events in a row were seen, and how many at all.
    streak: usize,
    found: usize,
    /// It goes no further.
    pub(super) reached: bool,
    /// What is new, the newest first.
    pub(super) new: Vec<Box<RawValue>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(room: &'a RoomId, seen: Option<&'a Seen>, joining: Option<&'a str>) -> Self {
        Self {
            room,
            seen,
            joining,
            passed: BTreeSet::new(),
            streak: 0,
            found: 0,
            reached: false,
            new: Vec::new(),
        }
    }

    /// Go back through these, the newest first.
    pub(super) fn back(&mut self, events: impl IntoIterator<Item = Box<RawValue>>) {
        for raw in events {
            if self.reached {
                break;
            }
            if self.is_new(&raw) {
                self.new.push(raw);
            }
        }
    }

    /// These are taken whatever they are, and not once more.
    pub(super) fn pass(&mut self, events: &[Box<RawValue>]) {
        self.passed
            .extend(events.iter().filter_map(|raw| Which::of(raw).event_id));
    }

    /// Something that was seen was met.
    pub(super) const fn has_met(&self) -> bool {
        self.found > 0
    }

    /// What is new, the oldest first.
    pub(super) fn into_timeline(mut self) -> Vec<Box<RawValue>> {
        self.new.reverse();
        self.new
    }

    fn is_new(&mut self, raw: &RawValue) -> bool {
        let which = Which::of(raw);
        if which.room_id.as_deref().is_some_and(|room| room != self.room.as_str()) {
            tracing::warn!("the homeserver gives events of another room, which are not taken");
            return false;
        }
        let is_creation = which.is_creation();
        let Some(event) = which.event_id else {
            // What is no event is told as such.
            self.streak = 0;
            return true;
        };
        let is_joining = self.joining == Some(event.as_str());
        let is_seen = self.seen.is_some_and(|seen| seen.has(&event));
        if !self.passed.insert(event) {
            return false;
        }
        if is_seen {
            self.streak += 1;
            self.found += 1;
        } else {
            self.streak = 0;
        }
        let all = self.seen.is_some_and(|seen| self.found > 0 && self.found == seen.len());
        self.reached = is_creation || is_joining || all || self.streak >= ENOUGH;
        !is_seen
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ruma::room_id;
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn events(numbers: impl IntoIterator<Item = u32>) -> Vec<Box<RawValue>> {
        let event = |number| to_raw_value(&json!({"event_id": format!("${number}")})).unwrap();
        numbers.into_iter().map(event).collect()
    }

    fn seen(numbers: Range<u32>) -> Seen {
        let mut seen = Seen::default();
        seen.take(&mut events(numbers));
        seen
    }

    fn ids(walk: Walk<'_>) -> Vec<String> {
        let timeline = walk.into_timeline();
        timeline.iter().map(|raw| Which::of(raw).event_id.unwrap()).collect()
    }

    #[test]
    fn an_event_among_older_ones_is_found() {
        let seen = seen(0..100);
        let mut walk = Walk::new(room_id!("!a:b"), Some(&seen), None);
        // $200 came late, and stands among those of before.
        walk.back(events([202, 201, 99, 98, 97, 96, 200, 95, 94]));
        assert!(!walk.reached);
        walk.back(events((60..94).rev().chain([300])));
        assert!(walk.reached, "so many in a row");
        assert_eq!(ids(walk), ["$200", "$201", "$202"]);
    }

    #[test]
    fn it_ends_where_all_that_is_remembered_is_behind() {
        let seen = seen(1..4);
        let mut walk = Walk::new(room_id!("!a:b"), Some(&seen), None);
        walk.back(events([5, 3, 4, 2, 4]));
        assert!(!walk.reached);
        walk.back(events([1, 0]));
        assert!(walk.reached);
        assert_eq!(ids(walk), ["$4", "$5"], "once, and nothing from before");
        let nothing = Seen::default();
        let mut walk = Walk::new(room_id!("!a:b"), Some(&nothing), None);
        walk.back(events([1, 0]));
        assert!(!walk.reached, "nothing that is remembered is no place");
    }

    #[test]
    fn it_ends_where_we_came_or_the_room_began() {
        let mut walk = Walk::new(room_id!("!a:b"), None, Some("$2"));
        walk.back(events([3, 2, 1]));
        assert!(walk.reached);
        assert_eq!(ids(walk), ["$2", "$3"]);
        let creation = json!({"event_id": "$0", "type": "m.room.create", "state_key": ""});
        let mut walk = Walk::new(room_id!("!a:b"), None, None);
        walk.back([to_raw_value(&creation).unwrap()]);
        assert!(walk.reached);
    }
}

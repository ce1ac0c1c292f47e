//! The last events of each room that were taken: where the next ones begin.
//!
//! # Why so many
//! A homeserver shows a room once more in whole timelines, after it forgot a connection or when a device goes from one kind
//! of sync to the other, and not always in the order in which events came: those of another server may be put among older
//! ones. So each event is looked at, and more are remembered than a timeline holds.

use std::collections::BTreeSet;

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::RoomId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Result;

const SEEN: Family = Family::new("seen").passing();

/// This many are remembered: more than a timeline of either sync holds.
const MOST: usize = 128;

/// No event id is longer (the specification's "Common identifier format"): another one is not remembered.
const MAX_ID_BYTES: usize = 255;

/// The last events of a room that were taken, the newest last.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Seen(Vec<String>);

/// Which event it is, as far as it says.
#[derive(Default, Deserialize)]
pub(super) struct Which {
    pub(super) event_id: Option<String>,
    pub(super) room_id: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    #[serde(default)]
    state_key: Option<String>,
}

impl Which {
    /// The replay guard looks at it, and says more.
    fn is_encrypted(&self) -> bool {
        self.event_type.as_deref() == Some("m.room.encrypted")
    }

    /// Nothing is before it in its room.
    pub(super) fn is_creation(&self) -> bool {
        self.event_type.as_deref() == Some("m.room.create") && self.state_key.as_deref() == Some("")
    }

    pub(super) fn of(raw: &RawValue) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }
}

fn id(room: &RoomId) -> RecordId {
    RecordId::named(SEEN, &[], room.as_str())
}

impl Seen {
    /// `None`: no event of the room was ever taken.
    pub(super) async fn committed(store: &PickleStore, room: &RoomId) -> Result<Option<Self>> {
        Ok(store.record(&id(room)).await?)
    }

    pub(super) async fn load(unit: &Unit, room: &RoomId) -> Result<Option<Self>> {
        Ok(unit.get(&id(room)).await?)
    }

    pub(super) fn has(&self, event: &str) -> bool {
        self.0.iter().any(|seen| seen == event)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Leave out what was taken before, but for encrypted events, and note the rest. Returns whether there is any.
    pub(super) fn take(&mut self, timeline: &mut Vec<Box<RawValue>>) -> bool {
        let mut taken = BTreeSet::new();
        let before = self.clone();
        let mut new = Vec::new();
        timeline.retain(|raw| {
            let which = Which::of(raw);
            let guarded = which.is_encrypted();
            match which.event_id {
                Some(event) if before.has(&event) || !taken.insert(event.clone()) => guarded,
                Some(event) => {
                    new.push(event);
                    true
                }
                // What is no event is told as such.
                None => true,
            }
        });
        let any = !new.is_empty();
        self.0
            .extend(new.into_iter().filter(|event| event.len() <= MAX_ID_BYTES));
        let old = self.0.len().saturating_sub(MOST);
        self.0.drain(..old);
        any
    }

    pub(super) fn save(&self, unit: &Unit, room: &RoomId) -> Result<()> {
        Ok(unit.put(&id(room), self)?)
    }
}

/// We are not in the room any more: what comes after another joining is new.
pub(super) fn forget(unit: &Unit, room: &RoomId) -> Result<()> {
    Ok(unit.delete(&id(room))?)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn timeline(ids: &[&str]) -> Vec<Box<RawValue>> {
        ids.iter()
            .map(|id| to_raw_value(&json!({"event_id": id})).unwrap())
            .collect()
    }

    #[test]
    fn an_event_is_taken_once_and_the_last_ones_are_remembered() {
        let mut seen = Seen::default();
        let mut first = timeline(&["$1", "$2", "$2"]);
        assert!(seen.take(&mut first));
        assert_eq!(first.len(), 2);
        let mut again = timeline(&["$2", "$3"]);
        again.push(to_raw_value(&json!(7)).unwrap());
        seen.take(&mut again);
        assert_eq!(again.len(), 2, "what is no event stays to be told");
        assert!(seen.has("$1") && seen.has("$3"));
        assert!(!seen.take(&mut timeline(&["$3", "$1"])), "there is nothing new");
        let many: Vec<String> = (10..210).map(|number| format!("${number}")).collect();
        let mut many = timeline(&many.iter().map(String::as_str).collect::<Vec<_>>());
        seen.take(&mut many);
        assert_eq!(many.len(), 200);
        assert!(!seen.has("$3") && !seen.has("$81") && seen.has("$82") && seen.has("$209") && seen.len() == MOST);
    }
}

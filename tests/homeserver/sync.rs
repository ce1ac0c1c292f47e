//! `/sync`: what is new for one device since its token, with everything empty left out as Synapse does.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    reply::{Refusal, Reply},
    state::{Event, Room, Session, State},
};

/// Synapse gives at most this many to-device events in one answer.
const TO_DEVICE_PAGE: usize = 100;

/// What a filter asks for, as far as it is understood.
struct Filter {
    limit: usize,
    lazy_members: bool,
    timeline: Wanted,
    state: Wanted,
}

/// Which events a filter lets through.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    types: Option<Vec<String>>,
    senders: Option<Vec<String>>,
}

impl Wanted {
    pub(crate) fn of(filter: &Value) -> Self {
        let list = |name: &str| {
            let names = filter[name].as_array()?;
            Some(names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        Self {
            types: list("types"),
            senders: list("senders"),
        }
    }

    pub(crate) fn lets_through(&self, event: &Value) -> bool {
        let is_in = |list: &Option<Vec<String>>, name: &str| {
            let value = event[name].as_str().unwrap_or_default();
            list.as_ref()
                .is_none_or(|list| list.iter().any(|wanted| wanted == value))
        };
        is_in(&self.types, "type") && is_in(&self.senders, "sender")
    }
}

impl State {
    /// The answer, and whether there is anything in it.
    pub(crate) fn sync(&mut self, session: &Session, query: &[(String, String)]) -> Result<(Value, bool), Refusal> {
        let value = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let since = match value("since") {
            Some(token) => Some(
                token
                    .strip_prefix('s')
                    .and_then(|token| token.parse::<u64>().ok())
                    .ok_or_else(|| Refusal::new(400, "M_INVALID_PARAM", "since"))?,
            ),
            None => None,
        };
        let filter = self.filter(session, value("filter"))?;
        let now = self.position;
        let mut answer = json!({"next_batch": format!("s{now}")});
        let mut anything = since.is_none();
        anything |= self.sync_keys(session, since, &mut answer);
        let next = self.sync_to_device(session, since, &mut answer);
        if let Some(next) = next {
            anything = true;
            answer["next_batch"] = format!("s{next}").into();
        }
        // A page of to-device events that is not the last ends where it ends: rooms go no further.
        let until = next.unwrap_or(now);
        anything |= self.sync_rooms(session, since, until, &filter, &mut answer);
        Ok((answer, anything))
    }

    fn filter(&self, session: &Session, given: Option<&str>) -> Result<Filter, Refusal> {
        let definition: Value = match given {
            Some(inline) if inline.starts_with('{') => {
                serde_json::from_str(inline).map_err(|_| Refusal::bad_json("filter"))?
            }
            Some(id) => self
                .users
                .get(&session.user)
                .and_then(|user| user.filters.get(id).cloned())
                .ok_or_else(|| Refusal::not_found("No such filter"))?,
            None => json!({}),
        };
        let timeline = &definition["room"]["timeline"];
        let limit = timeline["limit"]
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(10);
        Ok(Filter {
            limit: limit.min(100),
            lazy_members: definition["room"]["state"]["lazy_load_members"] == true,
            timeline: Wanted::of(timeline),
            state: Wanted::of(&definition["room"]["state"]),
        })
    }

    pub(crate) fn sync_keys(&mut self, session: &Session, since: Option<u64>, answer: &mut Value) -> bool {
        if let Some(device) = self.device(session) {
            answer["device_one_time_keys_count"] = device.counts();
            answer["device_unused_fallback_key_types"] = json!(device.unused_fallback());
        }
        let Some(since) = since else { return false };
        let shares = self.shares_rooms_with(&session.user);
        let changed: BTreeSet<&String> = self
            .device_changes
            .iter()
            .filter(|(position, user)| *position > since && shares.contains(user))
            .map(|(_, user)| user)
            .collect();
        // Who came into a shared room has changed as far as we are concerned; who went from the last one has left.
        let mut all: BTreeSet<String> = changed.into_iter().cloned().collect();
        let mut left = BTreeSet::new();
        for room in self
            .rooms
            .values()
            .filter(|room| room.content("m.room.encryption", "").is_some())
        {
            for event in room
                .events
                .iter()
                .filter(|event| event.position > since && event.json["type"] == "m.room.member")
            {
                let Some(user) = event.json["state_key"].as_str() else {
                    continue;
                };
                if user == session.user && room.membership(user) == "join" {
                    all.extend(room.present());
                } else if room.membership(&session.user) == "join" && shares.contains(user) {
                    all.insert(user.to_owned());
                } else if !shares.contains(user) {
                    left.insert(user.to_owned());
                }
            }
        }
        let mut lists = Map::new();
        if !all.is_empty() {
            lists.insert("changed".to_owned(), json!(all));
        }
        if !left.is_empty() {
            lists.insert("left".to_owned(), json!(left));
        }
        let any = !lists.is_empty();
        if any {
            answer["device_lists"] = Value::Object(lists);
        }
        any
    }

    /// Returns where the page ends, when there is one.
    fn sync_to_device(&mut self, session: &Session, since: Option<u64>, answer: &mut Value) -> Option<u64> {
        let now = self.position;
        let device = self.device(session)?;
        // What an earlier answer gave has arrived once its token comes back.
        device
            .to_device
            .retain(|(position, _)| since.is_none_or(|since| *position > since));
        let page: Vec<&(u64, Value)> = device.to_device.iter().take(TO_DEVICE_PAGE).collect();
        let (last, _) = page.last()?;
        answer["to_device"] = json!({"events": page.iter().map(|(_, event)| event).collect::<Vec<_>>()});
        Some(if device.to_device.len() > TO_DEVICE_PAGE {
            *last
        } else {
            now
        })
    }

    fn sync_rooms(
        &self,
        session: &Session,
        since: Option<u64>,
        until: u64,
        filter: &Filter,
        answer: &mut Value,
    ) -> bool {
        let (mut join, mut invite, mut leave) = (Map::new(), Map::new(), Map::new());
        for (id, room) in &self.rooms {
            let membership = room.state.get(&("m.room.member".to_owned(), session.user.clone()));
            let Some(own) = membership.and_then(|index| room.events.get(*index)) else {
                continue;
            };
            let fresh = own.position > since.unwrap_or(0) && own.position <= until;
            match room.membership(&session.user) {
                "join" => {
                    if let Some(joined) = joined(room, session, since, until, filter) {
                        join.insert(id.clone(), joined);
                    }
                }
                "invite" if fresh => {
                    let stripped: Vec<Value> = room
                        .state_at(u64::MAX)
                        .into_iter()
                        .filter(|event| {
                            let kind = event.json["type"].as_str().unwrap_or_default();
                            matches!(kind, "m.room.create" | "m.room.name" | "m.room.encryption" | "m.room.join_rules")
                                || event.json["state_key"] == session.user
                        })
                        .map(|event| json!({"type": event.json["type"], "state_key": event.json["state_key"], "sender": event.json["sender"], "content": event.json["content"]}))
                        .collect();
                    invite.insert(id.clone(), json!({"invite_state": {"events": stripped}}));
                }
                "leave" | "ban" if fresh && since.is_some() => {
                    leave.insert(id.clone(), left(room, session, own, since, filter));
                }
                _ => {}
            }
        }
        let mut rooms = Map::new();
        for (name, section) in [("join", join), ("invite", invite), ("leave", leave)] {
            if !section.is_empty() {
                rooms.insert(name.to_owned(), Value::Object(section));
            }
        }
        let any = !rooms.is_empty();
        if any {
            answer["rooms"] = Value::Object(rooms);
        }
        any
    }
}

/// A room that was left, up to there: what was said before it since the last sync.
fn left(room: &Room, session: &Session, own: &Event, since: Option<u64>, filter: &Filter) -> Value {
    let was_in = own.json["unsigned"]["prev_content"]["membership"] == "join";
    let new: Vec<&Event> = room
        .events
        .iter()
        .filter(|event| event.position == own.position || was_in)
        .filter(|event| event.position > since.unwrap_or(0) && event.position <= own.position)
        .filter(|event| filter.timeline.lets_through(&event.json))
        .collect();
    let timeline = new.get(new.len().saturating_sub(filter.limit)..).unwrap_or_default();
    let start = timeline.first().map_or(own.position, |event| event.position - 1);
    let events: Vec<Value> = timeline.iter().map(|event| shown(event, session)).collect();
    let limited = new.len() > filter.limit;
    json!({"timeline": {"events": events, "limited": limited, "prev_batch": format!("t{start}")}})
}

/// A joined room, if anything is new in it. A room that was joined since the last sync comes as a whole.
fn joined(room: &Room, session: &Session, since: Option<u64>, until: u64, filter: &Filter) -> Option<Value> {
    let own_join = room
        .events
        .iter()
        .rev()
        .filter(|event| event.json["type"] == "m.room.member" && event.json["state_key"] == session.user)
        .take_while(|event| event.json["content"]["membership"] == "join")
        .last()
        .map_or(0, |event| event.position);
    let since = since.filter(|since| own_join <= *since);
    let new: Vec<&Event> = room
        .events
        .iter()
        .filter(|event| event.position > since.unwrap_or(0) && event.position <= until)
        .filter(|event| filter.timeline.lets_through(&event.json))
        .collect();
    if new.is_empty() {
        return None;
    }
    let limited = new.len() > filter.limit;
    let timeline = new.get(new.len().saturating_sub(filter.limit)..).unwrap_or_default();
    let start = timeline.first().map_or(until, |event| event.position - 1);
    let senders: BTreeSet<&str> = timeline
        .iter()
        .filter_map(|event| event.json["sender"].as_str())
        .collect();
    let state: Vec<&Value> = if since.is_none() || limited {
        room.state_at(start)
            .into_iter()
            .filter(|event| since.is_none_or(|since| event.position > since))
            .filter(|event| {
                let member = event.json["type"] == "m.room.member";
                let user = event.json["state_key"].as_str().unwrap_or_default();
                filter.state.lets_through(&event.json)
                    && (!(member && filter.lazy_members) || senders.contains(user) || user == session.user)
            })
            .map(|event| &event.json)
            .collect()
    } else {
        Vec::new()
    };
    let events: Vec<Value> = timeline.iter().map(|event| shown(event, session)).collect();
    let mut joined = json!({"timeline": {"events": events, "limited": limited, "prev_batch": format!("t{start}")}});
    if !state.is_empty() {
        joined["state"] = json!({"events": state});
    }
    Some(joined)
}

/// An event without its room's id, and with its transaction id for the device that sent it.
pub(crate) fn shown(event: &Event, session: &Session) -> Value {
    let mut json = event.json.clone();
    if let Some(fields) = json.as_object_mut() {
        fields.remove("room_id");
    }
    if let Some((user, device, transaction)) = &event.sent_by
        && (user, device) == (&session.user, &session.device)
    {
        json["unsigned"]["transaction_id"] = transaction.clone().into();
    }
    json
}

/// An answer to `/sync` for HTTP.
pub(crate) fn reply(answer: Result<(Value, bool), Refusal>) -> Reply {
    answer.map(|(answer, _)| answer)
}

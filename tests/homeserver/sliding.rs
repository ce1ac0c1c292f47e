//! Simplified sliding sync (MSC4186) as Synapse does it: what a connection was given is remembered, under its positions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    reply::{Refusal, Reply},
    state::{Event, Room, Session, State},
    sync::shown,
};

/// What a connection was given, up to each position that may still come back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    next: u64,
    positions: BTreeMap<u64, Given>,
}

#[derive(Clone, Debug, Default)]
struct Given {
    until: u64,
    rooms: BTreeSet<String>,
}

/// What is asked for of each room.
struct Wanted {
    limit: usize,
    required: Vec<(String, String)>,
}

impl Wanted {
    fn of(body: &Value) -> Self {
        let list = body["lists"].as_object().and_then(|lists| lists.values().next());
        let empty = Value::Null;
        let list = list.unwrap_or(&empty);
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
        Self {
            limit: list["timeline_limit"]
                .as_u64()
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(0),
            required: list["required_state"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(pair)
                .collect(),
        }
    }

    /// Whether a state event is among what is required; `about`: users whom the timeline is about.
    fn requires(&self, event: &Event, own: &str, about: &BTreeSet<&str>) -> bool {
        let (kind, key) = (event.json["type"].as_str(), event.json["state_key"].as_str());
        let (Some(kind), Some(key)) = (kind, key) else {
            return false;
        };
        self.required.iter().any(|(wanted_kind, wanted_key)| {
            wanted_kind == kind
                && match wanted_key.as_str() {
                    "$ME" => key == own,
                    "$LAZY" => about.contains(key),
                    "*" => true,
                    exact => exact == key,
                }
        })
    }
}

impl State {
    /// The answer, and whether there is anything in it. `peek`: nothing is given, it is only looked at.
    pub(crate) fn sliding(
        &mut self,
        session: &Session,
        query: &[(String, String)],
        body: &Value,
        peek: bool,
    ) -> Result<(Value, bool), Refusal> {
        let pos = query
            .iter()
            .find(|(name, _)| name == "pos")
            .map(|(_, pos)| pos.as_str());
        let name = body["conn_id"].as_str().unwrap_or_default().to_owned();
        let before = self.given(session, &name, pos)?;
        let since = before.as_ref().map(|given| given.until);
        let now = self.position;
        let wanted = Wanted::of(body);
        let mut rooms = Map::new();
        let mut given = before.clone().unwrap_or_default();
        given.until = now;
        for (id, room) in &self.rooms {
            let known = before.as_ref().is_some_and(|given| given.rooms.contains(id));
            if let Some(shown) = of_room(room, session, since.filter(|_| known), since, &wanted) {
                if shown.get("invite_state").is_none() {
                    given.rooms.insert(id.clone());
                }
                rooms.insert(id.clone(), shown);
            }
        }
        let mut anything = pos.is_none() || !rooms.is_empty();
        let mut extensions = Map::new();
        if body["extensions"]["e2ee"]["enabled"] == true {
            let mut keys = json!({});
            anything |= self.sync_keys(session, since, &mut keys);
            extensions.insert("e2ee".to_owned(), keys);
        }
        let to_device = &body["extensions"]["to_device"];
        if to_device["enabled"] == true {
            let part = self.sliding_to_device(session, to_device, peek)?;
            anything |= part["events"].as_array().is_some_and(|events| !events.is_empty());
            extensions.insert("to_device".to_owned(), part);
        }
        let number = if peek { 0 } else { self.give(session, name, pos, given) };
        let count = rooms.len();
        let answer = json!({
            "pos": format!("{number}/{now}"),
            "lists": {"all": {"count": count}},
            "rooms": rooms,
            "extensions": extensions,
        });
        Ok((answer, anything))
    }

    fn given(&mut self, session: &Session, name: &str, pos: Option<&str>) -> Result<Option<Given>, Refusal> {
        let Some(pos) = pos else { return Ok(None) };
        let number = pos.split('/').next().and_then(|number| number.parse::<u64>().ok());
        let number = number.ok_or_else(|| Refusal::new(400, "M_INVALID_PARAM", "pos"))?;
        self.device(session)
            .and_then(|device| device.connections.get(name))
            .and_then(|connection| connection.positions.get(&number).cloned())
            .map(Some)
            .ok_or_else(|| Refusal::new(400, "M_UNKNOWN_POS", "Unknown position"))
    }

    /// Remember what was given. Positions before the one that came back are not needed any more.
    fn give(&mut self, session: &Session, name: String, pos: Option<&str>, given: Given) -> u64 {
        let came = pos.and_then(|pos| pos.split('/').next()?.parse::<u64>().ok());
        let Some(device) = self.device(session) else { return 0 };
        let connection = device.connections.entry(name).or_default();
        match came {
            Some(came) => connection.positions.retain(|number, _| *number >= came),
            None => connection.positions.clear(),
        }
        connection.next += 1;
        connection.positions.insert(connection.next, given);
        connection.next
    }

    fn sliding_to_device(&mut self, session: &Session, asked: &Value, peek: bool) -> Reply {
        let since = match asked["since"].as_str() {
            Some(since) => since
                .parse::<u64>()
                .map_err(|_| Refusal::new(400, "M_INVALID_PARAM", "to_device.since"))?,
            None => 0,
        };
        let limit = asked["limit"].as_u64().unwrap_or(100).min(100);
        let limit = usize::try_from(limit).unwrap_or(100);
        let now = self.position;
        let Some(device) = self.device(session) else {
            return Ok(json!({"next_batch": now.to_string(), "events": []}));
        };
        if !peek {
            device.to_device.retain(|(position, _)| *position > since);
        }
        let waiting = device.to_device.iter().filter(|(position, _)| *position > since);
        let page: Vec<&(u64, Value)> = waiting.clone().take(limit).collect();
        let next = match page.last() {
            Some((last, _)) if waiting.count() > limit => *last,
            _ => now,
        };
        let events: Vec<&Value> = page.iter().map(|(_, event)| event).collect();
        Ok(json!({"next_batch": next.to_string(), "events": events}))
    }
}

/// A room, if anything is new in it since `from`; as a whole where that is none. `since`: where the answer begins.
fn of_room(room: &Room, session: &Session, from: Option<u64>, since: Option<u64>, wanted: &Wanted) -> Option<Value> {
    let index = room.state.get(&("m.room.member".to_owned(), session.user.clone()))?;
    let own = room.events.get(*index)?;
    let fresh = since.is_none_or(|since| own.position > since);
    match room.membership(&session.user) {
        "join" => joined(room, session, own, from, since, wanted),
        "invite" | "knock" if fresh => {
            let strip = |event: &Event| {
                json!({"type": event.json["type"], "state_key": event.json["state_key"],
                       "sender": event.json["sender"], "content": event.json["content"]})
            };
            let state: Vec<Value> = room
                .state_at(u64::MAX)
                .into_iter()
                .filter(|event| event.json["type"] != "m.room.member" || event.json["state_key"] == session.user)
                .map(strip)
                .collect();
            Some(json!({"initial": true, "invite_state": state}))
        }
        "leave" | "ban" if fresh && since.is_some() => Some(left(room, session, own, from, wanted)),
        _ => None,
    }
}

/// A room that was left, up to there.
fn left(room: &Room, session: &Session, own: &Event, from: Option<u64>, wanted: &Wanted) -> Value {
    let was_in = own.json["unsigned"]["prev_content"]["membership"] == "join";
    let new: Vec<&Event> = room
        .events
        .iter()
        .filter(|event| event.position == own.position || was_in)
        .filter(|event| event.position > from.unwrap_or(0) && event.position <= own.position)
        .collect();
    let timeline = new.get(new.len().saturating_sub(wanted.limit)..).unwrap_or_default();
    let start = timeline.first().map_or(own.position, |event| event.position - 1);
    let events: Vec<Value> = timeline.iter().map(|event| shown(event, session)).collect();
    let mut answer = json!({
        "timeline": events,
        "limited": new.len() > wanted.limit,
        "prev_batch": format!("t{start}"),
        "required_state": [own.json],
    });
    without_timeline(&mut answer, wanted);
    answer
}

/// Who asks for no events is told nothing about events, not even that there are more.
fn without_timeline(answer: &mut Value, wanted: &Wanted) {
    if let Some(fields) = answer.as_object_mut().filter(|_| wanted.limit == 0) {
        for field in ["timeline", "limited", "prev_batch", "num_live"] {
            fields.remove(field);
        }
    }
}

fn joined(
    room: &Room,
    session: &Session,
    own: &Event,
    from: Option<u64>,
    since: Option<u64>,
    wanted: &Wanted,
) -> Option<Value> {
    // Who comes into a room is shown it as a whole.
    let newly =
        since.is_some_and(|since| own.position > since) && own.json["unsigned"]["prev_content"]["membership"] != "join";
    let from = from.filter(|_| !newly);
    let new: Vec<&Event> = room
        .events
        .iter()
        .filter(|event| event.position > from.unwrap_or(0))
        .collect();
    if from.is_some() && new.is_empty() {
        return None;
    }
    let limited = new.len() > wanted.limit;
    let timeline = new.get(new.len().saturating_sub(wanted.limit)..).unwrap_or_default();
    let start = timeline.first().map_or(0, |event| event.position - 1);
    let about: BTreeSet<&str> = timeline
        .iter()
        .flat_map(|event| [event.json["sender"].as_str(), event.json["state_key"].as_str()])
        .flatten()
        .collect();
    // As it is now, and not as it was when the timeline begins.
    let state: Vec<&Value> = room
        .state_at(u64::MAX)
        .into_iter()
        .filter(|event| event.position > from.unwrap_or(0))
        .filter(|event| wanted.requires(event, &session.user, &about))
        .map(|event| &event.json)
        .collect();
    let live = timeline
        .iter()
        .filter(|event| since.is_some_and(|since| event.position > since))
        .count();
    let events: Vec<Value> = timeline.iter().map(|event| shown(event, session)).collect();
    let mut answer = json!({
        "timeline": events,
        "limited": limited,
        "prev_batch": format!("t{start}"),
        "num_live": live,
        "required_state": state,
    });
    if from.is_none() {
        answer["initial"] = true.into();
    }
    without_timeline(&mut answer, wanted);
    Some(answer)
}

//! Rooms: creating, coming and going, state, and sending.

use serde_json::{Value, json};

use crate::{
    reply::{Refusal, Reply},
    state::{Room, Session, State},
    sync::Wanted,
};

/// The most that an event may take, in bytes of JSON (the specification's "Size limits").
const MAX_EVENT_BYTES: usize = 65_536;

impl State {
    /// The room, if `user` is in it: a room that is not there looks like one that may not be seen.
    pub(crate) fn room_of(&self, room: &str, user: &str) -> Result<&Room, Refusal> {
        self.rooms
            .get(room)
            .filter(|room| room.membership(user) == "join")
            .ok_or_else(|| Refusal::forbidden(&format!("User {user} not in room {room}")))
    }

    /// A room that a user is in, or was, and how far they may see it.
    fn room_once_of(&self, room: &str, user: &str) -> Result<(u64, &Room), Refusal> {
        let known = self.room_of(room, user);
        let Err(refusal) = known else {
            return known.map(|room| (u64::MAX, room));
        };
        let room = self.rooms.get(room);
        let own = room.and_then(|room| {
            let index = room.state.get(&("m.room.member".to_owned(), user.to_owned()))?;
            let own = room.events.get(*index)?;
            (own.json["unsigned"]["prev_content"]["membership"] == "join").then_some((own.position, room))
        });
        own.ok_or(refusal)
    }

    pub(crate) fn create_room(&mut self, session: &Session, body: &Value) -> Reply {
        let name = self.name("!room-");
        let version = body["room_version"].as_str().unwrap_or("10");
        // From version 12 on a room's id is a hash, and names no server.
        let room = if version == "12" {
            name
        } else {
            format!("{name}:{}", self.server_name)
        };
        let user = session.user.clone();
        let preset = body["preset"].as_str().unwrap_or("private_chat");
        let join_rule = if preset == "public_chat" { "public" } else { "invite" };
        self.state_event(
            &room,
            &user,
            "m.room.create",
            "",
            json!({"creator": user, "room_version": version}),
        );
        self.state_event(&room, &user, "m.room.member", &user, json!({"membership": "join"}));
        self.state_event(
            &room,
            &user,
            "m.room.power_levels",
            "",
            json!({"users": {user.clone(): 100}}),
        );
        self.state_event(&room, &user, "m.room.join_rules", "", json!({"join_rule": join_rule}));
        self.state_event(
            &room,
            &user,
            "m.room.history_visibility",
            "",
            json!({"history_visibility": "shared"}),
        );
        for state in body["initial_state"].as_array().into_iter().flatten() {
            let key = state["state_key"].as_str().unwrap_or_default();
            self.state_event(
                &room,
                &user,
                state["type"].as_str().unwrap_or_default(),
                key,
                state["content"].clone(),
            );
        }
        if let Some(name) = body["name"].as_str() {
            self.state_event(&room, &user, "m.room.name", "", json!({"name": name}));
        }
        if let Some(alias) = body["room_alias_name"].as_str() {
            self.aliases
                .insert(format!("#{alias}:{}", self.server_name), room.clone());
        }
        for invited in body["invite"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            self.state_event(&room, &user, "m.room.member", invited, json!({"membership": "invite"}));
        }
        Ok(json!({"room_id": room}))
    }

    fn state_event(&mut self, room: &str, sender: &str, event_type: &str, key: &str, content: Value) -> String {
        self.append(room, sender, event_type, Some(key), content, None)
    }

    pub(crate) fn join(&mut self, session: &Session, room_or_alias: &str) -> Reply {
        let room = self
            .aliases
            .get(room_or_alias)
            .cloned()
            .unwrap_or_else(|| room_or_alias.to_owned());
        let Some(known) = self.rooms.get(&room) else {
            return Err(Refusal::not_found("No known servers"));
        };
        let public = known
            .content("m.room.join_rules", "")
            .is_some_and(|rules| rules["join_rule"] == "public");
        match known.membership(&session.user) {
            "join" => {}
            "invite" => self.member(&room, session, &session.user, "join"),
            "ban" => return Err(Refusal::forbidden("You are banned from this room.")),
            _ if public => self.member(&room, session, &session.user, "join"),
            _ => return Err(Refusal::forbidden("You are not invited to this room.")),
        }
        Ok(json!({"room_id": room}))
    }

    fn member(&mut self, room: &str, session: &Session, user: &str, membership: &str) {
        self.state_event(
            room,
            &session.user,
            "m.room.member",
            user,
            json!({"membership": membership}),
        );
    }

    /// `invite`, `kick`, `ban`, `unban`: what a member does to another user.
    pub(crate) fn moderate(&mut self, session: &Session, room: &str, what: &str, body: &Value) -> Reply {
        let known = self.room_of(room, &session.user)?;
        let user = body["user_id"].as_str().unwrap_or_default().to_owned();
        let before = known.membership(&user).to_owned();
        let membership = match (what, before.as_str()) {
            ("invite", "join") => return Err(Refusal::forbidden(&format!("{user} is already in the room."))),
            ("invite", "ban") => return Err(Refusal::forbidden("The user is banned.")),
            ("invite", _) if !user.contains(':') => return Err(Refusal::bad_json("user_id is not a user id")),
            ("invite", _) => "invite",
            ("ban", _) => "ban",
            _ => "leave",
        };
        self.member(room, session, &user, membership);
        Ok(json!({}))
    }

    pub(crate) fn leave(&mut self, session: &Session, room: &str) -> Reply {
        match self
            .rooms
            .get(room)
            .map(|known| known.membership(&session.user).to_owned())
            .as_deref()
        {
            Some("join" | "invite") => self.member(room, session, &session.user, "leave"),
            Some(_) => {}
            None => return Err(Refusal::not_found("Not a known room")),
        }
        Ok(json!({}))
    }

    pub(crate) fn joined_rooms(&self, session: &Session) -> Reply {
        let joined = self
            .rooms
            .iter()
            .filter(|(_, room)| room.membership(&session.user) == "join");
        Ok(json!({"joined_rooms": joined.map(|(id, _)| id).collect::<Vec<_>>()}))
    }

    pub(crate) fn members(&self, session: &Session, room: &str, query: &[(String, String)]) -> Reply {
        let known = self.room_of(room, &session.user)?;
        let value = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let chunk: Vec<&Value> = known
            .state_at(u64::MAX)
            .into_iter()
            .filter(|event| event.json["type"] == "m.room.member")
            .filter(|event| {
                let membership = event.json["content"]["membership"].as_str();
                value("membership").is_none_or(|wanted| membership == Some(wanted))
                    && value("not_membership").is_none_or(|unwanted| membership != Some(unwanted))
            })
            .map(|event| &event.json)
            .collect();
        Ok(json!({"chunk": chunk}))
    }

    pub(crate) fn joined_members(&self, session: &Session, room: &str) -> Reply {
        let known = self.room_of(room, &session.user)?;
        let joined = known
            .present()
            .into_iter()
            .filter(|user| known.membership(user) == "join");
        Ok(json!({"joined": joined.map(|user| (user, json!({}))).collect::<serde_json::Map<_, _>>()}))
    }

    pub(crate) fn all_state(&self, session: &Session, room: &str) -> Reply {
        let known = self.room_of(room, &session.user)?;
        Ok(Value::Array(
            known
                .state_at(u64::MAX)
                .into_iter()
                .map(|event| event.json.clone())
                .collect(),
        ))
    }

    pub(crate) fn get_state(&self, session: &Session, room: &str, event_type: &str, key: &str) -> Reply {
        let known = self.room_of(room, &session.user)?;
        known
            .content(event_type, key)
            .cloned()
            .ok_or_else(|| Refusal::not_found("Event not found."))
    }

    pub(crate) fn put_state(
        &mut self,
        session: &Session,
        room: &str,
        event_type: &str,
        key: &str,
        content: Value,
    ) -> Reply {
        self.room_of(room, &session.user)?;
        if !content.is_object() {
            return Err(Refusal::bad_json("Content must be a JSON object."));
        }
        Ok(json!({"event_id": self.state_event(room, &session.user, event_type, key, content)}))
    }

    pub(crate) fn send(
        &mut self,
        session: &Session,
        room: &str,
        event_type: &str,
        transaction: &str,
        content: Value,
    ) -> Reply {
        let key = format!("send {room} {transaction}");
        if let Some(answer) = self
            .device(session)
            .and_then(|device| device.transactions.get(&key).cloned())
        {
            return Ok(answer);
        }
        self.room_of(room, &session.user)?;
        if !content.is_object() {
            return Err(Refusal::bad_json("Content must be a JSON object."));
        }
        // What is around the content takes about this much.
        if content.to_string().len() + 1_000 > MAX_EVENT_BYTES {
            return Err(Refusal::new(413, "M_TOO_LARGE", "event too large"));
        }
        let sent_by = (session.user.clone(), session.device.clone(), transaction.to_owned());
        let answer = json!({"event_id": self.append(room, &session.user, event_type, None, content, Some(sent_by))});
        if let Some(device) = self.device(session) {
            device.transactions.insert(key, answer.clone());
        }
        Ok(answer)
    }

    pub(crate) fn event(&self, session: &Session, room: &str, event: &str) -> Reply {
        let known = self.room_of(room, &session.user)?;
        let found = known.events.iter().find(|known| known.json["event_id"] == event);
        found
            .map(|found| found.json.clone())
            .ok_or_else(|| Refusal::not_found("Event not found."))
    }

    /// Backwards from `from`, or forwards with `dir=f`.
    pub(crate) fn messages(&self, session: &Session, room: &str, query: &[(String, String)]) -> Reply {
        let (until, known) = self.room_once_of(room, &session.user)?;
        let value = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let position =
            |token: Option<&str>| token.and_then(|token| token.trim_start_matches(['s', 't']).parse::<u64>().ok());
        let limit = value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10);
        let forwards = value("dir") == Some("f");
        let (from, to) = (position(value("from")), position(value("to")));
        let wanted: Value = value("filter")
            .and_then(|filter| serde_json::from_str(filter).ok())
            .unwrap_or_default();
        let wanted = Wanted::of(&wanted);
        let mut events: Vec<_> = known
            .events
            .iter()
            .filter(|event| wanted.lets_through(&event.json))
            .filter(|event| event.position <= until)
            .filter(|event| to.is_none_or(|to| (event.position <= to) == forwards))
            .filter(|event| {
                from.is_none_or(|from| {
                    if forwards {
                        event.position > from
                    } else {
                        event.position <= from
                    }
                })
            })
            .collect();
        if !forwards {
            events.reverse();
        }
        let more = events.len() > limit;
        events.truncate(limit);
        let mut answer = json!({
            "chunk": events.iter().map(|event| &event.json).collect::<Vec<_>>(),
            "start": value("from").unwrap_or("t0"),
        });
        if let Some(last) = events.last().filter(|_| more) {
            let end = if forwards { last.position } else { last.position - 1 };
            answer["end"] = format!("t{end}").into();
        }
        Ok(answer)
    }
}

//! Redactions: the content of an event is forgotten, and everybody is told.

use serde_json::{Value, json};

use crate::{
    reply::{Refusal, Reply},
    state::{Session, State},
};

impl State {
    /// A member redacts what they said; who made the room redacts everything.
    pub(crate) fn redact(
        &mut self,
        session: &Session,
        room: &str,
        event: &str,
        transaction: &str,
        body: &Value,
    ) -> Reply {
        let key = format!("redact {room} {event} {transaction}");
        let before = self.device(session).and_then(|device| device.transactions.get(&key));
        if let Some(answer) = before {
            return Ok(answer.clone());
        }
        let known = self.room_of(room, &session.user)?;
        let target = known.events.iter().find(|known| known.json["event_id"] == event);
        let target = target.ok_or_else(|| Refusal::not_found("Event not found."))?;
        let moderator = known
            .content("m.room.power_levels", "")
            .is_some_and(|levels| levels["users"].get(&session.user).is_some());
        if target.json["sender"] != session.user.as_str() && !moderator {
            return Err(Refusal::forbidden("You don't have permission to redact events"));
        }
        let reason = body.get("reason").map(|reason| json!({"reason": reason}));
        let content = reason.unwrap_or_else(|| json!({}));
        let redaction = self.append(room, &session.user, "m.room.redaction", None, content, None);
        let known = self.rooms.entry(room.to_owned()).or_default();
        let mut because = Value::Null;
        if let Some(told) = known.events.last_mut() {
            // Up to room version 10 beside the content.
            told.json["redacts"] = event.into();
            because = told.json.clone();
        }
        for known in known.events.iter_mut().filter(|known| known.json["event_id"] == event) {
            known.json["content"] = json!({});
            known.json["unsigned"]["redacted_because"] = because.clone();
        }
        let answer = json!({"event_id": redaction});
        if let Some(device) = self.device(session) {
            device.transactions.insert(key, answer.clone());
        }
        Ok(answer)
    }
}
